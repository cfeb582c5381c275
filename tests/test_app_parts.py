"""What app.py puts together, without a browser: which adapters answer, and what it says at the start."""

import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from openai_server import BASE_MODEL, OpenAIServer
from rendered_examples import make_examples

import app
from annotation.store import Store
from facellm.chat_session import Exchange, Picture
from facellm.config import EMBEDDED_ADAPTER, ROOT, RemoteServer, load_settings
from facellm.conversation import Sampling
from facellm.faces import render, sample
from facellm.training import jobs


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


def test_remote_models_and_their_adapters_are_panes(capsys: pytest.CaptureFixture[str]) -> None:
    with OpenAIServer() as server:
        known = RemoteServer(base_url=server.base_url, model=BASE_MODEL, adapters={"tuned": "/adapters/tuned"})
        settings = load_settings().model_copy(update={"base_model": "none", "remotes": {"far away": known}})
        assert [remote.name for remote in app.remotes(settings)] == ["far away", "tuned"]
        assert app.load_model(settings) == (settings, None)
        assert app.first_choice(settings) == ["far away"]
    again = [remote.name for remote in app.remotes(settings)]
    assert again == ["far away"], "its server is down today, and the app starts all the same"
    assert server.base_url in capsys.readouterr().err


def test_an_adapter_without_effect_is_no_pane(capsys: pytest.CaptureFixture[str]) -> None:
    with OpenAIServer() as server:
        server.adapter_shift = 0.0
        known = RemoteServer(base_url=server.base_url, model=BASE_MODEL, adapters={"tuned": "/adapters/tuned"})
        settings = load_settings().model_copy(update={"remotes": {"far away": known}})
        assert [remote.name for remote in app.remotes(settings)] == ["far away"]
    assert "tuned" in capsys.readouterr().err


def test_what_is_sent_to_review_waits_there_with_its_provenance(data_dir: Path) -> None:
    picture = Picture(render(sample(5)), "shown.jpg")
    asked = Exchange("Is this a hat?", (picture,), answer=" No. ", done=True, sampling=Sampling(seed=7))
    earlier = [Exchange("Who?", (), answer="A face.", done=True)]
    with closing(Store.open(data_dir)) as store:
        said = app.send_to_review(store, "run-1", "runs/run-1/adapter@abc", asked, earlier)
        assert said == "Sent: what run-1 answered waits in the Review tab."
        app.send_to_review(store, "run-1", "runs/run-1/adapter@abc", asked, earlier)
        (view,) = store.browse(limit=10)
    pair = view.pair
    assert (pair.question, pair.answer, pair.attribute, pair.teacher) == ("Is this a hat?", "No.", None, "run-1")
    told = json.loads(pair.parameters)
    assert told["teacher_source"] == "runs/run-1/adapter@abc"
    assert told["request"]["sampling"]["seed"] == 7
    assert told["request"]["earlier"] == [["Who?", "A face."]]
