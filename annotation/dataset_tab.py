"""The Dataset tab: what is in the data set, how groups of faces fare, and having answers written.

`build_dataset_tab` is called inside an open `gr.Tab`; its styles are in dataset.css. The one surprising fact: the tab
keeps no state of the data. Everything is read from the database, so a page that is loaded anew and an app that was
restarted show the same; the numbers are those of `python -m annotation stats --json`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import gradio as gr

from annotation.accounts.identity import Who
from annotation.generate_tab import QUIET, build_form, build_runs
from annotation.statistics import stats_view
from annotation.statistics.stats import stats
from annotation.store import Store
from facellm.config import Settings

NO_TEACHER: Final = (
    "<h3>Generate</h3><p>No teacher is configured. Name one under <code>teachers</code> in "
    "<code>space_config.yaml</code> with its base_url, model and, if it needs one, key_variable; or ask a vLLM of your "
    "own from a terminal:</p><pre>python -m annotation generate --model NAME --base-url http://127.0.0.1:8000/v1</pre>"
)
IMPORT: Final = (
    "<h3>Bring in your own</h3><p>FairFace's pictures with their labels, or pairs that there are already:</p>"
    "<pre>python -m annotation import-fairface CSV --images DIR</pre>"
    "<pre>python -m annotation import-pairs FILE --images DIR</pre>"
)


@dataclass(frozen=True)
class DatasetTab:
    """What app.py needs: to read everything anew when the tab is opened."""

    refresh: Callable[..., list[Any]]  # inputs → updates of `shown`
    inputs: list[Any]
    shown: list[Any]


def build_dataset_tab(store: Store, settings: Settings, who: Who) -> DatasetTab:
    """Build the tab inside the open Gradio context.

    Args:
        store: where everything is read from, and generated into.
        settings: the teachers, and the data directory for the commands.
        who: tells who is asking; only curators may ask teachers.
    """
    numbers = gr.State()
    with gr.Row(elem_id="data"):
        with gr.Column(elem_id="data-side", scale=0, min_width=300):
            form = build_form(settings) if settings.teachers else None
            if form is None:
                gr.HTML(NO_TEACHER, elem_id="data-no-teacher", padding=False)
            gr.HTML(IMPORT, elem_id="data-import", padding=False)
        with gr.Column(elem_id="data-main", scale=1, min_width=300):
            runs = build_runs(store, settings, form, who)
            summary = gr.HTML(elem_id="data-summary", padding=False)
            with gr.Group(elem_id="data-plot-box"):
                with gr.Row(elem_id="data-plot-choice"):
                    by = gr.Dropdown([("attribute", stats_view.ATTRIBUTE)], label="By", min_width=120)
                    measure = gr.Dropdown([("pairs", stats_view.PAIRS)], label="Show", min_width=120)
                plot = gr.BarPlot(x="name", y="value", height=290, show_label=False, buttons=[], elem_id="data-plot")
            notable = gr.HTML(elem_id="data-notable", padding=False)
    statistics = _Statistics(store)
    counted, drawn = [numbers, summary, notable, by, measure, plot], [measure, plot]
    gr.on([by.input, measure.input], statistics.draw, [numbers, by, measure], drawn, **QUIET)
    runs.ended.change(statistics.refresh, [by, measure], counted, **QUIET)

    def refresh(selected: str | None, by: str | None, measure: str | None, request: gr.Request) -> list[Any]:
        return [*runs.refresh(selected, request), *statistics.refresh(by, measure)]

    return DatasetTab(
        refresh,
        [runs.selected, by, measure],
        [*runs.shown, *counted],
    )


class _Statistics:
    """What is shown of the numbers. Those that are on the page are its visitor's, so that a plot needs no new count."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def refresh(self, by: str | None, measure: str | None) -> list[Any]:
        """Count anew, and show it."""
        numbers = stats(self._store)
        groupings = stats_view.groupings(numbers)
        by = by if by and by in dict(groupings).values() else stats_view.ATTRIBUTE
        shown = [numbers, stats_view.summary_html(numbers), stats_view.notable_html(numbers)]
        return [*shown, gr.update(choices=groupings, value=by), *self.draw(numbers, by, measure)]

    def draw(self, numbers: dict[str, Any] | None, by: str, measure: str | None) -> list[Any]:
        """The plot that was chosen; where it cannot measure that, the pairs."""
        if numbers is None or not numbers["images"]:
            return [gr.skip(), gr.update(visible=False)]
        measures = stats_view.measures(numbers, by)
        if measure is None or measure not in dict(measures).values():
            measure = measures[0][1]
        bars = stats_view.bars(numbers, by, measure)
        more = f"The {len(bars.data)} highest of {len(bars.data) + bars.left_out} groups" if bars.left_out else None
        plot = gr.BarPlot(
            bars.data,
            x="name",
            y="value",
            color="status" if "status" in bars.data else None,
            color_map=stats_view.COLOURS if "status" in bars.data else None,
            y_lim=[0, bars.top],
            sort=list(dict.fromkeys(bars.data["name"])),
            x_title=more or " ",
            y_title=bars.title,
            y_axis_format=".1%" if bars.is_share else None,
            x_label_angle=-35,
            visible=True,
        )
        return [gr.update(choices=measures, value=measure), plot]
