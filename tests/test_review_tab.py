"""The review desk in a real browser, on a real server and a real store: one reviewer at work.

python -m pytest tests/test_review_tab.py
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from PIL import Image

from annotation.checks.checking import CHECKS
from annotation.models import Action, Decision, DecisionInput, Reason, Status
from annotation.pair_filter import PairFilter
from annotation.review_queue import Order
from annotation.seed import seed
from annotation.store import Store
from tests.made_desk import DESKTOP, PHONE, SERVER_CALLS, Desk, served

pytestmark = pytest.mark.browser

PENDING = [*range(17, 25), *range(41, 49), *range(65, 73)]


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with 9 faces, 3 of which (24 pairs) are pending."""
    folder = tmp_path_factory.mktemp("seeded") / "data"
    store = Store.open(folder)
    seed(store, 9)
    store.close()
    return folder


@pytest.fixture
def store(seeded: Path, data_dir: Path) -> Iterator[Store]:
    shutil.copytree(seeded, data_dir)
    opened = Store.open(data_dir)
    yield opened
    opened.close()


@pytest.fixture
def url(store: Store) -> Iterator[str]:
    with served(store) as address:
        yield address


@pytest.fixture
def desk(browser: Any, url: str) -> Iterator[Desk]:
    opened = Desk(browser, url).open()
    yield opened
    opened.close()


def events(store: Store, pair_id: int) -> list[Decision]:
    return store.events(pair_id)


def status(store: Store, pair_id: int) -> Status:
    return store.pairs([pair_id])[0].pair.status


def test_one_key_accepts_rejects_and_skips_and_shows_the_next_pair(desk: Desk, store: Store) -> None:
    shown = [desk.press(key) for key in "ars"]
    assert shown == [17, 18, 19]
    assert desk.pair == 20
    desk.wait_until_saved()
    assert [status(store, pair) for pair in shown] == [Status.ACCEPTED, Status.REJECTED, Status.SKIPPED]
    (accepted,) = events(store, 17)
    assert accepted.reviewer == "ana"
    assert accepted.milliseconds is not None
    view = store.pairs([20])[0]
    assert desk.text(".answer") == view.answer
    assert desk.text(".question") == view.pair.question
    assert "All saved" in desk.text(".saved")
    assert desk.kept == []


def test_a_digit_gives_the_rejection_its_reason(desk: Desk, store: Store) -> None:
    pair = desk.press("r")
    assert desk.page.locator(".reasons").is_visible()
    desk.press("2")
    assert desk.page.locator(".reasons").is_hidden()
    desk.wait_until_saved()
    assert [event.reason for event in events(store, pair)] == [None, Reason.CONTRADICTS]
    desk.press("z")
    assert desk.pair == pair
    desk.wait_until_saved()
    assert status(store, pair) is Status.PENDING
    desk.press("3")  # no rejection to explain any more
    assert desk.unsent == 0


def test_a_flag_has_a_note_and_goes_to_a_curator(desk: Desk, store: Store) -> None:
    pair = desk.press("f")
    assert desk.page.evaluate("document.activeElement.className") == "flag-note"
    desk.page.keyboard.press("Enter")
    assert "Write what a curator should look at" in desk.text(".message")
    desk.page.keyboard.press("Escape")
    assert (desk.pair, desk.unsent, desk.state) == (pair, 0, "showing")
    desk.press("f")
    desk.page.keyboard.type("Is that a scar, or art?")  # every letter is text
    desk.page.keyboard.press("Enter")
    assert desk.pair != pair
    desk.wait_until_saved()
    assert [(event.action, event.note) for event in events(store, pair)] == [(Action.FLAG, "Is that a scar, or art?")]
    assert status(store, pair) is Status.FLAGGED
    desk.press("z")
    desk.wait_until_saved()
    assert (desk.pair, status(store, pair)) == (pair, Status.PENDING)


def test_edit_in_place_with_keys_and_with_buttons(desk: Desk, store: Store) -> None:
    first = desk.press("e")
    assert desk.page.evaluate("document.activeElement.className") == "editor"
    desk.page.keyboard.press("Control+a")
    desk.page.keyboard.type("a rare answer, read as asked")  # every shortcut's letter is in it
    assert desk.pair == first
    desk.page.keyboard.press("Control+Enter")
    second = desk.pair
    assert second != first
    desk.page.click("[data-do=edit]")
    desk.page.fill(".editor", "Another answer.")
    desk.page.click("[data-do=save]")
    desk.wait_until_saved()
    assert [store.pairs([pair])[0].answer for pair in (first, second)] == [
        "a rare answer, read as asked",
        "Another answer.",
    ]
    assert [len(events(store, pair)) for pair in (first, second)] == [1, 1]


def test_an_edit_shows_its_changes_word_by_word_while_it_is_written_and_afterwards(desk: Desk, store: Store) -> None:
    draft = store.pairs([desk.pair])[0].answer
    first, *rest = draft.split(" ")
    pair = desk.press("e")
    assert desk.text(".live-diff") == "No change yet."
    desk.page.fill(".editor", " ".join(["Now", *rest]))
    pieces = [(desk.page.locator(f".live-diff {kind}").all_text_contents()) for kind in ("del", "ins")]
    assert pieces == [[first], ["Now"]]
    desk.page.keyboard.press("Control+Enter")
    desk.wait_until_saved()
    desk.press("ArrowLeft")
    assert desk.pair == pair
    assert desk.page.locator(".changes-text").text_content() == " ".join([first + "Now", *rest])
    assert desk.page.locator(".changes-text ins").all_text_contents() == ["Now"]
    desk.press("d")
    assert desk.page.locator(".changes").is_hidden()
    desk.press("a")  # what is shown is accepted: the edited answer, which stands already
    desk.wait_until_saved()
    assert [event.action for event in events(store, pair)] == [Action.EDIT]


def test_cancelled_empty_and_unchanged_edits(desk: Desk, store: Store) -> None:
    pair = desk.press("e")
    desk.page.fill(".editor", "Never stored.")
    desk.page.keyboard.press("Escape")
    assert desk.text(".answer") == store.pairs([pair])[0].pair.answer
    desk.press("e")
    desk.page.fill(".editor", "  ")
    desk.page.keyboard.press("Control+Enter")
    assert "The answer is empty" in desk.text(".message")
    assert desk.pair == pair
    desk.page.keyboard.press("Escape")
    desk.press("e")
    desk.page.keyboard.press("Control+Enter")
    desk.wait_until_saved()
    assert [event.action for event in events(store, pair)] == [Action.ACCEPT]


def test_keys_are_silent_in_text_fields_with_modifiers_in_ime_and_in_other_tabs(desk: Desk, store: Store) -> None:
    pair = desk.pair
    for keys in ("Control+a", "Shift+A", "Alt+r", "Meta+s"):
        desk.page.keyboard.press(keys)
    for init in ("{key: 'a', isComposing: true}", "{key: 'a', keyCode: 229}", "{key: 'a', repeat: true}"):
        desk.page.evaluate(f"document.body.dispatchEvent(new KeyboardEvent('keydown', {{...{init}, bubbles: true}}))")
    desk.page.focus("select.attribute")
    desk.page.keyboard.press("r")  # no attribute begins with it
    desk.page.keyboard.press("Escape")
    desk.page.locator("body").press("?")
    desk.page.keyboard.press("a")  # the list of keys is open
    desk.page.keyboard.press("Escape")
    desk.page.get_by_role("tab", name="Other").click()
    desk.page.locator("body").press("a")
    desk.page.get_by_role("textbox", name="Text").fill("")
    desk.page.get_by_role("textbox", name="Text").type("area")
    desk.page.get_by_role("tab", name="Review").click()
    assert (desk.pair, desk.unsent) == (pair, 0)
    assert events(store, pair) == []
    desk.page.locator("body").press("a")
    desk.wait_until_saved()
    assert len(events(store, pair)) == 1


def test_undo_goes_back_through_everything_also_after_a_reload(desk: Desk, store: Store) -> None:
    shown = [desk.press(key) for key in "aras"]
    desk.wait_until_saved()
    desk.press("z")
    assert desk.pair == shown[-1]
    desk.wait_until_saved()
    desk.page.reload()
    desk.wait_for_state("showing")
    desk.page.wait_for_selector(".undo:enabled")
    for pair in reversed(shown[:-1]):
        desk.press("z")
        desk.wait_for_pair(pair)
    desk.wait_until_saved()
    assert [status(store, pair) for pair in shown] == [Status.PENDING] * 4
    desk.press("z")
    assert "nothing to undo" in desk.text(".message")
    desk.press("a")
    desk.wait_until_saved()
    assert status(store, shown[0]) is Status.ACCEPTED


def test_earlier_pairs_are_gone_back_to_and_decided_anew(desk: Desk, store: Store) -> None:
    first, second = desk.press("a"), desk.press("r")
    here = desk.pair
    desk.press("ArrowLeft", "ArrowLeft")
    assert (desk.pair, desk.text(".badge")) == (first, "accepted by you")
    desk.press("r")
    desk.wait_for_pair(here)  # back to where the work was
    desk.wait_until_saved()
    assert [event.action for event in events(store, first)] == [Action.ACCEPT, Action.REJECT]
    assert status(store, first) is Status.REJECTED
    desk.press("ArrowRight")
    assert "Decide about this pair" in desk.text(".message")
    desk.press("h")
    desk.page.click(f".history-list [data-open='{second}']")
    desk.wait_for_pair(second)
    desk.press("a")
    desk.wait_until_saved()
    assert (status(store, second), desk.pair) == (Status.ACCEPTED, here)


def test_decisions_survive_a_server_that_is_away_and_a_reload(desk: Desk, store: Store) -> None:
    desk.page.route(SERVER_CALLS, lambda route: route.abort())
    shown = [desk.press(key) for key in "aar"]
    desk.page.wait_for_selector(".banner:visible")
    desk.wait_for_text(".banner", "3 decisions are kept in this browser")
    assert [events(store, pair) for pair in shown] == [[], [], []]
    desk.page.unroute(SERVER_CALLS)
    desk.page.route(SERVER_CALLS, lambda route: route.fulfill(status=500, body="{}"))
    desk.page.reload()
    desk.page.wait_for_selector(".banner:visible")
    assert desk.text(".panel-title") == "Waiting for the server"
    desk.page.keyboard.press("a")  # nothing is shown, so nothing is decided
    assert desk.unsent == 3
    desk.page.unroute(SERVER_CALLS)
    desk.page.wait_for_selector(".banner", state="hidden")
    desk.wait_until_saved()
    desk.wait_for_state("showing")
    assert [len(events(store, pair)) for pair in shown] == [1, 1, 1]
    assert desk.pair not in shown
    assert desk.kept == []


def test_filters_and_empty_states(desk: Desk, store: Store) -> None:
    desk.filter("attribute", "pose")
    desk.page.wait_for_function("document.querySelector('.topic').textContent === 'face pose'")
    desk.wait_for_text(".done", "of 9 reviewed")
    for _ in range(3):
        desk.wait_for_state("showing")
        desk.press("a")
    desk.wait_for_text(".panel-title", "All pairs of this filter are reviewed")
    desk.wait_until_saved()
    desk.filter("status", "rejected")
    desk.wait_for_state("showing")
    assert desk.text(".badge").startswith("rejected by demo")
    first = desk.press("s")
    desk.wait_until_saved()
    assert status(store, first) is Status.REJECTED  # looked at, not skipped
    desk.filter("status", "skipped")
    desk.wait_for_text(".panel-title", "No skipped pairs here")
    desk.page.get_by_role("button", name="Go to the pending ones").click()
    desk.wait_for_text(".panel-title", "All pairs of this filter are reviewed")
    desk.page.get_by_role("button", name="Remove the filter Attribute: Face pose").click()
    desk.wait_for_state("showing")
    assert desk.page.input_value("select.attribute") == ""
    assert desk.page.locator(".chips").is_hidden()


def test_further_filters_count_and_the_address_says_them_all(desk: Desk, store: Store) -> None:
    desk.page.click("[data-do=more]")
    desk.filter("status", "rejected")
    rejected = [view.pair.id for view in store.browse(PairFilter(status=(Status.REJECTED,)), limit=100)]
    desk.page.wait_for_selector(f"[data-filter=reviewer] option:has-text('demo ({len(rejected)})')", state="attached")
    desk.filter("reviewer", "demo")
    desk.wait_for_text(".chips", "Decided by: demo")
    desk.wait_for_state("showing")
    address = desk.page.url
    assert desk.pair in rejected
    desk.page.reload()
    desk.wait_for_state("showing")
    assert [desk.page.input_value(f"[data-filter={name}]") for name in ("status", "reviewer")] == ["rejected", "demo"]
    desk.page.evaluate("sessionStorage.clear()")
    desk.page.goto("about:blank")
    desk.page.goto(address)
    desk.wait_for_state("showing")
    assert (desk.pair in rejected, desk.page.url) == (True, address)
    desk.page.click("[data-clear=reviewer]")
    desk.page.wait_for_function("!location.href.includes('reviewer')")


def test_a_link_says_what_it_asks_for_in_vain(desk: Desk) -> None:
    desk.open("attribute=pose colour=red status=nosuch")
    desk.wait_for_text(".banner", "This link asks for colour=red, status=nosuch, which is not known here")
    assert desk.text(".topic").lower() == "face pose"


def test_a_link_names_a_pair(desk: Desk) -> None:
    desk.open("pair=5 status=accepted")
    desk.wait_for_pair(5)


def test_a_free_question_from_the_chat_is_reviewed_like_any_pair(desk: Desk, store: Store) -> None:
    pair = store.add_exchange(
        [Image.new("RGB", (64, 64), "teal")],
        "Is she wearing a hat?",
        "No, her head is bare.",
        attribute=None,
        teacher="facellm-tiny",
        teacher_source="embedded",
        parameters="{}",
    )
    desk.page.reload()
    desk.wait_for_text(".done", "of 73 reviewed")
    desk.page.select_option("select.attribute", label="Free question")
    desk.wait_for_pair(pair)
    assert (desk.text(".question"), desk.text(".answer")) == ("Is she wearing a hat?", "No, her head is bare.")
    assert desk.page.locator(".pair .topic").text_content() == "free question"
    assert desk.page.evaluate("document.querySelector('.face img').naturalWidth") == 64
    desk.wait_for_text(".done", "0 of 1 reviewed")
    assert desk.page.locator(".labels li").count() == 0
    desk.press("a")
    assert desk.text(".done") == "1 of 1 reviewed"
    desk.wait_until_saved()
    assert status(store, pair) is Status.ACCEPTED
    desk.page.keyboard.press("z")
    desk.wait_until_saved()
    assert status(store, pair) is Status.PENDING


def test_a_half_typed_answer_is_asked_about_before_it_is_lost(desk: Desk) -> None:
    asked: list[str] = []
    desk.page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
    desk.press("e")
    desk.page.reload()
    desk.wait_for_state("showing")
    assert asked == [], "nothing was typed"
    desk.press("e")
    desk.page.keyboard.type(" More.")
    desk.page.reload()
    desk.wait_for_state("showing")
    assert asked == ["beforeunload"]


def test_what_is_said_about_a_step_goes_with_the_next(desk: Desk) -> None:
    desk.press("a")
    assert desk.text(".message") == "Accepted."
    desk.press("z")
    assert desk.text(".message") == "Taken back: your decision about this pair."
    desk.press("e")
    assert desk.text(".message") == ""
    desk.page.keyboard.press("Escape")
    desk.press("s")
    desk.page.wait_for_function("document.querySelector('.message').textContent === ''", timeout=7000)


def test_every_pending_pair_is_shown_once_whatever_the_speed(desk: Desk, store: Store) -> None:
    shown = []
    while desk.state != "empty":
        if desk.state == "showing":
            shown.append(desk.press("a"))
    desk.wait_until_saved()
    assert shown == PENDING
    assert all(len(events(store, pair)) == 1 for pair in PENDING)


def test_text_is_never_markup_and_a_lost_image_does_not_stop_the_review(desk: Desk, store: Store) -> None:
    view = store.pairs([desk.pair])[0]
    markup = "<img src=x onerror='window.ran = true'> ${1+1} {{this}}"
    edit = DecisionInput(
        uuid=uuid4(), pair_id=desk.pair, image_sha256=view.image.sha256, revision=0, action=Action.EDIT, text=markup
    )
    store.decide("ben", edit)
    (store.data_dir / view.image.path).unlink()
    desk.page.reload()
    desk.wait_for_state("showing")
    assert desk.page.get_attribute(".face img", "alt") == "The image file is missing"
    desk.press("a")
    desk.open(f"pair={view.pair.id} status=edited")
    desk.wait_for_pair(view.pair.id or 0)
    assert desk.text(".answer") == markup
    assert desk.page.locator(".changes-text").text_content().endswith(markup)
    assert desk.page.evaluate("window.ran") is None


def test_without_a_pair_the_desk_says_what_to_do(browser: Any, data_dir: Path) -> None:
    empty = Store.open(data_dir)
    with served(empty) as url:
        desk = Desk(browser, url).open(state="empty")
        desk.wait_for_text(".panel-title", "No pairs yet")
        assert "python -m annotation seed" in desk.text(".panel-text")
        seed(empty, 3)
        desk.page.get_by_role("button", name="Look again").click()
        desk.wait_for_state("showing")
        desk.close()
    empty.close()


def test_flags_are_shown_with_their_words_marked_and_sort_the_queue(desk: Desk, store: Store) -> None:
    desk.filter("order", "most suspicious first")
    pending = PairFilter(status=(Status.PENDING,), flag="any")
    flagged = [view.pair.id for view in store.browse(pending, Order.SUSPICIOUS, limit=50)]
    assert len(flagged) >= 2
    shown = []
    for expected in flagged:
        desk.wait_for_pair(expected or 0)
        view = store.pairs([desk.pair])[0]
        assert desk.page.locator(".answer").text_content() == view.answer
        assert [item.split()[0] for item in desk.page.locator(".flags li strong").all_text_contents()] == [
            flag.check.split()[0].capitalize() for flag in view.flags
        ]
        marked = [view.answer[flag.span_start : flag.span_end] for flag in view.flags if flag.span_start is not None]
        assert desk.page.locator(".answer mark").all_text_contents() == marked
        shown.append(desk.press("a"))
    assert shown == flagged
    assert desk.page.locator(".answer mark, .flags li").count() == 0, "the pairs without a flag follow"
    desk.wait_until_saved()


def test_without_flags_the_desk_says_how_to_get_them(browser: Any, data_dir: Path) -> None:
    unchecked = Store.open(data_dir)
    seed(unchecked, 3)
    ids = [pair.pair_id for pair in unchecked.checkable()]
    unchecked.replace_flags(CHECKS, {}, {pair.pair_id: pair.revision for pair in unchecked.checkable(ids=ids)})
    with served(unchecked) as url:
        desk = Desk(browser, url).open("flag=any", state="empty")
        desk.wait_for_text(".panel-title", "No flagged pairs")
        assert "python -m annotation check" in desk.text(".panel-text")
        desk.page.get_by_role("button", name="Show all pairs").click()
        desk.wait_for_state("showing")
        desk.close()
    unchecked.close()


def test_an_edit_and_its_undo_show_the_flags_of_the_text_that_stands(desk: Desk, store: Store) -> None:
    view = store.pairs([desk.pair])[0]
    text = "🙂🙂 According to the label, <b>this</b> is so."
    desk.edit(text)
    desk.wait_until_saved()
    desk.open("status=edited flag=leak")
    desk.wait_for_pair(view.pair.id or 0)
    assert desk.page.locator(".answer").text_content() == text
    (flag,) = [one for one in store.pairs([view.pair.id])[0].flags if one.check == "leak"]
    marked = desk.page.locator(".answer mark").first
    assert marked.text_content() == text[flag.span_start : flag.span_end] == "According to the label"
    assert desk.page.locator(".answer b").count() == 0
    assert "label" in marked.get_attribute("title")
    desk.page.wait_for_selector(".undo:enabled")
    desk.press("z")
    desk.page.wait_for_function("text => document.querySelector('.answer').textContent === text", arg=view.answer)
    desk.wait_until_saved()
    spans = sum(flag.span_start is not None for flag in view.flags)
    desk.page.wait_for_function("n => document.querySelectorAll('.answer mark').length === n", arg=spans)


# Many faces at once


def test_a_grid_is_one_lot_with_one_undo_also_after_a_reload(desk: Desk, store: Store) -> None:
    desk.press("g")
    desk.page.wait_for_selector(".cell")
    assert desk.page.url.endswith("view%3Dgrid")
    pairs = [int(cell.get_attribute("data-pair")) for cell in desk.page.locator(".cell").all()]
    assert len(pairs) == 3, "of one attribute"
    desk.page.keyboard.press("x")
    desk.page.keyboard.press("ArrowRight")
    desk.page.keyboard.press("2")
    desk.page.click(".cell >> nth=2")
    desk.page.click(".cell >> nth=2")  # and not bad after all
    assert desk.text(".rest-name") == "Reject 2, accept 1"
    assert desk.page.locator(".cell[aria-selected=true]").count() == 2
    desk.page.keyboard.press("Enter")
    desk.wait_for_state("empty")
    desk.wait_until_saved()
    made = [events(store, pair)[0] for pair in pairs]
    assert [(event.action, event.reason) for event in made] == [
        (Action.REJECT, None),
        (Action.REJECT, Reason.CONTRADICTS),
        (Action.ACCEPT, None),
    ]
    assert len({event.lot for event in made}) == 1
    assert made[0].lot is not None
    desk.page.reload()
    desk.wait_for_state("empty")
    desk.page.wait_for_selector(".undo:enabled")
    desk.page.keyboard.press("z")
    desk.page.wait_for_selector(".cell")
    desk.wait_until_saved()
    assert [status(store, pair) for pair in pairs] == [Status.PENDING] * 3
    desk.page.keyboard.press("Shift+A")
    desk.page.keyboard.press("z")
    desk.page.keyboard.press("Shift+A")
    desk.wait_until_saved()
    desk.page.keyboard.press("g")
    assert desk.page.get_attribute(".desk", "data-view") == "pair"


def test_one_stale_face_does_not_spoil_the_lot(desk: Desk, store: Store) -> None:
    desk.press("g")
    desk.page.wait_for_selector(".cell")
    pairs = [int(cell.get_attribute("data-pair")) for cell in desk.page.locator(".cell").all()]
    view = store.pairs([pairs[1]])[0]
    theirs = DecisionInput(
        uuid=uuid4(), pair_id=pairs[1], image_sha256=view.image.sha256, revision=0, action=Action.REJECT
    )
    store.decide("ben", theirs)
    desk.page.keyboard.press("Enter")
    desk.wait_until_saved()
    assert [status(store, pair) for pair in pairs] == [Status.ACCEPTED, Status.REJECTED, Status.ACCEPTED]
    assert "its pair is rejected by ben since you saw it" in desk.text(".banner")


# The picture


def test_zoom_stays_over_pairs_and_goes_by_a_key(desk: Desk) -> None:
    scale = "new DOMMatrix(getComputedStyle(document.querySelector('.zoomed')).transform)"
    box = desk.page.locator(".face").bounding_box()
    spot = (box["x"] + box["width"] / 4, box["y"] + box["height"] / 4)
    desk.page.mouse.move(*spot)
    desk.page.mouse.wheel(0, -400)
    desk.page.wait_for_function(f"{scale}.a > 1.5")
    place = desk.page.evaluate(f"[{scale}.a, {scale}.e, {scale}.f]")
    assert place[1] > 0
    assert place[2] > 0, "towards the spot"
    desk.press("a")
    assert desk.page.evaluate(f"[{scale}.a, {scale}.e, {scale}.f]") == place
    desk.page.mouse.down()
    desk.page.mouse.move(spot[0] + 30, spot[1])
    desk.page.mouse.up()
    assert desk.page.evaluate(f"{scale}.e") == pytest.approx(
        min(place[1] + 30, (place[0] - 1) / 2 * box["width"]), abs=1
    )
    assert desk.page.locator(".face").bounding_box() == box
    desk.press("0")
    assert desk.page.evaluate(f"{scale}.a") == 1
    assert desk.page.locator(".zoom-reset").is_hidden()
    desk.press("+", "+")
    assert desk.page.evaluate(f"{scale}.a") == pytest.approx(1.5625)
    desk.page.click(".zoom-reset")
    assert desk.page.evaluate(f"{scale}.a") == 1


# How it looks


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_marked_words_can_be_read(browser: Any, url: str, theme: str) -> None:
    desk = Desk(browser, url)
    desk.page.goto(f"{url}?__theme={theme}&review=flag%3Dany")
    desk.page.wait_for_selector(".answer mark")
    for selector in (".answer mark", ".flags li strong"):
        assert desk.page.evaluate(CONTRAST, selector) >= 4.5
    desk.press("e")
    desk.page.fill(".editor", "Something else.")
    for selector in (".live-diff ins", ".live-diff del"):
        assert desk.page.evaluate(CONTRAST, selector) >= 4.5
    desk.close()


# Contrast of an element's text with all backgrounds below it blended, as WCAG counts it.
CONTRAST = """selector => {
    const canvas = new OffscreenCanvas(1, 1).getContext('2d');
    const element = document.querySelector(selector);
    const layers = [];
    for (let at = element; at; at = at.parentElement ?? at.getRootNode().host) {
        layers.push(getComputedStyle(at).backgroundColor);
    }
    canvas.fillStyle = 'white';
    for (const layer of ['white', ...layers.reverse()]) { canvas.fillStyle = layer; canvas.fillRect(0, 0, 1, 1); }
    const light = () => {
        const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map(value => {
            const part = value / 255;
            return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const below = light();
    canvas.fillStyle = getComputedStyle(element).color;
    canvas.fillRect(0, 0, 1, 1);
    const text = light();
    return (Math.max(text, below) + 0.05) / (Math.min(text, below) + 0.05);
}"""

IN_VIEW = """names => names.filter(name => {
    const box = document.querySelector(name).getBoundingClientRect();
    return box.width < 1 || box.top < 0 || box.bottom > innerHeight || box.left < 0 || box.right > innerWidth;
})"""


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_everything_is_in_view_without_scrolling(browser: Any, url: str, viewport: dict[str, int]) -> None:
    desk = Desk(browser, url, viewport=viewport).open()
    buttons = [f"[data-do={name}]" for name in ("accept", "edit", "reject", "skip", "flag", "undo", "grid", "help")]
    assert desk.page.evaluate(IN_VIEW, [".face img", ".question", ".answer", *buttons]) == []
    assert desk.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    desk.page.click("[data-do=reject]")
    assert desk.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    reasons = [f"[data-reason='{reason.value}']" for reason in Reason]
    assert desk.page.evaluate(IN_VIEW, [*reasons, ".saved"]) == []
    desk.page.click("[data-do=edit]")
    assert desk.page.evaluate(IN_VIEW, [".editor", ".live-diff", "[data-do=save]", ".editing [data-do=cancel]"]) == []
    desk.page.click(".editing [data-do=cancel]")
    desk.page.click("[data-do=flag]")
    assert desk.page.evaluate(IN_VIEW, [".flag-note", ".send-flag", ".flagging [data-do=cancel]"]) == []
    desk.close()
