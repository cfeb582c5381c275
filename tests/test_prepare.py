"""python -m facellm prepare: a snapshot by name or path, any file of examples, and what it refuses."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from rendered_examples import make_examples

from facellm.config import ROOT, Settings
from facellm.data import content_hash, write_examples
from facellm.errors import DataError
from facellm.training import jobs
from facellm.training.jobs import RunConfig
from facellm.training.prepare import configure, find_examples, prepare


@pytest.fixture
def settings(data_dir: Path) -> Settings:
    """A data directory with the snapshot monday, and a file of examples elsewhere."""
    examples = make_examples(data_dir / "images", 1)
    write_examples(data_dir / "snapshots" / "monday" / "examples.jsonl", examples)
    write_examples(data_dir.parent / "other.jsonl", examples)
    return Settings(data_dir=data_dir, device="cpu")


def prepared(settings: Settings, given: str, **changes: object) -> RunConfig:
    source = find_examples(settings, given)
    run_dir = prepare(settings, source, configure(settings, settings.base_checkpoint, changes, "--set"))
    return RunConfig.checked(jobs.load_record(run_dir)["config"], "config.json")


def test_a_snapshot_by_name_or_path_is_named_in_the_run(settings: Settings) -> None:
    path = settings.snapshots_dir / "monday" / "examples.jsonl"
    sha256 = content_hash(make_examples(settings.data_dir / "images", 1))
    for given in ("monday", str(path), os.path.relpath(path)):
        config = prepared(settings, given)
        assert (config.snapshot, config.snapshot_sha256, config.device) == ("monday", sha256, "cpu")
    other = prepared(settings, str(settings.data_dir.parent / "other.jsonl"))
    assert (other.snapshot, other.snapshot_sha256) == (None, None)


def test_alpha_follows_the_rank_unless_it_is_set(settings: Settings) -> None:
    assert prepared(settings, "monday", rank="4").alpha == 8
    assert prepared(settings, "monday", rank="4", alpha="16").alpha == 16
    assert prepared(settings, "monday", alpha="16").alpha == 16
    assert prepared(settings, "monday", device="auto").device == "auto"


def test_what_is_not_there_is_said_with_what_is(settings: Settings) -> None:
    for given in ("tuesday", "../snapshots/monday", "monday/", ""):
        with pytest.raises(DataError, match=r"neither a snapshot nor a file .*\(monday\)\. Take one"):
            find_examples(settings, given)


def test_the_command_refuses_in_one_line(settings: Settings) -> None:
    def error(*arguments: str) -> str:
        command = [sys.executable, "-m", "facellm", "prepare", *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1
        assert list(settings.runs_dir.glob("*")) == []
        (line,) = done.stderr.splitlines()
        return line

    assert error("monday", "--name", "Base").startswith("error: The name Base is taken by another model of the chat.")
    assert error("monday", "--name", "facellm-tiny").startswith("error: The name facellm-tiny is taken")
    assert error("monday", "--set", "rank=many").startswith("error: --set: rank: ")
