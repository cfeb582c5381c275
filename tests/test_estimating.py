"""The estimate before a run: it grows with what grows, names what would help, and refuses with numbers."""

import dataclasses
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rendered_examples import make_examples
from transformers import InternVLForConditionalGeneration
from typer.testing import CliRunner

from facellm.__main__ import app
from facellm.config import EMBEDDED_BASE, ROOT
from facellm.data import Example, write_examples
from facellm.errors import ImageError, ModelError
from facellm.training import free_memory, jobs
from facellm.training.branch_attention import branch_attention, layout
from facellm.training.estimating import Estimate, ExamplesFile, check, disk_budget, estimate
from facellm.training.lora_linear import fused_lora
from facellm.training.recipe import RunConfig
from facellm.training.run_directory import EXAMPLES
from facellm.training.train import with_lora
from facellm.training.training_cost import Geometry, Method, Shape, kept_bytes, weight_bytes

sys.path.append(str(ROOT / "benchmarks"))

from support.geometry import make_config, make_processor

GB = 10**9


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> list[Example]:
    return make_examples(tmp_path_factory.mktemp("faces"), 8)


@pytest.fixture(scope="module")
def of(examples: list[Example]) -> Callable[..., Estimate]:
    """The estimate of a run on the embedded base with these numbers."""

    def estimated(**numbers: Any) -> Estimate:
        return estimate(RunConfig(base_model=str(EMBEDDED_BASE), device="cpu", dtype="float32", **numbers), examples)

    return estimated


@pytest.fixture(scope="module")
def true_size(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Checkpoints of InternVL3's true sizes that have everything but weights."""

    def made(size: str) -> Path:
        folder = tmp_path_factory.mktemp("true") / f"InternVL3-{size}"
        processor = make_processor()
        processor.save_pretrained(folder)
        make_config(processor, size).save_pretrained(folder)
        return folder

    return made


def method(**changes: Any) -> Method:
    plain = Method("cpu", torch.bfloat16, "none", at_once=4, rank=16, checkpointing=False, feature_memory=2**30)
    return dataclasses.replace(plain, **changes)


def test_it_grows_with_what_grows(of: Callable[..., Estimate]) -> None:
    plain = of(rows_at_once=2)
    assert of(rows_at_once=4).total > plain.total
    assert (
        of(rows_at_once=2, rank=64).memory["LoRA, gradients and AdamW"] > 3 * plain.memory["LoRA, gradients and AdamW"]
    )
    assert of(rows_at_once=2, max_length=150).total < plain.total  # rows are split between pairs
    checkpointed = of(rows_at_once=2, gradient_checkpointing=True)
    assert checkpointed.memory["activations"] < 0.5 * plain.memory["activations"]
    assert of(epochs=4).seconds > of(epochs=1).seconds


def test_it_counts_steps_and_rows_as_the_trainer_does(of: Callable[..., Estimate]) -> None:
    """8 images of 8 pairs; none is held out by 5 % of 8, one by 13 %."""
    assert (of(batch_size=16, epochs=3).rows, of(batch_size=16, epochs=3).steps) == (8, 12)
    assert (of(batch_size=16, held_out=0.13).rows, of(batch_size=16, held_out=0.13).steps) == (7, 4)
    assert of(batch_size=16, max_steps=5).steps == 5
    assert of(share_prefix=False, held_out=0).rows == 64


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_autograd_keeps_is_known_to_the_byte(dtype: torch.dtype, dropout: float) -> None:
    """A second layer of a real model, computed as the trainer does, keeps what the formula says."""
    length, kept = 64, []
    config = make_config(make_processor(), "1B")
    config.vision_config.num_hidden_layers, config.text_config.vocab_size = 1, 600
    for layers in (1, 2):
        config.text_config.num_hidden_layers = layers
        config.text_config.layer_types = ["full_attention"] * layers
        base = InternVLForConditionalGeneration(config).to(dtype)
        model = with_lora(base, RunConfig(base_model="OpenGVLab/InternVL3-1B-hf", dropout=dropout)).train()
        weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
        found: dict[int, torch.UntypedStorage] = {}

        def note(tensor: torch.Tensor, weights: set[int] = weights, found: dict[int, Any] = found) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                found[storage.data_ptr()] = storage
            return tensor

        mixed = torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16)
        where = layout(torch.tensor([[0] * 24 + [1] * 20 + [2] * 20]), dtype)
        hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
        with hooks, mixed, branch_attention(base), fused_lora(model):
            language = model.get_base_model().model.language_model
            tokens = torch.zeros(1, length, dtype=torch.long)
            last = language(tokens, attention_mask={"full_attention": where}, use_cache=False)
        kept.append(sum(storage.nbytes() for storage in found.values()))
        del last
    shape = Shape(length=length, prefix=24, branches=2, branch=20)
    assert kept[1] - kept[0] == kept_bytes(Geometry.of(config), method(dtype=dtype, dropout=dropout > 0), 1, shape)


@pytest.mark.parametrize(("size", "low", "high"), [("1B", 1.8, 2.0), ("8B", 15, 17)])
def test_true_sizes_are_plausible(
    size: str, low: float, high: float, examples: list[Example], true_size: Callable[[str], Path]
) -> None:
    config = RunConfig(base_model=str(true_size(size)), device="cpu", dtype="bfloat16")
    found = estimate(config, examples)
    assert low * GB < found.memory["base weights"] < high * GB
    assert found.total > found.memory["base weights"] + found.memory["activations"]
    geometry = Geometry.of(make_config(make_processor(), size))
    four, eight = (weight_bytes(geometry, method(quantization=kind)) for kind in ("4bit", "8bit"))
    assert four < eight < weight_bytes(geometry, method())


def test_a_refusal_names_what_helps(examples: list[Example], true_size: Callable[[str], Path]) -> None:
    """An 8B base, on a machine with a given number of bytes free."""
    config = RunConfig(base_model=str(true_size("8B")), device="cpu", dtype="bfloat16", rows_at_once=8)
    roomy = estimate(config, examples, available=1000 * GB)
    assert (roomy.fits, roomy.is_tight, roomy.advice) == (True, False, "")
    check(roomy)

    tight = estimate(config, examples, available=int(roomy.total * 0.9))
    assert (tight.fits, tight.is_tight) == (True, True)
    assert "It may fit or not." in tight.advice
    check(tight)

    enough = estimate(config, examples, available=int(roomy.total * 0.7))
    with pytest.raises(ModelError, match=r"Training InternVL3-8B needs about \d+ GB .* and \d+ GB are free") as refused:
        check(enough)
    assert "Set rows_at_once=1 (−" in str(refused.value)
    assert str(refused.value).endswith("; that would be enough.")
    helped = estimate(config.model_copy(update={"rows_at_once": 1}), examples, available=enough.available)
    assert helped.total < roomy.total

    hopeless = estimate(config, examples, available=8 * GB)
    with pytest.raises(ModelError, match=r"rows_at_once=1 .*even then it would be \d+ GB"):
        check(hopeless)
    assert "4bit" not in hopeless.advice  # there is no such thing on a CPU


def test_what_does_not_help_is_not_advised(examples: list[Example]) -> None:
    config = RunConfig(base_model=str(EMBEDDED_BASE), device="cpu", dtype="float32", rows_at_once=1, measured_faces=0)
    with pytest.raises(ModelError) as refused:
        check(estimate(config, examples, available=10**8))
    assert "rows_at_once" not in str(refused.value)
    assert "quantization" not in str(refused.value)


def test_a_base_that_cannot_be_read(examples: list[Example], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        estimate(RunConfig(base_model=str(tmp_path / "missing")), examples)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "config.json").write_text("{")
    with pytest.raises(ModelError, match="Nothing can be estimated for .*damaged"):
        estimate(RunConfig(base_model=str(tmp_path / "damaged")), examples)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ModelError, match="type bert; expected internvl"):
        estimate(RunConfig(base_model=str(tmp_path / "other")), examples)


def test_a_base_on_the_hub_that_is_out_of_reach_blocks_nothing(
    examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    found = estimate(RunConfig(base_model="nobody/has-this-model", device="cpu"), examples)
    assert found.fits
    assert found.available > 0
    assert "nothing can be estimated" in found.unknown
    check(found)


def test_an_image_that_cannot_be_opened_is_named(examples: list[Example]) -> None:
    lost = examples[0].model_copy(update={"images": ("/nowhere/face.png",)})
    with pytest.raises(ImageError, match=r"face\.png does not exist"):
        estimate(RunConfig(base_model=str(EMBEDDED_BASE)), [lost])


def test_a_full_disk_is_told(of: Callable[..., Estimate]) -> None:
    found = dataclasses.replace(of(epochs=2, feature_cache_mb=0), disk_available=1000)
    assert found.disk["vision features"] == 8 * 16 * 128 * 4  # images × tokens × width × float32
    assert not found.fits
    assert of(epochs=2, feature_cache_mb=0, feature_disk_gb=0).disk["vision features"] == 0


def test_features_leave_room_on_the_disk_for_what_a_run_must_write(tmp_path: Path) -> None:
    greedy = RunConfig(base_model=str(EMBEDDED_BASE), feature_disk_gb=1e9)
    free = shutil.disk_usage(tmp_path).free
    assert 0 < disk_budget(greedy, tmp_path, 1_000_000) < free - 40 * 1_000_000
    assert disk_budget(greedy, tmp_path, free) == 0, "the adapter alone would fill it"
    assert disk_budget(greedy.model_copy(update={"feature_disk_gb": 1e-6}), tmp_path, 1) == 1000


def test_a_quantized_base_computes_in_bfloat16(of: Callable[..., Estimate]) -> None:
    assert (of().dtype, of(quantization="8bit").dtype) == ("float32", "bfloat16")


def test_a_file_says_what_a_list_says(examples: list[Example], tmp_path: Path) -> None:
    """With more images than are looked into."""
    many = [
        example.model_copy(update={"images": (str(tmp_path / f"{copy}.png"),)})
        for copy in range(100)
        for example in examples[:2]
    ]
    for each in many:
        shutil.copy(examples[0].images[0], each.images[0])
    write_examples(tmp_path / EXAMPLES, many)
    config = RunConfig(base_model=str(EMBEDDED_BASE), device="cpu", dtype="float32")
    found = [estimate(config, source, available=GB) for source in (many, ExamplesFile(tmp_path / EXAMPLES))]
    assert found[0].memory == found[1].memory
    assert (found[0].rows, found[0].tokens) == (found[1].rows, found[1].tokens)


def test_the_command_says_it_and_exits(examples: list[Example], tmp_path: Path) -> None:
    """In a run's directory; with --set another number is tried."""
    run_dir = jobs.create_run(tmp_path, examples, RunConfig(base_model=str(EMBEDDED_BASE), device="cpu"))
    shown = CliRunner().invoke(app, ["estimate", str(run_dir)])
    assert shown.exit_code == 0, shown.output
    assert "It fits." in shown.output
    found = json.loads(CliRunner().invoke(app, ["estimate", str(run_dir), "--set", "max_steps=3", "--json"]).output)
    assert (found["steps"], found["fits"]) == (3, True)
    assert found["total"] == sum(found["memory"].values())
    again = estimate(RunConfig(base_model=str(EMBEDDED_BASE), device="cpu"), ExamplesFile(run_dir / EXAMPLES))
    assert again.rows == 8


def test_memory_is_flat_in_the_size_of_the_data(examples: list[Example]) -> None:
    """Ten times the pairs of ten times the images: only the features that are kept grow, and they have a budget."""
    many = [
        example.model_copy(update={"images": (example.images[0].replace("/faces", f"/./{'./' * copy}/faces"),)})
        for copy in range(10)
        for example in examples
    ]
    config = RunConfig(base_model=str(EMBEDDED_BASE), device="cpu", dtype="float32", feature_cache_mb=0)
    few, ten = estimate(config, examples), estimate(config, many)
    assert ten.rows > 9 * few.rows
    assert ten.total == pytest.approx(few.total, rel=0.01)


def test_a_containers_limit_counts(tmp_path: Path) -> None:
    """Both versions of cgroups, as folders of files."""
    groups = tmp_path / "cgroup"
    own = groups / "app"
    own.mkdir(parents=True)
    (own / "memory.max").write_text("1000\n")
    (own / "memory.current").write_text("700\n")
    (own / "memory.stat").write_text("anon 500\ninactive_file 200\n")
    (tmp_path / "self").write_text("0::/app\n")
    assert list(free_memory.left_in_containers(tmp_path / "self", groups)) == [500]
    (own / "memory.max").write_text("max\n")
    assert list(free_memory.left_in_containers(tmp_path / "self", groups)) == []
    old = groups / "memory"
    old.mkdir()
    (old / "memory.limit_in_bytes").write_text("900\n")
    (old / "memory.usage_in_bytes").write_text("100\n")
    (tmp_path / "self").write_text("4:memory:/\n")
    assert list(free_memory.left_in_containers(tmp_path / "self", groups)) == [800]
    assert list(free_memory.left_in_containers(tmp_path / "none", groups)) == []
