"""The dry run: what a plan has left, a sample of its images, and what such requests took before, from the ledger."""

from collections import Counter
from dataclasses import replace

import sqlalchemy as sa
from sqlmodel import Session, col, func, select

from annotation.decisions import labels_of
from annotation.models import Attempt, Image, Pair, Task, TaskState
from annotation.store import Store
from annotation.teaching import estimate
from annotation.teaching.estimate import Estimate, ImageSample, Measured
from annotation.teaching.generate import Limits
from annotation.teaching.ledger import Identity
from annotation.teaching.plan import Plan
from annotation.teaching.teacher import Parameters
from facellm.data import Attribute

SAMPLE = 400  # images


def estimate_plan(store: Store, plan: Plan, parameters: Parameters, limits: Limits) -> Estimate:
    """What is left of a plan will take.

    Args:
        store: where images and ledger are.
        plan: what is asked.
        parameters: of each request.
        limits: how many requests at once, and the price.
    """
    single: Counter[Attribute] = Counter()
    combined: Counter[tuple[Attribute, ...]] = Counter()
    image_ids: set[int] = set()
    for chunk in plan.units(store.ledger):
        for unit in chunk:
            image_ids.add(unit.image_id)
            if unit.combined:
                combined[unit.attributes] += 1
            else:
                single[unit.attributes[0]] += 1
    with store.ledger.reading() as session:
        for attribute, share in _fallback_shares(session, plan.identity(combined=True)).items():
            single[attribute] += round(share * combined.total())
        sample = _sample(session, sorted(image_ids))
        known = {together: _measured(session, plan.identity(combined=together)) for together in (False, True)}
        latency = _latency(session, plan.teacher)
    found = estimate.estimate(
        estimate.Plan(single, combined),
        sample,
        model=plan.teacher,
        price=limits.price,
        detail=parameters.detail,
        max_tokens=parameters.max_completion_tokens,
        single=known[False],
        combined=known[True],
        concurrency=limits.concurrency,
        latency_s=latency,
    )
    return replace(found, second_answers=count_second_answers(store, plan))


def count_second_answers(store: Store, plan: Plan) -> int:
    """How many questions of what is left this teacher has answered before, under other settings."""
    with store.ledger.reading() as session:
        query = select(Pair.image_id, Pair.attribute).where(Pair.teacher == plan.teacher)
        answered = set(session.exec(query).all())
    wanted = (unit for chunk in plan.units(store.ledger) for unit in chunk) if answered else ()
    return sum((unit.image_id, attribute) in answered for unit in wanted for attribute in unit.attributes)


def _sample(session: Session, image_ids: list[int]) -> list[ImageSample]:
    """Images from all over the plan."""
    chosen = image_ids[:: max(1, len(image_ids) // SAMPLE)]
    labels = labels_of(session, chosen)
    rows = session.exec(select(Image.id, Image.width, Image.height).where(col(Image.id).in_(chosen))).all()
    return [ImageSample(width, height, labels[image_id or 0]) for image_id, width, height in rows]


def _fallback_shares(session: Session, identity: Identity) -> dict[Attribute, float]:
    """For each attribute, how often it was asked alone after a request for several gave nothing for it."""
    of_these = [
        Task.subject == identity.subject,
        Task.prompt_version == identity.prompt_version,
        Task.teacher == identity.teacher,
        Task.parameters == identity.parameters,
    ]
    is_fallback = sa.case((col(Task.state) == TaskState.FALLBACK, 1.0), else_=0.0)
    query = select(Task.attribute, func.avg(is_fallback), func.count()).where(*of_these).group_by(col(Task.attribute))
    rows = session.exec(query).all()
    return {Attribute(name): float(share or 0) for name, share, number in rows if number >= estimate.MIN_MEASURED}


def _measured(session: Session, identity: Identity) -> Measured | None:
    """What such requests took so far; a refused, cut or empty answer is billed like any other."""
    of_these = [
        col(Attempt.subject) == identity.subject,
        col(Attempt.prompt_version) == identity.prompt_version,
        col(Attempt.teacher) == identity.teacher,
        col(Attempt.parameters) == identity.parameters,
        col(Attempt.input_tokens).is_not(None),
    ]
    units = select(Attempt.image_id, Attempt.attributes).where(*of_these).distinct().subquery()
    query = select(func.count(), func.avg(Attempt.input_tokens), func.avg(Attempt.output_tokens)).where(*of_these)
    asked = session.exec(select(func.count()).select_from(units)).one()
    requests, into, out = session.exec(query).one()
    if not requests:
        return None
    return Measured(requests, float(into), float(out), requests / asked)


def _latency(session: Session, teacher: str) -> float | None:
    """The mean seconds of the latest answers, if there are enough."""
    latest = (
        select(Attempt.latency_s)
        .where(Attempt.teacher == teacher, col(Attempt.input_tokens).is_not(None), col(Attempt.latency_s).is_not(None))
        .order_by(col(Attempt.id).desc())
        .limit(500)
    )
    found = [seconds or 0.0 for seconds in session.exec(latest)]
    return sum(found) / len(found) if len(found) >= estimate.MIN_MEASURED else None
