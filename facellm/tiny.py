"""The embedded tiny InternVL: the real classes at a few million parameters, with a processor of its own.

`save_untrained` writes it with random weights, as tests need it. The one surprising fact: InternVLProcessor always
asks for crop_to_patches, whatever the image processor's own setting says, so one tile an image is had by max_patches=1.
"""

import random
from collections.abc import Iterable, Iterator
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
    Qwen2Tokenizer,
)

from facellm.data import Attribute
from facellm.face_captions import captions
from facellm.face_text import answer
from facellm.faces import TRAINING_SEEDS, sample

IMAGE_SIZE = 64  # pixels
PATCH_SIZE = 8  # pixels
IMAGE_TOKENS = (IMAGE_SIZE // PATCH_SIZE) ** 2 // 4  # the pixel shuffle folds 2×2 patches into one token
VOCABULARY = 1024
CONTEXT = 4096  # positions

END_OF_TEXT, START_OF_TURN, END_OF_TURN = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
MEDIA_TOKENS = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}

# ChatML; the processor replaces each <IMG_CONTEXT> by <img>, that image's tokens and </img>.
CHAT_TEMPLATE = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' }}
    {%- if message['content'] is string %}
        {{- message['content'] }}
    {%- else %}
        {%- for part in message['content'] %}
            {%- if part['type'] == 'image' %}
                {{- '<IMG_CONTEXT>\\n' }}
            {%- elif part['type'] == 'video' %}
                {{- '<video>\\n' }}
            {%- elif part['type'] == 'text' %}
                {{- part['text'] }}
            {%- endif %}
        {%- endfor %}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""


def save_untrained(folder: Path, *, seed: int = 0) -> None:
    """Write the architecture with random weights and its processor: a checkpoint like any other.

    Args:
        folder: where to write; created if missing.
        seed: of the weights. The processor does not depend on it.
    """
    processor = make_processor()
    model = make_model(processor, seed=seed)
    processor.save_pretrained(folder)
    model.save_pretrained(folder)


def make_processor() -> InternVLProcessor:
    """InternVL's processor for 64-px images, with a tokenizer trained here on the sentences about rendered faces."""
    tokenizer = make_tokenizer(sentences())
    square = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    return InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(size=square, crop_to_patches=True, min_patches=1, max_patches=1),
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(size=square),
        image_seq_length=IMAGE_TOKENS,
        chat_template=CHAT_TEMPLATE,
    )


def make_tokenizer(sentences: Iterable[str]) -> Qwen2Tokenizer:
    """A byte-level BPE tokenizer with InternVL's special tokens, trained on the sentences; it can spell any text."""
    untrained = Qwen2Tokenizer(
        unk_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        eos_token=END_OF_TURN,
        extra_special_tokens=MEDIA_TOKENS,
        model_max_length=CONTEXT,
        padding_side="left",
    )
    untrained.add_tokens([START_OF_TURN], special_tokens=True)
    return untrained.train_new_from_iterator(sentences, vocab_size=VOCABULARY, show_progress=False)


def make_model(processor: InternVLProcessor, *, seed: int) -> InternVLForConditionalGeneration:
    """The architecture with random float32 weights: about 1.4 million parameters."""
    tokenizer = processor.tokenizer
    vision = InternVLVisionConfig(
        hidden_size=96,
        num_hidden_layers=5,
        num_attention_heads=4,
        intermediate_size=288,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        attention_bias=True,
        layer_scale_init_value=1.0,  # the default, 0.1, is for towers many times deeper: this one would learn slowly
    )
    text = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=320,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = InternVLConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=tokenizer.context_image_token_id,
        image_seq_length=IMAGE_TOKENS,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = InternVLForConditionalGeneration(config)
    positions = model.model.vision_tower.embeddings.position_embeddings
    positions.data = _waves(IMAGE_SIZE // PATCH_SIZE, positions.shape[-1])  # zeros, the default, learn slowly
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def sentences() -> Iterator[str]:
    """What is said about rendered faces: questions, answers and captions, for the tokenizer to learn its words from."""
    yield "system user assistant"
    for seed in TRAINING_SEEDS[:1500]:
        face, rng = sample(seed), random.Random(seed)
        for prompt, text in captions(face, rng):
            yield f"{prompt} {text}"
        for attribute in Attribute:
            yield attribute.question
            yield answer(face, attribute, rng)


def _waves(side: int, width: int) -> torch.Tensor:
    """Where each patch lies, as sines and cosines of its row and column: (1, 1 + side², width), zeros for CLS."""
    frequencies = torch.exp(torch.linspace(0, -3, width // 4)) * 1.5
    angles = torch.arange(side)[:, None] * frequencies
    axis = torch.cat([angles.sin(), angles.cos()], dim=-1)
    rows, columns = axis[:, None].expand(side, side, -1), axis[None].expand(side, side, -1)
    places = torch.cat([rows, columns], dim=-1).reshape(1, side * side, width)
    return torch.cat([torch.zeros(1, 1, width), places], dim=1) * 0.1
