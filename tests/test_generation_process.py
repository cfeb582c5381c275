"""The command that the Dataset tab runs: its options, an estimate, and a run of its own process.

python -m pytest tests/test_generation_process.py
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from annotation.seed import seed
from annotation.store import Store
from annotation.teaching import generation_process as process
from facellm.config import Settings, load_settings
from facellm.errors import DataError

MOSTLY_ON_SQLITE = True
TEACHERS = {"house": {"base_url": "http://127.0.0.1:1/v1", "model": "house-1", "price": [1, 2], "key_variable": None}}


@pytest.fixture
def settings(data_dir: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("FACELLM_TEACHERS", json.dumps(TEACHERS))
    assert (load_settings().data_dir, load_settings().database) == (data_dir, database)
    return load_settings()


@pytest.fixture
def store(data_dir: Path, database: str) -> Iterator[Store]:
    opened = Store.open(data_dir, database)
    yield opened
    opened.close()


def test_options_become_arguments() -> None:
    options = {
        "model": "house",
        "attributes": ["pose", "skin"],
        "per_image": True,
        "limit": 5,
        "exclude_ages": [],
        "max_cost": 0.5,
        "base_url": None,
        "dry_run": False,
        "detail": "",
    }
    words = ["--model", "house", "--attributes", "pose,skin", "--per-image", "--limit", "5", "--max-cost", "0.5"]
    assert process.arguments(options) == words
    assert process.arguments({"per_image": False, "exclude_ages": "0-2,3-9", "resume": True}) == [
        "--per-attribute",
        "--exclude-ages",
        "0-2,3-9",
        "--resume",
    ]


def test_an_estimate_sends_nothing_and_says_what_it_would_take(settings: Settings, store: Store) -> None:
    seed(store, 3)
    found = process.estimate(settings, {"model": "house", "attributes": ["pose"], "limit": 2})
    assert found["requests"] == 2
    assert found["cost_usd"] == pytest.approx((found["input_tokens"] + 2 * found["output_tokens"]) / 1e6)
    assert store.ledger.runs() == []
    with pytest.raises(DataError, match="^--attributes names smile"):
        process.estimate(settings, {"model": "house", "attributes": ["smile"]})
    with pytest.raises(DataError, match="^Invalid value for '--limit': "):
        process.estimate(settings, {"model": "house", "limit": "x"})


@pytest.mark.both_databases
def test_a_run_has_a_process_and_a_log_of_its_own_and_can_be_told_again(settings: Settings, store: Store) -> None:
    """Without a picture there is nothing to ask, so this needs no teacher."""
    started = process.start(settings, {"model": "house", "per_image": True, "max_cost": 3})
    assert started.process.wait(60) == 0
    (run,) = store.ledger.runs()
    assert (run.pid, run.teacher, run.state) == (started.process.pid, "house-1", "done")
    assert process.log_of(settings, run) == started.log
    lines = process.log_tail(started.log).splitlines()
    assert lines[0] == "python -u -m annotation generate --model house --per-image --max-cost 3"
    assert lines[-1] == started.last_words == "Nothing is missing: every question of this plan has been asked."

    again = process.start(settings, json.loads(run.options))
    assert again.process.wait(60) == 0
    newest, oldest = store.ledger.runs()
    assert newest.options == oldest.options
    assert process.log_of(settings, newest) == again.log


def test_of_a_run_from_a_terminal_there_is_no_log(settings: Settings, store: Store) -> None:
    run = store.ledger.start_run("generate", "house-1", "http://127.0.0.1:1/v1", {})  # type: ignore[arg-type]
    assert process.log_of(settings, run) is None
    folder = settings.data_dir / process.LOGS
    folder.mkdir()
    (folder / f"20000101-000000-{run.pid}.log").touch()
    assert process.log_of(settings, run) is None, "a process of long ago had the same id"


def test_what_a_command_says_last() -> None:
    usage = "Usage: x\n╭─ Error ─╮\n│ No such command 'x'.   │\n╰─────────╯\n"
    assert process.last_line(usage) == "No such command 'x'."
    assert process.last_line("Loading\nerror: The key is missing.\n") == "The key is missing."
    assert process.last_line("") == "The command ended without a word."
