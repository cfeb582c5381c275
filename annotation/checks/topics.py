"""Whether an answer is about what was asked: words that each attribute's answers have.

The one surprising fact: an answer is off topic only if it has no word of its own topic; words of other topics are
everywhere ("her face is lit from the left") and prove nothing.
"""

import re
from collections.abc import Iterator
from typing import Final

from annotation.checks.ages import age_phrases
from annotation.checks.findings import Facts, Finding
from annotation.checks.people import PERSON_NOUN
from annotation.checks.races import race_phrases
from annotation.models import Severity
from facellm.data import Attribute

_WORDS: Final = {
    Attribute.DEMOGRAPHIC: (
        rf"{PERSON_NOUN}|age[ds]?|years?|young\w*|old\w*|elderly|gender|sex|masculine|feminine|ethnic\w*|rac(?:e|ial)"
        r"|descent|heritage|origin|complexion|skin(?: tone)?|demographic\w*|light-skinned|dark-skinned"
    ),
    Attribute.STRUCTURE: (
        r"jaw\w*|chin|cheek ?bones?|cheeks?|noses?|nasal|nostrils?|forehead|brow(?:s| ridge)?|lips?|fac(?:e"
        r"|ial) (?:is|shape|structure"
        r"|features|symmetry|contour\w*)|features|oval|round\w*|square|angular|heart|bone\w*|beard\w*|moustache"
        r"|mustache"
        r"|facial hair|eye(?:s| sockets?|lids?)|(?:long|broad|narrow|wide|slim|slender|small|rectangular|triangular"
        r"|lean"
        r"|full|thin) face|faces?,? (?:long|broad|narrow|wide)|profile|clean-shaven|shaven|head shape|outline"
        r"|symmetr\w+"
    ),
    Attribute.SKIN: (
        r"skin|complexion|wrinkl\w*|lines?|pores?|textures?|freckle\w*|acne|blemish\w*|pimples?|mole|spots?|scars?"
        r"|smooth\w*|rough"
        r"|creas\w+|folds?|crow['’]s feet|pigment\w*|stubble|furrow\w*|sheen"
    ),
    Attribute.EXPRESSION: (
        r"expression\w*|emotion\w*|smil\w+|laugh\w*|grin\w*|happy|happi\w+|sad\w*|angry|anger|neutral|calm\w*"
        r"|serious|mood|joy\w*"
        r"|cheerful|frown\w*|surpris\w+|fear\w*|disgust\w*|content|relaxed|pensive|thoughtful|tired|bored|stern"
        r"|cry\w*|tears?"
        r"|feel\w*|look of|gaz\w+|stare\w*|stares|amus\w+|amusement|pout\w*|beam\w*|brows?|eyebrows?|teeth|mouth"
        r"|corners?"
        r"|sceptical|skeptical|proud|pride|shy|startled|curious|confiden\w+|silly|friendly|annoyed|upset|worried"
        r"|anxious"
    ),
    Attribute.LIGHTING: (
        r"light(?:ing|s|ed)?(?! (?:skin|complexion|brown|hair|make-?up))|lit|backlit|illuminat\w+|shadows?|bright\w*"
        r"|dim\w*|dark(?:ness)?(?= (?:image|picture|scene|photo|areas))"
        r"|expos\w+|(?:over|under)exposed|sharp\w*|blur\w*|focus\w*|resolution|nois[ey]\w*|grain\w*|contrast|quality"
        r"|flash"
        r"|daylight|sun(?:light|ny)?|lamp|colou?rs|compression|artefacts?|artifacts?|saturat\w+|white balance|crisp"
        r"|pixel\w*"
        r"|scan(?:ned|s)?|print|fad(?:ed|ing)|yellowed|clipped|tint|vignett\w*|backlight"
    ),
    Attribute.POSE: (
        r"pos(?:e|es|ed|ing|ition\w*)|turn(?:s|ed|ing)?|tilt\w*|rotat\w+|fac(?:es|ing)|frontal\w*|profile|head|gaze"
        r"|gazes|chin"
        r"|look(?:s|ing) (?:\w+ ){0,3}?(?:at|to|toward\w*|up|down|left|right|into|straight|past|over|away|directly"
        r"|sideways)"
        r"|camera|lens|viewer|angle\w*|orient\w+|upright|three-quarter|three quarter|degrees|lean\w*|bow(?:s|ed)"
        r"|seen from|from the (?:front|side)|direction"
    ),
    Attribute.FORENSIC: (
        r"forensic\w*|identif\w+|identit\w+|distinctive|distinguish\w*|recogni[sz]\w+|marks?|scars?|moles?"
        r"|birthmarks?|tattoos?"
        r"|occlu\w+|cover\w*|hid(?:es?|den|ing)|conceal\w*|obstruct\w*|unobstructed|visible|manipul\w+|edit\w*"
        r"|retouch\w*|tamper\w*"
        r"|authentic\w*|compar\w+|landmarks?|ears?|earlobes?|symmetr\w+|asymmetr\w+|artefacts?|artifacts?|filter\w*"
        r"|altered|metadata"
        r"|compression|piercing\w*|keloid|nothing is in front|in front of (?:the|her|his) (?:face|it)|uncovered"
        r"|headphones|scarf|cap"
    ),
}  # fmt: skip
_PATTERNS: Final = {
    attribute: re.compile(rf"(?<![\w])(?:{words})(?![\w])", re.IGNORECASE) for attribute, words in _WORDS.items()
}


def find_off_topic(facts: Facts) -> Iterator[Finding]:
    """An answer without any word of its attribute's topic; free questions and whole descriptions have no topic."""
    pattern = _PATTERNS.get(facts.attribute) if facts.attribute else None
    if pattern is None or facts.attribute is None or pattern.search(facts.answer):
        return
    if facts.attribute is Attribute.DEMOGRAPHIC and (age_phrases(facts.answer) or race_phrases(facts.answer)):
        return
    yield Finding("off topic", Severity.WARNING, f"Says nothing about the {facts.attribute.topic}.")
