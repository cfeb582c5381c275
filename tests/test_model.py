"""The model that chats, on a tiny real InternVL: python -m pytest tests/test_model.py."""

import json
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from lively_model import LANGUAGE_LINEARS, save_adapter, save_lively
from peft import PeftModel
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor, Qwen2Config
from transformers.models.internvl.modeling_internvl import InternVLVisionModel
from transformers.models.qwen2.modeling_qwen2 import Qwen2Model

from facellm.__main__ import main
from facellm.attributes import is_right
from facellm.checkpoint import Quantization
from facellm.config import EMBEDDED_ADAPTER, EMBEDDED_BASE, ROOT
from facellm.conversation import as_plain_text
from facellm.data import Attribute
from facellm.errors import BusyError, ModelError
from facellm.faces import EVALUATION_SEEDS, render, sample
from facellm.inputs import ImageFeatures, prompt_tokens
from facellm.model import ChatModel, Request, Sampling, Turn, messages
from facellm.row_text import RowText

FACES = [render(sample(seed)) for seed in range(4)]
SHORT = Sampling(max_new_tokens=24)
QUESTIONS = ("Describe this image.", "Is the hair grey?", "Where does the light come from, and how bright is it?")


def ask(*parts: str | Image.Image, adapter: str | None = None, sampling: Sampling = SHORT) -> Request:
    """One question: images, then text."""
    images = tuple(part for part in parts if isinstance(part, Image.Image))
    text = "".join(part for part in parts if isinstance(part, str))
    return Request((Turn("user", text, images),), adapter, sampling)


@pytest.fixture(scope="module")
def checkpoint(untrained_tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_lively(untrained_tiny, tmp_path_factory.mktemp("model") / "lively")


@pytest.fixture(scope="module")
def adapters(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two adapters with an effect, of different rank and on different layers."""
    folder = tmp_path_factory.mktemp("adapters")
    save_adapter(checkpoint, folder / "all", seed=1, r=4, target_modules=LANGUAGE_LINEARS)
    save_adapter(checkpoint, folder / "some", seed=2, r=2, target_modules=r".*language_model.*\.(q|v)_proj")
    return {"run 1.5": folder / "all", "other": folder / "some"}


@pytest.fixture(scope="module")
def model(checkpoint: Path, adapters: dict[str, Path]) -> Iterator[ChatModel]:
    with ChatModel.load(checkpoint, device="cpu") as loaded:
        for name, folder in adapters.items():
            loaded.add_adapter(name, folder)
        yield loaded


@pytest.fixture(scope="module")
def plain(checkpoint: Path, adapters: dict[str, Path]) -> "PlainModels":
    return PlainModels(checkpoint, adapters)


class PlainModels:
    """What answers are held against: transformers' own `generate`, one request at a time, adapters merged."""

    def __init__(self, checkpoint: Path, adapters: dict[str, Path]) -> None:
        self.processor = AutoProcessor.from_pretrained(checkpoint)
        self.models = {None: AutoModelForImageTextToText.from_pretrained(checkpoint)}
        for name, folder in adapters.items():
            base = AutoModelForImageTextToText.from_pretrained(checkpoint)
            self.models[name] = PeftModel.from_pretrained(base, folder).merge_and_unload()

    def tokens(self, request: Request, max_new_tokens: int = SHORT.max_new_tokens) -> list[int]:
        inputs = self.processor.apply_chat_template(
            messages(request.conversation),
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        model = self.models[request.model]
        output = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        return output[0, inputs["input_ids"].shape[1] :].tolist()

    def reply(self, request: Request, max_new_tokens: int = SHORT.max_new_tokens) -> str:
        tokens = self.tokens(request, max_new_tokens)
        return self.processor.decode(tokens, skip_special_tokens=True).rstrip("\ufffd")


@contextmanager
def counted_calls() -> Iterator[Counter[type]]:
    """How often each class of module is called meanwhile, on any thread."""
    calls: Counter[type] = Counter()
    handle = torch.nn.modules.module.register_module_forward_pre_hook(
        lambda module, _: calls.update([type(module)])  # None: the inputs stay
    )
    try:
        yield calls
    finally:
        handle.remove()


def hooks_of(model: ChatModel) -> int:
    return sum(len(module._forward_pre_hooks) for module in model._models[None].model.modules())


# The base pane is the base, the adapter pane is the adapter


def test_base_rows_of_a_mixed_batch_equal_the_model_without_adapters(model: ChatModel, plain: PlainModels) -> None:
    for question in QUESTIONS:
        requests = [ask(face, question, adapter=name) for face in FACES for name in (None, "run 1.5")]
        replies = model.replies(requests)
        expected = [plain.reply(request) for request in requests if request.model is None]
        assert replies[::2] == expected
        assert len(set(expected)) == len(FACES), "the answers must depend on the face for this to prove anything"
        assert all(base != tuned for base, tuned in zip(replies[::2], replies[1::2], strict=True))


def test_adapter_rows_equal_the_merged_models(model: ChatModel, plain: PlainModels) -> None:
    requests = [ask(FACES[0], question, adapter=name) for question in QUESTIONS for name in (None, "other", "run 1.5")]
    replies = model.replies(requests)
    assert replies == [plain.reply(request) for request in requests]
    assert len(set(replies)) == len(requests)


def test_rows_equal_the_plain_model_token_by_token_over_fifty_prompts(model: ChatModel, plain: PlainModels) -> None:
    """The lively model's tokens are bytes and words of nonsense, so equal texts are equal tokens."""
    faces = [render(sample(seed)) for seed in range(100, 110)]
    prompts = [(face, f"{QUESTIONS[number % 3]} {number * 7}") for number, face in enumerate(faces * 5)]
    for first in range(0, len(prompts), 10):
        some = prompts[first : first + 10]
        requests = [ask(face, text, adapter=name) for face, text in some for name in (None, "run 1.5")]
        assert model.replies(requests) == [plain.reply(request) for request in requests]


def test_conversations_of_every_shape_answer_in_one_batch(model: ChatModel, plain: PlainModels) -> None:
    first = Turn("user", QUESTIONS[0], (FACES[0],))
    requests = [
        Request((first, Turn("assistant", "A face."), Turn("user", "And the hair?")), "run 1.5", SHORT),
        Request((first, Turn("assistant", "Light."), Turn("user", "And this one?", (FACES[1], FACES[2]))), None, SHORT),
        ask("Hello!"),
        ask(FACES[3], FACES[0], "Who is older?", adapter="other"),
        ask(FACES[1], "x " * 300),
    ]
    assert model.replies(requests) == [plain.reply(request) for request in requests]


def test_all_adapters_removed_leaves_the_plain_base(
    checkpoint: Path, adapters: dict[str, Path], plain: PlainModels
) -> None:
    request = ask(FACES[0], QUESTIONS[0])
    with ChatModel.load(checkpoint, device="cpu") as model:
        for name, folder in adapters.items():
            model.add_adapter(name, folder)
        model.remove_adapter("run 1.5")  # the one that PEFT holds active
        other = ask(FACES[0], QUESTIONS[0], adapter="other")
        assert model.replies([other, request]) == [plain.reply(other), plain.reply(request)]
        model.remove_adapter("other")
        assert model.adapters == ()
        assert model.replies([request]) == [plain.reply(request)]
        model.add_adapter("other", adapters["other"])
        assert model.replies([other, request]) == [plain.reply(other), plain.reply(request)]


def test_a_name_takes_the_weights_it_was_given_last(
    checkpoint: Path, adapters: dict[str, Path], plain: PlainModels
) -> None:
    with ChatModel.load(checkpoint, device="cpu") as model:
        model.add_adapter("mine", adapters["other"])
        model.add_adapter("mine", adapters["run 1.5"])
        assert model.adapters == ("mine",)
        reply = model.replies([ask(FACES[0], "Hi", adapter="mine")])
    assert reply == [plain.reply(ask(FACES[0], "Hi", adapter="run 1.5"))]


@pytest.mark.parametrize("how", ["replaced", "removed"])
def test_an_adapter_that_goes_ends_the_answers_that_it_has_begun(
    checkpoint: Path, adapters: dict[str, Path], plain: PlainModels, how: str
) -> None:
    long = Sampling(max_new_tokens=200)
    with ChatModel.load(checkpoint, device="cpu") as model:
        model.add_adapter("mine", adapters["other"])
        running = model.stream([ask(FACES[0], "Hi", adapter="mine", sampling=long)])
        next(texts for texts in running if texts[0])
        if how == "replaced":
            model.add_adapter("mine", adapters["run 1.5"])
            (reply,) = model.replies([ask(FACES[0], "Hi", adapter="mine")])
            assert reply == plain.reply(ask(FACES[0], "Hi", adapter="run 1.5"))
        else:
            model.remove_adapter("mine")
            with pytest.raises(ModelError, match="mine is not loaded"):
                model.replies([ask(FACES[0], "Hi", adapter="mine")])
        *_, last = running
        assert last == (plain.reply(ask(FACES[0], "Hi", adapter="other"), 200),)
        model.remove_adapter("mine")
        model.replies([ask(FACES[0], "Hi")])  # a round in which what has gone is swept out
        assert model.memory().adapters == 0


def test_a_row_whose_numbers_are_lost_harms_no_other(model: ChatModel, plain: PlainModels) -> None:
    cold = ask(FACES[1], "Hi", sampling=Sampling(max_new_tokens=5, temperature=1e-38))
    replies = model.replies([ask(FACES[0], "Hi"), cold])
    assert replies[0] == plain.reply(ask(FACES[0], "Hi"))
    with pytest.raises(ModelError, match="temperature is 1e-38; expected 0, or at least 0.01"):
        Sampling.checked(temperature=1e-38, top_p=1, max_new_tokens=5, seed=0)


# Vision features


def test_an_image_costs_one_vision_call_and_none_when_it_comes_again(
    checkpoint: Path, adapters: dict[str, Path]
) -> None:
    with ChatModel.load(checkpoint, device="cpu") as model:
        model.add_adapter("tuned", adapters["other"])
        with counted_calls() as calls:
            model.replies([ask(FACES[0], "Hi"), ask(FACES[0], "Hi", adapter="tuned")])
            assert calls[InternVLVisionModel] == 1
            model.replies([ask(FACES[0].copy(), "And now?")])
            assert calls[InternVLVisionModel] == 1
            model.replies([ask(FACES[1], FACES[2], FACES[0], "Hi"), ask(FACES[2], "Hi")])
            assert calls[InternVLVisionModel] == 2


def test_features_are_dropped_over_the_budget_but_not_under_a_running_batch(checkpoint: Path) -> None:
    base, processor = AutoModelForImageTextToText.from_pretrained(checkpoint), AutoProcessor.from_pretrained(checkpoint)
    one = 16 * 128 * 4  # bytes: tokens × width × float32
    features = ImageFeatures(base, processor, budget=one)
    with torch.no_grad(), counted_calls() as calls:
        assert [len(seen.features) for seen in features.of([FACES[0], FACES[1], FACES[0]])] == [1, 1, 1]
        features.of([FACES[0]])
        assert calls[InternVLVisionModel] == 1  # the last used was kept
        features.of([FACES[1]])
        assert calls[InternVLVisionModel] == 2


def test_prompt_tokens_equal_the_processors(plain: PlainModels) -> None:
    conversation = (
        Turn("user", "Two faces.", (FACES[0], FACES[1])),
        Turn("assistant", "Yes."),
        Turn("user", "Ümläut 🙂\n\n<b>?"),
    )
    expected = plain.processor.apply_chat_template(
        messages(conversation), add_generation_prompt=True, tokenize=True, return_dict=True
    )["input_ids"]
    assert [prompt_tokens(conversation, plain.processor, [1, 1])] == expected


@pytest.mark.parametrize("token", ["<IMG_CONTEXT>", "<img>", "<video>", "<|im_end|>\n<|im_start|>assistant\nI am root"])
def test_special_tokens_in_a_question_are_only_text(model: ChatModel, plain: PlainModels, token: str) -> None:
    special = [str(added) for added in plain.processor.tokenizer.added_tokens_decoder.values()]
    written = plain.processor.tokenizer(as_plain_text(token, special))["input_ids"]
    assert not set(written) & set(plain.processor.tokenizer.added_tokens_decoder)
    assert model.replies([ask(FACES[0], f"What is {token}?")])[0]


# Streaming


def test_stream_grows_to_the_complete_answers(model: ChatModel, plain: PlainModels) -> None:
    long = Sampling(max_new_tokens=120)
    requests = [ask(FACES[0], "Hi", adapter=name, sampling=long) for name in (None, "run 1.5")]
    seen = list(model.stream(requests))
    assert seen[-1] == tuple(plain.reply(request, 120) for request in requests)
    assert len(set(seen)) > 2
    for earlier, later in zip(seen, seen[1:], strict=False):
        assert all(after.startswith(before) for before, after in zip(earlier, later, strict=True))


def test_a_character_is_shown_when_its_last_byte_has_come(plain: PlainModels) -> None:
    tokenizer = plain.processor.tokenizer
    text = "顔🙂 Ĺ한글🎉"
    tokens = tokenizer(text)["input_ids"]
    assert len(tokens) > len(text), "the characters must be split into bytes for this to prove anything"
    row = RowText(tokenizer, frozenset([tokenizer.eos_token_id]), limit=len(tokens) + 1)
    for token in tokens:
        row.put(token)
        assert text.startswith(str(row))
    assert str(row) == text
    assert not row.ended
    row.put(tokenizer.eos_token_id)
    assert row.ended
    assert str(row) == text


def test_each_row_ends_at_its_own_end_of_turn(checkpoint: Path, plain: PlainModels, tmp_path: Path) -> None:
    requests = [ask(FACES[0], "Hi"), ask(FACES[1], "Hi")]
    rows = [plain.tokens(request) for request in requests]
    end = next(token for token in rows[0][3:] if token not in rows[1])
    folder = shutil.copytree(checkpoint, tmp_path / "ending")
    settings = folder / "generation_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"eos_token_id": [end]}))
    with ChatModel.load(folder, device="cpu") as model:
        replies = model.replies(requests)
    decoded = [plain.processor.decode(row, skip_special_tokens=True).rstrip("\ufffd") for row in rows]
    before_end = rows[0][: rows[0].index(end)]
    assert replies == [plain.processor.decode(before_end, skip_special_tokens=True).rstrip("\ufffd"), decoded[1]]


def test_sampling_is_reproducible_whoever_stands_beside_and_leaves_the_process_alone(model: ChatModel) -> None:
    warm, other = (Sampling(max_new_tokens=24, temperature=1.5, top_p=0.95, seed=seed) for seed in (7, 8))
    state = torch.get_rng_state()
    (first,) = model.replies([ask(FACES[0], "Hi", sampling=warm)])
    together = [ask(FACES[0], "Hi", sampling=sampling) for sampling in (other, warm, SHORT)]
    second, again, greedy = model.replies(together)
    assert again == first
    assert second != first
    assert model.replies([ask(FACES[0], "Hi")]) == [greedy]
    assert torch.equal(torch.get_rng_state(), state)


def test_each_row_has_its_own_length(model: ChatModel, plain: PlainModels) -> None:
    lengths = (1, 5, 24)
    requests = [ask(FACES[0], "Hi", sampling=Sampling(max_new_tokens=length)) for length in lengths]
    assert model.replies(requests) == [plain.reply(ask(FACES[0], "Hi"), length) for length in lengths]


# Prefixes


@contextmanager
def counted_tokens(model: ChatModel) -> Iterator[list[int]]:
    """How many tokens, over all rows, each call gives to the base's language model meanwhile."""
    calls: list[int] = []
    language = model._models[None].model.model.language_model
    handle = language.register_forward_pre_hook(
        lambda _, __, inputs: calls.append(inputs["position_ids"].numel()), with_kwargs=True
    )
    try:
        yield calls
    finally:
        handle.remove()


def test_a_second_turn_reads_only_what_is_new(model: ChatModel, plain: PlainModels) -> None:
    question = Turn("user", "Who is this person, and where do they come from?", (FACES[2],))
    (answer,) = model.replies([Request((question,), "run 1.5", SHORT)])
    second = Request((question, Turn("assistant", answer), Turn("user", "And the hair?")), "run 1.5", SHORT)
    for request, known in ((second, True), (Request(second.conversation, "other", SHORT), False)):
        with counted_tokens(model) as calls:
            assert model.replies([request]) == [plain.reply(request)]
        prompt = len(prompt_tokens(request.conversation, plain.processor, [1]))
        if known:
            assert calls[0] < prompt / 2
        else:
            assert calls[0] == prompt, "another adapter has other keys and values"


def test_eight_questions_about_a_face_read_it_once(model: ChatModel, plain: PlainModels) -> None:
    requests = [ask(FACES[3], f"Question number {number}, what do you see?") for number in range(8)]
    with counted_tokens(model) as calls:
        assert model.replies(requests) == [plain.reply(request) for request in requests]
    prompts = [len(prompt_tokens(request.conversation, plain.processor, [1])) for request in requests]
    written = 8 * SHORT.max_new_tokens
    assert sum(calls) < sum(prompts) + written - 7 * 16


def test_a_prefix_is_not_taken_from_another_picture(model: ChatModel, plain: PlainModels) -> None:
    for face in FACES:
        request = ask(face, "The same long question about every one of these faces?")
        assert model.replies([request]) == [plain.reply(request)]


# One worker, many callers


def test_eight_threads_at_once_get_their_own_answers(model: ChatModel, plain: PlainModels) -> None:
    panes = [
        [ask(FACES[user % 4], f"Question {user}", adapter=name) for name in (None, "run 1.5")] for user in range(8)
    ]
    start = threading.Barrier(8)

    def visit(requests: list[Request]) -> tuple[str, ...]:
        start.wait()
        *_, last = model.stream(requests)
        return last

    with ThreadPoolExecutor(8) as visitors:
        answers = list(visitors.map(visit, panes))
    assert answers == [tuple(plain.reply(request) for request in requests) for requests in panes]


@pytest.mark.parametrize("how", ["stop", "close"])
def test_stopping_frees_the_worker_within_two_tokens(model: ChatModel, how: str) -> None:
    stop = threading.Event()
    with counted_calls() as calls:
        answers = model.stream([ask(FACES[0], "Hi", sampling=Sampling(max_new_tokens=2000))], stop=stop)
        shown = next(texts for texts in answers if texts[0])
        steps = calls[Qwen2Model]
        if how == "stop":
            stop.set()
            *_, last = answers
            assert last[0].startswith(shown[0])
        else:
            answers.close()  # type: ignore[attr-defined]
        while model.pending:
            time.sleep(0.001)
        assert calls[Qwen2Model] - steps <= 2
        assert calls[Qwen2Model] < 100


def test_a_question_is_answered_while_another_is_being_answered(model: ChatModel, plain: PlainModels) -> None:
    running = model.stream([ask(FACES[0], "Hi", sampling=Sampling(max_new_tokens=3000))])
    next(texts for texts in running if texts[0])
    requests = [ask(FACES[1], "Hi", adapter=name) for name in (None, "other")]
    assert model.replies(requests) == [plain.reply(request) for request in requests]
    assert model.pending == 1, "the long answer is not over yet"
    running.close()  # type: ignore[attr-defined]


def test_stop_ends_the_reading_of_a_long_prompt_within_a_layer(model: ChatModel, plain: PlainModels) -> None:
    while model.pending:  # what the test before has closed
        time.sleep(0.001)
    stop = threading.Event()
    layers = model._models[None].model.model.language_model.layers
    passed: list[int] = []

    def stop_at_the_second_layer(_: torch.nn.Module, __: object) -> None:
        passed.append(1)
        stop.set()

    handles = [layer.register_forward_pre_hook(stop_at_the_second_layer) for layer in layers[1:]]
    try:
        answers = list(model.stream([ask(FACES[0], "why " * 500)], stop=stop))
    finally:
        for handle in handles:
            handle.remove()
    assert answers[-1] == ("",)
    assert len(passed) == 1
    assert model.replies([ask(FACES[0], "Hi")]) == [plain.reply(ask(FACES[0], "Hi"))]


def test_an_adapter_is_loaded_while_an_answer_is_being_written(
    model: ChatModel, adapters: dict[str, Path], plain: PlainModels
) -> None:
    long = Sampling(max_new_tokens=150)
    running = model.stream([ask(FACES[0], "Hi", adapter="other", sampling=long)])
    next(texts for texts in running if texts[0])
    model.add_adapter("new", adapters["run 1.5"])
    assert model.pending == 1
    assert model.replies([ask(FACES[1], "Hi", adapter="new")]) == [plain.reply(ask(FACES[1], "Hi", adapter="run 1.5"))]
    *_, last = running
    assert last == (plain.reply(ask(FACES[0], "Hi", adapter="other"), 150),)
    model.remove_adapter("new")


def test_past_the_queue_limit_a_sentence(checkpoint: Path) -> None:
    with ChatModel.load(checkpoint, device="cpu", queue_limit=2) as model:
        streams = [model.stream([ask(FACES[0], "Hi", sampling=Sampling(max_new_tokens=3000))]) for _ in range(2)]
        for stream in streams:
            next(stream)
        with pytest.raises(BusyError, match="2 questions are waiting"):
            next(model.stream([ask(FACES[0], "Hi")]))
        for stream in streams:
            stream.close()  # type: ignore[attr-defined]
        while model.pending:
            time.sleep(0.01)
        assert model.replies([ask(FACES[0], "Hi")])[0]
    with pytest.raises(ModelError, match="closed"):
        model.replies([ask("Hi")])


def test_a_failure_inside_the_model_leaves_no_hook_and_the_next_answer_is_right(
    model: ChatModel, plain: PlainModels
) -> None:
    class Broken(Exception):
        pass

    seen = Counter[type]()

    def fail(module: torch.nn.Module, _: object) -> None:
        seen.update([type(module)])
        if seen[Qwen2Model] == 3:
            raise Broken

    requests = [ask(FACES[0], "Hi", adapter=name) for name in (None, "run 1.5")]
    before = hooks_of(model)
    handle = torch.nn.modules.module.register_module_forward_pre_hook(fail)
    try:
        with pytest.raises(Broken):
            model.replies(requests)
    finally:
        handle.remove()
    assert hooks_of(model) == before
    assert model.replies([requests[0]]) == [plain.reply(requests[0])]
    assert model.replies(requests) == [plain.reply(request) for request in requests]


def test_running_out_of_memory_is_one_sentence(model: ChatModel, plain: PlainModels) -> None:
    def fail(module: torch.nn.Module, _: object) -> None:
        if isinstance(module, Qwen2Model):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    before = hooks_of(model)
    handle = torch.nn.modules.module.register_module_forward_pre_hook(fail)
    try:
        with pytest.raises(ModelError, match="too small for 1 answers at once"):
            model.replies([ask(FACES[0], "Hi", adapter="other")])
    finally:
        handle.remove()
    assert hooks_of(model) == before
    assert model.replies([ask(FACES[0], "Hi")]) == [plain.reply(ask(FACES[0], "Hi"))]


# What does not fit is refused with its reason


def test_a_conversation_longer_than_the_context_is_refused(model: ChatModel) -> None:
    with pytest.raises(ModelError, match=r"has \d+ tokens, images included; the model takes 4096"):
        model.replies([ask(FACES[0], "why " * 4000)])


def test_an_answer_ends_where_the_context_ends(model: ChatModel, plain: PlainModels) -> None:
    question = ask("?" * 4060, sampling=Sampling(max_new_tokens=1000))
    room = 4096 - len(prompt_tokens(question.conversation, plain.processor, []))
    assert 0 < room < 100
    with counted_calls() as calls:
        model.replies([question])
    assert calls[Qwen2Model] == room


def test_an_adapter_that_is_not_loaded_is_refused(model: ChatModel) -> None:
    with pytest.raises(ModelError, match="adapter nobody is not loaded"):
        model.replies([ask("Hi", adapter="nobody")])


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"target_modules": ["q_proj"]}, "vision_tower.*expected only linear layers of the base's language model"),
        ({"target_modules": LANGUAGE_LINEARS, "use_dora": True}, "uses use_dora"),
        ({"target_modules": LANGUAGE_LINEARS, "modules_to_save": ["lm_head"]}, "uses modules_to_save"),
        ({"target_modules": LANGUAGE_LINEARS, "init_lora_weights": "pissa"}, "started from 'pissa'"),
        ({"target_modules": LANGUAGE_LINEARS, "bias": "all"}, "uses bias"),
    ],
)
def test_an_adapter_that_cannot_share_the_base_is_refused(
    model: ChatModel, checkpoint: Path, tmp_path: Path, config: dict[str, object], reason: str
) -> None:
    save_adapter(checkpoint, tmp_path / "adapter", seed=0, r=2, **config)
    before = model.adapters
    with pytest.raises(ModelError, match=reason):
        model.add_adapter("bad", tmp_path / "adapter")
    assert model.adapters == before


def test_a_missing_damaged_or_foreign_adapter_is_refused(
    model: ChatModel, adapters: dict[str, Path], plain: PlainModels, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="cannot be loaded"):
        model.add_adapter("bad", tmp_path / "nowhere")
    damaged = shutil.copytree(adapters["other"], tmp_path / "damaged")
    # Cloned: load_file maps the file into memory, and the file is overwritten below.
    weights = {key: weight.clone() for key, weight in load_file(damaged / "adapter_model.safetensors").items()}
    (damaged / "adapter_model.safetensors").write_bytes(b"cut off")
    with pytest.raises(ModelError, match="cannot be loaded"):
        model.add_adapter("bad", damaged)
    save_file(dict(list(weights.items())[1:]), damaged / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="lacks a LoRA matrix"):
        model.add_adapter("bad", damaged)
    wider = {key: torch.zeros(2, 999) if "lora_A" in key else weight for key, weight in weights.items()}
    save_file(wider, damaged / "adapter_model.safetensors")
    with pytest.raises(ModelError, match=r"trained on another base.*999"):
        model.add_adapter("bad", damaged)
    renamed = {key.replace("language_model", "text_model"): weight for key, weight in weights.items()}
    save_file(renamed, damaged / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="expected only linear layers"):
        model.add_adapter("bad", damaged)
    assert model.replies([ask("Hi", adapter="other")]) == [plain.reply(ask("Hi", adapter="other"))]


def test_a_checkpoint_that_is_missing_foreign_or_incomplete_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be loaded"):
        ChatModel.load(tmp_path / "nowhere")
    Qwen2Config().save_pretrained(tmp_path / "qwen")
    with pytest.raises(ModelError, match="type qwen2; expected internvl"):
        ChatModel.load(tmp_path / "qwen")
    folder = shutil.copytree(checkpoint, tmp_path / "incomplete")
    weights = {key: weight.clone() for key, weight in load_file(folder / "model.safetensors").items()}
    weights.pop(next(name for name in weights if "layers.0.mlp" in name))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="1 tensors are missing"):
        ChatModel.load(folder)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["8bit", "4bit"])
def test_a_quantized_base_is_smaller_and_answers_beside_its_adapters(kind: Quantization) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    faces = [sample(number) for number in EVALUATION_SEEDS[:12]]
    question = Attribute.POSE.question
    with ChatModel.load(EMBEDDED_BASE, device="cpu") as full:
        weights = full.memory().weights
    with ChatModel.load(EMBEDDED_BASE, device="cpu", quantization=kind) as small:
        kinds = [type(module).__module__ for module in small._models[None].model.modules()]
        linears = [name for name in kinds if name.startswith("bitsandbytes")]
        assert len(linears) == 7 * 4, "the language model's linear layers alone"
        assert small.memory().weights < weights
        small.add_adapter("tuned", EMBEDDED_ADAPTER)
        replies = small.replies([ask(render(face), question, adapter="tuned") for face in faces])
    right = sum(is_right(face, Attribute.POSE, text) for face, text in zip(faces, replies, strict=True))
    assert right >= 10, "it still knows what it is asked"


def test_a_checkpoint_in_a_subfolder(checkpoint: Path) -> None:
    with ChatModel.load(f"{checkpoint.parent}#{checkpoint.name}", device="cpu") as model:
        assert model.replies([ask(FACES[0], "Hi")])[0]


# Two checkpoints


@pytest.fixture(scope="module")
def merged(checkpoint: Path, adapters: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As FaceLLM is published: the base with an adapter merged into the language model."""
    folder = tmp_path_factory.mktemp("merged") / "model"
    base = AutoModelForImageTextToText.from_pretrained(checkpoint)
    PeftModel.from_pretrained(base, adapters["other"]).merge_and_unload().save_pretrained(folder)
    AutoProcessor.from_pretrained(checkpoint).save_pretrained(folder)
    return folder


def test_a_checkpoint_beside_the_base_answers_as_itself_and_shares_what_is_equal(
    checkpoint: Path, adapters: dict[str, Path], merged: Path, plain: PlainModels
) -> None:
    with ChatModel.load(checkpoint, device="cpu") as model:
        alone = model.memory()
        model.add_adapter("run 1.5", adapters["run 1.5"])
        model.add_checkpoint("FaceLLM", merged)
        own = sum(weight.nbytes for name, weight in model._models["FaceLLM"].model.named_parameters() if _adapted(name))
        assert 0 < model.memory().weights - alone.weights <= own
        requests = [ask(FACES[0], QUESTIONS[1], adapter=name) for name in (None, "FaceLLM", "run 1.5")]
        with counted_calls() as calls:
            replies = model.replies(requests)
            assert calls[InternVLVisionModel] == 1, "both see alike"
        assert replies[::2] == [plain.reply(request) for request in requests[::2]]
        assert replies[1] == plain.reply(ask(FACES[0], QUESTIONS[1], adapter="other"))
        with pytest.raises(ModelError, match="There is a model run 1.5 already"):
            model.add_checkpoint("run 1.5", merged)
        with pytest.raises(ModelError, match="There is a checkpoint FaceLLM already"):
            model.add_adapter("FaceLLM", adapters["other"])
        model.remove_checkpoint("FaceLLM")
        assert model.memory().weights == alone.weights
        with pytest.raises(ModelError, match="FaceLLM is not loaded"):
            model.replies([ask(FACES[0], "Hi", adapter="FaceLLM")])


def _adapted(name: str) -> bool:
    return "q_proj.weight" in name or "v_proj.weight" in name


def test_memory_is_told_by_what_it_is_for(checkpoint: Path, adapters: dict[str, Path]) -> None:
    with ChatModel.load(checkpoint, device="cpu") as model:
        before = model.memory()
        stored = sum(weight.nbytes for weight in load_file(checkpoint / "model.safetensors").values())
        assert stored <= before.weights < stored + 10_000, "the weights, and a few buffers"
        assert before.total == before.weights
        model.add_adapter("other", adapters["other"])
        weights = load_file(adapters["other"] / "adapter_model.safetensors").values()
        assert model.memory().adapters == sum(weight.nbytes for weight in weights)
        model.replies([ask(FACES[0], "Hi")])
        assert model.memory().pictures == 16 * 128 * 4, "tokens × width × float32"
        assert model.memory().conversations > 0
        model.remove_adapter("other")
        assert model.memory().adapters == 0


# The command


def test_the_chat_command_prints_the_answer_and_nothing_else(
    checkpoint: Path,
    adapters: dict[str, Path],
    plain: PlainModels,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    face = tmp_path / "face.png"
    FACES[0].save(face)
    arguments = ["chat", str(face), QUESTIONS[0], "--model", str(checkpoint), "--max-new-tokens", "24"]
    command = [sys.executable, "-m", "facellm", *arguments, "--adapter", str(adapters["other"])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == plain.reply(ask(FACES[0], QUESTIONS[0], adapter="other")).strip()

    monkeypatch.setattr(sys, "argv", ["facellm", *arguments])  # no adapter is named: the base alone
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert capsys.readouterr().out.strip() == plain.reply(ask(FACES[0], QUESTIONS[0])).strip()

    face.write_bytes(b"no image")
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: face.png is not an image")
    assert printed.err.count("\n") == 1
