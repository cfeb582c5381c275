"""Adapters beside the base, against PEFT's own mixed batches: python -m pytest tests/test_adapters.py."""

from pathlib import Path

import pytest
import torch
from lively_model import LANGUAGE_LINEARS, save_adapter, save_lively
from peft import PeftModel
from transformers import AutoModelForImageTextToText, InternVLForConditionalGeneration

from facellm.adapters import AdapterSet
from facellm.gated_lora import GatedLinear

CONFIGS = {
    "plain": {"r": 4, "target_modules": LANGUAGE_LINEARS},
    "two": {"r": 3, "lora_alpha": 5, "target_modules": r".*language_model.*\.(q|v|down)_proj"},
    "stabilised": {"r": 9, "use_rslora": True, "target_modules": LANGUAGE_LINEARS},
    "patterns": {
        "r": 2,
        "target_modules": LANGUAGE_LINEARS,
        "rank_pattern": {"q_proj": 5, r"layers\.1\.mlp\.up_proj": 3},
        "alpha_pattern": {"v_proj": 32, "model.language_model.layers.0.self_attn.o_proj": 1},
    },
}


@pytest.fixture(scope="module")
def checkpoint(untrained_tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_lively(untrained_tiny, tmp_path_factory.mktemp("adapters") / "lively")


@pytest.fixture(scope="module")
def saved(checkpoint: Path) -> dict[str, Path]:
    return {
        name: save_adapter(checkpoint, checkpoint.parent / name, seed=seed, **config)
        for seed, (name, config) in enumerate(CONFIGS.items())
    }


def base_of(checkpoint: Path) -> InternVLForConditionalGeneration:
    return AutoModelForImageTextToText.from_pretrained(checkpoint).eval()


def tokens(rows: int) -> torch.Tensor:
    return torch.randint(10, 700, (rows, 12), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_each_row_is_computed_as_peft_mixes_them(checkpoint: Path, saved: dict[str, Path]) -> None:
    base = base_of(checkpoint)
    adapters = AdapterSet(base)
    for name, folder in saved.items():
        adapters.add(name, folder)
    oracle = PeftModel.from_pretrained(base_of(checkpoint), saved["plain"], adapter_name="plain")
    for name, folder in list(saved.items())[1:]:
        oracle.load_adapter(folder, adapter_name=name)
    oracle.eval()
    for rows in (
        [None, "plain"],
        ["two", "two"],
        ["stabilised", None, "patterns", "plain", "two", None],
        ["patterns"],
        [None],
    ):
        ids = tokens(len(rows))
        adapters.choose([None if name is None else adapters.slot(name) for name in rows])
        ours = base(input_ids=ids).logits
        theirs = oracle(input_ids=ids, adapter_names=[name or "__base__" for name in rows]).logits
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4), rows
        if len(rows) > 1 and rows[0] != rows[1]:
            plain = base_of(checkpoint)(input_ids=ids).logits
            assert not torch.allclose(ours, plain, rtol=1e-2, atol=1e-2), "the adapters must matter here"


@torch.no_grad()
def test_base_rows_are_bit_for_bit_those_of_the_plain_model(checkpoint: Path, saved: dict[str, Path]) -> None:
    base, plain = base_of(checkpoint), base_of(checkpoint)
    adapters = AdapterSet(base)
    adapters.add("plain", saved["plain"])
    ids = tokens(1).repeat(2, 1)
    adapters.choose([None, adapters.slot("plain")])
    ours, theirs = base(input_ids=ids).logits, plain(input_ids=ids).logits
    assert torch.equal(ours[0], theirs[0])
    assert not torch.equal(ours[1], theirs[1])


@torch.no_grad()
def test_nothing_is_left_of_adapters_that_are_gone(checkpoint: Path, saved: dict[str, Path]) -> None:
    base = base_of(checkpoint)
    adapters = AdapterSet(base)
    modules = list(dict(base.named_modules()))
    for name in ("plain", "two"):
        adapters.add(name, saved[name])
    assert any(isinstance(module, GatedLinear) for module in base.modules())
    adapters.take_out(str(adapters.remove("plain")))
    kept = sum(isinstance(module, GatedLinear) for module in base.modules())
    assert kept == 3 * len(base.model.language_model.layers), "only those that the other one adapts"
    adapters.take_out(str(adapters.remove("two")))
    assert adapters.remove("two") is None
    assert list(dict(base.named_modules())) == modules
    assert adapters.nbytes == 0


def test_a_slot_is_never_given_twice(checkpoint: Path, saved: dict[str, Path]) -> None:
    adapters = AdapterSet(base_of(checkpoint))
    slots = []
    for name in ("plain", "two", "plain"):
        adapters.add("mine", saved[name])
        slots.append(adapters.slot("mine"))
    assert len(set(slots)) == 3


def test_new_weights_under_an_old_path_are_loaded(checkpoint: Path, tmp_path: Path) -> None:
    """A run that was deleted and made again has the same path."""
    adapters = AdapterSet(base_of(checkpoint))
    folder = save_adapter(checkpoint, tmp_path / "run-1", seed=1, **CONFIGS["plain"])
    adapters.add("run-1", folder)
    first = adapters.slot("run-1")
    adapters.add("run-1", folder)
    assert adapters.slot("run-1") == first
    save_adapter(checkpoint, folder, seed=2, **CONFIGS["plain"])
    adapters.add("run-1", folder)
    assert adapters.slot("run-1") != first
