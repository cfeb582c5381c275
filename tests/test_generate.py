"""The data factory against a real server: everything is asked once and kept, whatever the server does.

The fixture's server answers at once; what it is to get wrong is set in each test.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import raw_sql
from openai_server import OpenAIServer
from PIL import Image as Pictures
from teacher_server import TeacherServer

from annotation.images import encode_png
from annotation.models import ImageInput, RunState, TaskState
from annotation.store import Store
from annotation.teaching.drafts import add_pair
from annotation.teaching.generate import Generation, Limits, Outcome
from annotation.teaching.ledger import Ledger
from annotation.teaching.plan import Count, Plan
from annotation.teaching.prices import Price
from annotation.teaching.teacher import Parameters, Teacher
from facellm.data import Attribute
from facellm.remote_server import Server

MOSTLY_ON_SQLITE = True
ROOT = Path(__file__).resolve().parent.parent
PRICE = Price(input=2.5, cached_input=1.25, output=10.0, batch_factor=0.5)
IMAGES = 6


@pytest.fixture
def store(data_dir: Path, database: str) -> Iterator[Store]:
    """Six small pictures with FairFace labels."""
    store = Store.open(data_dir, database)
    images = []
    for number in range(IMAGES):
        data = encode_png(Pictures.new("RGB", (32, 32), (40 * number, 90, 200)))
        sha256, path = store.put_image(data, ".png")
        labels = {"age": ("0-2", "20-29")[number % 2], "gender": "Female", "race": "Black"}
        fields = {"sha256": sha256, "path": path, "width": 32, "height": 32, "bytes": len(data)}
        more = {"source": f"test:{number}", "labels": labels, "label_source": "fairface"}
        images.append(ImageInput.model_validate(fields | more))
    store.ingest(images)
    yield store
    store.close()


@pytest.fixture
def server() -> Iterator[TeacherServer]:
    with TeacherServer() as server:
        yield server


def generate(
    store: Store, server: TeacherServer, *, limits: Limits | None = None, timeout_s: float = 5.0, **plan: object
) -> Outcome:
    parameters = Parameters()
    teacher = Teacher(Server(server.base_url, None, timeout_s), "teacher", parameters)
    wanted = Plan("teacher", parameters.text, **plan)  # type: ignore[arg-type]
    return asyncio.run(Generation(store, teacher, wanted, limits or Limits(8, price=PRICE)).run())


def command(server: TeacherServer, *more: str) -> list[str]:
    connection = ["--model", "teacher", "--base-url", server.base_url]
    return [sys.executable, "-m", "annotation", "generate", *connection, *more]


def run_command(server: TeacherServer, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(server, *more),
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


def rows(store: Store, query: str) -> list[tuple]:
    return raw_sql.rows(store.data_dir, query)


def ends(outcome: Outcome) -> dict[TaskState, int]:
    return {state: number for state, number in (outcome.progress.ends or {}).items() if number}


@pytest.mark.both_databases
def test_every_question_is_asked_once_and_becomes_a_pair(store: Store, server: TeacherServer) -> None:
    outcome = generate(store, server)
    assert (outcome.state, ends(outcome)) == (RunState.DONE, {TaskState.OK: IMAGES * 8})
    assert Counter((record.image, record.attributes) for record in server.records).most_common(1)[0][1] == 1
    answers = {record.answer.strip() for record in server.records}
    for question, answer, attribute, status in rows(store, "SELECT question, answer, attribute, status FROM pairs"):
        assert question == Attribute(attribute).question
        assert answer in answers
        assert status == "pending"
    again = generate(store, server)
    assert (again.state, again.progress.total, len(server.records)) == (RunState.DONE, 0, IMAGES * 8)


@pytest.mark.both_databases
def test_a_pair_knows_where_it_comes_from(store: Store, server: TeacherServer) -> None:
    generate(store, server, attributes=(Attribute.POSE,), limit=1)
    query = (
        "SELECT a.returned_model, a.request_id, a.input_tokens, a.output_tokens, a.cost_usd, a.raw = p.answer, "
        "a.latency_s > 0, a.fingerprint, length(a.prompt_sha256), r.base_url FROM pairs p "
        "JOIN tasks t ON t.pair_id = p.id JOIN attempts a ON a.id = t.attempt_id "
        "JOIN generation_runs r ON r.id = a.run_id"
    )
    (row,) = rows(store, query)
    (record,) = server.records
    cost = PRICE.cost(record.input_tokens, record.cached_tokens, record.output_tokens)
    assert row[:4] == ("teacher-2026-01-01", record.request_id, record.input_tokens, record.output_tokens)
    assert row[4] == pytest.approx(cost)
    assert row[5:7] == (1, 1)
    assert row[7]
    assert row[8:] == (64, server.base_url)


@pytest.mark.both_databases
def test_an_answer_is_checked_as_it_comes(store: Store) -> None:
    identity = Plan("teacher", "{}").identity(combined=False)
    answer = "Based on the provided label, this is a woman who looks at the camera."
    with store.ledger.writing() as session:
        first = add_pair(session, 1, {}, Attribute.DEMOGRAPHIC, answer, identity, None)
        assert add_pair(session, 1, {}, Attribute.DEMOGRAPHIC, answer, identity, None) == first
    found = rows(store, "SELECT pair_id, span_start FROM flags WHERE \"check\" = 'leak'")
    assert [pair_id for pair_id, _ in found] == [first]


def test_the_stored_question_has_no_hint_and_the_request_has(store: Store, server: TeacherServer) -> None:
    generate(store, server, attributes=(Attribute.DEMOGRAPHIC,), limit=1)
    (question,) = rows(store, "SELECT question FROM pairs")[0]
    assert "baby" not in question
    assert question == "Describe the demographic attributes of the image based on the visual information."


@pytest.mark.both_databases
@pytest.mark.parametrize("per_image", [False, True])
def test_faults_are_overcome(store: Store, server: TeacherServer, per_image: bool) -> None:
    server.behaviour.change(share_429=0.1, share_5xx=0.1, share_hang_up=0.05, retry_after_ms=10)
    outcome = generate(store, server, per_image=per_image)
    assert (outcome.state, ends(outcome)) == (RunState.DONE, {TaskState.OK: IMAGES * 8})
    assert len(rows(store, "SELECT id FROM attempts")) == len(server.records) == outcome.progress.asked


def test_a_server_that_is_silent_is_asked_again(store: Store, server: TeacherServer) -> None:
    server.behaviour.change(share_hang=0.2)
    outcome = generate(store, server, timeout_s=0.3, limit=2)
    assert ends(outcome) == {TaskState.OK: 16}
    assert rows(store, "SELECT count(*) FROM attempts WHERE error LIKE '%Timeout%'")[0][0] > 0


@pytest.mark.parametrize(
    ("behaviour", "state"),
    [
        ("share_refused", TaskState.REFUSED),
        ("share_said_no", TaskState.REFUSED),
        ("share_filtered", TaskState.FILTERED),
        ("share_cut", TaskState.CUT),
        ("share_empty", TaskState.INVALID),
    ],
)
def test_what_is_of_no_use_is_an_end_and_makes_no_pair(
    store: Store, server: TeacherServer, behaviour: str, state: TaskState
) -> None:
    server.behaviour.change(**{behaviour: 1.0})
    outcome = generate(store, server, limit=1)
    assert ends(outcome) == {state: 8}
    assert rows(store, "SELECT count(*) FROM pairs") == [(0,)]
    assert outcome.progress.cost_usd > 0
    asked = len(server.records)
    assert asked == (16 if state is TaskState.INVALID else 8)
    server.behaviour.change(**{behaviour: 0.0})
    assert generate(store, server, limit=1).progress.total == 0
    assert len(server.records) == asked


def test_eight_in_one_request(store: Store, server: TeacherServer) -> None:
    outcome = generate(store, server, per_image=True)
    assert ends(outcome) == {TaskState.OK: IMAGES * 8}
    assert len(server.records) == IMAGES
    (spent,) = rows(store, "SELECT sum(cost_usd) FROM attempts")[0]
    assert spent == pytest.approx(
        sum(PRICE.cost(r.input_tokens, r.cached_tokens, r.output_tokens) for r in server.records)
    )
    assert generate(store, server, per_image=True).progress.total == 0


@pytest.mark.both_databases
@pytest.mark.parametrize("behaviour", ["share_refused", "share_cut", "share_invalid_json", "share_bad_attribute"])
def test_what_fails_together_is_asked_alone(store: Store, server: TeacherServer, behaviour: str) -> None:
    server.behaviour.change(**{behaviour: 0.6})
    outcome = generate(store, server, per_image=True)
    together = [record for record in server.records if len(record.attributes) > 1]
    alone = [record for record in server.records if len(record.attributes) == 1]
    assert len(together) == IMAGES
    assert 0 < len(alone) < IMAGES * 8
    assert sum(ends(outcome).values()) == IMAGES * 8
    pairs = rows(store, "SELECT count(*), count(DISTINCT image_id || attribute) FROM pairs")[0]
    assert pairs == (ends(outcome)[TaskState.OK],) * 2
    asked = len(server.records)
    assert generate(store, server, per_image=True).progress.total == 0
    assert len(server.records) == asked


@pytest.mark.parametrize(
    ("behaviour", "says"),
    [
        ({"api_key": "the right one"}, "401"),
        ({"quota": 5}, "You exceeded your current quota"),
        ({"models": {"other": "other"}}, "404"),
        ({"redirect_to": "http://127.0.0.1:9"}, "307"),
    ],
)
def test_what_cannot_succeed_stops_the_run_at_once(
    store: Store, server: TeacherServer, behaviour: dict[str, object], says: str
) -> None:
    server.behaviour.change(**behaviour)
    outcome = generate(store, server, limits=Limits(4))
    assert outcome.state is RunState.FAILED
    assert says in outcome.message
    assert len(server.records) <= (behaviour.get("quota") or 0) + 4  # type: ignore[operator]
    server.behaviour.change(api_key=None, quota=None, models={"teacher": "t"}, redirect_to=None)
    assert generate(store, server).state is RunState.DONE
    assert rows(store, "SELECT count(*) FROM pairs") == [(IMAGES * 8,)]


def test_a_server_that_is_away_ends_the_run(store: Store) -> None:
    with TeacherServer() as server:
        pass
    began = time.monotonic()
    outcome = generate(store, server, limits=Limits(8))
    assert outcome.state is RunState.FAILED
    assert "does not answer: 12 requests in a row failed" in outcome.message
    assert time.monotonic() - began < 10
    assert rows(store, "SELECT count(*) FROM pairs") == [(0,)]


def test_the_cost_limit_is_kept(store: Store, server: TeacherServer) -> None:
    server.behaviour.change(latency_s=0.02)
    outcome = generate(store, server, limits=Limits(4, max_cost=0.02, price=PRICE))
    assert (outcome.state, outcome.message) == (RunState.STOPPED, "The cost limit of 0.02 USD is reached.")
    dearest = max(PRICE.cost(r.input_tokens, 0, r.output_tokens) for r in server.records)
    assert 0.02 - 5 * dearest < outcome.progress.cost_usd <= 0.02 + 4 * dearest
    (in_ledger,) = rows(store, "SELECT sum(cost_usd) FROM attempts")[0]
    assert in_ledger == pytest.approx(outcome.progress.cost_usd)


def test_the_first_requests_keep_the_cost_limit_too(store: Store, server: TeacherServer) -> None:
    server.behaviour.change(latency_s=0.2)
    done = run_command(server, "--price", "2.5,10", "--max-cost", "0.0001", "--json")
    assert json.loads(done.stdout)["state"] == "stopped"
    assert len(server.records) == 1
    assert rows(store, "SELECT count(*) FROM pairs") == [(1,)]


def test_a_stop_leaves_what_waits_for_another_try_open(store: Store, server: TeacherServer) -> None:
    server.behaviour.change(share_5xx=1.0)
    outcome = generate(store, server, limits=Limits(4))
    assert (outcome.state, outcome.progress.finished, ends(outcome)) == (RunState.FAILED, 0, {})
    server.behaviour.change(share_5xx=0.0)
    assert ends(generate(store, server)) == {TaskState.OK: IMAGES * 8}


@pytest.mark.usefixtures("store")
def test_answers_under_other_settings_are_told_before_second_ones_are_paid(server: TeacherServer) -> None:
    assert run_command(server, "--limit", "2").returncode == 0
    again = json.loads(run_command(server, "--per-image", "--dry-run", "--json").stdout)
    assert (again["requests"], again["second_answers"]) == (IMAGES, 16)
    told = run_command(server, "--temperature", "0.5", "--limit", "1").stderr
    assert "8 of these questions have an answer of teacher already, under other settings" in told
    assert "under other settings" not in run_command(server).stderr


@pytest.mark.usefixtures("store")
def test_resume_without_a_batch_says_what_is_open(server: TeacherServer) -> None:
    done = run_command(server, "--resume")
    assert done.returncode == 0
    assert done.stdout.startswith(f"There is no batch to collect. {IMAGES * 8} questions have not been asked")
    assert not server.records


def test_a_broken_picture_is_one_failure(store: Store, server: TeacherServer) -> None:
    (path,) = rows(store, "SELECT path FROM images WHERE id = 2")[0]
    (store.data_dir / path).unlink()
    outcome = generate(store, server)
    assert ends(outcome) == {TaskState.OK: (IMAGES - 1) * 8, TaskState.FAILED: 8}
    assert rows(store, "SELECT DISTINCT error FROM attempts WHERE state = 'error'")[0][0].startswith("The image file")


@pytest.mark.both_databases
def test_half_a_character_ends_its_own_question_and_not_the_run(store: Store) -> None:
    """No database takes it; with it would go all that is written in the same transaction."""
    with OpenAIServer() as server:
        server.models["teacher"] = "/weights/teacher"
        server.answer = lambda _: '{"pose": "It is \\ud800.", "skin": "It is even and light."}'
        asked = (Attribute.SKIN, Attribute.POSE)
        outcome = generate(store, server, per_image=True, attributes=asked)  # type: ignore[arg-type]
        assert outcome.state is RunState.DONE
        together = "SELECT attribute, state, count(*) FROM tasks WHERE prompt_version LIKE 'combined%' GROUP BY 1, 2"
        assert rows(store, together) == [("pose", "fallback", IMAGES), ("skin", "ok", IMAGES)]
        assert rows(store, "SELECT count(*) FROM pairs WHERE attribute = 'skin'") == [(IMAGES,)]
        server.failure, server.failure_message = 400, "Bad \ud800 news."
        outcome = generate(store, server, attributes=(Attribute.DETAIL,), limit=1)  # type: ignore[arg-type]
        assert ends(outcome) == {TaskState.FAILED: 1}
        assert rows(store, "SELECT error FROM attempts WHERE state = 'error'") == [("Bad ? news.",)]


def test_two_processes_share_the_work(store: Store, server: TeacherServer) -> None:
    server.behaviour.change(latency_s=0.1)
    both = [
        subprocess.Popen(command(server, "--concurrency", "4", "--json"), cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    found = [json.loads(process.communicate(timeout=60)[0]) for process in both]
    assert [each["state"] for each in found] == ["done", "done"]
    assert Counter((r.image, r.attributes) for r in server.records).most_common(1)[0][1] == 1
    assert rows(store, "SELECT count(*) FROM pairs") == [(IMAGES * 8,)]
    assert sum(each["ends"].get("ok", 0) for each in found) == IMAGES * 8
    assert all(each["finished"] == each["total"] for each in found), "nothing is left, whoever did it"
    assert rows(store, "SELECT count(*) FROM generation_runs WHERE finished = total AND total > 0") == [(2,)]


def test_what_others_do_meanwhile_is_not_left(store: Store, server: TeacherServer) -> None:
    """Images that another run has done before this one comes to them are never looked at by this one."""

    class Late(Plan):
        def count(self, ledger: Ledger) -> Count:
            found = super().count(ledger)
            other = threading.Thread(target=generate, args=(store, server), kwargs={"limit": 4})
            other.start()
            other.join()
            return found

    teacher = Teacher(Server(server.base_url, None, 5.0), "teacher", Parameters())
    outcome = asyncio.run(Generation(store, teacher, Late("teacher", Parameters().text), Limits(2)).run())
    assert ends(outcome) == {TaskState.OK: 16}
    assert (outcome.progress.finished, outcome.progress.total) == (IMAGES * 8, IMAGES * 8)
    late, other = rows(store, "SELECT finished, total FROM generation_runs ORDER BY id")
    assert (late, other) == ((IMAGES * 8,) * 2, (32, 32))


def test_who_leaves_at_once_keeps_in_the_ledger_what_may_be_billed(store: Store, server: TeacherServer) -> None:
    server.behaviour.change(latency_s=20)
    process = subprocess.Popen(command(server, "--concurrency", "3"), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while len(server.records) < 3:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    while "Press Ctrl-C again" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == 1
    assert rows(store, "SELECT state, count(*) FROM attempts GROUP BY state") == [("lost", 3)]
    assert rows(store, "SELECT state, message FROM generation_runs") == [("stopped", "Left at once.")]
    server.behaviour.change(latency_s=0)
    assert ends(generate(store, server)) == {TaskState.OK: IMAGES * 8}


def test_a_cost_limit_that_cannot_be_kept_ends_the_run(store: Store, server: TeacherServer) -> None:
    server.behaviour.change(usage=False)
    outcome = generate(store, server, limits=Limits(2, max_cost=1.0, price=PRICE))
    assert outcome.state is RunState.FAILED
    assert "so the cost limit cannot be kept" in outcome.message
    assert len(server.records) <= 4
    assert generate(store, server, limits=Limits(2, price=PRICE)).state is RunState.DONE
    assert rows(store, "SELECT count(*) FROM pairs") == [(IMAGES * 8,)]


@pytest.mark.both_databases
def test_after_a_kill_only_what_was_in_flight_is_asked_again(store: Store, server: TeacherServer) -> None:
    server.behaviour.change(latency_s=0.15)
    most_in_flight = 3
    process = subprocess.Popen(command(server, "--concurrency", str(most_in_flight)), cwd=ROOT)
    while len(server.records) < 12:
        time.sleep(0.01)
    process.kill()
    process.wait()
    finished = run_command(server, "--json")
    assert finished.returncode == 0, finished.stderr
    asked = Counter((record.image, record.attributes) for record in server.records)
    assert len(asked) == IMAGES * 8
    assert sum(number - 1 for number in asked.values()) <= most_in_flight
    assert rows(store, "SELECT count(*) FROM pairs") == [(IMAGES * 8,)]
    assert rows(store, "SELECT count(*) FROM attempts WHERE state = 'lost'")[0][0] <= most_in_flight
    asked_so_far = len(server.records)
    assert json.loads(run_command(server, "--json").stdout)["total"] == 0
    assert len(server.records) == asked_so_far


def test_ctrl_c_stores_what_is_in_flight(store: Store, server: TeacherServer) -> None:
    server.behaviour.change(latency_s=0.3)
    process = subprocess.Popen(
        command(server, "--concurrency", "4", "--json"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while len(server.records) < 6:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "what is in flight is waited for" in err
    found = json.loads(out)
    assert found["state"] == "stopped"
    assert rows(store, "SELECT count(*) FROM pairs") == [(len(server.records),)]
    assert all(not record.gone for record in server.records)


def test_a_wish_to_stop_from_elsewhere_is_heeded(store: Store, server: TeacherServer) -> None:
    server.behaviour.change(latency_s=0.5)
    process = subprocess.Popen(
        command(server, "--concurrency", "1", "--json"), cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    while not server.records:
        time.sleep(0.02)
    (run,) = store.ledger.runs()
    assert store.ledger.is_alive(run)
    store.ledger.request_stop(run.uuid)
    assert json.loads(process.communicate(timeout=30)[0])["state"] == "stopped"
    (run,) = store.ledger.runs()
    assert run.state is RunState.STOPPED
    assert run.finished == rows(store, "SELECT count(*) FROM pairs")[0][0] < IMAGES * 8


def test_the_key_is_nowhere(store: Store, server: TeacherServer) -> None:
    key = "sk-very-secret-0123456789"
    server.behaviour.change(api_key=key, share_5xx=0.2, says="Bad news for {key}.")
    done = run_command(server, "--key-variable", "MY_KEY", "--limit", "2", MY_KEY=key)
    assert done.returncode == 0, done.stderr
    server.behaviour.change(api_key="another", status=None)
    refused = run_command(server, "--key-variable", "MY_KEY", MY_KEY=key)
    assert refused.returncode == 1
    assert "[key]" in refused.stderr
    for text in (done.stdout, done.stderr, refused.stdout, refused.stderr):
        assert key not in text
    for path in store.data_dir.rglob("*"):
        assert path.is_dir() or key.encode() not in path.read_bytes()


@pytest.mark.usefixtures("store")
def test_ages_can_be_left_out(server: TeacherServer) -> None:
    done = run_command(server, "--exclude-ages", "0-2,3-9", "--attributes", "pose,skin")
    assert done.returncode == 0, done.stderr
    assert {record.attributes for record in server.records} == {("pose",), ("skin",)}
    assert len(server.records) == IMAGES


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model", ""], "--model is empty."),
        (["--attributes", "pose,hair"], "--attributes names hair. Expected some of demographic"),
        (["--exclude-ages", "3-8"], "--exclude-ages names 3-8. Expected some of 0-2"),
        (["--price", "much"], "--price is 'much'. Expected two numbers"),
        (["--price", "nan,1"], "--price is 'nan,1'. Expected two numbers"),
        (["--max-cost", "1"], "No price of teacher is known"),
        (["--detail", "best"], "--detail is 'best'"),
        (["--key-variable", "NO_SUCH_KEY"], "The variable NO_SUCH_KEY"),
        (["--base-url", "ftp://x"], "The address of the model server is not usable"),
    ],
)
def test_a_bad_option_is_one_sentence(server: TeacherServer, arguments: list[str], says: str) -> None:
    done = run_command(server, *arguments)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: " + says)
    assert not server.records


def test_openai_wants_its_policy_to_be_acknowledged_first(store: Store) -> None:
    told = [sys.executable, "-m", "annotation", "generate", "--model", "gpt-4o", "--limit", "1"]
    environment = os.environ | {"OPENAI_API_KEY": "sk-none"}
    done = subprocess.run(
        told, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 1
    assert "api.openai.com has a usage policy that concerns this work" in done.stderr
    assert rows(store, "SELECT count(*) FROM attempts") == [(0,)]


def test_a_dry_run_sends_nothing_and_learns_from_the_ledger(store: Store, server: TeacherServer) -> None:
    told = ("--dry-run", "--json", "--price", "2.5,10")
    before = json.loads(run_command(server, *told).stdout)
    assert (before["requests"], before["basis"]) == (IMAGES * 8, "assumed")
    assert not server.records
    assert run_command(server, "--limit", "3", "--price", "2.5,10").returncode == 0
    after = json.loads(run_command(server, *told).stdout)
    assert (after["requests"], after["basis"]) == (24, "measured on 24 requests")
    assert run_command(server, "--price", "2.5,10").returncode == 0
    (second_half,) = rows(store, "SELECT sum(cost_usd) FROM attempts WHERE run_id = 2")[0]
    assert after["cost_usd"] == pytest.approx(second_half, rel=0.05)
