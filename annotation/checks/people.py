"""Who is mentioned in an answer: the person of the picture, or somebody else.

    mentions("A boy in red; a woman's arm reaches into the picture.")    boy (subject), woman (somebody else)

The one surprising fact: "a woman" after the boy is another person, "she is a woman" after "she" is not: an indefinite
noun is somebody new unless a verb such as "is" hands it to the person before.
"""

import re
from dataclasses import dataclass
from typing import Final

from annotation.checks.denial import Span, is_within

MALE: Final = "Male"
FEMALE: Final = "Female"
_NOUNS: Final = {
    MALE: "man|male|gentleman|guy|boy|schoolboy|lad|fellow|grandfather|grandpa|father|dad|son|husband|brother|uncle"
    "|businessman|salesman|policeman|waiter|groom|monk|boyfriend|dude|bloke",
    FEMALE: "woman|female|lady|girl|schoolgirl|grandmother|grandma|granny|mother|mom|daughter|wife|sister|aunt"
    "|businesswoman|saleswoman|policewoman|waitress|bride|nun|girlfriend|actress",
}
_PRONOUNS: Final = {MALE: "he|him|his|himself", FEMALE: "she|her|hers|herself"}
_NEUTRAL: Final = (
    "person|individual|subject|child|kid|baby|infant|toddler|newborn|teenager|teen|adolescent|adult|youth|youngster"
    "|senior|figure|character|model"
)
_OCCUPATIONS: Final = (
    "student|worker|farmer|cook|chef|doctor|nurse|soldier|player|athlete|dancer|teacher|artist|tourist|elder|pensioner"
    "|toddler|citizen|professional|executive|scholar|singer|musician|performer|retiree"
)
PERSON_NOUN: Final = rf"(?:{'|'.join(_NOUNS.values())}|{_NEUTRAL}|{_OCCUPATIONS})"
_GENDER: Final = {
    word: gender for table in (_NOUNS, _PRONOUNS) for gender, words in table.items() for word in words.split("|")
}
_PRONOUN_WORDS: Final = frozenset("|".join(_PRONOUNS.values()).split("|"))
_MENTION: Final = re.compile(
    rf"(?<![\w-])({'|'.join([*_NOUNS.values(), *_PRONOUNS.values(), _NEUTRAL, _OCCUPATIONS])})(?![\w-])", re.IGNORECASE
)
_DETERMINERS: Final = "an?|the|this|that|his|her|their|another|some"
_BEFORE: Final = re.compile(
    rf"\b(?P<det>{_DETERMINERS})\s+(?P<adjectives>(?:(?!(?:{_DETERMINERS})\b)[\w'’/-]+,?\s+){{0,5}})$",
    re.IGNORECASE,
)
_NEARBY: Final = re.compile(
    r"(?:beside|next to|behind|alongside|opposite|than|by|toward|towards|against|with|near|at|hugging|holding)$"
    r"|(?:face|picture|photo|poster|drawing|statue|arms?|hands?|shoulder) of$",
    re.IGNORECASE,
)
_CLOSE: Final = re.compile(r"(?:beside|next to|behind|alongside|opposite)$", re.IGNORECASE)
_PREDICATE: Final = re.compile(
    r"(?:\b(?:is|was|be|been|being|are|as|of|for|like|not|probably|likely|possibly|perhaps|maybe|presumably|clearly"
    r"|definitely|rather|shows?|depicts?|features|suggests?|indicates?|say|he's|she's|or|and|but|still|indeed)|[:,(])$",
    re.IGNORECASE,
)
_IS: Final = re.compile(r"(?:['’]s| is| was)(?: (?:clearly|probably|likely|definitely|still|indeed))? ?", re.IGNORECASE)
_ASIDE: Final = re.compile(r",? (?:(?:sitting|standing|who is|who stands|who sits) )?(?:beside|next to|behind)\b")
_THINGS: Final = re.compile(
    r"['’]s (?:shirt|watch|jacket|suit|hat|coat|clothes|clothing|shoes|haircut|hairstyle|voice|hands?|arms?|face on)\b"
)
_EITHER: Final = re.compile(rf"\s+or\s+(?:an?\s+)?(?:\w+\s+)?{PERSON_NOUN}\b", re.IGNORECASE)
_SENTENCE_END: Final = re.compile(r"[.!?](?=\s)|\n")


@dataclass(frozen=True)
class Mention:
    """A noun or pronoun that stands for a person."""

    start: int
    end: int
    word: str  # lower case
    adjectives: str  # between article and noun, lower case
    gender: str | None  # as FairFace names it; None where the word does not tell, or the text leaves it open
    is_subject: bool  # the person whom the answer is about
    claims: bool  # neither denied nor only compared with


def mentions(text: str, denied: list[Span]) -> list[Mention]:
    """All persons mentioned, in the order of the text.

    Args:
        text: the answer.
        denied: what `denied_spans` found in it.
    """
    found: list[Mention] = []
    gender: str | None = None  # of the subject, once it is known
    for match in _MENTION.finditer(text):
        mention = _mention(text, match, found, gender, denied)
        if mention.is_subject and mention.claims:
            gender = gender or mention.gender
        found.append(mention)
    return found


def owner(position: int, text: str, found: list[Mention]) -> Mention | None:
    """Whom something said at a position is about: the last person mentioned up to there in the same sentence.

    The adjectives before a noun belong to it: "elderly" in "a man beside an elderly woman" is about her.
    """
    before = [mention for mention in found if mention.start - len(mention.adjectives) <= position]
    if not before or _SENTENCE_END.search(text, before[-1].end, max(position, before[-1].end)):
        return None
    return before[-1]


def _mention(text: str, match: re.Match[str], found: list[Mention], gender: str | None, denied: list[Span]) -> Mention:
    word = match[1].lower()
    own = _GENDER.get(word)
    claims = not is_within(match.start(), denied)
    before = _BEFORE.search(text, max(0, match.start() - 90), match.start())
    adjectives = before["adjectives"].lower() if before else ""
    if word in _PRONOUN_WORDS:
        return Mention(match.start(), match.end(), word, "", own, gender in (None, own), claims)
    if _EITHER.match(text, match.end()) and not re.match(r"\s+or\s+an?\s+older", text[match.end() :]):
        return Mention(match.start(), match.end(), word, adjectives, None, True, claims)
    if before is not None and found and _is_the_same(text, before, found[-1]):
        return Mention(match.start(), match.end(), word, adjectives, own, found[-1].is_subject, claims)
    subject = gender in (None, own) or own is None
    if subject and claims:
        subject = not _is_somebody_else(text, match, before, found)
    return Mention(match.start(), match.end(), word, adjectives, own, subject, claims)


def _is_the_same(text: str, before: re.Match[str], last: Mention) -> bool:
    """Whether a noun is the person mentioned just before: "a toddler girl", "he is a lady"."""
    if last.start >= before.start():
        return True
    return before["det"].lower() in ("a", "an") and bool(_IS.fullmatch(text, last.end, before.start()))


def _is_somebody_else(text: str, match: re.Match[str], before: re.Match[str] | None, found: list[Mention]) -> bool:
    """Whether a noun introduces another person than the one whom the answer is about."""
    if _ASIDE.match(text, match.end()) or _THINGS.match(text, match.end()):
        return True
    if before is None:
        return False
    article = before["det"].lower()
    ahead = text[: before.start("det")].rstrip()
    if article in ("his", "her", "their", "another") or _CLOSE.search(ahead):
        return True
    if article not in ("a", "an", "some"):  # "the child", after "carries a child"
        return any(one.word == match[1].lower() and not one.is_subject and one.claims for one in found)
    if _NEARBY.search(ahead) and not re.search(r"\b(?:face|picture|photo) of$", ahead):
        return True
    known = [mention for mention in found if mention.claims and mention.is_subject]
    if not known:
        return False
    if _NEARBY.search(ahead) or not _PREDICATE.search(ahead):
        return True
    last = owner(match.start(), text, found)
    return last is not None and not last.is_subject
