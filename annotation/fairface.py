"""FairFace's labels: which values there are, and how a sentence names them.

Kärkkäinen and Joo, WACV 2021: nine ages, two genders, seven races, as annotators perceived them. The surprising facts:
one race is spelt `Latino_Hispanic` in the file, which no sentence should show; and whoever is under 20 is no man or
woman yet, but FaceLLM's own prompts called the youngest so.
"""

from typing import Final

AGES: Final = ("0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "more than 70")
GENDERS: Final = ("Male", "Female")
RACES: Final = (
    "White",
    "Black",
    "Indian",
    "East Asian",
    "Southeast Asian",
    "Middle Eastern",
    "Latino_Hispanic",
)
MINORS: Final = AGES[:3]
VALUES: Final = {"age": AGES, "gender": GENDERS, "race": RACES}
LABEL_SOURCE: Final = "fairface"

_AGE_RANGES: Final = {age: (int(age.split("-")[0]), int(age.split("-")[1])) for age in AGES[:-1]} | {
    AGES[-1]: (70, 120)
}
_PERSON: Final = {
    "0-2": {"Male": "baby boy", "Female": "baby girl"},
    "3-9": {"Male": "boy", "Female": "girl"},
    "10-19": {"Male": "young male", "Female": "young female"},  # a child or an adult: the label does not tell
}
_NEUTRAL: Final = {"0-2": "infant", "3-9": "child", "10-19": "young person"}


def age_range(age: str) -> tuple[int, int]:
    """The years that an age label means, both included; FairFace's last group has no end, 120 stands for it."""
    return _AGE_RANGES[age]


def person(age: str | None, gender: str | None) -> str:
    """The noun for somebody of this age and gender, such as `baby girl`; `person` where neither is known."""
    if gender is None:
        return _NEUTRAL.get(age or "", "person")
    return _PERSON.get(age or "", {"Male": "man", "Female": "woman"})[gender]


def ethnicity(race: str) -> str:
    """The race as an adjective that reads well, such as `Latino or Hispanic`."""
    return "Latino or Hispanic" if race == "Latino_Hispanic" else race


def age_words(age: str) -> str:
    """The age for a sentence, such as `20 to 29 years old`."""
    return "over 70 years old" if age == AGES[-1] else f"{age.replace('-', ' to ')} years old"
