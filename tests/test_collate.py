"""Rows with a shared prefix compute exactly what a plain padded batch of transformers computes."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image, ImageDraw
from transformers import InternVLProcessor

from facellm.checkpoint import load_checkpoint
from facellm.collate import ImageTable, Pair, collate, encode, make_rows, model_inputs
from facellm.conversation import Turn, messages
from facellm.data import Attribute, Example, Provenance
from facellm.errors import DataError, ImageError
from facellm.train import LANGUAGE_LINEARS

LENGTH = 512


@pytest.fixture(scope="module")
def model_and_processor(untrained_tiny: Path) -> tuple[PeftModel, InternVLProcessor]:
    """A model whose adapter has an effect, and a processor that cuts large images into tiles."""
    base, processor = load_checkpoint(untrained_tiny, device="cpu")
    processor.image_processor.max_patches = 4
    torch.manual_seed(0)
    lora = LoraConfig(r=4, target_modules=LANGUAGE_LINEARS, init_lora_weights=False)
    return get_peft_model(base.float(), lora), processor


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """One tile, three tiles (two and the whole), five tiles (four and the whole)."""
    folder = tmp_path_factory.mktemp("pictures")
    paths = []
    for number, size in enumerate([(64, 64), (160, 80), (256, 256)]):
        image = Image.new("RGB", size, (200, 40 * number, 90))
        ImageDraw.Draw(image).ellipse((10, 10, 40 + 9 * number, 50), fill=(10, 200, 60 * number))
        image.save(folder / f"{number}.png")
        paths.append(str(folder / f"{number}.png"))
    return paths


def example(images: Sequence[str], question: str, answer: str) -> Example:
    return Example(images=tuple(images), question=question, answer=answer, provenance=Provenance(image_sha256=()))


def eight(image: str) -> list[Example]:
    return [
        example([image], attribute.question, "An answer " + "on and on " * index + f"about {attribute.topic}.")
        for index, attribute in enumerate(Attribute)
    ]


def ragged(pictures: list[str]) -> list[Example]:
    """Groups of eight, two and one pairs; two images in one pair; the same question twice."""
    first, second, third = pictures
    return [
        *eight(first),
        example([second], "Describe this image.", "A red picture."),
        example([second], "Describe this image.", "A picture with a green circle in it."),
        example([third], "Is the mouth open?", "No."),
        example([first, third], "Which of the two is older?", "The second one."),
    ]


def rows_loss(
    model: PeftModel, processor: InternVLProcessor, examples: Sequence[Example], **options: bool
) -> torch.Tensor:
    table = ImageTable(examples, processor, budget=1_000_000)
    rows = make_rows(encode(examples, processor, table, LENGTH), LENGTH, **options)
    inputs, labels = model_inputs(collate(rows), table, model.get_base_model())
    return torch.nn.functional.cross_entropy(model(**inputs).logits.flatten(0, 1), labels.flatten())


def plain_loss(model: PeftModel, processor: InternVLProcessor, examples: Sequence[Example]) -> torch.Tensor:
    """The same by transformers alone: a padded batch, pixel values, and labels."""
    turns = [
        [
            Turn("user", each.question, tuple(Image.open(path).convert("RGB") for path in each.images)),
            Turn("assistant", each.answer),
        ]
        for each in examples
    ]
    options = {"tokenize": True, "return_dict": True}
    batch = processor.apply_chat_template(
        [messages(turn) for turn in turns],
        **options,
        processor_kwargs={"padding": True, "padding_side": "right", "return_tensors": "pt"},
    )
    labels = batch["input_ids"].clone()
    for row, turn in enumerate(turns):
        prompt = processor.apply_chat_template(messages(turn[:1]), add_generation_prompt=True, **options)["input_ids"][
            0
        ]
        end = int(batch["attention_mask"][row].sum()) - 1  # without the line break after the turn
        labels[row, : len(prompt)] = -100
        labels[row, end:] = -100
    return model(**batch, labels=labels).loss


def gradient(model: PeftModel, loss: torch.Tensor) -> torch.Tensor:
    model.zero_grad()
    loss.backward()
    return torch.cat([weights.grad.flatten() for weights in model.parameters() if weights.requires_grad])


@pytest.mark.parametrize("which", ["one image", "ragged"])
@pytest.mark.parametrize("share_prefix", [True, False])
def test_rows_are_exact(
    model_and_processor: tuple[PeftModel, InternVLProcessor], pictures: list[str], which: str, share_prefix: bool
) -> None:
    model, processor = model_and_processor
    examples = eight(pictures[1]) if which == "one image" else ragged(pictures)
    expected = plain_loss(model, processor, examples)
    found = rows_loss(model, processor, examples, share_prefix=share_prefix)
    assert abs(found.item() - expected.item()) <= 1e-6 * max(1, expected.item())
    expected_gradient, found_gradient = gradient(model, expected), gradient(model, found)
    assert (found_gradient - expected_gradient).norm() / expected_gradient.norm() <= 1e-5


def test_a_branch_sees_no_other(model_and_processor: tuple[PeftModel, InternVLProcessor], pictures: list[str]) -> None:
    """The loss of one answer does not move when another branch says something else."""
    model, processor = model_and_processor

    def loss_of_last(first_answer: str) -> float:
        examples = [example([pictures[0]], "One?", first_answer), example([pictures[0]], "Two?", "Yes.")]
        table = ImageTable(examples, processor, budget=0)
        batch = collate(make_rows(encode(examples, processor, table, LENGTH), LENGTH))
        batch["labels"][batch["segments"] != 2] = -100
        inputs, labels = model_inputs(batch, table, model.get_base_model())
        return torch.nn.functional.cross_entropy(model(**inputs).logits.flatten(0, 1), labels.flatten()).item()

    assert loss_of_last("Never!") == pytest.approx(loss_of_last("Always, without doubt."), abs=1e-6)


def test_features_are_kept(model_and_processor: tuple[PeftModel, InternVLProcessor], pictures: list[str]) -> None:
    """With a budget the second call costs no pass of the vision tower; without, the same features come again."""
    model, processor = model_and_processor
    base = model.get_base_model()
    examples = ragged(pictures)
    calls = []
    hook = base.model.vision_tower.register_forward_hook(lambda *_: calls.append(1))
    kept, dropped = (ImageTable(examples, processor, budget=budget) for budget in (1_000_000, 0))
    first = kept.features([0, 2, 0, 1], base)
    assert torch.equal(kept.features([0, 2, 0, 1], base), first)
    assert len(calls) == 1
    assert first.shape[0] == 1 + 5 + 1 + 3
    dropped.features([0], base)
    assert torch.allclose(dropped.features([0, 2, 0, 1], base), first, atol=1e-6)
    assert len(calls) == 3
    hook.remove()


def test_tiles_are_those_of_the_processor(
    model_and_processor: tuple[PeftModel, InternVLProcessor], tmp_path: Path
) -> None:
    _, processor = model_and_processor
    for size in [(30, 30), (64, 200), (300, 64), (130, 128), (500, 400)]:
        path = tmp_path / "picture.png"
        Image.new("RGB", size).save(path)
        table = ImageTable([example([str(path)], "What?", "This.")], processor, budget=0)
        done = processor(images=[Image.open(path)], text=processor.image_token, return_tensors="pt")
        assert table.tiles == [len(done["pixel_values"])]


def test_long_rows_are_split_by_branch() -> None:
    pairs = [Pair((0,), [1, 2, 3, 4, 10 + index], [20 + index] * 3) for index in range(5)]
    rows = make_rows(pairs, 16)
    assert [len(row) for row in rows] == [16, 12]  # 4 shared and three branches of 4, then two
    branches = [
        [token for token, own in zip(row.input_ids, row.segments, strict=True) if own == segment]
        for row in rows
        for segment in range(1, max(row.segments) + 1)
    ]
    assert branches == [[10 + index, *[20 + index] * 3] for index in range(5)]


def test_a_pair_too_long_is_refused_with_a_count(
    model_and_processor: tuple[PeftModel, InternVLProcessor], pictures: list[str]
) -> None:
    _, processor = model_and_processor
    examples = [*eight(pictures[0]), example([pictures[0]], "Why?", "because " * 200)]
    with pytest.raises(DataError, match=r"1 of 9 pairs .* max_length, 128 tokens; .* \(line 9: 'Why\?'\)"):
        encode(examples, processor, ImageTable(examples, processor, budget=0), 128)


def test_a_damaged_image_is_found_before_the_first_step(
    model_and_processor: tuple[PeftModel, InternVLProcessor], tmp_path: Path
) -> None:
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ImageError, match=r"cut\.png"):
        ImageTable([example([str(tmp_path / "cut.png")], "What?", "This.")], model_and_processor[1], budget=0)
