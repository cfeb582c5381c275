"""The automatic checks of one answer: what they find, what they leave alone, and how well on labelled answers.

python -m pytest tests/test_quality.py
"""

import sys
from pathlib import Path

import pytest

from annotation import seed
from annotation.checks.ages import age_phrases, is_far
from annotation.checks.corpus_checks import find_length_outliers, find_near_duplicates
from annotation.checks.denial import denied_spans, is_within
from annotation.checks.findings import Facts, Finding
from annotation.checks.near_duplicates import near_duplicates
from annotation.checks.quality import PAIR_CHECKS, check_pair
from annotation.checks.races import race_phrases
from annotation.checks.refusals import declined_part, is_refusal
from annotation.fairface import age_range
from annotation.models import Severity
from facellm.data import Attribute

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import quality as benchmark  # noqa: E402 - after the path to the benchmarks

ANSWERS = benchmark.read_answers()
MAN_IN_HIS_TWENTIES = {"age": "20-29", "gender": "Male", "race": "White"}


def facts(answer: str, labels: dict[str, str] | None = None, attribute: Attribute = Attribute.DEMOGRAPHIC) -> Facts:
    return Facts(attribute, attribute.question, answer, MAN_IN_HIS_TWENTIES if labels is None else labels)


def found(answer: str, labels: dict[str, str] | None = None, attribute: Attribute = Attribute.DEMOGRAPHIC) -> set[str]:
    return {finding.check for finding in check_pair(facts(answer, labels, attribute))}


def span_of(finding: Finding, answer: str) -> str:
    return answer[finding.span_start : finding.span_end]


# ---- the labelled answers


def test_the_labelled_answers_are_as_many_and_as_varied_as_promised() -> None:
    assert len({answer["answer"] for answer in ANSWERS}) == len(ANSWERS) >= 400
    problems = [problem for answer in ANSWERS for problem in answer["problems"]]
    assert problems.count("refusal") >= 60
    assert problems.count("leak") >= 60
    assert problems.count("contradiction") >= 80
    assert sum(not answer["problems"] for answer in ANSWERS) >= 200
    assert {answer["attribute"] for answer in ANSWERS} == {*(attribute.value for attribute in Attribute), None}
    races = {answer["labels"].get("race") for answer in ANSWERS} - {None}
    assert len(races) == 7


@pytest.mark.parametrize("half", ["test", "all"])
@pytest.mark.parametrize(
    ("problem", "recall", "precision"),
    [("refusal", 0.95, 0.9), ("leak", 0.95, 0.9), ("contradiction", 0.9, 0.85), ("identity", 0.9, 0.9)],
)
def test_the_checks_find_what_is_wrong(half: str, problem: str, recall: float, precision: float) -> None:
    row = benchmark.scores([answer for answer in ANSWERS if half in (answer["split"], "all")])[problem]
    assert row["recall"] >= recall
    assert row["precision"] >= precision


def test_every_span_lies_in_its_answer() -> None:
    for answer in ANSWERS:
        for finding in check_pair(benchmark.facts_of(answer)):
            if finding.span_start is not None and finding.span_end is not None:
                assert 0 <= finding.span_start < finding.span_end <= len(answer["answer"])
            assert finding.message.endswith(".")


def test_a_clean_answer_is_seldom_troubled_by_any_check() -> None:
    clean = [answer for answer in ANSWERS if not answer["problems"]]
    troubled = [answer for answer in clean if check_pair(benchmark.facts_of(answer))]
    assert len(troubled) / len(clean) <= 0.03


def test_the_template_teachers_mistakes_are_found_without_its_truth() -> None:
    missed, false_alarms = 0, 0
    for number in range(40):
        labels = seed._face(number).labels()
        for attribute, draft in seed._drafts(number).items():
            findings = check_pair(Facts(attribute, attribute.question, draft.answer, labels))
            missed += draft.mistake is not None and not findings
            false_alarms += draft.mistake is None and bool(findings)
    assert false_alarms == 0
    assert missed <= 2


# ---- refusals


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I’m unable to describe people in images.",
        "As an AI, I cannot assess the emotions of a person. Is there anything else?",
        *seed.REFUSALS,
    ],
)
def test_refusals(text: str) -> None:
    span = is_refusal(text)
    assert span is not None
    assert text[slice(*span)].strip()
    assert declined_part(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "I can't see the person's ears because hair covers them.",
        "The image quality cannot be determined precisely, but the light is even.",
        "It is not possible to make out the eyes behind the sunglasses.",
        "He cannot hide his joy: he laughs with his mouth open.",
        "She does not smile.",
        "",
    ],
)
def test_descriptions_are_no_refusals(text: str) -> None:
    assert is_refusal(text) is None
    assert declined_part(text) is None


def test_a_declined_part_is_a_warning_and_leaves_the_other_checks() -> None:
    answer = "I can't identify the person. She is a young woman with fair skin and brown hair."
    findings = check_pair(facts(answer))
    assert [(finding.check, finding.severity) for finding in findings] == [
        ("refusal", Severity.WARNING),
        ("contradiction", Severity.ERROR),
    ]
    assert span_of(findings[0], answer) == "I can't identify the person."
    assert found("I'm sorry, I can't describe this woman.") == {"refusal"}, "a refusal has no other finding"


# ---- contradictions


@pytest.mark.parametrize(
    ("phrase", "years"),
    [
        ("in his mid-thirties", (34, 36)),
        ("in her early to mid-thirties", (30, 36)),
        ("in the late twenties or early thirties", (27, 33)),
        ("in his 60s", (60, 69)),
        ("around 25 years old", (25, 25)),
        ("between 20 and 30", (20, 30)),
        ("aged 40 to 49", (40, 49)),
        ("a 7-year-old", (7, 7)),
        ("over seventy", (70, 120)),
        ("under two years of age", (0, 2)),
        ("probably forty-five", (45, 45)),
        ("elderly", (60, 120)),
        ("a toddler", (0, 3)),
        ("a teenager", (12, 19)),
        ("middle-aged", (38, 62)),
    ],
)
def test_ages_are_understood(phrase: str, years: tuple[int, int]) -> None:
    text = f"The person is {phrase}, it seems."
    (age,) = age_phrases(text)
    assert age.years == years


@pytest.mark.parametrize(
    "text",
    [
        "The head is turned by about 30 degrees.",
        "Around 80 percent of the face is lit.",
        "It was shot at about 50 mm.",
        "It is grainy like a photo from the 70s.",
        "One of the eyes is closed.",
        "A childlike softness and a boyish grin.",
    ],
)
def test_other_numbers_are_no_ages(text: str) -> None:
    assert age_phrases(text) == []


@pytest.mark.parametrize(
    ("years", "label", "far"),
    [
        ((30, 30), "20-29", False),
        ((27, 29), "30-39", False),
        ((50, 60), "60-69", False),
        ((20, 29), "30-39", True),
        ((24, 26), "30-39", True),
        ((13, 19), "20-29", True),
        ((60, 120), "more than 70", False),
        ((0, 2), "3-9", False),
    ],
)
def test_an_age_near_the_border_is_no_contradiction(years: tuple[int, int], label: str, far: bool) -> None:
    assert is_far(years, age_range(label)) is far


@pytest.mark.parametrize(
    ("text", "races"),
    [
        ("A man of Korean descent.", {"East Asian"}),
        ("She looks Asian.", {"East Asian", "Southeast Asian"}),
        ("He is South Asian.", {"Indian"}),
        ("He is of Latin American origin.", {"Latino_Hispanic"}),
        ("A Caucasian woman.", {"White"}),
        ("a black man", {"Black"}),
        ("White background, black hair and an African print dress.", None),
        ("His shirt is white and his hair is Black.", None),
        ("An Indian restaurant and an Asian-style lamp.", None),
    ],
)
def test_races_are_words_about_people(text: str, races: set[str] | None) -> None:
    assert [set(phrase.races) for phrase in race_phrases(text)] == ([] if races is None else [races])


@pytest.mark.parametrize(
    "answer",
    [
        "He does not appear to be older than thirty, and he is no woman: a White man.",
        "With long hair he could be mistaken for a woman; he is a White man.",
        "He is a man rather than a teenager. Unlike an elderly man, he has no wrinkles.",
        "A White man in a black shirt stands next to an elderly woman.",
        "The man holds a baby. The baby is about one year old.",
        "He is a young man. A girl of about seven leans on his shoulder.",
        "A man, or a woman with short hair: he is in his twenties.",
    ],
)
def test_denied_compared_and_other_people_do_not_contradict(answer: str) -> None:
    assert "contradiction" not in found(answer)


@pytest.mark.parametrize(
    ("answer", "marked"),
    [
        ("A young woman with brown hair.", "woman"),
        ("A man in his mid-forties.", "mid-forties"),
        ("He is a Black man in his twenties.", "Black"),
        ("An elderly man with fair skin.", "elderly"),
        ("Her face is oval.", "her"),
    ],
)
def test_contradictions_are_marked(answer: str, marked: str) -> None:
    (finding,) = [one for one in check_pair(facts(answer)) if one.check == "contradiction"]
    assert marked in span_of(finding, answer).lower() or span_of(finding, answer) == marked


RENDERED = seed._face(0).labels() | {"beard": "none", "glasses": "none", "pose": "left", "hair_colour": "black"}


@pytest.mark.parametrize(
    ("answer", "attribute", "marked"),
    [
        ("The head is turned to the right.", Attribute.POSE, "turned to the right"),
        ("Not to the right: the head is turned to the left.", Attribute.POSE, None),
        ("A full beard, and no glasses.", Attribute.STRUCTURE, "beard"),
        ("There is no beard or moustache.", Attribute.STRUCTURE, None),
        ("The face is round; a beard is nowhere to be seen.", Attribute.FORENSIC, None),
        ("The hair is blond.", Attribute.DETAIL, "hair is blond"),
    ],
)
def test_rendered_faces_are_checked_by_their_factors(answer: str, attribute: Attribute, marked: str | None) -> None:
    findings = [one for one in check_pair(facts(answer, RENDERED, attribute)) if one.check == "contradiction"]
    assert [span_of(finding, answer) for finding in findings] == ([] if marked is None else [marked])


def test_without_labels_nothing_contradicts() -> None:
    assert found("A woman in her sixties.", {}) == set()


def test_denials_end_where_a_clause_does() -> None:
    text = "He is not old, but young, and without a beard or a moustache; he smiles."
    spans = denied_spans(text)
    inside = [word for word in ("old", "young", "beard", "moustache", "smiles") if is_within(text.index(word), spans)]
    assert inside == ["old", "beard", "moustache"]


# ---- other wordings


@pytest.mark.parametrize("leak", [*seed.LEAKS, "The Latino_Hispanic man.", "As the label says, he is 25."])
def test_leaks(leak: str) -> None:
    assert "leak" in found(f"{leak} He is a young man.")


def test_a_leak_is_marked_as_a_whole() -> None:
    answer = "He smiles. We know from the given attributes that he is young."
    (finding,) = [one for one in check_pair(facts(answer)) if one.check == "leak"]
    assert span_of(finding, answer) == "We know from the given attributes"


def test_names_are_found_and_places_are_not() -> None:
    assert "identity" in found("He looks a lot like Brad Pitt.")
    assert "identity" not in found("He resembles a passport photo and wears a Manchester United shirt in New York.")


def test_hedging_and_cut_off_answers() -> None:
    assert "hedging" in found("He may be a man, perhaps, possibly young, or maybe not; it seems he might smile.")
    assert "cut off" in found("The man in this picture is a young White man with brown hair and a")
    assert "cut off" in found("…")
    assert found("The man is young.") == set()


def test_only_the_checks_that_are_asked_for_run() -> None:
    answer = "According to the label, she is a woman."
    assert {finding.check for finding in check_pair(facts(answer), ("leak",))} == {"leak"}
    assert check_pair(facts("I'm sorry, I can't help with that."), ("leak",)) == []
    assert list(PAIR_CHECKS) == ["refusal", "contradiction", "leak", "identity", "off topic", "cut off", "hedging"]


# ---- all answers together


def test_near_duplicates_are_those_that_exact_counting_finds() -> None:
    def phrases(text: str) -> set[tuple[str, ...]]:
        words = "".join(char if char.isalnum() else " " for char in text.lower()).split()
        return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}

    long = [f"{one['answer']} {two['answer']}" for one, two in zip(ANSWERS[:120:2], ANSWERS[1:120:2], strict=True)]
    changed = [text.replace(" the ", " this ", 1) for text in long[:40]]
    texts = [*long, *changed, long[0], "The head faces the camera."]
    near = near_duplicates([*texts, "The head faces the camera."])
    for number, (earlier, similarity) in near.items():
        one, other = phrases(texts[number]), phrases(texts[earlier])
        assert similarity == pytest.approx(len(one & other) / len(one | other))
        assert similarity >= 0.8
        assert earlier < number
    expected = set()
    for number, text in enumerate(texts):
        mine = phrases(text)
        if any(len(mine & phrases(o)) >= 0.8 * len(mine | phrases(o)) for o in texts[:number] if len(o.split()) >= 20):
            expected.add(number)
    assert set(near) == {number for number in expected if len(texts[number].split()) >= 20}
    assert near[texts.index("The head faces the camera.") - 1] == (0, 1.0)
    assert len(near) >= 15


def test_corpus_checks_name_the_other_pair_and_the_usual_length() -> None:
    usual = "one two three four five six seven eight nine ten eleven"
    answers = [f"{usual} {number}" for number in range(40)]
    ids = list(range(100, 140))
    assert find_length_outliers(ids, answers) == {}
    answers[7] = "word " * 60
    answers[8] = "No."
    outliers = find_length_outliers(ids, answers)
    assert sorted(outliers) == [107, 108]
    assert outliers[107].message == "Longer than the others: 60 words, where 12 are usual."
    assert find_length_outliers(ids[:20], answers[:20]) == {}, "too few to know what is usual"

    long = " ".join(f"word{number}" for number in range(30))
    (twice,) = find_near_duplicates([5, 9], [long, long]).items()
    assert twice[0] == 9
    assert twice[1].message == "Nearly the same as pair 5: 100% of their phrases."
