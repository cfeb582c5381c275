"""What app.py puts together, without a browser: which adapters answer, and what it says at the start."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from rendered_examples import make_examples

import app
from facellm import jobs
from facellm.config import EMBEDDED_ADAPTER, ROOT, load_settings


def test_a_runs_adapter_is_called_like_the_run(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert app.adapters(load_settings()) == {"facellm-tiny": EMBEDDED_ADAPTER}
    monkeypatch.setenv("FACELLM_ADAPTER", str(data_dir / "runs" / "run-1" / "adapter"))
    assert list(app.adapters(load_settings())) == ["run-1"]
    monkeypatch.setenv("FACELLM_ADAPTER", "run-2/adapter/")
    assert list(app.adapters(load_settings())) == ["run-2"]


def test_the_configured_adapter_wins_over_a_run_of_its_name(data_dir: Path) -> None:
    """Such a run can only be older than the setting: new ones are refused the name."""
    config = jobs.recipe(load_settings().base_checkpoint)
    for name in ("facellm-tiny", "mine"):
        run_dir = jobs.create_run(data_dir / "runs", make_examples(data_dir / "images", 1), config, name=name)
        (run_dir / "result.json").write_text('{"state": "finished"}')
        (run_dir / "adapter").mkdir()
    found = app.adapters(load_settings())
    assert list(found) == ["facellm-tiny", "mine"], "the configured one first"
    assert found["facellm-tiny"] == EMBEDDED_ADAPTER


def test_a_missing_adapter_is_said_at_the_start(data_dir: Path) -> None:
    missing = str(data_dir / "no-such-adapter")
    done = subprocess.run(
        [sys.executable, "app.py"],
        cwd=ROOT,
        env=os.environ | {"FACELLM_ADAPTER": missing},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(f"error: The setting adapter names {missing}, which has no adapter_config.json.")
    assert not data_dir.exists()
