"""Runs beside each other on the Fine-tune tab: choose two or more, see their curves over each other and what differs.

The one surprising fact: a run that is going can be compared, too; the page looks again with each tick of the tab's
timer.
"""

import html
from pathlib import Path
from typing import Any

import gradio as gr

from facellm.errors import FaceLLMError
from facellm.training import jobs
from facellm.training.comparing import compare
from facellm.training.jobs import RunStatus
from facellm.training.loss_plot_tab import runs_curves, runs_plot
from facellm.training.run_view import comparison_html

STEPS, PAIRS = "by step", "by pairs seen"
FEW = "Choose two runs or more."
OUTPUTS = 4  # of `RunComparison.shown`


class RunComparison:
    """The panel, drawn where it is made.

    Attributes:
        panel: all of it, to be hidden where there are not two runs.
        chosen, axis, seen: the inputs of `look`: the runs' names, the axis, and what is shown.
        shown: what `look` updates.
    """

    def __init__(self, runs_dir: Path) -> None:
        """Draw the panel inside the open Gradio context."""
        self._runs_dir = runs_dir
        with gr.Accordion("Compare runs", open=False, visible=False, elem_id="tune-compare") as self.panel:
            with gr.Row(elem_id="tune-compare-what"):
                self.chosen = gr.Dropdown(
                    [], value=[], multiselect=True, label="Runs", min_width=220, elem_id="tune-compare-runs"
                )
                self.axis = gr.Radio(
                    [STEPS, PAIRS], value=PAIRS, show_label=False, container=False, scale=0, min_width=220,
                    elem_id="tune-compare-axis",
                )  # fmt: skip
            with gr.Row(elem_id="tune-compare-curves"):
                training = runs_plot("training loss, smoothed", "tune-compare-training")
                held_out = runs_plot("held-out loss", "tune-compare-held-out")
            table = gr.HTML(f'<p class="tune-empty">{FEW}</p>', padding=False, elem_id="tune-compare-table")
        self.seen = gr.State("")
        self.shown = [training, held_out, table, self.seen]

    def choices(self, runs: list[RunStatus]) -> list[Any]:
        """Updates of `panel` and `chosen`: which runs there are."""
        names = [run.name for run in runs if run.config]
        return [gr.update(visible=len(names) > 1), gr.update(choices=names)]

    def look(self, chosen: list[str] | None, axis: str, seen: str = "") -> list[Any]:
        """Updates of `shown`; nothing is sent where `seen` says that the page shows it already."""
        paths = [path for name in chosen or [] if (path := self._runs_dir / name).is_dir()]
        now = repr((axis, [_signature(path) for path in paths]))
        if now == seen:
            return [gr.skip()] * OUTPUTS
        hidden = gr.update(visible=False)
        if len(paths) < 2:
            return [hidden, hidden, f'<p class="tune-empty">{FEW}</p>', now]
        try:
            found = compare(paths)
        except FaceLLMError as error:
            return [hidden, hidden, f'<p class="tune-empty">{html.escape(str(error))}</p>', now]
        curves, held_out = (runs_curves(each, by_pairs=axis == PAIRS) for each in (found.curves, found.held_out))
        return [curves, held_out, comparison_html(found), now]


def _signature(path: Path) -> tuple[Any, ...]:
    """What is to be seen of a run, in short."""
    try:
        run = jobs.status(path)
    except FaceLLMError as error:
        return (path.name, str(error))
    return (run.name, run.state, run.step, run.held_out, bool(run.result))
