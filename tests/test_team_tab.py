"""The Team tab in a real browser: what everybody sees, what curators may do, and what is refused.

python -m pytest tests/test_team_tab.py
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from annotation.accounts.identity import Identity
from annotation.models import Action, Role
from annotation.seed import seed
from annotation.store import Store
from annotation.team_tab import build_team_tab
from tests.made_team import decide
from tests.served_tab import served

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

STYLES = [Path(__file__).resolve().parent.parent / path for path in ("facellm/studio.css", "annotation/team/team.css")]
CAROL = Identity("carol", Role.CURATOR)
PHONE = {"width": 390, "height": 844}


class Door:
    """Who is asking: whoever the test says."""

    def __init__(self) -> None:
        self.identity = CAROL

    def who(self, _request: object) -> Identity:
        """The one who is there now."""
        return self.identity


@pytest.fixture
def store(data_dir: Path) -> Iterator[Store]:
    """9 rendered faces, 48 pairs decided by the demo reviewer, some by a hasty one."""
    opened = Store.open(data_dir)
    seed(opened, 9)
    for view in opened.claim("hal", "window", limit=12):
        decide(opened, "hal", view.pair.id or 0, Action.ACCEPT, milliseconds=200)
    yield opened
    opened.close()


@contextmanager
def opened(browser: Any, store: Store, door: Door) -> Iterator[Any]:
    """A page with the tab alone, served on a free port."""
    with gr.Blocks() as app:
        tab = build_team_tab(store, door.who)
        app.load(tab.refresh, tab.inputs, tab.shown, show_progress="hidden")
    failures: list[str] = []
    with served(app, css_paths=STYLES) as url:
        page = browser.new_page(viewport={"width": 1366, "height": 900})
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.goto(url)
        page.wait_for_selector("#team-progress h3")
        yield page
        page.close()
    assert failures == []


def test_numbers_and_reviewers(browser: Any, store: Store) -> None:
    with opened(browser, store, Door()) as page:
        assert "60 of 72 pairs decided" in page.inner_text("#team-progress")
        assert "12 verdicts to go" in page.inner_text("#team-progress")
        assert page.locator("#team-accepted svg").count() == 2
        assert page.locator("#team-rates tbody tr").count() == 8
        reviewers = page.inner_text("#team-reviewers")
        assert "hal has accepted 12 pairs in under 700 ms" in reviewers
        assert page.locator("#team-reviewers tbody tr").count() == 2
        page.set_viewport_size(PHONE)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "no horizontal scrolling"


def test_agreement_is_measured_when_asked(browser: Any, store: Store) -> None:
    with opened(browser, store, Door()) as page:
        page.get_by_role("button", name="Measure").click()
        page.wait_for_selector("#team-agreement:has-text('No pair has verdicts of two reviewers yet')")


def test_a_curator_sets_overlap_and_traps(browser: Any, store: Store) -> None:
    with opened(browser, store, Door()) as page:
        page.get_by_label("Reviewers per pair").fill("2")
        page.locator("#team-share input[type=number]").fill("50")
        page.locator("#team-traps input[type=number]").fill("5")
        page.get_by_role("button", name="Save").click()
        page.wait_for_selector(".toast-body:has-text('Saved')")
        project = store.project.read()
        assert (project.overlap, project.overlap_share, project.trap_share) == (2, 0.5, 0.05)
        page.wait_for_selector("#team-settings-note:has-text('two accounts')")


def test_a_curator_draws_and_judges(browser: Any, store: Store) -> None:
    with opened(browser, store, Door()) as page:
        assert not page.is_visible("#team-audit")
        page.get_by_label("Pairs", exact=True).fill("3")
        page.get_by_role("button", name="Draw at random").click()
        page.wait_for_selector("#team-audit-pair:has-text('3 pairs to judge')")
        assert page.locator("#team-audit-pair img").evaluate("image => image.naturalWidth") > 0
        first = page.inner_text("#team-audit-pair blockquote")
        page.get_by_role("button", name="Later").click()
        page.wait_for_function(
            "text => document.querySelector('#team-audit-pair blockquote').innerText !== text", arg=first
        )
        page.get_by_role("button", name="Wrong").click()
        page.wait_for_selector("#team-audit-pair:has-text('2 pairs to judge')")
        page.wait_for_selector("#team-audit-estimate:has-text('1 of 1 audited pairs are wrong')")
        page.get_by_role("button", name="Take back").click()
        page.wait_for_selector("#team-audit-pair:has-text('3 pairs to judge')")
        for left in (2, 1):
            page.get_by_role("button", name="Right").click()
            page.wait_for_selector(f"#team-audit-pair:has-text('{left} pair')")
        page.get_by_role("button", name="Right").click()
        page.wait_for_selector("#team-audit-pair:has-text('Every drawn pair is judged')")
        assert page.get_by_role("button", name="Right").is_disabled()
        assert "0 of 3 audited pairs are wrong" in page.inner_text("#team-audit-estimate")
    assert [audit.auditor for audit, _, _ in store.audits.all()] == ["carol"] * 3


def test_what_is_judged_by_another_meanwhile_is_said(browser: Any, store: Store) -> None:
    store.audits.draw("dora", 2)
    with opened(browser, store, Door()) as page:
        drawn = store.audits.next("carol")
        assert drawn is not None
        page.wait_for_selector("#team-audit-pair blockquote")
        store.audits.judge(drawn.audit_id, True, "dora")
        page.get_by_role("button", name="Wrong").click()
        page.wait_for_selector(".toast-body:has-text('dora has judged it meanwhile')")
        page.wait_for_selector("#team-audit-pair:has-text('1 pair to judge')")


def test_others_see_the_data_set_only(browser: Any, store: Store) -> None:
    door = Door()
    door.identity = Identity("rita", Role.REVIEWER)
    store.audits.draw("carol", 2)
    with opened(browser, store, door) as page:
        assert "60 of 72 pairs decided" in page.inner_text("#team-progress")
        assert "wait for their judge" in page.inner_text("#team-audit-estimate")
        for hidden in ("#team-reviewers", "#team-agreement", "#team-settings", "#team-audit", "#team-audit-draw"):
            assert not page.is_visible(hidden), hidden
        assert "hal" not in page.content(), "not even hidden"


def test_a_page_that_was_a_curators_is_refused(browser: Any, store: Store) -> None:
    door = Door()
    store.audits.draw("carol", 2)
    with opened(browser, store, door) as page:
        page.wait_for_selector("#team-audit-pair blockquote")
        door.identity = Identity("rita", Role.REVIEWER)
        page.get_by_role("button", name="Save").click()
        page.wait_for_selector(".toast-body:has-text('Only a curator can change how pairs are reviewed')")
        page.get_by_role("button", name="Right").click()
        page.wait_for_selector(".toast-body:has-text('Only a curator can audit the data set')")
        page.wait_for_selector("#team-audit", state="hidden")
    assert [audit.is_right for audit, _, _ in store.audits.all()] == [None, None]


def test_everything_on_the_page_is_private(store: Store) -> None:
    with gr.Blocks() as page:
        build_team_tab(store, Door().who)
    assert page.fns
    assert {function.api_visibility for function in page.fns.values()} == {"private"}
