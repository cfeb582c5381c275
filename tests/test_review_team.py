"""The review desk with several people: leases, blindness, stale decisions, curators, visitors.

python -m pytest tests/test_review_team.py
"""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select

from annotation.database import reading
from annotation.models import Action, Lease, Status
from annotation.seed import seed
from annotation.store import Store
from tests.made_desk import Desk, served
from tests.made_team import decide, status

pytestmark = pytest.mark.browser

FIRST, SECOND = 17, 18  # pending pairs of one face


@pytest.fixture
def store(data_dir: Path) -> Iterator[Store]:
    opened = Store.open(data_dir)
    seed(opened, 9)  # 24 pending pairs about 3 faces
    yield opened
    opened.close()


@pytest.fixture
def window(browser: Any, store: Store) -> Iterator[Callable[..., Desk]]:
    """Opens a window for somebody."""
    opened = []
    with served(store) as url:

        def make(name: str, review: str = "", state: str = "showing") -> Desk:
            opened.append(Desk(browser, url, name))
            return opened[-1].open(review, state)

        yield make
        for desk in opened:
            desk.close()


def go_away(desk: Desk) -> int:
    """More than a minute passes without a sign of the reviewer; the pair on his screen."""
    desk.page.clock.install()
    desk.page.reload()
    desk.wait_for_state("showing")
    desk.page.wait_for_timeout(300)
    desk.page.clock.run_for(70_000)
    return desk.pair


def test_nobody_is_given_what_another_has_before_him(window: Callable[..., Desk], store: Store) -> None:
    ana = window("ana")
    ben = window("ben")
    first = ana.pair
    assert ben.pair not in (first, *range(FIRST, FIRST + 16)), "20 are ana's"
    for _ in range(4):
        ben.press("a")
    ben.wait_for_text(".panel-title", "Nothing to do for you here")
    ana.page.reload()
    ana.wait_for_state("showing")
    assert ana.pair == first, "a reloaded window gets its own again"
    ben.wait_until_saved()
    assert sum(store.counts()[attribute][Status.PENDING] for attribute in store.counts()) == 20


def test_a_window_that_closes_gives_its_pairs_back(window: Callable[..., Desk], store: Store) -> None:
    ana = window("ana")
    ana.page.goto("about:blank")
    ends = datetime.now(UTC) + timedelta(seconds=60)
    for _ in range(50):
        with reading(store._engine) as session:
            leases = session.exec(select(Lease)).all()
        if all(lease.expires_at < ends for lease in leases):
            break
        ana.page.wait_for_timeout(100)
    assert leases and all(lease.expires_at < ends for lease in leases)


def test_who_is_away_gives_back_what_was_not_seen(window: Callable[..., Desk], store: Store) -> None:
    ana = window("ana")
    shown = go_away(ana)
    ben = window("ben")
    assert ben.pair == shown + 1, "all but the one on screen"
    ana.page.mouse.move(5, 5)
    ana.press("a")
    ana.wait_for_state("showing")
    assert ana.pair > shown + 16, "what ben has is his"
    ana.wait_until_saved()
    assert status(store, shown) is Status.ACCEPTED


def test_a_pair_whose_lease_was_lost_goes_with_a_sentence(window: Callable[..., Desk], store: Store) -> None:
    ana = window("ana")
    shown = go_away(ana)
    store.release("ana")  # as if ten minutes had passed
    ben = window("ben")
    assert ben.pair == shown
    ana.page.mouse.move(5, 5)
    ana.wait_for_text(".message", "went to another reviewer, because you were away")
    ana.wait_for_state("showing")
    assert ana.pair != shown


def test_the_second_reviewer_learns_nothing_of_the_first(window: Callable[..., Desk], store: Store) -> None:
    store.project.set_overlap("carol", 2)
    decide(store, "zoe", FIRST, Action.EDIT, text="What zoe wrote.")
    decide(store, "zoe", SECOND, Action.SKIP)
    ana = window("ana")
    asked = {"filter": {"status": ["pending"]}, "order": "by image", "exclude": [], "limit": 100, "known": ["x"]}
    claimed = ana.ask("claim", holder="a", **asked)
    recalled = ana.ask("recall", ids=[FIRST, SECOND], known=[])
    assert {FIRST, SECOND} <= {pair["id"] for pair in recalled["pairs"]}
    for reply in (claimed, recalled, ana.ask("pair_events", id=FIRST)):
        told = json.dumps(reply | {"images": None})
        assert "zoe" not in told
        assert "What zoe wrote" not in told
    fresh, untouched = ana.ask("recall", ids=[FIRST, FIRST + 2], known=[])["pairs"]
    assert set(fresh) == set(untouched)
    about_decisions = ("status", "mine", "others", "revision", "decided", "verdicts")
    assert [fresh[name] for name in about_decisions] == [untouched[name] for name in about_decisions]
    refused = ana.ask("claim", holder="a", **asked | {"filter": {"status": ["pending"], "reviewer": "zoe"}})
    assert refused["pairs"] == []
    assert "zoe" not in json.dumps(ana.ask("facets", filter={"status": ["pending"]}))
    assert ana.pair == FIRST
    ana.press("a")
    ana.wait_until_saved()
    assert status(store, FIRST) is Status.DISPUTED


def test_a_stale_decision_is_shown_with_what_stands_and_nothing_is_lost(
    window: Callable[..., Desk], store: Store
) -> None:
    ana = window("ana")
    decide(store, "ben", FIRST, Action.EDIT, text="A careless text.")
    ana.edit("A careful text.")
    ana.wait_until_saved()
    assert "its pair is edited by ben since you saw it" in ana.text(".banner-text")
    assert ana.page.locator(".banner-diff del").all_text_contents() == ["careless"]
    assert ana.page.locator(".banner-diff ins").all_text_contents() == ["careful"]
    assert store.pairs([FIRST])[0].answer == "A careless text."
    ana.page.reload()
    ana.wait_for_state("showing")
    assert ana.page.locator(".banner-diff ins").all_text_contents() == ["careful"], "also after a reload"
    ana.page.click("[data-do=open-stale]")
    ana.wait_for_pair(FIRST)
    assert ana.text(".badge") == "edited by ben"
    ana.page.click(".events summary")
    ana.wait_for_text(".events li", "ben edits")
    ana.page.click(".banner-close")
    assert ana.page.locator(".banner").is_hidden()
    assert ana.kept == []


def test_a_curator_settles_by_a_digit_or_in_words_of_his_own(window: Callable[..., Desk], store: Store) -> None:
    store.project.set_overlap("carol", 2)
    for pair in (FIRST, SECOND):
        decide(store, "ana", pair, Action.ACCEPT)
        decide(store, "ben", pair, Action.EDIT, text="Another answer.")
    carol = window("carol", "status=disputed")
    assert carol.pair == FIRST
    assert carol.text(".badge") == "disputed by ana and ben"
    assert carol.page.locator(".verdicts strong").all_text_contents() == ["ana", "ben"]
    assert carol.page.locator(".verdicts ins").count() >= 1
    carol.press("2")
    assert carol.pair == SECOND
    carol.edit("The curator's answer.")
    carol.wait_until_saved()
    first, second = store.pairs([FIRST, SECOND])
    assert (first.pair.status, first.answer) == (Status.EDITED, "Another answer.")
    assert (second.pair.status, second.answer) == (Status.EDITED, "The curator's answer.")
    assert all(any(event.settles for event in store.events(pair)) for pair in (FIRST, SECOND))
    carol.wait_for_state("empty")
    carol.page.keyboard.press("z")
    carol.wait_for_pair(SECOND)
    carol.wait_until_saved()
    assert status(store, SECOND) is Status.DISPUTED
    carol.page.wait_for_selector(".verdicts [data-choice='1']")


def test_a_flag_is_settled_and_only_who_took_part_sees_it(window: Callable[..., Desk], store: Store) -> None:
    decide(store, "ana", FIRST, Action.FLAG, note="Is this a minor?")
    ben = window("ben", "status=flagged", state="empty")
    asked = {"order": "by image", "exclude": [], "limit": 100, "known": ["x"], "holder": "b"}
    assert ben.ask("claim", filter={"status": ["flagged"]}, **asked)["pairs"] == []
    ana = window("ana", "status=flagged")
    assert "Is this a minor?" in ana.text(".verdicts")
    assert ana.page.locator("[data-choice]").count() == 0
    carol = window("carol", "status=flagged")
    carol.press("r")
    carol.page.keyboard.press("5")
    carol.wait_until_saved()
    assert status(store, FIRST) is Status.REJECTED
    assert store.pairs([FIRST])[0].decision.reason == "unsafe"  # type: ignore[union-attr]


def test_a_visitor_looks_on(window: Callable[..., Desk], store: Store) -> None:
    nobody = window("nobody")
    assert "you are not signed in" in nobody.text(".looking-on")
    shown = nobody.pair
    nobody.press("a", "r", "g", "z")
    assert (nobody.pair, nobody.page.locator("[data-do=accept]").is_visible()) == (shown, False)
    nobody.press("ArrowRight")
    assert nobody.pair != shown
    view = store.pairs([shown])[0]
    sent = {"uuid": "0" * 8 + "-0000-4000-8000-" + "0" * 12, "pair_id": shown, "image_sha256": view.image.sha256}
    reply = nobody.ask("decide", **sent, revision=0, action="accept")
    assert "ok" not in reply
    assert "Only a reviewer can decide" in reply["message"]
    assert store.events(shown) == []
    assert nobody.ask("save_guidelines", text="mine")["error"].startswith("Only a curator can")
    ana = window("ana")
    assert ana.pair == FIRST, "looking leases nothing"


def test_decisions_wait_for_the_one_who_made_them(window: Callable[..., Desk], store: Store) -> None:
    ana = window("ana")
    ana.context.add_cookies([{"name": "name", "value": "nobody", "url": ana.url}])
    pair = ana.press("a")
    ana.wait_for_text(".banner", "You are signed out. Sign in again as ana. One decision is kept in this browser")
    assert store.events(pair) == []
    ana.context.add_cookies([{"name": "name", "value": "ben", "url": ana.url}])
    ana.page.reload()
    ana.wait_for_state("showing")
    ana.press("a")
    ana.wait_until_saved()
    assert store.events(pair) == [], "ben's page sends nothing of ana's"
    ana.context.add_cookies([{"name": "name", "value": "ana", "url": ana.url}])
    ana.page.reload()
    ana.wait_for_state("showing")
    ana.wait_until_saved()
    assert [event.reviewer for event in store.events(pair)] == ["ana"]


def test_guidelines_are_read_by_all_and_written_by_curators(window: Callable[..., Desk], store: Store) -> None:
    ana = window("ana")
    ana.press("i")
    ana.wait_for_text(".guidelines-view", "No guidelines yet.")
    assert ana.page.locator("[data-do=edit-guidelines]").is_hidden()
    ana.page.keyboard.press("Escape")
    carol = window("carol")
    carol.press("i")
    carol.wait_for_text(".guidelines-view", "Press Edit to write them.")
    carol.page.click("[data-do=edit-guidelines]")
    text = (
        "# Rules\n\n- **Reject** a guess\n\n<b onclick='x'>no</b> [bad](javascript:alert(1)) ![p](http://x.test/p.png)"
    )
    carol.page.fill(".guidelines-text", text)
    carol.wait_for_text(".guidelines-view h1", "Rules")
    carol.page.keyboard.press("Control+Enter")
    carol.page.wait_for_selector(".guidelines-edit", state="hidden")
    assert store.project.read().guidelines == text
    ana.press("i")
    ana.wait_for_text(".guidelines-view strong", "Reject")
    assert ana.page.locator(".guidelines-view :is(b, img, [href^=javascript])").count() == 0
    assert ana.pair == FIRST
