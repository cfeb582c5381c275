"""Answers about rendered faces: always true, and recognised as what they say."""

import random

import pytest

from facellm.data import Attribute
from facellm.face_captions import PROMPTS, captions
from facellm.face_text import FACETS, answer, is_right, named
from facellm.faces import FACTORS, Face, sample

FACES = [sample(seed) for seed in range(1200)]


@pytest.mark.parametrize("attribute", Attribute)
def test_a_teachers_answer_is_right_and_says_nothing_false(attribute: Attribute) -> None:
    for face in FACES:
        text = answer(face, attribute, random.Random(face.seed))
        assert is_right(face, attribute, text), text
        for factor, value in face.labels().items():
            assert named(factor, text) <= {value}, f"{factor}: {text}"


def test_a_caption_says_nothing_false_and_nothing_twice() -> None:
    for face in FACES:
        pairs = captions(face, random.Random(face.seed))
        for factor, value in face.labels().items():
            naming = [text for _, text in pairs if named(factor, text)]
            assert len(naming) <= 1, f"{factor}: {naming}"
            assert not naming or named(factor, naming[0]) == {value}, f"{factor}: {naming}"


def test_captions_come_under_none_of_the_eight_questions() -> None:
    assert not {attribute.question for attribute in Attribute} & set(PROMPTS)


@pytest.mark.parametrize("attribute", Attribute)
def test_an_answer_with_another_value_is_wrong_and_so_is_one_with_both(attribute: Attribute) -> None:
    for face in FACES[:300]:
        rng = random.Random(face.seed)
        factor = rng.choice(FACETS[attribute])
        other = rng.choice([value for value in FACTORS[factor] if value != getattr(face, factor)])
        mistaken = answer(Face(**face.labels() | {factor: other}, seed=face.seed), attribute, rng)
        assert not is_right(face, attribute, mistaken), mistaken
        assert not is_right(face, attribute, f"{answer(face, attribute, rng)} {mistaken}"), mistaken


@pytest.mark.parametrize("attribute", Attribute)
def test_answers_are_worded_in_several_ways(attribute: Attribute) -> None:
    for face in FACES[:20]:
        assert len({answer(face, attribute, random.Random(seed)) for seed in range(60)}) >= 3


@pytest.mark.parametrize("text", ["", "A face.", "I cannot help with that.", "?!", "a" * 5000])
def test_silence_is_not_right(text: str) -> None:
    for attribute in Attribute:
        assert not is_right(FACES[0], attribute, text)


@pytest.mark.parametrize(
    ("factor", "text", "values"),
    [
        ("beard", "There is no beard.", {"none"}),
        ("beard", "He has neither a beard nor a moustache.", {"none"}),
        ("beard", "A full beard and a moustache.", {"full"}),
        ("beard", "Not a full beard, but a moustache.", {"moustache"}),
        ("beard", "The beard is long, the mustache thin.", {"full", "moustache"}),
        ("glasses", "The person isn't wearing sunglasses.", set()),
        ("glasses", "Without glasses or sunglasses.", {"none"}),
        ("glasses", "Eyeglasses with a thin frame.", {"glasses"}),
        ("glasses", "Sunglasses.", {"sunglasses"}),
        ("face_shape", "Round glasses on an oval face.", {"oval"}),
        ("face_shape", "The face is rather square.", {"square"}),
        ("hair_colour", "The short hair is black; the skin is light brown.", {"black"}),
        ("hair_colour", "Long, grey hair", {"grey"}),
        ("hair_colour", "a red cap on black hair", {"black"}),
        ("hair_colour", "The hair is not red.", set()),
        ("hair_style", "The hair is long and blond.", {"long"}),
        ("hair_style", "A long scarf and curly hair.", {"curly"}),
        ("skin_tone", "Dark hair and light skin.", {"light"}),
        ("skin_tone", "Soft light falls on the face.", set()),
        ("skin_tone", "A dark-skinned person.", {"dark"}),
        ("wrinkles", "No deep lines, but fine lines.", {"fine"}),
        ("wrinkles", "A smooth forehead with no wrinkles or lines.", {"none"}),
        ("wrinkles", "An elderly person with deeply lined skin.", {"deep"}),
        ("expression", "The person is unhappy.", {"sad"}),
        ("expression", "She does not smile.", set()),
        ("expression", "HAPPY!", {"happy"}),
        ("pose", "The light comes from the left.", set()),
        ("pose", "The face is turned slightly to the right side.", {"right"}),
        ("pose", "Turned to the left, not to the right.", {"left"}),
        ("lighting", "The head is turned to the left.", set()),
        ("lighting", "It is lit from the right.", {"right"}),
        ("quality", "Not sharp but blurry.", {"blurry"}),
        ("quality", "Everything is in focus, without grain or noise.", {"sharp"}),
        ("quality", "It is out of focus.", {"blurry"}),
        ("occlusion", "No cap, scarf or headphones.", set()),
        ("occlusion", "Nothing covers the face.", {"none"}),
        ("occlusion", "The escape route and the landscape.", set()),
    ],
)
def test_named(factor: str, text: str, values: set[str]) -> None:
    assert named(factor, text) == values
