"""An adapter recovered from a merged checkpoint, on the embedded pair: python -m pytest tests/test_extraction.py"""

import gc
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from rendered_examples import make_examples
from safetensors.torch import load_file, save_file
from transformers import InternVLForConditionalGeneration
from typer.testing import CliRunner

from facellm.__main__ import app
from facellm.adapters import read_adapter
from facellm.config import EMBEDDED_ADAPTER, EMBEDDED_BASE
from facellm.data import Attribute, write_examples
from facellm.errors import DataError, ModelError
from facellm.faces import EVALUATION_SEEDS, render, sample
from facellm.model import ChatModel, Request, Turn
from facellm.publishing.agreement_gate import Question, answer, compare, default_questions, read_questions
from facellm.publishing.extraction import Work, decomposed, extract
from facellm.publishing.merging import merge

ON_CPU = Work(device="cpu")
QUESTIONS = [
    Question((render(sample(seed)),), attribute.question) for seed in EVALUATION_SEEDS[:2] for attribute in Attribute
]


def in_type(source: Path, folder: Path, dtype: torch.dtype) -> Path:
    """A copy of a checkpoint whose weights and config.json have another type."""
    shutil.copytree(source, folder)
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": str(dtype).removeprefix("torch.")}))
    return folder


def changed(source: Path, folder: Path, name: str, by: float) -> Path:
    """A copy of a checkpoint with one tensor changed; one of the layers gets noise of every rank."""
    shutil.copytree(source, folder)
    tensors = load_file(folder / "model.safetensors")
    noise = torch.randn(tensors[name].shape, generator=torch.Generator().manual_seed(0))
    tensors[name] = (tensors[name].float() + by * noise).to(tensors[name].dtype)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded base as large models are published: bfloat16, also when it is loaded."""
    return in_type(EMBEDDED_BASE, tmp_path_factory.mktemp("half") / "base", torch.bfloat16)


@pytest.fixture(scope="module")
def merged(half: Path) -> dict[torch.dtype, Path]:
    """The embedded adapter merged in each type."""
    found = {torch.float32: half.parent / "merged-32", torch.bfloat16: half.parent / "merged-16"}
    merge(EMBEDDED_ADAPTER, found[torch.float32], base=str(EMBEDDED_BASE))
    merge(EMBEDDED_ADAPTER, found[torch.bfloat16], base=str(half))
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_recovered_adapter_answers_as_the_merged_model_does(
    half: Path, merged: dict[torch.dtype, Path], tmp_path: Path, dtype: torch.dtype
) -> None:
    base = EMBEDDED_BASE if dtype == torch.float32 else half
    found = extract(str(base), str(merged[dtype]), tmp_path / "out", QUESTIONS, rank=16, work=ON_CPU)
    assert found.agreement.passed
    assert found.agreement.prompts == 16
    assert found.agreement.positions > 100
    assert found.agreement.mean_kl < (1e-7 if dtype == torch.float32 else 1e-5)
    assert found.spectrum.layers == 28
    assert found.spectrum.rank_found == 16, "the rank that was trained, whatever the rounding adds"
    assert found.spectrum.kept > (1 - 1e-7 if dtype == torch.float32 else 0.9999)
    requests = [Request((Turn("user", each.text, each.images),)) for each in QUESTIONS]
    with ChatModel.load(base, device="cpu") as model:
        model.add_adapter("recovered", tmp_path / "out")
        model.add_checkpoint("merged", merged[dtype])
        told = [
            model.replies([Request(each.conversation, name) for each in requests]) for name in ("recovered", "merged")
        ]
        assert told[0] == told[1]
        assert told[0] != model.replies(requests), "the base says something else"


def test_one_model_at_a_time_is_in_memory(merged: dict[torch.dtype, Path]) -> None:
    """Also where nothing else makes Python look for cycles."""
    gc.collect()
    before = count_models()
    gc.disable()
    try:
        answered = answer(merged[torch.float32], QUESTIONS[:1], device="cpu", dtype=torch.float32)
        compare(EMBEDDED_BASE, EMBEDDED_ADAPTER, answered, device="cpu", dtype=torch.float32)
        assert count_models() <= before + 1
    finally:
        gc.enable()


def count_models() -> int:
    return sum(type(each) is InternVLForConditionalGeneration for each in gc.get_objects())


def test_what_was_merged_comes_back(merged: dict[torch.dtype, Path], tmp_path: Path) -> None:
    extract(str(EMBEDDED_BASE), str(merged[torch.float32]), tmp_path / "out", QUESTIONS[:2], rank=20, work=ON_CPU)
    mine, theirs = read_adapter(tmp_path / "out"), read_adapter(EMBEDDED_ADAPTER)
    assert mine.config.base_model_name_or_path == "facellm/embedded/tiny-base"
    assert mine.modules == theirs.modules
    for module in mine.modules:
        updates = []
        for adapter in (mine, theirs):
            down, up = adapter.pair(module)
            assert down is not None and up is not None
            updates.append(adapter.scale(module, len(down)) * up @ down)
        assert torch.allclose(updates[0], updates[1], atol=1e-6), module


def test_of_a_large_matrix_the_first_singular_values_are_found_without_the_others() -> None:
    draw = torch.Generator().manual_seed(0)
    left, right = (torch.randn(side, 16, generator=draw) for side in (1700, 1600))
    update = 1e-3 * left @ right.T
    noisy = update + 1e-3 * torch.randn(update.shape, generator=draw)
    found = decomposed(noisy, 16)
    up, values, down = (part for part in found)
    cut = (up[:, :16] * values[:16]) @ down[:16]
    assert len(values) == 96
    assert (cut - update).norm() < 0.1 * update.norm()
    assert all(torch.equal(one, other) for one, other in zip(found, decomposed(noisy, 16), strict=True))


def test_layers_that_were_not_trained_are_left_out(tmp_path: Path) -> None:
    """A difference of rank 80 in the values' layers alone, which have 64 outputs; one of them is as it was."""
    shutil.copytree(EMBEDDED_BASE, tmp_path / "base")
    names = [f"language_model.model.layers.{layer}.self_attn.v_proj.weight" for layer in (0, 1, 3)]
    path = tmp_path / "base"
    for number, name in enumerate(names):
        path = changed(path, tmp_path / f"changed-{number}", name, 0.01)
    found = extract(str(EMBEDDED_BASE), str(path), tmp_path / "out", QUESTIONS[:2], rank=80, work=ON_CPU)
    assert (found.spectrum.layers, found.spectrum.rank_found) == (3, 64)
    adapter = read_adapter(tmp_path / "out")
    assert [module.rpartition(".layers.")[2] for module in adapter.modules] == [
        f"{n}.self_attn.v_proj" for n in range(4)
    ]
    untouched = adapter.pair("model.language_model.layers.2.self_attn.v_proj")
    assert all(matrix is not None and not matrix.any() for matrix in untouched)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("language_model.model.norm.weight", "model.language_model.norm.weight"),
        ("language_model.model.embed_tokens.weight", "model.language_model.embed_tokens.weight"),
        ("language_model.model.layers.2.self_attn.q_proj.bias", "model.language_model.layers.2.self_attn.q_proj.bias"),
        ("multi_modal_projector.linear_1.weight", "model.multi_modal_projector.linear_1.weight"),
    ],
)
def test_a_difference_elsewhere_is_refused_by_its_name(
    merged: dict[torch.dtype, Path], tmp_path: Path, name: str, shown: str
) -> None:
    other = changed(merged[torch.float32], tmp_path / "other", name, 1e-3)
    with pytest.raises(ModelError, match=r"is no LoRA of the language model's linear layers") as caught:
        extract(str(EMBEDDED_BASE), str(other), tmp_path / "out", QUESTIONS, rank=16, work=ON_CPU)
    assert f"1 of 123 other tensors differ ({shown}), the most {shown}, by up to 0.00" in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {"other"}


def test_another_base_is_refused_with_the_numbers(
    untrained_tiny: Path, merged: dict[torch.dtype, Path], tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=r"\d+ of 123 other tensors differ \(.*…\), the most .*, by up to \d"):
        extract(str(untrained_tiny), str(merged[torch.float32]), tmp_path / "out", QUESTIONS, rank=16, work=ON_CPU)
    with pytest.raises(ModelError, match="there is no difference to extract"):
        extract(str(EMBEDDED_BASE), str(EMBEDDED_BASE), tmp_path / "out", QUESTIONS, rank=16, work=ON_CPU)
    with pytest.raises(DataError, match="there already"):
        extract(str(EMBEDDED_BASE), str(merged[torch.float32]), untrained_tiny, QUESTIONS, rank=16, work=ON_CPU)
    assert list(tmp_path.iterdir()) == []


def command(*arguments: object) -> tuple[int, dict[str, Any], str]:
    """Exit code, what was printed as JSON, and the error."""
    done = CliRunner().invoke(app, [*map(str, arguments), "--json"], env={"FACELLM_DEVICE": "cpu"})
    return done.exit_code, json.loads(done.stdout), str(done.exception)


def test_too_low_a_rank_and_layers_of_every_rank_are_stopped_at_the_gate(
    merged: dict[torch.dtype, Path], tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts" / "examples.jsonl"
    write_examples(prompts, make_examples(tmp_path / "pictures", 1))
    code, printed, error = command(
        "extract", EMBEDDED_BASE, merged[torch.float32], tmp_path / "out", "--rank", 2, "--prompts", prompts
    )
    assert code == 1
    agreement, spectrum = printed["agreement"], printed["spectrum"]
    assert not agreement["passed"]
    assert agreement["prompts"] == 8
    assert agreement["same"] < 0.99 or agreement["mean_kl"] > 1e-3
    assert spectrum["ranks"]["0.9999"] == spectrum["rank_found"] == 16
    assert "Try --rank 16" in error
    assert f"at {100 * agreement['same']:.2f} % of {agreement['positions']} positions" in error
    assert not (tmp_path / "out").exists()
    name = "language_model.model.layers.1.mlp.down_proj.weight"
    other = changed(merged[torch.float32], tmp_path / "other", name, 0.1)
    found = extract(str(EMBEDDED_BASE), str(other), tmp_path / "out", QUESTIONS, rank=16, work=ON_CPU)
    assert not found.agreement.passed
    assert found.spectrum.worst_layer == "model.language_model.layers.1.mlp.down_proj"
    assert found.spectrum.rank_found == 128
    assert {path.name for path in tmp_path.iterdir()} == {"prompts", "pictures", "other"}


def test_prompts_are_eight_questions_about_unseen_faces_or_those_of_a_file(tmp_path: Path) -> None:
    assert len(default_questions()) == 64
    write_examples(tmp_path / "examples.jsonl", make_examples(tmp_path, 1))
    assert [each.text for each in read_questions(tmp_path / "examples.jsonl")] == [each.question for each in Attribute]
    (tmp_path / "bad.jsonl").write_text('{"images": [], "question": "Who is it?"}\n{"images": []}\n')
    with pytest.raises(DataError, match=r"bad.jsonl, line 2: Field required. Expected an object with images and a"):
        read_questions(tmp_path / "bad.jsonl")
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DataError, match="is empty"):
        read_questions(tmp_path / "empty.jsonl")
