"""What the automatic checks are given and what they return."""

from dataclasses import dataclass, field

from annotation.models import Severity
from facellm.data import Attribute


@dataclass(frozen=True)
class Facts:
    """A pair as the checks see it: its texts and what is known about its image, never a decision."""

    attribute: Attribute | None  # None: a free question
    question: str
    answer: str  # the text that stands: the edited one where there is one
    labels: dict[str, str] = field(default_factory=dict)  # FairFace's, or a rendered face's factors


@dataclass(frozen=True)
class Finding:
    """One reason to look at a pair."""

    check: str
    severity: Severity
    message: str  # a sentence for the reviewer
    span_start: int | None = None  # characters (code points) of the answer; None where the whole of it is meant
    span_end: int | None = None
