"""Votes in the store and in files: nothing is lost, doubled or half written.

python -m pytest tests/test_vote_store.py
"""

import csv
import random
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from made_votes import a_vote, drawn_votes
from raw_sql import rows

from annotation.store import Store
from annotation.vote_export import export_votes
from facellm.errors import DataError
from facellm.votes import Vote


@pytest.fixture
def store(data_dir: Path, database: str) -> Iterator[Store]:
    opened = Store.open(data_dir, database)
    yield opened
    opened.close()


def test_a_vote_comes_back_as_it_was(store: Store, data_dir: Path) -> None:
    east = datetime(2026, 3, 1, 12, 30, 0, 123456, tzinfo=timezone(timedelta(hours=5)))
    full = a_vote(
        outcome="both bad", attribute="pose", image_sha256=["a" * 64, "b" * 64], created_at=east, seed=2**63 - 1
    )
    plain = a_vote(image_sha256=[], created_at=east + timedelta(seconds=1), seed=-(2**63), temperature=0)
    assert store.add_vote(full)
    assert store.add_vote(plain)
    assert store.votes() == [full, plain]
    assert store.votes()[0].created_at.tzinfo is UTC
    assert rows(data_dir, "SELECT outcome, attribute FROM votes") == [("both bad", "pose"), ("a", None)]


def test_the_same_uuid_is_stored_once(store: Store) -> None:
    vote = a_vote()
    assert store.add_vote(vote)
    assert not store.add_vote(vote)
    assert not store.add_vote(a_vote(uuid=vote.uuid, outcome="b"))
    assert store.votes() == [vote]
    assert store.vote_count() == 1


def test_votes_are_oldest_first(store: Store) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    votes = [a_vote(created_at=start + timedelta(days=day)) for day in range(5)]
    for vote in random.Random(0).sample(votes, len(votes)):
        store.add_vote(vote)
    assert store.votes() == votes


def test_threads_that_send_the_same_votes_store_each_once(store: Store) -> None:
    votes = drawn_votes({"ada": 1000, "bob": 1000}, 20)
    new: list[bool] = []

    def send() -> None:
        new.extend([store.add_vote(vote) for vote in votes])

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (sum(new), len(new), store.vote_count()) == (20, 80, 20)


def test_jsonl_holds_every_vote(tmp_path: Path) -> None:
    votes = [a_vote(voter="Zoë, “the 1st”\n"), *drawn_votes({"ada": 1000, "bob": 1000}, 5)]
    path = tmp_path / "new folder" / "votes.jsonl"
    assert export_votes(path, iter(votes)) == 6
    assert [Vote.model_validate_json(line) for line in path.read_text(encoding="utf-8").splitlines()] == votes


def test_csv_holds_every_vote(tmp_path: Path) -> None:
    vote = a_vote(voter="Zoë, “the 1st”\n", image_sha256=["a" * 64, "b" * 64])
    path = tmp_path / "votes.CSV"
    assert export_votes(path, [vote, a_vote(attribute="skin", image_sha256=[])]) == 2
    with path.open(encoding="utf-8", newline="") as file:
        first, second = csv.DictReader(file)
    assert list(first) == list(Vote.model_fields)
    fields = first | {"image_sha256": first["image_sha256"].split(), "attribute": first["attribute"] or None}
    assert Vote.model_validate(fields) == vote
    assert (second["attribute"], second["image_sha256"]) == ("skin", "")


def test_an_export_is_complete_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "votes.csv"
    export_votes(path, [a_vote()])
    before = path.read_bytes()

    def breaks_off() -> Iterator[Vote]:
        yield a_vote()
        raise RuntimeError("the database went away")

    with pytest.raises(RuntimeError):
        export_votes(path, breaks_off())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["votes.xlsx", "votes", "votes.csv.gz"])
def test_other_suffixes_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"neither \.csv nor \.jsonl"):
        export_votes(tmp_path / name, [a_vote()])
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder.jsonl").mkdir()
    for path in (tmp_path / "file" / "votes.csv", tmp_path / "folder.jsonl"):
        with pytest.raises(DataError, match="cannot be written"):
            export_votes(path, [a_vote()])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.jsonl"]


def test_no_votes_make_a_file_without_lines(tmp_path: Path) -> None:
    assert export_votes(tmp_path / "votes.jsonl", []) == 0
    assert (tmp_path / "votes.jsonl").read_bytes() == b""
    export_votes(tmp_path / "votes.csv", [])
    assert (tmp_path / "votes.csv").read_text().strip().split(",") == list(Vote.model_fields)
