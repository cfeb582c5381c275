"""The commands of the data side, run as a person types them.

python -m pytest tests/test_annotation_commands.py
"""

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from annotation.__main__ import app
from annotation.store import Store
from facellm.data import content_hash, read_examples

ROOT = Path(__file__).resolve().parent.parent


def annotation(*arguments: str, faces: int = 3) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"FACELLM_SEED_FACES": str(faces)}
    command = [sys.executable, "-m", "annotation", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


def test_stats_and_snapshot_on_an_empty_data_directory(data_dir: Path) -> None:
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


def test_without_seeding_nothing_is_there_and_a_snapshot_says_so(data_dir: Path) -> None:
    numbers = json.loads(annotation("stats", "--json", faces=0).stdout)
    assert (numbers["images"], numbers["pairs"], numbers["reviewers"]) == (0, 0, {})
    nothing = annotation("snapshot", "first", faces=0)
    assert nothing.returncode == 1
    assert nothing.stderr.strip().splitlines() == [
        "error: There is no accepted or edited pair to take a snapshot of. Accept some pairs first."
    ]
    assert (data_dir / "studio.db").exists()


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


def a_file(data_dir: Path) -> None:
    data_dir.write_text("not a folder")


def no_database(data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "studio.db").write_text("not a database\n" * 100)


def a_newer_database(data_dir: Path) -> None:
    Store.open(data_dir).close()
    with sqlite3.connect(data_dir / "studio.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'from the future'")


STATS, APP = ["-m", "annotation", "stats"], ["app.py"]


@pytest.mark.parametrize(
    ("command", "make", "message"),
    [
        (STATS, a_file, "cannot be used: File exists. Expected a folder"),
        (STATS, no_database, "studio.db cannot be used: file is not a database"),
        (STATS, a_newer_database, "has a schema that is not known here: Can't locate revision identified by 'from"),
        (APP, no_database, "studio.db cannot be used: file is not a database"),
    ],
)
def test_an_unusable_data_directory_is_one_line(
    data_dir: Path, command: list[str], make: Callable[[Path], None], message: str
) -> None:
    make(data_dir)
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert str(data_dir) in line
    assert message in line
    assert "set FACELLM_DATA_DIR to another folder." in line
