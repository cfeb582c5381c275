"""What a finished run is worth: its held-out loss and its accuracy beside the base and the adapter in use.

The one surprising fact: a measurement that fails does not fail the run. The adapter is there by then, and the result
says why it was not measured.
"""

import gc
import logging
import threading
from pathlib import Path
from typing import Any

import torch

from facellm.adapters import read_adapter
from facellm.attributes import measure_beside
from facellm.errors import FaceLLMError, ModelError
from facellm.sources import find_source
from facellm.training.recipe import RunConfig
from facellm.training.row_trainer import RowTrainer
from facellm.training.run_directory import ADAPTER
from facellm.training.training_progress import Progress

IN_USE, NOT_MEASURED = "in_use", "not_measured"
log = logging.getLogger(__name__)


def held_out_losses(trainer: RowTrainer, progress: Progress, config: RunConfig) -> dict[str, Any]:
    """`held_out` of result.json: how many pairs were held out, and the loss on them of base, run and adapter in use."""
    data = trainer.data
    best = progress.best
    if not data.held_out or best is None or progress.measured[0].step:
        return {}
    run = best if config.patience else progress.measured[-1]
    losses: dict[str, float | None] = {"base": progress.measured[0].loss, "run": run.loss}
    missed = {}
    try:
        losses[IN_USE] = None if config.compared is None else _loss_of(trainer, config.compared)
    except (FaceLLMError, OSError, ValueError, RuntimeError) as error:  # PEFT's of an adapter that does not fit
        missed = {NOT_MEASURED: f"The adapter in use, {config.compare_with}, was not measured: {_line(error)}"}
    images = data.image_count(data.held_out)
    named = {"in_use": None if config.compare_with is None else _name(config.compare_with)}
    return {"held_out": {"images": images, "pairs": data.pairs[1]} | losses, "best_step": best.step} | named | missed


def _loss_of(trainer: RowTrainer, adapter: str) -> float | None:
    """The held-out loss of another adapter on the same base, which is taken off again."""
    read_adapter(adapter)  # PEFT would load what cannot answer beside the base, too
    place, within = find_source(adapter, "adapter")
    folder: dict[str, Any] = {"subfolder": within} if within else {}
    try:
        trainer.adapted.load_adapter(place, IN_USE, torch_device=str(trainer.args.device), **folder)
    except RuntimeError as error:
        raise ModelError("it was trained on another base, whose layers have other sizes.") from error
    trainer.adapted.set_adapter(IN_USE)
    try:
        return trainer.held_out_loss(trainer.adapted)
    finally:
        trainer.adapted.set_adapter("default")
        trainer.adapted.delete_adapter(IN_USE)


def attribute_accuracy(run_dir: Path, config: RunConfig, stop: threading.Event, *, beside: bool) -> dict[str, Any]:
    """`attributes` of result.json: right answers about rendered faces, of base, run and adapter in use.

    Args:
        beside: measure the adapter in use, too; not, where it could not be measured before.
    """
    if not config.measured_faces or not (run_dir / ADAPTER).is_dir():
        return {}

    def check() -> None:
        if stop.is_set():
            raise ModelError("the run was stopped meanwhile.")

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    adapters = {"base": None, "run": str(run_dir / ADAPTER)} | (
        {IN_USE: config.compared} if config.compared and beside else {}
    )
    try:
        found = measure_beside(
            config.checkpoint,
            adapters,
            device=config.device,
            count=config.measured_faces,
            quantization=config.quantization,
            check=check,
        )
    except (FaceLLMError, torch.OutOfMemoryError) as error:
        return {NOT_MEASURED: f"The accuracy was not measured: {_line(error)}"}
    for name, measured in found.items():
        log.info(f"accuracy of {name}: {measured.overall.share:.1%} of {config.measured_faces} rendered faces")
    return {"attributes": {"faces": config.measured_faces, "seed": 0} | {k: v.to_dict() for k, v in found.items()}}


def _name(adapter: str) -> str:
    """A run's name, or that of the adapter's folder or repository."""
    path = Path(adapter)
    return path.parent.name if path.name == ADAPTER else path.name


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
