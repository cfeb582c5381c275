"""The review desk in a real browser, on a real server and a real store.

python -m pytest tests/test_review_tab.py
"""

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import gradio as gr
import pytest
from people import ana
from PIL import Image

from annotation.checks.checking import CHECKS
from annotation.models import Action, Decision, DecisionInput, Reason, Status
from annotation.review_queue import Order
from annotation.review_tab import build_review_tab
from annotation.seed import seed
from annotation.store import Store

pytestmark = pytest.mark.browser

STYLES = Path(__file__).resolve().parent.parent / "facellm" / "studio.css"
SERVER_CALLS = "**/component_server/**"
DESKTOP = {"width": 1366, "height": 768}
PHONE = {"width": 390, "height": 844}


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
    with gr.Blocks(analytics_enabled=False) as app, gr.Tabs(elem_id="studio-tabs"):
        with gr.Tab("Review"):
            build_review_tab(store, ana)
        with gr.Tab("Other"):
            gr.Textbox(label="Text")
    yield serve(app)
    app.close()


def serve(app: gr.Blocks) -> str:
    """Serve on a free port of this machine; return the address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    app.launch(
        prevent_thread_lock=True,
        server_name="127.0.0.1",
        server_port=port,
        quiet=True,
        ssr_mode=False,
        run_history=False,
        css_paths=STYLES,
    )
    return str(app.local_url)


class Desk:
    """What a reviewer sees and does."""

    def __init__(self, page: Any, url: str) -> None:
        self.page = page
        page.goto(url)
        self.wait_for_state("showing")

    def wait_for_state(self, state: str) -> None:
        self.page.wait_for_selector(f".desk[data-state={state}]", timeout=20_000)

    def wait_until_saved(self) -> None:
        self.page.wait_for_selector(".desk[data-unsent='0']", timeout=20_000)

    @property
    def pair(self) -> int:
        return int(self.page.get_attribute(".desk", "data-pair"))

    @property
    def unsent(self) -> int:
        return int(self.page.get_attribute(".desk", "data-unsent"))

    def press(self, key: str) -> int:
        """Press a key; return the pair that was shown."""
        shown = self.pair
        self.page.keyboard.press(key)
        return shown

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()


@pytest.fixture
def desk(browser: Any, url: str) -> Iterator[Desk]:
    context = browser.new_context(viewport=DESKTOP)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield Desk(page, url)
    assert errors == []
    context.close()


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


def test_undo_goes_back_through_everything_also_after_a_reload(desk: Desk, store: Store, url: str) -> None:
    shown = [desk.press(key) for key in "aras"]
    desk.wait_until_saved()
    desk.press("z")
    assert desk.pair == shown[-1]
    desk.wait_until_saved()
    again = Desk(desk.page, url)
    desk.page.wait_for_selector(".undo:enabled")
    for pair in reversed(shown[:-1]):
        again.press("z")
        desk.page.wait_for_function(f"document.querySelector('.desk').dataset.pair === '{pair}'")
    desk.wait_until_saved()
    assert [status(store, pair) for pair in shown] == [Status.PENDING] * 4
    again.press("z")
    assert "nothing to undo" in desk.text(".message")
    again.press("a")
    desk.wait_until_saved()
    assert status(store, shown[0]) is Status.ACCEPTED


def test_decisions_survive_a_server_that_is_away_and_a_reload(desk: Desk, store: Store) -> None:
    desk.page.route(SERVER_CALLS, lambda route: route.abort())
    shown = [desk.press(key) for key in "aar"]
    desk.page.wait_for_selector(".banner:visible")
    assert "3 decisions are kept in this browser" in desk.text(".banner")
    assert [events(store, pair) for pair in shown] == [[], [], []]
    desk.page.unroute(SERVER_CALLS)
    desk.page.route(SERVER_CALLS, lambda route: route.fulfill(status=500, body="{}"))
    desk.page.reload()
    desk.page.wait_for_selector(".banner:visible")
    assert desk.text(".panel-title") == "Waiting for the server"
    desk.page.keyboard.press("a")  # nothing is shown, so nothing is decided
    assert desk.unsent == 3
    desk.page.unroute(SERVER_CALLS)
    desk.wait_until_saved()
    desk.page.wait_for_selector(".banner", state="hidden")
    assert [len(events(store, pair)) for pair in shown] == [1, 1, 1]
    desk.wait_for_state("showing")
    assert desk.pair not in shown
    assert desk.page.evaluate("Object.keys(localStorage).filter(key => key.startsWith('facellm.review')).length") == 0


def test_a_decision_on_a_pair_that_somebody_else_decided_is_not_stored(desk: Desk, store: Store) -> None:
    view = store.pairs([desk.pair])[0]
    theirs = DecisionInput(
        uuid=uuid4(), pair_id=desk.pair, image_sha256=view.image.sha256, revision=0, action=Action.REJECT
    )
    store.decide("ben", theirs)
    pair = desk.press("e")
    desk.page.fill(".editor", "A careful text.")
    desk.page.keyboard.press("Control+Enter")
    desk.wait_until_saved()
    assert "A decision of yours was not stored: its pair is rejected by ben since you saw it." in desk.text(".banner")
    assert "Your text was: A careful text." in desk.text(".banner")
    assert status(store, pair) is Status.REJECTED
    assert desk.pair != pair
    desk.page.click(".banner-close")
    assert desk.page.locator(".banner").is_hidden()


def test_filters_and_empty_states(desk: Desk, store: Store) -> None:
    desk.page.select_option("select.attribute", "pose")
    desk.page.wait_for_function("document.querySelector('.topic').textContent === 'face pose'")
    assert "of 9 reviewed" in desk.text(".done")
    for _ in range(3):
        desk.press("a")
    desk.wait_for_state("empty")
    assert desk.text(".panel-title") == "All pairs of this filter are reviewed"
    desk.wait_until_saved()
    desk.page.select_option("select.status", "rejected")
    desk.wait_for_state("showing")
    assert desk.text(".badge").startswith("rejected by demo")
    first = desk.press("s")
    desk.wait_until_saved()
    assert status(store, first) is Status.REJECTED  # looked at, not skipped
    desk.page.select_option("select.status", "skipped")
    desk.wait_for_state("empty")
    assert desk.text(".panel-title") == "No skipped pairs here"
    desk.page.get_by_role("button", name="Go to the pending ones").click()
    desk.wait_for_state("empty")
    desk.page.get_by_role("button", name="Show all attributes").click()
    desk.wait_for_state("showing")
    assert desk.page.input_value("select.attribute") == ""


def test_a_free_question_from_the_chat_is_reviewed_like_any_pair(desk: Desk, store: Store, url: str) -> None:
    pair = store.add_exchange(
        [Image.new("RGB", (64, 64), "teal")],
        "Is she wearing a hat?",
        "No, her head is bare.",
        attribute=None,
        teacher="facellm-tiny",
        teacher_source="embedded",
        parameters="{}",
    )
    again = Desk(desk.page, url)
    assert "of 73 reviewed" in desk.text(".done")
    desk.page.select_option("select.attribute", label="Free question")
    desk.page.wait_for_function(f"document.querySelector('.desk').dataset.pair === '{pair}'")
    assert (desk.text(".question"), desk.text(".answer")) == ("Is she wearing a hat?", "No, her head is bare.")
    assert desk.page.locator(".topic").text_content() == "free question"
    assert desk.page.evaluate("document.querySelector('.face img').naturalWidth") == 64
    assert desk.text(".done") == "0 of 1 reviewed"
    assert desk.page.locator(".labels li").count() == 0
    again.press("a")
    assert desk.text(".done") == "1 of 1 reviewed"
    desk.wait_until_saved()
    assert status(store, pair) is Status.ACCEPTED
    desk.page.keyboard.press("z")
    desk.wait_until_saved()
    assert status(store, pair) is Status.PENDING

    desk.page.select_option("select.attribute", "")
    shown = []
    while desk.page.get_attribute(".desk", "data-state") != "empty":
        if desk.page.get_attribute(".desk", "data-state") == "showing":
            shown.append(again.press("a"))
    assert shown[-1] == pair
    desk.wait_until_saved()
    assert status(store, pair) is Status.ACCEPTED


def test_a_reload_keeps_the_filters_and_asks_before_a_half_typed_answer_is_lost(desk: Desk, url: str) -> None:
    desk.page.select_option("select.status", "rejected")
    desk.page.select_option("select.attribute", "pose")
    desk.wait_for_state("showing")
    asked: list[str] = []
    desk.page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
    desk.press("e")
    again = Desk(desk.page, url)
    assert asked == [], "nothing was typed"
    assert desk.page.input_value("select.status") == "rejected"
    assert desk.page.input_value("select.attribute") == "pose"
    assert desk.text(".badge").startswith("rejected")
    assert desk.text(".topic").lower() == "face pose"
    again.press("e")
    desk.page.keyboard.type(" More.")
    Desk(desk.page, url)
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
    while desk.page.get_attribute(".desk", "data-state") != "empty":
        if desk.page.get_attribute(".desk", "data-state") == "showing":
            shown.append(desk.press("a"))
    desk.wait_until_saved()
    pending = [*range(17, 25), *range(41, 49), *range(65, 73)]
    assert shown == pending
    assert all(len(events(store, pair)) == 1 for pair in pending)


def test_text_is_never_markup_and_a_lost_image_does_not_stop_the_review(desk: Desk, store: Store, url: str) -> None:
    view = store.pairs([desk.pair])[0]
    markup = "<img src=x onerror='window.ran = true'> ${1+1} {{this}}"
    edit = DecisionInput(
        uuid=uuid4(), pair_id=desk.pair, image_sha256=view.image.sha256, revision=0, action=Action.EDIT, text=markup
    )
    store.decide("ben", edit)
    (store.data_dir / view.image.path).unlink()
    again = Desk(desk.page, url)
    assert desk.page.get_attribute(".face img", "alt") == "The image file is missing"
    again.press("a")
    desk.page.select_option("select.status", "edited")
    desk.page.wait_for_function("document.querySelector('.badge').textContent.startsWith('edited')")
    for _ in range(30):
        if desk.text(".answer") == markup:
            break
        again.press("s")
    assert desk.text(".answer") == markup
    assert desk.page.evaluate("window.ran") is None


def test_without_a_pair_the_desk_says_what_to_do(browser: Any, data_dir: Path) -> None:
    empty = Store.open(data_dir)
    with gr.Blocks(analytics_enabled=False) as app:
        build_review_tab(empty, ana)
    page = browser.new_page()
    page.goto(serve(app))
    page.wait_for_selector(".desk[data-state=empty]")
    assert page.locator(".panel-title").inner_text() == "No pairs yet"
    assert "python -m annotation seed" in page.locator(".panel-text").inner_text()
    seed(empty, 3)
    page.get_by_role("button", name="Look again").click()
    page.wait_for_selector(".desk[data-state=showing]")
    page.close()
    app.close()
    empty.close()


def test_flags_are_shown_with_their_words_marked_and_sort_the_queue(desk: Desk, store: Store) -> None:
    desk.page.select_option("select.order", "most suspicious first")
    flagged = [view.pair.id for view in store.browse(order=Order.FLAGGED, limit=50)]
    desk.page.wait_for_function(f"document.querySelector('.desk').dataset.pair === '{flagged[0]}'")
    assert len(flagged) >= 2
    shown = []
    for expected in flagged:
        view = store.pairs([desk.pair])[0]
        assert view.pair.id == expected
        assert desk.page.locator(".answer").text_content() == view.answer
        assert [item.split()[0] for item in desk.page.locator(".flags li strong").all_text_contents()] == [
            flag.check.split()[0].capitalize() for flag in view.flags
        ]
        marked = [view.answer[flag.span_start : flag.span_end] for flag in view.flags if flag.span_start is not None]
        assert desk.page.locator(".answer mark").all_text_contents() == marked
        shown.append(desk.press("a"))
    assert shown == flagged
    assert desk.page.locator(".answer mark, .flags li").count() == 0, "the pairs without a flag follow"
    while desk.page.get_attribute(".desk", "data-state") != "empty":
        if desk.page.get_attribute(".desk", "data-state") == "showing":
            shown.append(desk.press("a"))
    assert sorted(shown) == [*range(17, 25), *range(41, 49), *range(65, 73)], "each pair once"
    desk.wait_until_saved()


def test_only_flagged_pairs_with_their_own_counts(desk: Desk, store: Store) -> None:
    desk.page.select_option("select.order", "only flagged ones")
    pending = store.counts(flagged=True)
    flagged = sum(of[Status.PENDING] for of in pending.values())
    desk.page.wait_for_selector(f"select.status option:has-text('Pending ({flagged})')", state="attached")
    for _ in range(flagged):
        desk.wait_for_state("showing")  # the number is known before the first pair comes
        desk.press("s")
    desk.wait_for_state("empty")
    desk.wait_until_saved()
    desk.page.reload()
    desk.wait_for_state("empty")
    assert desk.page.input_value("select.order") == "only flagged ones"
    assert desk.text(".panel-text") == f"{flagged} of them were skipped."


def test_without_flags_the_desk_says_how_to_get_them(browser: Any, data_dir: Path) -> None:
    unchecked = Store.open(data_dir)
    seed(unchecked, 3)
    ids = [pair.pair_id for pair in unchecked.checkable()]
    unchecked.replace_flags(CHECKS, {}, {pair.pair_id: pair.revision for pair in unchecked.checkable(ids=ids)})
    with gr.Blocks(analytics_enabled=False) as app:
        build_review_tab(unchecked, ana)
    page = browser.new_page()
    Desk(page, serve(app))
    page.select_option("select.order", "only flagged ones")
    page.wait_for_selector(".desk[data-state=empty]")
    assert page.locator(".panel-title").inner_text() == "No flagged pairs"
    assert "python -m annotation check" in page.locator(".panel-text").inner_text()
    page.get_by_role("button", name="Show all pairs").click()
    page.wait_for_selector(".desk[data-state=showing]")
    page.close()
    app.close()
    unchecked.close()


def test_an_edit_and_its_undo_show_the_flags_of_the_text_that_stands(desk: Desk, store: Store) -> None:
    view = store.pairs([desk.pair])[0]
    text = "🙂🙂 According to the label, <b>this</b> is so."
    desk.press("e")
    desk.page.fill(".editor", text)
    desk.page.keyboard.press("Control+Enter")
    desk.wait_until_saved()
    desk.page.select_option("select.status", "edited")
    desk.page.select_option("select.order", "only flagged ones")
    desk.page.wait_for_function(f"document.querySelector('.desk').dataset.pair === '{view.pair.id}'")
    assert desk.page.locator(".answer").text_content() == text
    (flag,) = [one for one in store.pairs([view.pair.id])[0].flags if one.check == "leak"]
    marked = desk.page.locator(".answer mark").first
    assert marked.text_content() == text[flag.span_start : flag.span_end] == "According to the label"
    assert desk.page.locator(".answer b").count() == 0
    assert "label" in marked.get_attribute("title")
    desk.press("z")
    desk.wait_until_saved()
    assert desk.page.locator(".answer").text_content() == view.answer
    assert desk.page.locator(".answer mark").count() == sum(flag.span_start is not None for flag in view.flags)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_marked_words_can_be_read(browser: Any, url: str, theme: str) -> None:
    page = browser.new_page(viewport=DESKTOP)
    Desk(page, f"{url}?__theme={theme}")
    page.select_option("select.order", "only flagged ones")
    page.wait_for_selector(".answer mark")
    assert page.evaluate(CONTRAST, ".answer mark") >= 4.5
    assert page.evaluate(CONTRAST, ".flags li strong") >= 4.5
    page.close()


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
    page = browser.new_page(viewport=viewport)
    Desk(page, url)
    needed = [".face img", ".question", ".answer", "[data-do=accept]", "[data-do=reject]", "[data-do=skip]", ".undo"]
    assert page.evaluate(IN_VIEW, needed) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.click("[data-do=reject]")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    reasons = [f"[data-reason='{reason.value}']" for reason in Reason]
    assert page.evaluate(IN_VIEW, [*reasons, ".saved"]) == []
    assert page.evaluate(
        "document.querySelector('.breakdown').scrollWidth <= document.querySelector('.breakdown').clientWidth"
    )
    page.click("[data-do=edit]")
    assert page.evaluate(IN_VIEW, [".editor", "[data-do=save]", "[data-do=cancel]"]) == []
    page.close()
