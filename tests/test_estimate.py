"""What a run will take: the tokens of our prompts against counted ones, the arithmetic, and what is said about it.

tests/prompt_tokens.json was counted with two ports of o200k_base. To count again after a prompt has changed, write the
texts of `texts()` to a JSON file and, in a folder where `npm install gpt-tokenizer` was run, count each with
`require("gpt-tokenizer/encoding/o200k_base").encode(text).length`.
"""

import csv
import itertools
import json
from collections import Counter
from pathlib import Path

import pytest

from annotation.fairface import AGES, GENDERS, RACES
from annotation.teaching.estimate import (
    ANSWER_WORDS,
    MESSAGE_TOKENS,
    TOKENS_PER_WORD,
    Estimate,
    ImageSample,
    Measured,
    Plan,
    as_json,
    describe,
    estimate,
)
from annotation.teaching.prices import Price, price_of
from annotation.teaching.prompts import COMBINED_VERSION, PROMPT_VERSION, SYSTEM, combined_instruction, instruction
from annotation.teaching.tokens import image_family, image_tokens, text_tokens
from facellm.data import Attribute

COUNTED = json.loads(Path(__file__).with_name("prompt_tokens.json").read_text(encoding="utf-8"))
LABELS = Path(__file__).resolve().parents[2] / "shared" / "data" / "fairface_label_val.csv"
EVERYTHING = tuple(Attribute)
FACE = ImageSample(224, 224, {"age": "20-29", "gender": "Female", "race": "White"})
PRICE = Price(2.5, 1.25, 10, 0.5)


def texts() -> list[tuple[str, int]]:
    """Every prompt of every combination of FairFace's labels, and how many tokens it was counted to have."""
    labels = [
        {name: value for name, value in zip(("age", "gender", "race"), values, strict=True) if value is not None}
        for values in itertools.product((*AGES, None), (*GENDERS, None), (*RACES, None))
    ]
    found = [(SYSTEM, COUNTED["system"])]
    for known, hint in zip(labels, COUNTED["hints"], strict=True):
        found += [(instruction(a, known), COUNTED["single"][a] + hint) for a in Attribute]
        found.append((combined_instruction(EVERYTHING, known), COUNTED["combined"] + hint))
    return found


def test_text_tokens_are_within_three_percent_of_counted_ones() -> None:
    counted_for = (COUNTED["prompt_version"], COUNTED["combined_version"])
    assert counted_for == (PROMPT_VERSION, COMBINED_VERSION), (
        "The prompts have changed since their tokens were counted: count them again, as the docstring of this file "
        "says, into tests/prompt_tokens.json."
    )
    errors = [text_tokens(text) / counted - 1 for text, counted in texts()]
    assert len(errors) == 1 + 240 * 9
    assert max(map(abs, errors)) < 0.03


@pytest.mark.parametrize(
    ("model", "size", "detail", "tokens"),
    [
        ("gpt-4o-2024-11-20", (224, 224), "low", 85),
        ("gpt-4o-2024-11-20", (224, 224), "high", 255),
        ("gpt-4o", (448, 448), "auto", 255),
        ("gpt-4o", (513, 300), None, 85 + 2 * 170),
        ("gpt-4o", (1024, 1024), "high", 765),  # the guide's own examples
        ("gpt-4o", (2048, 4096), "high", 1105),
        ("gpt-4o-mini", (224, 224), "low", 2833),
        ("gpt-4o-mini", (224, 224), "high", 8500),
        ("gpt-5", (224, 224), "high", 210),
        ("gpt-4.1-mini", (1024, 1024), "low", 1659),
        ("gpt-4.1-mini", (4000, 4000), "high", 2489),
        ("gpt-6-luna", (224, 224), "high", 59),
        ("gpt-6.1-sol", (224, 224), None, 59),
        ("OpenGVLab/InternVL3-38B", (224, 224), "low", 256),
        ("Qwen3-VL", (448, 448), None, 256),
        ("Qwen3-VL", (449, 448), None, 3 * 256),
        ("Qwen3-VL", (9000, 9000), None, 13 * 256),
    ],
)
def test_image_tokens(model: str, size: tuple[int, int], detail: str | None, tokens: int) -> None:
    assert image_tokens(model, *size, detail) == tokens


def test_a_family_is_a_whole_name() -> None:
    assert image_family("gpt-4o-mini-2024-07-18") == "gpt-4o-mini"
    assert image_family("gpt-5.4") is None
    assert image_family("my-gpt-4o") is None


def run(plan: Plan, *, sample: tuple[ImageSample, ...] = (FACE,), detail: str = "low", **known: Measured) -> Estimate:
    return estimate(plan, sample, model="gpt-4o", price=PRICE, detail=detail, **known)


def test_single_tasks() -> None:
    found = run(Plan(single={Attribute.POSE: 1000}))
    per_request = text_tokens(SYSTEM) + text_tokens(instruction(Attribute.POSE, FACE.labels)) + MESSAGE_TOKENS + 85
    assert (found.requests, found.input_tokens) == (1000, 1000 * per_request)
    assert found.output_tokens == round(1000 * sum(ANSWER_WORDS[Attribute.POSE]) / 2 * TOKENS_PER_WORD)
    assert found.cost_usd == pytest.approx(PRICE.cost(found.input_tokens, 0, found.output_tokens))
    assert found.cost_batch_usd == pytest.approx((found.cost_usd or 0) / 2)
    assert found.basis == "assumed"


def test_asking_for_all_at_once_takes_fewer_requests_and_about_the_same_output() -> None:
    alone = run(Plan(single=dict.fromkeys(Attribute, 100)))
    together = run(Plan(combined={EVERYTHING: 100}))
    assert (alone.requests, together.requests) == (800, 100)
    assert together.input_tokens < alone.input_tokens / 2
    assert alone.output_tokens < together.output_tokens < 1.1 * alone.output_tokens


def test_the_sample_stands_for_all() -> None:
    plain, large = ImageSample(224, 224, {}), ImageSample(1024, 1024, FACE.labels)
    plan = Plan(single={Attribute.SKIN: 10})
    apart = [run(plan, sample=(image,), detail="high").input_tokens for image in (plain, large)]
    assert run(plan, sample=(plain, large), detail="high").input_tokens == sum(apart) / 2


def test_answers_are_no_longer_than_allowed() -> None:
    plan = Plan(single={Attribute.POSE: 10}, combined={EVERYTHING: 10})
    found = estimate(plan, [FACE], model="gpt-4o", price=PRICE, max_tokens=50)
    assert found.output_tokens == 10 * 50 + 10 * 8 * 50


def test_measured_means_replace_what_was_assumed() -> None:
    plan = Plan(single={Attribute.POSE: 100})
    found = run(plan, single=Measured(25, 500, 90, 1.1))
    assert (found.requests, found.input_tokens, found.output_tokens) == (110, 55_000, 9900)
    assert found.basis == "measured on 25 requests"
    assert run(plan, single=Measured(19, 500, 90, 1.1)) == run(plan), "too few to go by"
    assert run(plan, combined=Measured(25, 500, 90, 1.1)) == run(plan), "of another mode"
    both = Plan(single={Attribute.POSE: 100}, combined={EVERYTHING: 10})
    assert run(both, single=Measured(25, 500, 90, 1)).basis == "partly measured on 25 requests"


def test_time_is_latency_over_concurrency() -> None:
    plan = Plan(single={Attribute.POSE: 100})
    found = estimate(plan, [FACE], model="m", price=None, concurrency=4, latency_s=2)
    assert found.seconds == 50
    assert run(plan).latency_s == pytest.approx(1.5 + 108 / 50)


def test_nothing_to_ask_costs_nothing() -> None:
    found = estimate(Plan(single={Attribute.POSE: 0}), [], model="gpt-4o", price=PRICE)
    assert (found.requests, found.input_tokens, found.output_tokens, found.cost_usd) == (0, 0, 0, 0)
    assert "requests       0" in describe(found)


def test_it_is_told_in_a_few_lines() -> None:
    text = describe(run(Plan(single=dict.fromkeys(Attribute, 1000))))
    assert "requests       8,000\n" in text
    assert "USD at 2.5 in and 10 out, USD per million tokens\n" in text
    assert "basis          assumed\n" in text
    unknown = describe(estimate(Plan(single={Attribute.POSE: 1}), [FACE], model="InternVL3", price=None))
    assert "cost           not known" in unknown
    assert "as a batch" not in unknown
    assert "256 tokens a tile of 448 pixels" in unknown
    assert "Reasoning is billed" in describe(
        estimate(Plan(single={Attribute.POSE: 1}), [FACE], model="gpt-6-luna", price=price_of("gpt-6-luna"))
    )
    assert "billed at their own size" in describe(run(Plan(single={Attribute.POSE: 1}), detail="high"))
    assert "billed at their own size" not in describe(run(Plan(single={Attribute.POSE: 1}), detail="low"))


def test_json_has_every_field() -> None:
    found = json.loads(json.dumps(as_json(run(Plan(single={Attribute.POSE: 1})))))
    assert {"requests", "input_tokens", "output_tokens", "cost_usd", "cost_batch_usd", "basis", "seconds"} <= set(found)
    assert found["price"] == {"input": 2.5, "cached_input": 1.25, "output": 10, "batch_factor": 0.5}


def test_the_whole_of_fairfaces_val_split_is_near_what_was_counted() -> None:
    """All 87,632 requests' text, weighted by the real labels, within 1 % of counted tokens."""
    if not LABELS.is_file():
        pytest.skip("the FairFace labels are not beside the checkout")
    with LABELS.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    labels = [{name: row[name] for name in ("age", "gender", "race")} for row in rows]
    sample = [ImageSample(224, 224, known) for known in labels]
    found = estimate(
        Plan(single=dict.fromkeys(Attribute, len(rows))), sample, model="gpt-4o", price=PRICE, detail="low"
    )
    counted = dict(texts())
    weights = Counter(tuple(known.items()) for known in labels)
    total = sum(
        number * (counted[instruction(attribute, dict(known))] + COUNTED["system"] + MESSAGE_TOKENS + 85)
        for known, number in weights.items()
        for attribute in Attribute
    )
    assert found.input_tokens == pytest.approx(total, rel=0.01)
