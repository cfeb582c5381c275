"""The commands of the data side, run as a person types them.

python -m pytest tests/test_annotation_commands.py
"""

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from made_votes import a_vote
from typer.testing import CliRunner

from annotation.__main__ import app
from annotation.store import Store
from facellm.data import content_hash, read_examples
from facellm.ranking import Standing, rank
from facellm.votes import Vote

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
    assert (numbers["skipped"], numbers["flagged"], numbers["snapshots"]) == (0, 3, [])
    assert numbers["flags"] == {"contradiction": 3}
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


def add_votes(data_dir: Path, votes: list[Vote]) -> None:
    store = Store.open(data_dir)
    for vote in votes:
        store.add_vote(vote)
    store.close()


def test_votes_and_ranking_on_an_empty_data_directory(data_dir: Path) -> None:
    votes, ranking = annotation("votes"), annotation("ranking")
    assert (votes.returncode, votes.stdout) == (0, "0 votes\n"), votes.stderr
    assert (ranking.returncode, ranking.stdout) == (0, "not enough votes (0 of 50)\n"), ranking.stderr
    assert json.loads(annotation("votes", "--json").stdout) == {"votes": 0, "latest": []}
    assert not json.loads(annotation("ranking", "--json").stdout)["enough"]
    assert not (data_dir / "images").exists(), "nothing is seeded for them"


def test_votes_are_shown_newest_first_and_exported(data_dir: Path, tmp_path: Path) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    votes = [a_vote(created_at=start + timedelta(days=day), attribute="pose") for day in range(30)]
    add_votes(data_dir, votes)
    table = annotation("votes").stdout.splitlines()
    assert table[0] == "30 votes, the latest 20:"
    assert len(table) == 21
    assert "base | tuned → base  pose  by ana" in table[1]
    assert table[1].split()[0] > table[20].split()[0]
    latest = json.loads(annotation("votes", "--json").stdout)["latest"]
    assert [Vote.model_validate(fields) for fields in latest] == votes[:9:-1]

    file = tmp_path / "votes.jsonl"
    assert annotation("votes", "--out", str(file)).stdout == f"{file}: 30 votes\n"
    assert [Vote.model_validate_json(line) for line in file.read_text().splitlines()] == votes
    refused = annotation("votes", "--out", str(tmp_path / "votes.txt"))
    assert refused.returncode == 1
    assert refused.stderr.strip().splitlines() == [
        f"error: {tmp_path / 'votes.txt'} is neither .csv nor .jsonl. Name a file with one of these suffixes."
    ]


def test_the_ranking_shows_scores_once_there_are_enough_votes(data_dir: Path) -> None:
    votes = [a_vote(outcome=outcome) for outcome in ["b"] * 40 + ["a"] * 15 + ["both bad"] * 5]
    add_votes(data_dir, votes[:49])
    few = annotation("ranking").stdout.splitlines()
    assert few[0] == "not enough votes (49 of 50)"
    assert "score" not in few[2]
    assert few[3].split() == ["tuned", "49", "40", "0", "9", "0"]

    add_votes(data_dir, votes)
    table = annotation("ranking").stdout.splitlines()
    expected = rank(votes)
    first = expected.standings[0]
    assert table[0] == "60 votes"
    assert table[3].split() == f"tuned {first.score:.0f} {first.low:.0f} to {first.high:.0f} 60 40 0 15 5".split()
    numbers = json.loads(annotation("ranking", "--json").stdout)
    assert (numbers["enough"], numbers["needed"], numbers["both_bad_share"]) == (True, 50, 5 / 60)
    assert [Standing(**fields) for fields in numbers["standings"]] == list(expected.standings)
    assert numbers["shares"] == [[None, 42.5 / 60], [17.5 / 60, None]]


def test_models_that_never_met_are_pointed_out(data_dir: Path) -> None:
    add_votes(data_dir, [a_vote("ada", "bob") for _ in range(30)] + [a_vote("cyd", "dan") for _ in range(30)])
    assert "never compared" in annotation("ranking").stdout.splitlines()[-1]


@pytest.mark.parametrize("arguments", [[], ["snapshot"], ["stats"], ["check"], ["seed"], ["votes"], ["ranking"]])
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
