"""How fast the chat answers, beside plain `generate` in the same run: python benchmarks/chat.py [--json] [--quick].

Greedy answers of a fixed length (no early end), so that every way writes the same number of tokens. Ways are timed in
turns and compared as ratios, because the machine's own speed changes from minute to minute.
"""

import argparse
import itertools
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.utils.logging import disable_progress_bar

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from facellm import tiny
from facellm.config import EMBEDDED_ADAPTER, EMBEDDED_BASE
from facellm.faces import render, sample
from facellm.model import ChatModel, Request, Sampling, Turn, messages

QUESTION = "Describe the expression and emotion of the image based on the visual information."


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions: well under a minute")
    options = parser.parse_args()
    asks, rounds, tokens = (15, 3, 48) if options.quick else (100, 20, 160)
    disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        base, adapter = checkpoint_and_adapter(Path(folder))
        base = never_ending(base, Path(folder))
        with ChatModel.load(base) as model:
            model.add_adapter("tuned", adapter)
            figures = {
                "model": "embedded" if EMBEDDED_BASE.exists() else "untrained tiny",
                "device": str(model.device),
                "asks": asks,
                "rounds": rounds,
                "tokens_each": tokens,
                **first_token(model, asks),
                **throughput(model, PlainGenerate(base, model.device), tokens, rounds),
            }
    show(figures, as_json=options.json)


def checkpoint_and_adapter(folder: Path) -> tuple[Path, Path]:
    """The embedded pair where it has been built, else an untrained model with a random adapter."""
    if EMBEDDED_BASE.exists() and EMBEDDED_ADAPTER.exists():
        return EMBEDDED_BASE, EMBEDDED_ADAPTER
    tiny.save_untrained(folder / "base")
    targets = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"
    model = AutoModelForImageTextToText.from_pretrained(folder / "base")
    get_peft_model(model, LoraConfig(r=16, target_modules=targets)).save_pretrained(str(folder / "adapter"))
    return folder / "base", folder / "adapter"


def never_ending(checkpoint: Path, folder: Path) -> Path:
    """A copy of the checkpoint with an end-of-turn token that cannot come, so that all answers are equally long."""
    copy = shutil.copytree(checkpoint, folder / "never-ending")
    settings = copy / "generation_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"eos_token_id": [10**9]}))
    return copy


def question(face: Image.Image, adapter: str | None = None, *, tokens: int) -> Request:
    """One question about a face, to be answered in so many tokens."""
    return Request((Turn("user", QUESTION, (face,)),), adapter, Sampling(max_new_tokens=tokens))


def first_token(model: ChatModel, asks: int) -> dict[str, float]:
    """Seconds until both panes of a new face have begun, warm."""
    seconds = []
    for seed in range(asks + 3):  # the first three warm up
        face = render(sample(seed))
        requests = [question(face, tokens=4), question(face, "tuned", tokens=4)]
        started = time.perf_counter()
        answers = model.stream(requests)
        next(texts for texts in answers if any(texts))
        seconds.append(time.perf_counter() - started)
        for _ in answers:
            pass
    seconds = sorted(seconds[3:])
    return {
        "first_token_median_s": statistics.median(seconds),
        "first_token_p95_s": seconds[min(len(seconds) - 1, round(0.95 * (len(seconds) - 1)))],
    }


class PlainGenerate:
    """transformers alone: the processor and `generate`, as a script would call them."""

    def __init__(self, checkpoint: Path, device: torch.device) -> None:
        self._processor = AutoProcessor.from_pretrained(checkpoint)
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        self._model: Any = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=dtype, device_map={"": device})

    def reply(self, request: Request, tokens: int) -> str:
        """The answer with its special tokens."""
        inputs = self._processor.apply_chat_template(
            messages(request.conversation),
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        ).to(self._model.device, self._model.dtype)
        output = self._model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
        return str(self._processor.decode(output[0, inputs["input_ids"].shape[1] :]))


def throughput(model: ChatModel, plain: PlainGenerate, tokens: int, rounds: int) -> dict[str, float]:
    """Tokens a second of each way to answer, and the ratios that matter."""

    def stream(face: Image.Image, *adapters: str | None) -> list[tuple[str, ...]]:
        return list(model.stream([question(face, adapter, tokens=tokens) for adapter in adapters]))

    ways: dict[str, Callable[[Image.Image], Any]] = {
        "two_panes_one_batch": lambda face: stream(face, None, "tuned"),
        "two_panes_two_passes": lambda face: stream(face, None) + stream(face, "tuned"),
        "one_pane": lambda face: stream(face, None),
        "plain_generate": lambda face: plain.reply(question(face, tokens=tokens), tokens),
    }
    seeds = itertools.count(1_000_000)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, run in ways.items():
            face = render(sample(next(seeds)))  # one that no way has seen; drawing it is not timed
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
        print(f"{name.replace('_', ' '):36}{value:.3f}" if isinstance(value, float) else f"{name:36}{value}")


if __name__ == "__main__":
    main()
