"""What LoRA training costs in bytes and in operations, from the geometry of a model and the lengths of its rows alone.

    geometry = Geometry.of(AutoConfig.from_pretrained(folder))
    memory(geometry, load, method)          bytes by part
    training(geometry, load, method)        operations of an epoch: of products, bytes gone through, and calls

What autograd keeps was counted on a real model with saved-tensor hooks, as the trainer computes it, and the formula
gives that count to the byte. The one surprising fact: dropout costs more than the layers' own inputs, since each of
LoRA's seven inputs is then kept as a copy with a mask beside it; without, those that are one tensor are kept once.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import InternVLForConditionalGeneration

from facellm.inputs import TILES_PER_CALL

HEAD_CHUNK = 64 * 1024 * 1024  # bytes of the logits that live at once, in float32
HEAD_COPIES = 4  # logits, their softmax, its cast to the head's type, and what the library needs between
LORA_BYTES = 16  # a LoRA weight, its gradient and AdamW's two moments, all in float32
STORED_BYTES = {"none": None, "8bit": 1.0, "4bit": 0.56}  # of a quantized weight, with its scales
PROCESS = {"cpu": 900_000_000, "cuda": 700_000_000}  # Python, torch and transformers; on a GPU, CUDA's own context
HELD_BACK = 1.25  # the allocator holds more than is in use: pieces of many sizes come and go


@dataclass(frozen=True)
class Geometry:
    """The sizes of an InternVL checkpoint."""

    width: int
    inner: int
    layers: int
    attention_width: int  # heads × width of a head
    heads: int
    key_width: int  # heads of keys × width of a head
    vocabulary: int
    linears: int  # weights of the language model's linear layers, which LoRA adapts and which can be quantized
    rank_weights: int  # LoRA weights for each unit of rank
    others: int  # embeddings, norms, and the head where it is not the embeddings themselves
    head: int
    vision: int  # tower and projector
    tower_width: int
    tower_inner: int
    tower_layers: int
    patches: int  # of a tile
    tile_tokens: int
    tile_side: int  # pixels

    @classmethod
    def of(cls, config: Any) -> "Geometry":
        """Count a model of this configuration that has no weights; takes a fraction of a second at any size."""
        with torch.device("meta"):
            model = InternVLForConditionalGeneration(config)
        text, tower = config.text_config, config.vision_config
        language = model.model.language_model
        linears = [layer for layer in language.modules() if isinstance(layer, nn.Linear)]
        vision = _count(model.model.vision_tower) + _count(model.model.multi_modal_projector)
        adapted = sum(layer.weight.numel() for layer in linears)
        return cls(
            width=text.hidden_size,
            inner=text.intermediate_size,
            layers=text.num_hidden_layers,
            attention_width=language.layers[0].self_attn.q_proj.out_features,
            heads=text.num_attention_heads,
            key_width=language.layers[0].self_attn.k_proj.out_features,
            vocabulary=text.vocab_size,
            linears=adapted,
            rank_weights=sum(layer.in_features + layer.out_features for layer in linears),
            others=_count(model) - vision - adapted,
            head=model.lm_head.weight.numel(),
            vision=vision,
            tower_width=tower.hidden_size,
            tower_inner=tower.intermediate_size,
            tower_layers=tower.num_hidden_layers,
            patches=(tower.image_size[0] // tower.patch_size[0]) * (tower.image_size[1] // tower.patch_size[1]) + 1,
            tile_tokens=config.image_seq_length,
            tile_side=tower.image_size[0],
        )

    @property
    def weights(self) -> int:
        """All weights, tied ones once."""
        return self.linears + self.others + self.vision


@dataclass(frozen=True)
class Shape:
    """A row in tokens: a prefix, and so many branches of at most `branch` tokens."""

    length: int
    prefix: int
    branches: int
    branch: int

    @property
    def seen(self) -> int:
        """Pairs of tokens that attention computes."""
        return self.prefix**2 + self.branches * self.branch * (self.prefix + self.branch)


@dataclass(frozen=True)
class Load:
    """What a run goes through, as far as a sample of its data tells."""

    rows: int
    mean: float  # tokens of a row
    typical: Shape
    longest: Shape
    answers: float  # tokens of a row that are learnt
    most_answers: int
    images: int
    held: float  # share of the images that are only measured
    epochs: float
    steps: int
    tiles: float  # of an image
    most_tiles: int  # of a row's images


@dataclass(frozen=True)
class Method:
    """How a run computes, as far as it decides its cost."""

    device: str
    dtype: torch.dtype  # of the base's weights and of the products
    quantization: str
    at_once: int
    rank: int
    checkpointing: bool
    feature_memory: int  # bytes
    dropout: bool = False

    @property
    def size(self) -> int:
        """Bytes of a number."""
        return self.dtype.itemsize

    @property
    def fused(self) -> bool:
        """Whether a linear layer and its LoRA are one operation, see `lora_linear`."""
        return self.quantization == "none" and not self.dropout


def _count(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def weight_bytes(geometry: Geometry, method: Method) -> int:
    """Of the base in memory."""
    stored = STORED_BYTES[method.quantization] or method.size
    return int(geometry.linears * stored + (geometry.weights - geometry.linears) * method.size)


def kept_bytes(geometry: Geometry, method: Method, rows: int, shape: Shape) -> int:
    """What autograd keeps of one layer for these rows.

    For each token: what both norms get, in float32 always; what goes to q, k and v, and to gate and up, in one copy
    each where linear layers are fused and else in five; the queries, what goes to o, four of the inner width, and
    LoRA's seven of its rank. Attention keeps its inputs and outputs once more, ordered by prefix and branch, each
    branch with the keys of its prefix; no scores. With dropout there are masks of all that goes into LoRA.
    """
    mixed = method.size == 2
    tokens, branches = rows * shape.length, rows * shape.branches
    above, below = rows * shape.prefix, branches * shape.branch
    inputs = 5 if method.dropout or (mixed and not method.fused) else 2
    numbers = tokens * (inputs * geometry.width + 4 * geometry.inner + 7 * method.rank)
    numbers += (2 * tokens + 3 * above + 2 * below) * geometry.attention_width
    numbers += 2 * branches * (shape.prefix + shape.branch) * geometry.key_width
    if mixed:  # LoRA's own weights as they are multiplied
        numbers += method.rank * geometry.rank_weights // geometry.layers
    norms = tokens * 2 * (geometry.width + 1) * 4
    dropped = tokens * (5 * geometry.width + geometry.attention_width + geometry.inner) if method.dropout else 0
    masks = dropped * (4 if method.device == "cpu" else 1)
    return numbers * method.size + norms + masks + (above + below) * geometry.heads * 4


def mask_bytes(geometry: Geometry, method: Method, rows: int, shape: Shape) -> int:
    """Of attention's mask, which all layers share: once as it is, and once repeated for the queries of a key head."""
    groups = geometry.attention_width // geometry.key_width
    return (1 + groups) * rows * shape.branches * shape.branch * (shape.prefix + shape.branch) * method.size


def memory(geometry: Geometry, load: Load, method: Method) -> dict[str, int]:
    """Bytes at the highest point of a run, by what they are for."""
    rows = min(method.at_once, load.rows)
    tokens = rows * load.longest.length
    layer = kept_bytes(geometry, method, rows, load.longest)
    if method.checkpointing:
        activations = geometry.layers * tokens * geometry.width * method.size + layer
    else:
        activations = geometry.layers * layer
    # The gradients on their way through a layer: of its inner tensors and, in float32, of its norms.
    passing = tokens * (3 * geometry.inner * method.size + 4 * geometry.width * 4)
    answers = rows * load.most_answers
    chunk = min(answers * geometry.vocabulary * 4, max(HEAD_CHUNK, geometry.vocabulary * 4))
    return {
        "process": PROCESS[method.device],
        "base weights": weight_bytes(geometry, method),
        "LoRA, gradients and AdamW": LORA_BYTES * geometry.rank_weights * method.rank,
        "activations": int((activations + passing + mask_bytes(geometry, method, rows, load.longest)) * HELD_BACK),
        "head": HEAD_COPIES * chunk + 2 * answers * geometry.width * 4,
        "vision tower": vision_bytes(geometry, load, method),
        "kept vision features": min(method.feature_memory, feature_bytes(geometry, load, method)),
    }


def vision_bytes(geometry: Geometry, load: Load, method: Method) -> int:
    """Of the tower's widest layer for the tiles of one call, and their pixels; nothing is kept for gradients."""
    tiles = min(TILES_PER_CALL, method.at_once * load.most_tiles)
    token = (2 * geometry.tower_inner + 6 * geometry.tower_width) * method.size
    pixels = 3 * geometry.tile_side**2 * 4
    return tiles * (geometry.patches * token + 3 * pixels)


def feature_bytes(geometry: Geometry, load: Load, method: Method) -> int:
    """Of the vision features of all images that are needed more than once."""
    again = 1.0 if load.epochs > 1 else load.held
    return int(again * load.images * load.tiles * geometry.tile_tokens * geometry.width * method.size)


def disk_features(geometry: Geometry, load: Load, method: Method) -> int:
    """Bytes of the vision features that the memory for them does not take."""
    return max(0, feature_bytes(geometry, load, method) - method.feature_memory)


@dataclass(frozen=True)
class Operations:
    """What is computed: operations of matrix products, bytes that go through the processor beside, and calls."""

    products: float = 0.0
    moved: float = 0.0
    calls: float = 0.0  # of small functions, each with a cost of its own

    def __add__(self, other: "Operations") -> "Operations":
        return Operations(self.products + other.products, self.moved + other.moved, self.calls + other.calls)

    def __mul__(self, times: float) -> "Operations":
        return Operations(self.products * times, self.moved * times, self.calls * times)


def forward(geometry: Geometry, load: Load, method: Method) -> Operations:
    """Of all rows once, without the tower."""
    adapted = geometry.linears + method.rank * geometry.rank_weights
    tokens = load.rows * load.mean
    attention = load.rows * load.typical.seen * 4 * geometry.attention_width * geometry.layers
    products = 2 * adapted * tokens + attention + 2 * geometry.head * load.rows * load.answers
    moved = 1.0 * load.rows * kept_bytes(geometry, method, 1, load.typical) * geometry.layers
    moved += load.rows * load.answers * geometry.vocabulary * 4 * 3
    return Operations(products, moved, load.rows / method.at_once * geometry.layers)


def training(geometry: Geometry, load: Load, method: Method) -> Operations:
    """Of all rows once, forwards and backwards: backwards costs the same again for the inputs' gradients, LoRA's own
    products twice, and attention two and a half times."""
    ahead = forward(geometry, load, method)
    tokens = load.rows * load.mean
    extra = 2 * method.rank * geometry.rank_weights * tokens
    extra += 1.5 * load.rows * load.typical.seen * 4 * geometry.attention_width * geometry.layers
    return ahead * (3 if method.checkpointing else 2) + Operations(extra, ahead.moved, ahead.calls)


def vision(geometry: Geometry, tiles: float) -> Operations:
    """Of so many tiles once."""
    attention = 4 * geometry.patches**2 * geometry.tower_width * geometry.tower_layers
    products = tiles * (2 * geometry.vision * geometry.patches + attention)
    moved = tiles * geometry.patches * geometry.tower_layers * (2 * geometry.tower_inner + 8 * geometry.tower_width) * 4
    return Operations(products, moved, tiles / 4 * geometry.tower_layers)
