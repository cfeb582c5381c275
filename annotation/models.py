"""The tables, and the input schemas that guard them.

A `table=True` model is built without validation, so every row is made by `Model.model_validate({...})`, and what comes
from outside passes an input schema first. Enums are stored as their string values. The draft of a pair (question and
answer) never changes; what people decide about it is a list of events, and `Pair.status` only repeats what they add
up to.
"""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Final
from uuid import UUID

import pydantic
import sqlalchemy as sa
from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator
from sqlmodel import Field, SQLModel

from facellm.data import Attribute
from facellm.votes import Outcome


class Status(StrEnum):
    """What the decisions about a pair add up to; `annotation.decisions` has the rules."""

    PENDING = "pending"
    ACCEPTED = "accepted"
    EDITED = "edited"
    REJECTED = "rejected"
    SKIPPED = "skipped"  # by everybody who has seen it; others still get it
    FLAGGED = "flagged"  # a reviewer wants a curator to look
    DISPUTED = "disputed"  # the reviewers disagree

    @property
    def is_open(self) -> bool:
        """Whether such pairs are still handed out to reviewers."""
        return self in (Status.PENDING, Status.SKIPPED)


class Action(StrEnum):
    """What one decision does."""

    ACCEPT = "accept"
    EDIT = "edit"
    REJECT = "reject"
    SKIP = "skip"
    FLAG = "flag"  # with a note, for a curator
    UNDO = "undo"

    @property
    def is_verdict(self) -> bool:
        """Whether it says something about the pair, and so counts for its overlap."""
        return self in (Action.ACCEPT, Action.EDIT, Action.REJECT)


class Role(StrEnum):
    """What a person may do; each may also do what those before may."""

    VISITOR = "visitor"  # look on, chat
    REVIEWER = "reviewer"  # decide about pairs
    CURATOR = "curator"  # settle disagreements, write guidelines, take snapshots, generate, train
    ADMIN = "admin"  # accounts

    @property
    def rank(self) -> int:
        """0 for a visitor, up to 3."""
        return list(Role).index(self)


class Reason(StrEnum):
    """Why a pair was rejected."""

    WRONG = "wrong"
    CONTRADICTS = "contradicts image"
    LEAK = "leaks hint"
    REFUSAL = "refusal"
    UNSAFE = "unsafe"
    LANGUAGE = "poor language"
    OTHER = "other"


class Severity(StrEnum):
    """How much a flag should worry a reviewer."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Purpose(StrEnum):
    """What a teacher is asked for."""

    GENERATE = "generate"  # an answer that becomes a pair
    JUDGE = "judge"  # a verdict about a pair
    PROBE = "probe"  # an answer without the face, or with a wrong hint: it never becomes a pair


class TaskState(StrEnum):
    """How far one question to a teacher has come."""

    CLAIMED = "claimed"  # a run is at it
    BATCHED = "batched"  # it waits in a batch of the Batch API
    FAILED = "failed"  # the network or the server failed too often; the next run asks again
    FALLBACK = "fallback"  # asked together with others it gave nothing, so it is asked alone, as a task of its own
    OK = "ok"
    REFUSED = "refused"  # the teacher does not want to
    FILTERED = "filtered"  # a content filter came between
    CUT = "cut"  # the answer was longer than was allowed
    INVALID = "invalid"  # an answer that is empty or not in the form asked for

    @property
    def is_final(self) -> bool:
        """Whether no later run asks again."""
        return self not in (TaskState.CLAIMED, TaskState.BATCHED, TaskState.FAILED)


class AttemptState(StrEnum):
    """What one request to a teacher came to."""

    SENT = "sent"  # in a batch that has not been collected yet
    OK = "ok"  # also where some of several answers were of no use
    REFUSED = "refused"
    FILTERED = "filtered"
    CUT = "cut"
    INVALID = "invalid"
    ERROR = "error"  # no answer: see http_status and error
    LOST = "lost"  # the process died while it waited; the provider may have billed it


class RunState(StrEnum):
    """How far a generation run has come."""

    RUNNING = "running"
    WAITING = "waiting"  # for a batch
    DONE = "done"
    STOPPED = "stopped"  # by a person, or at the cost limit
    FAILED = "failed"


# Constraints need names before a migration can change them.
SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
GROUPS: Final = ("race", "gender", "age")  # the labels that pairs have copies of
VERDICTS: Final = tuple(action for action in Action if action.is_verdict)
OPEN: Final = tuple(status for status in Status if status.is_open)
OPEN_SQL: Final = f"status IN ({', '.join(repr(status.value) for status in OPEN)})"  # as indexes of open pairs have it
_IN_SQLITE, _IN_POSTGRESQL = {"dialect": "sqlite"}, {"dialect": "postgresql"}  # what only one of them has; see env.py
_TOLD, _DIGEST = ("prompt_version", "teacher"), sa.text("md5(parameters)")
_FILTERED = ("attribute", *GROUPS, "suspicion", "run_id", "verdicts", "overlap")
_UNPLACED: Final[dict[str, Any]] = {
    f"{dialect}_where": sa.text("balance IS NULL") for dialect in ("sqlite", "postgresql")
}
_OPEN: Final[dict[str, Any]] = {f"{dialect}_where": sa.text(OPEN_SQL) for dialect in ("sqlite", "postgresql")}
_UNIQUE_FREE: Final[dict[str, Any]] = {
    "unique": True,
    "sqlite_where": sa.text("attribute IS NULL"),
    "postgresql_where": sa.text("attribute IS NULL"),
}
SHUFFLE: Final = 2**31  # `Pair.shuffle` is below it
FREE_QUESTION: Final = "free question"  # in the place of an attribute: the pairs that have none
CURATED = (Status.ACCEPTED, Status.EDITED)  # what a snapshot takes unless told otherwise


class UtcDateTime(sa.TypeDecorator[datetime]):
    """Aware datetimes in, aware datetimes out: SQLite drops the time zone, so UTC is stored and put back."""

    impl = sa.DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:  # noqa: ARG002
        """Store UTC without a zone."""
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:  # noqa: ARG002
        """Give it back as UTC."""
        return None if value is None else value.replace(tzinfo=UTC)


def _text_enum(kind: type[StrEnum]) -> Any:
    """A VARCHAR of the enum's values (SQLAlchemy's own default stores the names), without a CHECK to migrate."""
    return sa.Enum(
        kind, native_enum=False, create_constraint=False, length=32, values_callable=lambda e: [m.value for m in e]
    )


def _stored_as(default: str) -> dict[str, Any]:
    """What rows that were there before the column have in it; SQL."""
    return {"server_default": sa.text(default)}


def _now() -> datetime:
    return datetime.now(UTC)


class Image(SQLModel, table=True):
    """A face picture; its file is named by its content and never changes."""

    __tablename__ = "images"

    id: int | None = Field(default=None, primary_key=True)
    sha256: str = Field(unique=True, min_length=64, max_length=64)
    path: str  # relative to the data directory
    width: int = Field(ge=1)
    height: int = Field(ge=1)
    bytes: int = Field(ge=1)
    source: str = Field(index=True)  # where it came from, such as "rendered:17"
    created_at: datetime = Field(default_factory=_now, sa_type=UtcDateTime)


class Label(SQLModel, table=True):
    """One known fact about an image, such as age = 20-29, and who says so."""

    __tablename__ = "labels"
    __table_args__ = (
        sa.UniqueConstraint("image_id", "name", "source"),
        sa.Index("ix_labels_name_value", "name", "value", "image_id"),
    )

    id: int | None = Field(default=None, primary_key=True)
    image_id: int = Field(foreign_key="images.id")
    name: str = Field(min_length=1)
    value: str = Field(min_length=1)
    source: str = Field(min_length=1)


class Pair(SQLModel, table=True):
    """A question about an image and a teacher's answer to it: an immutable draft with a derived status."""

    __tablename__ = "pairs"
    __table_args__ = (
        # To a unique constraint no two NULLs are equal, so pairs without an attribute need their own. PostgreSQL
        # indexes no text of more than some kilobytes, as a chat's earlier turns are, so there its digest is unique.
        sa.UniqueConstraint("image_id", "attribute", *_TOLD, "parameters", info=_IN_SQLITE),
        sa.Index("uq_pairs_free_question", "image_id", *_TOLD, "parameters", info=_IN_SQLITE, **_UNIQUE_FREE),
        sa.Index("uq_pairs_identity", "image_id", "attribute", *_TOLD, _DIGEST, info=_IN_POSTGRESQL, unique=True),
        sa.Index("uq_pairs_free_identity", "image_id", *_TOLD, _DIGEST, info=_IN_POSTGRESQL, **_UNIQUE_FREE),
        sa.Index("ix_pairs_attribute_status", "attribute", "status", "id"),
        sa.Index("ix_pairs_run_id", "run_id"),
        # The orders of the review queue, each with what its filters ask, so that no pair is read in vain.
        sa.Index("ix_pairs_open_image", "image_id", "id", *_FILTERED, **_OPEN),
        sa.Index("ix_pairs_open_shuffle", "shuffle", "id", *_FILTERED, **_OPEN),
        sa.Index("ix_pairs_open_suspicion", sa.text("(-suspicion)"), "image_id", "id", *_FILTERED, **_OPEN),
        sa.Index("ix_pairs_open_balance", "balance", "id", *_FILTERED, **_OPEN),
        sa.Index(
            "ix_pairs_facets",
            *("status", "attribute", *GROUPS, "suspicion", "run_id", "image_id", "shuffle", "balance"),
        ),
        sa.Index(
            "ix_pairs_unplaced",
            "id",
            sqlite_where=sa.text("balance IS NULL"),
            postgresql_where=sa.text("balance IS NULL"),
        ),
    )

    id: int | None = Field(default=None, primary_key=True)
    image_id: int = Field(foreign_key="images.id")
    attribute: Attribute | None = Field(sa_type=_text_enum(Attribute), nullable=True)  # None: a free question
    question: str = Field(min_length=1)
    answer: str = Field(min_length=1)
    teacher: str = Field(min_length=1)
    prompt_version: str = Field(min_length=1)
    parameters: str = ""  # what else the teacher was told, such as a seed; part of the pair's identity
    status: Status = Field(default=Status.PENDING, sa_type=_text_enum(Status))
    revision: int = Field(default=0, ge=0)  # how many decisions it has had, undone ones too
    text: str | None = None  # the edited answer that stands; None: the draft does
    overlap: int = Field(default=1, ge=1, sa_column_kwargs=_stored_as("1"))  # by how many reviewers it is to be decided
    verdicts: int = Field(default=0, ge=0, sa_column_kwargs=_stored_as("0"))  # by how many it has been
    suspicion: int = Field(
        default=0, ge=0, sa_column_kwargs=_stored_as("0")
    )  # annotation.checks.flags.suspicion of its flags
    race: str = Field(
        default="", sa_column_kwargs=_stored_as("''")
    )  # this and the next two: copies of the image's labels, so that a filter reads one table
    gender: str = Field(default="", sa_column_kwargs=_stored_as("''"))
    age: str = Field(default="", sa_column_kwargs=_stored_as("''"))
    run_id: int | None = Field(default=None, foreign_key="generation_runs.id")  # that wrote it
    shuffle: int = Field(
        default=0, ge=0, lt=SHUFFLE, sa_column_kwargs=_stored_as("0")
    )  # pseudo-random and fixed: an order, and a choice at random
    balance: int | None = Field(default=None, sa_type=sa.BigInteger)  # its place in that order, once it has one
    created_at: datetime = Field(default_factory=_now, sa_type=UtcDateTime)

    @property
    def stands(self) -> str:
        """The answer that stands: the edited one where there is one, else the draft."""
        return self.answer if self.text is None else self.text


class Flag(SQLModel, table=True):
    """What an automatic check found in a pair."""

    __tablename__ = "flags"
    __table_args__ = (sa.Index("ix_flags_check", "check", "pair_id"),)

    id: int | None = Field(default=None, primary_key=True)
    pair_id: int = Field(foreign_key="pairs.id", index=True)
    check: str = Field(min_length=1)
    severity: Severity = Field(sa_type=_text_enum(Severity))
    message: str = Field(min_length=1)
    span_start: int | None = Field(default=None, ge=0)  # characters of the answer; None where the whole of it is meant
    span_end: int | None = Field(default=None, ge=0)
    created_at: datetime = Field(default_factory=_now, sa_type=UtcDateTime)


class Decision(SQLModel, table=True):
    """One event in the history of a pair. Rows are only ever added."""

    __tablename__ = "decisions"
    __table_args__ = (
        sa.UniqueConstraint("pair_id", "revision"),
        sa.Index("ix_decisions_reviewer", "reviewer", "id"),
    )

    id: int | None = Field(default=None, primary_key=True)
    uuid: str = Field(unique=True, min_length=36, max_length=36)  # made in the browser: sending it twice stores it once
    pair_id: int = Field(foreign_key="pairs.id")
    revision: int = Field(ge=1)  # of the pair after this event
    reviewer: str = Field(min_length=1)
    action: Action = Field(sa_type=_text_enum(Action))
    reason: Reason | None = Field(default=None, sa_type=_text_enum(Reason))
    text: str | None = None  # the new answer of an edit
    milliseconds: int | None = Field(default=None, ge=0)  # from the pair being shown to the key
    undoes: str | None = Field(default=None, foreign_key="decisions.uuid", unique=True)  # the event that it takes back
    note: str | None = None  # of a flag: what the curator is asked
    settles: bool = Field(
        default=False, sa_column_kwargs=_stored_as("false")
    )  # a curator's last word, whatever the reviewers have said
    blind: bool = Field(default=True, sa_column_kwargs=_stored_as("true"))  # without having seen what others said
    lot: str | None = Field(default=None, min_length=36, max_length=36)  # decided together, so undone together
    created_at: datetime = Field(default_factory=_now, sa_type=UtcDateTime)


class Verdict(SQLModel, table=True):
    """What stands of one reviewer's decisions about one pair, skips and flags too: derived from the events."""

    __tablename__ = "verdicts"
    __table_args__ = (sa.Index("ix_verdicts_reviewer", "reviewer", "pair_id"),)

    pair_id: int = Field(foreign_key="pairs.id", primary_key=True)
    reviewer: str = Field(min_length=1, primary_key=True)
    decision_uuid: str = Field(foreign_key="decisions.uuid", min_length=36, max_length=36)
    revision: int = Field(ge=1)  # of the decision: which came first
    action: Action = Field(sa_type=_text_enum(Action))
    reason: Reason | None = Field(default=None, sa_type=_text_enum(Reason))
    text: str | None = None
    note: str | None = None
    settles: bool = False
    blind: bool
    created_at: datetime = Field(sa_type=UtcDateTime)  # of the decision


class Lease(SQLModel, table=True):
    """That a reviewer has a pair before him, so that nobody else is given it."""

    __tablename__ = "leases"
    __table_args__ = (sa.Index("ix_leases_reviewer", "reviewer"), sa.Index("ix_leases_expires_at", "expires_at"))

    pair_id: int = Field(foreign_key="pairs.id", primary_key=True)
    reviewer: str = Field(min_length=1, primary_key=True)
    holder: str = Field(min_length=1, max_length=36)  # which of his windows: two of them get different pairs
    expires_at: datetime = Field(sa_type=UtcDateTime)


class Reviewer(SQLModel, table=True):
    """An account: a person by name, and what he may do."""

    __tablename__ = "reviewers"

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True, min_length=1, max_length=40)
    role: Role = Field(sa_type=_text_enum(Role))
    password: str = ""  # a salted hash; empty: signs in by Hugging Face only
    huggingface: str = ""  # user name there
    session: int = 0  # raised to end all sessions
    active: bool = True
    created_at: datetime = Field(default_factory=_now, sa_type=UtcDateTime)


class ProjectValue(SQLModel, table=True):
    """One of the things that the curators of a data set agree on, such as its guidelines."""

    __tablename__ = "project"

    key: str = Field(primary_key=True, min_length=1)
    value: str  # JSON
    who: str = Field(min_length=1)
    updated_at: datetime = Field(default_factory=_now, sa_type=UtcDateTime)


class Trap(SQLModel, table=True):
    """A pair that is known to be bad, shown among the others to see who notices. It is no pair: it never gets out."""

    __tablename__ = "traps"
    __table_args__ = (sa.UniqueConstraint("reviewer", "before_pair"),)

    id: int | None = Field(default=None, primary_key=True)
    image_id: int = Field(foreign_key="images.id")
    attribute: Attribute = Field(sa_type=_text_enum(Attribute))
    question: str = Field(min_length=1)
    answer: str = Field(min_length=1)
    kind: str = Field(min_length=1)  # what is wrong with it
    made_from: int = Field(foreign_key="pairs.id", index=True)
    reviewer: str = Field(min_length=1)  # for whom it was made, and nobody else
    before_pair: int = Field(foreign_key="pairs.id", index=True)  # the pair that made it due
    created_at: datetime = Field(default_factory=_now, sa_type=UtcDateTime)


class TrapAnswer(SQLModel, table=True):
    """An event about a trap, undoes too. Rows are only ever added, and one that takes another back marks it."""

    __tablename__ = "trap_answers"
    __table_args__ = (sa.Index("ix_trap_answers_reviewer", "reviewer", "id"),)

    id: int | None = Field(default=None, primary_key=True)
    uuid: str = Field(unique=True, min_length=36, max_length=36)
    trap_id: int = Field(foreign_key="traps.id", index=True)
    reviewer: str = Field(min_length=1)
    action: Action = Field(sa_type=_text_enum(Action))
    reason: Reason | None = Field(default=None, sa_type=_text_enum(Reason))
    text: str | None = None
    note: str | None = None
    milliseconds: int | None = Field(default=None, ge=0)
    lot: str | None = Field(default=None, min_length=36, max_length=36)
    undone: bool = False
    created_at: datetime = Field(default_factory=_now, sa_type=UtcDateTime)


class Audit(SQLModel, table=True):
    """One pair of a random sample of what was curated, looked at once more to estimate the remaining error."""

    __tablename__ = "audits"

    id: int | None = Field(default=None, primary_key=True)
    pair_id: int = Field(foreign_key="pairs.id", index=True)
    revision: int = Field(ge=0)  # of the pair when it was drawn: a later decision makes the audit one of another text
    population: str = "{}"  # the JSON of the filter of what was drawn from
    by_attribute: bool = False  # as many of each attribute, whatever their share
    drawn_by: str = Field(min_length=1)
    drawn_at: datetime = Field(default_factory=_now, sa_type=UtcDateTime)
    is_right: bool | None = None
    auditor: str | None = None
    judged_at: datetime | None = Field(default=None, sa_type=UtcDateTime, nullable=True)


class Snapshot(SQLModel, table=True):
    """An immutable set of examples; its file is `snapshots/NAME/examples.jsonl`."""

    __tablename__ = "snapshots"

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True, min_length=1)
    filter: str  # JSON: which pairs it took
    count: int = Field(ge=1)
    sha256: str = Field(min_length=64, max_length=64)  # facellm.data.content_hash of its examples
    created_at: datetime = Field(default_factory=_now, sa_type=UtcDateTime)


class StoredVote(SQLModel, table=True):
    """A `facellm.votes.Vote` as a row, field by field. Rows are only ever added."""

    __tablename__ = "votes"

    id: int | None = Field(default=None, primary_key=True)
    uuid: str = Field(unique=True, min_length=36, max_length=36)
    prompt_sha256: str = Field(min_length=64, max_length=64)
    image_sha256: str  # JSON: a list
    a: str = Field(min_length=1)
    b: str = Field(min_length=1)
    a_source: str = Field(min_length=1)
    b_source: str = Field(min_length=1)
    seed: int = Field(sa_type=sa.BigInteger)
    temperature: float = Field(ge=0)
    top_p: float = Field(gt=0, le=1)
    max_new_tokens: int = Field(ge=1)
    order_seed: int = Field(sa_type=sa.BigInteger)
    outcome: Outcome = Field(sa_type=_text_enum(Outcome))
    attribute: Attribute | None = Field(default=None, sa_type=_text_enum(Attribute))
    voter: str = Field(min_length=1)
    created_at: datetime = Field(sa_type=UtcDateTime)


class GenerationRun(SQLModel, table=True):
    """One call of `python -m annotation generate`, and how far it has come."""

    __tablename__ = "generation_runs"

    id: int | None = Field(default=None, primary_key=True)
    uuid: str = Field(unique=True, min_length=36, max_length=36)
    host: str
    pid: int
    process_started: float  # seconds since 1970: a process id alone may belong to a later process
    purpose: Purpose = Field(sa_type=_text_enum(Purpose))
    teacher: str = Field(min_length=1)
    base_url: str
    options: str  # JSON: what the command was told
    state: RunState = Field(default=RunState.RUNNING, sa_type=_text_enum(RunState))
    message: str = ""  # why it stopped or failed
    stop_requested: bool = False
    total: int = Field(default=0, ge=0)  # tasks of this run
    finished: int = Field(default=0, ge=0)  # of those that have ended, whatever came of them
    cost_usd: float = 0.0  # of this run's attempts
    started_at: datetime = Field(default_factory=_now, sa_type=UtcDateTime)
    heartbeat_at: datetime = Field(default_factory=_now, sa_type=UtcDateTime)
    ended_at: datetime | None = Field(default=None, sa_type=UtcDateTime, nullable=True)


class Batch(SQLModel, table=True):
    """One file of requests at a provider's Batch API."""

    __tablename__ = "batches"

    id: int | None = Field(default=None, primary_key=True)
    uuid: str = Field(
        unique=True, min_length=36, max_length=36
    )  # in the provider's metadata: finds one whose id was lost
    run_id: int = Field(foreign_key="generation_runs.id", index=True)
    remote_id: str | None = None
    state: str = "preparing"  # then the provider's own words, and "collected" at last
    requests: int = Field(ge=1)
    bytes: int = Field(ge=1)
    created_at: datetime = Field(default_factory=_now, sa_type=UtcDateTime)
    collected_at: datetime | None = Field(default=None, sa_type=UtcDateTime, nullable=True)


class Attempt(SQLModel, table=True):
    """One request to a teacher and what came of it: the ledger. Rows are only ever added, and a sent one ended once."""

    __tablename__ = "attempts"
    __table_args__ = (sa.Index("ix_attempts_teacher", "teacher", "prompt_version", "state"),)

    id: int | None = Field(default=None, primary_key=True)
    uuid: str = Field(unique=True, min_length=36, max_length=36)  # the custom_id of a batch
    run_id: int = Field(foreign_key="generation_runs.id", index=True)
    batch_id: int | None = Field(default=None, foreign_key="batches.id", index=True)
    image_id: int = Field(foreign_key="images.id")
    attributes: str  # JSON: the list that was asked for
    subject: str = ""  # of its tasks
    number: int = Field(default=1, ge=1)  # 2 for the first repetition
    prompt_version: str
    prompt_sha256: str = Field(max_length=64)  # of the request without its picture; empty for a lost one
    teacher: str  # the model that was asked for
    parameters: str
    state: AttemptState = Field(sa_type=_text_enum(AttemptState))
    http_status: int | None = None
    error: str = ""
    returned_model: str | None = None
    fingerprint: str | None = None
    service_tier: str | None = None
    request_id: str | None = None
    input_tokens: int | None = Field(default=None, ge=0)
    cached_tokens: int | None = Field(default=None, ge=0)  # of the input tokens
    output_tokens: int | None = Field(default=None, ge=0)
    cost_usd: float | None = None  # None: no usage, or no price known
    latency_s: float | None = Field(default=None, ge=0)
    raw: str = ""  # the answer as it came
    created_at: datetime = Field(default_factory=_now, sa_type=UtcDateTime)


class Task(SQLModel, table=True):
    """One question about one image to one teacher: asked by one run at a time until it has an end, then never again."""

    __tablename__ = "tasks"
    __table_args__ = (
        sa.UniqueConstraint(
            *("image_id", "attribute", "subject", "prompt_version", "teacher", "parameters"), name="uq_tasks_identity"
        ),  # the name that the convention makes is longer than PostgreSQL allows
        sa.Index("ix_tasks_run_state", "run_id", "state"),
        sa.Index("ix_tasks_state", "state", "prompt_version", "teacher"),
    )

    id: int | None = Field(default=None, primary_key=True)
    image_id: int = Field(foreign_key="images.id")
    attribute: Attribute = Field(sa_type=_text_enum(Attribute))
    subject: str = ""  # empty to generate; `pair:17` to judge that pair; the kind of a probe
    prompt_version: str = Field(min_length=1)
    teacher: str = Field(min_length=1)
    parameters: str
    state: TaskState = Field(sa_type=_text_enum(TaskState))
    run_id: int = Field(foreign_key="generation_runs.id")  # the one that claimed it last
    attempt_id: int | None = Field(default=None, foreign_key="attempts.id")  # the last one
    pair_id: int | None = Field(default=None, foreign_key="pairs.id", index=True)  # what came of it
    updated_at: datetime = Field(default_factory=_now, sa_type=UtcDateTime)


class Acknowledgement(SQLModel, table=True):
    """That somebody has read something before using it, such as a provider's usage policy."""

    __tablename__ = "acknowledgements"

    id: int | None = Field(default=None, primary_key=True)
    subject: str = Field(unique=True, min_length=1)
    who: str = Field(min_length=1)
    created_at: datetime = Field(default_factory=_now, sa_type=UtcDateTime)


# A page may be left open for longer than the 24 days that an integer of PostgreSQL holds.
Milliseconds = Annotated[int, AfterValidator(lambda value: min(value, 2**31 - 1))]


class DecisionInput(BaseModel):
    """A decision as it comes from a browser, before it is known whether it can be stored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uuid: UUID
    pair_id: int = pydantic.Field(ge=0, lt=2**31)
    image_sha256: str  # with the next two: what the reviewer was looking at
    revision: int = pydantic.Field(ge=0)  # how many decisions of his own about the pair his page knew of
    others: int | None = pydantic.Field(
        default=None, ge=0
    )  # how many of others; None where it was shown open, without theirs
    action: Action
    reason: Reason | None = None
    text: str | None = pydantic.Field(default=None, max_length=20_000)
    note: str | None = pydantic.Field(default=None, max_length=2_000)
    milliseconds: Milliseconds | None = pydantic.Field(default=None, ge=0)
    undoes: UUID | None = None
    lot: UUID | None = None

    @model_validator(mode="after")
    def _fields_fit_the_action(self) -> "DecisionInput":
        if (self.action is Action.EDIT) != (self.text is not None):
            raise ValueError("an edit has a text, and nothing else has one")
        if self.text is not None and not self.text.strip():
            raise ValueError("the edited answer is empty")
        if self.reason is not None and self.action is not Action.REJECT:
            raise ValueError("only a rejection has a reason")
        if (self.action is Action.FLAG) != bool(self.note and self.note.strip()):
            raise ValueError("a flag has a note that says what the curator is asked, and nothing else has one")
        if self.action is Action.UNDO and self.undoes is None:
            raise ValueError("an undo names the decision that it takes back")
        return self


class PairInput(BaseModel):
    """A draft to be stored, with a decision already made about it where there is one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    attribute: Attribute | None  # None: a free question
    question: str = pydantic.Field(min_length=1)
    answer: str = pydantic.Field(min_length=1)
    teacher: str = pydantic.Field(min_length=1)
    prompt_version: str = pydantic.Field(min_length=1)
    parameters: str = ""
    decision: "PastDecision | None" = None


class PastDecision(BaseModel):
    """A decision that comes with an imported pair."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uuid: UUID
    reviewer: str = pydantic.Field(min_length=1)
    action: Action
    reason: Reason | None = None
    text: str | None = None
    milliseconds: Milliseconds | None = pydantic.Field(default=None, ge=0)


class ImageInput(BaseModel):
    """An image whose file is stored already, with its labels and pairs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str = pydantic.Field(pattern="^[0-9a-f]{64}$")
    path: str
    width: int = pydantic.Field(ge=1)
    height: int = pydantic.Field(ge=1)
    bytes: int = pydantic.Field(ge=1)
    source: str
    labels: dict[str, str]
    label_source: str = pydantic.Field(min_length=1)
    pairs: tuple[PairInput, ...] = ()
