"""From requests to what the language model takes: tokens, and the vision features of each image, computed once.

The vision tower runs once for an image that several panes or several turns share, and not at all for an image that was
seen lately. The one surprising fact: a large image is cut into up to a dozen tiles of 256 tokens each, so an image may
be longer than all that is said about it.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from transformers import InternVLForConditionalGeneration, InternVLProcessor

from facellm.conversation import Request, Turn, as_plain_text, messages
from facellm.errors import ModelError

FEATURE_BYTES = 256 * 1024 * 1024  # an 8B model's features of one 13-tile image are 24 MiB
TILES_PER_CALL = 32  # bounds the vision tower's memory


@dataclass(frozen=True)
class SeenImage:
    """An image as the language model sees it."""

    name: bytes  # a hash of its pixels
    features: Tensor  # [tiles, tokens of a tile, width]


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
        self._kept: OrderedDict[bytes, Tensor] = OrderedDict()

    @property
    def nbytes(self) -> int:
        """Bytes in use."""
        return sum(kept.nbytes for kept in self._kept.values())

    def of(self, images: Sequence[Image.Image]) -> list[SeenImage]:
        """The features of each image; one vision call for all that are new."""
        contents = {id(image): _content(image) for image in {id(image): image for image in images}.values()}
        names = [contents[id(image)] for image in images]  # a question to four models brings one image four times
        new = {name: image for name, image in zip(names, images, strict=True) if name not in self._kept}
        self._kept.update(zip(new, look_at(list(new.values()), self._processor, self._model), strict=True))
        for name in names:
            self._kept.move_to_end(name)
        seen = [SeenImage(name, self._kept[name]) for name in names]
        size = self.nbytes
        while size > self._budget:
            size -= self._kept.popitem(last=False)[1].nbytes
        return seen

    def clear(self) -> None:
        """Free the memory."""
        self._kept.clear()


def look_at(
    images: Sequence[Image.Image], processor: InternVLProcessor, model: InternVLForConditionalGeneration
) -> list[Tensor]:
    """The projected vision features of each image: [tiles, tokens of a tile, width of the language model]."""
    if not images:
        return []
    pixels = [
        processor(images=[image], text=processor.image_token, return_tensors="pt")["pixel_values"] for image in images
    ]
    calls = torch.cat(pixels).to(model.device).split(TILES_PER_CALL)
    features = torch.cat([model.get_image_features(pixel_values=tiles).pooler_output for tiles in calls])
    # Copies, since a part of a tensor keeps the whole of it in memory.
    return [some.clone() for some in features.split([len(tiles) for tiles in pixels])]


def _content(image: Image.Image) -> bytes:
    digest = hashlib.sha256(f"{image.mode} {image.size}".encode())
    digest.update(image.tobytes())
    return digest.digest()


@dataclass(frozen=True)
class Prompt:
    """A request in the form in which the language model takes it."""

    tokens: list[int]
    keys: tuple[Hashable, ...]  # the tokens, each of an image replaced by the image's name: what the prompt says
    features: Tensor | None  # of its images' tokens, one after another: [image tokens, width]


def make_prompts(
    requests: Sequence[Request], processor: InternVLProcessor, features: ImageFeatures, *, context: int
) -> list[Prompt]:
    """The prompts of several requests, with one vision call for all their images that are new.

    Args:
        context: how many tokens the model can take in all.

    Raises:
        ModelError: a conversation leaves no room in the context for an answer.
    """
    tokens = [_tokens(request, processor, context) for request in requests]  # before the costly look at the images
    seen = iter(features.of([image for request in requests for image in request.images]))
    return [
        _prompt(some, [next(seen) for _ in request.images], processor)
        for some, request in zip(tokens, requests, strict=True)
    ]


def count_tiles(image: Image.Image, processor: InternVLProcessor) -> int:
    """Into how many tiles the processor cuts an image."""
    width, height = image.size
    return int(processor.image_processor.get_number_of_image_patches(height, width, processor.images_kwargs))


def _tokens(request: Request, processor: InternVLProcessor, context: int) -> list[int]:
    tiles = [count_tiles(image, processor) for image in request.images]
    tokens = prompt_tokens(request.conversation, processor, tiles)
    if len(tokens) >= context:
        raise ModelError(
            f"The conversation has {len(tokens)} tokens, images included; the model takes {context}. "
            "Clear the chat, or ask a shorter question or with fewer images."
        )
    return tokens


def _prompt(tokens: list[int], seen: Sequence[SeenImage], processor: InternVLProcessor) -> Prompt:
    names = iter([image.name for image in seen for _ in range(image.features.shape[0] * image.features.shape[1])])
    image_token = processor.image_token_id
    keys = tuple(next(names) if token == image_token else token for token in tokens)
    features = torch.cat([image.features.flatten(0, 1) for image in seen]) if seen else None
    return Prompt(tokens, keys, features)


def embed(prompt: Prompt, model: InternVLForConditionalGeneration, known: int = 0) -> Tensor:
    """The embeddings of the tokens after the first `known`, images' features in their places: [tokens, width]."""
    tokens = torch.tensor(prompt.tokens, device=model.device)
    embedded: Tensor = model.get_input_embeddings()(tokens[known:])
    if prompt.features is None:
        return embedded
    images = tokens == model.config.image_token_id
    features = prompt.features[int(images[:known].sum()) :]
    embedded[images[known:]] = features.to(model.device, embedded.dtype)
    return embedded


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
