"""A checkpoint in memory with all that belongs to it: processor, adapters, vision features, decoder.

Used by `facellm.model` on its worker thread. The one surprising fact: two checkpoints of one family, such as FaceLLM
and the InternVL3 it was trained from, have the same vision tower, so what one has seen the other need not look at.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import nn
from transformers import InternVLForConditionalGeneration, InternVLProcessor

from facellm.adapters import AdapterSet
from facellm.conversation import Request
from facellm.decoding import Decoder, Row
from facellm.inputs import ImageFeatures, make_prompts
from facellm.row_text import RowText
from facellm.sampling import Chooser

PREFIX_SHARE = 0.05  # of the device's memory, for the conversations that may go on
LEAST_PREFIX_BYTES = 256 * 1024 * 1024


class LoadedModel:
    """One checkpoint, ready to answer. Not thread-safe.

    Args:
        name: by which requests ask it; None for the base.
        source: what it was loaded from.
        like: a model whose vision features are used if both see alike.
    """

    def __init__(
        self,
        name: str | None,
        source: str,
        model: InternVLForConditionalGeneration,
        processor: InternVLProcessor,
        *,
        like: "LoadedModel | None" = None,
    ) -> None:
        self.name = name
        self.source = source
        self.model = model
        self.processor = processor
        self.adapters = AdapterSet(model)
        self.decoder = Decoder(model, self.adapters, prefix_bytes=_prefix_bytes(model.device))
        self.features = ImageFeatures(model, processor)
        self._looking = self.decoder  # the decoder that can abandon a look at a picture
        if like is not None and _see_alike(self, like):
            self.features, self._looking = like.features, like.decoder
        for layer in model.model.vision_tower.encoder.layer:
            layer.register_forward_pre_hook(self._check_wanted)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return torch.device(self.model.device)

    def rows(self, requests: Sequence[Request], stopped: Callable[[], bool]) -> list[Row]:
        """Rows to be admitted to the decoder; the pictures are looked at here.

        Raises:
            ModelError: an adapter is not loaded, or a conversation is too long.
            Abandoned: `stopped()` has become true.
        """
        slots = [self._slot(request.model) for request in requests]
        with self._looking.wanted(lambda: not stopped()):
            prompts = make_prompts(requests, self.processor, self.features, context=self._context())
        found = []
        for request, slot, prompt in zip(requests, slots, prompts, strict=True):
            limit = min(request.sampling.max_new_tokens, self._context() - len(prompt.tokens))
            found.append(
                Row(
                    decoder=self.decoder,
                    prompt=prompt,
                    slot=slot,
                    chooser=Chooser(request.sampling, self.model.generation_config, prompt.tokens, self.device),
                    text=RowText(self.processor.tokenizer, self._end_tokens(), limit),
                    stopped=stopped,
                )
            )
        return found

    def _check_wanted(self, *_: object) -> None:
        self._looking.check_wanted()

    def _slot(self, name: str | None) -> str | None:
        return None if name is None or name == self.name else self.adapters.slot(name)

    def _context(self) -> int:
        return int(self.model.config.get_text_config().max_position_embeddings)

    def _end_tokens(self) -> frozenset[int]:
        """The tokens that end an answer."""
        found = self.model.generation_config.eos_token_id
        if found is None:
            found = self.processor.tokenizer.eos_token_id
        return frozenset(found if isinstance(found, list) else [found])


@dataclass(frozen=True)
class Memory:
    """Bytes in use on the models' device."""

    weights: int
    adapters: int
    conversations: int  # keys and values that are kept for next turns
    pictures: int  # vision features

    @classmethod
    def of(cls, models: Sequence[LoadedModel]) -> Self:
        """Of several models together; what they share counts once."""
        weights = {
            tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
            for loaded in models
            for tensor in (*loaded.model.parameters(), *loaded.model.buffers())
        }
        return cls(
            weights=sum(weights.values()),
            adapters=sum(loaded.adapters.nbytes for loaded in models),
            conversations=sum(loaded.decoder.prefixes.nbytes for loaded in models),
            pictures=sum(features.nbytes for features in {loaded.features for loaded in models}),
        )

    @property
    def total(self) -> int:
        """All together."""
        return self.weights + self.adapters + self.conversations + self.pictures


def _see_alike(one: LoadedModel, other: LoadedModel) -> bool:
    """Whether both give an image the same features: one tower, one projector, the same preparation."""
    parts = ("vision_tower", "multi_modal_projector")
    same = all(
        _storages(getattr(one.model.model, part)) == _storages(getattr(other.model.model, part)) for part in parts
    )
    return same and one.processor.image_processor.to_dict() == other.processor.image_processor.to_dict()


def _storages(module: nn.Module) -> list[int]:
    return [tensor.data_ptr() for tensor in module.parameters()]


def _prefix_bytes(device: torch.device) -> int:
    if device.type != "cuda":
        return LEAST_PREFIX_BYTES
    return max(LEAST_PREFIX_BYTES, int(PREFIX_SHARE * torch.cuda.get_device_properties(device).total_memory))
