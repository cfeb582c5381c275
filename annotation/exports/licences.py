"""Under which licences the pictures and pairs of an export stand, as far as that is known.

The one surprising fact: one picture of unknown origin makes the whole export's licence unknown to the Hub.
"""

from typing import Final

from annotation.exports.facts import Facts
from annotation.exports.tally import Tally
from annotation.imports.sharegpt import PROMPT_VERSION as IMPORTED

UNKNOWN: Final = "unknown"  # a value that the Hub has, too
_LICENCES: Final = {"rendered": "apache-2.0", "fairface": "cc-by-4.0"}
_WORDS: Final = {
    "rendered": "drawn by FaceLLM Studio: Apache-2.0.",
    "fairface": "FairFace by Kimmo Kärkkäinen and Jungseock Joo (WACV 2021): CC BY 4.0, so name them.",
    "chat": "sent by visitors of the chat: licence and consent unknown. Do not publish them without.",
    "imported": "came with pairs that were imported: licence unknown, it is that of where they came from.",
}


def kind_of(source: str) -> str:
    """What the source of an image, such as `fairface-0.25:val/1.jpg`, says about where it is from: `fairface`."""
    kind = source.split(":")[0]
    return "fairface" if kind.startswith("fairface-") else kind


def licence(facts: Facts | None, tally: Tally) -> str:
    """The Hub's word for the licence of all of it."""
    if facts is None or IMPORTED in tally.prompt_versions:
        return UNKNOWN
    found = {_LICENCES.get(kind, UNKNOWN) for kind in facts.sources}
    if UNKNOWN in found or not found:
        return UNKNOWN
    return "cc-by-4.0" if "cc-by-4.0" in found else "apache-2.0"


def source_lines(facts: Facts | None, tally: Tally) -> str:
    """A line for each origin of pictures, and one for imported pairs."""
    if facts is None:
        text = "Not recorded: the snapshot was taken by an earlier version.\n"
    else:
        text = "".join(
            f"- {count:,} pictures ({kind}): {_WORDS.get(kind, 'licence unknown.')}\n"
            for kind, count in sorted(facts.sources.items())
        )
    if count := tally.prompt_versions[IMPORTED]:
        text += f"- {count:,} pairs were imported and stand under their own licence; FairFaceGPT's is CC BY-SA.\n"
    return text
