"""The form of the recipe: every field of RunConfig, none listed twice, and back to a recipe."""

from typing import Any

import gradio as gr
import pytest

from facellm.config import EMBEDDED_BASE
from facellm.errors import ConfigError
from facellm.training.recipe import RunConfig, adjusted, recipe
from facellm.training.recipe_form_tab import CHOSEN_ELSEWHERE, FOLLOWS, MEASURING, SPEED, RecipeForm


@pytest.fixture
def form() -> RecipeForm:
    with gr.Blocks():
        form = RecipeForm(recipe("base"))
        form.advanced()
    return form


def test_every_field_is_there_once_with_its_help(form: RecipeForm) -> None:
    assert sorted([*form.names, *CHOSEN_ELSEWHERE]) == sorted(RunConfig.model_fields)
    assert RunConfig.model_fields.keys() >= SPEED | MEASURING | FOLLOWS.keys()
    for name, component in zip(form.names, form.inputs, strict=True):
        assert name == "epochs" or component.info == RunConfig.model_fields[name].description


@pytest.mark.parametrize("base", ["base", str(EMBEDDED_BASE)])
def test_what_it_shows_is_the_recipe(form: RecipeForm, base: str) -> None:
    usual = recipe(base)
    assert adjusted(usual, form.changes(form.defaults(usual)), "x") == usual


def filled(form: RecipeForm, **entered: Any) -> dict[str, Any]:
    shown = dict(zip(form.names, form.defaults(recipe("base")), strict=True))
    return form.changes(list((shown | entered).values()))


def test_alpha_follows_the_rank_until_it_is_set(form: RecipeForm) -> None:
    usual = recipe("base")
    assert adjusted(usual, filled(form, rank=8, alpha=""), "x").alpha == 16
    assert adjusted(usual, filled(form, rank=8, alpha="5", max_steps="7"), "x").alpha == 5


def test_what_is_empty_or_wrong_is_named(form: RecipeForm) -> None:
    with pytest.raises(ConfigError, match="The field rank is empty"):
        filled(form, rank=None)
    with pytest.raises(ConfigError, match="x: alpha: .*found 'many'"):
        adjusted(recipe("base"), filled(form, alpha="many"), "x")
