"""What models cost, and whose word that is."""

import re
from datetime import date
from pathlib import Path

import pytest

from annotation.teaching.prices import Price, price_of, prices_date, read_prices
from facellm.errors import DataError

MODELS = sorted(read_prices())


@pytest.mark.parametrize("model", MODELS)
def test_every_row_is_plausible(model: str) -> None:
    row = read_prices()[model]
    assert 0 < row.cached_input <= row.input < row.output
    assert row.date > date(2026, 1, 1)
    assert re.search(r"\w+\.\w+", row.source), "a source says where"


def test_the_models_of_the_papers_teacher_and_its_successors_are_there() -> None:
    assert price_of("gpt-4o-2024-11-20") == Price(2.5, 1.25, 10, 0.5)
    assert price_of("gpt-6-luna") == Price(0.1, 0.01, 0.5, 0.5)


def test_a_snapshot_costs_what_its_family_costs_unless_it_has_a_row() -> None:
    assert price_of("gpt-4o-mini-2024-07-18") == price_of("gpt-4o-mini")
    first = price_of("gpt-4o-2024-05-13")
    assert first is not None
    assert first.input == 5


@pytest.mark.parametrize("model", ["OpenGVLab/InternVL3-38B", "gpt-4o-latest", "openai/gpt-4o", "ft:gpt-4o:us::1", ""])
def test_an_unknown_model_has_no_price(model: str) -> None:
    assert price_of(model) is None


def test_cost() -> None:
    price = Price(input=2.5, cached_input=1.25, output=10, batch_factor=0.5)
    assert price.cost(1_000_000, 0, 0) == 2.5
    assert price.cost(1_000_000, 400_000, 0) == pytest.approx(2.0), "cached tokens are part of the input tokens"
    assert price.cost(651, 0, 250) == pytest.approx(0.0041275)
    assert price.cost(651, 0, 250, batch=True) == pytest.approx(0.0041275 / 2)
    assert price.cost(0, 0, 0) == 0


def test_the_date_is_the_oldest_rows() -> None:
    assert prices_date() == min(row.date for row in read_prices().values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "the file"),
        ('{"about": "", "models": {}}', "models"),
        (
            '{"about": "", "models": {"m": {"input": -1, "cached_input": 0, "output": 1, "batch_factor": 0.5,'
            ' "date": "2026-10-04", "source": "example.org"}}}',
            r"models\.m\.input",
        ),
        (
            '{"about": "", "models": {"m": {"input": 1, "cached_input": 0, "output": 1, "batch_factor": 0.5,'
            ' "date": "2026-10-04"}}}',
            r"models\.m\.source",
        ),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "prices.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=rf"^prices\.json: {message}: .* correct it\.$"):
        read_prices(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.json cannot be read"):
        read_prices(tmp_path / "gone.json")
