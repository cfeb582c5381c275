"""The kernels of attention: what each sees, that FlexAttention says what SDPA says, and when it is not taken.

Its gradients need a GPU: tests/test_gpu.py.
"""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from rendered_examples import make_examples
from torch.nn.attention.flex_attention import create_mask

from facellm.checkpoint import load_checkpoint
from facellm.data import write_examples
from facellm.errors import ModelError
from facellm.training.attention import Kernel, attention_mask, block_mask, choose_kernel, seconds_of_kernels
from facellm.training.recipe import RunConfig
from facellm.training.row_trainer import RowTrainer
from facellm.training.train import LANGUAGE_LINEARS, _arguments
from facellm.training.training_data import TrainingData

# A prefix alone, a row that fills the length, one with filling, and a branch without a prefix.
SEGMENTS = torch.tensor(
    [
        [0] * 150 + [1] * 30 + [-1] * 120,
        [0] * 40 + [1] * 100 + [2] * 100 + [3] * 60,
        [0] * 7 + [1] * 5 + [2] * 9 + [-1] * 279,
        [1] * 200 + [-1] * 100,
    ]
)


def test_both_masks_are_the_same() -> None:
    mask = block_mask(SEGMENTS)
    assert torch.equal(create_mask(mask.mask_mod, 4, 1, 300, 300, "cpu"), attention_mask(SEGMENTS))
    assert mask.sparsity() > 20, "there is no block to skip"


def test_flex_attention_says_what_sdpa_says(untrained_tiny: Path, tmp_path: Path) -> None:
    """By the trainer itself, over ragged rows with filling: the eager form, since compiling takes a minute here."""
    base, processor = load_checkpoint(untrained_tiny, device="cpu")
    torch.manual_seed(0)
    lora = LoraConfig(r=4, target_modules=LANGUAGE_LINEARS, init_lora_weights=False)
    model: PeftModel = get_peft_model(base.float(), lora)
    examples = make_examples(tmp_path / "images", 4)
    write_examples(tmp_path / "train.jsonl", [each for place, each in enumerate(examples) if place % 8 <= place // 8])
    config = RunConfig(base_model=str(untrained_tiny), held_out=0.5, device="cpu")
    data = TrainingData(tmp_path / "train.jsonl", processor, config)
    assert len({data.lengths[row] for row in data.held_out}) == 2
    losses = {}
    for kernel in Kernel:
        trainer = RowTrainer(
            data,
            per_step=2,
            at_once=2,
            compute_dtype=torch.float32,
            kernel=kernel,
            best=tmp_path / "best",
            model=model,
            args=_arguments(tmp_path, config),
        )
        with trainer.headless(), torch.compiler.set_stance("force_eager"):
            losses[kernel] = trainer.held_out_loss(model)
        assert base.model.language_model.config._attn_implementation == "sdpa"
    assert losses[Kernel.FLEX] == pytest.approx(losses[Kernel.SDPA], rel=1e-5)


def test_where_flex_attention_does_not_work_sdpa_takes_its_place(
    untrained_tiny: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base, _ = load_checkpoint(untrained_tiny, device="cpu")
    caplog.set_level("INFO")
    assert choose_kernel("auto", base, torch.float32, base.device) is Kernel.SDPA
    assert choose_kernel("sdpa", base, torch.float32, base.device) is Kernel.SDPA
    assert caplog.messages == []
    assert choose_kernel("flex", base, torch.float32, base.device) is Kernel.SDPA
    assert caplog.messages == [
        "FlexAttention is not used, since it learns on a GPU only, and this is the cpu. "
        "SDPA takes its place, with the same result."
    ]
    with pytest.raises(ModelError, match=r"^it fails here \(FlexAttention does not support backward on CPU"):
        seconds_of_kernels(base.float(), torch.float32, base.device)
