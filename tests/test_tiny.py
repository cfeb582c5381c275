"""The embedded model: a real InternVL with its real processor, what its training sees, and the committed weights."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForImageTextToText, AutoProcessor, InternVLForConditionalGeneration, InternVLProcessor

from facellm import tiny
from facellm.config import EMBEDDED_ADAPTER, EMBEDDED_BASE
from facellm.data import Attribute
from facellm.errors import ConfigError
from facellm.face_captions import captions
from facellm.face_text import answer
from facellm.faces import TRAINING_SEEDS, render, sample
from facellm.tiny_build import Plan, build
from facellm.tiny_faces import draw_all
from facellm.tiny_training import captioned, normalised


@pytest.fixture(scope="module")
def processor(untrained_tiny: Path) -> InternVLProcessor:
    return AutoProcessor.from_pretrained(untrained_tiny)


def asked(processor: InternVLProcessor, *images: object, text: str = "Describe this image.") -> dict[str, torch.Tensor]:
    content = [*({"type": "image", "image": image} for image in images), {"type": "text", "text": text}]
    return processor.apply_chat_template(
        [[{"role": "user", "content": content}]],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )


def test_the_plain_auto_classes_load_it_and_it_generates(untrained_tiny: Path, processor: InternVLProcessor) -> None:
    model = AutoModelForImageTextToText.from_pretrained(untrained_tiny)
    assert isinstance(model, InternVLForConditionalGeneration)
    assert isinstance(processor, InternVLProcessor)
    assert 1e6 < model.num_parameters() < 3e6
    inputs = asked(processor, render(sample(1)), render(sample(2)))
    out = model.generate(**inputs, max_new_tokens=3)
    assert out.shape[1] > inputs["input_ids"].shape[1]


def test_random_weights_follow_the_seed_and_the_processor_does_not(tmp_path: Path) -> None:
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        tiny.save_untrained(tmp_path / folder, seed=seed)
    read = {name: (tmp_path / name / "model.safetensors").read_bytes() for name in "abc"}
    assert read["a"] == read["b"] != read["c"]
    assert len({(tmp_path / name / "tokenizer.json").read_bytes() for name in "abc"}) == 1


@pytest.mark.parametrize("size", [(64, 64), (448, 448), (900, 200)])
def test_every_picture_is_one_tile(processor: InternVLProcessor, size: tuple[int, int]) -> None:
    """Although InternVLProcessor always asks for patches."""
    inputs = asked(processor, render(sample(1), 64).resize(size))
    assert inputs["pixel_values"].shape == (1, 3, tiny.IMAGE_SIZE, tiny.IMAGE_SIZE)
    assert (inputs["input_ids"] == processor.image_token_id).sum() == tiny.IMAGE_TOKENS == 16


def test_the_chat_template_is_chatml_with_the_picture_first(processor: InternVLProcessor) -> None:
    text = processor.decode(asked(processor, render(sample(1)), text="Who?")["input_ids"][0])
    picture = f"<img>{'<IMG_CONTEXT>' * 16}</img>\n"
    assert text == f"<|im_start|>user\n{picture}Who?<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("text", ["Naïve café — 脸 🙂 \t\r\n x", "<b>&amp;</b>", "It's  a   face."])
def test_the_tokenizer_spells_any_text(processor: InternVLProcessor, text: str) -> None:
    tokenizer = processor.tokenizer
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_special_tokens_are_single_and_the_end_of_turn_ends_generation(untrained_tiny: Path) -> None:
    tokenizer = AutoProcessor.from_pretrained(untrained_tiny).tokenizer
    for token in ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<img>", "</img>", "<IMG_CONTEXT>", "<video>"):
        assert len(tokenizer(token).input_ids) == 1
    settings = json.loads((untrained_tiny / "generation_config.json").read_text())
    assert settings["eos_token_id"] == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert settings["pad_token_id"] == tokenizer.convert_tokens_to_ids("<|endoftext|>")


def test_training_sees_the_tokens_and_pixels_that_the_processor_makes(processor: InternVLProcessor) -> None:
    face = sample(TRAINING_SEEDS[3])
    turns = captions(face, random.Random(1))
    messages = []
    image = render(face, 64)
    for number, (prompt, text) in enumerate(turns):
        picture = [{"type": "image", "image": image}] if number == 0 else []
        messages.append({"role": "user", "content": [*picture, {"type": "text", "text": prompt}]})
        messages.append({"role": "assistant", "content": [{"type": "text", "text": text}]})
    real = processor.apply_chat_template([messages], tokenize=True, return_dict=True, return_tensors="pt")
    ours = captioned(processor, [turns])
    assert torch.equal(ours["input_ids"], real["input_ids"])
    learnt = ours["input_ids"][ours["labels"] != -100]
    assert processor.decode(learnt) == "".join(f"{text}<|im_end|>" for _, text in turns)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    assert torch.allclose(normalised(pixels, processor), real["pixel_values"], atol=1e-5)


def test_training_pictures_look_like_large_pictures_after_the_processor(processor: InternVLProcessor) -> None:
    seeds = TRAINING_SEEDS[:24]
    drawn = normalised(draw_all(seeds, tiny.IMAGE_SIZE).pixels, processor)
    large = torch.cat([asked(processor, render(sample(seed), 256))["pixel_values"] for seed in seeds])
    assert (drawn - large).abs().mean() < 0.04  # of a standard deviation of 1
    assert abs(drawn.diff(dim=-1).abs().mean() / large.diff(dim=-1).abs().mean() - 1) < 0.03  # as sharp and as grainy


def test_build_writes_a_base_and_an_adapter_that_load(tmp_path: Path) -> None:
    """With next to no training: the whole command, a real training subprocess included."""
    (tmp_path / "tiny-base").mkdir()
    (tmp_path / "tiny-base" / "README.md").write_text("a card")
    lines: list[str] = []
    plan = Plan(faces=64, held_out=16, tower_images=320, lists=96, captions=96, adapter_faces=4, adapter_epochs=1)
    build(tmp_path, plan=plan, report=lines.append)
    assert (tmp_path / "tiny-base" / "README.md").read_text() == "a card"
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "tiny-base")
    assert model.dtype == torch.float32
    with safe_open(tmp_path / "tiny-base" / "model.safetensors", "pt") as weights:
        assert {weights.get_slice(name).get_dtype() for name in weights.keys()} == {"BF16"}  # noqa: SIM118
    model.load_adapter(str(tmp_path / "facellm-tiny"))
    assert sorted(path.name for path in (tmp_path / "facellm-tiny").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert any("expression" in line for line in lines)


@pytest.mark.parametrize("values", [{"faces": "0"}, {"facs": "10"}, {"captions": "many"}])
def test_a_plan_that_cannot_be_followed_is_refused(values: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=f"--set {next(iter(values))}"):
        Plan.checked(values)


def test_the_committed_model_is_small_and_portable() -> None:
    files = [path for folder in (EMBEDDED_BASE, EMBEDDED_ADAPTER) for path in folder.iterdir()]
    assert sum(path.stat().st_size for path in files) < 8 * 1024 * 1024
    adapter = json.loads((EMBEDDED_ADAPTER / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == "facellm/embedded/tiny-base"


def test_the_committed_processor_is_the_one_that_is_made_today(processor: InternVLProcessor) -> None:
    """So a change of the sentences that would change the tokens asks for a new build."""
    committed = AutoProcessor.from_pretrained(EMBEDDED_BASE)
    assert committed.tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    assert committed.chat_template == processor.chat_template
    rng = random.Random(0)
    for seed in range(20):
        for attribute in Attribute:
            text = answer(sample(seed), attribute, rng)
            assert committed.tokenizer(text).input_ids == processor.tokenizer(text).input_ids
