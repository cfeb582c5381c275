"""What the page says of a run, in every state that it can be in."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from facellm.training.jobs import RunConfig, RunStatus, State
from facellm.training.run_view import head_html, results_html, run_label, situation


def run(state: State, name: str = "mine", **facts: Any) -> RunStatus:
    usual = {"pairs": 16, "config": RunConfig(base_model="base"), "total_steps": 100}
    return RunStatus(Path(name), state, datetime(2026, 1, 1, tzinfo=UTC), **(usual | facts))


LOSS = {"step": 7, "loss": 1.5, "first_loss": 3.0}
SITUATIONS = [
    (run(State.MADE), "Made, but not started."),
    (run(State.QUEUED, place=1), "Waiting, next. It begins when other has ended."),
    (run(State.QUEUED, place=2), "Waiting, number 2 of those that wait. It begins when other has ended."),
    (run(State.QUEUED, place=1, checkpoint_step=6), "Waiting, next. It goes on after step 6 when other has ended."),
    (run(State.RUNNING), "Loading the model. The curve begins with the first step."),
    (run(State.RUNNING, stage="reading"), "Reading the pictures. The curve begins with the first step."),
    (run(State.RUNNING, stage="reading", **LOSS), "Reading the pictures, to go on after step 7."),
    (
        run(State.RUNNING, stage="training", eta_s=61, **LOSS),
        "Step 7 of 100 · loss 1.500 · about 1 min 1 s of training left",
    ),
    (run(State.RUNNING, stage="measuring", **LOSS), "Trained. Now it is measured beside the base"),
    (run(State.STOPPED), "Stopped before the first step; there is nothing to chat with."),
    (
        run(State.STOPPED, adapter=Path("a"), can_resume=True, checkpoint_step=7, **LOSS),
        "Stopped at step 7 of 100. What it had learnt is kept. Resume goes on after step 7.",
    ),
    (
        run(State.FAILED, error="It was killed.", can_resume=True, checkpoint_step=5, **LOSS),
        "It was killed. Resume goes on after step 5.",
    ),
    (run(State.FAILED, error="No memory."), "No memory."),
    (run(State.FINISHED, seconds=90, **LOSS), "Loss 3.000 → 1.500 in 7 steps and 1 min 30 s."),
    (
        run(State.FINISHED, result={"early_stop": True, "best_step": 4, "not_measured": "No faces."}, **LOSS),
        "It stopped early: the held-out loss was lowest after step 4, which is kept. No faces.",
    ),
]


@pytest.mark.parametrize(("status", "sentence"), SITUATIONS, ids=lambda each: getattr(each, "state", ""))
def test_it_says_what_is_going_on(status: RunStatus, sentence: str) -> None:
    other = run(State.RUNNING, "other")
    assert sentence in situation(status, [status, other])


def test_a_run_whose_turn_it_is_waits_for_nobody() -> None:
    assert situation(run(State.QUEUED, place=1), []) == "It is its turn: starting."


def test_the_list_tells_runs_apart() -> None:
    assert run_label(run(State.QUEUED, place=3)).startswith("mine · queued, number 3 · 16 pairs · ")
    assert "loss 3.00 → 1.50" in run_label(run(State.STOPPED, held_out=6.0, **LOSS)), "6.0 may be the base's"
    assert "held-out loss 0.900" in run_label(run(State.FINISHED, result={"held_out": {"run": 0.9}}, **LOSS))


def score(share: float) -> dict[str, Any]:
    return {"overall": {"share": share, "low": 0.0, "high": 1.0}}


def test_results_show_what_was_measured() -> None:
    losses = {"images": 2, "pairs": 16, "base": 4.0, "run": 1.0, "in_use": 2.0}
    faces = {"faces": 10, "base": score(0.1), "run": score(0.4), "in_use": score(0.6)}
    whole = results_html(run(State.FINISHED, result={"held_out": losses, "attributes": faces, "in_use": "<best>"}))
    assert "in use: &lt;best&gt;" in whole
    assert "<td class=best>1.000</td>" in whole
    assert "<td class=best>60.0% " in whole
    assert "the adapter in use may have seen them" in whole
    alone = results_html(run(State.FINISHED, result={"held_out": losses | {"in_use": None}}))
    assert ("right answers" in alone, "in use" in alone) == (False, False)
    for nothing in ({}, {"attributes": {}}, {"held_out": {}}, None):
        assert results_html(run(State.FINISHED, result=nothing)) == ""


def test_a_name_is_no_html() -> None:
    assert "<b>" not in head_html(run(State.MADE, "<b>"), [], "")
