"""A run's curves in TensorBoard and Trackio, read back by their own readers; a tracker that fails fails no run."""

import json
import shutil
import threading
from pathlib import Path
from uuid import uuid4

import pytest
from rendered_examples import make_examples

from facellm.training import jobs
from facellm.training.checkpoints import last_checkpoint
from facellm.training.recipe import RunConfig
from facellm.training.trackers import PROJECT
from facellm.training.train import train


def made(base: Path, folder: Path, **changes: object) -> Path:
    config = {"base_model": str(base), "epochs": 3, "batch_size": 16, "learning_rate": 5e-3, "dtype": "float32"}
    config |= {"held_out": 0.25, "evaluations": 1, "measured_faces": 0, "checkpoint_minutes": 1e-6}
    examples = make_examples(folder / "images", 4)
    return jobs.create_run(
        folder / "runs", examples, RunConfig.model_validate(config | changes), name=f"tracked-{uuid4()}"
    )


class StopAt(threading.Event):
    """Is set once a run has come to a step."""

    def __init__(self, run_dir: Path, step: int) -> None:
        super().__init__()
        self.run_dir, self.step = run_dir, step

    def is_set(self) -> bool:
        return len(jobs.metrics(self.run_dir)) >= self.step


def interrupted_and_resumed(run_dir: Path) -> None:
    """It ends after the fourth step, the checkpoint of which is lost, and goes on after the third."""
    train(run_dir, stop=StopAt(run_dir, 3))
    lost = last_checkpoint(run_dir)
    assert lost is not None and lost.step == 4
    shutil.rmtree(lost.path)
    train(run_dir, resume=True)
    assert [line["step"] for line in jobs.metrics(run_dir)] == [1, 2, 3, 4, 5, 6]


def in_files(run_dir: Path) -> dict[str, dict[int, float]]:
    """The curves of metrics.jsonl and held_out.jsonl, under their names in the trackers."""
    steps = jobs.metrics(run_dir)
    names = {"loss": "loss", "lr": "learning_rate", "grad_norm": "grad_norm", "tokens": "tokens"}
    curves = {f"train/{name}": {line["step"]: line[key] for line in steps} for key, name in names.items()}
    measured = map(json.loads, (run_dir / "held_out.jsonl").read_text().splitlines())
    return curves | {"held_out/loss": {line["step"]: line["loss"] for line in measured}}


def test_tensorboard_shows_one_curve_of_a_run_that_was_resumed(
    untrained_tiny: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    )
    caplog.set_level("INFO")
    run_dir = made(untrained_tiny, tmp_path)
    interrupted_and_resumed(run_dir)
    assert caplog.messages.count("The run is logged to TensorBoard, too") == 2
    found = reader.EventAccumulator(str(run_dir / "tensorboard")).Reload()
    curves = in_files(run_dir)
    assert set(found.Tags()["scalars"]) == set(curves)
    for name, curve in curves.items():
        points = found.Scalars(name)
        assert [point.step for point in points] == list(curve)
        assert [point.value for point in points] == pytest.approx(list(curve.values()), rel=1e-5)
    written = b"".join(path.read_bytes() for path in (run_dir / "tensorboard").iterdir())
    assert b"this image" not in written and b".png" not in written


def test_trackio_shows_one_curve_of_a_run_that_was_resumed(
    untrained_tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step that was trained twice has two points, of which the later is right."""
    monkeypatch.setenv("TRACKIO_SPACE_ID", "somebody/a-space-that-must-not-be-asked")
    storage = pytest.importorskip("trackio.sqlite_storage", reason="trackio is not installed").SQLiteStorage
    run_dir = made(untrained_tiny, tmp_path)
    interrupted_and_resumed(run_dir)
    assert storage.get_runs(PROJECT).count(run_dir.name) == 1
    points = storage.get_logs(PROJECT, run_dir.name)
    for name, curve in in_files(run_dir).items():
        found = {point["step"]: point[name] for point in points if name in point}
        assert found == pytest.approx(curve, rel=1e-6)


def test_no_tracker_is_asked_where_none_is_wanted(
    untrained_tiny: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    run_dir = made(untrained_tiny, tmp_path, trackers="none", max_steps=1)
    train(run_dir)
    assert "is logged to" not in caplog.text
    assert not (run_dir / "tensorboard").exists()


def test_a_tracker_that_fails_is_switched_off(
    untrained_tiny: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file lies where its folder belongs."""
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    run_dir = made(untrained_tiny, tmp_path, max_steps=3)
    (run_dir / "tensorboard").write_text("")
    caplog.set_level("INFO")
    train(run_dir)
    assert caplog.text.count("TensorBoard is switched off for this run, which goes on: ") == 1
    assert jobs.status(run_dir).state is jobs.State.FINISHED
