"""The curves of a run in TensorBoard and Trackio, too, where these are installed: numbers only, and on this machine.

    tensorboard --logdir data/runs      each run writes to its folder tensorboard/
    trackio show --project facellm      each run has its name there

The one surprising fact: a tracker that fails is switched off, and the run goes on. What counts is in metrics.jsonl.
"""

import importlib
import importlib.util
import io
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from transformers import TrainerCallback, TrainerControl, TrainerState

from facellm.training.recipe import RunConfig
from facellm.training.training_progress import Progress

PROJECT = "facellm"  # in Trackio
FOLDER = "tensorboard"
# What would have Trackio send the numbers elsewhere.
_ELSEWHERE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "TRACKIO_BUCKET_ID", "TRACKIO_WEBHOOK_URL")
log = logging.getLogger(__name__)


class Tracker(Protocol):
    """What takes numbers of a step."""

    def write(self, step: int, numbers: Mapping[str, float]) -> None: ...  # noqa: D102

    def close(self) -> None: ...  # noqa: D102


class _TensorBoard:
    def __init__(self, run_dir: Path, _config: RunConfig, step: int, _resumed: bool) -> None:
        """Points from this step on that an earlier attempt wrote are taken back."""
        writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter
        self._writer = writer(str(run_dir / FOLDER), purge_step=step)

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _Trackio:
    def __init__(self, run_dir: Path, config: RunConfig, _step: int, resumed: bool) -> None:
        """A run that is made anew under an old name is another one; one that is resumed goes on."""
        for name in _ELSEWHERE:
            os.environ.pop(name, None)
        with redirect_stdout(io.StringIO()):  # its advertisement
            self._run = importlib.import_module("trackio").init(
                project=PROJECT,
                name=run_dir.name,
                config=config.model_dump(mode="json"),
                resume="allow" if resumed else "never",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        self._run.log(dict(numbers), step=step)

    def close(self) -> None:
        with redirect_stdout(io.StringIO()):
            self._run.finish()


_KINDS: dict[str, tuple[str, type[_TensorBoard] | type[_Trackio]]] = {
    "TensorBoard": ("tensorboard", _TensorBoard),
    "Trackio": ("trackio", _Trackio),
}


class Trackers(TrainerCallback):
    """Trainer's callback that hands the numbers of a run on; it stands after Progress, which counts the tokens."""

    def __init__(self, run_dir: Path, config: RunConfig, progress: Progress) -> None:
        self._run_dir = run_dir
        self._config = config
        self._progress = progress
        self._open: dict[str, Tracker] = {}
        is_wanted = config.trackers == "installed"
        self._waiting = [
            name for name, (package, _) in _KINDS.items() if is_wanted and importlib.util.find_spec(package) is not None
        ]

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Hand a step's numbers on."""
        logs = kwargs["logs"]
        if "loss" in logs:
            numbers = {f"train/{name}": float(logs[name]) for name in ("loss", "learning_rate", "grad_norm")}
            self._write(state, numbers | {"train/tokens": float(self._progress.tokens)})

    def on_evaluate(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Hand a held-out loss on."""
        self._write(state, {"held_out/loss": kwargs["metrics"]["eval_loss"]})

    def close(self) -> None:
        """Write out what is left, however the run has ended."""
        for name in list(self._open):
            self._guarded(name, self._open[name].close)
        self._open.clear()

    def _write(self, state: TrainerState, numbers: Mapping[str, float]) -> None:
        if not state.is_world_process_zero:
            return
        for name in self._waiting:
            self._guarded(name, partial(self._begin, name, state.global_step))
        self._waiting = []
        for name in list(self._open):
            self._guarded(name, partial(self._open[name].write, state.global_step, numbers))

    def _begin(self, name: str, step: int) -> None:
        self._open[name] = _KINDS[name][1](self._run_dir, self._config, step, self._progress.first_step > 0)
        log.info(f"The run is logged to {name}, too")

    def _guarded(self, name: str, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # whatever others' code may raise
            self._open.pop(name, None)
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            log.info(f"{name} is switched off for this run, which goes on: {reason}")
