"""Local and remote models side by side, by name: python -m pytest tests/test_answerers.py."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lively_model import LANGUAGE_LINEARS, save_adapter, save_lively
from openai_server import BASE_MODEL, OpenAIServer

from facellm.answerers import BASE, MOST_ADAPTERS, Answerers
from facellm.conversation import Request, Sampling, Turn
from facellm.errors import DataError, FaceLLMError
from facellm.faces import render, sample
from facellm.model import ChatModel
from facellm.remote import RemoteModel

SHORT = Sampling(max_new_tokens=24)
QUESTION = (Turn("user", "Describe this image.", (render(sample(1)),)),)


@pytest.fixture(scope="module")
def checkpoint(untrained_tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_lively(untrained_tiny, tmp_path_factory.mktemp("answerers") / "lively")


@pytest.fixture(scope="module")
def adapters(checkpoint: Path) -> dict[str, Path]:
    return {
        f"run-{number}": save_adapter(
            checkpoint, checkpoint.parent / f"run-{number}", seed=number, r=2, target_modules=LANGUAGE_LINEARS
        )
        for number in range(MOST_ADAPTERS + 2)
    }


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Iterator[ChatModel]:
    with ChatModel.load(checkpoint, device="cpu") as loaded:
        yield loaded


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as running:
        yield running


def remote(server: OpenAIServer, name: str = "far away") -> RemoteModel:
    return RemoteModel(name, base_url=server.base_url, model=BASE_MODEL)


def ask(*names: str, sampling: Sampling = SHORT) -> list[Request]:
    return [Request(QUESTION, name, sampling) for name in names]


def test_local_and_remote_models_answer_side_by_side(
    model: ChatModel, adapters: dict[str, Path], server: OpenAIServer
) -> None:
    answerers = Answerers(model, adapters=lambda: adapters, remotes=[remote(server)])
    assert answerers.names() == [BASE, *adapters, "far away"]
    *_, last = answerers.stream(ask("run-0", "far away", BASE))
    local = model.replies([Request(QUESTION, "run-0", SHORT), Request(QUESTION, None, SHORT)])
    assert [last[0].text, last[2].text] == local
    assert last[1].text
    assert all(answer.error is None for answer in last)
    assert len(server.asked("/v1/chat/completions")) == 1


def test_one_that_fails_says_why_and_the_others_answer(
    model: ChatModel, adapters: dict[str, Path], server: OpenAIServer
) -> None:
    address = server.base_url
    gone = RemoteModel("gone", base_url=address, model=BASE_MODEL)
    server.__exit__(None, None, None)
    answerers = Answerers(model, adapters=lambda: adapters, remotes=[gone])
    *_, last = answerers.stream(ask(BASE, "gone"))
    assert last[0].text == model.replies([Request(QUESTION, None, SHORT)])[0]
    assert last[0].error is None
    assert last[1].text == ""
    assert last[1].error
    with pytest.raises(FaceLLMError):
        list(answerers.stream(ask("gone")))


def test_a_local_failure_does_not_end_a_remote_answer(model: ChatModel) -> None:
    with OpenAIServer(tokens=20, delay_s=0.02) as slow:
        answerers = Answerers(model, remotes=[remote(slow)])
        too_long = Request((Turn("user", "why " * 4000),), BASE, SHORT)
        *_, last = answerers.stream([too_long, *ask("far away")])
        assert "has" in str(last[0].error) and "tokens" in str(last[0].error)
        whole = slow.expected_text(slow.asked("/v1/chat/completions")[-1].body)
    assert (last[1].text, last[1].error, last[1].complete) == (whole, None, True)


def test_a_checkpoint_that_cannot_be_loaded_holds_up_no_other(model: ChatModel, tmp_path: Path) -> None:
    answerers = Answerers(model, checkpoints={"gone": str(tmp_path / "nowhere")})
    *_, last = answerers.stream(ask(BASE, "gone"))
    assert last[0].text == model.replies([Request(QUESTION, None, SHORT)])[0]
    assert "cannot be loaded" in str(last[1].error)


def test_without_a_local_model_everything_is_remote(server: OpenAIServer) -> None:
    answerers = Answerers(None, remotes=[remote(server), remote(server, "second")])
    assert answerers.names() == ["far away", "second"]
    *_, last = answerers.stream(ask("second", "far away"))
    assert all(answer.text for answer in last)


def test_a_name_that_is_not_there_is_refused(model: ChatModel) -> None:
    answerers = Answerers(model)
    for unknown in ("nobody", "run-1"):
        with pytest.raises(DataError, match=f"There is no model {unknown}. Choose one of: Base."):
            list(answerers.stream(ask(unknown)))


def test_adapters_that_were_not_asked_for_long_are_unloaded(model: ChatModel, adapters: dict[str, Path]) -> None:
    answerers = Answerers(model, adapters=lambda: adapters)
    for name in adapters:
        list(answerers.stream(ask(name, sampling=Sampling(max_new_tokens=1))))
    assert set(model.adapters) == set(list(adapters)[-MOST_ADAPTERS:])
    *_, last = answerers.stream(ask("run-0"))
    assert last[0].text, "it is loaded again when it is asked again"


def test_an_adapter_that_is_answering_is_not_unloaded(model: ChatModel, adapters: dict[str, Path]) -> None:
    answerers = Answerers(model, adapters=lambda: adapters)
    running = answerers.stream(ask("run-0", sampling=Sampling(max_new_tokens=3000)))
    next(answers for answers in running if answers[0].text)
    for name in list(adapters)[1:]:
        list(answerers.stream(ask(name, sampling=Sampling(max_new_tokens=1))))
    assert "run-0" in model.adapters
    running.close()  # type: ignore[attr-defined]


def test_a_checkpoint_is_loaded_when_it_is_first_asked(model: ChatModel, checkpoint: Path) -> None:
    answerers = Answerers(model, checkpoints={"twin": str(checkpoint)})
    assert "twin" not in model.checkpoints
    *_, last = answerers.stream(ask(BASE, "twin"))
    assert last[0] == last[1]
    assert model.checkpoints == ("twin",)
    model.remove_checkpoint("twin")


@pytest.mark.parametrize("how", ["stop", "close"])
def test_stopping_ends_local_and_remote_answers(model: ChatModel, how: str) -> None:
    stop = threading.Event()
    with OpenAIServer(tokens=2000, delay_s=0.02) as slow:
        answerers = Answerers(model, remotes=[remote(slow)])
        running = answerers.stream(ask(BASE, "far away", sampling=Sampling(max_new_tokens=3000)), stop=stop)
        next(answers for answers in running if all(answer.text for answer in answers))
        if how == "stop":
            stop.set()
            *_, last = running
            assert all(answer.text for answer in last)
        else:
            running.close()  # type: ignore[attr-defined]
        deadline = time.monotonic() + 5
        while model.pending and time.monotonic() < deadline:
            time.sleep(0.01)
        assert model.pending == 0


def test_the_source_tells_other_weights_under_the_same_name(model: ChatModel, checkpoint: Path, tmp_path: Path) -> None:
    folder = save_adapter(checkpoint, tmp_path / "run-1", seed=1, r=2, target_modules=LANGUAGE_LINEARS)
    answerers = Answerers(model, adapters=lambda: {"run-1": folder})
    first = answerers.source("run-1")
    assert first == Answerers(model, adapters=lambda: {"run-1": folder}).source("run-1")
    save_adapter(checkpoint, folder, seed=2, r=2, target_modules=LANGUAGE_LINEARS)
    assert answerers.source("run-1") != first
    assert answerers.source(BASE) == checkpoint.name
    assert first.startswith("run-1@")
