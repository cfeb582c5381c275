"""Loss curves: a run's training loss with its held-out loss, and several runs over each other.

The one surprising fact: an axis has its full length from the start, and a plot is sent anew only where it differs, so
that curves grow and nothing on the page jumps.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import pandas as pd

from facellm.errors import DataError
from facellm.training import jobs
from facellm.training.comparing import Point
from facellm.training.run_directory import HELD_OUT
from facellm.training.run_files import json_lines

POINTS = 400  # of a curve at most: more than a screen can show
TRAINING, HELD_OUT_LOSS = "training", "held out"
COLOURS = {TRAINING: "#6366f1", HELD_OUT_LOSS: "#f59e0b"}
RUNS = ("#6366f1", "#f59e0b", "#10b981", "#ef4444", "#0ea5e9", "#a855f7", "#84cc16", "#64748b")


def run_plot() -> gr.LinePlot:
    """The component for one run."""
    return gr.LinePlot(
        x="step",
        y="loss",
        color="pairs",
        color_title=" ",
        color_map=COLOURS,
        height=260,
        show_label=False,
        buttons=[],
        visible=False,
        elem_id="tune-curve",
    )


def run_curve(run_dir: Path) -> Any:
    """The update of `run_plot` for a run; hidden before its first step."""
    try:
        steps = jobs.metrics(run_dir)
        measured = list(json_lines(run_dir / HELD_OUT))
    except DataError:  # the run is shown without its curve; `status` says what is damaged, where it needs it
        steps, measured = [], []
    if not steps:
        return gr.update(visible=False)
    points = pd.concat([_frame(steps, TRAINING), _frame(measured, HELD_OUT_LOSS)])
    top = 1.05 * max(points["loss"])
    return gr.LinePlot(points, x_lim=[0, steps[-1]["total"]], y_lim=[0, top], visible=True)


def runs_plot(title: str, elem_id: str) -> gr.LinePlot:
    """A component for several runs."""
    return gr.LinePlot(
        x="at", y="loss", color="run", color_title=" ", height=240, title=title, show_label=False, buttons=[],
        visible=False, elem_id=elem_id,
    )  # fmt: skip


def runs_curves(curves: dict[str, list[Point]], *, by_pairs: bool) -> Any:
    """The update of `runs_plot`: curves over each other; hidden where there is none."""
    frames = [_thinned(_places(name, points, by_pairs=by_pairs)) for name, points in curves.items() if points]
    if not frames:
        return gr.update(visible=False)
    points = pd.concat(frames)
    return gr.LinePlot(
        points,
        x_title="pairs seen" if by_pairs else "step",
        color_map=dict(zip(curves, RUNS * len(curves), strict=False)),
        x_lim=[0, None],
        y_lim=[0, None],
        visible=True,
    )


def _places(name: str, points: Sequence[Point], *, by_pairs: bool) -> pd.DataFrame:
    at = [point.pairs if by_pairs else point.step for point in points]
    return pd.DataFrame({"at": at, "loss": [point.loss for point in points], "run": name})


def _frame(lines: Sequence[dict[str, Any]], name: str) -> pd.DataFrame:
    frame = pd.DataFrame(lines, columns=["step", "loss"]).astype({"step": "int64", "loss": "float64"})
    return _thinned(frame.assign(pairs=name))


def _thinned(points: pd.DataFrame) -> pd.DataFrame:
    """At most about `POINTS` of them, the last one among them."""
    return pd.concat([points[:: 1 + len(points) // POINTS], points[-1:]]).drop_duplicates()
