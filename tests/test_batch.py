"""A plan through the Batch API of a real server: every question is asked once and paid once, whoever dies when."""

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pictures
from sqlmodel import col, select
from teacher_http import Reply as HttpReply
from teacher_http import Request, json_reply
from teacher_server import TeacherServer

from annotation.models import (
    Attempt,
    AttemptState,
    Batch,
    GenerationRun,
    ImageInput,
    Pair,
    RunState,
    Task,
    TaskState,
)
from annotation.store import Store
from annotation.teaching.batch import BatchRun
from annotation.teaching.batch_files import FileLimits, lines_of, read_result
from annotation.teaching.generate import Limits, Outcome
from annotation.teaching.plan import Plan
from annotation.teaching.prices import Price
from annotation.teaching.teacher import Ask, Next, Parameters, Teacher
from facellm.data import Attribute
from facellm.remote_server import Server

MOSTLY_ON_SQLITE = True
PRICE = Price(input=2.5, cached_input=1.25, output=10.0, batch_factor=0.5)
TWO = (Attribute.POSE, Attribute.SKIN)
PARAMETERS = Parameters()


class SteeredServer(TeacherServer):
    """A teacher that can fall silent at one kind of request, before or after it has done what was asked."""

    def __init__(self, **behaviour: Any) -> None:
        super().__init__(**behaviour)
        self.silent_at: tuple[str, str] | None = None  # method, path
        self.silent_after = False
        self.instead: dict[tuple[str, str], list[HttpReply | None]] = {}  # None: as usual
        self.requests: Counter[tuple[str, str]] = Counter()

    def _respond(self, request: Request) -> HttpReply:
        place = request.method, request.path
        self.requests[place] += 1
        if self.instead.get(place) and (reply := self.instead[place].pop(0)) is not None:
            return reply
        if place == self.silent_at and not self.silent_after:
            return HttpReply(0, silent=True)
        reply = super()._respond(request)
        return HttpReply(0, silent=True) if place == self.silent_at else reply

    def rows(self) -> Counter[str]:
        """How often each request was carried out in a batch."""
        return Counter(record.key for record in self.records if record.batch)

    def billed(self) -> float:
        """USD of all rows that were carried out, by the server's own count."""
        return sum(PRICE.cost(r.input_tokens, r.cached_tokens, r.output_tokens, batch=True) for r in self.records)


@pytest.fixture
def store(data_dir: Path, database: str) -> Iterator[Store]:
    store = Store.open(data_dir, database)
    yield store
    store.close()


@pytest.fixture
def server() -> Iterator[SteeredServer]:
    with SteeredServer() as server:
        yield server


def fill(store: Store, count: int) -> None:
    """Store images of one colour each."""
    images = []
    for number in range(count):
        file = io.BytesIO()
        Pictures.new("RGB", (16, 16), (number % 256, number // 256, 7)).save(file, "PNG")
        sha256, path = store.put_image(file.getvalue(), ".png")
        told = {"sha256": sha256, "path": path, "width": 16, "height": 16, "bytes": file.tell(), "source": "test"}
        images.append(ImageInput.model_validate(told | {"labels": {"age": "20-29"}, "label_source": "test"}))
    store.ingest(images)


def plan(attributes: tuple[Attribute, ...] = TWO, **more: Any) -> Plan:
    return Plan(teacher="teacher", parameters=PARAMETERS.text, attributes=attributes, **more)


def new_run(store: Store, server: TeacherServer, what: Plan | None = None, **more: Any) -> BatchRun:
    teacher = Teacher(Server(server.base_url, None, 10.0), "teacher", PARAMETERS)
    told: dict[str, Any] = {"submit": True, "poll_s": 0.02} | more
    limits = told.pop("limits", Limits(price=PRICE))
    return BatchRun(store, teacher, what or plan(), limits, **told)


def run(store: Store, server: TeacherServer, what: Plan | None = None, **more: Any) -> Outcome:
    return asyncio.run(asyncio.wait_for(new_run(store, server, what, **more).run(), 60))


def stop_when(batch_run: BatchRun, ready: Callable[[], bool]) -> Outcome:
    """Run it, and stop it as Ctrl-C does as soon as something is so."""

    async def watched() -> Outcome:
        async def watch() -> None:
            while not ready():
                await asyncio.sleep(0.005)
            batch_run.stop()

        watching = asyncio.create_task(watch())
        try:
            return await asyncio.wait_for(batch_run.run(), 60)
        finally:
            watching.cancel()

    return asyncio.run(watched())


def rows(store: Store, table: type[Any]) -> list[Any]:
    with store.ledger.reading() as session:
        return list(session.exec(select(table).order_by(col(table.id))))


def states(store: Store) -> Counter[str]:
    return Counter(task.state.value for task in rows(store, Task))


def files(store: Store) -> list[Path]:
    return list((store.data_dir / "generation" / "batches").glob("*"))


def check_complete(store: Store, server: SteeredServer, pairs: int) -> None:
    """Nothing is missing, double, out or lying about, and what is counted is what was billed."""
    assert len(rows(store, Pair)) == pairs
    assert {attempt.state for attempt in rows(store, Attempt)} <= set(AttemptState) - {AttemptState.SENT}
    assert all(batch.collected_at for batch in rows(store, Batch))
    assert files(store) == []
    ledger = sum(attempt.cost_usd or 0.0 for attempt in rows(store, Attempt))
    assert ledger == pytest.approx(server.billed(), abs=1e-9)
    assert sum(each.cost_usd for each in rows(store, GenerationRun)) == pytest.approx(ledger, abs=1e-9)


# All goes well


@pytest.mark.both_databases
def test_all_is_asked_once_and_has_its_provenance(store: Store, server: SteeredServer) -> None:
    fill(store, 5)
    server.behaviour.share_cached = 0.5
    outcome = run(store, server)
    assert (outcome.state, outcome.message) == (RunState.DONE, "")
    assert (outcome.progress.total, outcome.progress.finished, outcome.progress.asked) == (10, 10, 10)
    assert outcome.progress.ends == {TaskState.OK: 10}
    assert outcome.progress.cost_usd == pytest.approx(server.billed(), abs=1e-9)
    assert set(server.rows().values()) == {1}
    check_complete(store, server, 10)
    [owner] = rows(store, GenerationRun)
    assert (owner.state, owner.total, owner.finished) == (RunState.DONE, 10, 10)
    answers = {record.request_id: record for record in server.records}
    pairs = {pair.id: pair for pair in rows(store, Pair)}
    attempts = {attempt.id: attempt for attempt in rows(store, Attempt)}
    for task in rows(store, Task):  # the rows came back shuffled
        attempt, pair = attempts[task.attempt_id], pairs[task.pair_id]
        record = answers[attempt.request_id]
        assert pair.answer == attempt.raw == record.answer
        assert (pair.image_id, pair.attribute) == (task.image_id, task.attribute)
        assert record.attributes == (task.attribute.value,)
        assert (attempt.returned_model, attempt.fingerprint) == ("teacher-2026-01-01", "fp_teacher")
        assert (attempt.input_tokens, attempt.output_tokens) == (record.input_tokens, record.output_tokens)
    sent = len(server.records)
    again = run(store, server)
    assert (again.state, again.progress.total, len(server.records)) == (RunState.DONE, 0, sent)


@pytest.mark.parametrize("limits", [FileLimits(requests=4), FileLimits(bytes=4_000)], ids=["requests", "bytes"])
def test_files_stay_within_the_limits(store: Store, server: SteeredServer, limits: FileLimits) -> None:
    fill(store, 5)
    server.behaviour.change(batch_max_requests=limits.requests, batch_max_bytes=limits.bytes)
    assert run(store, server, file_limits=limits).state is RunState.DONE
    batches = rows(store, Batch)
    assert len(batches) >= 3
    assert all(b.requests <= limits.most_requests and b.bytes <= limits.most_bytes for b in batches)
    assert sum(batch.requests for batch in batches) == 10
    check_complete(store, server, 10)


def test_a_request_larger_than_a_file_is_not_sent(store: Store, server: SteeredServer) -> None:
    fill(store, 2)
    outcome = run(store, server, file_limits=FileLimits(bytes=1_000))
    assert (outcome.state, outcome.progress.finished) == (RunState.DONE, 4)
    assert states(store) == {"failed": 4}
    assert "smaller picture" in rows(store, Attempt)[0].error
    assert not server.records


def test_a_missing_picture_costs_only_its_own_questions(store: Store, server: SteeredServer) -> None:
    fill(store, 3)
    next((store.data_dir / "images").rglob("*.png")).unlink()
    outcome = run(store, server)
    assert states(store) == {"ok": 4, "failed": 2}
    assert (outcome.progress.total, outcome.progress.finished) == (6, 6)
    [owner] = rows(store, GenerationRun)
    assert (owner.total, owner.finished) == (6, 6)
    check_complete(store, server, 4)


# Answers of no use


def test_refusals_and_the_like_are_final_and_paid(store: Store, server: SteeredServer) -> None:
    fill(store, 20)
    server.behaviour.change(share_refused=0.2, share_said_no=0.1, share_filtered=0.1, share_cut=0.1, share_empty=0.1)
    outcome = run(store, server)
    assert outcome.state is RunState.DONE
    found = states(store)
    assert set(found) == {"ok", "refused", "filtered", "cut", "invalid"}
    assert set(server.rows().values()) == {1}
    check_complete(store, server, found["ok"])


def test_what_was_asked_together_in_vain_is_asked_alone(store: Store, server: SteeredServer) -> None:
    fill(store, 12)
    server.behaviour.change(share_invalid_json=0.3, share_bad_attribute=0.3)
    outcome = run(store, server, plan(per_image=True))
    assert (outcome.state, outcome.progress.total, outcome.progress.finished) == (RunState.DONE, 24, 24)
    assert outcome.progress.ends == {TaskState.OK: 24}
    found = states(store)
    assert found["ok"] == 24
    assert found["fallback"] >= 4
    [owner] = rows(store, GenerationRun)
    assert (owner.total, owner.finished) == (24, 24)
    check_complete(store, server, 24)


# Lines that do not come


def test_missing_lines_and_failed_ones_are_sent_again(store: Store, server: SteeredServer) -> None:
    fill(store, 30)
    server.behaviour.change(batch_share_missing=0.1, batch_share_errors=0.1, seed=3)
    outcome = run(store, server, plan(tuple(Attribute)[:4]))
    attempts = rows(store, Attempt)
    errors = Counter(attempt.error for attempt in attempts if attempt.state is AttemptState.ERROR)
    assert errors["missing from the output"] > 3
    assert errors["The server had an error."] > 3
    assert len(attempts) == 120 + sum(errors.values()) - states(store)["failed"]
    assert max(attempt.number for attempt in attempts) >= 2
    assert set(server.rows().values()) <= {1, 2, 3}
    assert (outcome.progress.total, outcome.progress.finished) == (120, 120)
    assert outcome.progress.ends == Counter({TaskState(state): number for state, number in states(store).items()})
    [owner] = rows(store, GenerationRun)
    assert (owner.total, owner.finished) == (120, 120)


def test_it_ends_although_some_lines_never_come(store: Store, server: SteeredServer) -> None:
    fill(store, 3)
    server.behaviour.batch_share_missing = 1.0
    outcome = run(store, server)
    assert (outcome.state, states(store)) == (RunState.DONE, {"failed": 6})
    assert "6 questions have no answer after 3 rounds" in outcome.message
    assert len(rows(store, Batch)) == 3
    server.behaviour.batch_share_missing = 0.0
    assert run(store, server, submit=False).progress.finished == 6
    check_complete(store, server, 6)


def test_what_expired_is_sent_again_and_nothing_else(store: Store, server: SteeredServer) -> None:
    fill(store, 8)
    server.behaviour.batch_share_done = 0.5
    outcome = run(store, server)
    assert states(store) == {"ok": 14, "failed": 2}
    assert [batch.requests for batch in rows(store, Batch)] == [16, 8, 4]
    assert set(server.rows().values()) == {1}
    server.behaviour.batch_share_done = 1.0
    outcome = run(store, server, submit=False)
    assert (outcome.progress.total, outcome.progress.finished) == (2, 2)
    assert set(server.rows().values()) == {1}
    check_complete(store, server, 16)


def test_a_cancelled_batch_is_not_sent_again_by_itself(store: Store, server: SteeredServer) -> None:
    fill(store, 4)
    server.behaviour.batch_seconds = 3600
    out = stop_when(new_run(store, server), lambda: server.requests["POST", "/v1/batches"] > 0)
    assert (out.state, states(store)) == (RunState.WAITING, {"batched": 8})
    cancel(server, rows(store, Batch)[0].remote_id)
    outcome = run(store, server, submit=False)
    assert (outcome.state, states(store)) == (RunState.DONE, {"failed": 8})
    assert len(rows(store, Batch)) == 1
    server.behaviour.batch_seconds = 0
    run(store, server, submit=False)
    check_complete(store, server, 8)


def cancel(server: SteeredServer, remote_id: str) -> None:
    asked = urllib.request.Request(f"{server.base_url}/batches/{remote_id}/cancel", b"", method="POST")
    with urllib.request.urlopen(asked) as answer:
        assert json.load(answer)["status"] == "cancelled"


# What the provider does not take


def test_a_batch_that_fails_gives_the_providers_words(store: Store, server: SteeredServer) -> None:
    fill(store, 3)
    server.behaviour.batch_max_requests = 5
    outcome = run(store, server)
    assert outcome.state is RunState.FAILED
    assert "more than 5 requests" in outcome.message
    assert states(store) == {"failed": 6}
    server.behaviour.batch_max_requests = 50
    run(store, server)
    check_complete(store, server, 6)


@pytest.mark.parametrize("place", [("POST", "/v1/files"), ("POST", "/v1/batches")], ids=["file", "batch"])
def test_a_refused_file_frees_its_questions(store: Store, server: SteeredServer, place: tuple[str, str]) -> None:
    fill(store, 3)
    server.instead[place] = [json_reply(400, {"error": {"message": "No, not this.", "code": "bad"}})]
    outcome = run(store, server)
    assert (outcome.state, states(store)) == (RunState.FAILED, {"failed": 6})
    assert "does not take the batch (400): No, not this." in outcome.message
    run(store, server)
    check_complete(store, server, 6)


def test_a_server_without_batches_is_told_before_anything_is_claimed(store: Store, server: SteeredServer) -> None:
    fill(store, 2)
    for reply in (json_reply(404, {"error": {"message": "Not Found"}}), HttpReply(200, b"<html>", "text/html")):
        server.instead["GET", "/v1/batches"] = [reply]
        outcome = run(store, server)
        assert outcome.state is RunState.FAILED
        assert "Batch API" in outcome.message
    assert rows(store, Task) == []


def test_a_redirect_is_not_followed(store: Store, server: SteeredServer) -> None:
    fill(store, 2)
    with SteeredServer() as elsewhere:
        server.behaviour.redirect_to = elsewhere.base_url.removesuffix("/v1")
        outcome = run(store, server)
        assert outcome.state is RunState.FAILED
        assert "not followed" in outcome.message
        assert not elsewhere.requests


@pytest.mark.parametrize("place", ["/v1/files", "/v1/batches"])
@pytest.mark.parametrize(
    "reply",
    [json_reply(500, {}), json_reply(429, {}), HttpReply(hang_up=True), HttpReply(200, b"<html>", "text/html")],
    ids=["500", "429", "hang up", "html"],
)
def test_faults_that_pass_are_waited_out(store: Store, server: SteeredServer, place: str, reply: HttpReply) -> None:
    fill(store, 3)
    server.instead["POST", place] = [reply]
    assert run(store, server).state is RunState.DONE
    assert set(server.rows().values()) == {1}
    check_complete(store, server, 6)


def test_faults_at_the_results_are_waited_out(store: Store, server: SteeredServer) -> None:
    fill(store, 3)
    output = "/v1/files/file-3/content"
    server.instead["GET", output] = [json_reply(500, {}), HttpReply(hang_up=True)]
    server.instead["GET", "/v1/batches/batch_2"] = [json_reply(503, {}), HttpReply(200, b"[]"), HttpReply(200, b"{")]
    assert run(store, server).state is RunState.DONE
    assert server.requests["GET", output] == 3
    check_complete(store, server, 6)


def test_a_fault_at_one_file_does_not_wait_for_the_others(store: Store, server: SteeredServer) -> None:
    fill(store, 4)
    server.behaviour.batch_seconds = 3600

    server.instead["POST", "/v1/files"] = [None, json_reply(500, {})]
    both = new_run(store, server, file_limits=FileLimits(requests=5))
    outcome = stop_when(both, lambda: server.requests["POST", "/v1/batches"] == 2)
    assert (outcome.state, states(store)) == (RunState.WAITING, {"batched": 8})
    assert {batch.requests for batch in rows(store, Batch) if batch.remote_id} == {4}


# The provider's queue


def test_a_full_queue_is_waited_for(store: Store, server: SteeredServer) -> None:
    fill(store, 6)
    server.behaviour.change(batch_seconds=0.15, batch_queued_tokens=4_000)
    outcome = run(store, server, file_limits=FileLimits(requests=5))
    assert outcome.state is RunState.DONE
    assert outcome.progress.asked >= 12
    assert set(server.rows().values()) == {1}
    check_complete(store, server, 12)


def test_a_file_larger_than_the_queue_is_cut(store: Store, server: SteeredServer) -> None:
    fill(store, 6)
    server.behaviour.batch_queued_tokens = 2_500
    outcome = run(store, server)
    assert (outcome.state, outcome.progress.finished) == (RunState.DONE, 12)
    taken = [batch.requests for batch in rows(store, Batch) if batch.state == "collected"]
    assert max(taken) < 12
    assert sum(taken) == 12
    assert set(server.rows().values()) == {1}
    assert {attempt.state for attempt in rows(store, Attempt)} == {AttemptState.OK}
    check_complete(store, server, 12)


# Results that are not as they should be


def test_lines_of_no_use_are_counted_and_the_rest_is_read(store: Store) -> None:
    fill(store, 3)

    class Garbled(SteeredServer):
        def _respond(self, request: Request) -> HttpReply:
            reply = super()._respond(request)
            if request.path.endswith("/content"):
                twice = reply.body + reply.body
                unknown = json.dumps({"custom_id": "nobody", "response": None, "error": {"code": "x"}}).encode()
                reply.body = b"\xff\xfe\n{\n\n[1]\n" + unknown + b"\n" + twice + b'{"custom_id": "cut'
            return reply

    with Garbled() as garbled:
        outcome = run(store, garbled)
        assert (outcome.state, states(store)) == (RunState.DONE, {"ok": 6})
        assert outcome.message == "5 lines of results were not readable or belong to no request."
        check_complete(store, garbled, 6)


def test_lines_end_at_line_feeds_alone() -> None:
    async def found(*chunks: bytes) -> list[bytes]:
        async def coming() -> Any:
            for chunk in chunks:
                yield chunk

        return [line async for line in lines_of(coming())]

    text = json.dumps({"custom_id": "a", "error": {"message": "one\u2028two\x85three\x0bfour"}}, ensure_ascii=False)
    line = text.encode()
    lines = asyncio.run(found(line[:20], line[20:] + b"\n" + line[:5], line[5:]))
    assert [read_result(each) is not None for each in lines] == [True, True]


@pytest.mark.parametrize(
    "line", [b"", b"null", b"[]", b'{"custom_id": 3}', b'{"custom_id": "a", "response": 1}', b"\xff", b"[" * 100_000]
)
def test_a_line_that_is_no_result(line: bytes) -> None:
    assert read_result(line) is None


@pytest.mark.parametrize(
    ("told", "state", "next_"),
    [
        ({"response": {"status_code": 400, "body": {"error": {"code": "content_filter"}}}}, "filtered", Next.DONE),
        ({"response": {"status_code": 400, "body": {"error": {"message": "No."}}}}, "error", Next.DONE),
        ({"response": {"status_code": 500, "body": "my-key"}}, "error", Next.RETRY),
        ({"response": {"status_code": 200, "body": {"choices": []}}}, "error", Next.RETRY),
        ({"response": {"status_code": 200, "body": None}}, "error", Next.RETRY),
        ({"response": {"status_code": 429, "body": {"error": {"code": "insufficient_quota"}}}}, "error", Next.STOP),
        ({"response": None, "error": {"code": "batch_expired", "message": "my-key"}}, "error", Next.RETRY),
        ({"response": None, "error": {"code": "batch_cancelled"}}, "error", Next.DONE),
        ({}, "error", Next.RETRY),
    ],
)
def test_what_a_line_without_an_answer_means(told: dict[str, Any], state: str, next_: Next) -> None:
    result = read_result(json.dumps({"custom_id": "a"} | told).encode())
    assert result is not None
    ask = Ask((Attribute.POSE,), "", combined=False)
    reply = result.reply(ask, lambda text: text.replace("my-key", "[key]"))
    assert (reply.state, reply.next) == (AttemptState(state), next_)
    assert bool(reply.answers) is (state == "filtered")
    assert "my-key" not in reply.error + reply.raw


# Cost


def test_the_cost_limit_is_kept_before_anything_is_sent(store: Store, server: SteeredServer) -> None:
    fill(store, 20)
    outcome = run(store, server, limits=Limits(max_cost=0.03, price=PRICE))
    assert outcome.state is RunState.STOPPED
    assert "limit of 0.03 USD" in outcome.message
    assert 0.015 < outcome.progress.cost_usd <= 0.03
    assert outcome.progress.cost_usd == pytest.approx(server.billed(), abs=1e-9)
    assert 0 < states(store)["ok"] < 40
    run(store, server)
    check_complete(store, server, 40)


# Leaving and coming back


@pytest.mark.both_databases
def test_who_leaves_collects_later_and_the_first_run_is_then_done(store: Store, server: SteeredServer) -> None:
    fill(store, 4)
    server.behaviour.batch_seconds = 3600
    left = stop_when(new_run(store, server), lambda: server.requests["POST", "/v1/batches"] > 0)
    assert left.state is RunState.WAITING
    assert "--resume" in left.message
    assert left.progress.finished == 0
    fill(store, 6)  # images that came later are none of --resume's business
    server.behaviour.batch_seconds = 0
    outcome = run(store, server, submit=False)
    assert (outcome.state, outcome.progress.total, outcome.progress.finished) == (RunState.DONE, 8, 8)
    first, second = rows(store, GenerationRun)
    assert (first.state, first.total, first.finished) == (RunState.DONE, 8, 8)
    assert (second.state, second.total, second.finished, second.cost_usd) == (RunState.DONE, 0, 0, 0.0)
    check_complete(store, server, 8)


def test_who_leaves_while_a_file_is_written_sends_nothing(store: Store, server: SteeredServer) -> None:
    fill(store, 120)
    outcome = stop_when(new_run(store, server), lambda: bool(files(store)))
    assert outcome.state is RunState.STOPPED
    assert set(states(store)) == {"failed"}
    assert not server.requests["POST", "/v1/files"]
    assert files(store) == []
    run(store, server)
    check_complete(store, server, 240)


def test_other_runs_leave_what_is_out_alone(store: Store, server: SteeredServer) -> None:
    fill(store, 4)
    server.behaviour.batch_seconds = 3600
    stop_when(new_run(store, server), lambda: server.requests["POST", "/v1/batches"] > 0)
    assert store.ledger.bury_dead_runs() == 0
    assert plan().count(store.ledger).total == 0
    assert states(store) == {"batched": 8}
    told = ["generate", "--model", "teacher", "--base-url", server.base_url, "--attributes", "pose,skin"]
    done = subprocess.run([sys.executable, "-m", "annotation", *told], capture_output=True, text=True)
    assert done.stdout.startswith("Nothing is missing")
    assert "8 questions wait in batches. Collect them with --resume.\n" in done.stderr
    assert states(store) == {"batched": 8}


def test_of_two_at_once_one_collects(store: Store, server: SteeredServer) -> None:
    fill(store, 4)
    server.behaviour.batch_seconds = 0.3

    async def both() -> tuple[Outcome, Outcome]:
        first = asyncio.create_task(new_run(store, server).run())
        while not server.requests["POST", "/v1/batches"]:
            await asyncio.sleep(0.005)
        second = await new_run(store, server).run()
        return await first, second

    one, other = asyncio.run(both())
    assert (one.state, one.progress.finished) == (RunState.DONE, 8)
    assert (other.progress.total, other.progress.finished) == (0, 0)
    assert "another process" in other.message
    check_complete(store, server, 8)


# Killed


def start_command(server: TeacherServer, *more: str) -> subprocess.Popen[str]:
    told = ["generate", "--model", "teacher", "--base-url", server.base_url, "--price", "2.5,10", "--poll", "0.1"]
    told += ["--attributes", "pose,skin", "--json", *more]
    return subprocess.Popen(
        [sys.executable, "-m", "annotation", *told], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for(ready: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 60
    while not ready():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.002)


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_killed_while_it_writes_a_file(store: Store, server: SteeredServer) -> None:
    fill(store, 120)
    process = start_command(server, "--batch")
    wait_for(lambda: any(file.stat().st_size > 50_000 for file in files(store)), process)
    kill(process)
    assert [batch.state for batch in rows(store, Batch)] == ["writing"]
    claimed = states(store)["batched"]
    assert 0 < claimed < 240
    outcome = run(store, server, submit=False)
    assert outcome.progress.finished == claimed
    assert "never sent" in rows(store, Attempt)[0].error
    run(store, server)
    assert set(server.rows().values()) == {1}
    check_complete(store, server, 240)


@pytest.mark.parametrize(
    ("place", "after"),
    [(("POST", "/v1/files"), True), (("POST", "/v1/batches"), False), (("POST", "/v1/batches"), True)],
    ids=["after the upload", "before the batch is started", "after it is started"],
)
def test_killed_while_it_sends(store: Store, server: SteeredServer, place: tuple[str, str], after: bool) -> None:
    fill(store, 4)
    server.silent_at, server.silent_after = place, after
    process = start_command(server, "--batch")
    wait_for(lambda: server.requests[place] > 0, process)
    kill(process)
    server.silent_at = None
    assert [batch.remote_id for batch in rows(store, Batch)] == [None]
    outcome = run(store, server, submit=False)
    assert (outcome.state, outcome.progress.finished) == (RunState.DONE, 8)
    asked = {("POST", "/v1/files"): 1, ("POST", "/v1/batches"): 1 if after else 2}
    assert server.requests["POST", "/v1/batches"] == asked[place]
    assert set(server.rows().values()) == {1}
    check_complete(store, server, 8)


def test_a_file_that_is_gone_frees_its_questions(store: Store, server: SteeredServer) -> None:
    fill(store, 4)
    server.silent_at = "POST", "/v1/files"
    process = start_command(server, "--batch")
    wait_for(lambda: server.requests["POST", "/v1/files"] > 0, process)
    kill(process)
    server.silent_at = None
    [file] = files(store)
    file.write_bytes(file.read_bytes()[:-9])
    outcome = run(store, server, submit=False)
    assert (outcome.progress.finished, states(store)) == (8, {"ok": 8})
    assert [attempt.state for attempt in rows(store, Attempt)[:8]] == [AttemptState.ERROR] * 8
    check_complete(store, server, 8)


def test_killed_while_it_collects(store: Store, server: SteeredServer) -> None:
    fill(store, 250)
    process = start_command(server, "--batch")

    def some() -> bool:
        with store.ledger.reading() as session:
            return session.exec(select(Task.id).where(Task.state == TaskState.OK)).first() is not None

    wait_for(some, process)
    kill(process)
    collected = states(store)["ok"]
    assert 0 < collected < 500
    outcome = run(store, server, submit=False)
    assert (outcome.state, outcome.progress.finished) == (RunState.DONE, 500 - collected)
    assert server.requests["POST", "/v1/batches"] == 1
    check_complete(store, server, 500)
    first, second = rows(store, GenerationRun)
    assert (first.finished, first.total, second.finished) == (500, 500, 0)


def test_ctrl_c_leaves_and_resume_collects(store: Store, server: SteeredServer) -> None:
    fill(store, 4)
    server.behaviour.batch_seconds = 3600
    process = start_command(server, "--batch")
    wait_for(lambda: server.requests["GET", "/v1/batches/batch_2"] > 0, process)
    os.kill(process.pid, signal.SIGINT)
    out, said = process.communicate(timeout=30)
    assert process.returncode == 0, said
    assert json.loads(out)["state"] == "waiting"
    assert "batch_2: 8 requests sent" in said
    server.behaviour.batch_seconds = 0
    out, said = start_command(server, "--resume").communicate(timeout=60)
    assert json.loads(out)["ends"] == {"ok": 8}, said
    check_complete(store, server, 8)
