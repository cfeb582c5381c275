"""Ages that an answer names, as ranges of years.

    age_phrases("He is in his mid-thirties.")          one phrase: 34 to 36 years
    is_far((34, 36), (20, 29))                         True

The one surprising fact: a number is an age only where its surroundings say so; "30 degrees" and "the 70s" do not.
"""

import re
from dataclasses import dataclass
from typing import Final, TypeAlias

Years: TypeAlias = tuple[int, int]

OLDEST: Final = 120
TOLERANCE: Final = 3  # years between a label and the middle of what is named: people cannot tell 29 from 31
_UNITS: Final = (
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
    "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS: Final = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_TENS_OF: Final = {ten: 10 * number for number, ten in enumerate(_TENS, start=2)}
_WORDS: Final = (
    {word: number for number, word in enumerate(_UNITS, start=1)}
    | _TENS_OF
    | {f"{ten}-{unit}": tens + j for ten, tens in _TENS_OF.items() for j, unit in enumerate(_UNITS[:9], 1)}
)
_DECADES: Final = {
    "teens": 10, "twenties": 20, "thirties": 30, "forties": 40, "fifties": 50, "sixties": 60, "seventies": 70,
    "eighties": 80, "nineties": 90,
}  # fmt: skip
_PARTS: Final = {"early": (0, 3), "mid": (4, 6), "middle": (4, 6), "late": (7, 9)}

_N: Final = rf"(?:\d{{1,3}}|(?:{'|'.join(_TENS)})(?:-(?:{'|'.join(_UNITS[:9])}))?|{'|'.join(_UNITS)})(?![\w%.-]*\d)"
_ABOUT: Final = (
    r"(?:(?:about|around|roughly|approximately|perhaps|maybe|nearly|almost|close to|probably|likely|presumably|possibly"
    r"|somewhere|some|only|just|at least|at most|over|under|above|below|past|not yet|more than|less than|older than"
    r"|younger than|no older than|up to|at|to be|between|of|ca\.)\s+)*"
)
_HEDGE: Final = (
    r"(?:about|around|roughly|approximately|perhaps|maybe|nearly|almost|close to|probably|likely|presumably|possibly"
    r"|passed|over|under|past|at least|older than|younger than|aged)"
)
_TO: Final = r"(?:\s*(?:-|–|to|and|or)\s*)"
_ENDS: Final = r"(?=\s*(?:[.,;:!?)]|$|(?:or|and|but|with|who|years?|when|though|though|judging|maybe|perhaps)\b))"
_NUMBERS: Final = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"\b(?P<about>{_ABOUT})(?P<low>{_N})(?:{_TO}(?P<high>{_N}))?[\s-]+years?(?:[\s-]+old|\s+of\s+age|\b(?! ago))",
        rf"\b(?P<about>between\s+)(?P<low>{_N})\s+and\s+(?P<high>{_N}){_ENDS}",
        rf"\b(?:aged|ages?(?:\s+(?:group|range))?(?:\s+(?:of|can be estimated|may be|might be|could be|is|seems"
        rf"|looks))?)"
        rf"\s+(?P<about>{_ABOUT})(?P<low>{_N})(?:{_TO}(?P<high>{_N}))?{_ENDS}",
        rf"\b(?P<about>{_HEDGE}\s+)(?P<low>{_N})(?:{_TO}(?P<high>{_N}))?{_ENDS}",
        rf"\b(?:be|is|say|he's|she's|looks|seems|appears|of)\s+(?P<about>{_ABOUT})(?P<low>(?!one\b|two\b){_N})"
        rf"(?:{_TO}(?P<high>{_N}))?{_ENDS}",
    )
)
_DECADE: Final = re.compile(
    r"(?P<ahead>\b(?:from|of|the year|since) the\s+)?(?:\b(?P<whose>his|her|their|the)\s+)?"
    r"(?:\b(?P<part>early|mid|middle|late)(?:[\s-]*(?:to|or|/)[\s-]*(?P<until>mid|late))?[\s-]+)?"
    r"\b(?P<decade>teens|twenties|thirties|forties|fifties|sixties|seventies|eighties|nineties|[2-9]0['’]?s)\b(?!-)",
    re.IGNORECASE,
)
_GROUPS: Final = (
    (r"newborn|infant|(?:baby|toddler)(?! (?:face|hairs?|blue|pink|fat|teeth|skin|picture|photo)\b)", (0, 3)),
    (r"pre-?school(?:er)?(?: age| child)?", (3, 6)),
    (r"primary[- ]school age|school[- ]aged?", (6, 14)),
    (r"(?:nursery|kindergarten)[- ]aged?|kindergartner", (3, 6)),
    (r"high[- ]school age|high[- ]schooler", (14, 18)),
    (r"youngster", (4, 19)),
    (r"(?:the|this|a) youth", (10, 25)),
    *((rf"{ten}-?(?:ish|something)|{figures}-?ish", (figures, figures + 9)) for ten, figures in _TENS_OF.items()),
    (r"child|kid", (0, 12)),
    (r"(?:pre-?)?teen|teenaged?|teenager|adolescent|adolescence", (12, 19)),
    (r"young adult", (17, 38)),
    (r"adult", (17, OLDEST)),
    (r"middle[- ]aged?", (38, 62)),
    (r"elderly|senior(?: citizen)?|pensioner|aged (?:man|woman)", (60, OLDEST)),
    (r"third decade of (?:life|his life|her life)", (20, 30)),
    (r"grand(?:mother|father|ma|pa)|granny", (45, OLDEST)),
)
# One search for all of them: the number of the group that matched tells which it is.
_GROUP: Final = re.compile(
    rf"(?<![\w-])(?:{'|'.join(f'({pattern})' for pattern, _ in _GROUPS)})(?![\w-])", re.IGNORECASE
)
_JOINED: Final = re.compile(r"^\s*(?:-|–|to|or)\s*(?:(?:to|in|his|her|their|the|perhaps|maybe)\s+)*$", re.IGNORECASE)


@dataclass(frozen=True)
class AgePhrase:
    """Where an age is named, and the years that it means, both included."""

    start: int
    end: int
    years: Years


def age_phrases(text: str) -> list[AgePhrase]:
    """All ages that the text names, in its order; who is meant, and whether it is denied, is not looked at."""
    found = [*_numbers(text), *_decades(text)]
    found += [AgePhrase(*match.span(), _GROUPS[(match.lastindex or 0) - 1][1]) for match in _GROUP.finditer(text)]
    found.sort(key=lambda phrase: (phrase.start, -phrase.end))
    merged: list[AgePhrase] = []
    for phrase in found:
        last = merged[-1] if merged else None
        if last and phrase.start < last.end:
            continue  # within a longer phrase
        if last and _JOINED.match(text[last.end : phrase.start]):
            years = (min(last.years[0], phrase.years[0]), max(last.years[1], phrase.years[1]))
            merged[-1] = AgePhrase(last.start, phrase.end, years)
        else:
            merged.append(phrase)
    return merged


def noun_years(noun: str, adjectives: str) -> Years | None:
    """The years that a noun for a person means with its adjectives; None where it says nothing.

    Args:
        noun: lower case, such as `woman`.
        adjectives: lower case, such as `young black `.
    """
    words = set(re.findall(r"[\w-]+", adjectives))
    child = noun in ("boy", "girl", "schoolboy", "schoolgirl", "lad", "child", "kid")
    if child:
        if words & {"little", "small", "tiny"}:
            return (0, 13)
        return {"girl": (0, 24), "child": (0, 12), "kid": (0, 12)}.get(noun, (0, 18))
    if words & {"old", "elderly", "senior"}:
        return (58, OLDEST)
    if "older" in words:
        return (48, OLDEST)
    if words & {"baby", "infant"}:
        return (0, 3)
    if noun in ("man", "woman", "gentleman", "lady", "guy") or (noun in _NEITHER and "adult" in words):
        return (10, 38) if words & {"young", "younger"} else (15, OLDEST)
    if noun in _NEITHER and words & {"young", "younger"}:
        return (0, 38)
    return None


def is_far(named: Years, label: Years) -> bool:
    """Whether what is named contradicts a label: they do not overlap, and its middle is years away."""
    low, high = named
    if low <= label[1] and label[0] <= high:
        return False
    middle = high if low == 0 and high > 24 else low if high == OLDEST else (low + high) / 2
    return max(label[0] - middle, middle - label[1]) > TOLERANCE


_NEITHER: Final = ("male", "female", "person", "individual", "subject", "adult")


def _numbers(text: str) -> list[AgePhrase]:
    found: list[AgePhrase] = []
    for pattern in _NUMBERS:
        for match in pattern.finditer(text):
            low, high = _value(match["low"]), _value(match["high"] or match["low"])
            if low <= high <= OLDEST and not any(p.start < match.end() and match.start() < p.end for p in found):
                found.append(AgePhrase(*match.span(), _bounded(low, high, match["about"].lower())))
    return found


def _bounded(low: int, high: int, about: str) -> Years:
    if re.search(r"\b(?:over|above|past|passed|more than|older than|at least)\b", about) and "no older" not in about:
        return (low, OLDEST)
    if re.search(r"\b(?:under|below|less than|younger than|not yet|at most|up to|no older than)\b", about):
        return (0, high)
    return (low, high)


def _decades(text: str) -> list[AgePhrase]:
    found = []
    for match in _DECADE.finditer(text):
        figures = match["decade"][0].isdigit()
        if match["ahead"] or (figures and not (match["whose"] or match["part"])):
            continue
        name = match["decade"].lower()
        start = int(name[0]) * 10 if figures else _DECADES[name]
        first, last = _PARTS.get((match["part"] or "").lower(), (0, 9))
        if match["until"]:
            last = _PARTS[match["until"].lower()][1]
        years = (max(start + first, 13) if name == "teens" else start + first, start + last)
        begin = match.start("part") if match["part"] else match.start("decade")
        found.append(AgePhrase(begin, match.end(), years))
    return found


def _value(number: str) -> int:
    return int(number) if number.isdigit() else _WORDS[number.lower()]
