"""Refusals: answers in which a teacher declines to answer.

    is_refusal("I'm sorry, but I can't help with that.")          (0, 38)
    is_refusal("I can't see her ears because hair covers them.")  None

The one surprising fact: a refusal is known less by "I can't" than by its verb. What somebody cannot *see* is a
description; what somebody cannot *describe* is a refusal. An answer that declines one thing and then describes is none.
"""

import re
from collections.abc import Iterator
from typing import Final

from annotation.checks.denial import Span

_NOT: Final = (
    r"(?:can['’]?t|can ?not|couldn['’]t|won['’]t|will not|would not|wouldn['’]t|don['’]t|do not|unable|not|never"
    r"|decline|refuse|refrain|avoid|abstain|pass on|prefer not|rather not|must ask you)"
)
# A clause that declines in the first person...
_DECLINES: Final = re.compile(
    rf"\b(?:I|we|the (?:assistant|model)|me)\b(?:['’]m|['’]d|['’]ve)?(?: [\w'’]+){{0,5}}? {_NOT}\b", re.I
)
# ... or in another way.
_OTHERWISE: Final = re.compile(
    r"\bI(?:['’]m| am)? (?:have to|must|need to|will have to|respectfully|unable)\b"
    r"|(?:\bnot|n['’]t) (?:\w+ )?(?:something|anything) (?:that |which )?I\b|\bsomething (?:that |which )?I (?:avoid"
    r"|decline|refuse|refrain)"
    r"|\b(?:which|that|what|something) I(?:['’]m| am)? (?:\w+ )?(?:can['’]?t|cannot|not|unable|won['’]t|don['’]t"
    r"|will not)\b"
    r"|\bI(?:['’]m| am)? (?:\w+ )?(?:lack(?:ing)? the|choose not|chose not|say no)\b|(?:\bnot"
    r"|n['’]t) an? \w+ (?:that |which )?I\b"
    r"|^\W*(?:request|response|query|task|answer) (?:was |is |has been )?(?:declined|denied|rejected|refused|blocked"
    r"|withheld)"
    r"|\bno (?:image|picture|photo\w*) (?:that |which |for me |to |I)\b|\bsomething went wrong\b"
    r"|\b(?:outside|beyond) (?:of )?(?:what I|my (?:capabilit|abilit|scope))"
    r"|\b(?:my|our|content|usage|safety) (?:guidelines|polic(?:y|ies)|programming|instructions|principles)\b"
    r"|\b(?:against|violates?|contrary to|restrict\w+ by) (?:my|our|the|openai['’]s) (?:\w+ )?(?:polic|guidelines"
    r"|principles|rules|terms)"
    r"|\b(?:policy|policies|guidelines|rules|restrictions) (?:prevents?|prohibits?|forbids?|stops?|do not|does not)"
    r"|\b(?:isn['’]t|is not|not|impossible|inappropriate|unethical|irresponsible|wrong) (?:\w+ )?(?:possible "
    r"|appropriate |ethical )?for me to\b"
    r"|\b(?:isn['’]t|is not|not) (?:possible|something|appropriate|permitted|allowed) for me\b"
    r"|\b(?:not appropriate|inappropriate|unethical|not ethical|not acceptable|irresponsible) to (?:describ|comment"
    r"|guess|infer|judge|speculat|assess|analy|label|identif)\w*"
    r"|^\s*(?:describ|identify|making|make|inferr|provid|analy[sz]|assess|evaluat|comment|guess|speculat|judg|assign"
    r"|label)\w*ing\b.*"
    r"(?:\bnot|n['’]t|cannot|privacy|polic|inappropriate|unethical|beyond|outside|harmful|stereotyp|avoid|against)"
    r"|\b(?:request|question|prompt) (?:cannot|can['’]t|could not|was not|has been) (?:be )?(?:completed|fulfilled"
    r"|answered|processed|declined|blocked|refused)"
    r"|\bno (?:image|picture|photo\w*|attachment) (?:was|has been|is|came|seems)\b"
    r"|\b(?:image|picture|photo\w*|attachment|file) (?:\w+ )?(?:did not|didn['’]t|does not|doesn['’]t|failed to"
    r"|could not be|cannot be|was not) (?:load(?:ed)?|come through|upload(?:ed)?|display(?:ed)?|received|shown"
    r"|viewed|open(?:ed)?|be (?:loaded|opened|displayed|viewed|found|processed))\b"
    r"|\b(?:response|answer|output|content|message|request) (?:was|is|has been) (?:blocked|filtered|withheld|removed"
    r"|declined|refused)\b|\bcontent filter"
    r"|\b(?:isn['’]t|is not|(?:doesn['’]t|does not) (?:seem|appear) to be) an? (?:image|picture|photo)\b"
    r"|\b(?:upload|attach|resend|send) (?:it|the (?:image|picture|photo)|an? (?:image|picture|photo))\b"
    r"|\b(?:see|have|find|receive|received) (?:no|an?y) (?:image|picture|photo)"
    r"|\bas an? (?:\w+ )?(?:AI|language model|virtual assistant)\b.*(?:\bnot|n['’]t|unable|cannot|refrain|avoid"
    r"|decline)"
    r"|\b(?:emotion\w*|feeling\w*|states?|ethnicity|race|gender|age) can(?:['’]t|not) be (?:inferred|read|determined"
    r"|known) from an? (?:photo\w*|image|picture|face)",
    re.IGNORECASE,
)
# In the first person, but about what can be seen or known of the picture.
_HARMLESS: Final = re.compile(
    r"can(?:['’]t|not) (?:help (?:but|noticing|admiring|smiling)|say enough)"
    r"|(?:not|can['’]t|cannot|unable to|couldn['’]t|don['’]t|not able to) (?:really |quite |clearly |fully )?"
    r"(?:see (?!(?:the|any|this|your|an) (?:image|picture|photo|attach))|make out|tell (?:whether|if|from|how|exactly)"
    r"|rule out|fault|detect|find|spot|notice|discern|be (?:sure|certain)|count|measure|exclude|expect|miss|believe"
    r"|think|doubt)"
    r"|possible to (?:see|make out|tell)|(?:does|do) not allow me to (?:judge|see|make out)"
    r"|would not (?:rely|call|expect|say|rule)|if I(?:['’]m| am) not mistaken|me (?:to )?(?:think|doubt)|not sure",
    re.IGNORECASE,
)
# What stands around a refusal and describes nothing.
_FILLER: Final = re.compile(
    r"^\W*$|\b(?:sorry|apologi[sz]e|apologies|regret|unfortunately|thank you|thanks|please|let me know"
    r"|(?:is there|if there(?:['’]s| is)) anything|feel free|if you(?:['’]d| would| have| need| like| want)"
    r"|(?:I|we)(?:['’]d| would| can| could| will|['’]ll) (?:be (?:happy|glad)|gladly|describe|help|still|instead)"
    r"|perhaps you|could you|as an? (?:AI|language|text)|I hope|I understand|upload|guidelines|polic(?:y|ies)"
    r"|privacy|try again|a real person|you|your"
    r"|another (?:question|topic)|a different (?:topic|picture|image|question)|not comfortable"
    r"|seems to show a child)\b",
    re.IGNORECASE,
)
_CLAUSE: Final = re.compile(
    r"(?:[^.!?;:,]|[.,:](?=\S)|,(?! (?:but|yet|however|although|though|while|she|he|the) ))+(?:[.!?;:,]+|$)"
)


def is_refusal(text: str) -> Span | None:
    """Where a whole answer declines to answer: the character range of its first refusing part, or None.

    None also for an answer that declines a part and then describes; see `declined_part`.
    """
    refusing, describing = _parts(text)
    return refusing[0] if refusing and not describing else None


def declined_part(text: str) -> Span | None:
    """Where an answer that otherwise describes declines something; None where it declines nothing, or everything."""
    refusing, describing = _parts(text)
    return refusing[0] if refusing and describing else None


def _parts(text: str) -> tuple[list[Span], list[Span]]:
    """The clauses that decline, and those that describe; filling words are neither."""
    if not _DECLINES.search(text) and not _OTHERWISE.search(text):
        return [], []
    refusing, describing = [], []
    for start, end in _clauses(text):
        clause = text[start:end]
        harmless = _HARMLESS.search(clause)
        if not harmless and (_DECLINES.search(clause) or _OTHERWISE.search(clause)):
            refusing.append((start, end))
        elif harmless or not (_FILLER.search(clause) or clause.endswith("?")):
            describing.append((start, end))
    return refusing, [part for part in describing if _says_much(text, part, refusing)]


def _says_much(text: str, part: Span, refusing: list[Span]) -> bool:
    """Whether a clause is a description; a short lead-in such as "As an AI," or a reason beside a refusal is not."""
    words = text[part[0] : part[1]].split()
    sentence_end = re.search(r"[.!?](?:\s|$)", text[part[0] :])
    until = part[0] + sentence_end.end() if sentence_end else len(text)
    leads_in = any(part[1] <= start < until for start, _ in refusing)
    return len(words) >= 4 and not leads_in


def _clauses(text: str) -> Iterator[Span]:
    for match in _CLAUSE.finditer(text):
        start = match.start() + len(match[0]) - len(match[0].lstrip())
        if match[0].strip():
            yield start, match.end()
