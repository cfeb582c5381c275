"""Whether a base with an adapter says what another checkpoint says: the gate of `python -m facellm extract`.

The other checkpoint answers some questions greedily; then both read prompt and answer, and are compared on the next
token at every position of the answers. They are in memory one after the other. The one surprising fact: of the first
one nothing is kept but its last hidden states, a thousandth of its scores, since both have the same head.
"""

import dataclasses
import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from facellm.checkpoint import load_checkpoint
from facellm.conversation import Request, Sampling, Turn
from facellm.data import Attribute, open_image
from facellm.errors import DataError, ModelError
from facellm.faces import EVALUATION_SEEDS, render, sample
from facellm.inputs import Prompt, embed
from facellm.loaded import LoadedModel

LEAST_SAME = 0.99
MOST_KL = 1e-3
FACES = 8  # rendered ones, where no prompts are given
LONGEST_ANSWER = 64  # tokens
ROWS_AT_ONCE = 32
POSITIONS_AT_ONCE = 128  # of which all scores are in memory

Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class Question:
    """What both are asked."""

    images: tuple[Image.Image, ...]
    text: str


@dataclass(frozen=True)
class Answered:
    """A checkpoint's own answer, and what it was thinking."""

    prompt: Prompt
    answer: tuple[int, ...]
    hidden: Tensor  # [positions, width]: before each token of the answer, and after the last one


@dataclass(frozen=True)
class Agreement:
    """How far two models agree on the next token; KL in nats, of the adapter's distribution from the checkpoint's."""

    prompts: int
    positions: int
    same: float  # share of the positions at which both find the same token likeliest
    mean_kl: float
    largest_kl: float

    @property
    def passed(self) -> bool:
        """Whether the gate is open."""
        return self.same >= LEAST_SAME and self.mean_kl <= MOST_KL

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return dataclasses.asdict(self) | {"passed": self.passed, "least_same": LEAST_SAME, "most_kl": MOST_KL}

    def __str__(self) -> str:
        return (
            f"the next token is the same at {100 * self.same:.2f} % of {self.positions:,} positions in "
            f"{self.prompts:,} answers (needed: {100 * LEAST_SAME:g} %), mean KL {self.mean_kl:.2g} (at most "
            f"{MOST_KL:g}), largest {self.largest_kl:.2g}"
        )


class _Line(BaseModel):
    """A line of a file of prompts; an Example is one, too."""

    model_config = ConfigDict(extra="ignore")

    images: tuple[str, ...]
    question: str = Field(min_length=1)


def default_questions() -> list[Question]:
    """Rendered faces that no model of ours was trained on, each with the eight questions."""
    pictures = [render(sample(seed)) for seed in EVALUATION_SEEDS[-FACES:]]
    return [Question((picture,), attribute.question) for picture in pictures for attribute in Attribute]


def read_questions(path: Path) -> list[Question]:
    """The prompts of a JSONL file, such as a snapshot's: `images`, relative to the file's folder, and `question`.

    Raises:
        DataError: there is no such file, it has no line, or a line is something else.
        ImageError: an image cannot be opened.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist. Expected a JSONL file of prompts, such as a snapshot's.")
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            read = _Line.model_validate_json(line)
        except ValidationError as error:
            raise DataError(
                f"{path}, line {number}: {error.errors()[0]['msg']}. Expected an object with images and a question."
            ) from error
        found.append(Question(tuple(open_image(path.parent / image) for image in read.images), read.question))
    if not found:
        raise DataError(f"{path} is empty. Expected a prompt a line, with images and a question.")
    return found


@torch.no_grad()
def answer(
    checkpoint: str | Path, questions: Sequence[Question], *, device: Device, dtype: torch.dtype
) -> list[Answered]:
    """What a checkpoint says to these questions.

    Raises:
        ModelError: it cannot be loaded, or the memory is too small.
    """
    loaded = _loaded(checkpoint, device, dtype)
    requests = [
        Request((Turn("user", each.text, each.images),), None, Sampling(max_new_tokens=LONGEST_ANSWER))
        for each in questions
    ]
    found = []
    for first in range(0, len(requests), ROWS_AT_ONCE):
        rows = loaded.rows(requests[first : first + ROWS_AT_ONCE], lambda: False)
        for row in rows:
            loaded.decoder.admit(row)
        while not all(row.done for row in rows):
            loaded.decoder.work()
        for row in rows:
            if row.error is not None:
                raise row.error
            found.append(_read(loaded, row.prompt, tuple(row.text.tokens)))
    return found


@torch.no_grad()
def compare(
    base: str | Path, adapter: Path, answered: Sequence[Answered], *, device: Device, dtype: torch.dtype
) -> Agreement:
    """How far the base with the adapter, as the chat computes it, agrees with who gave these answers.

    Raises:
        ModelError: the base cannot be loaded, the adapter does not fit it, or the memory is too small.
    """
    loaded = _loaded(base, device, dtype)
    loaded.adapters.add("compared", adapter)
    loaded.adapters.choose([loaded.adapters.slot("compared")])
    same, divergences = 0, []
    for other in answered:
        mine = _read(loaded, other.prompt, other.answer)
        for theirs, ours in _scores(loaded, other.hidden, mine.hidden):
            same += int((theirs.argmax(-1) == ours.argmax(-1)).sum())
            divergences.append((theirs.exp() * (theirs - ours)).sum(-1))
    kl = torch.cat(divergences).double()
    return Agreement(len(answered), len(kl), same / len(kl), max(0.0, float(kl.mean())), float(kl.max()))


def _loaded(checkpoint: str | Path, device: Device, dtype: torch.dtype) -> LoadedModel:
    gc.collect()  # an earlier model is in a cycle with its hooks
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    model, processor = load_checkpoint(checkpoint, device=device, dtype=dtype)
    return LoadedModel(None, str(checkpoint), model, processor)


def _read(loaded: LoadedModel, prompt: Prompt, answer: tuple[int, ...]) -> Answered:
    """The hidden states with which a model foresees each token of an answer, and what comes after it."""
    model: Any = loaded.model
    try:
        tokens = torch.tensor(answer, dtype=torch.long, device=model.device)
        embedded = torch.cat([embed(prompt, model), model.get_input_embeddings()(tokens)])[None]
        hidden = model.model.language_model(inputs_embeds=embedded, use_cache=False).last_hidden_state
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"The memory of {model.device} is too small to compare in {model.dtype}. Try --dtype bfloat16, or a larger "
            "GPU."
        ) from error
    return Answered(prompt, answer, hidden[0, len(prompt.tokens) - 1 :].float().cpu())


def _scores(loaded: LoadedModel, *hidden: Tensor) -> Iterator[list[Tensor]]:
    """Log-probabilities of all tokens, some positions at a time, for each of several hidden states."""
    head: Any = loaded.model.lm_head
    for parts in zip(*(each.split(POSITIONS_AT_ONCE) for each in hidden), strict=True):
        scores = (head(part.to(head.weight.device, head.weight.dtype)) for part in parts)
        yield [each.float().log_softmax(-1) for each in scores]
