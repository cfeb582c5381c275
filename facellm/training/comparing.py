"""Runs beside each other: what was set differently, how the losses went, and what came of it.

    found = compare([runs_dir / "first", runs_dir / "second"])
    print(found.table())
    python -m facellm compare first second

The one surprising fact: a curve is smoothed over pairs, not over steps, and over equally many in each run. Steps of
different sizes are differently noisy, and curves smoothed over equally many steps would differ where the runs do not.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facellm.errors import ConfigError
from facellm.training import jobs
from facellm.training.jobs import RunStatus
from facellm.training.recipe import RunConfig
from facellm.training.run_directory import HELD_OUT, RESULT
from facellm.training.run_files import json_lines, read_json

SMOOTHED_STEPS = 10  # of the run with the largest steps: over so many pairs each curve is smoothed
ORIGIN = ("snapshot", "snapshot_sha256")  # of the pairs; whether they are the same their own hash says


@dataclass(frozen=True)
class Point:
    """One place of a curve."""

    step: int
    pairs: int  # that had been seen by then, repetitions counted
    loss: float


@dataclass(frozen=True)
class Outcome:
    """What came of a run; None is what was not measured. Losses are means over answers' tokens, shares are of 1."""

    run: str
    state: str
    steps: int
    seconds: float
    tokens: int | None
    peak_memory_mb: int | None
    loss: float | None  # smoothed, of the last step
    held_out_base: float | None
    held_out: float | None
    held_out_in_use: float | None
    accuracy_base: float | None
    accuracy: float | None
    accuracy_interval: tuple[float, float] | None  # 95 %
    accuracy_in_use: float | None


@dataclass(frozen=True)
class Comparison:
    """Runs beside each other; every list is in the order of `names`."""

    names: list[str]
    differences: dict[str, list[Any]]  # field of the recipe, a version or the commit → its value in each run
    curves: dict[str, list[Point]]  # smoothed loss of each step
    held_out: dict[str, list[Point]]
    outcomes: list[Outcome]
    cautions: list[str]  # sentences: what does not compare, and why

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return dataclasses.asdict(self)

    def table(self) -> str:
        """Differences and outcomes for a person to read, a column for each run."""
        rows = [("", self.names), *difference_rows(self), *outcome_rows(self)]
        first = max(len(name) for name, _ in rows)
        widths = [max(len(values[column]) for _, values in rows) for column in range(len(self.names))]
        lines = [
            "  ".join([name.ljust(first), *(value.ljust(width) for value, width in zip(values, widths, strict=True))])
            for name, values in rows
        ]
        return "\n".join([*(line.rstrip() for line in lines), *(f"Note: {each}" for each in self.cautions)])


def compare(run_dirs: Sequence[Path]) -> Comparison:
    """Read two runs or more as they are now; they may still be going.

    Raises:
        ConfigError: there are fewer than two, or one is named twice.
        DataError: one of them is damaged.
    """
    names = [run_dir.name for run_dir in run_dirs]
    if len(set(names)) < max(2, len(names)):
        raise ConfigError(
            f"Found {', '.join(names) or 'no run'}; expected two different runs or more. Name another one."
        )
    runs = [_Run.read(run_dir) for run_dir in run_dirs]
    horizon = SMOOTHED_STEPS * max((run.pairs_of_step for run in runs), default=0)
    curves = [smoothed(run.curve, horizon) for run in runs]
    return Comparison(
        names=names,
        differences=_differences(runs),
        curves=dict(zip(names, curves, strict=True)),
        held_out={run.name: run.held_out for run in runs},
        outcomes=[run.outcome(curve) for run, curve in zip(runs, curves, strict=True)],
        cautions=list(_cautions(runs)),
    )


def smoothed(curve: Sequence[Point], horizon: float) -> list[Point]:
    """The exponential moving average of a curve, over about `horizon` pairs.

    Each mean is divided by the sum of its weights, so that the first ones are not drawn to zero.
    """
    mean = weight = 0.0
    seen, found = 0, []
    for point in curve:
        kept = math.exp(-(point.pairs - seen) / horizon) if horizon else 0.0
        mean = kept * mean + (1 - kept) * point.loss
        weight = kept * weight + (1 - kept)
        seen = point.pairs
        found.append(Point(point.step, point.pairs, mean / weight if weight else point.loss))
    return found


def difference_rows(found: Comparison) -> list[tuple[str, list[str]]]:
    """What was set differently, in words: a name, and a value for each run."""
    return [(name, [_shown(value) for value in values]) for name, values in found.differences.items()]


def outcome_rows(found: Comparison) -> list[tuple[str, list[str]]]:
    """What came of the runs, in words: a name, and a value for each run; what no run has is left out."""
    one = found.outcomes
    rows: list[tuple[str, list[str]]] = [
        ("state", [each.state for each in one]),
        ("held-out loss", [_number(each.held_out) for each in one]),
        ("  of the base", [_number(each.held_out_base) for each in one]),
        ("  of the adapter in use", [_number(each.held_out_in_use) for each in one]),
        ("accuracy", [_accuracy(each) for each in one]),
        ("  of the base", [_share(each.accuracy_base) for each in one]),
        ("  of the adapter in use", [_share(each.accuracy_in_use) for each in one]),
        ("training loss, smoothed", [_number(each.loss) for each in one]),
        ("steps", [f"{each.steps:,}" for each in one]),
        ("time", [duration(each.seconds) if each.seconds else "–" for each in one]),
        ("tokens", ["–" if each.tokens is None else f"{each.tokens:,}" for each in one]),
        ("peak memory", ["–" if each.peak_memory_mb is None else f"{each.peak_memory_mb:,} MB" for each in one]),
    ]
    return [(name, values) for name, values in rows if any(value != "–" for value in values)]


def duration(seconds: float) -> str:
    """A time as people write it."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


@dataclass(frozen=True)
class _Run:
    """All that is compared of one run."""

    status: RunStatus
    config: RunConfig
    record: dict[str, Any]
    result: dict[str, Any]
    steps: list[dict[str, Any]]
    measured: list[dict[str, Any]]

    @classmethod
    def read(cls, run_dir: Path) -> "_Run":
        status = jobs.status(run_dir)
        assert status.config is not None  # it would have been an error
        return cls(
            status=status,
            config=status.config,
            record=jobs.load_record(run_dir),
            result=read_json(run_dir / RESULT) or {},
            steps=jobs.metrics(run_dir),
            measured=list(json_lines(run_dir / HELD_OUT)),
        )

    @property
    def name(self) -> str:
        return self.status.name

    @property
    def trained_pairs(self) -> float:
        """How many pairs an epoch has: exact once the run has ended, before by the share of its images."""
        held_out = self.result.get("held_out")
        if held_out:
            return self.status.pairs - held_out["pairs"]
        images = max(1, self.status.images)
        return self.status.pairs * (1 - int(self.config.held_out * images) / images)

    @property
    def pairs_of_step(self) -> float:
        return self.curve[-1].pairs / self.curve[-1].step if self.curve else 0.0

    @property
    def curve(self) -> list[Point]:
        pairs = self.trained_pairs
        return [Point(line["step"], round(line["epoch"] * pairs), line["loss"]) for line in self.steps]

    @property
    def held_out(self) -> list[Point]:
        of_step = self.pairs_of_step
        return [Point(line["step"], round(line["step"] * of_step), line["loss"]) for line in self.measured]

    def outcome(self, curve: Sequence[Point]) -> Outcome:
        held_out = self.result.get("held_out") or {}
        accuracy = {name: _overall(self.result, name) for name in ("base", "run", "in_use")}
        start, end = self.held_out[:1], self.held_out[-1:]
        own = accuracy["run"]
        return Outcome(
            run=self.name,
            state=str(self.status.state),
            steps=self.status.step,
            seconds=self.status.seconds,
            tokens=self.result.get("tokens", self.steps[-1]["tokens"] if self.steps else None),
            peak_memory_mb=self.result.get("peak_memory_mb"),
            loss=curve[-1].loss if curve else None,
            held_out_base=held_out.get("base", start[0].loss if start and start[0].step == 0 else None),
            held_out=held_out.get("run", end[0].loss if end and end[0].step else None),
            held_out_in_use=held_out.get("in_use"),
            accuracy_base=accuracy["base"].get("share"),
            accuracy=own.get("share"),
            accuracy_interval=(own["low"], own["high"]) if own else None,
            accuracy_in_use=accuracy["in_use"].get("share"),
        )


def _overall(result: dict[str, Any], whose: str) -> dict[str, Any]:
    measured = (result.get("attributes") or {}).get(whose) or {}
    return measured.get("overall") or {}


def _differences(runs: Sequence[_Run]) -> dict[str, list[Any]]:
    """Only what is not the same in all runs."""
    facts = [_facts(run) for run in runs]
    names = list(dict.fromkeys(name for each in facts for name in each))
    values = {name: [each.get(name) for each in facts] for name in names}
    return {name: each for name, each in values.items() if any(value != each[0] for value in each)}


def _facts(run: _Run) -> dict[str, Any]:
    record = run.record
    config = {name: value for name, value in run.config.model_dump(mode="json").items() if name not in ORIGIN}
    pairs = {"pairs": record["pairs"], "images": record["images"], "examples_sha256": record.get("examples_sha256")}
    versions = {f"version of {name}": version for name, version in (record.get("versions") or {}).items()}
    return config | pairs | versions | {"commit": (record.get("git") or {}).get("commit")}


def _cautions(runs: Sequence[_Run]) -> "list[str]":
    """What of the runs does not compare."""
    told = []
    if len({run.config.base_model for run in runs}) > 1:
        told.append("The runs have different bases, so a token's loss is not the same thing in each.")
    same_pairs = len({run.record.get("examples_sha256") for run in runs}) == 1
    if not same_pairs:
        pairs = ", ".join(f"{run.name} {run.status.pairs:,}" for run in runs)
        told.append(f"They were trained on different pairs ({pairs}), so training losses compare only roughly.")
    shares = {run.config.held_out for run in runs}
    measured = [run for run in runs if run.measured]
    if len(measured) > 1 and (not same_pairs or len(shares) > 1):
        told.append("They held out different pairs, so held-out losses compare only roughly; accuracies do compare.")
    faces = {(found["faces"], found.get("seed")) for run in runs if (found := run.result.get("attributes"))}
    if len(faces) > 1:
        counts = ", ".join(str(count) for count, _ in sorted(faces))
        told.append(f"Accuracy was measured on different numbers of faces ({counts}): mind the intervals.")
    return told


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    return f"{text[:12]}…" if len(text) >= 40 and all(letter in "0123456789abcdef" for letter in text) else text


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _accuracy(found: Outcome) -> str:
    if found.accuracy is None or found.accuracy_interval is None:
        return "–"
    low, high = found.accuracy_interval
    return f"{found.accuracy:.1%} ({low:.1%} – {high:.1%})"
