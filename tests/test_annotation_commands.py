"""The commands of the data side, run as a person types them.

python -m pytest tests/test_annotation_commands.py
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from annotation.__main__ import app
from facellm.data import content_hash, read_examples

ROOT = Path(__file__).resolve().parent.parent


def annotation(*arguments: str, faces: int = 3) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"FACELLM_SEED_FACES": str(faces)}
    command = [sys.executable, "-m", "annotation", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


def test_stats_and_snapshot_of_the_seeded_data(data_dir: Path) -> None:
    assert annotation("seed").stdout == f"{data_dir}: 24 pairs of 3 faces added.\n"
    stats = annotation("stats", "--json")
    assert stats.returncode == 0, stats.stderr
    numbers = json.loads(stats.stdout)
    assert (numbers["images"], numbers["pairs"], numbers["pending"]) == (3, 24, 8)
    assert numbers["accepted"] + numbers["edited"] + numbers["rejected"] == 16
    assert (numbers["skipped"], numbers["flagged"], numbers["snapshots"]) == (0, 0, [])
    assert numbers["reviewers"] == {"demo": 16}
    assert sum(sum(of.values()) for of in numbers["attributes"].values()) == 24

    taken = annotation("snapshot", "first")
    assert taken.returncode == 0, taken.stderr
    examples = list(read_examples(data_dir / "snapshots" / "first" / "examples.jsonl"))
    assert len(examples) == numbers["accepted"] + numbers["edited"]
    (snapshot,) = json.loads(annotation("stats", "--json").stdout)["snapshots"]
    assert (snapshot["name"], snapshot["count"]) == ("first", len(examples))
    assert snapshot["sha256"] == content_hash(examples)
    assert snapshot["sha256"] in taken.stdout

    again = annotation("snapshot", "first")
    assert again.returncode == 1
    assert again.stderr.strip().splitlines() == [
        "error: There is a snapshot first already, and snapshots never change. Choose another name."
    ]
    table = annotation("stats").stdout
    assert "3 images, 24 pairs" in table
    assert f"snapshot first: {len(examples)} pairs" in table


def test_an_empty_data_directory_stays_empty(data_dir: Path) -> None:
    stats = annotation("stats", "--json")
    numbers = json.loads(stats.stdout)
    assert (numbers["images"], numbers["pairs"], numbers["reviewers"]) == (0, 0, {})
    assert stats.stderr == f"{data_dir} is empty. For demo data: python -m annotation seed\n"
    nothing = annotation("snapshot", "first")
    assert nothing.returncode == 1
    assert nothing.stderr.strip().splitlines() == [
        f"error: There is no accepted or edited pair in {data_dir} to take a snapshot of. Accept some first."
    ]
    assert not (data_dir / "images").exists()
    assert not (data_dir / "seed_truth.jsonl").exists()
    assert "0 images, 0 pairs" in annotation("stats").stdout


@pytest.mark.parametrize("arguments", [[], ["snapshot"], ["stats"], ["seed"]])
def test_everything_has_help(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, [*arguments, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_an_unusable_setting_is_one_line() -> None:
    result = annotation("stats", faces=-1)
    assert result.returncode == 1
    assert result.stderr.startswith("error: The setting seed_faces is not usable")
    assert len(result.stderr.strip().splitlines()) == 1
