"""Rows with a shared prefix compute exactly what a plain padded batch of transformers computes."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image, ImageDraw
from transformers import InternVLProcessor, TrainingArguments
from transformers.modeling_outputs import BaseModelOutputWithPooling

from facellm.checkpoint import load_checkpoint
from facellm.conversation import Turn, messages
from facellm.data import Attribute, Example, Provenance, write_examples
from facellm.errors import DataError, ImageError
from facellm.training.answer_loss import summed_loss
from facellm.training.attention import attention_mask
from facellm.training.collate import Pair, answer_places, collate, make_row, split
from facellm.training.image_table import ImageTable, Room
from facellm.training.recipe import RunConfig
from facellm.training.row_trainer import RowTrainer
from facellm.training.steps import Steps
from facellm.training.train import LANGUAGE_LINEARS
from facellm.training.training_data import TrainingData

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


def read(folder: Path, processor: InternVLProcessor, examples: Sequence[Example], **options: bool) -> TrainingData:
    write_examples(folder / "train.jsonl", examples)
    config = RunConfig(base_model="none", max_length=LENGTH, held_out=0, **options)
    return TrainingData(folder / "train.jsonl", processor, config)


def rows_loss(model: PeftModel, data: TrainingData, at_once: int, folder: Path) -> torch.Tensor:
    """The loss of one step, by the trainer's own parts, whose gradients are added up."""
    arguments = TrainingArguments(output_dir=str(folder), use_cpu=True, report_to="none", remove_unused_columns=False)
    trainer = RowTrainer(
        data,
        per_step=len(data),
        at_once=at_once,
        compute_dtype=torch.float32,
        best=folder / "best",
        model=model,
        args=arguments,
    )
    (step,) = trainer.get_train_dataloader()
    with trainer.headless():
        return trainer.training_step(model, step)


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


def gradient(model: PeftModel) -> torch.Tensor:
    return torch.cat([weights.grad.flatten() for weights in model.parameters() if weights.requires_grad])


@pytest.mark.parametrize("which", ["one image", "ragged"])
@pytest.mark.parametrize("share_prefix", [True, False])
@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_rows_are_exact(
    model_and_processor: tuple[PeftModel, InternVLProcessor],
    pictures: list[str],
    tmp_path: Path,
    which: str,
    share_prefix: bool,
    at_once: int,
) -> None:
    model, processor = model_and_processor
    examples = eight(pictures[1]) if which == "one image" else ragged(pictures)
    model.zero_grad()
    expected = plain_loss(model, processor, examples)
    expected.backward()
    expected_gradient = gradient(model)
    model.zero_grad()
    data = read(tmp_path, processor, examples, share_prefix=share_prefix)
    found = rows_loss(model, data, at_once, tmp_path)
    assert abs(found.item() - expected.item()) <= 1e-6 * max(1, expected.item())
    assert (gradient(model) - expected_gradient).norm() / expected_gradient.norm() <= 1e-5


def test_a_branch_sees_no_other(
    model_and_processor: tuple[PeftModel, InternVLProcessor], pictures: list[str], tmp_path: Path
) -> None:
    """What is said at the end of one answer does not move when another branch says something else."""
    model, processor = model_and_processor

    def end_of_last(first_answer: str) -> torch.Tensor:
        examples = [example([pictures[0]], "One?", first_answer), example([pictures[0]], "Two?", "Yes.")]
        data = read(tmp_path, processor, examples)
        batch = collate(data[[0]])
        features = data.images.features([0], model.get_base_model())
        batch["attention_mask"] = attention_mask(batch.pop("segments"))
        batch["mm_encoder_outputs"] = {"image": BaseModelOutputWithPooling(pooler_output=features)}
        places, _ = answer_places(batch.pop("labels"))
        del batch["images"]
        return model(**batch).logits[places][-1]

    one, other = end_of_last("Never!"), end_of_last("Always, without doubt.")
    assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("room", ["memory", "disk", "both", "none", "none again"])
def test_features_are_kept_where_there_is_room(
    model_and_processor: tuple[PeftModel, InternVLProcessor], pictures: list[str], tmp_path: Path, room: str
) -> None:
    """With room the second call costs no pass of the vision tower; without, the same features come again."""
    model, processor = model_and_processor
    base = model.get_base_model()
    calls = []
    hook = base.model.vision_tower.register_forward_hook(lambda *_: calls.append(1))
    plain = ImageTable(pictures, processor, Room()).features([0, 2, 0, 1], base)
    assert plain.shape[0] == 1 + 5 + 1 + 3
    one_tile = plain[:1].nbytes
    much = 100 * one_tile
    table = ImageTable(
        pictures,
        processor,
        Room(
            memory={"memory": much, "both": 6 * one_tile, "none again": much}.get(room, 0),
            disk=much if room in ("disk", "both") else 0,
            folder=tmp_path / "features",
            again=set() if room == "none again" else None,
        ),
    )
    calls.clear()
    first, second = (table.features([0, 2, 0, 1], base) for _ in range(2))
    assert torch.equal(first, plain)
    assert torch.allclose(second, plain, atol=1e-6)
    assert len(calls) == (2 if "none" in room else 1)
    files = {"disk": 3, "both": 1}.get(room, 0)
    assert len(list(tmp_path.glob("features/*.safetensors"))) == files
    another_process = ImageTable(pictures, processor, Room(folder=tmp_path / "features"))
    calls.clear()
    assert torch.allclose(another_process.features([0, 1, 2], base), torch.cat([plain[:1], plain[7:], plain[1:6]]))
    assert len(calls) == (0 if room == "disk" else 1)
    hook.remove()


def test_tiles_are_those_of_the_processor(
    model_and_processor: tuple[PeftModel, InternVLProcessor], tmp_path: Path
) -> None:
    _, processor = model_and_processor
    for size in [(30, 30), (64, 200), (300, 64), (130, 128), (500, 400)]:
        path = tmp_path / "picture.png"
        Image.new("RGB", size).save(path)
        table = ImageTable([str(path)], processor, Room())
        done = processor(images=[Image.open(path)], text=processor.image_token, return_tensors="pt")
        assert table.tiles == [len(done["pixel_values"])]


def test_long_rows_are_split_by_branch() -> None:
    pairs = [Pair((0,), [1, 2, 3, 4, 10 + index], [20 + index] * 3) for index in range(5)]
    rows = [make_row(part) for part in split(pairs, 16)]
    assert [len(row) for row in rows] == [16, 12]  # 4 shared and three branches of 4, then two
    branches = [
        [token for token, own in zip(row.input_ids, row.segments, strict=True) if own == segment]
        for row in rows
        for segment in range(1, max(row.segments) + 1)
    ]
    assert branches == [[10 + index, *[20 + index] * 3] for index in range(5)]


def test_a_pair_too_long_is_refused_with_a_count(
    model_and_processor: tuple[PeftModel, InternVLProcessor], pictures: list[str], tmp_path: Path
) -> None:
    _, processor = model_and_processor
    examples = [*eight(pictures[0]), example([pictures[0]], "Why?", "because " * 600)]
    with pytest.raises(DataError, match=r"1 of 9 pairs .* max_length, 512 tokens; .* \(line 9: 'Why\?'\)"):
        read(tmp_path, processor, examples)


def test_a_damaged_image_is_found_before_the_first_step(
    model_and_processor: tuple[PeftModel, InternVLProcessor], tmp_path: Path
) -> None:
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ImageError, match=r"cut\.png"):
        ImageTable([str(tmp_path / "cut.png")], model_and_processor[1], Room())


@pytest.mark.parametrize("words", [50, 5000])
def test_the_loss_in_chunks_is_that_of_all_logits(words: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its gradient, too; at 5,000 words there are chunks of ten tokens."""
    monkeypatch.setattr("facellm.training.answer_loss.CHUNK_BYTES", 4 * 5000 * 10)
    torch.manual_seed(0)
    hidden = torch.randn(64, 16, requires_grad=True)
    head, labels = torch.randn(words, 16), torch.randint(words, (64,))
    expected = torch.nn.functional.cross_entropy(hidden @ head.T, labels, reduction="sum")
    (expected_gradient,) = torch.autograd.grad(expected / 3, hidden)
    found = summed_loss(hidden, head, labels)
    (found_gradient,) = torch.autograd.grad(found / 3, hidden)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    assert (found_gradient - expected_gradient).norm() / expected_gradient.norm() <= 1e-6


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_every_row_is_in_one_part_of_one_process(processes: int) -> None:
    """Each epoch once, at most `at_once` together, and all processes have equally many parts in a step."""
    lengths = [100 + 37 * row % 60 for row in range(23)]
    rows = range(1, 23)
    each = [
        Steps(rows, lengths, per_step=10, at_once=2, seed=1, rank=rank, processes=processes)
        for rank in range(processes)
    ]
    orders = []
    for epoch in (0, 1):
        for steps in each:
            steps.set_epoch(epoch)
        spread = [list(steps) for steps in each]
        assert {len(steps) for steps in spread} == {3} == {len(each[0])}
        for together in zip(*spread, strict=True):
            assert len({len(parts) for parts in together}) == 1
            assert all(len(part) <= 2 for parts in together for part in parts)
        orders.append([row for steps in spread for parts in steps for part in parts for row in part])
        assert sorted(orders[-1]) == list(rows)
    assert orders[0] != orders[1]
