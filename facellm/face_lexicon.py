"""Which values of a factor a text names: how answers about rendered faces are marked.

    named("beard", "He is clean-shaven and wears glasses.")    {"none"}

The one surprising fact: adjectives count only where they belong to their noun, so "round glasses" say nothing about the
shape of the face, and what is denied ("no full beard") is not named.
"""

import re
from dataclasses import dataclass, field
from functools import cache

# Adjectives that may stand together before or after a noun; other words end the phrase.
_FILLERS = [
    "very",
    "quite",
    "rather",
    "fairly",
    "somewhat",
    "slightly",
    "clearly",
    "mostly",
    "visibly",
    "overall",
    "natural",
    "neat",
    "soft",
    "toned",
    "coloured",
    "colored",
    "wavy",
    "straight",
    "thick",
    "thin",
    "wide",
    "narrow",
    "human",
    "clear",
]


@dataclass(frozen=True)
class _Words:
    """How a factor is named: adjectives of a noun, and phrases that stand for themselves (tried in this order)."""

    phrases: dict[str, tuple[str, ...]] = field(default_factory=dict)
    noun: str = ""
    adjectives: dict[str, str] = field(default_factory=dict)


_LINES = r"(?:wrinkles|lines|creases)"
_UP_TO_3_WORDS = r"(?:\w+ ){0,3}?"
_TURNED = r"(?:turn(?:s|ed)?|fac(?:es|ing)|look(?:s|ing)?|rotated|point(?:s|ing)|orient(?:s|ed)|angled|view)"
_LIT = r"(?:light(?:s|ing)?|lit|lamp|illuminat(?:ed|ion)|source|brighter|bright)"

_LEXICON: dict[str, _Words] = {
    "skin_tone": _Words(
        noun=r"(?:skin|complexion)(?: tone)?",
        adjectives={"light": "light|fair|pale", "medium": "medium|tan|tanned|olive", "dark": "dark|deep"},
        phrases={"light": (r"light-skinned",), "medium": (r"medium-skinned",), "dark": (r"dark-skinned",)},
    ),
    "face_shape": _Words(
        noun=r"(?:face(?: shape)?|facial shape|head|jaw(?:line)?|shape of the face|outline of the face)",
        adjectives={"oval": "oval|elongated", "round": "round|rounded", "square": "square|angular|boxy"},
        phrases={"oval": (r"oval[- ]faced",), "round": (r"round[- ]faced",), "square": (r"square[- ]faced",)},
    ),
    "hair_colour": _Words(
        noun=r"(?:hair(?: colour| color)?|curls)",
        adjectives={"black": "black", "brown": "brown", "blond": "blonde?", "red": "red|ginger", "grey": "gr[ea]y"},
        phrases={
            "blond": (r"blonde?-haired",),
            "red": (r"redhead(?:ed)?", r"red-haired"),
            "grey": (r"gr[ea]y-haired",),
        },
    ),
    "hair_style": _Words(
        noun=r"(?:hair(?:style| style|cut)?)",
        adjectives={"short": "short|cropped", "long": "long|shoulder-length", "curly": "curly|curled"},
        phrases={"short": (r"short-haired",), "long": (r"long-haired",), "curly": (r"curls", r"curly-haired")},
    ),
    "glasses": _Words(
        phrases={
            "none": (
                r"(?:no|without(?: any)?|not wear(?:ing)?(?: any)?|free of) (?:sun)?(?:glasses|eyewear|spectacles)"
                r"(?: or (?:sun)?glasses)?",
                r"bare eyes|eyes are bare",
            ),
            "sunglasses": (r"sunglasses|(?:dark|tinted|black) (?:glasses|lenses)",),
            "glasses": (r"(?:eye)?glasses|spectacles",),
        }
    ),
    "beard": _Words(
        phrases={
            "none": (
                r"clean[- ]shaven|beardless",
                r"(?:no|without(?: any)?) facial hair",
                r"(?:no|without(?: an?| any)?|neither an?) (?:beard|m[ou]+stache) n?or (?:an? )?(?:m[ou]+stache|beard)",
                r"(?:no|without(?: an?| any)?) beard",
            ),
            "full": (r"(?:full )?beard(?: (?:and|with) an? m[ou]+stache)?", r"bearded"),
            "moustache": (r"m[ou]+stache",),
        }
    ),
    "wrinkles": _Words(
        phrases={
            "none": (
                rf"(?:no|without(?: any)?|free of) (?:visible |clear |age )?{_LINES}(?: or {_LINES})?",
                r"smooth|unlined|wrinkle-free",
                r"young(?:er)?(?: adult| person| looking)?",
            ),
            "fine": (r"(?:fine|faint|slight|thin|light) (?:age )?(?:lines|wrinkles|creases)", r"middle[- ]aged?"),
            "deep": (
                r"(?:deep|heavy|strong|pronounced) (?:age )?(?:lines|wrinkles|creases|furrows)",
                r"deeply (?:lined|wrinkled|creased|furrowed)",
                r"older|elderly",
            ),
        }
    ),
    "expression": _Words(
        phrases={
            "neutral": (r"neutral|calm|relaxed|no (?:strong |clear )?emotion",),
            "happy": (r"happy|happiness|smil(?:e|es|ing)|joy(?:ful)?|cheerful|grin(?:s|ning)?",),
            "sad": (r"sad|sadness|sorrow(?:ful)?|unhappy|tears?|tearful|crying|downcast",),
            "surprised": (r"surprised?|astonish(?:ed|ment)|amazed|amazement|startled",),
            "angry": (r"angry|anger|furious|annoyed|rage",),
        }
    ),
    "pose": _Words(
        phrases={
            "frontal": (
                r"frontal(?:ly)?|front[- ]facing|(?:straight|directly) (?:ahead|at|into|to|towards?)",
                r"(?:faces|facing|towards?|at|into) the (?:camera|viewer)",
                r"from the front",
            ),
            "left": (rf"{_TURNED} {_UP_TO_3_WORDS}left|left-facing",),
            "right": (rf"{_TURNED} {_UP_TO_3_WORDS}right|right-facing",),
        }
    ),
    "lighting": _Words(
        phrases={
            "even": (r"even|evenly|uniform(?:ly)?|balanced light(?:ing)?",),
            "left": (rf"{_LIT} {_UP_TO_3_WORDS}(?:from|on) the left",),
            "right": (rf"{_LIT} {_UP_TO_3_WORDS}(?:from|on) the right",),
            "dim": (r"dim|dimly|dark (?:scene|picture|image)|low light|poorly lit|underexposed|gloomy",),
        }
    ),
    "quality": _Words(
        phrases={
            "sharp": (r"sharp(?:ly|ness)?|crisp|(?<!out of )\bin focus",),
            "blurry": (r"blur(?:ry|red)?|out of focus|unsharp",),
            "grainy": (r"grain|grainy|noise|noisy",),
        }
    ),
    "occlusion": _Words(
        phrases={
            "none": (
                r"nothing (?:is )?(?:covers|covering|hides|hiding|blocks|blocking|obscures|in front of|in the way)",
                r"no (?:visible )?(?:occlusions?|obstructions?|coverings?)",
                r"unobstructed|unobscured|uncovered|not covered|without (?:any )?(?:occlusions?|obstructions?)",
            ),
            "cap": (r"cap|hat",),
            "scarf": (r"scarf|shawl",),
            "headphones": (r"headphones?|headset",),
        }
    ),
}

# From a negating word to the end of what it denies: a clause, or a list that goes on with "or".
_DENIED = re.compile(
    r"\b(?:no|not|without|neither|nor|never|\w+n't|free of|rather than|instead of)\b"
    r"((?:(?!\b(?:and|but|with|while|although|though|yet|only|just)\b)[^.;:!?,]|,(?=[^.;:!?]*\bor\b))*)"
)


def named(factor: str, text: str) -> set[str]:
    """The values of a factor that a text names; several where it contradicts itself, none where it is silent.

    Raises:
        KeyError: there is no such factor.
    """
    words = _LEXICON[factor]
    rest = " ".join(text.lower().replace("’", "'").split())
    denied = [match.span(1) for match in _DENIED.finditer(rest)]
    found: set[str] = set()
    for value, pattern in _patterns(factor):
        for match in pattern.finditer(rest):
            if not any(start <= match.start() < end for start, end in denied):
                found.add(value)
            rest = rest[: match.start()] + "#" * (match.end() - match.start()) + rest[match.end() :]
    for pattern in _adjective_phrases(factor):
        for match in pattern.finditer(rest):
            if not any(start <= match.start(1) < end for start, end in denied):
                found |= {value for value, word in words.adjectives.items() if re.search(rf"\b(?:{word})\b", match[1])}
    return found


@cache
def _patterns(factor: str) -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple(
        (value, re.compile(rf"\b(?:{'|'.join(patterns)})\b")) for value, patterns in _LEXICON[factor].phrases.items()
    )


@cache
def _adjective_phrases(factor: str) -> tuple[re.Pattern[str], ...]:
    """Runs of known adjectives before the factor's noun, and after it and a verb; the run is group 1."""
    noun = _LEXICON[factor].noun
    if not noun:
        return ()
    known = [adjective for words in _LEXICON.values() for adjective in words.adjectives.values()]
    adjective = rf"(?:{'|'.join([*known, *_FILLERS])})"
    run = rf"({adjective}(?:(?:,|,? and|-| )+{adjective})*)"
    return (
        re.compile(rf"\b{run}(?:,? and)?[ -]{noun}\b"),
        re.compile(rf"\b{noun},? (?:is|are|looks?|appears?|seems?)(?: of)?(?: an?)? {run}\b"),
    )
