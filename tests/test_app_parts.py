"""What app.py puts together, without a browser: which adapters answer, and what it says at the start."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import app
from facellm.config import EMBEDDED_ADAPTER, ROOT, load_settings


def test_a_runs_adapter_is_called_like_the_run(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert app.adapters(load_settings()) == {"facellm-tiny": EMBEDDED_ADAPTER}
    monkeypatch.setenv("FACELLM_ADAPTER", str(data_dir / "runs" / "run-1" / "adapter"))
    assert list(app.adapters(load_settings())) == ["run-1"]
    monkeypatch.setenv("FACELLM_ADAPTER", "run-2/adapter/")
    assert list(app.adapters(load_settings())) == ["run-2"]


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
