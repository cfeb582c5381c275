"""What a run may be told beside the recipe: rsLoRA, DoRA, recomputed activations and a quantized base."""

import importlib.util
import logging
import warnings
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from rendered_examples import make_examples
from torch import Tensor

from facellm.checkpoint import load_checkpoint
from facellm.config import Settings
from facellm.data import Attribute, open_image, write_examples
from facellm.errors import ConfigError, ModelError
from facellm.model import ChatModel, Request, Sampling, Turn
from facellm.training import jobs
from facellm.training.prepare import configure
from facellm.training.recipe import RunConfig
from facellm.training.row_trainer import RowTrainer
from facellm.training.train import _arguments, train, with_lora
from facellm.training.training_data import TrainingData

SAMPLING = Sampling(max_new_tokens=12)


def run(base: Path, folder: Path, **changes: object) -> Path:
    """A finished run of eight steps."""
    common = {"base_model": str(base), "epochs": 4, "batch_size": 16, "learning_rate": 5e-3, "dtype": "float32"}
    common |= {"held_out": 0, "measured_faces": 0, "trackers": "none", "device": "cpu"}
    config = RunConfig.model_validate(common | changes)
    run_dir = jobs.create_run(folder / "runs", make_examples(folder / "images", 4), config)
    train(run_dir)
    return run_dir


def losses(run_dir: Path) -> list[float]:
    return [line["loss"] for line in jobs.metrics(run_dir)]


def questions(folder: Path, name: str | None) -> list[Request]:
    image = open_image(folder / "images" / "0.png")
    return [Request((Turn("user", each.question, (image,)),), name, SAMPLING) for each in (*Attribute,)[:3]]


def test_an_rslora_adapter_answers_beside_the_base_as_merged_into_it(untrained_tiny: Path, tmp_path: Path) -> None:
    """Its scale is alpha / √rank; taken for plain LoRA it would say something else."""
    run_dir = run(untrained_tiny, tmp_path, rslora=True, rank=16, alpha=32)
    with ChatModel.load(untrained_tiny, device="cpu") as model:
        model.add_adapter("tuned", run_dir / "adapter")
        beside = model.replies(questions(tmp_path, "tuned"))
        plain = model.replies(questions(tmp_path, None))
    merged = tmp_path / "merged"
    base, processor = load_checkpoint(untrained_tiny, device="cpu")
    PeftModel.from_pretrained(base, run_dir / "adapter").merge_and_unload().save_pretrained(merged)
    processor.save_pretrained(merged)
    with ChatModel.load(merged, device="cpu") as model:
        assert model.replies(questions(tmp_path, None)) == beside
    assert beside != plain
    assert losses(run_dir) != losses(run(untrained_tiny, tmp_path, rank=16, alpha=32))


def test_dora_is_refused_when_a_run_is_made() -> None:
    settings = Settings(device="cpu")
    with pytest.raises(ConfigError, match=r"^--set: dora is on, but DoRA .* Leave it off; rslora works\."):
        configure(settings, settings.base_checkpoint, {"dora": "true"}, "--set")
    assert not configure(settings, settings.base_checkpoint, {"dora": "false"}, "--set").dora


def test_recomputed_activations_change_nothing_but_the_memory(untrained_tiny: Path, tmp_path: Path) -> None:
    """What is kept for the backward pass is counted; the gradients of all LoRA matrices are compared."""
    write_examples(tmp_path / "train.jsonl", make_examples(tmp_path / "images", 4))
    found = {}
    for checkpointed in (False, True):
        base, processor = load_checkpoint(untrained_tiny, device="cpu")
        config = RunConfig(
            base_model=str(untrained_tiny), held_out=0, gradient_checkpointing=checkpointed, device="cpu"
        )
        data = TrainingData(tmp_path / "train.jsonl", processor, config)
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`")  # PEFT's, of every model
            model = with_lora(base.float(), config)
            for name, weights in model.named_parameters():
                if "lora_B" in name:
                    torch.nn.init.normal_(weights, std=0.05)
            trainer = RowTrainer(
                data,
                per_step=4,
                at_once=4,
                compute_dtype=torch.float32,
                best=tmp_path / "best",
                model=model,
                args=_arguments(tmp_path, config),
            )
            (step,) = trainer.get_train_dataloader()
            kept: dict[int, int] = {}

            def keep(saved: Tensor, kept: dict[int, int] = kept) -> Tensor:
                kept[saved.untyped_storage().data_ptr()] = saved.untyped_storage().nbytes()
                return saved

            with trainer.headless():
                model.train()
                with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
                    loss = trainer.part_loss(model, step["parts"][0])
                loss.backward()
        gradient = torch.cat([each.grad.flatten() for each in model.parameters() if each.grad is not None])
        found[checkpointed] = (loss.item(), gradient, sum(kept.values()))
    (loss, gradient, kept_bytes), (again, gradient_again, kept_again) = found[False], found[True]
    assert again == pytest.approx(loss, rel=1e-6)
    assert (gradient_again - gradient).norm() / gradient.norm() <= 1e-6
    assert kept_again < 0.5 * kept_bytes


def test_runs_with_recomputed_activations_have_the_same_curve(untrained_tiny: Path, tmp_path: Path) -> None:
    plain, again = (run(untrained_tiny, tmp_path, gradient_checkpointing=each) for each in (False, True))
    assert losses(again) == pytest.approx(losses(plain), rel=1e-6)


@pytest.mark.parametrize("quantization", ["8bit", "4bit"])
def test_an_adapter_of_a_quantized_base_answers_beside_the_whole_one(
    untrained_tiny: Path, tmp_path: Path, quantization: str, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    caplog.set_level(logging.INFO)
    run_dir = run(untrained_tiny, tmp_path, quantization=quantization, held_out=0.25, patience=9)
    assert "in bfloat16" in caplog.text
    assert losses(run_dir)[-1] < losses(run_dir)[0] - 0.3
    with ChatModel.load(untrained_tiny, device="cpu") as model:
        model.add_adapter("tuned", run_dir / "adapter")
        assert model.replies(questions(tmp_path, "tuned")) != model.replies(questions(tmp_path, None))


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
def test_quantization_without_its_package_is_refused(untrained_tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^Loading in 4bit needs the package bitsandbytes\. Install it: pip install"):
        run(untrained_tiny, tmp_path, quantization="4bit")
