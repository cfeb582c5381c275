"""Training by Ray Train: python -m facellm train RUN_DIR --launcher ray --processes 8

Ray starts the processes, on this machine or, where RAY_ADDRESS names a cluster, on its machines; each calls the same
`train`. Machines of a cluster need the checkout and the run's directory under the same path, as on a shared disk. The
one surprising fact: no signal reaches Ray's processes, so they look for the file that asks a run to stop.
"""

import importlib.util
import logging
import shutil
import signal
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

from facellm.config import ROOT, has_gpu, keep_ray_on_this_machine, ray_address
from facellm.errors import ConfigError, ModelError
from facellm.training.recipe import RunConfig
from facellm.training.run_directory import CONFIG, RESULT, STOP, load_record
from facellm.training.run_files import read_json

STORAGE = "ray"  # in the run's directory, while it trains
OBJECTS = 100_000_000  # bytes for Ray's own store: nothing of ours goes through it


def check_ray() -> None:
    """Raise ConfigError if Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise ConfigError("--launcher ray needs the package ray, which is not installed: pip install 'ray[train]'.")


def train_by_ray(run_dir: Path, *, processes: int, resume: bool = False) -> None:
    """Train a run in so many processes, and wait for its end; on a GPU, each has one.

    Raises:
        ModelError: it has failed; the message is that of result.json.
        ConfigError: Ray is not installed, or has no room for so many processes.
    """
    check_ray()
    if ray_address() is None:
        keep_ray_on_this_machine()
    import ray  # noqa: PLC0415 - an optional package, which takes seconds
    from ray.train import RunConfig as RayConfig  # noqa: PLC0415
    from ray.train import ScalingConfig  # noqa: PLC0415
    from ray.train.torch import TorchTrainer  # noqa: PLC0415

    run_dir = run_dir.resolve()
    (run_dir / RESULT).unlink(missing_ok=True)
    config = RunConfig.checked(load_record(run_dir)["config"], f"{run_dir.name}/{CONFIG}")
    on_gpu = config.device != "cpu" and has_gpu()
    _connect(ray, processes, on_gpu)
    for name in (signal.SIGINT, signal.SIGTERM):  # after Ray has set its own
        signal.signal(name, lambda *_: (run_dir / STOP).touch())
    try:
        TorchTrainer(
            _train_here,
            train_loop_config={"run_dir": str(run_dir), "resume": resume},
            scaling_config=ScalingConfig(num_workers=processes, use_gpu=on_gpu),
            run_config=RayConfig(name=run_dir.name, storage_path=str(run_dir / STORAGE)),
        ).fit()
    except ray.train.TrainingFailedError as error:
        result = read_json(run_dir / RESULT) or {}
        lost = "A process of Ray's ended without a result; its output says more."
        raise ModelError(result.get("error") or lost) from error
    finally:
        ray.shutdown()
        shutil.rmtree(run_dir / STORAGE, ignore_errors=True)


def _connect(ray: Any, processes: int, on_gpu: bool) -> None:
    """Join the cluster that is named, or start one of this machine alone, which no other can reach."""
    environment = {"env_vars": {"PYTHONPATH": str(ROOT)}}
    if address := ray_address():
        ray.init(address=address, runtime_env=environment)
    else:
        ray.init(
            _node_ip_address="127.0.0.1",
            include_dashboard=False,
            num_cpus=processes + 1,  # the one that watches over them
            object_store_memory=OBJECTS,
            runtime_env=environment,
        )
    kind, there = ("GPU" if on_gpu else "CPU"), ray.cluster_resources()
    if there.get(kind, 0) < processes:
        ray.shutdown()
        raise ConfigError(
            f"--processes is {processes}, and Ray knows of {there.get(kind, 0):.0f} {kind}s. Lower --processes."
        )


class _StopFile(threading.Event):
    """Is set as soon as somebody has asked the run to stop."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def is_set(self) -> bool:
        return super().is_set() or self._path.exists()


def _train_here(told: dict[str, Any]) -> None:
    """What each of Ray's processes does."""
    from ray.train import get_context  # noqa: PLC0415

    from facellm.training.train import train  # noqa: PLC0415 - torch is loaded in Ray's processes alone

    logging.basicConfig(stream=sys.stdout, format="%(message)s", force=True)
    warnings.filterwarnings("ignore", category=FutureWarning)
    is_first = get_context().get_world_rank() == 0
    logging.getLogger("facellm").setLevel(logging.INFO if is_first else logging.WARNING)
    run_dir = Path(told["run_dir"])
    train(run_dir, stop=_StopFile(run_dir / STOP), resume=told["resume"])
