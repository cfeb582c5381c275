"""A training run as the page shows it: what there is to say of it at the moment, and what came of it, as HTML.

The one surprising fact: nothing is remembered between two looks. All follows from the run's status, which follows from
its directory.
"""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from facellm.data import Attribute
from facellm.training.comparing import Comparison, difference_rows, duration, outcome_rows
from facellm.training.jobs import RunStatus, State
from facellm.training.recipe import portable_name

NO_RUNS = "Press Fine-tune: the base model learns from your pairs, and the first run shows here."
NO_PAIRS = "No pairs to learn from yet. Accept some in the Review tab first."
NO_STEPS = "The curve begins with the first step."
MEASURING = "Trained. Now it is measured beside the base and the adapter in use; then it can be chatted with."
_NAMES = {"base": "base", "in_use": "in use", "run": "this run"}


def pairs_html(counts: dict[Attribute | None, int]) -> str:
    """How many pairs there are to learn from, by attribute."""
    total = sum(counts.values())
    if not total:
        return f'<p class="tune-empty">{NO_PAIRS}</p>'
    named = [(str(attribute), counts.get(attribute, 0)) for attribute in Attribute]
    free = [("free question", counts[None])] if counts.get(None) else []
    rows = "".join(f"<li>{name}<b>{count:,}</b></li>" for name, count in [*named, *free])
    title = f'<h3>{pair_count(total)} to learn from</h3><p class="tune-empty">accepted and edited</p>'
    return f"{title}<ul>{rows}</ul>"


def empty_html() -> str:
    """In the place of a run where there is none."""
    return f'<div class="tune-none"><h3>No runs yet</h3><p class="tune-empty">{NO_RUNS}</p></div>'


def head_html(run: RunStatus, runs: Sequence[RunStatus], no_chat: str) -> str:
    """Name, state, progress, and what there is to say about the run at this moment."""
    share = run.step / run.total_steps if run.total_steps else 0
    facts = f"{pair_count(run.pairs)} · {base_label(run.config.base_model)}" if run.config else ""
    bar = f'<div class="tune-bar"><div style="width:{100 * share:.1f}%"></div></div>'
    return (
        f'<div class="tune-title"><h3>{html.escape(run.name)}</h3>'
        f'<span class="tune-state tune-{run.state}">{run.state}</span>'
        f"<span>{html.escape(facts)}</span></div>"
        + (bar if run.state is State.RUNNING else "")
        + f'<p role="status">{html.escape(" ".join([situation(run, runs), no_chat]).strip())}</p>'
    )


def situation(run: RunStatus, runs: Sequence[RunStatus] = ()) -> str:
    """One or two sentences: what the run does, or how it ended, and what can be done with it."""
    match run.state:
        case State.MADE:
            return "Made, but not started."
        case State.QUEUED:
            return _waiting(run, runs) + run.elsewhere
        case State.RUNNING:
            return _going(run) + run.elsewhere
        case State.FINISHED:
            return _finished(run)
        case State.STOPPED:
            return _stopped(run)
        case State.FAILED:
            return f"{run.error or 'Failed; the log says why.'} {_resumable(run)}".strip()


def run_label(run: RunStatus) -> str:
    """A run in the list of runs."""
    facts = [run.name, str(run.state), *([pair_count(run.pairs)] if run.config else [])]
    if run.state is State.QUEUED and run.place:
        facts[1] = f"queued, {'next' if run.place == 1 else f'number {run.place}'}"
    held_out = ((run.result or {}).get("held_out") or {}).get("run")
    if held_out is not None:
        facts.append(f"held-out loss {held_out:.3f}")
    elif run.first_loss is not None and run.loss is not None and run.state is not State.RUNNING:
        facts.append(f"loss {run.first_loss:.2f} → {run.loss:.2f}")
    return " · ".join([*facts, f"{run.created.astimezone():%-d %b %H:%M}"])


def results_html(run: RunStatus) -> str:
    """Held-out loss and accuracy of base, adapter in use and run, as far as they were measured; else empty."""
    result = run.result or {}
    losses, faces = result.get("held_out") or {}, result.get("attributes") or {}
    columns = [name for name in _NAMES if losses.get(name) is not None or faces.get(name)]
    if "run" not in columns:
        return ""
    heads = [_NAMES[name] for name in columns]
    if "in_use" in columns and result.get("in_use"):
        heads[columns.index("in_use")] = f"in use: {result['in_use']}"
    rows, notes = [], []
    if losses:
        numbers = {name: losses[name] for name in columns if losses.get(name) is not None}
        best = min(numbers.values())
        rows.append(
            _row(
                "held-out loss", [(f"{numbers[n]:.3f}", numbers[n] == best) if n in numbers else None for n in columns]
            )
        )
        known = " (the adapter in use may have seen them)" if "in_use" in numbers else ""
        notes.append(f"{pair_count(losses['pairs'])} of {losses['images']} images that were not trained on{known}")
    if faces:
        scores = {name: faces[name]["overall"] for name in columns if faces.get(name)}
        best = max(score["share"] for score in scores.values())
        shown = {name: (_share(score), score["share"] == best) for name, score in scores.items()}
        rows.append(_row("right answers", [shown.get(name) for name in columns]))
        notes.append(f"questions about {faces['faces']} rendered faces that none has seen, with 95 % intervals")
    head = "".join(f"<th scope='col'>{html.escape(name)}</th>" for name in ("", *heads))
    return (
        f"<table class='tune-table'><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        f"<p class='tune-empty'>Measured on {'; '.join(notes)}.</p>"
    )


def comparison_html(found: Comparison) -> str:
    """Outcomes and differences, a column for each run, and what does not compare."""
    head = "".join(f"<th scope='col'>{html.escape(name)}</th>" for name in ("", *found.names))
    parts = []
    for title, rows in (("Outcome", outcome_rows(found)), ("Set differently", difference_rows(found))):
        if rows:
            cells = "".join(_row(name, [(html.escape(value), False) for value in values]) for name, values in rows)
            parts.append(
                f"<tbody><tr><th scope='rowgroup' colspan='{len(found.names) + 1}'>{title}</th></tr>{cells}</tbody>"
            )
    notes = "".join(f"<li>{html.escape(each)}</li>" for each in found.cautions)
    return (
        (f"<ul class='tune-cautions'>{notes}</ul>" if notes else "")
        + "<div class='tune-wide'><table class='tune-table'>"
        + f"<thead><tr>{head}</tr></thead>{''.join(parts)}</table></div>"
        + ("" if found.differences else "<p class='tune-empty'>All was set alike.</p>")
    )


def pair_count(count: int) -> str:
    """1 pair, 2 pairs, 1,000 pairs."""
    return f"{count:,} {'pair' if count == 1 else 'pairs'}"


def base_label(base: str) -> str:
    """The last part of a folder's path; a Hub id as it is."""
    name = portable_name(base)
    return Path(name).name if Path(base).is_absolute() or name != base or name.startswith("facellm/") else name


def _waiting(run: RunStatus, runs: Sequence[RunStatus]) -> str:
    going = next((each.name for each in runs if each.state is State.RUNNING), None)
    if going is None and run.place in (None, 1):
        return "It is its turn: starting."
    place = "next" if run.place in (None, 1) else f"number {run.place} of those that wait"
    begin = f"It goes on after step {run.checkpoint_step}" if run.checkpoint_step else "It begins"
    return f"Waiting, {place}. {begin} when {'its turn comes' if going is None else f'{going} has ended'}."


def _going(run: RunStatus) -> str:
    step = f"Step {run.step} of {run.total_steps}"
    if run.stage == "measuring":
        return MEASURING
    if run.stage != "training":
        what = "Reading the pictures" if run.stage else "Loading the model"
        return f"{what}, to go on after step {run.step}." if run.step else f"{what}. {NO_STEPS}"
    if not run.step:
        return f"Measuring the held-out loss of the base. {NO_STEPS}"
    held_out = "" if run.held_out is None else f" · held-out loss {run.held_out:.3f}"
    return f"{step} · loss {run.loss or 0:.3f}{held_out} · about {duration(run.eta_s or 0)} of training left"


def _finished(run: RunStatus) -> str:
    result = run.result or {}
    told = f"Loss {run.first_loss or 0:.3f} → {run.loss or 0:.3f} in {run.step} steps and {duration(run.seconds)}."
    if result.get("early_stop"):
        told += f" It stopped early: the held-out loss was lowest after step {result.get('best_step')}, which is kept."
    return f"{told} {result.get('not_measured') or ''}".strip()


def _stopped(run: RunStatus) -> str:
    if run.adapter is None and not run.step:
        return f"Stopped before the first step; there is nothing to chat with. {_resumable(run)}".strip()
    kept = "What it had learnt is kept." if run.adapter else ""
    return f"Stopped at step {run.step} of {run.total_steps}. {kept} {_resumable(run)}".strip()


def _resumable(run: RunStatus) -> str:
    if not run.can_resume:
        return ""
    return f"Resume goes on after step {run.checkpoint_step}."


def _share(score: dict[str, Any]) -> str:
    return f"{score['share']:.1%} <small>{score['low']:.0%}–{score['high']:.0%}</small>"


def _row(name: str, cells: Sequence[tuple[str, bool] | None]) -> str:
    """A row of a table; of each cell its HTML and whether it is the best, or nothing."""
    marks = "".join(
        "<td>–</td>" if cell is None else f"<td{' class=best' if cell[1] else ''}>{cell[0]}</td>" for cell in cells
    )
    indent = " class='sub'" if name.startswith(" ") else ""
    return f"<tr><th scope='row'{indent}>{html.escape(name.strip())}</th>{marks}</tr>"
