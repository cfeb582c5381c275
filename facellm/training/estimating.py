"""Before a run starts: how much memory, disk and time it needs, and a refusal with numbers where it cannot fit.

    found = estimate(config, examples)
    check(found)                      raises ModelError with what to change
    python -m facellm estimate RUN_DIR

No weights are loaded: sizes come from the checkpoint's configuration (see `training_cost`), lengths from a sample of
the images with the most to say about them among it, and speed from a trial of a fraction of a second. The one
surprising fact: a run is refused only where four fifths of the estimate are more than there is, since what the
allocator and the libraries take beside is known to within a fifth or so and no better.
"""

import dataclasses
import json
import math
import shutil
import time
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
from PIL import Image, UnidentifiedImageError
from transformers import AutoConfig, AutoProcessor, InternVLProcessor

from facellm.checkpoint import check_kind
from facellm.conversation import Turn, as_plain_text
from facellm.data import Example, open_image, parse_example, read_examples
from facellm.errors import ModelError
from facellm.inputs import count_tiles, prompt_tokens
from facellm.sources import find_source, is_repository
from facellm.training.collate import NO_LOSS, Pair, Row, make_row, split
from facellm.training.free_memory import free_bytes
from facellm.training.recipe import RunConfig
from facellm.training.training_cost import (
    LORA_BYTES,
    Geometry,
    Load,
    Method,
    Operations,
    Shape,
    disk_features,
    feature_bytes,
    forward,
    memory,
    training,
    vision,
)
from facellm.training.training_speed import Speed, compute_type, measure_speed

SAMPLE = 48  # images, evenly spread
OPENED = 4  # images that are decoded, to see how long that takes
LONGEST = 16  # and those with the most characters
SURE = 0.8  # this share of an estimate is needed for certain
HUB_TIMEOUT = 3  # seconds
START_SECONDS = 6  # until torch and transformers are imported and a small base is there
SPARE_DISK = 100_000_000  # bytes that vision features leave: for logs, and for others
KEPT_CHECKPOINTS = 3  # two, and the one that is being written
CHAT_SECONDS = 1  # to load a model for the chat, beside reading its weights
LOADING = 2e-9  # seconds a weight: a gigabyte a second
GENERATED = 60  # tokens of an answer about a rendered face
_STAND_IN = Image.new("RGB", (1, 1))
_CHANGES = (  # what may be changed, that which costs least first
    {"rows_at_once": 1},
    {"feature_cache_mb": 0},
    {"dtype": "bfloat16"},
    {"gradient_checkpointing": True},
    {"quantization": "8bit"},
    {"quantization": "4bit"},
)


class ExamplesFile:
    """The examples of a JSONL file, read anew each time, so that they are never all in memory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __iter__(self) -> Iterator[Example]:
        return read_examples(self.path)

    def some(self, places: Container[int]) -> Iterator[Example]:
        """Those at these places, from 0; the other lines, which were read once, are not looked into again."""
        folder = self.path.parent.resolve()
        with self.path.open("rb") as lines:
            for place, line in enumerate(lines):
                if place in places:
                    yield parse_example(line, folder)


@dataclass(frozen=True)
class Estimate:
    """What a run needs, and what there is. All sizes in bytes."""

    device: str
    available: int
    dtype: str = ""
    steps: int = 0
    rows: int = 0  # that are trained on, once each epoch
    tokens: int = 0  # of all epochs, filling not counted
    longest_row: int = 0
    seconds: float = 0.0
    times: dict[str, float] = field(default_factory=dict)  # the same by stage
    memory: dict[str, int] = field(default_factory=dict)  # by part
    disk: dict[str, int] = field(default_factory=dict)  # by part
    disk_available: int | None = None
    base_model: str = ""
    unknown: str = ""  # why nothing could be estimated
    advice: str = ""  # a sentence where it does not fit, or may not

    @property
    def total(self) -> int:
        """Memory in all."""
        return sum(self.memory.values())

    @property
    def fits(self) -> bool:
        """False where it certainly does not."""
        return self.total * SURE <= self.available and self.disk_fits

    @property
    def disk_fits(self) -> bool:
        """The same of the disk alone."""
        return self.disk_available is None or sum(self.disk.values()) <= self.disk_available

    @property
    def is_tight(self) -> bool:
        """It may fit, and may not."""
        return self.fits and self.total > self.available

    def line(self) -> str:
        """The most important of it in a sentence or two."""
        if self.advice:  # says all of the memory, or why nothing is known
            return self.advice if self.unknown or not self.fits else f"About {_time(self.seconds)}. {self.advice}"
        return f"About {_time(self.seconds)} and {_size(self.total)} of memory; {_size(self.available)} are free."

    def table(self) -> str:
        """All of it for a person to read, a part a line."""
        if self.unknown:
            return f"{self.unknown} Free {_place(self.device)}: {_size(self.available)}."
        lines = [
            f"{self.steps} steps, {self.rows} rows of up to {self.longest_row} tokens, {self.tokens} tokens in all, "
            f"{self.dtype} on {self.device}",
            f"time    about {_time(self.seconds)}",
            *(f"          {_time(seconds):>10}  {name}" for name, seconds in self.times.items() if seconds >= 1),
            f"memory  about {_size(self.total)}; {_size(self.available)} are free {_place(self.device)}",
            *(f"          {_size(size):>10}  {name}" for name, size in self.memory.items() if size),
            f"disk    about {_size(sum(self.disk.values()))}"
            + ("" if self.disk_available is None else f"; {_size(self.disk_available)} are free"),
            *(f"          {_size(size):>10}  {name}" for name, size in self.disk.items() if size),
        ]
        return "\n".join([*lines, self.advice or "It fits."])

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return dataclasses.asdict(self) | {"total": self.total, "fits": self.fits, "tight": self.is_tight}


def estimate(
    config: RunConfig, examples: Iterable[Example], *, folder: Path | None = None, available: int | None = None
) -> Estimate:
    """What this run would need on this machine now.

    Args:
        examples: gone through twice, so a list or an `ExamplesFile`, not an iterator.
        folder: where the run lies, for the space on its disk; None: the disk is not looked at.
        available: bytes of memory that the run may have; None: what is free now.

    Raises:
        ModelError: there is no such base, or its configuration is damaged. A base on the Hub that cannot be asked for
            now is no error: the estimate then says that nothing is known.
        ImageError: an image of the sample cannot be opened.
    """
    device = _device(config)
    available = free_bytes(device) if available is None else available
    source, within, why = _files_of(config)
    if why:
        return Estimate(device=device, available=available, base_model=config.base_model, unknown=why, advice=why)
    shape, processor = _read_base(source, within, config.base_model)
    geometry = Geometry.of(shape)
    sample = _Sample.of(examples, processor)
    dtype = compute_type(config, device, geometry.width)
    return _Estimating(config, geometry, sample, device, available, dtype, folder).result()


def disk_budget(config: RunConfig, folder: Path, lora: int) -> int:
    """Bytes of the disk that vision features may take: as many as the recipe says, but never what a run's end needs.

    Args:
        folder: the run's.
        lora: how many weights the adapter has.
    """
    left = shutil.disk_usage(folder).free - sum(_written(lora).values()) - SPARE_DISK
    return max(0, min(int(config.feature_disk_gb * 1e9), left))


def _written(lora: int) -> dict[str, int]:
    """Bytes that a run writes in any case."""
    return {"checkpoints": KEPT_CHECKPOINTS * lora * (LORA_BYTES - 4), "adapter": 4 * lora}


def check(found: Estimate) -> None:
    """Raise ModelError, with the numbers and what would help, where a run certainly cannot fit."""
    if not found.fits:
        raise ModelError(found.advice)


@dataclass(frozen=True)
class _Sample:
    """Some of the images with all their pairs in tokens, and how many there are in all."""

    spread: Sequence[Sequence[Pair]]
    longest: Sequence[Sequence[Pair]]
    tiles: Sequence[int]  # of each image of the spread ones
    images: int
    groups: int
    pairs: int
    pair_seconds: float  # to read a pair and turn it into tokens
    image_seconds: float  # to open an image

    @classmethod
    def of(cls, examples: Iterable[Example], processor: InternVLProcessor) -> "_Sample":
        characters: Counter[tuple[str, ...]] = Counter()
        places: dict[tuple[str, ...], list[int]] = {}
        for place, example in enumerate(examples):
            characters[example.images] += len(example.question) + len(example.answer)
            places.setdefault(example.images, []).append(place)
        pairs = sum(map(len, places.values()))
        if not pairs:
            raise ModelError("There is no pair to train on, so nothing can be estimated. Accept some pairs first.")
        names = list(characters)
        spread = names[:: max(1, len(names) // SAMPLE)]
        most = [name for name, _ in characters.most_common(LONGEST)]
        wanted: dict[tuple[str, ...], list[Example]] = {name: [] for name in [*spread, *most]}
        for example in _some(examples, {place for name in wanted for place in places[name]}):
            wanted[example.images].append(example)
        encoder = _Encoder(processor)
        started = time.perf_counter()
        encoded = {name: [encoder.pair(example) for example in some] for name, some in wanted.items()}
        pair_seconds = (time.perf_counter() - started) / sum(map(len, encoded.values()))
        tiles = [encoder.tiles(path) for name in spread for path in name]
        opened = [path for name in spread[:: max(1, len(spread) // OPENED)] for path in name][:OPENED]
        started = time.perf_counter()
        for path in opened:
            open_image(path)
        return cls(
            spread=[encoded[name] for name in spread],
            longest=[encoded[name] for name in most],
            tiles=tiles,
            images=len({path for name in names for path in name}),
            groups=len(names),
            pairs=pairs,
            pair_seconds=pair_seconds,
            image_seconds=(time.perf_counter() - started) / len(opened),
        )

    def load(self, config: RunConfig) -> Load:
        """The same in rows as the run would make them."""
        spread, most = (
            [row for pairs in groups for row in _rows(pairs, config)] for groups in (self.spread, self.longest)
        )
        answers = [sum(label != NO_LOSS for label in row.labels) for row in [*spread, *most]]
        tokens = [len(row) for row in spread]
        rows = max(1, round(len(spread) / len(self.spread) * self.groups))
        an_epoch = self._steps_of_an_epoch(config, rows)
        return Load(
            rows=rows,
            mean=sum(tokens) / len(tokens),
            typical=_shape(sorted(spread, key=len)[len(spread) // 2]),
            longest=_shape(max([*spread, *most], key=len)),
            answers=sum(answers[: len(spread)]) / len(spread),
            most_answers=max(answers),
            images=self.images,
            held=self._held(config),
            epochs=config.max_steps / an_epoch if config.max_steps else config.epochs,
            steps=config.max_steps or an_epoch * config.epochs,
            tiles=sum(self.tiles) / len(self.tiles),
            most_tiles=max(self.tiles),
        )

    def _held(self, config: RunConfig) -> float:
        return int(config.held_out * self.images) / self.images

    def _steps_of_an_epoch(self, config: RunConfig, rows: int) -> int:
        trained = max(1, round(rows * (1 - self._held(config))))
        return math.ceil(trained / max(1, round(config.batch_size * rows / self.pairs)))


def _some(examples: Iterable[Example], places: Container[int]) -> Iterable[Example]:
    if isinstance(examples, ExamplesFile):
        return examples.some(places)
    return (example for place, example in enumerate(examples) if place in places)


def _rows(pairs: Sequence[Pair], config: RunConfig) -> list[Row]:
    """These pairs of the same images in rows; one that is too long, which the trainer will refuse, has one alone."""
    longest = max(config.max_length, *map(len, pairs))
    groups = [pairs] if config.share_prefix else [[pair] for pair in pairs]
    return [make_row(part) for group in groups for part in split(group, longest)]


def _shape(row: Row) -> Shape:
    sizes = Counter(row.segments)
    prefix = sizes.pop(0, 0)
    return Shape(length=len(row), prefix=prefix, branches=len(sizes), branch=max(sizes.values()))


class _Encoder:
    """Examples in the tokens that the trainer would see, from the headers of images alone."""

    def __init__(self, processor: InternVLProcessor) -> None:
        self._processor = processor
        self._special = [str(token) for token in processor.tokenizer.added_tokens_decoder.values()]
        self.tiles = cache(self._count_tiles)
        self._prompt = cache(self._encode_prompt)

    def pair(self, example: Example) -> Pair:
        tokenizer = self._processor.tokenizer
        answer = tokenizer(as_plain_text(example.answer, self._special), add_special_tokens=False)["input_ids"]
        prompt = self._prompt(example.question, tuple(map(self.tiles, example.images)))
        return Pair((0,) * len(example.images), prompt, [*answer, tokenizer.eos_token_id])

    def _encode_prompt(self, question: str, tiles: tuple[int, ...]) -> list[int]:
        return prompt_tokens([Turn("user", question, (_STAND_IN,) * len(tiles))], self._processor, tiles)

    def _count_tiles(self, path: str) -> int:
        try:
            with Image.open(path) as image:  # reads the header alone
                return count_tiles(image, self._processor)
        except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError):
            return count_tiles(open_image(path), self._processor)  # says in a sentence what is wrong with it


@dataclass(frozen=True)
class _Estimating:
    """Everything that an estimate is made from."""

    config: RunConfig
    geometry: Geometry
    sample: _Sample
    device: str
    available: int
    dtype: torch.dtype
    folder: Path | None

    def result(self) -> Estimate:
        config, load = self.config, self.sample.load(self.config)
        rows = max(1, round(load.rows * (1 - load.held)))
        times = self._times(load)
        found = Estimate(
            device=self.device,
            available=self.available,
            dtype=str(self.dtype).removeprefix("torch."),
            steps=load.steps,
            rows=rows,
            tokens=round(rows * load.mean * load.epochs),
            longest_row=load.longest.length,
            seconds=round(sum(times.values()), 1),
            times={name: round(seconds, 1) for name, seconds in times.items()},
            memory=self._memory(config),
            disk=self._disk(load),
            disk_available=None if self.folder is None else shutil.disk_usage(self.folder).free,
            base_model=config.base_model,
        )
        return dataclasses.replace(found, advice=self._advice(found))

    def _method(self, config: RunConfig) -> Method:
        same = (config.dtype, config.quantization) == (self.config.dtype, self.config.quantization)
        dtype = self.dtype if same else compute_type(config, self.device, self.geometry.width)
        return Method(
            device=self.device,
            dtype=dtype,
            quantization=config.quantization,
            at_once=config.rows_at_once,
            rank=config.rank,
            checkpointing=config.gradient_checkpointing,
            feature_memory=config.feature_cache_mb * 1024 * 1024,
            dropout=config.dropout > 0,
        )

    def _memory(self, config: RunConfig) -> dict[str, int]:
        return memory(self.geometry, self.sample.load(config), self._method(config))

    def _times(self, load: Load) -> dict[str, float]:
        """Seconds by stage."""
        config, geometry, method, sample = self.config, self.geometry, self._method(self.config), self.sample
        at_once = round(load.mean * min(method.at_once, load.rows))
        speed = measure_speed(self.device, self.dtype, geometry.width, geometry.inner, tokens=at_once)
        looks = self._looks(load)
        trained = training(geometry, load, method) * (load.epochs * (1 - load.held))
        measurements = config.evaluations * load.epochs + 1 if load.held else 0.0
        return {
            "start": START_SECONDS + geometry.weights * LOADING,
            "reading": sample.images * sample.image_seconds + sample.pairs * sample.pair_seconds,
            "training": _seconds(trained, speed) + load.epochs * sample.pairs * sample.pair_seconds,
            "vision tower": _seconds(vision(geometry, load.tiles), speed) * looks + 2 * looks * sample.image_seconds,
            "held-out loss": _seconds(forward(geometry, load, method) * (load.held * measurements), speed),
            "rendered faces": self._faces_seconds(load, speed),
        }

    def _looks(self, load: Load) -> float:
        """How many images go through the tower in all: each once, and again where its features are not kept."""
        method = self._method(self.config)
        room = method.feature_memory + self._disk_budget()
        needed = feature_bytes(self.geometry, load, method)
        kept = 1.0 if needed <= room else room / needed
        seen = min(1.0, load.epochs * (1 - load.held) + load.held)
        return load.images * (seen + max(0.0, load.epochs - 1) * (1 - kept))

    def _faces_seconds(self, load: Load, speed: Speed) -> float:
        """Of the questions about rendered faces after the run: to the base, to the run and to the adapter in use.

        Answers are written 32 side by side, a token of each at a time, and the weights are gone through for each.
        """
        models = 2 if self.config.compare_with is None else 3
        questions = models * 8 * self.config.measured_faces
        if not questions:
            return 0.0
        geometry, method = self.geometry, self._method(self.config)
        asked = dataclasses.replace(load, rows=questions, answers=1)
        reading = forward(geometry, asked, method) + vision(geometry, models * self.config.measured_faces)
        weights = (geometry.weights - geometry.vision) * method.size
        token = weights / speed.moved + geometry.layers * speed.call
        load_again = geometry.weights * LOADING + CHAT_SECONDS
        return load_again + _seconds(reading, speed) + math.ceil(questions / 32) * GENERATED * token

    @property
    def _lora(self) -> int:
        return self.geometry.rank_weights * self.config.rank

    def _disk_budget(self) -> int:
        if self.folder is None:
            return int(self.config.feature_disk_gb * 1e9)
        return disk_budget(self.config, self.folder, self._lora)

    def _disk(self, load: Load) -> dict[str, int]:
        spilled = min(disk_features(self.geometry, load, self._method(self.config)), self._disk_budget())
        return {"vision features": spilled} | _written(self._lora)

    def _advice(self, found: Estimate) -> str:
        if not found.disk_fits:
            return self._disk_advice(found)
        if found.total <= found.available:
            return ""
        needs = (
            f"Training {_short(found.base_model)} needs about {_size(found.total)} {_place(found.device)} and "
            f"{_size(found.available)} are free"
        )
        changes, left = self._savings(found)
        if not changes:
            return f"{needs}: no number of the recipe would change that. Choose a smaller base model."
        last = "that would be enough" if left <= found.available else f"even then it would be {_size(left)}"
        doubt = "" if not found.fits else "It may fit or not. "
        return f"{doubt}{needs}: {_largest(found)}. Set {', '.join(changes)}; {last}."

    def _savings(self, found: Estimate) -> tuple[list[str], int]:
        """Changes that help, in the order in which they cost least, each upon the ones before; and what is left."""
        config, left, told = self.config, found.total, []
        for change in self._possible_changes():
            changed = config.model_copy(update=change)
            need = sum(self._memory(changed).values())
            if left - need < 0.02 * found.total:
                continue
            (name, value), *_ = change.items()
            told.append(f"{name}={json.dumps(value).strip(chr(34))} (−{_size(left - need)})")
            config, left = changed, need
            if left <= found.available:
                break
        return told, left

    def _possible_changes(self) -> Iterator[dict[str, Any]]:
        for change in _CHANGES:
            (name, value), *_ = change.items()
            if getattr(self.config, name) == value or (name == "quantization" and self.device == "cpu"):
                continue
            if name == "gradient_checkpointing":
                yield from self._shorter_rows()
            yield change

    def _shorter_rows(self) -> Iterator[dict[str, Any]]:
        """Rows may be split between pairs, at no loss but that the image is computed again; no pair may be cut."""
        longest = max(len(pair) for group in [*self.sample.spread, *self.sample.longest] for pair in group)
        shorter = max(longest, self.config.max_length // 2)
        if self.config.share_prefix and shorter < self.config.max_length:
            yield {"max_length": shorter}

    def _disk_advice(self, found: Estimate) -> str:
        assert found.disk_available is not None
        needs = ", ".join(f"{_size(size)} for {name}" for name, size in found.disk.items() if size)
        return (
            f"Training {_short(found.base_model)} needs {_size(sum(found.disk.values()))} of the disk ({needs}) and "
            f"{_size(found.disk_available)} are free: free some space."
        )


def _seconds(work: Operations, speed: Speed) -> float:
    return work.products / speed.products + work.moved / speed.moved + work.calls * speed.call


def _largest(found: Estimate) -> str:
    ordered = sorted(found.memory.items(), key=lambda part: -part[1])[:3]
    return ", ".join(f"{_size(size)} {name}" for name, size in ordered)


def _size(size: float) -> str:
    if size < 0.995e9:
        return f"{size / 1e6:.0f} MB"
    return f"{size / 1e9:.1f} GB" if size < 9.95e9 else f"{size / 1e9:.0f} GB"


def _place(device: str) -> str:
    return "on the GPU" if device == "cuda" else "of this machine's memory"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} h"


def _short(base_model: str) -> str:
    return base_model.rstrip("/").rpartition("/")[2] or base_model


def _device(config: RunConfig) -> str:
    if config.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ModelError("The device is set to cuda, but no GPU was found. Set device to auto or cpu.")
    return config.device


def _files_of(config: RunConfig) -> tuple[str, str, str]:
    """The base's folder, the folder within, and why neither can be had, for a base on the Hub that is not here."""
    source, within = find_source(config.checkpoint, "model")
    if not is_repository(source):
        return source, within, ""
    try:
        return _download_settings(source, within), within, ""
    except (LocalEntryNotFoundError, RepositoryNotFoundError, HfHubHTTPError, OSError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        return (
            "",
            "",
            (
                f"The configuration of {config.base_model} is not on this machine and cannot be had from the Hugging "
                f"Face Hub now ({reason}), so nothing can be estimated."
            ),
        )


def _download_settings(repository: str, within: str) -> str:
    """The small files of a repository, from the cache where they are in it."""
    wanted = [f"{within}/*" if within else "*"]
    settings = [pattern.removesuffix("*") + kind for pattern in wanted for kind in ("*.json", "*.jinja", "*.txt")]
    try:
        folder = snapshot_download(repository, allow_patterns=settings, local_files_only=True)
        if (Path(folder) / within / "config.json").is_file():
            return folder
    except LocalEntryNotFoundError:
        pass
    return snapshot_download(repository, allow_patterns=settings, etag_timeout=HUB_TIMEOUT)


def _read_base(source: str, within: str, name: str) -> tuple[Any, InternVLProcessor]:
    try:
        shape = AutoConfig.from_pretrained(source, subfolder=within)
        check_kind(shape, name)
        return shape, AutoProcessor.from_pretrained(source, subfolder=within)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise ModelError(
            f"Nothing can be estimated for {name}, since its configuration cannot be read: {reason}. Expected a "
            "folder, or a repository of the Hugging Face Hub, that holds an InternVL checkpoint."
        ) from error
