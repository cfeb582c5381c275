"""Runs are what their directories say: real training processes that queue, are stopped, killed and resumed."""

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

from facellm.config import EMBEDDED_BASE, ROOT, Settings
from facellm.data import Attribute, Example, Provenance, content_hash, sha256_file
from facellm.errors import BusyError, ConfigError, DataError
from facellm.training import jobs
from facellm.training.job_queue import ahead
from facellm.training.jobs import RunConfig, State
from facellm.training.prepare import reserved_names
from facellm.training.process_files import living, sign
from facellm.training.run_directory import PROCESS, WAITING
from facellm.training.run_view import situation

DEADLINE = 90  # seconds for a process to load torch and train a few steps on a busy machine


@pytest.fixture
def runs_dir(data_dir: Path) -> Iterator[Path]:
    yield data_dir / "runs"
    for run in jobs.list_runs(data_dir / "runs"):  # a run outlives whoever started it, also a test that fails
        process = living(run.path / "waiting.json") or living(run.path / "process.json")
        if process is not None and not process.is_me:
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
    """A run that goes on until it is stopped, with a checkpoint after each step."""
    numbers = {"max_steps": 10_000, "batch_size": 8, "learning_rate": 1e-3, "device": "cpu"}
    quick = {"held_out": 0, "measured_faces": 0, "trackers": "none", "checkpoint_minutes": 1e-6}
    return jobs.create_run(runs_dir, examples, RunConfig.model_validate({"base_model": str(base)} | numbers | quick))


def kill(run_dir: Path, file: str = "process.json") -> None:
    os.kill(json.loads((run_dir / file).read_text())["pid"], signal.SIGKILL)


def test_runs_queue_stop_and_are_resumed(runs_dir: Path, examples: list[Example], untrained_tiny: Path) -> None:
    first, second, third = (long_run(runs_dir, examples, untrained_tiny) for _ in range(3))
    assert [run.name for run in (first, second, third)] == ["run-1", "run-2", "run-3"]
    assert jobs.status(first).state is State.MADE
    began = time.monotonic()
    assert jobs.start(first) == 0
    assert time.monotonic() - began < 1, "the button answers at once"
    assert facellm("start", "run-2").stdout == "The run run-2 waits for its turn; 1 run is ahead of it.\n"
    assert jobs.start(third) == 2
    wait(first, is_running)
    assert [(jobs.status(run).state, jobs.status(run).place) for run in (second, third)] == [
        (State.QUEUED, 1),
        (State.QUEUED, 2),
    ]
    with pytest.raises(BusyError, match="run-3 is waiting for its turn already"):
        jobs.start(third)
    with pytest.raises(BusyError, match="waits for its turn. Stop it before"):
        jobs.delete(third)
    kill(third, "waiting.json")
    killed = wait(third, lambda status: status.state is State.MADE)
    assert "The process that waited to train it is gone" in (killed.error or "")

    running = wait(first, lambda status: status.step >= 2)
    assert (running.state, running.stage, running.adapter) == (State.RUNNING, "training", None)
    assert running.total_steps == 10_000
    assert running.eta_s is not None
    with pytest.raises(BusyError, match="run-1 is going already"):
        jobs.start(first, resume=True)
    (listed,) = [line.split() for line in facellm("runs").stdout.splitlines() if line.startswith("run-2")]
    assert listed[:7] == ["run-2", "queued", "1", "-", "-", "-", "-"]
    jobs.stop(first)
    stopped = wait(first, ended)
    assert (stopped.state, stopped.error, stopped.can_resume) == (State.STOPPED, None, True)
    assert stopped.checkpoint_step == stopped.step
    assert jobs.finished_adapters(runs_dir, str(untrained_tiny)) == {"run-1": first / "adapter"}
    assert jobs.finished_adapters(runs_dir, "OpenGVLab/InternVL3-1B-hf") == {}
    assert (first / "adapter" / "adapter_model.safetensors").stat().st_size > 0
    with pytest.raises(ConfigError, match=f"to step {stopped.step} and is stopped. Go on from there: .* resume run-1"):
        jobs.start(first)

    wait(second, is_running)
    jobs.start(first, resume=True)
    again = jobs.status(first)
    assert (again.state, again.place, again.step, again.can_resume) == (State.QUEUED, 1, stopped.step, False)
    assert again.adapter is not None, "the chat keeps it while the run waits"
    assert facellm("stop", "run-1").stdout == "The run run-1 has left the queue.\n"
    assert jobs.status(first) == stopped, "as if it had not waited"
    jobs.start(first, resume=True)
    jobs.stop(second)  # while it is still loading
    assert wait(second, ended).state is State.STOPPED
    resumed = wait(first, lambda status: status.state is State.RUNNING and status.step > stopped.step)
    assert resumed.result is None
    jobs.stop(first)
    wait(first, ended)
    steps = [line["step"] for line in jobs.metrics(first)]
    assert steps == list(range(1, len(steps) + 1)), "each step once"


def test_a_killed_trainer_shows_as_failed_and_is_resumed(
    runs_dir: Path, examples: list[Example], untrained_tiny: Path
) -> None:
    run_dir = long_run(runs_dir, examples, untrained_tiny)
    assert facellm("start", "run-1").stdout == "The run run-1 is started.\n"  # whoever started it is gone
    wait(run_dir, lambda status: (status.checkpoint_step or 0) >= 2)
    kill(run_dir)
    failed = wait(run_dir, ended)
    assert (failed.state, failed.can_resume) == (State.FAILED, True)
    assert re.search(
        f"ended without a result: it was killed, probably .* memory .* resumed from step {failed.checkpoint_step}",
        failed.error or "",
    )
    assert "step 2/10000" in jobs.log_tail(run_dir)
    assert facellm("resume", "run-1").stdout == "The run run-1 is resumed.\n"
    wait(run_dir, lambda status: status.state is State.RUNNING and status.step > failed.step)
    kill(run_dir)
    assert wait(run_dir, ended).state is State.FAILED
    process = json.loads((run_dir / "process.json").read_text())
    (run_dir / "process.json").write_text(json.dumps(process | {"boot": "another"}))
    assert "The machine went down or was started anew" in (jobs.status(run_dir).error or "")


CLAIM = """
import sys, threading, pathlib
from facellm.training import jobs
print('ready', flush=True); input()
if jobs.claim(pathlib.Path(sys.argv[1]), wait='wait' in sys.argv, resume='resume' in sys.argv):
    print('mine', flush=True); input()
"""


def claimer(run_dir: Path, *how: str) -> subprocess.Popen[str]:
    """A process that claims a run once it is told to, and keeps it until it is killed or told again."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", CLAIM, str(run_dir), *how]
    process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True, bufsize=1)
    assert process.stdin is not None and process.stdout is not None
    return process


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")


def says(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_first_come_first_served_and_who_is_killed_stands_in_nobodys_way(
    runs_dir: Path, examples: list[Example], untrained_tiny: Path
) -> None:
    runs = [long_run(runs_dir, examples, untrained_tiny) for _ in range(4)]
    processes = [claimer(run, "wait") for run in runs]
    assert [says(process) for process in processes] == ["ready"] * 4
    order = [2, 0, 3, 1]
    for place, number in enumerate(order):
        tell(processes[number])
        wait(runs[number], lambda status, place=place: status.place == place or (not place and is_running(status)))
    assert [jobs.status(run).place for run in runs] == [1, 3, None, 2]
    processes[0].kill()
    wait(runs[0], lambda status: status.state is State.MADE)
    assert [jobs.status(run).place for run in runs] == [None, 2, None, 1]
    processes[2].kill()
    assert says(processes[3]) == "mine"
    assert [jobs.status(run).state for run in runs] == [State.MADE, State.QUEUED, State.FAILED, State.RUNNING]
    processes[3].kill()
    assert says(processes[1]) == "mine"
    processes[1].kill()
    for process in processes:
        process.communicate()


def is_running(status: jobs.RunStatus) -> bool:
    return status.state is State.RUNNING


def test_runs_of_different_devices_do_not_wait_for_each_other(
    runs_dir: Path, examples: list[Example], untrained_tiny: Path
) -> None:
    config = RunConfig(base_model=str(untrained_tiny), device="cpu")
    jobs.claim(jobs.create_run(runs_dir, examples, config))
    other = jobs.create_run(runs_dir, examples, config.model_copy(update={"device": "cuda"}))
    process = claimer(other)
    tell(process)
    assert [says(process), says(process)] == ["ready", "mine"]
    process.communicate("\n")


def test_of_two_that_resume_one_run_one_wins(runs_dir: Path, examples: list[Example], untrained_tiny: Path) -> None:
    run_dir = long_run(runs_dir, examples, untrained_tiny)
    checkpoint(run_dir, 7)
    (run_dir / "result.json").write_text('{"state": "stopped"}')
    processes = [claimer(run_dir, "resume", "wait") for _ in range(3)]
    assert [says(process) for process in processes] == ["ready"] * 3
    for process in processes:
        tell(process)
    outputs = []
    end = time.monotonic() + DEADLINE
    while len([each for each in processes if each.poll() is not None]) < 2 and time.monotonic() < end:
        time.sleep(0.05)
    outputs = [process.communicate("\n") for process in processes]
    assert sorted(out for out, _ in outputs) == ["", "", "mine\n"]
    assert sum("BusyError: The run run-1 is going already" in error for _, error in outputs) == 2


def checkpoint(run_dir: Path, step: int) -> None:
    folder = run_dir / "checkpoints" / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "complete.json").write_text('{"sizes": {}}')


def test_which_runs_can_be_started_and_resumed(runs_dir: Path, examples: list[Example], untrained_tiny: Path) -> None:
    run_dir = long_run(runs_dir, examples, untrained_tiny)
    with pytest.raises(
        ConfigError, match="no checkpoint to resume from; it is made. Train it from the start: .* start"
    ):
        jobs.start(run_dir, resume=True)
    (run_dir / "result.json").write_text('{"state": "finished"}')
    with pytest.raises(ConfigError, match="run-1 has been trained already"):
        jobs.claim(run_dir)
    assert facellm("resume", "run-1").stderr.startswith("error: The run run-1 is finished: there is nothing left")
    # It failed without a checkpoint: what it had written goes, what it is made of stays.
    (run_dir / "result.json").write_text('{"state": "failed", "error": "No."}')
    (run_dir / "metrics.jsonl").write_text(STEP)
    (run_dir / "checkpoints" / "checkpoint-3").mkdir(parents=True)
    (run_dir / "log.txt").write_text("so far\n")
    (run_dir / "notes.txt").write_text("mine")
    assert jobs.status(run_dir).can_resume is False
    assert jobs.claim(run_dir)
    assert {path.name for path in run_dir.iterdir()} == {
        *("config.json", "train.jsonl", "log.txt", "notes.txt", "process.json", "reserve")
    }


def test_of_processes_that_do_not_wait_one_wins(runs_dir: Path, examples: list[Example], untrained_tiny: Path) -> None:
    processes = [claimer(long_run(runs_dir, examples, untrained_tiny)) for _ in range(4)]
    assert [says(process) for process in processes] == ["ready"] * 4
    for process in processes:
        tell(process)
    end = time.monotonic() + DEADLINE
    while len([each for each in processes if each.poll() is not None]) < 3 and time.monotonic() < end:
        time.sleep(0.05)
    states = sorted(run.state for run in jobs.list_runs(runs_dir))
    outputs = [process.communicate("\n") for process in processes]
    assert sorted(out for out, _ in outputs) == ["", "", "", "mine\n"]
    assert sum("BusyError" in error for _, error in outputs) == 3
    assert states == [State.MADE, State.MADE, State.MADE, State.RUNNING]


def test_another_process_with_the_same_id_is_not_the_run(
    runs_dir: Path, examples: list[Example], untrained_tiny: Path
) -> None:
    run_dir = long_run(runs_dir, examples, untrained_tiny)
    jobs.claim(run_dir)
    assert jobs.status(run_dir).state is State.RUNNING
    signed = json.loads((run_dir / "process.json").read_text())
    (run_dir / "process.json").write_text(json.dumps(signed | {"started": signed["started"] - 60}))
    assert jobs.status(run_dir).state is State.FAILED
    assert jobs.claim(long_run(runs_dir, examples, untrained_tiny))


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
    jobs.stop(broken)
    assert jobs.claim(jobs.create_run(runs_dir, examples, config))


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
    assert record["git"].keys() == {"commit", "changed"}
    if (ROOT / ".git").exists():
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
        assert record["git"]["commit"] == head.stdout.strip()
    code = "from facellm.training.run_directory import git_state; print(git_state())"
    bare = os.environ | {"PATH": "/nowhere"}
    without = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=bare, capture_output=True, text=True)
    assert without.stdout == "{'commit': None, 'changed': False}\n", without.stderr


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


FULL_DISK = """
set -e
mount -t tmpfs -o size=64m tmpfs "$1"
cp -r "$2"/. "$1"
(
    for _ in $(seq 600); do [ -s "$1/run-1/metrics.jsonl" ] && break; sleep 0.1; done
    head -c 100m /dev/zero > "$1/filler" 2> /dev/null || true
) &
"$3" -m facellm train "$1/run-1" > "$1/../trained" 2>&1 || true
wait
"$3" -m facellm runs --json > "$1/../full"
rm "$1/filler"
"$3" -m facellm resume run-1 > "$1/../resumed"
step=$(wc -l < "$1/run-1/metrics.jsonl")
for _ in $(seq 600); do
    [ "$(wc -l < "$1/run-1/metrics.jsonl")" -gt $((step + 3)) ] && break
    sleep 0.1
done
"$3" -m facellm stop run-1 > /dev/null
for _ in $(seq 600); do [ -e "$1/run-1/result.json" ] && break; sleep 0.1; done
"$3" -m facellm runs --json > "$1/../after"
"""


@pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True).returncode != 0,
    reason="a small disk needs user namespaces, in which anybody may mount one",
)
def test_a_full_disk_is_a_sentence_and_the_run_is_resumed(
    runs_dir: Path, examples: list[Example], untrained_tiny: Path
) -> None:
    run_dir = long_run(runs_dir.with_name("made"), examples, untrained_tiny)
    runs_dir.mkdir(parents=True)
    command = ["unshare", "-rm", "sh", "-c", FULL_DISK, "sh", str(runs_dir), str(run_dir.parent), sys.executable]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3 * DEADLINE)
    assert done.returncode == 0, done.stderr
    (full,) = json.loads((runs_dir.parent / "full").read_text())
    assert re.fullmatch(
        r"The disk of .*run-1 is full: \d+\.\d MB are free\. Free some space, and try again\.", full["error"]
    )
    assert (full["state"], full["can_resume"]) == ("failed", True)
    trained = (runs_dir.parent / "trained").read_text()
    assert f"error: {full['error']}" in trained and "Traceback" not in trained
    (after,) = json.loads((runs_dir.parent / "after").read_text())
    assert after["state"] == "stopped", after
    assert after["step"] > full["checkpoint_step"]


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
        file.write_text('{"sizes": {}}')
    assert jobs.claim(run_dir, resume=True)
    assert (kept.exists(), (run_dir / "features").exists()) == (True, False)
