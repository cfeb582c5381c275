"""What becomes of a reply in the database: the ledger row, the ends of its tasks, its answers; in one transaction."""

import hashlib
import json
from dataclasses import dataclass
from uuid import uuid4

from sqlmodel import Session

from annotation.models import Attempt, TaskState
from annotation.teaching.ledger import add_attempt, end_tasks
from annotation.teaching.plan import Unit
from annotation.teaching.prices import Price
from annotation.teaching.teacher import Ask, Reply


@dataclass(frozen=True)
class Sent:
    """A request that has gone out: everything that its ledger row needs beside the reply."""

    run_id: int
    unit: Unit
    ask: Ask
    number: int  # 2 for the first repetition

    @property
    def attributes(self) -> str:
        """As the ledger keeps them."""
        return json.dumps([attribute.value for attribute in self.ask.attributes])


def record(session: Session, sent: Sent, reply: Reply, price: Price | None, *, again: bool) -> None:
    """Store a reply.

    Args:
        session: of a transaction that holds the write lock.
        sent: what was asked.
        reply: what came.
        price: None where no price is known.
        again: whether the same is asked again, so that the tasks stay claimed.
    """
    attempt_id = add_attempt(session, attempt_row(sent, reply, price))
    store_answers(session, sent, reply, attempt_id, again=again)


def store_answers(session: Session, sent: Sent, reply: Reply, attempt_id: int, *, again: bool) -> None:
    """Set what became of the tasks of a request, and keep its answers."""
    unit, pairs = sent.unit, {}
    states = dict.fromkeys(sent.ask.attributes, TaskState.CLAIMED if again else TaskState.FAILED)
    if not again:
        for attribute, answer in reply.answers.items():
            if isinstance(answer, TaskState):
                states[attribute] = TaskState.FALLBACK if unit.falls_back else answer
            else:
                states[attribute] = TaskState.OK
                if (pair_id := unit.keep(session, attribute, answer, sent.run_id)) is not None:
                    pairs[attribute] = pair_id
    end_tasks(session, sent.run_id, unit.identity, unit.image_id, states, attempt_id, pairs)


def attempt_row(sent: Sent, reply: Reply, price: Price | None, *, batch: bool = False) -> Attempt:
    """The ledger row of one request."""
    identity = sent.unit.identity
    cost = None
    if price is not None and reply.input_tokens is not None:
        cost = price.cost(reply.input_tokens, reply.cached_tokens or 0, reply.output_tokens or 0, batch=batch)
    row: dict[str, object] = {
        "uuid": str(uuid4()),
        "run_id": sent.run_id,
        "image_id": sent.unit.image_id,
        "attributes": sent.attributes,
        "subject": identity.subject,
        "number": sent.number,
        "prompt_version": identity.prompt_version,
        "prompt_sha256": prompt_sha256(sent.ask),
        "teacher": identity.teacher,
        "parameters": identity.parameters,
        "cost_usd": cost,
    }
    return Attempt.model_validate(row | reply_fields(reply))


def reply_fields(reply: Reply) -> dict[str, object]:
    """What the ledger keeps of a reply."""
    names = ["state", "http_status", "error", "returned_model", "fingerprint", "service_tier", "request_id"]
    names += ["input_tokens", "cached_tokens", "output_tokens", "latency_s", "raw"]
    # A server's own words may hold one half of a character, which no database takes.
    said = {"error": reply.error.encode(errors="replace").decode()}
    return {name: getattr(reply, name) for name in names} | said


def prompt_sha256(ask: Ask) -> str:
    """SHA-256 of everything that was said, without the picture: 64 hex digits."""
    told = [ask.system, ask.instruction, ask.combined, list(ask.attributes)]
    told += [ask.form.schema] if ask.form else []
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()
