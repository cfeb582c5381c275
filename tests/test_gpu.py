"""What only a GPU can show: pytest -m gpu tests/test_gpu.py"""

import json
from pathlib import Path

import pytest
import torch
from rendered_examples import make_examples

from facellm.checkpoint import load_checkpoint
from facellm.training import jobs
from facellm.training.attention import Kernel, choose_kernel, seconds_of_kernels
from facellm.training.recipe import RunConfig
from facellm.training.train import train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine"),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_flex_attention_learns_what_sdpa_learns(untrained_tiny: Path, dtype: torch.dtype) -> None:
    """One layer's attention, forward and backward, compiled; a difference would raise."""
    base, _ = load_checkpoint(untrained_tiny, device="cuda", dtype=dtype)
    assert seconds_of_kernels(base, dtype, base.device).keys() == set(Kernel)
    assert choose_kernel("flex", base, dtype, base.device) is Kernel.FLEX


def curve(untrained_tiny: Path, tmp_path: Path, **changes: object) -> list[float]:
    """The losses of a run of six steps of ragged rows on the GPU."""
    common = {"base_model": str(untrained_tiny), "device": "cuda", "epochs": 3, "batch_size": 24, "rows_at_once": 2}
    common |= {"learning_rate": 5e-3, "measured_faces": 0, "held_out": 0.25}
    examples = [each for place, each in enumerate(make_examples(tmp_path / "images", 8)) if place % 8 <= place // 8]
    run_dir = jobs.create_run(tmp_path / "runs", examples, RunConfig.model_validate(common | changes))
    train(run_dir)
    assert json.loads((run_dir / "result.json").read_text())["state"] == "finished"
    return [line["loss"] for line in jobs.metrics(run_dir)]


def test_both_kernels_give_the_same_curve(untrained_tiny: Path, tmp_path: Path) -> None:
    """Six steps of parts of one and of two rows, several lengths, and measurements between them."""
    options = {"dtype": "float32"}
    sdpa = curve(untrained_tiny, tmp_path, attention="sdpa", **options)
    flex = curve(untrained_tiny, tmp_path, attention="flex", **options)
    assert flex == pytest.approx(sdpa, rel=1e-3)
    checkpointed = curve(untrained_tiny, tmp_path, attention="flex", gradient_checkpointing=True, **options)
    assert checkpointed == pytest.approx(sdpa, rel=1e-3)


@pytest.mark.parametrize("quantization", ["8bit", "4bit"])
def test_a_quantized_base_learns(untrained_tiny: Path, tmp_path: Path, quantization: str) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    losses = curve(untrained_tiny, tmp_path, quantization=quantization)
    assert losses[-1] < losses[0] - 0.2
