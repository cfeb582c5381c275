"""The Chat tab: what a visitor's session makes of questions, the `ask` endpoint, and the page in a real browser."""

import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import pytest
from gradio.utils import get_upload_folder
from gradio_client import Client, handle_file
from lively_model import LANGUAGE_LINEARS, save_adapter, save_lively
from people import nobody_is_refused
from PIL import Image
from served_tab import settled

from facellm.answerers import BASE, Answerers
from facellm.blind_tab import BlindEvents, VoteBook
from facellm.chat_events_tab import ChatEvents
from facellm.chat_pictures_tab import Pictures
from facellm.chat_session import (
    MAX_HELD,
    TOPICS,
    ChatSession,
    Exchange,
    Picture,
    Round,
    check_models,
    check_question,
    exchange_at,
    harmless,
    messages_of,
    request,
)
from facellm.chat_tab import build_chat_tab
from facellm.config import ROOT, load_settings
from facellm.conversation import Request, Sampling, Turn
from facellm.data import Attribute, open_image
from facellm.errors import BusyError, DataError
from facellm.faces import render, sample
from facellm.model import ChatModel
from facellm.votes import Outcome, Vote

SHORT, LONG = 250, 3000  # tokens of an answer: quick to wait for; long enough to be stopped on the way

# The session


def picture(number: int) -> Picture:
    return Picture(Image.new("RGB", (4, 4), (number, 0, 0)), f"{number}.webp")


def seen(asked: Request) -> list[tuple[str, str, list[int]]]:
    """What the model gets: role, text and which pictures, turn by turn."""
    return [(turn.role, turn.text, [image.getpixel((0, 0))[0] for image in turn.images]) for turn in asked.conversation]  # type: ignore[index]


def test_the_picture_stays_the_context_of_follow_up_questions() -> None:
    session = ChatSession()
    (first,) = session.ask([BASE], "Who?", [picture(1)])
    first.answer = "A face."
    session.ask([BASE], "And the hair?", [])
    asked = request(BASE, session.panes[BASE])
    assert asked.model == BASE
    assert seen(asked) == [("user", "Who?", [1]), ("assistant", "A face.", []), ("user", "And the hair?", [])]


def test_a_topic_is_asked_about_the_picture_alone() -> None:
    session = ChatSession()
    session.ask([BASE], "Who?", [picture(1)])[0].answer = "A face."
    session.ask([BASE], "The pose?", attribute=Attribute.POSE)[0].answer = "Frontal."
    assert seen(request(BASE, session.panes[BASE])) == [("user", "The pose?", [1])]
    session.ask([BASE], "Sure?", [])[0].answer = "Yes."
    asked = [text for role, text, _ in seen(request(BASE, session.panes[BASE])) if role == "user"]
    assert asked == ["Who?", "The pose?", "Sure?"]


def test_a_new_picture_starts_a_new_topic() -> None:
    session = ChatSession()
    for number in (1, 2):
        session.ask([BASE], "Who?", [picture(number)])[0].answer = "A face."
    session.ask([BASE], "Older?", [])
    assert seen(request(BASE, session.panes[BASE])) == [
        ("user", "Who?", [2]),
        ("assistant", "A face.", []),
        ("user", "Older?", []),
    ]
    messages = messages_of(session.panes[BASE])
    assert len(messages) == 3 + 3 + 2, "the page keeps what was said before"
    found = [exchange_at(session.panes[BASE], number).question for number in range(len(messages))]
    assert found == ["Who?"] * 6 + ["Older?"] * 2
    with pytest.raises(DataError, match="not there any more"):
        exchange_at(session.panes[BASE], len(messages))


def test_pictures_sent_together_are_read_together() -> None:
    session = ChatSession()
    session.ask([BASE], "Same?", [picture(1), picture(2)])
    assert seen(request(BASE, session.panes[BASE])) == [("user", "Same?", [1, 2])]


def test_a_model_that_joins_later_gets_the_current_picture() -> None:
    session = ChatSession()
    session.ask([BASE], "Who?", [picture(1)])[0].answer = "A face."
    session.ask([BASE, "tuned"], "And the hair?", [])
    asked = request("tuned", session.panes["tuned"])
    assert asked.model == "tuned"
    assert seen(asked) == [("user", "And the hair?", [1])]


def test_a_question_stopped_before_its_answer_leaves_its_picture() -> None:
    session = ChatSession()
    session.ask([BASE], "Who?", [picture(1)])
    session.ask([BASE], "And the hair?", [])
    assert seen(request(BASE, session.panes[BASE])) == [("user", "And the hair?", [1])]


def test_a_failed_question_leaves_the_session_as_it_was() -> None:
    session = ChatSession()
    session.ask([BASE], "Who?", [picture(1)])
    with pytest.raises(DataError), session.answering():
        session.ask([BASE, "tuned"], "And this?", [picture(2)])
        raise DataError("no")
    assert session.pictures == (picture(1),)
    assert [exchange.question for exchange in session.panes[BASE]] == ["Who?"]
    assert "tuned" not in session.panes
    assert session.stop is None


def test_one_question_at_a_time() -> None:
    session = ChatSession()
    with session.answering():
        with pytest.raises(BusyError), session.answering():
            pass
        assert session.stop is not None
    assert session.stop is None


def test_what_can_be_asked() -> None:
    assert check_question("  Why?\n", pictures=0, longest=10) == "Why?"
    assert check_question(" ", pictures=1, longest=10) == Attribute.DETAIL.question
    with pytest.raises(DataError, match="no question yet"):
        check_question(" \n", pictures=0, longest=10)
    with pytest.raises(DataError, match="10,000 characters; at most 2,000"):
        check_question("x" * 10_000, pictures=1, longest=2000)
    with pytest.raises(DataError, match="9 pictures; at most 8"):
        check_question("Why?", pictures=9, longest=10)
    check_models([BASE, "a"], [BASE, "a"])
    for chosen, reason in (([], "No model is chosen"), ([BASE] * 5, "at most 4"), (["gone"], "no model gone")):
        with pytest.raises(DataError, match=reason):
            check_models(chosen, [BASE, "a"])


def test_answers_are_shown_as_text_that_loads_nothing() -> None:
    shown = harmless('<img src="http://x/y.png">![a](http://x/z.png) **bold** &lt;')
    assert "<" not in shown
    assert "![" not in shown
    assert "**bold**" in shown
    assert "&amp;lt;" in shown
    waiting = messages_of([Exchange("Q", ())])[-1]["content"][0]["text"]
    assert waiting == "…"
    assert messages_of([Exchange("Q", (), done=True)])[-1]["content"][0]["text"] == "*No answer.*"


def test_every_attribute_has_a_topic() -> None:
    assert set(TOPICS) == set(Attribute)


# The running app


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class App:
    """The tab served for real, beside the model that it serves."""

    def __init__(self, folder: Path, untrained: Path) -> None:
        checkpoint = save_lively(untrained, folder / "lively")
        adapters = {
            name: save_adapter(checkpoint, folder / name, seed=seed, r=4, target_modules=LANGUAGE_LINEARS)
            for seed, name in enumerate(("tuned", "second", "third", "fourth"))
        }
        self.faces = []
        for seed in range(6):
            self.faces.append(folder / f"face{seed}.png")
            render(sample(seed)).save(self.faces[-1])
        self.catalog = dict(list(adapters.items())[:1])
        self.more = adapters
        self.model = ChatModel.load(checkpoint, device="cpu", queue_limit=4)
        self.answerers = Answerers(self.model, adapters=lambda: self.catalog)
        self.sent: list[tuple[str, Exchange]] = []
        self.votes: list[Vote] = []
        self.served: list[gr.Blocks] = []
        self.url = self._serve(SHORT)
        self.long_url = self._serve(LONG)

    def _serve(self, max_new_tokens: int) -> str:
        settings = load_settings().model_copy(update={"max_new_tokens": max_new_tokens})
        with gr.Blocks(analytics_enabled=False) as blocks, gr.Tabs(elem_id="studio-tabs"), gr.Tab("Chat"):
            build_chat_tab(
                self.answerers,
                examples=self.faces,
                settings=settings,
                first_choice=[BASE, "tuned"],
                send_to_review=self._send,
                book=VoteBook(self.votes.append, lambda: self.votes, self._export, nobody_is_refused),
            )
        self.served.append(blocks)
        styles = [str(ROOT / "facellm" / name) for name in ("studio.css", "chat.css")]
        _, url, _ = blocks.launch(
            prevent_thread_lock=True,
            server_name="127.0.0.1",
            server_port=free_port(),
            ssr_mode=False,
            run_history=False,
            quiet=True,
            css_paths=styles,
        )
        return url

    def _send(self, name: str, source: str, exchange: Exchange, earlier: Sequence[Exchange]) -> str:
        assert source.startswith(f"{name}@") or name == BASE
        self.sent.append((name, exchange))
        return f"Sent after {len(earlier)} more."

    def _export(self, path: Path) -> None:
        path.write_text("".join(f"{vote.a},{vote.b}\n" for vote in self.votes))

    def close(self) -> None:
        for blocks in self.served:
            blocks.close()
        self.model.close()

    def wait_until_free(self, seconds: float = 5) -> float:
        """How long until the model has nothing to do."""
        started = time.monotonic()
        while self.model.pending:
            assert time.monotonic() - started < seconds, "the model is still busy"
            time.sleep(0.005)
        return time.monotonic() - started


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, untrained_tiny: Path) -> Iterator[App]:
    served = App(tmp_path_factory.mktemp("chat"), untrained_tiny)
    yield served
    served.close()


@pytest.fixture(scope="module")
def client(app: App) -> Client:
    return Client(app.url, verbose=False)


def test_compare_answers_with_each_model(app: App, client: Client) -> None:
    answers = client.predict(
        image=handle_file(app.faces[0]), question="Who?", models=[BASE, "tuned"], api_name="/compare"
    )
    turn = Turn("user", "Who?", (open_image(app.faces[0]),))
    requests = [Request((turn,), name, Sampling(max_new_tokens=SHORT)) for name in (None, "tuned")]
    assert [answer["text"] for answer in answers.values()] == app.model.replies(requests)
    assert list(answers) == [BASE, "tuned"]
    assert answers[BASE] != answers["tuned"]
    assert all(answer["error"] is None for answer in answers.values())


def test_ask_describes_by_default_with_the_tuned_model_of_the_page(app: App, client: Client) -> None:
    answer = client.predict(image=handle_file(app.faces[0]), question="", api_name="/ask")
    asked = client.predict(
        image=handle_file(app.faces[0]), question="Describe this image.", model="tuned", api_name="/ask"
    )
    assert answer == asked
    assert answer


def test_ask_draws_by_the_seed(app: App, client: Client) -> None:
    def drawn(seed: int) -> str:
        return client.predict(
            image=handle_file(app.faces[0]), question="Who?", temperature=1.5, seed=seed, api_name="/ask"
        )

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_the_endpoints_are_documented_and_everything_else_is_private(client: Client) -> None:
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    assert list(endpoints) == ["/ask", "/compare"]
    assert "Ask one model one question about one image" in endpoints["/ask"]["description"]
    assert "Ask several models one question" in endpoints["/compare"]["description"]
    assert [parameter["parameter_name"] for parameter in endpoints["/ask"]["parameters"]] == [
        *("image", "question", "model", "temperature", "top_p", "max_new_tokens", "seed"),
    ]


def test_ask_refuses_in_one_sentence(app: App, client: Client, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(app.faces[0].read_bytes()[:5000])
    for image, question, changes, reason in (
        (handle_file(broken), "Who?", {}, "damaged or cut off"),
        (None, "", {}, "no question yet"),
        (None, "x" * 10_000, {}, "at most 2,000"),
        (None, "Who?", {"model": "nobody"}, "no model nobody"),
        (None, "Who?", {"temperature": 3}, "temperature is 3"),
    ):
        with pytest.raises(Exception, match=reason):
            client.predict(image=image, question=question, **changes, api_name="/ask")
    assert client.predict(image=None, question="Still there?", model=BASE, api_name="/ask")


@pytest.mark.parametrize("meta", [{}, {"meta": {"_type": "gradio.FileData"}}], ids=["bare", "marked as a file"])
def test_ask_opens_no_other_file_of_the_machine(app: App, meta: dict[str, Any]) -> None:
    """By hand: gradio_client would upload the file first, which is fair."""
    face = str(app.faces[0])
    call = f"{app.url}gradio_api/call/ask"
    event = httpx.post(call, json={"data": [{"path": face} | meta, "Who?", BASE]}).json()["event_id"]
    stream = httpx.get(f"{call}/{event}", timeout=30).text
    assert "event: error" in stream
    assert "complete" not in stream


def test_a_cancelled_ask_frees_the_model(app: App) -> None:
    client = Client(app.long_url, verbose=False)
    job = client.submit(image=handle_file(app.faces[1]), question="Who?", model=BASE, api_name="/ask")
    while not job.outputs():
        time.sleep(0.005)
    job.cancel()
    app.wait_until_free()


# The page


@pytest.fixture
def page(app: App, browser: Any) -> Iterator[Any]:
    with_errors = browser.new_page(viewport={"width": 1366, "height": 768})
    problems: list[str] = []
    with_errors.on("console", lambda message: message.type == "error" and problems.append(message.text))
    with_errors.on("pageerror", lambda error: problems.append(str(error)))
    with_errors.on("request", lambda asked: not asked.url.startswith(LOCAL) and problems.append(asked.url))
    open_page(with_errors, app.url)
    yield with_errors
    with_errors.close()
    app.wait_until_free()
    # A page that is left while it still asks for something notes that this was cut off.
    assert [text for text in problems if "AbortError" not in text and "Connection errored out" not in text] == []


LOCAL = ("http://127.0.0.1:", "data:", "blob:")


TOLD: set[Any] = set()  # browser contexts that have seen the notice


def open_page(page: Any, url: str) -> None:
    page.goto(url)
    page.wait_for_selector("#chat-box textarea")
    if page.context not in TOLD:
        TOLD.add(page.context)
        page.click("text=I understand")
        page.wait_for_selector("#chat-notice", state="detached")
    page.wait_for_selector(".chat-pane .placeholder")


def pick(page: Any, number: int) -> None:
    page.click(f"#chat-faces .thumbnail-item >> nth={number}")
    page.wait_for_selector("#chat-box .thumbnail-item img, #chat-box .thumbnail-image img, #chat-box img")


SHOWN_PANES = "[...document.querySelectorAll('.chat-pane')].filter(pane => pane.offsetParent)"


def answers(page: Any) -> list[str]:
    """The last answer of each pane."""
    last = "pane => [...pane.querySelectorAll('[data-testid=bot]')].at(-1).innerText"
    return page.evaluate(f"{SHOWN_PANES}.map({last})")


def names(page: Any) -> list[str]:
    return page.evaluate(f"{SHOWN_PANES}.map(pane => pane.querySelector('label').innerText.trim())")


def wait_first_words(page: Any) -> None:
    """Until every pane has some of its answer."""
    begun = "pane => (pane.querySelector('[data-testid=bot]')?.innerText.trim() || '…') !== '…'"
    page.wait_for_function(f"{SHOWN_PANES}.every({begun})")


def wait_answered(page: Any, word: str = "Answered") -> None:
    page.wait_for_selector(f"#chat-status:has-text('{word}')", timeout=30_000)


def test_a_topic_about_an_example_face_streams_in_both_panes_at_once(page: Any) -> None:
    assert names(page) == [BASE, "tuned"]
    pick(page, 1)
    page.click("#chat-topics button:has-text('Expression')")
    wait_first_words(page)
    assert page.is_visible("#chat-box .stop-button"), "both panes have text while the answers are being written"
    early = answers(page)
    wait_answered(page)
    late = answers(page)
    assert late[0] != late[1]
    assert all(len(after) > len(before) for before, after in zip(early, late, strict=True))
    assert page.inner_text(".chat-pane [data-testid=user] >> nth=1") == Attribute.EXPRESSION.question
    page.click("#chat-clear")
    page.wait_for_selector(".chat-pane .placeholder")
    assert page.locator("[data-testid=bot]").count() == 0


def test_stop_frees_the_model_and_keeps_what_there_is(page: Any, app: App) -> None:
    open_page(page, app.long_url)
    pick(page, 0)
    page.fill("#chat-box textarea", "Who is this?")
    page.keyboard.press("Enter")
    wait_first_words(page)
    page.click("#chat-box .stop-button")
    app.wait_until_free(2)
    wait_answered(page, "Stopped")
    first = answers(page)
    assert all(text and text != "…" for text in first)
    page.fill("#chat-box textarea", "And the hair?")  # a follow-up, with nothing attached
    page.keyboard.press("Enter")
    page.wait_for_selector(".chat-pane >> nth=0 >> [data-testid=bot] >> nth=1")
    page.click("#chat-box .stop-button")
    wait_answered(page, "Stopped")
    assert page.locator(".chat-pane >> nth=0 >> [data-testid=bot]").count() == 2
    assert page.locator(".chat-pane >> nth=0 >> img").count() == 1, "the picture is sent once"


def test_closing_the_tab_frees_the_model(app: App, browser: Any) -> None:
    page = browser.new_page()
    open_page(page, app.long_url)
    pick(page, 2)
    page.click("#chat-topics button >> nth=0")
    wait_first_words(page)
    assert app.model.pending == 1
    page.close()
    app.wait_until_free(2)


@pytest.mark.parametrize(
    ("file", "question", "reason"),
    [
        (b"I am not an image", "Who is this?", "is not an image that can be read"),
        (b"", "Who is this?", "is empty"),
        (None, "x" * 2001, "2,001 characters; at most 2,000"),
        (None, "", "no question yet"),
    ],
    ids=["no image", "empty file", "too long", "nothing"],
)
def test_a_bad_question_is_one_sentence_and_nothing_typed_is_lost(
    page: Any, tmp_path: Path, file: bytes | None, question: str, reason: str
) -> None:
    if file is not None:
        (tmp_path / "photo.png").write_bytes(file)
        page.set_input_files("#chat-box input[type=file]", tmp_path / "photo.png")
        page.wait_for_selector("#chat-box .thumbnail-item, #chat-box img, #chat-box .thumbnail-image")
    page.fill("#chat-box textarea", question)
    page.press("#chat-box textarea", "Enter")
    page.wait_for_selector(".toast-body", timeout=5000)
    assert reason in page.inner_text(".toast-body")
    assert page.input_value("#chat-box textarea") == question
    assert page.locator("[data-testid=bot]").count() == 0


def test_a_topic_without_a_picture_says_so(page: Any) -> None:
    page.click("#chat-topics button >> nth=0")
    page.wait_for_selector(".toast-body")
    assert "no picture yet" in page.inner_text(".toast-body")


def test_a_question_without_a_picture_says_so(page: Any) -> None:
    page.fill("#chat-box textarea", "Who is this?")
    page.keyboard.press("Enter")
    page.wait_for_selector(".toast-body")
    assert "no picture yet" in page.inner_text(".toast-body")
    assert page.input_value("#chat-box textarea") == "Who is this?"


def test_untrusted_text_is_shown_and_loads_nothing(page: Any) -> None:
    pick(page, 0)
    text = (
        "<img src=http://example.com/a.png onerror=alert(1)> ![x](http://example.com/b.png) <script>alert(1)</script>"
    )
    page.fill("#chat-box textarea", text)
    page.keyboard.press("Enter")
    wait_answered(page)
    assert page.inner_text("[data-testid=user] >> nth=1") == text
    assert page.locator(".chat-pane >> nth=0 >> img").count() == 1, "the face alone"


def test_a_finished_run_can_be_chosen_without_a_restart(page: Any, app: App) -> None:
    app.catalog.update(app.more)
    try:
        page.click("#chat-models input")
        for name in ("second", "third"):
            page.click(f"[role=option]:has-text('{name}')")
        page.keyboard.press("Escape")
        page.wait_for_function(f"{SHOWN_PANES}.length === 4")
        assert names(page) == [BASE, "tuned", "second", "third"]
        pick(page, 0)
        page.fill("#chat-box textarea", "Who?")
        page.press("#chat-box textarea", "Enter")
        wait_answered(page)
        assert len(set(answers(page))) == 4
        right = page.locator(".chat-pane").nth(3).bounding_box()
        assert right["x"] + right["width"] <= 1366, "four panes fit a laptop"
    finally:
        for name in ("second", "third", "fourth"):
            app.catalog.pop(name)


def test_two_panes_and_the_text_field_fit_a_laptop(page: Any) -> None:
    left, right = [pane.bounding_box() for pane in page.locator(".chat-pane").all()[:2]]
    box = page.locator("#chat-box").bounding_box()
    assert left["y"] == right["y"]
    assert left["x"] + left["width"] <= right["x"]
    assert min(left["width"], right["width"]) > 400
    assert left["height"] > 300
    assert box["y"] + box["height"] <= 768


def test_on_a_telephone_a_pane_fills_the_width_and_the_page_does_not_scroll_sideways(app: App, browser: Any) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 844})
    open_page(page, app.url)
    pick(page, 0)
    left, right = [pane.bounding_box() for pane in page.locator(".chat-pane").all()[:2]]
    assert left["y"] == right["y"]
    assert left["width"] > 300
    assert left["x"] + left["width"] < right["x"] < 390, "the next one shows its edge"
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()


def test_one_pane_answers_again_by_its_own_settings_and_the_other_stays(page: Any) -> None:
    pick(page, 0)
    page.fill("#chat-box textarea", "Who?")
    page.keyboard.press("Enter")
    wait_answered(page)
    before = answers(page)
    page.click("#chat-settings button")
    page.click("#chat-whom input")
    with settled(page):  # the numbers of "tuned" come, which would be put over what is typed
        page.click("[role=option]:has-text('tuned')")
    with settled(page):
        page.locator("#chat-settings input[type=number]").first.fill("1.5")
        page.keyboard.press("Tab")
    page.wait_for_selector(".chat-pane label:has-text('tuned · own settings')")
    page.hover(".chat-pane >> nth=1")
    page.click(".chat-pane >> nth=1 >> button[title=Retry]")
    last = "[...document.querySelectorAll('.chat-pane')][1].querySelector('[data-testid=bot]').innerText"
    page.wait_for_function(f"before => {last} !== before", arg=before[1], timeout=10_000)
    wait_answered(page)
    after = answers(page)
    assert after[0] == before[0]
    assert after[1] != before[1]


def test_a_question_is_edited_and_all_answer_anew(page: Any) -> None:
    pick(page, 0)
    for question in ("Who?", "And the hair?"):
        page.fill("#chat-box textarea", question)
        page.keyboard.press("Enter")
        wait_answered(page)
        page.wait_for_selector(f"[data-testid=user]:has-text('{question}')")
        wait_answered(page)
    page.hover(".chat-pane >> nth=0")
    page.click(".chat-pane >> nth=0 >> button[title=Edit] >> nth=0")
    page.fill(".chat-pane >> nth=0 >> textarea", "Whose face is it?")
    page.click(".chat-pane >> nth=0 >> button[title=Submit]")
    page.wait_for_selector(".chat-pane >> nth=1 >> text=Whose face is it?")
    wait_answered(page)
    for pane in range(2):
        asked = [
            text for text in page.locator(f".chat-pane >> nth={pane} >> [data-testid=user]").all_inner_texts() if text
        ]
        assert asked[-1] == "Whose face is it?"
        assert page.locator(f".chat-pane >> nth={pane} >> [data-testid=bot]").count() == 1
        assert page.locator(f".chat-pane >> nth={pane} >> img").count() == 1, "the picture stays"


def test_an_answer_is_sent_to_review(page: Any, app: App) -> None:
    pick(page, 3)
    page.click("#chat-topics button:has-text('Pose')")
    wait_answered(page)
    page.click(".chat-pane >> nth=1 >> text=Send to review")
    page.wait_for_selector("text=Sent after 0 more.")
    name, exchange = app.sent[-1]
    assert name == "tuned"
    assert (exchange.question, exchange.attribute) == (Attribute.POSE.question, Attribute.POSE)
    assert exchange.answer
    assert len(exchange.pictures) == 1


def test_a_blind_test_hides_the_names_until_the_vote(page: Any, app: App) -> None:
    app.votes.clear()
    pick(page, 1)
    page.click("#chat-mode >> text=Blind test")
    page.wait_for_selector("#blind-verdicts button")
    page.click("#chat-topics button:has-text('Skin')")
    page.wait_for_selector("text=Which answer is better?", timeout=30_000)
    assert names(page) == ["A", "B"]
    assert "tuned" not in page.inner_text("#chat-blind")
    page.click("text=B is better")
    page.wait_for_selector("text=Thank you.")
    (vote,) = app.votes
    assert {vote.a, vote.b} == {BASE, "tuned"}
    assert names(page) == [f"A: {vote.a}", f"B: {vote.b}"]
    assert (vote.outcome, vote.attribute) == ("b", Attribute.SKIN)
    assert len(vote.image_sha256) == 1
    page.click("#blind-ranking button")
    page.wait_for_selector("text=Not enough votes for a ranking: 1 of 50.")
    with page.expect_download() as download:
        page.click("text=Download all votes")
    assert Path(download.value.path()).read_text() == f"{vote.a},{vote.b}\n"


def test_all_eight_topics_fill_a_table(page: Any) -> None:
    page.click("#chat-mode >> text=All eight topics")
    pick(page, 2)
    page.click("#chat-topics button >> nth=0")
    wait_answered(page)
    rows = page.locator(".chat-eight tr").all()
    assert len(rows) == 9
    assert rows[0].inner_text().split() == [BASE, "tuned"]
    cells = [row.locator("td").all_inner_texts() for row in rows[1:]]
    assert all(len(some) == 2 and some[0] != some[1] and "…" not in some for some in cells)


def test_the_address_names_the_models(page: Any, app: App) -> None:
    open_page(page, f"{app.url}?models=tuned")
    page.wait_for_function(f"{SHOWN_PANES}.length === 1")
    assert names(page) == ["tuned"]
    open_page(page, f"{app.url}?models=nobody")
    page.wait_for_selector(".toast-body")
    assert "There is no model nobody" in page.inner_text(".toast-body")


def test_the_session_keeps_the_picture_when_the_uploaded_file_is_gone(page: Any, tmp_path: Path) -> None:
    render(sample(77)).save(tmp_path / "private-face.png")
    page.set_input_files("#chat-box input[type=file]", tmp_path / "private-face.png")
    page.wait_for_selector("#chat-box img")
    page.fill("#chat-box textarea", "Who?")
    page.keyboard.press("Enter")
    wait_answered(page)
    for file in Path(get_upload_folder()).rglob("private-face.png"):
        file.unlink()  # as Gradio does after an hour
    page.fill("#chat-box textarea", "And the hair?")
    page.keyboard.press("Enter")
    page.wait_for_selector(".chat-pane >> nth=0 >> [data-testid=bot] >> nth=1")
    wait_answered(page)
    assert page.locator(".toast-body").count() == 0


def test_two_visitors_send_the_same_example_face(page: Any, app: App, browser: Any) -> None:
    other = browser.new_page()
    open_page(other, app.url)
    for visitor in (page, other):
        pick(visitor, 5)
    for visitor in (page, other):
        visitor.click("#chat-topics button >> nth=0")
        wait_answered(visitor)
        assert visitor.locator(".toast-body").count() == 0
    other.close()


def test_a_bad_setting_is_one_sentence_and_the_last_good_one_stays(page: Any) -> None:
    page.click("#chat-settings button")
    tokens = page.get_by_label("Tokens")
    tokens.fill("-5")
    page.keyboard.press("Tab")
    page.wait_for_selector(".toast-body:has-text('Tokens is -5; expected 1 to 4096')")
    page.wait_for_function("[...document.querySelectorAll('#chat-settings input')].some(one => one.value === '250')")
    assert tokens.input_value() == str(SHORT)
    assert page.locator("#chat-models .token").first.is_visible(), "the models stay in view"


def test_another_mode_during_an_answer_unlocks_nothing(page: Any, app: App) -> None:
    open_page(page, app.long_url)
    pick(page, 0)
    page.click("#chat-topics button >> nth=0")
    wait_first_words(page)
    page.click("#chat-mode >> text=Blind test")
    page.wait_for_selector("#blind-verdicts button")
    page.fill("#chat-box textarea", "Who?")
    page.keyboard.press("Enter")
    page.wait_for_timeout(700)  # nothing is to happen
    assert page.is_visible("#chat-box .stop-button")
    page.click("#chat-box .stop-button")
    app.wait_until_free(2)
    wait_answered(page, "Stopped")
    page.click("#chat-mode >> text=Side by side")
    shown = page.locator(".chat-pane >> nth=0 >> [data-testid=bot] >> nth=0")
    page.wait_for_function("text => text.endsWith('(stopped)')", arg=shown.inner_text())


def test_a_round_is_voted_on_once_whatever_is_clicked(app: App) -> None:
    votes: list[Vote] = []

    def slow_record(vote: Vote) -> None:
        time.sleep(0.05)
        votes.append(vote)

    chat = ChatEvents(app.answerers, Pictures(load_settings()), [], load_settings(), [BASE], lambda *_: "")
    blind = BlindEvents(chat, VoteBook(slow_record, lambda: votes, lambda _: None, nobody_is_refused))
    done = [Exchange("Q", (picture(1),), answer="A face.", done=True) for _ in range(2)]
    session = ChatSession(blind=Round((BASE, "tuned"), ("base", "tuned@1"), 1, (done[0], done[1])))
    with ThreadPoolExecutor(4) as clicks:
        list(clicks.map(lambda outcome: blind.vote(outcome, session), list(Outcome)))
    assert len(votes) == 1


@pytest.mark.parametrize("change", [{"answer": ""}, {"error": "It failed."}, {"stopped": True}, {"done": False}])
def test_a_round_that_was_not_answered_to_its_end_cannot_be_voted_on(change: dict[str, Any]) -> None:
    good = Exchange("Q", (picture(1),), answer="A face.", done=True)
    assert Round((BASE, "tuned"), ("a", "b"), 1, (good, good)).ready
    assert not Round((BASE, "tuned"), ("a", "b"), 1, (good, replace(good, **change))).ready


def test_a_session_forgets_its_oldest_turns_before_it_holds_too_many_pictures() -> None:
    session = ChatSession()
    for number in range(MAX_HELD + 5):
        session.ask([BASE, "tuned"], f"Q{number}", [picture(number)])
    kept = [exchange.question for exchange in session.panes[BASE]]
    assert kept == [f"Q{number}" for number in range(5, MAX_HELD + 5)]
    assert [exchange.question for exchange in session.panes["tuned"]] == kept


def test_an_edited_follow_up_is_about_the_picture_of_its_own_topic() -> None:
    session = ChatSession()
    session.ask([BASE], "Who?", [picture(1)])
    follow_up = session.ask([BASE], "And the hair?")[0]
    session.ask([BASE], "And this one?", [picture(2)])
    assert session.go_back_to(follow_up.turn)[0].shown == "1.webp"
    assert [exchange.question for exchange in session.panes[BASE]] == ["Who?"]
