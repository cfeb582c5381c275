"""How the next token of each row is chosen: by its own temperature, top-p and seed, whoever its neighbours are.

The one surprising fact: a seed belongs to a row, not to the process, so an answer is the same whether it is written
alone or in a batch with others', up to the rounding of the logits themselves.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from facellm.conversation import Sampling


class Chooser:
    """Chooses the tokens of one row.

    Args:
        sampling: temperature 0 takes the likeliest token.
        settings: the checkpoint's own; of these a repetition penalty is kept, since its answers were tuned with it.
        prompt: the row's tokens before the answer.
    """

    def __init__(
        self, sampling: Sampling, settings: GenerationConfig, prompt: Sequence[int], device: torch.device
    ) -> None:
        self._prompt = prompt
        self._device = device
        self._generator: torch.Generator | None = None
        self._processors = LogitsProcessorList(_processors(sampling, settings))
        if sampling.temperature > 0:
            self._generator = torch.Generator(device).manual_seed(sampling.seed)

    @property
    def plain(self) -> bool:
        """Whether it takes the likeliest token as it is: then all such rows are chosen at once."""
        return self._generator is None and not self._processors

    def choose(self, logits: Tensor, written: Sequence[int]) -> Tensor:
        """The next token, a scalar, from logits [vocabulary], after the tokens written so far."""
        scores = logits[None]
        if self._processors:
            ids = torch.tensor([[*self._prompt, *written]], device=self._device)
            scores = self._processors(ids, scores)  # type: ignore[arg-type]
        if self._generator is None:
            return scores[0].argmax()
        chances = scores[0].softmax(-1)
        if not chances.isfinite().all():  # such as a damaged adapter's: only its own answer suffers
            return logits.nan_to_num().argmax()
        return torch.multinomial(chances, 1, generator=self._generator)[0]


def choose(choosers: Sequence[Chooser], logits: Tensor, written: Sequence[Sequence[int]]) -> list[int]:
    """The next token of each row from logits [rows, vocabulary]; the device is waited for once."""
    likeliest = logits.argmax(-1)
    if all(chooser.plain for chooser in choosers):
        return [int(token) for token in likeliest.tolist()]
    chosen = [
        likeliest[row] if chooser.plain else chooser.choose(logits[row], written[row])
        for row, chooser in enumerate(choosers)
    ]
    return [int(token) for token in torch.stack(chosen).tolist()]


def _processors(sampling: Sampling, settings: GenerationConfig) -> list[LogitsProcessor]:
    found: list[LogitsProcessor] = []
    if settings.repetition_penalty not in (None, 1.0):
        found.append(RepetitionPenaltyLogitsProcessor(settings.repetition_penalty))
    if sampling.temperature > 0:
        if sampling.temperature != 1:
            found.append(TemperatureLogitsWarper(float(sampling.temperature)))
        if sampling.top_p < 1:
            found.append(TopPLogitsWarper(sampling.top_p))
    return found
