"""Races and origins that an answer names, in FairFace's seven groups.

    race_phrases("A man of Korean descent in a white shirt.")    one phrase: East Asian

The one surprising fact: such a word counts only beside a person or an origin; "white shirt", "African print" and
"Indian restaurant" say nothing about anybody.
"""

import re
from dataclasses import dataclass
from typing import Final

from annotation.checks.people import PERSON_NOUN

_GROUPS: Final = (
    (r"Caucasian|European(?:[- ]American)?|Anglo-Saxon|Scandinavian|Slavic|Nordic", ("White",)),
    (r"White(?: European| American| Caucasian)?", ("White",)),
    (
        r"African[- ]American|Afro-\w+|Sub-Saharan African|(?<!North )(?<!South )African|Nigerian|Ethiopian|Kenyan",
        ("Black",),
    ),
    (r"Black(?: African| American| British)?", ("Black",)),
    (r"South[- ]Asian|(?<!West )(?<!American )Indian|Pakistani|Bangladeshi|Sri Lankan|Nepalese|Tamil", ("Indian",)),
    (r"East[- ]Asian|Chinese|Japanese|Korean|Taiwanese|Mongolian", ("East Asian",)),
    (r"South[- ]?east[- ]Asian|Filipin[oa]|Vietnamese|Thai|Indonesian|Malay(?:sian)?|Cambodian|Burmese|Khmer",
     ("Southeast Asian",)),
    (r"Asian", ("East Asian", "Southeast Asian")),
    (r"Middle[- ]Eastern|Arab(?:ic|ian)?|Persian|Iranian|Turkish|Lebanese|Egyptian|North African", ("Middle Eastern",)),
    (r"Hispanic|Latin[oax]|Latin[- ]American|South American|Mexican|Brazilian|Puerto Rican|Colombian",
     ("Latino_Hispanic",)),
    (r"Mediterranean", ("White", "Middle Eastern", "Latino_Hispanic")),
)  # fmt: skip
_RACES: Final = tuple((re.compile(pattern, re.IGNORECASE), frozenset(races)) for pattern, races in _GROUPS)
_RACE: Final = "|".join(sorted((pattern for pattern, _ in _GROUPS), key=len, reverse=True))
_ORIGIN: Final = (
    r"(?:descent|heritage|origin|ancestry|ethnicity|background|appearance|lineage|extraction|race|roots|people"
    r"|complexion|(?:facial )?features|facial traits|traits)"
)
_ADJECTIVES: Final = (
    r"(?:(?:young|old|older|elderly|adult|teenage|middle-aged|male|female|baby|little|senior|retired) )*"
)
_DESCENT: Final = r"(?:descent|heritage|origin|ancestry|ethnicity|lineage|race|people)"  # no "white background"
_PHRASES: Final = (
    re.compile(rf"(?<![\w-])(?P<race>white|black) {_ADJECTIVES}(?:{PERSON_NOUN}|{_DESCENT})(?!-)\b", re.I),
    # before a person or an origin: "a Black man", "of African descent"
    re.compile(
        rf"(?<![\w-])(?P<race>{_RACE})(?:(?:,| or| and|/) ?\w+(?: \w+)?)?,? {_ADJECTIVES}(?:{PERSON_NOUN}"
        rf"|{_ORIGIN})(?!-)\b",
        re.I,
    ),
    # after a verb: "she is East Asian", "looks African American", "probably Southeast Asian"
    re.compile(
        r"\b(?:is|are|be|looks?|appears?|seems?|to be|probably|likely|possibly|clearly|perhaps|definitely|ethnically"
        r"|but|either|ethnicity|race|origin|background|is of|as|and)"
        rf"(?: (?:East|West|rather|most))?,? (?P<race>{_RACE})(?=\s*(?:[.,;:!?)]|$|(?:and|with|or|who|but"
        rf"|in)\b))(?! (?:or|and) (?:white|black)\b [a-z])",
        re.I,
    ),
    re.compile(
        r"\bfrom (?:the )?(?P<race>Middle East|Arab world|South Asia|East Asia|Southeast Asia|Africa|Europe|India"
        r"|China|Japan|Korea|Latin America|South America)\b",
        re.I,
    ),
    re.compile(
        r"\b(?:an?|the|this|young|older|elderly) (?P<race>Latin[ao])\b(?! (?:music|food|dance|style|band|festival"
        r"|bar))",
        re.I,
    ),
)  # fmt: skip
_PLACES: Final = {
    "middle east": "Middle Eastern",
    "arab world": "Middle Eastern",
    "south asia": "Indian",
    "india": "Indian",
    "east asia": "East Asian",
    "china": "East Asian",
    "japan": "East Asian",
    "korea": "East Asian",
    "southeast asia": "Southeast Asian",
    "africa": "Black",
    "europe": "White",
    "latin america": "Latino_Hispanic",
    "south america": "Latino_Hispanic",
}
# A colour only: "his shirt is white", "her skin is white and thin", "the hair is black".
_COLOURED: Final = re.compile(
    r"\b(?:hair|shirt|skin|eyes?|brows?|eyebrows?|beard|moustache|background|wall|dress|jacket|hat|cap|coat|scarf"
    r"|pupils"
    r"|blouse|suit|tie|sweater|t-shirt|clothes|clothing|teeth|image|photo|picture|top|blanket|frame|glasses)"
    r"(?: \w+)? (?:is|are|looks?|appears?|seems?)(?: \w+)? $",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class RacePhrase:
    """Where a race is named, and which of FairFace's groups the word is compatible with."""

    start: int
    end: int
    races: frozenset[str]


def race_phrases(text: str) -> list[RacePhrase]:
    """All races that the text names about somebody, in its order; whether it is denied is not looked at."""
    found: dict[int, RacePhrase] = {}
    for pattern in _PHRASES:
        for match in pattern.finditer(text):
            word = match["race"]
            is_colour = word.lower() in ("white", "black")
            if is_colour and not _is_race(text, match):
                continue
            found.setdefault(match.start("race"), RacePhrase(*match.span("race"), _races(word)))
    return [found[start] for start in sorted(found)]


def _is_race(text: str, match: re.Match[str]) -> bool:
    """Whether "white" or "black" is said about a person: directly before one, or capitalised after a verb."""
    if re.search(rf" (?:{PERSON_NOUN}|{_DESCENT})$", match[0], re.IGNORECASE):
        return True
    follows_verb = match.start("race") > match.start()
    return follows_verb and match["race"][0].isupper() and not _COLOURED.search(text, 0, match.start("race"))


def _races(word: str) -> frozenset[str]:
    if word.lower() in _PLACES:
        return frozenset({_PLACES[word.lower()]})
    return next(races for pattern, races in _RACES if pattern.fullmatch(word))
