"""From conversations to the tensors of one batch: prompts padded on the left, vision features once for each image.

The features go to `generate` as `mm_encoder_outputs`, so the vision tower runs once for an image that several panes or
several turns share, and not at all for an image that was seen lately. The one surprising fact: the language model takes
the features in the order of the image tokens over (row, position), so that order is all that ties them to their rows.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from transformers import InternVLForConditionalGeneration, InternVLProcessor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from facellm.conversation import Request, Turn, as_plain_text, messages
from facellm.errors import ModelError

FEATURE_BYTES = 256 * 1024 * 1024  # an 8B model's features of one 13-tile image are 24 MiB
TILES_PER_CALL = 32  # bounds the vision tower's memory


class ImageFeatures:
    """The projected vision features of images, by their content; the least recently used are dropped.

    Args:
        budget: bytes of features to keep. A batch may need more for as long as it runs.
    """

    def __init__(
        self, model: InternVLForConditionalGeneration, processor: InternVLProcessor, *, budget: int = FEATURE_BYTES
    ) -> None:
        self._model = model
        self._processor = processor
        self._budget = budget
        self._kept: OrderedDict[bytes, torch.Tensor] = OrderedDict()

    def of(self, images: Sequence[Image.Image]) -> list[torch.Tensor]:
        """The features of each image, [tiles, tokens of a tile, width]; one vision call for all that are new."""
        names = [_content(image) for image in images]
        new = {name: image for name, image in zip(names, images, strict=True) if name not in self._kept}
        self._kept.update(zip(new, self._compute(list(new.values())), strict=True))
        for name in names:
            self._kept.move_to_end(name)
        features = [self._kept[name] for name in names]
        size = sum(kept.nbytes for kept in self._kept.values())
        while size > self._budget:
            size -= self._kept.popitem(last=False)[1].nbytes
        return features

    def clear(self) -> None:
        """Free the memory."""
        self._kept.clear()

    def _compute(self, images: list[Image.Image]) -> list[torch.Tensor]:
        if not images:
            return []
        processor = self._processor
        pixels = [
            processor(images=[image], text=processor.image_token, return_tensors="pt")["pixel_values"]
            for image in images
        ]
        tiles = torch.cat(pixels).to(self._model.device).split(TILES_PER_CALL)
        features = torch.cat([self._model.get_image_features(pixel_values=some).pooler_output for some in tiles])
        return list(features.split([len(image_tiles) for image_tiles in pixels]))


def _content(image: Image.Image) -> bytes:
    digest = hashlib.sha256(f"{image.mode} {image.size}".encode())
    digest.update(image.tobytes())
    return digest.digest()


def batch_inputs(
    requests: Sequence[Request],
    processor: InternVLProcessor,
    features: ImageFeatures,
    *,
    device: torch.device,
    context: int,
) -> dict[str, Any]:
    """The arguments of `generate` for one batch: input_ids and attention_mask [rows, length], and mm_encoder_outputs.

    Args:
        context: how many tokens the model can take in all.

    Raises:
        ModelError: a conversation leaves no room in the context for an answer.
    """
    in_order = features.of([image for request in requests for image in request.images])
    prompts, first = [], 0
    for request in requests:
        own = in_order[first : first + len(request.images)]
        first += len(own)
        prompts.append(prompt_tokens(request.conversation, processor, [len(tiles) for tiles in own]))
    length = max(len(prompt) for prompt in prompts)
    if length >= context:
        raise ModelError(
            f"The conversation has {length} tokens, images included; the model takes {context}. "
            "Clear the chat, or ask a shorter question or with fewer images."
        )
    padding = processor.tokenizer.pad_token_id
    ids = torch.tensor([[padding] * (length - len(prompt)) + prompt for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
    if in_order:
        inputs["mm_encoder_outputs"] = {"image": BaseModelOutputWithPooling(pooler_output=torch.cat(in_order))}
    return inputs


def prompt_tokens(conversation: Sequence[Turn], processor: InternVLProcessor, tiles: Sequence[int]) -> list[int]:
    """The prompt's token ids, each image's placeholder widened to the tokens of its tiles.

    The same ids as `processor.apply_chat_template(..., tokenize=True)` gives, without preparing the pixels again.
    """
    tokenizer = processor.tokenizer
    special = [str(token) for token in tokenizer.added_tokens_decoder.values()]
    plain = [Turn(turn.role, as_plain_text(turn.text, special), turn.images) for turn in conversation]
    text = processor.apply_chat_template(messages(plain), add_generation_prompt=True, tokenize=False)
    before, *after = text.split(processor.image_token)
    images = (processor.replace_image_token({"num_patches": tiles}, index) for index in range(len(tiles)))
    text = before + "".join(image + rest for image, rest in zip(images, after, strict=True))
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
