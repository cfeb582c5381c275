"""What a generation run will take, before anything is sent: requests, tokens, money and time.

    plan = Plan(single={Attribute.POSE: 10_954})
    print(describe(estimate(plan, sample, model="gpt-4o", price=price_of("gpt-4o"), detail="low")))

Everything comes from plain numbers: what is to be asked, a sample of the images and, where the ledger knows it, what
such requests have taken so far. The one surprising fact: answers make most of the bill, and their length is the one
thing that can only be assumed before the first ones have come.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from annotation.teaching.prices import Price
from annotation.teaching.prompts import ANSWER_WORDS, SYSTEM, answer_schema, combined_instruction, instruction
from annotation.teaching.tokens import (
    FAMILIES,
    OTHER_TILE,
    OTHER_TOKENS,
    Tiles,
    image_family,
    image_tokens,
    text_tokens,
)
from facellm.data import Attribute

MIN_MEASURED: Final = 20  # requests; from fewer no average is taken
TOKENS_PER_WORD: Final = 1.2  # of English prose with its punctuation: 1.17 to 1.18 on our prompts and seeded answers
MESSAGE_TOKENS: Final = 11  # around a system and a user message, as OpenAI's cookbook counts them
KEY_TOKENS: Final = 5  # of JSON around each answer of a combined request
FIRST_TOKEN_S: Final = 1.5  # with the next: what is assumed of a teacher's pace
TOKENS_PER_S: Final = 50
_THINKING: Final = ("gpt-5", "gpt-6", "o1", "o3", "o4")  # reasoning models: their thoughts are billed as output


@dataclass(frozen=True)
class ImageSample:
    """One image, as far as its cost goes."""

    width: int  # pixels
    height: int
    labels: Mapping[str, str]


@dataclass(frozen=True)
class Plan:
    """What is still to be asked: tasks that are asked alone, and images whose attributes are asked together."""

    single: Mapping[Attribute, int] = field(default_factory=dict)  # tasks by attribute
    combined: Mapping[tuple[Attribute, ...], int] = field(default_factory=dict)  # images by what is asked of them


@dataclass(frozen=True)
class Measured:
    """What such requests have taken so far: same teacher, prompt version and mode, and about the same attributes."""

    requests: int  # that have ended and have a usage; the means are theirs
    input_tokens_mean: float
    output_tokens_mean: float
    attempts_per_task: float  # such requests for each task, or for each image where attributes are asked together


@dataclass(frozen=True)
class Estimate:
    """What a run will take."""

    model: str
    requests: int
    input_tokens: int
    output_tokens: int
    cost_usd: float | None  # None: the price is not known
    cost_batch_usd: float | None
    basis: str  # "assumed", "measured on N requests" or "partly measured on N requests"
    seconds: float  # for all requests, `concurrency` at a time; a provider's rate limits may make it longer
    latency_s: float  # of one request, on average
    concurrency: int
    price: Price | None
    assumptions: tuple[str, ...]  # what else it rests on, a sentence each
    second_answers: int = (
        0  # questions that this teacher has answered under other settings: they would be answered twice
    )


_Kind = tuple[tuple[Attribute, ...], bool, int, Measured | None]  # what is asked, whether together, how often


@dataclass(frozen=True)
class _Part:
    """Requests of one kind, and the mean tokens of one."""

    requests: float
    input_tokens: float
    output_tokens: float
    measured: Measured | None


@dataclass(frozen=True)
class _Teacher:
    """What decides the tokens of a request besides its prompt."""

    model: str
    detail: str | None
    max_tokens: int | None


def estimate(
    plan: Plan,
    sample: Sequence[ImageSample],
    *,
    model: str,
    price: Price | None,
    detail: str | None = None,
    max_tokens: int | None = None,
    single: Measured | None = None,
    combined: Measured | None = None,
    concurrency: int = 8,
    latency_s: float | None = None,
) -> Estimate:
    """Estimate a run.

    Args:
        plan: what is to be asked.
        sample: images that stand for all of the plan's; at least one unless the plan is empty.
        model: the teacher's name, which says how pictures are billed.
        price: its price where it is asked; None if not known.
        detail: of the pictures; None counts as high.
        max_tokens: the longest answer to one question that is allowed, in tokens.
        single: what was measured of tasks asked alone; heeded from MIN_MEASURED requests on.
        combined: the same of several attributes asked together.
        concurrency: requests at a time.
        latency_s: the mean seconds of one request; assumed from the length of the answers unless given.
    """
    teacher = _Teacher(model, detail, max_tokens)
    kinds: list[_Kind] = [((attribute,), False, count, single) for attribute, count in plan.single.items() if count]
    kinds += [(attributes, True, count, combined) for attributes, count in plan.combined.items() if count]
    parts = [_part(attributes, together, count, known, sample, teacher) for attributes, together, count, known in kinds]
    requests = sum(part.requests for part in parts)
    inputs = sum(part.requests * part.input_tokens for part in parts)
    outputs = sum(part.requests * part.output_tokens for part in parts)
    latency = FIRST_TOKEN_S + outputs / max(requests, 1) / TOKENS_PER_S if latency_s is None else latency_s
    return Estimate(
        model=model,
        requests=round(requests),
        input_tokens=round(inputs),
        output_tokens=round(outputs),
        cost_usd=None if price is None else price.cost(inputs, 0, outputs),
        cost_batch_usd=None if price is None else price.cost(inputs, 0, outputs, batch=True),
        basis=_basis(parts),
        seconds=requests * latency / concurrency,
        latency_s=latency,
        concurrency=concurrency,
        price=price,
        assumptions=_assumptions(parts, teacher, price, latency_s),
    )


def describe(estimate: Estimate) -> str:
    """The estimate for reading: a few short lines."""
    lines = [
        f"requests       {estimate.requests:,}",
        f"input tokens   {estimate.input_tokens:,}",
        f"output tokens  {estimate.output_tokens:,}",
        f"cost           {_money(estimate.cost_usd)}",
    ]
    if estimate.price is not None:
        lines[-1] += f" at {estimate.price.input:g} in and {estimate.price.output:g} out, USD per million tokens"
        lines.append(f"as a batch     {_money(estimate.cost_batch_usd)}")
    pace = f"{estimate.concurrency} at a time, {estimate.latency_s:.1f} s each"
    lines.append(f"time           {_duration(estimate.seconds)}, {pace}")
    lines.append(f"basis          {estimate.basis}")
    if estimate.second_answers:
        lines.append(f"- {second_answers(estimate.second_answers, estimate.model)}")
    return "\n".join([*lines, *(f"- {sentence}" for sentence in estimate.assumptions)])


def second_answers(number: int, model: str) -> str:
    """The sentence for questions that would be answered twice."""
    return (
        f"{number:,} of these questions have an answer of {model} already, under other settings (temperature, length, "
        "detail, one request each or for all): each gets a second one. Use the same settings to go on with the rest."
    )


def as_json(estimate: Estimate) -> dict[str, Any]:
    """The same for `json.dumps`: every field by its name."""
    return asdict(estimate)


def _part(
    attributes: tuple[Attribute, ...],
    together: bool,
    count: int,
    known: Measured | None,
    sample: Sequence[ImageSample],
    teacher: _Teacher,
) -> _Part:
    if known is not None and known.requests >= MIN_MEASURED:
        return _Part(count * known.attempts_per_task, known.input_tokens_mean, known.output_tokens_mean, known)
    output = _answer_tokens(attributes, together)
    if teacher.max_tokens is not None:
        output = min(output, teacher.max_tokens * len(attributes))
    return _Part(count, _input_tokens(attributes, together, sample, teacher), output, None)


def _input_tokens(
    attributes: tuple[Attribute, ...], together: bool, sample: Sequence[ImageSample], teacher: _Teacher
) -> float:
    """The mean over the sample; images of the same labels or size are counted once."""
    fixed = text_tokens(SYSTEM) + MESSAGE_TOKENS
    if together:
        fixed += text_tokens(json.dumps(answer_schema(attributes)))
    texts = Counter(tuple(sorted(image.labels.items())) for image in sample)
    prompts = sum(number * text_tokens(_prompt(attributes, together, dict(key))) for key, number in texts.items())
    sizes = Counter((image.width, image.height) for image in sample)
    pictures = sum(
        number * image_tokens(teacher.model, width, height, teacher.detail) for (width, height), number in sizes.items()
    )
    return fixed + (prompts + pictures) / len(sample)


def _prompt(attributes: tuple[Attribute, ...], together: bool, labels: Mapping[str, str]) -> str:
    return combined_instruction(attributes, labels) if together else instruction(attributes[0], labels)


def _answer_tokens(attributes: tuple[Attribute, ...], together: bool) -> float:
    """Answers are taken to be as long as the middle of what is asked for."""
    words = sum(sum(ANSWER_WORDS[attribute]) / 2 for attribute in attributes)
    return words * TOKENS_PER_WORD + (len(attributes) * KEY_TOKENS if together else 0)


def _basis(parts: Sequence[_Part]) -> str:
    measured = {part.measured for part in parts} - {None}
    if not measured:
        return "assumed"
    partly = "partly " if any(part.measured is None for part in parts) else ""
    return f"{partly}measured on {sum(known.requests for known in measured if known):,} requests"


def _assumptions(
    parts: Sequence[_Part], teacher: _Teacher, price: Price | None, latency_s: float | None
) -> tuple[str, ...]:
    found = []
    if any(part.measured is None for part in parts):
        found.append("Answers are taken to be as long as the middle of what is asked for; none is sent again.")
        found += _picture_assumption(teacher)
        if teacher.model.startswith(_THINKING):
            found.append("Reasoning is billed as output and not counted here: switch it off, or expect more.")
    if price is None:
        found.append(f"The price of {teacher.model} is not known.")
    if latency_s is None:
        found.append(f"A request is taken to last {FIRST_TOKEN_S} s and 1 s for every {TOKENS_PER_S} output tokens.")
    return tuple(found)


def _picture_assumption(teacher: _Teacher) -> list[str]:
    family = image_family(teacher.model)
    if family is None:
        return [
            f"How {teacher.model} counts pictures is not known: {OTHER_TOKENS} tokens a tile of {OTHER_TILE} pixels."
        ]
    if isinstance(FAMILIES[family], Tiles) and teacher.detail != "low":
        return ["Small pictures are taken to be billed at their own size; enlarged to 768 pixels they would cost more."]
    return []


def _money(dollars: float | None) -> str:
    """Cents from a dollar on, more digits below."""
    if dollars is None:
        return "not known"
    return f"{dollars:,.2f} USD" if dollars >= 1 else f"{dollars:.4f} USD"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
