"""What judging or probing will take, before anything is sent.

The one surprising fact: unlike for generating there is no plan in numbers; the requests themselves are made, a sample
of them, and their tokens counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlmodel import Session, col, func, select

from annotation.models import Attempt, GenerationRun, Image
from annotation.store import Store
from annotation.teaching.estimate import MESSAGE_TOKENS, MIN_MEASURED, TOKENS_PER_WORD
from annotation.teaching.plan import Unit, Work
from annotation.teaching.prices import Price
from annotation.teaching.prompts import ANSWER_WORDS
from annotation.teaching.teacher import Parameters
from annotation.teaching.tokens import image_tokens, text_tokens

SAMPLE = 20  # requests of each chunk
VERDICT_TOKENS = 80  # of a verdict: a sentence, a quote and the JSON around them


@dataclass(frozen=True)
class RoughEstimate:
    """What a run will take."""

    requests: int
    input_tokens: int
    output_tokens: int
    cost_usd: float | None  # None: the price is not known
    basis: str  # "assumed" or "measured on N requests"


def rough_estimate(store: Store, work: Work, model: str, parameters: Parameters, price: Price | None) -> RoughEstimate:
    """Estimate what is left of some work.

    Args:
        store: where images and ledger are.
        work: what is to be asked.
        model: whom.
        parameters: of each request.
        price: None where none is known.
    """
    requests = 0
    counted: list[tuple[float, float]] = []
    for units in work.units(store.ledger):
        requests += len(units)
        with store.ledger.reading() as session:
            counted += _counted(session, model, parameters, units[:: max(1, len(units) // SAMPLE)])
    with store.ledger.reading() as session:
        known = _measured(session, model, parameters, work)
    count, into, out = known if known[0] >= MIN_MEASURED else (0, *_means(counted))
    into, out = round(requests * into), round(requests * out)
    return RoughEstimate(
        requests=requests,
        input_tokens=into,
        output_tokens=out,
        cost_usd=None if price is None else price.cost(into, 0, out),
        basis=f"measured on {count} requests" if count else "assumed",
    )


def rough_text(found: RoughEstimate) -> str:
    """The estimate for reading."""
    cost = "not known" if found.cost_usd is None else f"{found.cost_usd:.4f} USD"
    return "\n".join(
        (
            f"requests       {found.requests:,}",
            f"input tokens   {found.input_tokens:,}",
            f"output tokens  {found.output_tokens:,}",
            f"cost           {cost}",
            f"basis          {found.basis}",
        )
    )


def _counted(session: Session, model: str, parameters: Parameters, units: Sequence[Unit]) -> list[tuple[float, float]]:
    """(input, output) tokens of each of these requests."""
    ids = {unit.image_id for unit in units}
    rows = session.exec(select(Image.id, Image.width, Image.height).where(col(Image.id).in_(ids)))
    sizes = {image_id: (width, height) for image_id, width, height in rows}
    found = []
    for unit in units:
        ask = unit.ask(unit.attributes)
        into = text_tokens(ask.system) + text_tokens(ask.instruction) + MESSAGE_TOKENS
        into += image_tokens(model, *sizes[unit.image_id], parameters.detail)
        words = sum(sum(ANSWER_WORDS[attribute]) / 2 for attribute in unit.attributes)
        out = VERDICT_TOKENS if ask.form else words * TOKENS_PER_WORD
        found.append((float(into), min(out, parameters.max_completion_tokens * len(unit.attributes))))
    return found


def _means(counted: Sequence[tuple[float, float]]) -> tuple[float, float]:
    if not counted:
        return 0.0, 0.0
    return sum(into for into, _ in counted) / len(counted), sum(out for _, out in counted) / len(counted)


def _measured(session: Session, model: str, parameters: Parameters, work: Work) -> tuple[int, float, float]:
    """(number, mean input, mean output) of such requests so far."""
    query = select(func.count(), func.avg(Attempt.input_tokens), func.avg(Attempt.output_tokens))
    query = query.join(GenerationRun, col(Attempt.run_id) == GenerationRun.id).where(
        GenerationRun.purpose == work.purpose,
        Attempt.teacher == model,
        Attempt.parameters == parameters.text,
        col(Attempt.input_tokens).is_not(None),
    )
    number, into, out = session.exec(query).one()
    return number, float(into or 0), float(out or 0)
