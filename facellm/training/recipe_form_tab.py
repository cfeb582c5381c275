"""The recipe as a form: a field for each number of RunConfig, with its help text, in three groups.

    form = RecipeForm(recipe(base))       inside an open Gradio context, which is where it is drawn
    form.changes(values)                  what the page holds, as changes to a recipe

The one surprising fact: no field is listed here. A new one of RunConfig is in the form at once, in the group *Recipe*
unless one of the two sets below names it.
"""

from collections.abc import Sequence
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import gradio as gr

from facellm.errors import ConfigError
from facellm.training.recipe import RunConfig

CHOSEN_ELSEWHERE = {"base_model", "snapshot", "snapshot_sha256", "compare_with"}  # on what, not how
CHOSEN_ELSEWHERE |= {"dora"}  # refused, whatever it says
FIRST = ("epochs",)  # always in sight
SPEED = {"rows_at_once", "share_prefix", "max_length", "device", "dtype", "quantization", "attention"}
SPEED |= {"gradient_checkpointing", "feature_cache_mb", "feature_disk_gb", "checkpoint_minutes"}
MEASURING = {"held_out", "evaluations", "patience", "measured_faces", "trackers"}
FOLLOWS = {"alpha": "2 × rank"}  # empty: follows from others, as the placeholder says


class RecipeForm:
    """The form's components.

    Attributes:
        names: of the fields, in the order of the components.
        inputs: the components, for an event.
    """

    def __init__(self, usual: RunConfig) -> None:
        """Draw what is always in sight; `advanced` draws the rest."""
        self._usual = usual
        self._drawn = {name: field(name, usual, label=name.capitalize(), info=None) for name in FIRST}

    def advanced(self) -> None:
        """Draw the other fields, a folded group for each of the three."""
        rest = [name for name in RunConfig.model_fields if name not in (*CHOSEN_ELSEWHERE, *FIRST)]
        groups = {
            "Recipe": [name for name in rest if name not in SPEED | MEASURING],
            "Speed and memory": [name for name in rest if name in SPEED],
            "Measuring": [name for name in rest if name in MEASURING],
        }
        for title, names in groups.items():
            with gr.Accordion(title, open=False, elem_classes="recipe-group"):
                self._drawn |= {name: field(name, self._usual) for name in names}

    @property
    def names(self) -> list[str]:
        """Of the fields, in the order of `inputs`."""
        return list(self._drawn)

    @property
    def inputs(self) -> list[Any]:
        """The components."""
        return list(self._drawn.values())

    def defaults(self, config: RunConfig) -> list[Any]:
        """What the components show for a recipe."""
        return [shown(name, config) for name in self._drawn]

    def changes(self, values: Sequence[Any]) -> dict[str, Any]:
        """What somebody has entered, as changes to a recipe.

        Raises:
            ConfigError: a number is missing.
        """
        found = {}
        for name, value in zip(self._drawn, values, strict=True):
            if value not in (None, ""):
                found[name] = value
            elif not _may_be_empty(name):
                raise ConfigError(f"The field {name} is empty; expected a number. Fill it in.")
        return found


def field(name: str, config: RunConfig, **how: Any) -> Any:
    """The component for a field of RunConfig, with its help text.

    Args:
        name: of the field.
        config: the recipe whose value is shown.
        how: its label and help text where they are others than the field's own.
    """
    info = RunConfig.model_fields[name]
    common: dict[str, Any] = {"label": name, "info": info.description, "elem_id": f"recipe-{name}"} | how
    common |= {"elem_classes": "recipe-field", "min_width": 100, "interactive": True}
    value, kind = shown(name, config), info.annotation
    if kind is bool:
        return gr.Checkbox(value, **common)
    if get_origin(kind) is Literal:
        return gr.Dropdown(list(get_args(kind)), value=value, filterable=False, **common)
    if _may_be_empty(name):  # an empty gr.Number shows a 0
        return gr.Textbox(value, placeholder=FOLLOWS.get(name, "not set"), max_lines=1, **common)
    # bounds are RunConfig's: Gradio's own would be an error over the page, not a sentence
    return gr.Number(value, precision=0 if kind is int else None, **common)


def shown(name: str, config: RunConfig) -> Any:
    """The value that the form shows; nothing where it follows from another field."""
    return None if name in FOLLOWS else getattr(config, name)


def _may_be_empty(name: str) -> bool:
    return name in FOLLOWS or NoneType in get_args(RunConfig.model_fields[name].annotation)
