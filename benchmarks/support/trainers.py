"""The trainers side by side: this project's and its peers, on the same base, pairs and recipe.

    task = Task(FOLDER, per_image=8, steps=11)
    run("ours", task, envs=Path(".bench"), threads=1)

FaceLLM's recipe on every side: LoRA of rank 16, alpha 32 on the language model's linear layers, learning rate 1e-5,
cosine, 8 pairs a step, cutoff 2,048, bfloat16. The one surprising fact: this project's side is the real command,
`python -m facellm train RUN_DIR`, with its own defaults but for what the recipe and the measurement need.
"""

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from support.geometry import save_random
from support.peer_envs import python_of
from support.training_pairs import SYSTEM, make_pairs, write_llamafactory, write_trl
from support.watched import Watched, watch

from facellm.data import Example
from facellm.training.recipe import RunConfig
from facellm.training.run_directory import create_run

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent.parent
BATCH = 8  # pairs of a step


@dataclass(frozen=True)
class Side:
    """A trainer and how it is set.

    Args:
        first: whether it is measured in its first epoch, where it has not seen the images before.
    """

    title: str
    peer: str | None = None
    checkpointing: bool = False
    first: bool = True


SIDES = {
    "ours": Side("this project"),
    "ours-later": Side("this project, later epochs", first=False),
    "llamafactory": Side("LLaMA-Factory, as FaceLLM used it", "llamafactory", checkpointing=True),
    "llamafactory-fastest": Side("LLaMA-Factory, checkpointing off", "llamafactory"),
    "trl": Side("TRL SFTTrainer, default", "trl", checkpointing=True),
    "trl-fastest": Side("TRL SFTTrainer, checkpointing off", "trl"),
}


@dataclass(frozen=True)
class Task:
    """What is trained, in a folder of its own.

    Args:
        per_image: pairs of an image.
        steps: how many are done; as many images as they need are made, so that each is seen once.
        batch: pairs of a step.
        images: how many are made instead; fewer are seen several times.
    """

    folder: Path
    per_image: int
    steps: int
    batch: int = BATCH
    images: int | None = None
    size: str = "reference"
    device: str = "cpu"

    @cached_property
    def base(self) -> Path:
        """The checkpoint with random weights."""
        folder = self.folder / f"base-{self.size}"
        return folder if folder.is_dir() else save_random(folder, self.size, system=SYSTEM)

    @cached_property
    def examples(self) -> list[Example]:
        """The pairs, those of an image together."""
        images = self.images or -(-self.steps * self.batch // self.per_image)
        return make_pairs(self.folder / "images", images=images, per_image=self.per_image)

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.size}-{self.per_image}-{self.steps}-{self.batch}-{self.images or 'once'}"


def run(side: str, task: Task, *, envs: Path, threads: int) -> Watched:
    """Train in a process of its own.

    Raises:
        ProcessFailed: it ended with an error.
    """
    peer = SIDES[side].peer
    return run_ours(task, threads=threads) if peer is None else _run_peer(side, peer, task, envs, threads)


def run_ours(task: Task, *, threads: int, examples: Sequence[Example] | None = None) -> Watched:
    """This project's side.

    Args:
        examples: instead of the task's own.

    Raises:
        ProcessFailed: it ended with an error.
    """
    data = task.folder / "data"
    shutil.rmtree(data, ignore_errors=True)
    config = RunConfig(
        base_model=str(task.base),
        batch_size=task.batch,
        max_steps=task.steps,
        device=task.device,
        dtype="bfloat16",
        held_out=0,
        measured_faces=0,
        trackers="none",
    )
    run_dir = create_run(data / "runs", examples or task.examples, config, name="measured")
    return watch(
        [sys.executable, "-m", "facellm", "train", str(run_dir)],
        run_dir / "metrics.jsonl",
        threads=threads,
        log=task.folder / "ours.log",
        folder=CHECKOUT,
        environment={"FACELLM_DATA_DIR": str(data)},
    )


def _run_peer(side: str, peer: str, task: Task, envs: Path, threads: int) -> Watched:
    output = task.folder / side
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir()
    data = task.folder / f"{peer}-{task.name}"
    if not data.exists():
        (write_llamafactory if peer == "llamafactory" else write_trl)(data, task.examples)
    settings = {
        "base": str(task.base),
        "data": str(data),
        "system": SYSTEM,
        "batch": task.batch,
        "steps": task.steps,
        "cpu": task.device == "cpu",
        "checkpointing": SIDES[side].checkpointing,
        "output": str(output),
        "lines": str(output / "steps.jsonl"),
    }
    (output / "settings.json").write_text(json.dumps(settings))
    command = [str(python_of(envs, peer)), str(HERE / f"peer_{peer}.py"), str(output / "settings.json")]
    return watch(command, output / "steps.jsonl", threads=threads, log=task.folder / f"{side}.log", folder=output)
