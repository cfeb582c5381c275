"""A run that is killed, stopped or cut off goes on from its last checkpoint as if nothing had been."""

import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from in_processes import wait_for_step
from rendered_examples import make_examples

from facellm.config import ROOT
from facellm.data import sha256_file
from facellm.training import jobs
from facellm.training.checkpoints import checkpoints, last_checkpoint
from facellm.training.jobs import RunConfig, State
from facellm.training.run_files import json_lines
from facellm.training.train import train

EACH_STEP = 1e-6  # minutes between checkpoints


def make_run(folder: Path, base: Path, **changes: object) -> Path:
    """Three epochs of three steps, one image held out; inputs are dropped at random, so the random state counts."""
    examples = make_examples(folder / "images", 7)
    values = {"base_model": str(base), "epochs": 3, "batch_size": 16, "learning_rate": 5e-3, "held_out": 0.15}
    values |= {"evaluations": 1, "measured_faces": 0, "dropout": 0.2, "warmup": 0.3, "dtype": "float32"}
    return jobs.create_run(folder / "runs", examples, RunConfig.model_validate(values | changes))


def curve(run_dir: Path) -> list[tuple[object, ...]]:
    """All that does not depend on the time: steps, losses, rates, norms, tokens, held-out losses, the adapter."""
    steps = [
        tuple(line[key] for key in ("step", "total", "epoch", "loss", "lr", "grad_norm", "tokens"))
        for line in json_lines(run_dir / "metrics.jsonl")
    ]
    held_out = [(line["step"], line["loss"], line["best"]) for line in json_lines(run_dir / "held_out.jsonl")]
    return [*steps, *held_out, (sha256_file(run_dir / "adapter" / "adapter_model.safetensors"),)]


def result_of(run_dir: Path) -> dict[str, object]:
    """What does not depend on the time, either."""
    found = json.loads((run_dir / "result.json").read_text())
    return {key: value for key, value in found.items() if key not in ("seconds", "peak_memory_mb")}


@pytest.fixture(scope="module")
def uninterrupted(untrained_tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = make_run(tmp_path_factory.mktemp("uninterrupted"), untrained_tiny, checkpoint_minutes=1000)
    train(run_dir)
    assert len(jobs.metrics(run_dir)) == 9
    assert [line["step"] for line in json_lines(run_dir / "held_out.jsonl")] == [0, 3, 6, 9]
    return run_dir


def start(run_dir: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "facellm", "train", str(run_dir)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


class StopAt(threading.Event):
    """Is set as soon as a run has come so far."""

    def __init__(self, reached: Callable[[], bool]) -> None:
        super().__init__()
        self.reached = reached

    def is_set(self) -> bool:
        return self.reached()


@pytest.mark.parametrize("step", [2, 3, 9], ids=["within an epoch", "between two epochs", "after the last step"])
def test_a_stopped_run_goes_on(untrained_tiny: Path, tmp_path: Path, uninterrupted: Path, step: int) -> None:
    """Stopped after this step, where the held-out loss was due in two of the cases."""
    run_dir = make_run(tmp_path, untrained_tiny)
    train(run_dir, stop=StopAt(lambda: len(jobs.metrics(run_dir)) >= step - 1))
    assert jobs.status(run_dir).state is State.STOPPED
    assert [found.step for found in checkpoints(run_dir)] == [step]
    assert len(jobs.metrics(run_dir)) == step
    train(run_dir, resume=True)
    assert curve(run_dir) == curve(uninterrupted)
    assert result_of(run_dir) == result_of(uninterrupted)
    assert not (run_dir / "checkpoints").exists()


def test_a_killed_run_goes_on_from_what_is_complete(untrained_tiny: Path, tmp_path: Path, uninterrupted: Path) -> None:
    """Killed at a random step after a checkpoint; besides, a later checkpoint is cut off."""
    run_dir = make_run(tmp_path, untrained_tiny, checkpoint_minutes=EACH_STEP)
    process = start(run_dir)
    wait_for_step(run_dir, random.randint(2, 6), process)
    kill(process)
    assert jobs.status(run_dir).state is State.FAILED
    last = last_checkpoint(run_dir)
    assert last is not None
    cut_off = run_dir / "checkpoints" / f"checkpoint-{last.step + 1}"
    cut_off.mkdir(exist_ok=True)
    (cut_off / "optimizer.pt").write_bytes(b"half")
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 100, "lo')
    assert last_checkpoint(run_dir) == last
    train(run_dir, resume=True)
    assert curve(run_dir) == curve(uninterrupted)


def test_a_run_killed_in_its_last_stage_is_measured_again(
    untrained_tiny: Path, tmp_path: Path, uninterrupted: Path
) -> None:
    """While it asks about rendered faces; no step is trained twice."""
    run_dir = make_run(tmp_path, untrained_tiny, measured_faces=1000)
    process = start(run_dir)
    wait_for_step(run_dir, 9, process)
    while (run_dir / "stage").read_text() != "measuring":
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    kill(process)
    config = (run_dir / "config.json").read_text()
    (run_dir / "config.json").write_text(config.replace('"measured_faces": 1000', '"measured_faces": 2'))
    train(run_dir, resume=True)
    assert curve(run_dir) == curve(uninterrupted)
    assert jobs.status(run_dir).state is State.FINISHED
    assert "attributes" in result_of(run_dir)
    assert result_of(run_dir)["held_out"] == result_of(uninterrupted)["held_out"]


def test_a_run_that_would_have_ended_early_does_so_after_a_stop(untrained_tiny: Path, tmp_path: Path) -> None:
    """A rate so high that the held-out loss rises; the best adapter is kept across the stop."""
    found = []
    for step in (100, 4):
        run_dir = make_run(tmp_path, untrained_tiny, patience=2, learning_rate=0.1, schedule="constant", evaluations=3)
        train(run_dir, stop=StopAt(lambda: len(jobs.metrics(run_dir)) >= step - 1))  # noqa: B023 - used at once
        if step == 4:
            train(run_dir, resume=True)
        found.append((curve(run_dir), result_of(run_dir)))
    assert found[0][1]["early_stop"]
    assert found[0] == found[1]


def test_nothing_is_trained_after_the_last_step(untrained_tiny: Path, tmp_path: Path) -> None:
    """Five steps do not end an epoch of three; the run was killed after the last of them."""
    run_dir = make_run(tmp_path, untrained_tiny, epochs=1, max_steps=5)
    train(run_dir)
    before = curve(run_dir)
    again = make_run(tmp_path, untrained_tiny, epochs=1, max_steps=5, checkpoint_minutes=1e-6)
    train(again, stop=StopAt(lambda: len(jobs.metrics(again)) >= 5))
    assert jobs.status(again).checkpoint_step == 5
    train(again, resume=True)
    assert curve(again) == before


def test_a_damaged_checkpoint_is_passed_over(untrained_tiny: Path, tmp_path: Path, uninterrupted: Path) -> None:
    """As the power leaves it when it goes: the file is there, and empty."""
    run_dir = make_run(tmp_path, untrained_tiny, checkpoint_minutes=1e-6)
    train(run_dir, stop=StopAt(lambda: len(jobs.metrics(run_dir)) >= 5))
    last = jobs.status(run_dir).checkpoint_step
    assert last is not None
    (run_dir / "checkpoints" / f"checkpoint-{last}" / "adapter_model.safetensors").write_bytes(b"")
    assert jobs.status(run_dir).checkpoint_step == last - 1
    train(run_dir, resume=True)
    assert curve(run_dir) == curve(uninterrupted)
