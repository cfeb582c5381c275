"""What a training run writes down while it goes, and what it decides between two steps.

A line of metrics.jsonl for each step, one of held_out.jsonl for each measurement, a checkpoint now and then. It stops
when it is told to, or when the held-out loss no longer falls. The one surprising fact: all that it knows of the past it
reads from these files, so a run that is resumed decides as if it had never been interrupted.
"""

import json
import logging
import math
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState

from facellm.errors import ModelError
from facellm.training.checkpoints import complete
from facellm.training.recipe import RunConfig
from facellm.training.row_trainer import RowTrainer
from facellm.training.run_directory import HELD_OUT, METRICS
from facellm.training.run_files import append_json, json_lines, write_text

log = logging.getLogger(__name__)


@dataclass
class Measurement:
    """A held-out loss."""

    step: int
    loss: float


class Progress(TrainerCallback):
    """Trainer's callback for one run; `trainer` is to be set before it begins.

    Attributes:
        stop: set when the run is to end.
        measured: the held-out losses so far.
    """

    trainer: RowTrainer

    def __init__(self, run_dir: Path, config: RunConfig, stop: threading.Event) -> None:
        self.run_dir = run_dir
        self.config = config
        self.stop = stop
        self.losses = [float(line["loss"]) for line in json_lines(run_dir / METRICS)]
        self.measured = [Measurement(line["step"], line["loss"]) for line in json_lines(run_dir / HELD_OUT)]
        last = list(json_lines(run_dir / METRICS))[-1:]
        self.seconds_before = float(last[0]["seconds"]) if last else 0.0
        self.tokens_before = int(last[0]["tokens"]) if last else 0
        self.first_step = 0
        self.tokens = self.tokens_before
        self.started = self.saved = time.monotonic()

    @property
    def best(self) -> Measurement | None:
        """The lowest held-out loss of a trained adapter, if there is one."""
        return min((found for found in self.measured if found.step), key=lambda found: found.loss, default=None)

    @property
    def seconds(self) -> float:
        """How long the run has trained, all attempts together."""
        return self.seconds_before + time.monotonic() - self.started

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Measure the untrained start, which says what the base says, or where the run was stopped instead."""
        self.started = self.saved = time.monotonic()
        self.first_step = state.global_step
        torch.manual_seed(args.seed + args.process_index)  # each process drops inputs of its own
        due = self.first_step in (0, state.max_steps) or self._time_to_look(state)
        done = self.first_step in (found.step for found in self.measured)
        if self.trainer.data.held_out and due and not done:
            self.trainer.evaluate()

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Decide whether to stop, to measure and to save."""
        last = state.global_step >= state.max_steps
        due = time.monotonic() - self.saved > 60 * self.config.checkpoint_minutes
        stop, due = self.is_stopped(), self._any(due)
        control.should_training_stop |= stop
        control.should_evaluate = bool(self.trainer.data.held_out) and not stop and (last or self._time_to_look(state))
        control.should_save = stop or due or last

    def is_stopped(self) -> bool:
        """Whether any process has been told to stop; all ask at the same moments, so that they end at the same step."""
        if self._any(self.stop.is_set()):
            self.stop.set()
        return self.stop.is_set()

    def _any(self, flag: bool) -> bool:
        """Whether any process says so."""
        if self.trainer.args.world_size == 1:
            return flag
        flags = torch.tensor(int(flag), device=self.trainer.args.device)
        return bool(self.trainer.accelerator.reduce(flags, "sum") > 0)

    def _time_to_look(self, state: TrainerState) -> bool:
        """Whether one of the epoch's equal parts ends with this step."""
        looks, an_epoch = self.config.evaluations, len(self.trainer.get_train_dataloader())
        now, before = (step * looks // an_epoch for step in (state.global_step, state.global_step - 1))
        return now > before

    def on_evaluate(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write the held-out loss down."""
        found = Measurement(state.global_step, kwargs["metrics"]["eval_loss"])
        is_best = found.step > 0 and (self.best is None or found.loss < self.best.loss)
        self.measured.append(found)
        if self.trainer.is_world_process_zero():
            line = {"step": found.step, "loss": found.loss, "best": is_best, "seconds": round(self.seconds, 2)}
            append_json(self.run_dir / HELD_OUT, line)
            log.info(f"step {found.step}  held-out loss {found.loss:.4f}{'  the lowest yet' if is_best else ''}")
        if self.config.patience and is_best:
            self.trainer.save_best()
        if found.step < state.max_steps and self.has_waited:
            control.should_training_stop = control.should_save = True

    @property
    def has_waited(self) -> bool:
        """Whether the held-out loss has not fallen for so many measurements that the run is to end."""
        since = [each for each in self.measured if self.best is not None and each.step > self.best.step]
        return 0 < self.config.patience <= len(since)

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """The checkpoint is written; from now on it counts."""
        self.trainer.accelerator.wait_for_everyone()
        if self.trainer.is_world_process_zero():
            complete(self.run_dir, state.global_step, self.trainer.chosen)
        self.saved = time.monotonic()

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write a step down; complain of a loss that is no number."""
        logs = kwargs["logs"]
        if "loss" not in logs:  # the summary at the end, or a measurement
            return
        step, total, loss = state.global_step, state.max_steps, logs["loss"]
        if not math.isfinite(loss):
            raise ModelError(
                f"The loss became {loss} at step {step}; expected a number. Train again with a lower learning rate."
            )
        self.losses.append(loss)
        tokens = self._all_tokens()
        if not self.trainer.is_world_process_zero():
            return
        eta = (time.monotonic() - self.started) / (step - self.first_step) * (total - step)
        line = {"step": step, "total": total, "epoch": round(logs["epoch"], 4), "loss": loss}
        line |= {"lr": logs["learning_rate"], "grad_norm": float(logs["grad_norm"]), "tokens": tokens}
        append_json(self.run_dir / METRICS, line | {"seconds": round(self.seconds, 2), "eta": round(eta, 1)})
        log.info(f"step {step}/{total}  epoch {logs['epoch']:.2f}  loss {loss:.4f}  {eta:.0f} s left")

    def _all_tokens(self) -> int:
        """The tokens of all processes and attempts."""
        seen = torch.tensor(self.trainer.seen, device=self.trainer.args.device)
        self.tokens = self.tokens_before + int(self.trainer.accelerator.reduce(seen, "sum"))
        return self.tokens

    def summary(self) -> dict[str, Any]:
        """What result.json says of the loss: its first value, and the mean of the last steps."""
        last = self.losses[-10:]
        return {
            "steps": len(self.losses),
            "tokens": self.tokens,
            "first_loss": self.losses[0] if self.losses else None,
            "last_loss": sum(last) / len(last) if last else None,
            "early_stop": self.has_waited and len(self.losses) < self.trainer.state.max_steps,
        }


def cut_back(run_dir: Path, step: int) -> None:
    """Forget what was written after a step, from where the run is trained on."""
    for name in (METRICS, HELD_OUT):
        kept = [json.dumps(line) + "\n" for line in json_lines(run_dir / name) if line["step"] <= step]
        write_text(run_dir / name, "".join(kept))
