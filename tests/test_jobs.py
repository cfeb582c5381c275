"""Runs are what their directories say: real training processes, stopped, killed, and started twice."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from facellm import jobs
from facellm.config import EMBEDDED_BASE, ROOT, Settings
from facellm.data import Attribute, Example, Provenance, content_hash, sha256_file
from facellm.errors import BusyError, ConfigError, DataError
from facellm.jobs import RunConfig, State
from facellm.prepare import reserved_names

DEADLINE = 90  # seconds for a process to load torch and train a few steps on a busy machine


@pytest.fixture
def runs_dir(data_dir: Path) -> Iterator[Path]:
    yield data_dir / "runs"
    for run in jobs.list_runs(data_dir / "runs"):  # a run outlives whoever started it, also a test that fails
        if run.state is State.RUNNING and json.loads((run.path / "process.json").read_text())["pid"] != os.getpid():
            jobs.stop(run.path)


@pytest.fixture
def examples(data_dir: Path) -> list[Example]:
    (data_dir / "images").mkdir(parents=True)
    found = []
    for name in ("black", "white"):
        path = data_dir / "images" / f"{name}.png"
        Image.new("RGB", (64, 64), name).save(path)
        provenance = Provenance(image_sha256=(sha256_file(path),))
        for attribute in Attribute:
            answer = f"The {attribute.topic} cannot be told from a {name} square."
            found.append(
                Example(
                    images=(str(path),),
                    attribute=attribute,
                    question=attribute.question,
                    answer=answer,
                    provenance=provenance,
                )
            )
    return found


def wait(run_dir: Path, done: Callable[[jobs.RunStatus], bool]) -> jobs.RunStatus:
    end = time.monotonic() + DEADLINE
    while not done(status := jobs.status(run_dir)):
        assert time.monotonic() < end, f"{status}\n{jobs.log_tail(run_dir)}"
        time.sleep(0.1)
    return status


def ended(status: jobs.RunStatus) -> bool:
    return status.state not in (State.QUEUED, State.RUNNING)


def long_run(runs_dir: Path, examples: list[Example], base: Path) -> Path:
    config = RunConfig(base_model=str(base), max_steps=10_000, batch_size=8, learning_rate=1e-3)
    return jobs.create_run(runs_dir, examples, config)


def test_stop_keeps_the_adapter_and_the_place_is_free_again(
    runs_dir: Path, examples: list[Example], untrained_tiny: Path
) -> None:
    first, second = (long_run(runs_dir, examples, untrained_tiny) for _ in range(2))
    assert [first.name, second.name] == ["run-1", "run-2"]
    assert jobs.status(first).state is State.QUEUED
    began = time.monotonic()
    jobs.start(first)
    assert time.monotonic() - began < 1, "the button answers at once"
    with pytest.raises(BusyError, match="run-1 is going"):
        jobs.start(second)
    running = wait(first, lambda status: status.step >= 2)
    assert running.state is State.RUNNING
    assert running.total_steps == 10_000
    assert running.eta_s is not None
    assert running.adapter is None
    jobs.stop(first)
    stopped = wait(first, ended)
    assert stopped.state is State.STOPPED
    assert stopped.error is None
    assert jobs.finished_adapters(runs_dir, str(untrained_tiny)) == {"run-1": first / "adapter"}
    assert jobs.finished_adapters(runs_dir, "OpenGVLab/InternVL3-1B-hf") == {}
    assert (first / "adapter" / "adapter_model.safetensors").stat().st_size > 0
    wait(first, lambda _: not busy(runs_dir))
    with pytest.raises(ConfigError, match="run-1 has been trained already"):
        jobs.start(first)
    jobs.start(second)  # and at once, while it is still loading:
    jobs.stop(second)
    assert wait(second, ended).state is State.STOPPED
    assert [run.name for run in jobs.list_runs(runs_dir)] == ["run-2", "run-1"]


def busy(runs_dir: Path) -> bool:
    try:
        jobs.check_free(runs_dir)
    except BusyError:
        return True
    return False


def test_a_killed_trainer_shows_as_failed_with_its_log(
    runs_dir: Path, examples: list[Example], untrained_tiny: Path
) -> None:
    run_dir = long_run(runs_dir, examples, untrained_tiny)
    jobs.start(run_dir)
    wait(run_dir, lambda status: status.step >= 2)
    os.kill(json.loads((run_dir / "process.json").read_text())["pid"], signal.SIGKILL)
    failed = wait(run_dir, ended)
    assert failed.state is State.FAILED
    assert "ended without a result" in (failed.error or "")
    assert failed.step >= 2
    assert "step 2/10000" in jobs.log_tail(run_dir)
    jobs.check_free(runs_dir)


def test_of_processes_that_start_at_the_same_moment_one_wins(
    runs_dir: Path, examples: list[Example], untrained_tiny: Path
) -> None:
    code = (
        "import sys, pathlib; from facellm import jobs; jobs.claim(pathlib.Path(sys.argv[1])); print('mine'); input()"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(long_run(runs_dir, examples, untrained_tiny))],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    time.sleep(0.1)
    losers = []
    end = time.monotonic() + DEADLINE
    while len(losers) < 3 and time.monotonic() < end:
        losers = [process for process in processes if process.poll() is not None]
        time.sleep(0.05)
    states = sorted(run.state for run in jobs.list_runs(runs_dir))
    outputs = [process.communicate("\n") for process in processes]
    assert sorted(out for out, _ in outputs) == ["", "", "", "mine\n"]
    assert sum("BusyError" in error for _, error in outputs) == 3
    assert states == [State.QUEUED, State.QUEUED, State.QUEUED, State.RUNNING]


def test_another_process_with_the_same_id_is_not_the_run(
    runs_dir: Path, examples: list[Example], untrained_tiny: Path
) -> None:
    run_dir = long_run(runs_dir, examples, untrained_tiny)
    jobs.claim(run_dir)
    assert jobs.status(run_dir).state is State.RUNNING
    signed = json.loads((run_dir / "process.json").read_text())
    (run_dir / "process.json").write_text(json.dumps(signed | {"started": signed["started"] - 60}))
    assert jobs.status(run_dir).state is State.FAILED
    jobs.check_free(runs_dir)


def test_what_cannot_be_a_run_is_refused(runs_dir: Path, examples: list[Example]) -> None:
    config = jobs.recipe(str(EMBEDDED_BASE))
    with pytest.raises(DataError, match="no accepted pair"):
        jobs.create_run(runs_dir, [], config)
    with pytest.raises(ConfigError, match="cannot be the name"):
        jobs.create_run(runs_dir, examples, config, name="../elsewhere")
    changed = config.model_copy(update={"snapshot": "monday", "snapshot_sha256": "0" * 64})
    with pytest.raises(DataError, match="snapshot monday"):
        jobs.create_run(runs_dir, examples, changed)
    jobs.create_run(runs_dir, examples, config, name="mine")
    with pytest.raises(ConfigError, match="run mine already"):
        jobs.create_run(runs_dir, examples, config, name="mine")
    with pytest.raises(ConfigError, match=r"--set: rank: .* found '0'"):
        RunConfig.checked({"base_model": "x", "rank": "0"}, "--set")
    with pytest.raises(ConfigError, match="no field rnak; the fields are .*rank"):
        RunConfig.checked({"base_model": "x", "rnak": 16}, "--set")
    with pytest.raises(ConfigError, match="epochs is empty, and needs a whole number"):
        RunConfig.checked({"base_model": "x", "epochs": None}, "The settings")
    with pytest.raises(
        ConfigError, match="--set epochs: expected FIELD=VALUE, such as epochs=3. The fields are .*rank"
    ):
        jobs.changes_from(["rank=4", "epochs"])
    assert jobs.changes_from(["rank=4", "base_model=a=b"]) == {"rank": "4", "base_model": "a=b"}
    with pytest.raises(ConfigError, match="not a run directory"):
        jobs.start(runs_dir)


def test_a_run_is_not_called_like_another_model_of_the_chat(runs_dir: Path, examples: list[Example]) -> None:
    config = jobs.recipe(str(EMBEDDED_BASE))
    reserved = reserved_names(Settings(data_dir=runs_dir.parent))
    for name in ("Base", "base", "facellm-tiny", "FaceLLM-Tiny"):
        with pytest.raises(ConfigError, match=f"The name {name} is taken by another model"):
            jobs.create_run(runs_dir, examples, config, name=name, reserved=reserved)
    elsewhere = Settings(data_dir=runs_dir.parent, adapter="/elsewhere/runs/run-1/adapter")
    assert jobs.create_run(runs_dir, examples, config, reserved=reserved_names(elsewhere)).name == "run-2"


def test_a_number_is_not_used_again(runs_dir: Path, examples: list[Example]) -> None:
    """The adapter of a deleted run may still be loaded in the chat, by its name."""
    config = jobs.recipe(str(EMBEDDED_BASE))
    names = []
    for name in (None, None, None, "run-1", None):
        run_dir = jobs.create_run(runs_dir, examples, config, name=name)
        names.append(run_dir.name)
        shutil.rmtree(run_dir)
    assert names == ["run-1", "run-2", "run-3", "run-1", "run-4"]


def test_a_folder_of_runs_that_cannot_be_used_is_a_sentence(data_dir: Path, examples: list[Example]) -> None:
    (data_dir / "runs").write_text("not a folder")
    with pytest.raises(ConfigError, match="The folder of runs .* cannot be used: File exists"):
        jobs.create_run(data_dir / "runs", examples, jobs.recipe(str(EMBEDDED_BASE)))


def test_a_damaged_run_is_shown_and_the_others_stay(runs_dir: Path, examples: list[Example]) -> None:
    config = jobs.recipe("OpenGVLab/InternVL3-1B-hf")
    jobs.create_run(runs_dir, examples, config, name="good")
    bad = jobs.create_run(runs_dir, examples, config, name="bad")
    (bad / "config.json").write_text("{")
    runs = {run.name: run for run in jobs.list_runs(runs_dir)}
    assert runs["good"].state is State.QUEUED
    assert runs["bad"].state is State.FAILED
    assert "bad/config.json is not JSON" in (runs["bad"].error or "")


STEP = '{"step": 1, "total": 2, "loss": 3.5, "eta": 1.0, "seconds": 1.0}\n'


@pytest.mark.parametrize(
    ("file", "content", "state", "message"),
    [
        ("process.json", "", State.FAILED, "ended without a result"),
        ("process.json", "{}", State.FAILED, "ended without a result"),
        ("process.json", '{"pid": "me", "started": 1}', State.FAILED, "ended without a result"),
        ("metrics.jsonl", STEP + "{\n", State.FAILED, r"broken/metrics.jsonl, the last line, is not JSON"),
        ("metrics.jsonl", "\0\0\0}\n" + STEP, State.FAILED, r"broken/metrics.jsonl, line 1, is not JSON"),
        ("metrics.jsonl", "[1]\n" + STEP, State.FAILED, "line 1, holds no JSON object"),
        ("metrics.jsonl", '{"step": 1}\n', State.FAILED, "broken is damaged: .*'total'"),
        ("metrics.jsonl", STEP + '{"step": 2, "to', State.QUEUED, ""),  # just being written
        ("result.json", "", State.FAILED, "broken/result.json is not JSON"),
        ("result.json", '{"state": "exploded"}', State.FAILED, "broken is damaged: .*'exploded' is not a valid State"),
        ("result.json", '{"seconds": 3}', State.FAILED, "broken is damaged: .*'state'"),
    ],
)
def test_one_damaged_file_harms_its_own_run_only(
    runs_dir: Path, examples: list[Example], file: str, content: str, state: State, message: str
) -> None:
    """As a crash of the machine may leave it: the list, the chat's choice and the next training go on."""
    config = jobs.recipe(str(EMBEDDED_BASE))
    good = jobs.create_run(runs_dir, examples, config, name="good")
    (good / "result.json").write_text('{"state": "finished", "seconds": 3}')
    (good / "adapter").mkdir()
    broken = jobs.create_run(runs_dir, examples, config, name="broken")
    (broken / file).write_text(content)
    runs = {run.name: run for run in jobs.list_runs(runs_dir)}
    assert runs["good"].state is State.FINISHED
    assert runs["broken"].state is state
    assert re.search(message, runs["broken"].error or "")
    assert jobs.finished_adapters(runs_dir, str(EMBEDDED_BASE)) == {"good": good / "adapter"}
    jobs.check_free(runs_dir)
    jobs.stop(broken)


def facellm(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "facellm", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE)


def test_delete_by_name_and_by_path(runs_dir: Path, examples: list[Example], untrained_tiny: Path) -> None:
    going, damaged, other = (long_run(runs_dir, examples, untrained_tiny) for _ in range(3))
    (damaged / "config.json").write_text("{")
    jobs.claim(going)
    refused = facellm("delete", "run-1")
    assert (refused.returncode, refused.stderr) == (1, "error: The run run-1 is going. Stop it before you delete it.\n")
    assert facellm("delete", "run-2").stdout == "The run run-2 is deleted.\n"
    assert facellm("delete", str(other)).stdout == "The run run-3 is deleted.\n"
    assert sorted(path.name for path in runs_dir.glob("[!.]*")) == ["run-1"]
    for command in ("delete", "stop", "train"):
        unknown = facellm(command, "run-9")
        assert unknown.returncode == 1
        assert unknown.stderr.startswith(f"error: There is no run run-9: neither that path nor {runs_dir}/run-9 has")
        assert unknown.stderr.count("\n") == 1


def test_only_a_run_is_deleted(runs_dir: Path, untrained_tiny: Path) -> None:
    with pytest.raises(ConfigError, match="not a run directory: it has no train.jsonl"):
        jobs.delete(untrained_tiny)
    with pytest.raises(ConfigError, match="not a run directory"):
        jobs.delete(runs_dir)
    assert (untrained_tiny / "config.json").exists()


def test_the_run_directory_names_what_went_in(runs_dir: Path, examples: list[Example]) -> None:
    config = jobs.recipe(str(EMBEDDED_BASE)).model_copy(update={"snapshot": "monday"})
    record = jobs.load_record(jobs.create_run(runs_dir, examples, config))
    assert record["examples_sha256"] == content_hash(examples)
    assert (record["pairs"], record["images"]) == (16, 2)
    assert record["config"]["snapshot"] == "monday"
    assert record["versions"].keys() >= {"python", "torch", "transformers", "peft"}


def test_the_embedded_base_is_found_after_the_checkout_has_moved() -> None:
    """Its name is relative to the checkout, whichever way it was given."""
    for given in (str(EMBEDDED_BASE), "facellm/embedded/tiny-base"):
        config = jobs.recipe(given)
        assert config.base_model == "facellm/embedded/tiny-base"
        assert Path(ROOT, config.checkpoint) == EMBEDDED_BASE
        assert config.epochs > 1, "the tiny model's recipe"
    real = jobs.recipe("OpenGVLab/InternVL3-1B-hf")
    assert (real.base_model, real.checkpoint) == ("OpenGVLab/InternVL3-1B-hf", "OpenGVLab/InternVL3-1B-hf")
    assert (real.rank, real.alpha, real.dropout, real.learning_rate) == (16, 32, 0, 1e-5)
    assert (real.schedule, real.epochs, real.warmup, real.clip, real.max_length) == ("cosine", 1, 0, 1.0, 2048)
