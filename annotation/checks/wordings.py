"""Checks by the wording of an answer alone: leaked hints, named people, hedging, answers that are cut off.

The one surprising fact: the words of a leak are innocent one by one ("given the light", "the label on the jar"); it is
whose information is meant that gives it away, so most patterns need two of them.
"""

import re
from collections.abc import Iterator
from typing import Final

from annotation.checks.findings import Facts, Finding
from annotation.models import Severity

_TOLD: Final = (
    r"(?:provided|supplied|specified|stated|listed|known|received|assigned|mentioned|prescribed|annotated|shared"
    r"|furnished)"
)
_FACT: Final = (
    r"(?:information|info|data|details?|attributes?|descriptions?|demographics?|demographic|facts|context|age|gender"
    r"|sex"
    r"|race|ethnicit(?:y|ies)|ethnic|background|identity|bracket|age group|values?|tags?|characteristics)"
)
_SOURCE: Final = (
    r"(?:hints?(?! of\b| at\b| that (?:s?he|they)\b)|metadata(?! (?:would|could|might|is (?:missing|not)))"
    r"|annotations?|ground[- ]truth"
    r"|prompts?(?! (?:flash|light|help|action|reply))|dataset|instructions?)"
)
_MATERIAL: Final = (
    r"(?:inputs?|information|info|context|request|profile|records?|query|brief|data|details|attributes|description"
    r"|questions?"
    r"|labels?|facts|file)"
)
_TELLS: Final = (
    r"(?:says?|states?|tells?|identif(?:y|ies)|mentions?|lists?|specif(?:y|ies)|gives? (?:the|her|his|an)"
    r"|indicates? (?:that|an?|the))"
)
_SUBJECT: Final = r"(?:the (?:person|subject|individual|man|woman|child|boy|girl|age|one)|s?he|they|this)"
# Without one of these there is no leak, which one search tells sooner than all of them.
_LEAK_WORDS: Final = re.compile(
    r"\b(?:provid|given|gave|suppl|specif|stated|list|kn[eo]w|receiv|assign|mention|annotat|shared|furnish|hint|metadata"
    r"|ground|prompt|dataset|database|instruct|label|tag|categor|record|regist|caption|accompan|attached|note|reference"
    r"|background|prior|side|question|input|request|task|your?\b|information|info|data|detail|attribute|descri|fact"
    r"|demograph|context|told|inform|aware|indicat|report|mark|declar|profile|query|brief|file|prescri|aforement|disclos"
    r"|was|were|been|text)|_",
    re.IGNORECASE,
)
_LEAKS: Final = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # a raw value of the label file
        r"\b[A-Za-z]+_[A-Za-z_]+\b",
        # the source itself
        rf"\b(?:the|your|this|these|its|[\w]+['’]s|in|by|with|per) (?:[\w’'-]+ ){{0,2}}?{_SOURCE}\b(?! would)",
        r"\b(?:Annotations?|Metadata|Ground truth|Hints?)(?: for this \w+)? (?:indicates?|says?|gives?|puts?|states?"
        r"|shows?|lists?|marks?)\b",
        r"(?<!\bits )(?<!\btheir )(?<!\ba )(?<!clothing )(?<!brand )(?<!price )(?<!care )(?<!name )"
        r"\blabels?\b(?! (?:on|of|in) (?:the|his|her|a) (?!(?:image|photo|picture|data)))"
        r"(?! (?:is|are) (?:not |il)?legible)(?!-)",
        r"\b(?:labell?ed|annotated|tagged|listed|categori[sz]ed|recorded|registered) (?:as|with|in|at|under)\b",
        r"\b(?:captions?|text|note|description|file) (?:that )?(?:provided|supplied|accompanying|accompanies"
        r"|attached|which comes|that comes)"
        r"(?! by)|\baccompanying (?:text|caption|description|note|information|data)",
        r"\b(?:the|your|this) (?:reference|background|prior|side) information\b|\bthe tag (?:\w+ )?(?:applies|says"
        r"|reads)",
        r"\bthe (?:question|input|caption|request|task) (?:already |itself )?(?:states|says|specifies|mentions|tells"
        r"|gives|describes|identifies|names)",
        r"\bas the (?:input|question|caption|request) (?:already |itself )?\w+s\b|\byour (?:message|input|question"
        r"|request)\b",
        # what was told: the fact and the telling, in either order
        rf"\b{_FACT}\b(?: [\w’']+){{0,4}}? (?:{_TOLD}|given|supplied)\b(?! (?:by|the|their|his|her|its|that its?)\b)",
        rf"\b{_FACT} (?:that |which )?(?:I|we|you) (?:\w+ )?(?:was|were|have|had|gave|received|got|provided"
        rf"|mentioned|know|supplied)\b",
        rf"\b(?:{_TOLD}|(?<=the )given|(?<=your )given|(?<=per )given|aforementioned)(?: [\w’'-]+){{0,2}}? {_FACT}\b",
        rf"\b(?:based on|according to|per|from|using|considering|given|with|following|in (?:line|accordance"
        rf"|agreement|keeping) with"
        rf"|going by) (?:the|your|this|these) (?!visual|visible)(?:\w+ )?{_MATERIAL}\b(?! (?:(?:that (?:is"
        rf"|are) )?(?:visible|seen|available)|in|of|on|around)\b)",
        rf"\b(?:the|your|this) (?:\w+ )?{_MATERIAL} (?:also |already |itself )?{_TELLS}\b(?! (?:the light|a light))",
        r"\b(?:is|are|was|were|has been) (?:given|listed|stated|provided|specified|recorded|registered) as\b",
        r"(?:\b(?:been|is|are|was|were)|,) (?:indicated|reported|marked|described|specified|known|given"
        r"|declared) (?:as|to be)\b",
        r"\bas (?:provided|given|stated|specified|indicated|supplied|mentioned|instructed|noted|told|described|known"
        r"|reported)(?=[,:.;)])",
        rf"\b(?:informed|told|aware) that {_SUBJECT}\b|\b(?:with|in) the knowledge (?:that|of)\b",
        r"\binformation about (?:her|his|their|the \w+['’]s) (?:age|gender|race|ethnicity)",
        r"\bas (?:previously |already |was |were )?(?:mentioned|stated|noted|indicated|given|specified|described"
        r"|said|provided|told)"
        r" (?:in|by|with|above|before|earlier|to)\b(?! all)",
        r"\bas (?:previously|already) (?:mentioned|stated|noted|provided|given|specified|described|said|known)",
        r"\b(?:was|were|has been|have been|been) (?:\w+ )?(?:specified|stated|supplied|described as|mentioned|told"
        r"|informed|disclosed)\b(?! by)",
        r"\b(?:has|have) been (?:provided|given|labell?ed|annotated|tagged)\b",
        r"\b(?:which|that) (?:was|were) (?:provided|given)\b",
        r"\b(?:supplied|given|provided|stated|specified|listed) (?:in|with|by) the (?:question|image|photo|picture)",
        # who was told
        rf"\b(?:we|I) (?:already |now )?know (?:already )?(?:that )?(?:{_SUBJECT}\b|from)|\bas we (?:already )?know\b",
        rf"\bknow(?:n|ing) (?:from|(?:the|his|her|their) (?:age|race|gender|ethnicity)|(?:already )?that {_SUBJECT})"
        rf"|\bit is known that {_SUBJECT}",
        r"\b(?:I|we) (?:was|were|am|are|have been|had been|['’]ve been) (?:\w+ )?(?:told|given|informed|provided)",
        r"\byou (?:have |had |['’]ve )?(?:already )?(?:told|gave|given|informed|mentioned|said|provided|specified"
        r"|stated|indicated|supplied)\b",
        r"\bgiven that (?:\w+ ){1,4}(?:is|was) (?:described|specified|known)",
        r"\bdescription given to me\b|\b(?:dataset|database) (?:lists|says|has|gives|describes)",
    )
)


def find_leaks(facts: Facts) -> Iterator[Finding]:
    """Words that show that the teacher was told the labels: at most one finding, the first in the text."""
    if not _LEAK_WORDS.search(facts.answer):
        return
    spans = sorted(match.span() for pattern in _LEAKS if (match := pattern.search(facts.answer)))
    if spans:
        start, end = spans[0]
        for following in spans:
            if following[0] <= end:  # "We know from" and "from the given attributes" are one
                end = max(end, following[1])
        yield Finding("leak", Severity.ERROR, f"Speaks of what it was told: “{facts.answer[start:end]}”.", start, end)


_NAME: Final = (
    r"[A-Z][a-zà-ÿ]+(?: [A-Z]\.)?(?: (?:van|de|von|al|bin))? (?:Mc|O['’])?[A-Z][a-zà-ÿ]+(?: (?:[A-Z][a-z]+|[IVX]+))*\b"
)
_ROLE: Final = (
    r"(?:actor|actress|singer|musician|politician|president|footballer|athlete|celebrity|model|rapper|comedian"
    r"|prime minister|queen|king|prince|princess|band|senator|author|director)"
)
_NAMED: Final = (
    re.compile(
        rf"(?:\b(?:look\w*(?: a lot| much| exactly| very much)? like|resembl\w+|resemblance to|reminiscent of"
        rf"|[Ll]ike|as|is|be|be of"
        rf"|(?:seems to|appears to|may|could|might) show|to|than|named|called|identified as|[Tt]hat is|This is"
        rf"|probably|possibly|person as"
        rf"|(?:portrait|photo|photograph|picture|image) (?:shows|of)"
        rf"|{_ROLE})|^|[.!?] ),? ?(?P<name>{_NAME})"
    ),
    re.compile(rf"\b(?:the|former|famous) (?:\w+ )?{_ROLE} (?P<name>[A-Z]\w+)"),
    re.compile(r"\b[Hh](?:er|is) name is (?P<name>[A-Z]\w+)"),
    re.compile(r"\bI recogni[sz]e (?P<name>(?:this|the|him|her)(?: \w+)?)"),
)
_SAYS: Final = re.compile(
    r"(?:['’]s)?,? (?:is|was|has|wears|stands|looks|smiles|sits|appears|seems|poses|can be seen|in)\b"
)
# Capitalised words that are no part of a person's name.
_NOT_NAMES: Final = re.compile(
    r"\b(?:East|West|South|North|Southeast|Southeastern|Middle|Eastern|Asian|African|American|European|Latin|Latina"
    r"|Latino|Hispanic|Indian|White|Black|Caucasian|Native|Mona|Lisa|Taj|Mahal|New|York|United|Kingdom|States"
    r"|Manchester|Boston|Marathon|Los|Angeles|San|Francisco|Hong|Kong|Puerto|Rican|Sri|Lankan|Saudi|Arabian|Roman"
    r"|Greek|French|British|Chinese|Japanese|Korean|Rembrandt|Renaissance|Hawaiian|Christmas|Santa|Claus|Father"
    r"|Polaroid|Instagram|The|This|That|He|She|His|Her|It|In|On|At|From|With|Without|Facial|Fine|Deep|Soft|Natural"
    r"|Strong|Bright|Side|Low|High|Front|Both|Nothing|Overall|Arab|Persian|Turkish|Filipino|Vietnamese|Thai|Central"
    r"|Pacific|Islander|Afro|Anglo)\b"
)


def find_identities(facts: Facts) -> Iterator[Finding]:
    """A real person's name said about the face: at most one finding."""
    for pattern in _NAMED:
        for match in pattern.finditer(facts.answer):
            name = match["name"]
            if _is_name(facts.answer, match):
                message = f"Says who this is, or looks like: “{name}”."
                yield Finding("identity", Severity.ERROR, message, match.start("name"), match.end("name"))
                return


def _is_name(text: str, match: re.Match[str]) -> bool:
    if _NOT_NAMES.search(match["name"]):
        return False
    starts_sentence = not match[0][: match.start("name") - match.start()].strip(" .!?")
    return not starts_sentence or _SAYS.match(text, match.end("name")) is not None


_HEDGES: Final = re.compile(
    r"\b(?:may|might|maybe|perhaps|possibly|probably|presumably|likely|seems?|seemingly|appears?|apparently|could be"
    r"|suggests?|suggesting|it is (?:difficult|hard) to (?:say|tell)|unclear|somewhat|or so|more or less)\b",
    re.IGNORECASE,
)
HEDGES_ALLOWED: Final = 4  # in one answer; a careful teacher needs two or three
_HEDGES_PER_WORD: Final = 1 / 12


def find_hedging(facts: Facts) -> Iterator[Finding]:
    """An answer that commits itself to hardly anything."""
    hedges = list(_HEDGES.finditer(facts.answer))
    if len(hedges) > HEDGES_ALLOWED and len(hedges) > _HEDGES_PER_WORD * len(facts.answer.split()):
        message = f"Hedges {len(hedges)} times, such as “{hedges[0][0]}”."
        yield Finding("hedging", Severity.INFO, message, *hedges[0].span())


_COMPLETE: Final = re.compile(r"[.!?…][\"'”’)\]*]*\s*$|[\"”]\s*$|^\s*(?:[-*•]|\d+[.)]) .*$(?!\n)", re.MULTILINE)
_DANGLING: Final = re.compile(
    r"(?:[,;:(–-]|\b(?:and|or|but|the|an?|of|with|in|on|to|is|are|which|that|her|his|their|at|by|for|from))\s*$",
    re.IGNORECASE,
)


def find_cut_off(facts: Facts) -> Iterator[Finding]:
    """An answer that ends within a sentence, or holds nothing but a few signs."""
    text = facts.answer.rstrip()
    if len(re.findall(r"\w+", text)) < 2 and facts.attribute is not None:
        yield Finding("cut off", Severity.ERROR, "There is hardly any answer.")
    elif _DANGLING.search(text) or (len(text.split()) > 12 and not _COMPLETE.search(text)):
        start = text.rfind(" ") + 1
        yield Finding("cut off", Severity.WARNING, "Ends in the middle of a sentence.", start, len(text))
