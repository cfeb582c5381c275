"""How fast the chat answers, beside plain `generate` in the same run.

    python benchmarks/chat.py [--json] [--quick] [--size tiny|1B|8B] [--device auto|cpu|cuda]

Greedy answers of a fixed length (no early end), so that every way writes the same number of tokens. Ways are timed in
turns and compared as ratios, because the machine's own speed changes from minute to minute. `--size 1B` and `8B` are
InternVL3's true sizes with random weights (benchmarks/support/geometry.py), in bfloat16; tiny is the embedded model.
"""

import argparse
import itertools
import json
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from support.geometry import SIZES, save_random
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.models.internvl.modeling_internvl import InternVLVisionModel
from transformers.utils.logging import disable_progress_bar

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from facellm.config import EMBEDDED_ADAPTER, EMBEDDED_BASE
from facellm.errors import BusyError
from facellm.faces import render, sample
from facellm.model import ChatModel, Request, Sampling, Turn, messages

QUESTION = "Describe the expression and emotion of the image based on the visual information."
TARGETS = r"model\.language_model\..*\.(q|k|v|o|gate|up|down)_proj"
USERS = 8
# Of one run: how often the first token, and how often each way is timed; tokens of each answer.
WORK = {"tiny": (60, 12, 160), "1B": (4, 2, 160), "8B": (4, 2, 160)}
QUICK = {"tiny": (15, 3, 48), "1B": (1, 1, 8), "8B": (1, 1, 8)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    parser.add_argument("--size", choices=["tiny", *SIZES], default="tiny", help="of the model")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    options = parser.parse_args()
    disable_progress_bar()
    asks, rounds, tokens = (QUICK if options.quick else WORK)[options.size]
    with tempfile.TemporaryDirectory() as folder:
        base, adapter = checkpoint_and_adapter(Path(folder), options.size)
        how = {"size": options.size, "device": options.device, "asks": asks, "rounds": rounds, "tokens": tokens}
        figures = measure(base, adapter, **how)
    show({"size": options.size} | figures, as_json=options.json)


def measure(
    base: Path, adapter: Path, *, size: str, device: Any, asks: int, rounds: int, tokens: int
) -> dict[str, Any]:
    """All figures of one model."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:  # its peak is its own
        peak = alone.submit(peak_memory, base, adapter, device).result()
    with ChatModel.load(base, device=device, queue_limit=USERS) as model:
        model.add_adapter("tuned", adapter)
        own = model._models[None].model
        figures: dict[str, Any] = {
            "device": str(model.device),
            "dtype": str(own.dtype).removeprefix("torch."),
            "threads": model._call(torch.get_num_threads),  # the worker's
            "tokens_each": tokens,
            **first_token(model, asks),
            "vision_calls_for_two_panes_and_a_second_turn": vision_calls(model),
            **({} if size == "tiny" else {"peak_memory_over_one_model": peak}),  # of tiny, mostly Python's own
            **many_users(model, max(8, tokens // 4)),
        }
        plain = PlainGenerate(base, model.device, own.dtype)
        figures |= throughput(model, plain, tokens, rounds)
        if own.dtype == torch.float32:  # rounding decides between equally likely words of random weights
            figures["base_pane_equals_generate"] = equal_answers(model, plain, None, tokens)
            plain.merge(adapter)
            figures["adapter_pane_equals_merged"] = equal_answers(model, plain, "tuned", tokens)
    return figures


def peak_memory(base: Path, adapter: Path, device: Any) -> float:
    """The most memory that two panes ever took, from the loading on, in weights of one model; its own process."""
    memory(device)
    before = memory(device)  # of what there is now
    with ChatModel.load(base, device=device) as model:
        model.add_adapter("tuned", adapter)
        stream_of(model, face_number(1), None, "tuned", tokens=16)
        return (memory(device) - before) / model.memory().weights


def checkpoint_and_adapter(folder: Path, size: str) -> tuple[Path, Path]:
    """A checkpoint whose answers never end, and an adapter of rank 16 for it."""
    if size == "tiny":
        return never_ending(EMBEDDED_BASE, folder), EMBEDDED_ADAPTER
    base = never_ending(save_random(folder / "random", size), folder, move=True)
    model = AutoModelForImageTextToText.from_pretrained(base)
    tuned = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules=TARGETS))
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.02)
    tuned.save_pretrained(str(folder / "adapter"))
    return base, folder / "adapter"


def never_ending(checkpoint: Path, folder: Path, *, move: bool = False) -> Path:
    """The checkpoint with an end-of-turn token that cannot come, so that all answers are equally long."""
    copy = folder / "never-ending"
    if move:
        checkpoint.rename(copy)
    else:
        shutil.copytree(checkpoint, copy)
    settings = copy / "generation_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"eos_token_id": [10**9]}))
    return copy


def memory(device: str) -> int:
    """Bytes in use at the most since this was last asked, on the GPU if that is where models go."""
    if device != "cpu" and torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        return peak
    status = Path("/proc/self/status").read_text()
    Path("/proc/self/clear_refs").write_text("5")  # the kernel's peak of this process begins anew
    return 1024 * int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def face_number(seed: int) -> Image.Image:
    """A face that fills one tile."""
    return render(sample(seed), 448)


def question(face: Image.Image, adapter: str | None, *, tokens: int, text: str = QUESTION) -> Request:
    """One question about a face, to be answered in so many tokens."""
    return Request((Turn("user", text, (face,)),), adapter, Sampling(max_new_tokens=tokens))


def stream_of(model: ChatModel, face: Image.Image, *adapters: str | None, tokens: int) -> list[tuple[str, ...]]:
    """All updates of a pane for each adapter."""
    return list(model.stream([question(face, adapter, tokens=tokens) for adapter in adapters]))


def first_token(model: ChatModel, asks: int) -> dict[str, float]:
    """Seconds until both panes of a new face have begun, warm."""
    seconds = []
    for seed in range(asks + 2):  # the first two warm up
        face = face_number(seed)
        started = time.perf_counter()
        answers = model.stream([question(face, adapter, tokens=4) for adapter in (None, "tuned")])
        next(texts for texts in answers if all(texts))
        seconds.append(time.perf_counter() - started)
        for _ in answers:
            pass
    return spread("first_token", seconds[2:])


def spread(name: str, seconds: list[float]) -> dict[str, float]:
    """Median and 95th percentile."""
    ordered = sorted(seconds)
    return {
        f"{name}_median_s": statistics.median(ordered),
        f"{name}_p95_s": ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))],
    }


@contextmanager
def counted(kind: type) -> Iterator[Counter[type]]:
    """Count the calls of a kind of module meanwhile."""
    calls: Counter[type] = Counter()
    handle = torch.nn.modules.module.register_module_forward_pre_hook(
        lambda module, _: calls.update([type(module)]) if isinstance(module, kind) else None
    )
    try:
        yield calls
    finally:
        handle.remove()


def vision_calls(model: ChatModel) -> int:
    """Calls of the vision tower for two panes about a new face, a second turn, and the face once more."""
    face = face_number(4242)
    with counted(InternVLVisionModel) as calls:
        (first, _), *_ = [stream_of(model, face, None, "tuned", tokens=2)[-1]]
        later = (Turn("user", QUESTION, (face,)), Turn("assistant", first), Turn("user", "And the hair?"))
        list(model.stream([Request(later, None, Sampling(max_new_tokens=2))]))
        stream_of(model, face.copy(), None, tokens=2)
    return sum(calls.values())


def many_users(model: ChatModel, tokens: int) -> dict[str, Any]:
    """Eight visitors with two panes each ask at once; each is answered as if alone, and the ninth gets a sentence."""
    asked = [
        [
            question(face_number(100 + user), adapter, tokens=tokens, text=f"{QUESTION} {user}")
            for adapter in (None, "tuned")
        ]
        for user in range(USERS)
    ]
    begin, waits = threading.Barrier(USERS), [0.0] * USERS
    refused = 0

    def visit(user: int) -> list[str]:
        begin.wait()
        started = time.perf_counter()
        last: tuple[str, ...] = ()
        for last in model.stream(asked[user]):
            if not waits[user] and all(last):
                waits[user] = time.perf_counter() - started
        return list(last)

    with ThreadPoolExecutor(USERS) as visitors:
        running = [visitors.submit(visit, user) for user in range(USERS)]
        while model.pending < USERS and not all(future.done() for future in running):
            time.sleep(0.001)
        try:
            next(model.stream([question(face_number(1), None, tokens=1)]))
        except BusyError:
            refused = 1
        together = [future.result() for future in running]
    alone = [model.replies(requests) for requests in asked]
    return {
        **spread("first_token_of_8_users", waits),
        "8_users_answers_equal_alone": sum(a == b for a, b in zip(together, alone, strict=True)) / USERS,
        "past_the_limit_refused": refused,
    }


class PlainGenerate:
    """transformers alone: the processor and `generate`, as a script would call them."""

    def __init__(self, checkpoint: Path, device: torch.device, dtype: torch.dtype) -> None:
        self._processor = AutoProcessor.from_pretrained(checkpoint)
        self._model: Any = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=dtype, device_map={"": device})

    def merge(self, adapter: Path) -> None:
        """Answer as the adapter from now on."""
        self._model = PeftModel.from_pretrained(self._model, adapter).merge_and_unload()

    def reply(self, request: Request, tokens: int) -> str:
        """The answer."""
        inputs = self._processor.apply_chat_template(
            messages(request.conversation),
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        ).to(self._model.device, self._model.dtype)
        output = self._model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
        return str(self._processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))


def equal_answers(model: ChatModel, plain: PlainGenerate, adapter: str | None, tokens: int) -> float:
    """The share of some prompts to which both ways give the same answer, token by token."""
    prompts = [question(face_number(500 + number), adapter, tokens=tokens) for number in range(4)]
    pairs = zip(model.replies(prompts), (plain.reply(prompt, tokens) for prompt in prompts), strict=True)
    return sum(ours.rstrip("\ufffd") == theirs.rstrip("\ufffd") for ours, theirs in pairs) / len(prompts)


def throughput(model: ChatModel, plain: PlainGenerate, tokens: int, rounds: int) -> dict[str, float]:
    """Tokens a second of each way to answer, and the ratios that matter."""
    ways: dict[str, Callable[[Image.Image], Any]] = {
        "two_panes_one_batch": lambda face: stream_of(model, face, None, "tuned", tokens=tokens),
        "two_panes_two_passes": lambda face: [
            stream_of(model, face, adapter, tokens=tokens) for adapter in (None, "tuned")
        ],
        "one_pane": lambda face: stream_of(model, face, None, tokens=tokens),
        "plain_generate": lambda face: plain.reply(question(face, None, tokens=tokens), tokens),
    }
    seeds = itertools.count(1_000_000)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, run in ways.items():
            face = face_number(next(seeds))  # one that no way has seen; drawing it is not timed
            started = time.perf_counter()
            run(face)
            times[name].append(time.perf_counter() - started)
    seconds = {name: statistics.median(taken[1:]) for name, taken in times.items()}
    written = {name: tokens * (2 if name.startswith("two") else 1) for name in ways}
    return {
        **{f"{name}_tokens_per_s": written[name] / seconds[name] for name in ways},
        "one_batch_over_two_passes": seconds["two_panes_two_passes"] / seconds["two_panes_one_batch"],
        "one_pane_over_plain_generate": seconds["plain_generate"] / seconds["one_pane"],
    }


def show(figures: dict[str, Any], *, as_json: bool) -> None:
    """One JSON object, or a line for each figure."""
    if as_json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(
            f"{name.replace('_', ' '):48}{value:.3f}"
            if isinstance(value, float)
            else f"{name.replace('_', ' '):48}{value}"
        )


if __name__ == "__main__":
    main()
