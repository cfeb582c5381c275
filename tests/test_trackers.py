"""A run's curves in TensorBoard and Trackio, read back by their own readers; a tracker that fails fails no run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from rendered_examples import make_examples

from facellm import jobs
from facellm.config import ROOT
from facellm.recipe import RunConfig


def made(base: Path, folder: Path, **changes: object) -> Path:
    config = {"base_model": str(base), "epochs": 3, "batch_size": 16, "learning_rate": 5e-3, "dtype": "float32"}
    config |= {"held_out": 0.25, "evaluations": 1, "measured_faces": 0, "checkpoint_minutes": 1e-6}
    examples = make_examples(folder / "images", 4)
    return jobs.create_run(folder / "runs", examples, RunConfig.model_validate(config | changes), name="tracked")


def trained(run_dir: Path, *arguments: str) -> str:
    """What the command prints."""
    command = [sys.executable, "-m", "facellm", "train", str(run_dir), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def in_files(run_dir: Path) -> dict[str, dict[int, float]]:
    """The curves of metrics.jsonl and held_out.jsonl, under their names in the trackers."""
    steps = jobs.metrics(run_dir)
    names = {"loss": "loss", "lr": "learning_rate", "grad_norm": "grad_norm", "tokens": "tokens"}
    curves = {f"train/{name}": {line["step"]: line[key] for line in steps} for key, name in names.items()}
    measured = map(json.loads, (run_dir / "held_out.jsonl").read_text().splitlines())
    return curves | {"held_out/loss": {line["step"]: line["loss"] for line in measured}}


def test_tensorboard_shows_the_curves_of_the_files(untrained_tiny: Path, tmp_path: Path) -> None:
    """Trained twice: what the first attempt wrote is not shown beside the second."""
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    )
    run_dir = made(untrained_tiny, tmp_path)
    for _ in range(2):
        assert "The run is logged to TensorBoard, too" in trained(run_dir)
    found = reader.EventAccumulator(str(run_dir / "tensorboard")).Reload()
    curves = in_files(run_dir)
    assert set(found.Tags()["scalars"]) == set(curves)
    assert len(curves["train/loss"]) == 6
    for name, curve in curves.items():
        points = found.Scalars(name)
        assert [point.step for point in points] == list(curve)
        assert [point.value for point in points] == pytest.approx(list(curve.values()), rel=1e-5)
    written = b"".join(path.read_bytes() for path in (run_dir / "tensorboard").iterdir())
    assert b"Describe" not in written and b"images" not in written


def test_trackio_shows_the_curves_of_the_files(
    untrained_tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("trackio", reason="trackio is not installed")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("TRACKIO_SPACE_ID", "somebody/a-space-that-must-not-be-asked")
    run_dir = made(untrained_tiny, tmp_path)
    assert "The run is logged to Trackio, too" in trained(run_dir)
    reading = (
        "import json, trackio; run = trackio.Api().runs('facellm')[0]; print(json.dumps([run.name, run.history()]))"
    )
    done = subprocess.run([sys.executable, "-c", reading], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    name, points = json.loads(done.stdout.splitlines()[-1])
    assert name == "tracked"
    for key, curve in in_files(run_dir).items():
        found = {point["step"]: point[key] for point in points if key in point}
        assert found == pytest.approx(curve, rel=1e-6)


def test_no_tracker_is_asked_where_none_is_wanted(untrained_tiny: Path, tmp_path: Path) -> None:
    run_dir = made(untrained_tiny, tmp_path, trackers="none", max_steps=1)
    assert "is logged to" not in trained(run_dir)
    assert not (run_dir / "tensorboard").exists()


def test_a_tracker_that_fails_is_switched_off(untrained_tiny: Path, tmp_path: Path) -> None:
    """A file lies where its folder belongs."""
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    run_dir = made(untrained_tiny, tmp_path, max_steps=3)
    (run_dir / "tensorboard").write_text("")
    said = trained(run_dir)
    assert said.count("TensorBoard is switched off for this run, which goes on: ") == 1
    assert jobs.status(run_dir).state is jobs.State.FINISHED
