"""InternVL3 checkpoints of the true size with random weights, for what depends on the size and not on the answers.

    python benchmarks/support/geometry.py FOLDER [--size 1B]

Sizes as in OpenGVLab's InternVL3 configurations: 448-pixel tiles in 14-pixel patches, 256 tokens a tile, up to 12 tiles
and a thumbnail, untied head. The one surprising fact: the tokenizer is the tiny model's, because InternVL3's own could
not be downloaded where this was written; the head's rows of ids that it lacks are zero, so such a model says words.
"""

import argparse
import sys
from pathlib import Path

import torch
from transformers import (
    GotOcr2ImageProcessor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
    InternVLVisionConfig,
    Qwen2Config,
)

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from facellm.tiny import CHAT_TEMPLATE, make_tokenizer, sentences

SIZES = {
    "reference": {
        "hidden_size": 256,
        "intermediate_size": 1024,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
    },
    "1B": {
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
    },
    "8B": {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
    },
}
TOWERS = {  # the reference is a small one on which trainers are compared; others have InternVL3's
    "reference": {"hidden_size": 256, "num_hidden_layers": 8, "num_attention_heads": 4, "intermediate_size": 1024}
}
TOWER = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
VOCABULARY = {"reference": 11_008, "1B": 151_674, "8B": 151_674}
MOST_TILES = 12
TILE = 448  # pixels


def save_random(
    folder: Path, size: str = "1B", *, shard: str = "500MB", seed: int = 0, system: str | None = None
) -> Path:
    """Write a checkpoint in bfloat16, in several files with an index, and its processor.

    Args:
        size: "reference" (18 million parameters), "1B" (0.94 billion) or "8B".
        shard: the largest size of one file.
        system: what the chat template says before a conversation, as InternVL's own may; None: nothing.
    """
    processor = make_processor()
    if system is not None:
        processor.chat_template = "{{- '<|im_start|>system\\n" + system + "<|im_end|>\\n' }}\n" + CHAT_TEMPLATE
    torch.manual_seed(seed)
    with torch.device("meta"):
        model = InternVLForConditionalGeneration(make_config(processor, size)).to(torch.bfloat16)
    weights = {name: _random(name, weight) for name, weight in model.state_dict().items()}
    weights["lm_head.weight"][len(processor.tokenizer) :] = 0
    model = model.to_empty(device="cpu")
    model.load_state_dict(weights, assign=True)
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    model.save_pretrained(folder, max_shard_size=shard)
    processor.save_pretrained(folder)
    return folder


def make_processor() -> InternVLProcessor:
    """InternVL3's processor, but for the tokenizer."""
    square = {"height": TILE, "width": TILE}
    return InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(size=square, crop_to_patches=True, min_patches=1, max_patches=MOST_TILES),
        tokenizer=make_tokenizer(sentences()),
        video_processor=InternVLVideoProcessor(size=square),
        image_seq_length=256,
        chat_template=CHAT_TEMPLATE,
    )


def make_config(processor: InternVLProcessor, size: str) -> InternVLConfig:
    """InternVL3's configuration of a size, with the processor's special tokens."""
    tokenizer = processor.tokenizer
    text = Qwen2Config(
        **SIZES[size],
        vocab_size=VOCABULARY[size],
        max_position_embeddings=32_768,
        rope_theta=1_000_000.0,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        use_sliding_window=False,
    )
    vision = InternVLVisionConfig(
        **TOWERS.get(size, TOWER),
        image_size=[TILE, TILE],
        patch_size=[14, 14],
        attention_bias=True,
    )
    return InternVLConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=tokenizer.context_image_token_id,
        image_seq_length=256,
        tie_word_embeddings=False,
    )


def _random(name: str, weight: torch.Tensor) -> torch.Tensor:
    """Values of the usual spread; norms are one."""
    if weight.ndim == 1 and name.endswith("weight"):
        return torch.ones(weight.shape, dtype=torch.bfloat16)
    return torch.empty(weight.shape, dtype=torch.bfloat16).normal_(std=0.02)


def main() -> None:
    """Write a checkpoint and say how large it is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=SIZES, default="1B")
    options = parser.parse_args()
    save_random(options.folder, options.size)
    files = sorted(options.folder.glob("*.safetensors"))
    print(f"{options.folder}: {len(files)} files, {sum(file.stat().st_size for file in files) / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
