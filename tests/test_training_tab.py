"""The Fine-tune tab in a real browser: the button, a real run, reload, restart, Stop, and refusals."""

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

from facellm import jobs
from facellm.__main__ import app as commands
from facellm.config import Settings
from facellm.data import Attribute, Example, content_hash, write_examples
from facellm.jobs import SnapshotRef, State
from facellm.training_tab import build_training_tab
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
        build_training_tab(settings, counts=counts, snapshot=snapshot, bases=[str(base)], refusal=nobody_is_refused)
    with served_tab.served(page) as url:
        yield url


def opened(browser: Any, url: str) -> Any:
    page = browser.new_page(viewport={"width": 1366, "height": 768})
    page.goto(url)
    page.wait_for_selector("#tune-begin")
    page.wait_for_selector("#tune-head h3")
    return page


def head(page: Any, text: str) -> None:
    page.wait_for_selector(f"#tune-head:has-text('{text}')", timeout=LOADED)


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
        page.get_by_label("Epochs").fill("100")
        page.click("#tune-advanced button")
        page.get_by_label("Rank").fill("")
        page.click("#tune-begin")
        page.wait_for_selector("text=The field Rank is empty")
        page.get_by_label("Rank").fill("8")
        page.click("#tune-begin")
        head(page, "running")
        head(page, "· loss")
        head(page, "finished")
        assert page.is_visible("#tune-curve canvas, #tune-curve svg")
        page.wait_for_selector("#tune-chat:enabled")
        assert not page.is_visible("#tune-stop")
        assert page.get_by_label("Name").input_value() == ""
        page.reload()
        head(page, "finished")
        assert page.is_checked("#tune-runs input")
        assert "first · finished · 16 pairs" in page.inner_text("#tune-runs")
        page.close()
    run = jobs.status(data_dir / "runs" / "first")
    assert run.config is not None
    assert (run.state, run.step, run.config.epochs) == (State.FINISHED, 100, 100)
    assert run.config.snapshot is not None
    assert run.config.snapshot.startswith("first.")
    assert (run.config.rank, run.config.alpha, run.config.device) == (8, 16, "cpu")
    monkeypatch.setenv("FACELLM_DEVICE", "cpu")
    numbers = ["--base", str(untrained_tiny), "--set", "epochs=100", "--set", "rank=8"]
    typed = CliRunner().invoke(commands, ["prepare", run.config.snapshot, "--name", "typed", *numbers])
    assert typed.exit_code == 0
    assert jobs.status(data_dir / "runs" / "typed").config == run.config, "the command does what the button does"


def test_another_app_shows_refuses_and_stops(browser: Any, data_dir: Path, untrained_tiny: Path) -> None:
    """A run outlives the app that started it; the next one shows it, refuses a second, and can stop it."""
    examples = make_examples(data_dir / "images", 2)
    config = jobs.RunConfig(base_model=str(untrained_tiny), max_steps=10_000, batch_size=8)
    run_dir = jobs.create_run(data_dir / "runs", examples, config)
    jobs.start(run_dir)
    with served(data_dir, untrained_tiny, lambda: {Attribute.POSE: 16}, examples) as url:
        page = opened(browser, url)
        head(page, "running")
        page.click("#tune-begin")
        page.wait_for_selector("text=The run run-1 is going")
        assert [path.name for path in run_dir.parent.glob("*/config.json")] == ["config.json"]
        assert not (data_dir / "snapshots").exists()
        head(page, "· loss")
        page.click("#tune-stop")
        head(page, "stopped")
        page.wait_for_selector("#tune-chat:enabled")
        page.close()
    assert jobs.status(run_dir).state is State.STOPPED


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
        page.wait_for_selector(".toast-body:has-text('Not started. The field Epochs is empty; expected a number.')")
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
        page.wait_for_selector(".toast-body:has-text('Not deleted. The run run-2 is going')")
        head(page, "running")
        assert newer.exists()
        page.close()


def test_everything_on_the_page_is_private(data_dir: Path, untrained_tiny: Path) -> None:
    with gr.Blocks() as page:
        build_training_tab(
            Settings(data_dir=data_dir),
            counts=dict,
            snapshot=no_snapshot,
            bases=[str(untrained_tiny)],
            refusal=nobody_is_refused,
        )
    assert page.fns
    assert {function.api_visibility for function in page.fns.values()} == {"private"}
