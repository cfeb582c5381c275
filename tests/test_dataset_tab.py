"""The Dataset tab in a real browser: numbers, plot, and runs that go, stop, break off and go on.

The runs are rows of the ledger and processes of the real command; what a teacher answers is tested with the command
itself, against a real server.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from made_generation import add_face, add_run, add_task, biased
from people import cleo
from sqlmodel import col, update

from annotation.database import writing
from annotation.dataset_tab import build_dataset_tab
from annotation.generate_tab import _Generation
from annotation.models import GenerationRun, Purpose, RunState, TaskState
from annotation.store import Store
from annotation.teaching.usage_policy import POLICY_SUBJECT
from facellm.config import load_settings
from facellm.data import Attribute
from tests.served_tab import served

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]
STARTED = 60_000  # milliseconds for a process to begin on a busy machine
TEACHERS = {
    "house": {"base_url": "http://127.0.0.1:1/v1", "model": "house-1", "price": [1, 2]},
    "openai": {"base_url": "https://api.openai.com/v1", "model": "gpt-x", "key_variable": "A_KEY_THAT_IS_NOT_SET"},
}


@pytest.fixture
def store(data_dir: Path) -> Iterator[Store]:
    opened = Store.open(data_dir)
    yield opened
    opened.close()


@pytest.fixture
def teachers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for the command, which reads the settings itself."""
    monkeypatch.setenv("FACELLM_TEACHERS", json.dumps(TEACHERS))


@contextmanager
def opened(browser: Any, store: Store) -> Iterator[Any]:
    """A page with the tab alone, served on a free port."""
    with gr.Blocks() as app:
        tab = build_dataset_tab(store, load_settings(), cleo)
        app.load(tab.refresh, tab.inputs, tab.shown, show_progress="hidden")
    with served(app) as url:
        page = browser.new_page(viewport={"width": 1366, "height": 768})
        page.goto(url)
        page.wait_for_selector("#data-summary h3")
        yield page
        page.close()


def head(page: Any, text: str, timeout: int = STARTED) -> None:
    page.wait_for_selector(f"#data-head:has-text('{text}')", timeout=timeout)


def toast(page: Any, text: str) -> None:
    page.wait_for_selector(f".toast-body:has-text('{text}')", timeout=STARTED)


def pick(page: Any, label: str, option: str) -> None:
    page.get_by_label(label, exact=True).click()
    page.get_by_role("option", name=option, exact=True).click()


def going(store: Store, **values: Any) -> GenerationRun:
    """A run of this process, as the command makes it."""
    run = store.ledger.start_run(Purpose.GENERATE, "house-1", "http://127.0.0.1:1/v1", {"model": "house"})
    set_run(store, run, **values)
    return run


def set_run(store: Store, run: GenerationRun, **values: Any) -> None:
    with writing(store._engine) as session:
        session.exec(update(GenerationRun).where(col(GenerationRun.id) == run.id).values(**values))


def test_numbers_groups_and_plot(browser: Any, store: Store) -> None:
    biased(store)
    with opened(browser, store) as page:
        summary = page.inner_text("#data-summary")
        assert "300 images · " in summary
        assert "refused" in summary
        assert page.locator("#data-summary tbody tr").count() == 2
        assert "Refusals: Middle Eastern female faces are hit " in page.inner_text("#data-notable")
        plot = page.locator("#data-plot svg")
        plot.get_by_text("pose", exact=True).wait_for()
        pick(page, "By", "race")
        plot.get_by_text("Latino or Hispanic").wait_for()
        pick(page, "Show", "refusals, %")
        plot.get_by_text("refusals, %").wait_for()
        pick(page, "By", "race × gender × age")
        plot.get_by_text("The 10 highest of 12 groups").wait_for()
        plot.get_by_text("refusals, %").wait_for()


@pytest.mark.usefixtures("teachers")
def test_a_run_that_is_going_is_watched_and_stopped(browser: Any, store: Store) -> None:
    run = going(store, total=10, finished=3, cost_usd=0.25)
    with writing(store._engine) as session:
        image = add_face(session)
        add_task(session, run, image, Attribute.POSE, TaskState.REFUSED)
    with opened(browser, store) as page:
        head(page, "3 of 10 · 1 refused · $0.2500 · about")
        assert page.inner_text("#data-head .data-state") == "running"
        set_run(store, run, finished=5)
        store.ledger.beat(run.id or 0)
        head(page, "5 of 10")
        page.click("#data-generate")
        toast(page, "Not started. A run with house-1 is going")
        page.click("#data-stop")
        page.wait_for_selector("#data-stop:disabled:has-text('Stopping')")
        assert store.ledger.beat(run.id or 0), "the run hears it at its next beat"
        head(page, "Stopping: what has been sent is waited for")
        page.reload()
        head(page, "Stopping: what has been sent is waited for")
        with writing(store._engine) as session:
            add_task(session, run, add_face(session), Attribute.SKIN, TaskState.REFUSED)
        store.ledger.end_run(run.id or 0, RunState.STOPPED, "Stopped by a person.")
        head(page, "Stopped by a person.")
        page.wait_for_selector("#data-summary p:has-text('2 refused')")  # what has ended is counted anew
        page.wait_for_selector("#data-continue:visible")


@pytest.mark.usefixtures("teachers")
def test_a_run_whose_process_is_gone_goes_on(browser: Any, store: Store) -> None:
    """The command finds nothing to ask here, as there is no picture, and so needs no teacher."""
    with writing(store._engine) as session:
        options = json.dumps({"model": "house", "per_image": True, "max_cost": 2.5, "limit": None})
        add_run(session, teacher="house-1", total=800, finished=600, options=options)
    with opened(browser, store) as page:
        head(page, "Its process is gone. All answers that came are kept")
        assert page.inner_text("#data-head .data-state") == "interrupted"
        page.click("#data-continue")
        head(page, "Nothing was missing")
        page.get_by_role("radio", name="house-1 · done").wait_for()
        page.click("#data-log button")
        log = page.locator("#data-log textarea")
        log.wait_for()
        assert "generate --model house --per-image --max-cost 2.5" in log.input_value()
    newest = store.ledger.runs()[0]
    assert (newest.state, json.loads(newest.options)["max_cost"]) == (RunState.DONE, 2.5)


@pytest.mark.usefixtures("teachers")
def test_a_run_from_a_terminal_is_shown_but_does_not_go_on_from_the_page(browser: Any, store: Store) -> None:
    """Who opens the page may ask the teachers of the settings, at the price that is known, and no other."""
    typed = ({"model": "gpt-x"}, {"model": "house", "base_url": "http://127.0.0.1:1/v1"}, {"model": "house"})
    with writing(store._engine) as session:
        for number, options in enumerate(typed):
            purpose = Purpose.JUDGE if number == 2 else Purpose.GENERATE
            add_run(session, teacher=f"typed-{number}", options=json.dumps(options), purpose=purpose)
        add_run(session, teacher="house-1", options=json.dumps({"model": "house"}))
    with opened(browser, store) as page:
        page.wait_for_selector("#data-continue:visible")
        for number in range(len(typed)):
            page.get_by_role("radio", name=f"typed-{number} · interrupted").check()
            head(page, f"typed-{number}")
            page.wait_for_selector("#data-continue", state="hidden")


@pytest.mark.usefixtures("teachers")
def test_a_stale_button_starts_nothing_either(store: Store) -> None:
    with writing(store._engine) as session:
        run = add_run(session, options=json.dumps({"model": "gpt-x"}))
    work = _Generation(store, load_settings(), cleo, has_form=True)
    with pytest.warns(UserWarning, match="Go on with it in a terminal"), pytest.raises(gr.Error):
        work.go_on(run.uuid, gr.Request())
    assert not (store.data_dir / "generation").exists()


@pytest.mark.usefixtures("teachers")
def test_the_form_is_the_command(browser: Any, store: Store) -> None:
    with writing(store._engine) as session:
        add_face(session, age="3-9")
    with opened(browser, store) as page:
        page.get_by_label("Pictures").fill("many")
        page.click("#data-generate")
        toast(page, "Not started. The field Pictures holds")
        page.get_by_label("Pictures").fill("7")
        page.get_by_label("Cost limit, USD").fill("0.5")
        page.get_by_label("All in one request").check()
        page.get_by_label("skin").uncheck()
        page.click("#data-estimate")
        page.wait_for_selector("#data-estimated b:has-text('1 requests, about $')", timeout=STARTED)
        assert store.ledger.runs() == []
        pick(page, "Leave out ages", "3-9")
        page.keyboard.press("Escape")
        page.click("#data-generate")
        head(page, "Nothing was missing")
    (run,) = store.ledger.runs()
    told = json.loads(run.options)
    assert (told["model"], told["limit"], told["max_cost"], told["per_image"]) == ("house", 7, 0.5, True)
    assert told["exclude_ages"] == "3-9"
    assert told["attributes"] == "demographic,structure,expression,lighting,pose,forensic,detail"


@pytest.mark.usefixtures("teachers")
def test_before_openai_is_asked_something_is_read_once(browser: Any, store: Store) -> None:
    with writing(store._engine) as session:
        add_face(session, age="3-9")
    with opened(browser, store) as page:
        assert not page.is_visible("#data-policy")
        pick(page, "Teacher", "openai")
        page.wait_for_selector("#data-policy:visible")
        ages = page.locator("#data-form .token")
        ages.nth(2).wait_for()
        assert [text.split()[0] for text in ages.all_inner_texts()] == ["0-2", "3-9", "10-19"]
        page.click("#data-generate")
        toast(page, "Not started. Read what is said about OpenAI")
        assert not store.ledger.acknowledged(POLICY_SUBJECT)
        page.get_by_label("I have read this").check()
        page.click("#data-generate")
        toast(page, "The variable A_KEY_THAT_IS_NOT_SET")
        assert store.ledger.acknowledged(POLICY_SUBJECT)
        page.reload()
        page.wait_for_selector("#data-summary h3")
        pick(page, "Teacher", "openai")
        ages.nth(2).wait_for()
        assert not page.is_visible("#data-policy")
    assert store.ledger.runs() == []


def test_without_a_teacher_the_tab_says_how_to_have_one(browser: Any, store: Store) -> None:
    with opened(browser, store) as page:
        assert "No teacher is configured" in page.inner_text("#data-no-teacher")
        assert "No pictures yet" in page.inner_text("#data-summary")
        assert not page.is_visible("#data-generate")
        assert not page.is_visible("#data-runs-box")
        page.set_viewport_size({"width": 390, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "no horizontal scrolling"


@pytest.mark.usefixtures("teachers")
def test_everything_on_the_page_is_private(store: Store) -> None:
    with gr.Blocks() as page:
        build_dataset_tab(store, load_settings(), cleo)
    assert page.fns
    assert {function.api_visibility for function in page.fns.values()} == {"private"}
