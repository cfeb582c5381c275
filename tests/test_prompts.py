"""What a teacher is told, and what it is not."""

import hashlib
import itertools
import json
import re

import pytest

from annotation.fairface import AGES, GENDERS, RACES, age_words, ethnicity
from annotation.teaching.prompts import (
    ANSWER_WORDS,
    COMBINED_VERSION,
    DECLINED,
    PROMPT_VERSION,
    SYSTEM,
    answer_schema,
    combined_instruction,
    instruction,
)
from facellm import faces
from facellm.data import Attribute
from facellm.face_text import FACETS

# The texts of every version that there has been. Never change a line: raise the version, and add one.
TEXTS = {
    "single-1": "c825a7d197ec50b1a45003ae2e37aa6a4a9740ef7853fce7ad156533abf87653",
    "combined-1": "f4ed8296503d74d43591b02dbe72503a6c7157874b43f4359d0b01edd35ba70c",
}
EVERYTHING = tuple(Attribute)
FAIRFACE = [
    {name: value for name, value in zip(("age", "gender", "race"), values, strict=True) if value is not None}
    for values in itertools.product((*AGES, None), (*GENDERS, None), (*RACES, None))
]
RENDERED = [{factor: value} for factor, values in faces.FACTORS.items() for value in values]


def digest(texts: list[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


@pytest.mark.parametrize(
    ("version", "name", "texts"),
    [
        (
            PROMPT_VERSION,
            "PROMPT_VERSION",
            [instruction(attribute, labels) for attribute in Attribute for labels in FAIRFACE + RENDERED],
        ),
        (
            COMBINED_VERSION,
            "COMBINED_VERSION",
            [combined_instruction(EVERYTHING, labels) for labels in FAIRFACE + RENDERED]
            + [combined_instruction([attribute], {}) for attribute in Attribute]
            + [json.dumps(answer_schema(EVERYTHING))],
        ),
    ],
    ids=["single", "combined"],
)
def test_a_changed_text_has_a_new_version(version: str, name: str, texts: list[str]) -> None:
    found = digest([SYSTEM, *texts])
    assert TEXTS.get(version) == found, (
        f"The texts of {version} are not those recorded for it. Whoever changes a prompt or a word of a hint raises "
        f"{name} in annotation/teaching/prompts.py, so that old and new answers stay apart, and adds a line with "
        f"the new version and {found} to TEXTS in this file."
    )


def test_versions_are_told_apart() -> None:
    assert PROMPT_VERSION != COMBINED_VERSION
    assert len(set(TEXTS.values())) == len(TEXTS)


@pytest.mark.parametrize("attribute", Attribute)
def test_the_stored_question_has_no_hint(attribute: Attribute) -> None:
    words = {word for values in (GENDERS, RACES, *faces.FACTORS.values()) for word in values}
    words |= {age_words(age) for age in AGES} | {ethnicity(race) for race in RACES} | {"label", "known", "hint"}
    question = attribute.question
    assert not [word for word in words if re.search(rf"\b{re.escape(word)}\b", question, re.IGNORECASE)]
    assert not re.search(r"\d", question)


@pytest.mark.parametrize("attribute", Attribute)
def test_known_labels_are_hints(attribute: Attribute) -> None:
    labels = {"age": "20-29", "gender": "Female", "race": "Latino_Hispanic", "service_test": "True"}
    text = instruction(attribute, labels)
    assert text.endswith("Known labels: person: woman; age: 20 to 29 years old; ethnicity: Latino or Hispanic.")
    assert text.startswith(instruction(attribute, {}))
    assert "Known labels" not in instruction(attribute, {})


@pytest.mark.parametrize(
    ("age", "gender", "word"),
    [
        ("0-2", "Male", "baby boy"),
        ("0-2", "Female", "baby girl"),
        ("3-9", "Male", "boy"),
        ("10-19", "Male", "young male"),
        ("20-29", "Male", "man"),
        ("more than 70", "Female", "woman"),
    ],
)
def test_the_word_fits_the_age(age: str, gender: str, word: str) -> None:
    assert f"person: {word}; age: {age_words(age)}." in instruction(Attribute.SKIN, {"age": age, "gender": gender})


def test_labels_may_be_missing() -> None:
    def hint(**labels: str) -> str:
        return instruction(Attribute.POSE, labels).removeprefix(instruction(Attribute.POSE, {})).strip()

    assert hint(race="East Asian") == "Known labels: ethnicity: East Asian."
    assert hint(gender="Male") == "Known labels: person: male.", "whether man or boy is not known"
    assert hint(age="0-2") == "Known labels: person: infant; age: 0 to 2 years old."
    assert hint(service_test="True", file="val/1.jpg") == ""
    assert hint(age="9-Mar", gender="Male") == "Known labels: person: male.", (
        "what is no value of FairFace's is no hint"
    )


def test_no_prompt_shows_a_raw_value() -> None:
    for labels in [*FAIRFACE, *RENDERED, faces.sample(1).labels()]:
        for attribute in Attribute:
            assert "_" not in instruction(attribute, labels | {"service_test": "True"})
            assert "True" not in instruction(attribute, labels | {"service_test": "True"})


@pytest.mark.parametrize("attribute", Attribute)
def test_rendered_faces_give_what_belongs_to_the_attribute(attribute: Attribute) -> None:
    text = instruction(attribute, faces.sample(3).labels())
    hint = text.split("Known labels: ")[1]
    named = {part.split(":")[0].strip().replace(" ", "_") for part in hint.rstrip(".").split(";")}
    assert named == set(faces.FACTORS if attribute is Attribute.DETAIL else FACETS[attribute])


def test_rendered_values_read_well() -> None:
    labels = {"hair_colour": "brown", "pose": "left", "lighting": "right", "beard": "full"}
    hint = instruction(Attribute.DETAIL, labels).split("\n\n")[1]
    assert hint == (
        "Known labels: hair colour: brown; beard: full beard; pose: turned to the left of the picture; "
        "lighting: from the right of the picture."
    )


@pytest.mark.parametrize("attribute", Attribute)
def test_each_prompt_asks_for_one_thing_of_one_length(attribute: Attribute) -> None:
    low, high = ANSWER_WORDS[attribute]
    text = instruction(attribute, {})
    assert f"{low} to {high} words" in text
    assert ("Keep to this topic" in text) == (attribute is not Attribute.DETAIL)
    assert len({instruction(other, {}) for other in Attribute}) == len(Attribute)


def test_nobody_is_pressed() -> None:
    """A teacher may decline, and is told how; the words with which others press are not there."""
    for text in (SYSTEM, combined_instruction(EVERYTHING, {})):
        assert DECLINED in text
    everything = " ".join([SYSTEM, combined_instruction(EVERYTHING, {}), *(instruction(a, {}) for a in Attribute)])
    pressing = r"at any cost|at all costs|must|never say|always answer|unable|not allowed to (?:refuse|decline)|refus"
    assert not re.search(pressing, everything, re.IGNORECASE)


def test_the_rules_are_there() -> None:
    for rule in ("can be seen", "who the person is", "without a word about labels", "no lists", "no markdown"):
        assert rule in SYSTEM


def test_several_attributes_are_asked_at_once() -> None:
    labels = {"age": "3-9", "gender": "Female"}
    text = combined_instruction([Attribute.POSE, Attribute.SKIN], labels)
    assert re.findall(r"^(\w+) \(60 to 120 words\): ", text, re.MULTILINE) == ["skin", "pose"]
    assert text.count("Known labels: person: girl; age: 3 to 9 years old.") == 1
    assert text == combined_instruction({Attribute.SKIN, Attribute.POSE}, labels)
    rendered = combined_instruction([Attribute.POSE, Attribute.SKIN], faces.sample(3).labels())
    assert re.findall(r"(\w+): \w+[^;:]*[;.]", rendered.split("Known labels: ")[1]) == ["wrinkles", "pose"]


def test_the_schema_is_strict() -> None:
    """OpenAI's rules for structured outputs: an object, every property required, no other allowed."""
    schema = answer_schema([Attribute.POSE, Attribute.SKIN])
    assert schema == {
        "type": "object",
        "properties": {"skin": {"type": "string"}, "pose": {"type": "string"}},
        "required": ["skin", "pose"],
        "additionalProperties": False,
    }
    assert answer_schema(EVERYTHING)["required"] == [attribute.value for attribute in Attribute]
