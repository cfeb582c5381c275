"""Several real processes train one run: the same curve as one, and all of them stop and fail together."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from in_processes import DDP, FSDP, launch, wait_for_step
from rendered_examples import make_examples
from safetensors.torch import load_file

from facellm.config import ROOT
from facellm.training import jobs
from facellm.training.checkpoints import last_checkpoint
from facellm.training.jobs import RunConfig, State
from facellm.training.run_files import json_lines
from facellm.training.train import train


def make_run(folder: Path, base: Path, **changes: object) -> Path:
    """Nine faces with 1 to 8 pairs each, two of them held out; 3 rows a step, so that one step has a single row."""
    examples = make_examples(folder / "images", 9)
    ragged = [example for index, example in enumerate(examples) if index % 8 <= index // 8]
    values = {"base_model": str(base), "epochs": 2, "batch_size": 12, "learning_rate": 5e-3, "held_out": 0.3}
    values |= {"evaluations": 2, "measured_faces": 0, "dtype": "float32", "checkpoint_minutes": 1e-6}
    return jobs.create_run(folder / "runs", ragged, RunConfig.model_validate(values | changes))


@pytest.fixture(scope="module")
def alone(untrained_tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run in one process."""
    run_dir = make_run(tmp_path_factory.mktemp("alone"), untrained_tiny, rows_at_once=1)
    train(run_dir)
    return run_dir


def assert_same(run_dir: Path, alone: Path) -> None:
    """The same losses, tokens and adapter within rounding, and each step once."""
    for file, key in (("metrics.jsonl", "loss"), ("metrics.jsonl", "lr"), ("held_out.jsonl", "loss")):
        expected = {line["step"]: line[key] for line in json_lines(alone / file)}
        found = [(line["step"], line[key]) for line in json_lines(run_dir / file)]
        assert [step for step, _ in found] == list(expected)
        assert dict(found) == pytest.approx(expected, rel=1e-4)
    tokens = [[line["tokens"] for line in json_lines(run / "metrics.jsonl")] for run in (run_dir, alone)]
    assert tokens[0] == tokens[1]
    found, expected = (load_file(run / "adapter" / "adapter_model.safetensors") for run in (run_dir, alone))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.linalg.norm(found[name] - value) <= 1e-3 * torch.linalg.norm(value), name


def result_of(run_dir: Path) -> dict[str, object]:
    return dict(json.loads((run_dir / "result.json").read_text()))


def test_two_processes_give_the_curve_of_one(untrained_tiny: Path, tmp_path: Path, alone: Path) -> None:
    run_dir = make_run(tmp_path, untrained_tiny, rows_at_once=4)
    process = launch(run_dir, *DDP)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    assert output.count("step 1/6") == 1, "only the first process writes the log"
    assert_same(run_dir, alone)
    assert jobs.status(run_dir).state is State.FINISHED
    assert result_of(run_dir)["processes"] == 2
    held_out = [json.loads((run / "result.json").read_text())["held_out"] for run in (run_dir, alone)]
    assert held_out[0] == held_out[1] | {key: pytest.approx(held_out[1][key], rel=1e-4) for key in ("base", "run")}


def test_sharded_weights_give_the_same_curve_across_a_stop(untrained_tiny: Path, tmp_path: Path, alone: Path) -> None:
    """FSDP2; the launcher is told to stop, both processes do so after the same step, and go on from there."""
    run_dir = make_run(tmp_path, untrained_tiny, rows_at_once=1, patience=100)
    process = launch(run_dir, *FSDP)
    wait_for_step(run_dir, 2, process)
    process.terminate()
    output = process.communicate(timeout=60)[0]
    assert result_of(run_dir)["state"] == "stopped", output
    steps = len(jobs.metrics(run_dir))
    checkpoint = last_checkpoint(run_dir)
    assert checkpoint is not None
    assert checkpoint.step == steps < 6
    process = launch(run_dir, *FSDP, resume=True)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    lowest = min(json_lines(run_dir / "held_out.jsonl"), key=lambda line: line["loss"])
    assert lowest["step"] == result_of(run_dir)["best_step"] == 6, "else the adapters differ"
    assert_same(run_dir, alone)


def test_a_killed_process_ends_all_and_one_process_can_go_on(untrained_tiny: Path, tmp_path: Path, alone: Path) -> None:
    run_dir = make_run(tmp_path, untrained_tiny, rows_at_once=1)
    process = launch(run_dir, *DDP)
    wait_for_step(run_dir, 2, process)
    workers = [child for child in psutil.Process(process.pid).children() if "RANK" in child.environ()]
    ranks = {int(worker.environ()["RANK"]): worker for worker in workers}
    assert sorted(ranks) == [0, 1]
    assert json.loads((run_dir / "process.json").read_text())["pid"] == ranks[0].pid
    os.kill(ranks[1].pid, signal.SIGKILL)
    output = process.communicate(timeout=60)[0]
    assert process.returncode != 0
    assert result_of(run_dir)["state"] == "failed", output
    assert str(result_of(run_dir)["error"]).startswith("Another of the 2 processes has ended"), output
    train(run_dir, resume=True)
    assert_same(run_dir, alone)


def test_what_cannot_be_trained_ends_all_with_its_sentence(untrained_tiny: Path, tmp_path: Path) -> None:
    run_dir = make_run(tmp_path, untrained_tiny, max_length=32)
    process = launch(run_dir, *DDP)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 1
    assert "are longer than max_length" in str(result_of(run_dir)["error"])
    assert "error: " in output


def by_ray(run_dir: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "facellm", "train", str(run_dir), "--launcher", "ray", "--processes", "2"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180)


HAS_RAY = importlib.util.find_spec("ray") is not None


@pytest.mark.skipif(not HAS_RAY, reason="ray is not installed")
def test_ray_gives_the_curve_of_one(untrained_tiny: Path, tmp_path: Path, alone: Path) -> None:
    run_dir = make_run(tmp_path, untrained_tiny, rows_at_once=1)
    done = by_ray(run_dir)
    assert done.returncode == 0, done.stderr
    assert result_of(run_dir)["processes"] == 2
    assert_same(run_dir, alone)


@pytest.mark.skipif(not HAS_RAY, reason="ray is not installed")
def test_what_fails_under_ray_ends_with_its_sentence(untrained_tiny: Path, tmp_path: Path) -> None:
    run_dir = make_run(tmp_path, untrained_tiny, max_length=32)
    done = by_ray(run_dir)
    assert done.returncode == 1
    assert "are longer than max_length" in str(result_of(run_dir)["error"])
    assert f"error: {result_of(run_dir)['error']}" in done.stderr


@pytest.mark.skipif(HAS_RAY, reason="ray is installed")
def test_without_ray_a_sentence_says_what_to_install(untrained_tiny: Path, tmp_path: Path) -> None:
    run_dir = make_run(tmp_path, untrained_tiny)
    done = by_ray(run_dir)
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "error: --launcher ray needs the package ray, which is not installed: pip install 'ray[train]'."
    )
    assert not (run_dir / "process.json").exists()
