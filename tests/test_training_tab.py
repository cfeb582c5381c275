"""The Fine-tune tab in a real browser: the button, real runs, reload, restart, the queue, Stop, Resume, comparing."""

import json
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from people import nobody_is_refused
from rendered_examples import make_examples
from typer.testing import CliRunner

from facellm.__main__ import app as commands
from facellm.config import Settings
from facellm.data import Attribute, Example, content_hash, write_examples
from facellm.training import jobs
from facellm.training.jobs import SnapshotRef, State
from facellm.training.run_directory import METRICS, PROCESS, RESULT
from facellm.training.run_files import append_json, read_json, write_json
from facellm.training.training_tab import Pairs, build_training_tab
from tests import served_tab

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]
LOADED = 90_000  # milliseconds for a training process to load torch on a busy machine


@pytest.fixture(autouse=True)
def no_run_is_left(data_dir: Path) -> Iterator[None]:
    """A run outlives whoever started it, so a test that fails must not leave one."""
    yield
    for run in jobs.list_runs(data_dir / "runs"):
        jobs.stop(run.path)


@contextmanager
def served(
    data_dir: Path,
    base: Path,
    counts: Callable[[], dict[Attribute | None, int]],
    examples: list[Example],
    adapter: str = "none",
) -> Iterator[str]:
    """The tab alone, served on a free port."""

    def snapshot(name: str) -> SnapshotRef:
        path = data_dir / "snapshots" / name / "examples.jsonl"
        write_examples(path, examples)
        return SnapshotRef(name, content_hash(examples), path)

    with gr.Blocks() as page:
        settings = Settings(data_dir=data_dir, base_model=str(base), device="cpu", adapter=adapter)
        pairs = Pairs(counts, lambda: examples, snapshot)
        build_training_tab(settings, pairs=pairs, bases=[str(base)], refusal=nobody_is_refused)
    with served_tab.served(page) as url:
        yield url


def opened(browser: Any, url: str) -> Any:
    page = browser.new_page(viewport={"width": 1366, "height": 768})
    page.failures = []
    page.on("pageerror", lambda error: page.failures.append(str(error)))
    with served_tab.settled(page):  # else what the page asks for first may undo what a test has chosen by then
        page.goto(url)
        page.wait_for_selector("#tune-begin")
        page.wait_for_selector("#tune-head h3")
    return page


def closed(page: Any) -> None:
    assert page.failures == []
    page.close()


def head(page: Any, text: str) -> None:
    page.wait_for_selector(f"#tune-head:has-text('{text}')", timeout=LOADED)


def advanced(page: Any, group: str) -> None:
    """Unfold a group of the recipe's fields."""
    if not page.is_visible("#tune-advanced .recipe-group"):
        page.click("#tune-advanced button")
    page.locator("#tune-advanced").get_by_role("button", name=group).click()


def test_from_the_button_to_an_adapter(
    browser: Any, data_dir: Path, untrained_tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = make_examples(data_dir / "images", 2)
    counts = Counter(example.attribute for example in examples)
    with served(data_dir, untrained_tiny, lambda: counts | {None: 3}, examples) as url:
        page = opened(browser, url)
        head(page, "No runs yet")
        assert "19 pairs to learn from" in page.inner_text("#tune-pairs")
        assert page.locator("#tune-pairs li").all_inner_texts()[-1] == "free question3"
        page.get_by_label("Name").fill("first try")
        page.click("#tune-begin")
        page.wait_for_selector("text=cannot be the name of a run")
        page.get_by_label("Name").fill("first")
        page.wait_for_selector("#tune-needs:has-text('of memory;')")
        page.get_by_label("Epochs").fill("20")
        advanced(page, "Recipe")
        page.get_by_label("rank", exact=True).fill("")
        page.click("#tune-begin")
        page.wait_for_selector("text=The field rank is empty")
        page.get_by_label("rank", exact=True).fill("8")
        advanced(page, "Measuring")
        page.get_by_label("held_out").fill("0.5")
        page.get_by_label("measured_faces").fill("1")
        page.click("#tune-begin")
        head(page, "running")
        head(page, "· loss")
        head(page, "finished")
        assert page.is_visible("#tune-curve canvas, #tune-curve svg")
        assert page.locator("#tune-results thead th").all_inner_texts() == ["", "base", "this run"]
        assert page.locator("#tune-results tbody th").all_inner_texts() == ["held-out loss", "right answers"]
        assert "8 pairs of 1 images that were not trained on" in page.inner_text("#tune-results")
        page.wait_for_selector("#tune-chat:enabled")
        assert not page.is_visible("#tune-stop")
        assert not page.is_visible("#tune-resume")
        assert page.get_by_label("Name").input_value() == ""
        shown = page.inner_text("#tune-results")
        with served_tab.settled(page):
            page.reload()
        head(page, "finished")
        page.wait_for_selector("#tune-results table")
        page.wait_for_function("text => document.querySelector('#tune-results').innerText === text", arg=shown)
        assert page.is_checked("#tune-runs input")
        assert "first · finished · 16 pairs" in page.inner_text("#tune-runs")
        closed(page)
    run = jobs.status(data_dir / "runs" / "first")
    assert run.config is not None
    assert (run.state, run.step, run.config.epochs) == (State.FINISHED, 20, 20)
    assert run.config.snapshot is not None
    assert run.config.snapshot.startswith("first.")
    assert (run.config.rank, run.config.alpha, run.config.device) == (8, 16, "cpu")
    monkeypatch.setenv("FACELLM_DEVICE", "cpu")
    set_ = ["epochs=20", "rank=8", "held_out=0.5", "measured_faces=1"]
    numbers = ["--base", str(untrained_tiny), *(word for each in set_ for word in ("--set", each))]
    typed = CliRunner().invoke(commands, ["prepare", run.config.snapshot, "--name", "typed", *numbers])
    assert typed.exit_code == 0
    assert jobs.status(data_dir / "runs" / "typed").config == run.config, "the command does what the button does"


def test_a_second_run_waits_and_a_killed_one_is_resumed(browser: Any, data_dir: Path, untrained_tiny: Path) -> None:
    """A run outlives the app that started it; the next one shows it, and lets others wait behind it."""
    examples = make_examples(data_dir / "images", 2)
    config = jobs.RunConfig(base_model=str(untrained_tiny), max_steps=10_000, batch_size=8, checkpoint_minutes=0.01)
    run_dir = jobs.create_run(data_dir / "runs", examples, config)
    jobs.start(run_dir)
    with served(data_dir, untrained_tiny, lambda: {Attribute.POSE: 16}, examples) as url:
        page = opened(browser, url)
        head(page, "· loss")
        page.click("#tune-begin")
        head(page, "Waiting, next. It begins when run-1 has ended.")
        assert "run-2 · queued, next · 16 pairs" in page.inner_text("#tune-runs")
        page.get_by_role("button", name="Leave the queue").click()
        head(page, "Made, but not started.")
        page.get_by_role("button", name="Start", exact=True).click()
        head(page, "Waiting, next.")
        page.get_by_role("button", name="Leave the queue").click()
        head(page, "Made, but not started.")

        page.locator("#tune-runs").get_by_text("run-1").click()
        head(page, "· loss")
        while jobs.status(run_dir).checkpoint_step is None:
            time.sleep(0.1)
        process = read_json(run_dir / PROCESS)
        assert process is not None
        os.kill(process["pid"], signal.SIGKILL)
        head(page, "failed")
        head(page, "Resume goes on after step")
        assert "was killed" in page.inner_text("#tune-head")
        with served_tab.settled(page):
            page.reload()  # and another visitor's page, and that of another app
        head(page, "Made, but not started.")
        page.locator("#tune-runs").get_by_text("run-1").click()
        head(page, "Resume goes on after step")
        before = jobs.status(run_dir).checkpoint_step
        page.get_by_role("button", name="Resume").click()
        head(page, "running")
        head(page, "· loss")
        page.get_by_role("button", name="Stop", exact=True).click()
        head(page, "stopped")
        head(page, "What it had learnt is kept. Resume goes on after step")
        page.wait_for_selector("#tune-chat:enabled")
        closed(page)
    run = jobs.status(run_dir)
    assert run.state is State.STOPPED
    assert before is not None
    assert run.step >= before
    steps = [line["step"] for line in jobs.metrics(run_dir)]
    assert steps == list(range(1, run.step + 1)), "one curve, without a gap or a repetition"


def test_what_cannot_fit_is_refused_with_numbers(browser: Any, data_dir: Path, untrained_tiny: Path) -> None:
    """Before anything is made; and where it becomes so by a number, the page says it at once."""
    examples = make_examples(data_dir / "images", 1)
    huge = data_dir / "huge"
    shutil.copytree(untrained_tiny, huge)
    config = json.loads((huge / "config.json").read_text())
    config["text_config"]["vocab_size"] = 10**11
    (huge / "config.json").write_text(json.dumps(config))
    with served(data_dir, huge, lambda: {Attribute.POSE: 8}, examples) as url:
        page = opened(browser, url)
        page.wait_for_selector("#tune-needs .tune-unfit:has-text('Training huge needs about')", timeout=LOADED)
        page.click("#tune-begin")
        page.wait_for_selector(".toast-body:has-text('Not started. Training huge needs about')", timeout=LOADED)
        closed(page)
    assert not (data_dir / "snapshots").exists()
    assert jobs.list_runs(data_dir / "runs") == []


def trained(runs: Path, examples: list[Example], base: Path, name: str, **numbers: Any) -> None:
    """A run as training leaves it."""
    config = jobs.RunConfig(base_model=str(base), **numbers)
    run_dir = jobs.create_run(runs, examples, config, name=name)
    for step in range(1, 21):
        line = {"step": step, "total": 20, "epoch": step / 20, "loss": 3 - step / 20, "lr": 1e-5, "grad_norm": 1.0}
        append_json(run_dir / METRICS, line | {"tokens": 100 * step, "seconds": step, "eta": 20 - step})
    write_json(run_dir / RESULT, {"state": "finished", "seconds": 20.0, "tokens": 2000})


def test_runs_are_compared_and_fit_a_phone(browser: Any, data_dir: Path, untrained_tiny: Path) -> None:
    examples = make_examples(data_dir / "images", 1)
    for name, rank in (("low", 8), ("high", 64), ("third", 64)):
        trained(data_dir / "runs", examples, untrained_tiny, name, rank=rank)
    with served(data_dir, untrained_tiny, lambda: {Attribute.POSE: 8}, examples) as url:
        page = opened(browser, url)
        page.get_by_role("button", name="Compare runs").click()
        page.wait_for_selector("#tune-compare-table:has-text('Choose two runs or more.')")
        for name in ("low", "high"):
            page.get_by_label("Runs", exact=True).click()
            page.get_by_role("option", name=name).click()
        page.wait_for_selector("#tune-compare-table tr:has-text('rank') :text('64')")
        table = page.inner_text("#tune-compare-table")
        assert "Set differently" in table
        assert "learning_rate" not in table
        assert {"low", "high"} <= set(page.locator("#tune-compare-training svg text").all_text_contents())
        page.locator("#tune-compare-training :text('pairs seen')").wait_for()
        page.get_by_label("by step").check()
        page.locator("#tune-compare-training .role-axis-title :text-is('step')").wait_for()
        assert not page.is_visible("#tune-compare-held-out"), "nothing was held out"
        page.set_viewport_size({"width": 390, "height": 844})
        advanced(page, "Speed and memory")
        page.get_by_label("rows_at_once").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "no horizontal scrolling"
        closed(page)


def test_only_the_loaded_bases_runs_can_be_chatted_with(browser: Any, data_dir: Path, untrained_tiny: Path) -> None:
    """The page says why, and what to do; a run without an adapter needs no such sentence."""
    examples = make_examples(data_dir / "images", 1)
    runs = {
        "own": str(untrained_tiny),
        "other": "OpenGVLab/InternVL3-1B-hf",
        "facellm-tiny": str(untrained_tiny),
        "bare": "OpenGVLab/InternVL3-1B-hf",
    }
    for name, base in runs.items():
        run_dir = jobs.create_run(data_dir / "runs", examples, jobs.recipe(base), name=name)
        (run_dir / "result.json").write_text('{"state": "stopped"}')
        if name != "bare":
            (run_dir / "adapter").mkdir()
    with served(data_dir, untrained_tiny, dict, [], adapter="/elsewhere/facellm-tiny") as url:
        page = opened(browser, url)
        reasons = {}
        for name in runs:
            page.get_by_role("radio", name=f"{name} · stopped").check()
            page.wait_for_selector(f"#tune-head h3:text-is('{name}')")
            if name == "bare":
                page.wait_for_selector("#tune-chat", state="hidden")
            else:
                page.wait_for_selector(f"#tune-chat:{'enabled' if name == 'own' else 'disabled'}")
            reasons[name] = page.inner_text("#tune-head [role=status]")
        page.close()
    assert "chat has" not in reasons["own"] + reasons["bare"]
    assert "start the app with FACELLM_BASE_MODEL=OpenGVLab/InternVL3-1B-hf." in reasons["other"]
    assert "The chat has another model called facellm-tiny." in reasons["facellm-tiny"]


def test_without_pairs_there_is_one_sentence(browser: Any, data_dir: Path, untrained_tiny: Path) -> None:
    with served(data_dir, untrained_tiny, dict, []) as url:
        page = opened(browser, url)
        assert "No pairs to learn from yet" in page.inner_text("#tune-pairs")
        page.click("#tune-begin")
        page.wait_for_selector(".toast-body:has-text('Not started. No pairs to learn from yet')")
        time.sleep(0.2)
        assert jobs.list_runs(data_dir / "runs") == []
        page.set_viewport_size({"width": 390, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "no horizontal scrolling"
        page.close()


def no_snapshot(name: str) -> SnapshotRef:
    raise AssertionError(f"nobody has asked for the snapshot {name}")


def test_a_refused_start_says_why_and_covers_nothing(browser: Any, data_dir: Path, untrained_tiny: Path) -> None:
    examples = make_examples(data_dir / "images", 2)
    jobs.create_run(data_dir / "runs", examples, jobs.recipe(str(untrained_tiny)))
    with served(data_dir, untrained_tiny, lambda: {Attribute.POSE: 16}, examples) as url:
        page = opened(browser, url)
        head(page, "run-1")
        page.get_by_label("Epochs").fill("")
        page.click("#tune-begin")
        page.wait_for_selector(".toast-body:has-text('Not started. The field epochs is empty; expected a number.')")
        assert page.locator(".toast-body.error").count() == 0
        page.locator("#tune-runs").get_by_text("run-1").click(timeout=5000)  # it would wait for what covers the list
        assert page.get_by_label("Epochs").input_value() == ""
        page.close()
    assert [run.name for run in jobs.list_runs(data_dir / "runs")] == ["run-1"]


def test_a_run_is_deleted_after_a_question(browser: Any, data_dir: Path, untrained_tiny: Path) -> None:
    examples = make_examples(data_dir / "images", 2)
    older, newer = (jobs.create_run(data_dir / "runs", examples, jobs.recipe(str(untrained_tiny))) for _ in range(2))
    with served(data_dir, untrained_tiny, lambda: {Attribute.POSE: 16}, examples) as url:
        page = opened(browser, url)
        head(page, "run-2")
        page.click("#tune-delete")
        page.get_by_role("button", name="Delete run-2 for good").wait_for()
        page.click("#tune-keep")
        page.get_by_role("button", name="Delete", exact=True).wait_for()
        page.locator("#tune-runs").get_by_text("run-1").click()
        head(page, "run-1")
        page.click("#tune-delete")
        page.get_by_role("button", name="Delete run-1 for good").click()
        head(page, "run-2")
        assert (older.exists(), newer.exists()) == (False, True)
        page.click("#tune-delete")
        page.get_by_role("button", name="Delete run-2 for good").wait_for()
        jobs.start(newer)  # it has begun since
        page.click("#tune-sure")
        page.wait_for_selector(".toast-body:has-text('Not deleted. The run run-2 ')")
        head(page, "running")
        assert newer.exists()
        page.close()


def test_everything_on_the_page_is_private(data_dir: Path, untrained_tiny: Path) -> None:
    with gr.Blocks() as page:
        pairs = Pairs(dict, list, no_snapshot)
        build_training_tab(
            Settings(data_dir=data_dir), pairs=pairs, bases=[str(untrained_tiny)], refusal=nobody_is_refused
        )
    assert page.fns
    assert {function.api_visibility for function in page.fns.values()} == {"private"}
