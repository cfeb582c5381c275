"""Runs beside each other: differences, curves smoothed alike, outcomes, and what does not compare."""

import json
from pathlib import Path
from typing import Any

import pytest
from rendered_examples import make_examples
from typer.testing import CliRunner

from facellm.__main__ import app
from facellm.data import Example
from facellm.errors import ConfigError
from facellm.training import jobs
from facellm.training.comparing import Point, compare, smoothed
from facellm.training.recipe import RunConfig
from facellm.training.run_directory import HELD_OUT, METRICS, RESULT
from facellm.training.run_files import append_json, write_json


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> list[Example]:
    return make_examples(tmp_path_factory.mktemp("faces"), 4)


def score(share: float) -> dict[str, Any]:
    return {"overall": {"right": 0, "asked": 0, "share": share, "low": share - 0.1, "high": share + 0.1}}


def make_run(runs: Path, name: str, examples: list[Example], *, steps: int = 4, **numbers: Any) -> Path:
    """A run directory as training leaves it: an epoch of so many steps, a quarter of the images held out."""
    config = RunConfig(base_model="base", **{"held_out": 0.25, **numbers})
    run_dir = jobs.create_run(runs, examples, config, name=name)
    for step in range(1, steps + 1):
        line = {"step": step, "total": steps, "epoch": step / steps, "loss": 3 - step / steps, "lr": 1e-5}
        append_json(run_dir / METRICS, line | {"grad_norm": 1.0, "tokens": 10 * step, "seconds": step, "eta": 0})
    for step in (0, steps):
        append_json(run_dir / HELD_OUT, {"step": step, "loss": 4 - step / steps, "best": True, "seconds": 1})
    return run_dir


def finish(run_dir: Path, **more: Any) -> None:
    pairs = {"images": 1, "pairs": 8, "base": 4.0, "run": 3.0, "in_use": 3.5}
    faces = {"faces": 10, "seed": 0, "base": score(0.1), "run": score(0.5), "in_use": score(0.4)}
    result = {"state": "finished", "seconds": 70.0, "tokens": 999, "peak_memory_mb": 1234, "in_use": "mine"}
    write_json(run_dir / RESULT, result | {"held_out": pairs, "attributes": faces} | more)


def test_only_what_differs_is_named(data_dir: Path, examples: list[Example]) -> None:
    runs = [make_run(data_dir, "a", examples, rank=8), make_run(data_dir, "b", examples, rank=16, schedule="linear")]
    found = compare(runs)
    assert found.differences == {"schedule": ["cosine", "linear"], "rank": [8, 16]}
    assert found.cautions == []
    json.dumps(found.to_dict())


def test_curves_are_by_steps_and_by_pairs_seen(data_dir: Path, examples: list[Example]) -> None:
    """24 of 32 pairs are trained on, in steps of 6 and of 12: after the same pairs the same losses are the same."""
    small, large = make_run(data_dir, "small", examples), make_run(data_dir, "large", examples, steps=2)
    found = compare([small, large])
    assert [(point.step, point.pairs) for point in found.curves["small"]] == [(1, 6), (2, 12), (3, 18), (4, 24)]
    assert [(point.step, point.pairs) for point in found.curves["large"]] == [(1, 12), (2, 24)]
    assert [(point.step, point.pairs, point.loss) for point in found.held_out["large"]] == [(0, 0, 4.0), (2, 24, 3.0)]


def test_smoothing_is_a_mean_of_what_was_seen_and_the_same_for_all_sizes_of_steps() -> None:
    level = [Point(step, 10 * step, 2.0) for step in range(1, 50)]
    assert all(point.loss == pytest.approx(2.0) for point in smoothed(level, 100)), "not drawn to zero at the start"
    falling = [Point(step, step, 5 - step / 1000) for step in range(1, 2001)]
    coarse = falling[99::100]
    fine_end, coarse_end = smoothed(falling, 1000)[-1].loss, smoothed(coarse, 1000)[-1].loss
    assert fine_end == pytest.approx(coarse_end, abs=0.06)
    assert fine_end > falling[-1].loss, "a mean lags behind"
    assert smoothed(falling[:1], 0)[0].loss == falling[0].loss
    assert smoothed([], 10) == []


def test_outcomes_of_a_finished_and_of_an_unfinished_run(data_dir: Path, examples: list[Example]) -> None:
    done, going = make_run(data_dir, "done", examples), make_run(data_dir, "going", examples)
    finish(done)
    first, second = compare([done, going]).outcomes
    assert (first.held_out_base, first.held_out, first.held_out_in_use) == (4.0, 3.0, 3.5)
    assert (first.accuracy, first.accuracy_interval, first.accuracy_in_use) == (0.5, (0.4, 0.6), 0.4)
    assert (first.seconds, first.tokens, first.peak_memory_mb, first.steps) == (70.0, 999, 1234, 4)
    assert (second.held_out_base, second.held_out, second.held_out_in_use) == (4.0, 3.0, None)
    assert (second.accuracy, second.tokens, second.peak_memory_mb) == (None, 40, None)


def test_it_says_what_does_not_compare(data_dir: Path, examples: list[Example]) -> None:
    whole, part = make_run(data_dir, "whole", examples), make_run(data_dir, "part", examples[:16])
    less = make_run(data_dir, "less", examples, held_out=0.5)
    finish(whole)
    finish(less, attributes={"faces": 20, "seed": 0, "base": score(0.1), "run": score(0.5)})
    found = " ".join(compare([whole, part]).cautions)
    assert "trained on different pairs (whole 32, part 16)" in found
    assert "held out different pairs" in found
    found = " ".join(compare([whole, less]).cautions)
    assert "trained on" not in found
    assert "held out different pairs" in found
    assert "different numbers of faces (10, 20)" in found
    other = jobs.create_run(data_dir, examples, RunConfig(base_model="other"), name="other")
    assert "different bases" in compare([whole, other]).cautions[0]


def test_one_run_is_nothing_to_compare(data_dir: Path, examples: list[Example]) -> None:
    run = make_run(data_dir, "one", examples)
    for given in ([], [run], [run, run]):
        with pytest.raises(ConfigError, match="expected two different runs or more"):
            compare(given)


def test_the_command_prints_a_table_or_json(data_dir: Path, examples: list[Example]) -> None:
    finish(make_run(data_dir / "runs", "first", examples, rank=8))
    make_run(data_dir / "runs", "second", examples[:16])
    printed = CliRunner().invoke(app, ["compare", "first", "second"])
    assert printed.exit_code == 0
    rows = {line.split("  ")[0]: line for line in printed.output.splitlines()}
    assert rows["rank"].split() == ["rank", "8", "16"]
    assert "50.0% (40.0% – 60.0%)" in rows["accuracy"]
    assert "Note: They were trained on different pairs" in printed.output
    printed = CliRunner().invoke(app, ["compare", "first", "second", "--json"])
    assert json.loads(printed.output)["curves"]["first"][0]["step"] == 1
    assert CliRunner().invoke(app, ["compare", "first", "nowhere"]).exit_code == 1
