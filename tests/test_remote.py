"""Remote models through the real openai client, against a real HTTP server: python -m pytest tests/test_remote.py."""

import base64
import io
import logging
import socket
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from openai_server import BASE_MODEL, MIDWAY, OpenAIServer
from PIL import Image, ImageChops

from facellm.conversation import Request, Sampling, Turn
from facellm.errors import BusyError, FaceLLMError, ModelError
from facellm.faces import render, sample
from facellm.remote import HEARTBEAT, UPDATE_INTERVAL, RemoteModel
from facellm.remote_messages import PNG_PIXELS, chat_messages

KEY = "sk-very-secret-0123456789"
WAIT = 10.0  # seconds that anything may take on a busy machine
FACE = render(sample(3), 96)


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as running:
        yield running


def remote(server: OpenAIServer, **options: object) -> RemoteModel:
    """The server's base model, without a key."""
    settings = {"base_url": server.base_url, "model": BASE_MODEL, "timeout_s": WAIT, **options}
    return RemoteModel("far away", **settings)  # type: ignore[arg-type]


def ask(text: str = "Describe this image.", *images: Image.Image, **sampling: float) -> Request:
    return Request((Turn("user", text, images),), sampling=Sampling(**sampling))  # type: ignore[arg-type]


def last(texts: Iterator[tuple[str, ...]]) -> tuple[str, ...]:
    return list(texts)[-1]


def failure(model: RemoteModel, *requests: Request) -> tuple[tuple[str, ...], FaceLLMError]:
    """The last texts before the error, and the error."""
    texts: tuple[str, ...] = ()
    with pytest.raises(FaceLLMError) as raised:
        for update in model.stream(requests or [ask()]):
            texts = update
    return texts, raised.value


# Answers


def test_an_answer_arrives_token_by_token(server: OpenAIServer) -> None:
    server.tokens, server.delay_s = 6, 0.08
    updates = [text for (text,) in remote(server).stream([ask()])]
    whole = server.expected_text(server.received[0].body)
    assert updates[-1] == whole
    assert all(later.startswith(earlier) for earlier, later in zip(updates, updates[1:], strict=False))
    assert any(0 < len(text) < len(whole) for text in updates)


def test_requests_run_in_parallel_each_with_its_own_sampling(server: OpenAIServer) -> None:
    server.tokens, server.delay_s = 10, 0.05
    sampled = {"temperature": 0.7, "top_p": 0.9, "seed": 5, "max_new_tokens": 300}
    requests = [ask("One?"), ask("Two?", max_new_tokens=4), ask("One?", **sampled), ask("One?", temperature=0.7)]
    together = 0
    for texts in remote(server).stream(requests):
        together = max(together, sum(bool(text) for text in texts[:1] + texts[2:]))
    by_settings = {
        (sent["messages"][0]["content"], sent["temperature"], sent["top_p"], sent["max_tokens"], sent["seed"]): sent
        for sent in (received.body for received in server.received)
    }
    wanted = [("One?", 0, 1, 160, 0), ("Two?", 0, 1, 4, 0), ("One?", 0.7, 0.9, 300, 5), ("One?", 0.7, 1, 160, 0)]
    assert texts == tuple(server.expected_text(by_settings[settings]) for settings in wanted)
    assert len(set(texts)) == 4
    assert len(texts[1].split()) == 4, "cut at its own limit, which is no error"
    assert together == 3


def test_conversations_arrive_whole_with_images_in_front_of_the_text(server: OpenAIServer) -> None:
    other = render(sample(4), 64)
    turns = (
        Turn("user", "Who is it?", (FACE, other)),
        Turn("assistant", "Nobody."),
        Turn("user", "And <IMG_CONTEXT> now? Ünïcödé 🙂"),
    )
    last(remote(server).stream([Request(turns)]))
    first, second, third = server.received[0].body["messages"]
    assert [part["type"] for part in first["content"]] == ["image_url", "image_url", "text"]
    assert first["content"][2]["text"] == "Who is it?"
    assert second == {"role": "assistant", "content": "Nobody."}
    assert third == {"role": "user", "content": "And <IMG_CONTEXT> now? Ünïcödé 🙂"}
    for part, image in zip(first["content"], (FACE, other), strict=False):
        arrived = decoded(part["image_url"]["url"])
        assert arrived.mode == "RGB"
        assert arrived.size == image.size
        assert ImageChops.difference(arrived, image).getbbox() is None, "every pixel is the same"


def test_a_huge_image_goes_out_as_a_good_jpeg() -> None:
    side = int(PNG_PIXELS**0.5) + 8
    image = FACE.resize((side, side))
    (message,) = chat_messages([Turn("user", "?", (image,))])
    url = message["content"][0]["image_url"]["url"]
    assert url.startswith("data:image/jpeg;base64,")
    arrived = decoded(url)
    assert arrived.size == image.size
    worst = max(high for _, high in ImageChops.difference(arrived, image).getextrema())
    assert worst <= 24


def decoded(url: str) -> Image.Image:
    header, data = url.split(",", 1)
    image = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
    assert header == f"data:image/{str(image.format).lower()};base64"
    image.load()
    return image


def test_updates_come_often_enough_and_not_too_often(server: OpenAIServer) -> None:
    server.tokens, server.delay_s = 300, 0.004
    times = [time.monotonic() for _ in remote(server).stream([ask(max_new_tokens=400)])]
    gaps = [later - earlier for earlier, later in zip(times, times[1:], strict=False)]
    assert len(gaps) > 5
    assert min(gaps) >= UPDATE_INTERVAL - 0.001
    server.tokens, server.delay_s = 2, 0.8
    times, texts = [], []
    for (text,) in remote(server).stream([ask()]):
        times.append(time.monotonic())
        texts.append(text)
    assert len(texts) > len(set(texts)) + 3, "the same texts again while nothing comes"
    typical = sorted(later - earlier for earlier, later in zip(times, times[1:], strict=False))[len(times) // 2]
    assert typical <= HEARTBEAT + 0.1


def test_no_request_no_answer(server: OpenAIServer) -> None:
    assert list(remote(server).stream([])) == []
    assert server.received == []


def test_a_request_for_another_model_is_refused_and_not_answered_by_this_one(server: OpenAIServer) -> None:
    model = remote(server)
    question = (Turn("user", "?"),)
    assert last(model.stream([Request(question, "far away")]))[0]
    with pytest.raises(ModelError, match="somebody else was asked, but this is far away"):
        list(model.stream([Request(question, "somebody else")]))
    assert len(server.received) == 1


def test_many_threads_stream_from_one_model_without_mixing(server: OpenAIServer) -> None:
    server.delay_s = 0.01
    model = remote(server)
    with ThreadPoolExecutor(12) as pool:
        questions = [f"Question {number}?" for number in range(12)]
        answers = list(pool.map(lambda text: last(model.stream([ask(text), ask(text + "!")])), questions))
    expected = {r.body["messages"][0]["content"]: server.expected_text(r.body) for r in server.received}
    assert answers == [(expected[text], expected[text + "!"]) for text in questions]
    assert len(expected) == 24


# Stopping


@pytest.mark.parametrize("how", ["stop", "close"])
def test_stopping_closes_every_connection_and_keeps_the_texts(server: OpenAIServer, how: str) -> None:
    server.tokens, server.delay_s = 400, 0.05  # 20 s if nobody stopped it
    stop = threading.Event()
    answers = remote(server).stream([ask("One?"), ask("Two?")], stop=stop)
    for texts in answers:
        if all(texts):
            break
    if how == "stop":
        stop.set()
        stopped_at = time.monotonic()
        rest = list(answers)
        assert time.monotonic() - stopped_at < 2, "0.25 s on a machine that has nothing else to do"
        assert all(later.startswith(earlier) for later, earlier in zip(rest[-1], texts, strict=True))
    else:
        answers.close()
    for received in server.received:
        assert received.ended.wait(WAIT)
        assert received.disconnected
        assert 0 < received.tokens_sent < 100


@pytest.mark.parametrize("failing", ["silence", "stall"])
def test_stopping_works_while_nothing_comes(server: OpenAIServer, failing: str) -> None:
    server.failure = failing
    stop = threading.Event()
    answers = remote(server, timeout_s=60.0).stream([ask()], stop=stop)
    while not server.received:
        next(answers)
    time.sleep(0.2)
    stop.set()
    stopped_at = time.monotonic()
    list(answers)
    assert time.monotonic() - stopped_at < 2
    assert server.received[0].ended.wait(WAIT)
    assert server.received[0].disconnected


def test_stopped_before_it_starts_nothing_is_asked(server: OpenAIServer) -> None:
    stop = threading.Event()
    stop.set()
    assert last(remote(server).stream([ask()], stop=stop)) == ("",)
    assert server.received == []


def test_no_thread_or_connection_is_left(server: OpenAIServer) -> None:
    before = threading.active_count()
    model = remote(server)
    for _ in range(5):
        last(model.stream([ask()]))
    until = time.monotonic() + WAIT
    while threading.active_count() > before and time.monotonic() < until:
        time.sleep(0.02)
    assert threading.active_count() <= before


# Failures


@pytest.mark.parametrize(
    ("failing", "kind", "says"),
    [
        (400, ModelError, "does not take the question to face-base (400): Too long."),
        (403, ModelError, "does not let this key use face-base (403): Too long."),
        (404, ModelError, "does not have face-base (404): Too long."),
        (413, ModelError, "does not take the question to face-base (413)"),
        (429, BusyError, "is too busy for face-base (429): Too long. Try again"),
        (500, ModelError, "failed at face-base (500): Too long."),
        (502, ModelError, "failed at face-base (502)"),
        (503, BusyError, "is too busy for face-base (503)"),
        ("html", ModelError, "an OpenAI-compatible server"),
        ("bad json body", ModelError, "an OpenAI-compatible server"),
        ("hang up", ModelError, "broke off the connection while face-base was waited for"),
        ("silence", ModelError, "sent nothing for 0.5 s while face-base was waited for"),
        ("redirect", ModelError, "sends us on to elsewhere.example (307), which is not followed"),
    ],
)
def test_a_failure_is_one_sentence_and_one_request(
    server: OpenAIServer, failing: str | int, kind: type[Exception], says: str
) -> None:
    server.failure, server.failure_message, server.redirect_to = failing, "Too long.", "http://elsewhere.example"
    texts, error = failure(remote(server, timeout_s=0.5))
    assert type(error) is kind
    assert says in str(error)
    assert server.base_url in str(error)
    assert texts == ("",)
    time.sleep(0.1)
    assert len(server.received) == 1, "nothing is tried again"


@pytest.mark.parametrize(
    ("failing", "says"),
    [
        ("cut", "broke off the connection while face-base was waited for"),
        ("end early", "broke off the answer of face-base after 36 characters"),
        ("stall", "sent nothing for 0.5 s"),
        ("bad json", "something else than the JSON"),
        ("error event", "broke off face-base, and says: Something is wrong."),
    ],
)
def test_what_came_before_a_failure_is_kept(server: OpenAIServer, failing: str, says: str) -> None:
    assert failing in MIDWAY
    server.failure = failing
    (text,), error = failure(remote(server, timeout_s=0.5))
    assert type(error) is ModelError
    assert says in str(error)
    assert text == "".join(server.words(server.received[0].body)[:4])


def test_one_failed_answer_ends_the_others(server: OpenAIServer) -> None:
    server.tokens, server.delay_s, server.failure, server.failing_text = 20, 0.05, "cut", "Two?"
    texts, error = failure(remote(server), ask("One?"), ask("Two?"))
    assert "broke off" in str(error)
    assert all(texts)
    healthy = next(received for received in server.received if received.body["messages"][0]["content"] == "One?")
    assert healthy.ended.wait(WAIT)
    assert healthy.disconnected
    assert healthy.tokens_sent < 20


def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        model = RemoteModel("far away", base_url=url, model="m")
        for error in (failure(model)[1], check_error(model)):
            assert type(error) is ModelError
            assert str(error) == f"{url} cannot be reached. Check the address, and that the server runs."


def test_a_refusal_and_a_filter_and_endless_thought_are_errors(server: OpenAIServer) -> None:
    server.refusal = "I do not judge faces."
    assert "face-base refused to answer: I do not judge faces." in str(failure(remote(server))[1])
    server.refusal, server.finish_reason = None, "content_filter"
    (text,), error = failure(remote(server))
    assert "content filter" in str(error)
    assert text
    server.finish_reason, server.reasoning_only = "length", True
    assert "used all its 5 tokens without a word" in str(failure(remote(server), ask(max_new_tokens=5))[1])


# The key


def check_error(model: RemoteModel) -> FaceLLMError:
    with pytest.raises(FaceLLMError) as raised:
        model.check()
    return raised.value


def test_the_key_is_sent_and_nothing_from_the_environment(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "from-the-environment")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: Bearer from-the-environment")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/from-the-environment")
    last(remote(server).stream([ask()]))
    remote(server).check()
    assert all("authorization" not in received.headers for received in server.received)
    server.api_key = KEY
    last(remote(server, api_key=KEY).stream([ask()]))
    remote(server, api_key=KEY).check()
    assert [received.headers["authorization"] for received in server.received[2:]] == [f"Bearer {KEY}"] * 2
    assert all("from-the-environment" not in str(received.headers) for received in server.received)


def test_a_wrong_or_missing_key(server: OpenAIServer) -> None:
    server.api_key = "another"
    _, error = failure(remote(server, api_key=KEY))
    assert str(error).startswith(f"{server.base_url} refuses the key that was given (401): Incorrect API key provided")
    _, error = failure(remote(server))
    assert "refuses to be asked without a key (401)" in str(error)


def test_the_key_is_in_no_error_and_no_log(server: OpenAIServer, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("", "openai", "httpx2", "httpcore2", "asyncio"):
        caplog.set_level(logging.DEBUG, logger=name)
    model = remote(server, api_key=KEY, timeout_s=0.3)
    last(model.stream([ask()]))
    server.failure_message = f"Your key {KEY} is wrong; " + "x" * 280 + KEY
    server.redirect_to = "http://elsewhere.example"
    server.refusal = f"I saw {KEY}."
    errors = []
    for failing in (None, 400, 401, 403, 404, 429, 500, "html", "silence", "hang up", "redirect", *MIDWAY):
        server.failure = failing
        errors.append(failure(model)[1])
        if failing not in (None, *MIDWAY):
            errors.append(check_error(model))
            with pytest.raises(FaceLLMError) as raised:
                model.load_adapter("a", "/adapters/a")
            errors.append(raised.value)
    server.failure, server.api_key = None, "another"  # the 401 quotes what it got
    errors += [failure(model)[1], check_error(model)]
    for error in errors:
        assert KEY not in str(error)
        assert KEY not in "".join(traceback.format_exception(error))
        assert "sk-very" not in str(error), "not cut in the middle either"
    assert any("[key]" in str(error) for error in errors)
    assert caplog.records
    assert KEY not in caplog.text
    server.failure, server.redirect_to = "redirect", f"http://{KEY}.example"
    assert "[key].example" in str(failure(model)[1])


def test_a_redirect_takes_neither_key_nor_picture_along(server: OpenAIServer) -> None:
    with OpenAIServer() as other:
        server.failure, server.redirect_to = "redirect", other.host
        model = remote(server, api_key=KEY)
        failure(model, ask("?", FACE))
        check_error(model)
        assert len(server.received) == 2
        assert other.received == []


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000/v1", "ftp://host/v1", "http://", f"http://me:{KEY}@host/v1", "http://[::1", "http://h:x/v1"]
)
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(ModelError, match="The address of the model server is not usable") as raised:
        RemoteModel("far away", base_url=url, model="m")
    assert KEY not in str(raised.value)


@pytest.mark.parametrize("key", ["", f"{KEY}\n", f"Bearer {KEY}", f"{KEY}…"])
def test_a_key_that_is_none(key: str) -> None:
    with pytest.raises(ModelError, match="Give the key alone") as raised:
        RemoteModel("far away", base_url="http://127.0.0.1:1/v1", model="m", api_key=key)
    assert KEY not in str(raised.value)


# The list of models


def test_check_finds_the_model_or_names_those_that_there_are(server: OpenAIServer) -> None:
    remote(server).check()
    server.models["face-large"] = "/weights/large"
    error = check_error(remote(server, model="face-huge"))
    assert type(error) is ModelError
    assert "has no model face-huge. The models there are: face-base, face-large." in str(error)
    server.models = {f"m{number:02}": "" for number in range(30)}
    assert "m18, m19 and 10 more." in str(check_error(remote(server)))
    server.models = {}
    assert "The models there are: none." in str(check_error(remote(server)))


@pytest.mark.parametrize("failing", ["html", "bad json body"])
def test_check_of_something_else(server: OpenAIServer, failing: str) -> None:
    server.failure = failing
    assert "something else than the JSON of an OpenAI-compatible server" in str(check_error(remote(server)))
    assert "mostly ends in /v1" in str(check_error(remote(server, base_url=f"{server.host}/v2")))


# Adapters


def test_an_adapter_with_an_effect_answers_as_itself(server: OpenAIServer) -> None:
    server.api_key = KEY
    base = remote(server, api_key=KEY)
    tuned = base.load_adapter("tuned", "/adapters/tuned")
    assert server.models["tuned"] == "/adapters/tuned"
    assert (tuned.name, tuned.model) == ("tuned", "tuned")
    tuned.check()
    assert last(base.stream([ask()])) != last(tuned.stream([ask()]))
    assert server.received[-1].body["model"] == "tuned"
    base.unload_adapter("tuned")
    assert list(server.models) == [BASE_MODEL]
    assert "tuned" in str(check_error(tuned))


def test_the_silent_no_op_is_refused_and_unloaded(server: OpenAIServer) -> None:
    server.adapter_shift = 0.0
    with pytest.raises(ModelError, match="The adapter idle from /adapters/idle has no effect"):
        remote(server).load_adapter("idle", "/adapters/idle")
    assert list(server.models) == [BASE_MODEL]
    asked = [received.body for received in server.asked()]
    assert {body["model"] for body in asked} == {BASE_MODEL, "idle"}
    assert all(body["temperature"] == 0 and body["logprobs"] and body["top_logprobs"] for body in asked)
    assert any(isinstance(body["messages"][0]["content"], list) for body in asked), "one with a picture"


@pytest.mark.parametrize(("shift", "works"), [(1e-7, False), (1e-5, True)])
def test_log_probabilities_tell_a_small_effect_from_none(server: OpenAIServer, shift: float, works: bool) -> None:
    server.adapter_shift = shift  # too little to change a word
    if works:
        remote(server).load_adapter("slight", "/adapters/slight")
    else:
        with pytest.raises(ModelError, match="has no effect"):
            remote(server).load_adapter("slight", "/adapters/slight")
    assert ("slight" in server.models) is works


def test_a_cold_cache_does_not_pass_for_an_effect(server: OpenAIServer) -> None:
    remote(server).load_adapter("real", "/adapters/real")  # the base's prompts are warm now, as on a real server
    server.cold_noise, server.adapter_shift = 1e-3, 0.0
    with pytest.raises(ModelError, match="has no effect"):
        remote(server).load_adapter("idle", "/adapters/idle")


@pytest.mark.parametrize("logprobs", ["no", "refuse"])
@pytest.mark.parametrize("shift", [0.0, 0.25])
def test_without_log_probabilities_the_texts_are_compared(server: OpenAIServer, logprobs: str, shift: float) -> None:
    server.logprobs, server.adapter_shift, server.tokens = logprobs, shift, 100
    if shift:
        remote(server).load_adapter("some", "/adapters/some")
    else:
        with pytest.raises(ModelError, match="has no effect"):
            remote(server).load_adapter("some", "/adapters/some")
    assert ("some" in server.models) is bool(shift)
    assert max(received.body["max_tokens"] for received in server.asked()) >= 48, "longer answers are compared"


@pytest.mark.parametrize(
    "missing",
    [
        {"detail": "Not Found"},
        {"error": {"message": "Not Found", "type": "NotFoundError", "code": 404}},
        {"error": {"message": "Invalid URL (POST /v1/load_lora_adapter)", "type": "invalid_request_error"}},
    ],
)
def test_a_server_that_does_not_load_adapters(server: OpenAIServer, missing: object) -> None:
    server.runtime_lora, server.missing_endpoint = False, missing
    with pytest.raises(ModelError, match="VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"):
        remote(server).load_adapter("tuned", "/adapters/tuned")
    with pytest.raises(ModelError, match="VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"):
        remote(server).unload_adapter("tuned")
    assert server.asked() == []


def test_an_adapter_that_is_not_there(server: OpenAIServer) -> None:
    with pytest.raises(ModelError, match=r"cannot load the adapter a from /missing \(404\).*No adapter found"):
        remote(server).load_adapter("a", "/missing")
    with pytest.raises(ModelError, match=r"\(404\): The lora adapter 'a' cannot be found"):
        remote(server).unload_adapter("a")


def test_an_adapter_that_is_loaded_already(server: OpenAIServer) -> None:
    base = remote(server)
    base.load_adapter("tuned", "/adapters/tuned")
    again = base.load_adapter("tuned", "/adapters/tuned")
    assert last(again.stream([ask()]))[0]
    with pytest.raises(ModelError, match="another adapter tuned already, from /adapters/tuned. Unload that one"):
        base.load_adapter("tuned", "/adapters/newer")
    assert server.models["tuned"] == "/adapters/tuned"
    server.shifts["tuned"] = 0.0
    with pytest.raises(ModelError, match="has no effect"):
        base.load_adapter("tuned", "/adapters/tuned")
    assert "tuned" in server.models, "who did not load it does not unload it"


def test_an_adapter_that_cannot_be_tested_is_unloaded(server: OpenAIServer) -> None:
    model = remote(server, model="not there")
    with pytest.raises(ModelError, match="does not have not there"):
        model.load_adapter("tuned", "/adapters/tuned")
    assert list(server.models) == [BASE_MODEL]
