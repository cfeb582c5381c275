"""Runs are what their directories say: real training processes that wait, stop, are killed, and meet a full disk."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from rendered_examples import make_examples

from facellm.config import EMBEDDED_BASE, ROOT, Settings
from facellm.data import Example, content_hash
from facellm.errors import BusyError, ConfigError, DataError
from facellm.training import jobs
from facellm.training.job_queue import ahead
from facellm.training.jobs import RunConfig, State
from facellm.training.prepare import reserved_names
from facellm.training.process_files import Process, living, sign
from facellm.training.run_directory import PROCESS, WAITING
from facellm.training.run_view import situation

DEADLINE = 120  # seconds for a process to load torch and train a few steps on a busy machine
EACH_STEP = 1e-6  # minutes between two checkpoints


@pytest.fixture
def runs_dir(data_dir: Path) -> Iterator[Path]:
    yield data_dir / "runs"
    for run in jobs.list_runs(data_dir / "runs"):  # a run outlives whoever started it, also a test that fails
        found = living(run.path / WAITING) or living(run.path / PROCESS)
        if found is not None and not found.is_me:
            jobs.stop(run.path)


@pytest.fixture
def examples(tmp_path: Path) -> list[Example]:
    return make_examples(tmp_path / "images", 2)


def wait(run_dir: Path, done: Callable[[jobs.RunStatus], bool]) -> jobs.RunStatus:
    end = time.monotonic() + DEADLINE
    while not done(status := jobs.status(run_dir)):
        assert time.monotonic() < end, f"{status}\n{jobs.log_tail(run_dir)}"
        time.sleep(0.05)
    return status


def ended(status: jobs.RunStatus) -> bool:
    return status.state not in (State.QUEUED, State.RUNNING)


def is_running(status: jobs.RunStatus) -> bool:
    return status.state is State.RUNNING


def process_of(run_dir: Path, file: str = PROCESS) -> Process:
    found = living(run_dir / file)
    assert found is not None
    return found


def long_run(
    runs_dir: Path, examples: list[Example], base: Path, *, steps: int = 10_000, checkpoint_minutes: float = 60
) -> Path:
    """A run that is quick to begin with, and lasts until it is stopped."""
    config = RunConfig(
        base_model=str(base),
        device="cpu",
        dtype="float32",
        max_steps=steps,
        batch_size=8,
        learning_rate=1e-3,
        held_out=0,
        measured_faces=0,
        checkpoint_minutes=checkpoint_minutes,
        trackers="none",
    )
    return jobs.create_run(runs_dir, examples, config)


def places(*run_dirs: Path) -> list[int | None]:
    return [jobs.status(run_dir).place for run_dir in run_dirs]


def test_one_run_trains_and_the_others_wait_for_their_turn(
    runs_dir: Path, examples: list[Example], untrained_tiny: Path
) -> None:
    """First come, first served, whoever is stopped or killed meanwhile; nothing of a run changes before its turn."""
    first, second, third = (long_run(runs_dir, examples, untrained_tiny) for _ in range(3))
    assert jobs.status(first).state is State.MADE
    assert [jobs.start(run_dir) for run_dir in (first, third, second)] == [0, 1, 2]
    running = wait(first, is_running)
    assert (running.adapter, running.place) == (None, None)
    assert places(third, second) == [1, 2]
    for run_dir, complaint in ((first, "run-1 is going already"), (second, "run-2 is waiting for its turn already")):
        with pytest.raises(BusyError, match=complaint):
            jobs.start(run_dir)
    with pytest.raises(BusyError, match="run-2 waits for its turn. Stop it before"):
        jobs.delete(second)

    jobs.stop(third)
    left = jobs.status(third)
    assert (left.state, left.error) == (State.MADE, None)
    assert places(third, second) == [None, 1]
    assert jobs.start(third) == 2
    os.kill(process_of(third, WAITING).pid, signal.SIGKILL)
    killed = wait(third, ended)
    assert killed.state is State.MADE
    assert "The process that waited to train it is gone" in (killed.error or "")
    assert jobs.start(third) == 2
    assert places(second, third) == [1, 2]

    running = wait(first, lambda status: status.step >= 1)
    assert (running.total_steps, running.stage) == (10_000, "training")
    assert running.eta_s is not None
    jobs.stop(first)
    stopped = wait(first, ended)
    assert (stopped.state, stopped.error, stopped.can_resume) == (State.STOPPED, None, True)
    assert stopped.checkpoint_step == stopped.step
    assert jobs.finished_adapters(runs_dir, str(untrained_tiny)) == {"run-1": first / "adapter"}
    assert jobs.finished_adapters(runs_dir, "OpenGVLab/InternVL3-1B-hf") == {}
    assert (first / "adapter" / "adapter_model.safetensors").stat().st_size > 0
    with pytest.raises(ConfigError, match=r"run-1 has been trained to step \d+ and is stopped. Go on from there"):
        jobs.start(first)

    wait(second, is_running)
    assert jobs.start(first, resume=True) == 2
    assert places(third, first) == [1, 2]
    waiting = jobs.status(first)
    assert (waiting.state, waiting.can_resume, waiting.step) == (State.QUEUED, False, stopped.step)
    jobs.stop(first)
    assert jobs.status(first) == stopped, "what it was before it waited to be resumed"

    wait(second, lambda status: status.step >= 1)
    os.kill(process_of(second).pid, signal.SIGKILL)
    failed = wait(second, ended)
    assert (failed.state, failed.can_resume) == (State.FAILED, False)
    assert "no checkpoint yet, so it can only be started again" in (failed.error or "")
    assert "step 1/10000" in jobs.log_tail(second)
    with pytest.raises(ConfigError, match="run-2 has no checkpoint to resume from; it is failed"):
        jobs.start(second, resume=True)
    wait(third, is_running)
    assert jobs.start(second) == 1
    assert jobs.status(second).step == failed.step
    jobs.stop(third)  # while it still loads
    assert jobs.status(third).stopping
    stopped = wait(third, ended)
    assert (stopped.state, stopped.step, stopped.adapter, stopped.can_resume) == (State.STOPPED, 0, None, False)
    again = wait(second, is_running)
    assert (again.step, again.error) == (0, None), "what the killed process had written is gone"
    jobs.stop(second)
    assert wait(second, ended).state is State.STOPPED

    fourth = long_run(runs_dir, examples, untrained_tiny)
    jobs.start(fourth)
    jobs.stop(fourth)  # before its process has even looked
    assert wait(fourth, ended).state is State.MADE
    assert jobs.log_tail(fourth) == ""


def test_a_run_outlives_the_app_and_is_resumed_after_a_kill(
    runs_dir: Path, examples: list[Example], untrained_tiny: Path
) -> None:
    run_dir = long_run(runs_dir, examples, untrained_tiny, steps=60, checkpoint_minutes=EACH_STEP)
    code = (
        "import sys, pathlib; from facellm.training import jobs; "
        "jobs.start(pathlib.Path(sys.argv[1])); print(); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(run_dir)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as app:
        assert app.stdout is not None
        app.stdout.readline()
        app.kill()
    wait(run_dir, lambda status: status.checkpoint_step is not None)
    os.kill(process_of(run_dir).pid, signal.SIGKILL)
    failed = wait(run_dir, ended)
    assert (failed.state, failed.can_resume) == (State.FAILED, True)
    assert "was killed" in (failed.error or "")
    assert f"It can be resumed from step {failed.checkpoint_step}." in (failed.error or "")
    with pytest.raises(ConfigError, match=f"trained to step {failed.checkpoint_step} and is failed. Go on from there"):
        jobs.start(run_dir)

    command = [sys.executable, "-m", "facellm", "train", str(run_dir), "--resume"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command, cwd=ROOT, **pipes) for _ in range(2)]  # type: ignore[call-overload]
    outputs = [process.communicate(timeout=DEADLINE) for process in both]
    assert sorted(process.returncode for process in both) == [0, 1], outputs
    loser = outputs[[process.returncode for process in both].index(1)]
    assert loser == ("", "error: The run run-1 is going already.\n")
    finished = jobs.status(run_dir)
    assert (finished.state, finished.step, finished.error) == (State.FINISHED, 60, None)
    assert [line["step"] for line in jobs.metrics(run_dir)] == list(range(1, 61)), "no gap, and no repetition"
    assert finished.adapter is not None
    assert not list(run_dir.glob("checkpoints/*")) + list(run_dir.glob("reserve"))
    with pytest.raises(ConfigError, match="run-1 has been trained already"):
        jobs.start(run_dir)
    with pytest.raises(ConfigError, match="run-1 is finished: there is nothing left to resume"):
        jobs.start(run_dir, resume=True)


class SmallDisk:
    """A file system of its own at the data directory, in a mount namespace of its own.

    Commands see it at `folder`; this process, at `seen`.
    """

    def __init__(self, folder: Path, holder: int) -> None:
        self.folder = folder
        self.holder = holder
        self.seen = Path(f"/proc/{holder}/root{folder}")

    def command(self, *command: str) -> subprocess.CompletedProcess[str]:
        enter = ["nsenter", "--target", str(self.holder), "--user", "--mount", f"--wd={ROOT}"]
        return subprocess.run([*enter, *command], capture_output=True, text=True, timeout=DEADLINE)

    def facellm(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.command(sys.executable, "-m", "facellm", *arguments)

    def resize(self, size: str) -> None:
        done = self.command("mount", "-o", f"remount,size={size}", str(self.folder))
        assert done.returncode == 0, done.stderr

    def fill(self, *, but: int = 0) -> None:
        """Leave so many bytes free."""
        with suppress(OSError), (self.seen / "filling").open("ab", buffering=0) as file:
            while shutil.disk_usage(self.seen).free > but:
                file.write(bytes(4096))


@pytest.fixture
def small_disk(data_dir: Path) -> Iterator[SmallDisk]:
    """20 MB, or a skip where none can be mounted."""
    data_dir.mkdir()
    script = 'mount -t tmpfs -o size=20m none "$0" && echo mounted && exec cat'
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, str(data_dir)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    if not all(map(shutil.which, ("unshare", "nsenter"))):
        pytest.skip("no unshare and nsenter here to mount a small disk with (Debian: apt-get install util-linux)")
    with subprocess.Popen(command, text=True, **pipes) as holder:  # type: ignore[call-overload]
        if holder.stdout.readline() != "mounted\n":
            pytest.skip(f"no small disk can be mounted here: {holder.stderr.read().strip()}")
        disk = SmallDisk(data_dir, holder.pid)
        yield disk
        for run in jobs.list_runs(disk.seen / "runs"):
            if not ended(run):
                disk.facellm("stop", run.name)
                wait(run.path, ended)


def test_a_checkpoint_meets_a_full_disk(small_disk: SmallDisk, examples: list[Example], untrained_tiny: Path) -> None:
    """The run fails with a sentence, keeps its last whole checkpoint, and goes on once there is room."""
    run_dir = long_run(small_disk.seen / "runs", examples, untrained_tiny, steps=60, checkpoint_minutes=EACH_STEP)
    assert small_disk.facellm("start", "run-1").stdout == "The run run-1 is started.\n"

    def is_full(status: jobs.RunStatus) -> bool:
        if status.checkpoint_step is not None:
            small_disk.fill(but=400_000)  # less than a checkpoint; more than the other files
        return ended(status)

    failed = wait(run_dir, is_full)
    assert (failed.state, failed.can_resume) == (State.FAILED, True), failed
    assert re.fullmatch(
        rf"The disk of {small_disk.folder}/runs/run-1 is full: \d\.\d MB are free. Free some space, and try again\.",
        failed.error or "",
    )
    assert failed.checkpoint_step == failed.step - 1
    assert jobs.log_tail(run_dir).splitlines()[-1] == f"error: {failed.error}"
    assert not list(run_dir.rglob("*partial*"))
    assert len(list(run_dir.glob("checkpoints/*"))) <= 2, "what could not be completed takes no room"
    refused = small_disk.facellm("train", "run-1", "--resume")
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: Training untrained needs 6 MB of the disk"), refused
    assert jobs.status(run_dir).checkpoint_step == failed.checkpoint_step
    small_disk.resize("50m")
    assert small_disk.facellm("resume", "run-1").stdout == "The run run-1 is resumed.\n"
    finished = wait(run_dir, lambda status: ended(status) and status.state is not State.FAILED)
    assert (finished.state, finished.error) == (State.FINISHED, None)
    assert [line["step"] for line in jobs.metrics(run_dir)] == list(range(1, 61))


def test_a_step_meets_a_full_disk(small_disk: SmallDisk, examples: list[Example], untrained_tiny: Path) -> None:
    """Not even the next run can be started then, and both commands say why."""
    run_dir = long_run(small_disk.seen / "runs", examples, untrained_tiny)
    waiting = long_run(small_disk.seen / "runs", examples, untrained_tiny)
    assert small_disk.facellm("start", "run-1").returncode == 0
    wait(run_dir, lambda status: status.step >= 1)
    small_disk.fill()
    failed = wait(run_dir, ended)
    assert (failed.state, failed.can_resume) == (State.FAILED, False)
    assert "is full: 0.0 MB are free" in (failed.error or "")
    assert failed.result is not None
    assert failed.result["error"] == failed.error
    small_disk.fill()
    refused = small_disk.facellm("start", "run-2")
    assert refused.returncode == 1
    assert re.fullmatch(
        r"error: The disk of .*/run-2 is full: 0.0 MB are free. Free some space, and try again\.\n", refused.stderr
    )
    assert jobs.status(waiting).state is State.MADE


def test_runs_of_other_devices_are_not_waited_for(
    runs_dir: Path, examples: list[Example], untrained_tiny: Path
) -> None:
    """The order is that of arrival, not of the names; those whose process is gone are not there."""
    runs = {name: long_run(runs_dir, examples, untrained_tiny) for name in ("a", "b", "c", "d", "e")}
    with subprocess.Popen(["sleep", "1000"]) as other:
        sign(runs["a"] / PROCESS, other.pid, "cuda")
        sign(runs["b"] / WAITING, other.pid, "cuda", ticket=3)
        sign(runs["c"] / WAITING, other.pid, "cuda", ticket=2)
        sign(runs["d"] / WAITING, other.pid, "cpu", ticket=1)
        assert ahead(runs["e"], "cuda") == ["run-1", "run-3", "run-2"]
        assert ahead(runs["e"], "cpu") == ["run-4"]
        assert ahead(runs["b"], "cuda", ticket=3) == ["run-1", "run-3"]
        assert ahead(runs["d"], "cpu", ticket=1) == []
        assert places(*runs.values()) == [None, 2, 1, 1, None]
        other.kill()
    assert ahead(runs["e"], "cuda") == ahead(runs["e"], "cpu") == []
    assert places(*runs.values()) == [None] * 5


@pytest.mark.parametrize(
    "there", [{"host": "other", "boot": "another"}, {"host": "other"}, {"pids": "pid:[1]"}], ids=str
)
def test_a_process_elsewhere_counts_as_living(
    runs_dir: Path, examples: list[Example], untrained_tiny: Path, there: dict[str, str]
) -> None:
    """Another machine or container that has the data directory too; nobody here is stopped in its place."""
    first, second = (long_run(runs_dir, examples, untrained_tiny) for _ in range(2))
    with subprocess.Popen(["sleep", "1000"]) as other:
        sign(first / PROCESS, other.pid, "cpu")
        signed = json.loads((first / PROCESS).read_text()) | there
        (first / PROCESS).write_text(json.dumps(signed))
        found = jobs.status(first)
        assert found.state is State.RUNNING
        told = re.escape(f"cannot be seen from here; if that is gone, remove {(first / PROCESS).resolve()}.")
        assert signed["host"] in found.elsewhere
        assert situation(found).endswith(found.elsewhere)
        for refused in (jobs.start, jobs.claim, jobs.stop, jobs.delete):
            with pytest.raises(BusyError, match=told):
                refused(first)
        assert ahead(second, "cpu") == ([] if "boot" in there else ["run-1"]), "another machine has its own device"
        (first / PROCESS).rename(first / WAITING)
        assert jobs.status(first).state is State.QUEUED
        jobs.stop(first)
        assert jobs.status(first).state is State.MADE
        assert other.poll() is None
        (first / PROCESS).write_text(json.dumps(signed))
        (first / "result.json").write_text('{"state": "stopped"}')
        ended = jobs.status(first)
        assert (ended.state, ended.elsewhere, ahead(second, "cpu")) == (State.STOPPED, "", [])
        other.kill()


def test_features_that_a_kill_has_left_are_removed(
    runs_dir: Path, examples: list[Example], untrained_tiny: Path
) -> None:
    run_dir = long_run(runs_dir, examples, untrained_tiny)
    kept = run_dir / "checkpoints" / "checkpoint-1" / "complete.json"
    for file in (kept, run_dir / "features" / "0.safetensors"):
        file.parent.mkdir(parents=True)
        file.write_text("{}")
    assert jobs.claim(run_dir, resume=True)
    assert (kept.exists(), (run_dir / "features").exists()) == (True, False)


def test_of_processes_that_start_at_the_same_moment_one_wins(
    runs_dir: Path, examples: list[Example], untrained_tiny: Path
) -> None:
    code = (
        "import sys, pathlib; from facellm.training import jobs; "
        "jobs.claim(pathlib.Path(sys.argv[1])); print('mine'); input()"
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
    losers: list[subprocess.Popen[str]] = []
    end = time.monotonic() + DEADLINE
    while len(losers) < 3 and time.monotonic() < end:
        losers = [process for process in processes if process.poll() is not None]
        time.sleep(0.05)
    states = sorted(run.state for run in jobs.list_runs(runs_dir))
    outputs = [process.communicate("\n") for process in processes]
    assert sorted(out for out, _ in outputs) == ["", "", "", "mine\n"]
    assert sum("BusyError" in error for _, error in outputs) == 3
    assert states == [State.MADE, State.MADE, State.MADE, State.RUNNING]


def test_another_process_with_the_same_id_is_not_the_run(
    runs_dir: Path, examples: list[Example], untrained_tiny: Path
) -> None:
    """Neither one that began at another moment, nor one of another boot of the machine."""
    run_dir = long_run(runs_dir, examples, untrained_tiny)
    assert jobs.claim(run_dir)
    assert jobs.status(run_dir).state is State.RUNNING
    signed = json.loads((run_dir / PROCESS).read_text())
    for changed, told in (
        ({"started": signed["started"] - 60}, "The training process ended without a result: it was killed"),
        ({"boot": "of yesterday"}, "The machine went down or was started anew"),
    ):
        (run_dir / PROCESS).write_text(json.dumps(signed | changed))
        failed = jobs.status(run_dir)
        assert failed.state is State.FAILED
        assert told in (failed.error or "")
        assert ahead(long_run(runs_dir, examples, untrained_tiny), "cpu") == []


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
    data_dir.mkdir()
    (data_dir / "runs").write_text("not a folder")
    with pytest.raises(ConfigError, match="The folder of runs .* cannot be used: File exists"):
        jobs.create_run(data_dir / "runs", examples, jobs.recipe(str(EMBEDDED_BASE)))


def test_a_damaged_run_is_shown_and_the_others_stay(runs_dir: Path, examples: list[Example]) -> None:
    config = jobs.recipe("OpenGVLab/InternVL3-1B-hf")
    jobs.create_run(runs_dir, examples, config, name="good")
    bad = jobs.create_run(runs_dir, examples, config, name="bad")
    (bad / "config.json").write_text("{")
    runs = {run.name: run for run in jobs.list_runs(runs_dir)}
    assert runs["good"].state is State.MADE
    assert runs["bad"].state is State.FAILED
    assert "bad/config.json is not JSON" in (runs["bad"].error or "")


STEP = '{"step": 1, "total": 2, "loss": 3.5, "eta": 1.0, "seconds": 1.0}\n'


@pytest.mark.parametrize(
    ("file", "content", "state", "message"),
    [
        ("process.json", "", State.FAILED, "ended without a result"),
        ("process.json", "{}", State.FAILED, "ended without a result"),
        ("process.json", '{"pid": "me", "started": 1}', State.FAILED, "ended without a result"),
        ("waiting.json", "{", State.MADE, "process that waited to train it is gone"),
        ("held_out.jsonl", '{"step": 1}\n', State.FAILED, "broken is damaged: .*'loss'"),
        ("metrics.jsonl", STEP + "{\n", State.FAILED, r"broken/metrics.jsonl, the last line, is not JSON"),
        ("metrics.jsonl", "\0\0\0}\n" + STEP, State.FAILED, r"broken/metrics.jsonl, line 1, is not JSON"),
        ("metrics.jsonl", "[1]\n" + STEP, State.FAILED, "line 1, holds no JSON object"),
        ("metrics.jsonl", '{"step": 1}\n', State.FAILED, "broken is damaged: .*'total'"),
        ("metrics.jsonl", STEP + '{"step": 2, "to', State.MADE, ""),  # just being written
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
    assert ahead(good, "cpu") == ahead(good, "cuda") == []
    jobs.stop(broken)


def facellm(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "facellm", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE)


def test_the_commands_say_what_happens(runs_dir: Path, examples: list[Example], untrained_tiny: Path) -> None:
    going, _ = (long_run(runs_dir, examples, untrained_tiny) for _ in range(2))
    assert jobs.claim(going)
    assert facellm("start", "run-2").stdout == "The run run-2 waits for its turn; 1 run is ahead of it.\n"
    header, second, first = (line.split() for line in facellm("runs").stdout.splitlines())
    assert " ".join(header) == "run state place step loss held out checkpoint directory"
    assert second == ["run-2", "queued", "1", "-", "-", "-", "-", str(runs_dir / "run-2")]
    assert first == ["run-1", "running", "-", "-", "-", "-", "-", str(going)]
    assert [(run["name"], run["place"]) for run in json.loads(facellm("runs", "--json").stdout)] == [
        ("run-2", 1),
        ("run-1", None),
    ]
    assert facellm("stop", "run-2").stdout == "The run run-2 has left the queue.\n"
    assert facellm("stop", "run-2").stdout == "The run run-2 is not going; it is made.\n"
    resumed = facellm("resume", "run-2")
    assert resumed.returncode == 1
    assert resumed.stderr.startswith("error: The run run-2 has no checkpoint to resume from; it is made.")
    busy = facellm("train", "run-2")
    assert (busy.returncode, busy.stderr.count("\n")) == (1, 1)
    assert busy.stderr.startswith("error: The run run-1 is going; only one can train at a time on this cpu.")


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
