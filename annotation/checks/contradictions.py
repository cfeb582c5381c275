"""Answers that contradict what is known about the image: its age, gender and race, or a rendered face's factors.

The one surprising fact: most wrong words in an answer are right. Another person, a comparison, a denial or an age that
lies close to the label's border is no contradiction, so every claim is first asked whom it is about.
"""

from collections.abc import Iterator
from typing import Final

from annotation.checks.ages import Years, age_phrases, is_far, noun_years
from annotation.checks.denial import Span, denied_spans, is_within
from annotation.checks.findings import Facts, Finding
from annotation.checks.people import Mention, mentions, owner
from annotation.checks.races import race_phrases
from annotation.fairface import AGES, GENDERS, RACES, age_range, age_words, ethnicity
from annotation.models import Severity
from facellm import face_text
from facellm.data import Attribute
from facellm.faces import FACTORS

CHECK: Final = "contradiction"
# Factors whose words mean the same whatever is asked; the others, such as "even" light, only in their own answers.
_ANYWHERE: Final = ("glasses", "beard", "hair_colour", "skin_tone")


def find_contradictions(facts: Facts) -> Iterator[Finding]:
    """What the answer says against its image's labels: at most one finding for each label."""
    age, gender, race = (facts.labels.get(name) for name in ("age", "gender", "race"))
    if age in AGES or gender in GENDERS or race in RACES:
        denied = denied_spans(facts.answer)
        people = mentions(facts.answer, denied)
        if gender in GENDERS:
            yield from _gender(gender, people)
        if age in AGES:
            yield from _age(age, gender, facts.answer, people, denied)
        if race in RACES:
            yield from _race(race, facts.answer, people, denied)
    yield from _factors(facts)


def _finding(message: str, start: int, end: int) -> Finding:
    return Finding(CHECK, Severity.ERROR, message, start, end)


def _gender(label: str, people: list[Mention]) -> Iterator[Finding]:
    """The first person whose gender is told is the one whom the answer is about."""
    first = next((one for one in people if one.claims and one.is_subject and one.gender), None)
    if first and first.gender != label:
        yield _finding(f"“{first.word}”, where the label says {label.lower()}.", first.start, first.end)


def _age(label: str, gender: str | None, text: str, people: list[Mention], denied: list[Span]) -> Iterator[Finding]:
    years = age_range(label)
    for start, end, named in _named_ages(text, people):
        if is_within(start, denied) or not is_far(named, years):
            continue
        about = owner(end - 1, text, people)
        if about is None or _may_be_subject(about, gender, people):
            said = " ".join(text[start:end].split())
            yield _finding(f"“{said}”, where the label says {age_words(label)}.", start, end)
            return


def _named_ages(text: str, people: list[Mention]) -> list[tuple[int, int, Years]]:
    """Ages by phrases such as "in his thirties", and by nouns such as "old man"."""
    named = [(phrase.start, phrase.end, phrase.years) for phrase in age_phrases(text)]
    for one in people:
        years = noun_years(one.word, one.adjectives)
        if years and one.claims:
            named.append((one.start - len(one.adjectives), one.end, years))
    return sorted(named)


def _may_be_subject(about: Mention, gender: str | None, people: list[Mention]) -> bool:
    """Whether something may be said about the one of the picture: not about a child beside a woman, say."""
    if not about.is_subject:
        return False
    right = any(one.gender == gender for one in people if one.claims and one.is_subject)
    return about.gender in (None, gender) or not right


def _race(label: str, text: str, people: list[Mention], denied: list[Span]) -> Iterator[Finding]:
    """Of several races, as in "Hispanic or Middle Eastern", one that agrees is enough."""
    claims = [
        phrase
        for phrase in race_phrases(text)
        if not is_within(phrase.start, denied) and _is_about_subject(phrase.end, text, people)
    ]
    if claims and not any(label in phrase.races for phrase in claims):
        first = claims[0]
        said = text[first.start : first.end]
        yield _finding(f"“{said}”, where the label says {ethnicity(label)}.", first.start, first.end)


def _is_about_subject(position: int, text: str, people: list[Mention]) -> bool:
    following = next((one for one in people if 0 <= one.start - position <= 12 and text[position].isspace()), None)
    about = following or owner(position, text, people)
    return about is None or about.is_subject


def _factors(facts: Facts) -> Iterator[Finding]:
    """Values of a rendered face's factors that are named, but are not the labels'."""
    own = () if facts.attribute is None else face_text.FACETS[facts.attribute]
    if facts.attribute is Attribute.DETAIL:
        own = (*own, "hair_style")
    known = [factor for factor in dict.fromkeys((*own, *_ANYWHERE)) if facts.labels.get(factor) in FACTORS[factor]]
    text = _without_comparisons(facts.answer) if known else ""
    for factor in known:
        label = facts.labels[factor]
        wrong = face_text.named(factor, text) - {label}
        if wrong:
            start, end = _shortest(factor, sorted(wrong)[0], text)
            says = f"“{factor.replace('_', ' ')}: {label}”"
            yield _finding(f"“{facts.answer[start:end]}”, where the label says {says}.", start, end)


def _without_comparisons(text: str) -> str:
    """The text with blanks where it only compares; what it denies stays, because "no beard" names a value."""
    for start, end in denied_spans(text, comparisons_only=True):
        text = text[:start] + " " * (end - start) + text[end:]
    return text


def _shortest(factor: str, value: str, text: str) -> Span:
    """The shortest run of words that still names the value; where there are several, the first."""
    starts = [i for i, char in enumerate(text) if not char.isspace() and (i == 0 or text[i - 1].isspace())]
    ends = [i + 1 for i, char in enumerate(text) if not char.isspace() and (text + " ")[i + 1].isspace()]
    end = next(e for e in ends if value in face_text.named(factor, text[:e]))
    start = next(s for s in reversed(starts) if s < end and value in face_text.named(factor, text[s:end]))
    return start, start + len(text[start:end].rstrip(".,;:!?"))
