"""The teacher server does what tests and benchmarks rely on, asked by the real client.

What is tested of the program with its help is only as true as the server; so its faults, its bills and its Batch API
are looked at from outside.
"""

import asyncio
import base64
import io
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from PIL import Image
from teacher_server import TeacherServer

ATTRIBUTES = ("pose", "skin")
SCHEMA = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in ATTRIBUTES},
    "required": list(ATTRIBUTES),
    "additionalProperties": False,
}
FORM = {"type": "json_schema", "json_schema": {"name": "answers", "strict": True, "schema": SCHEMA}}


def picture(shade: int = 0) -> str:
    out = io.BytesIO()
    Image.new("RGB", (64, 64), (shade, 80, 80)).save(out, "PNG")
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"


def body(text: str = "Describe the pose of the head. Write 60 to 120 words.", shade: int = 0, **more: Any) -> Any:
    image = {"type": "image_url", "image_url": {"url": picture(shade), "detail": "low"}}
    user = {"role": "user", "content": [image, {"type": "text", "text": text}]}
    return {"model": "teacher", "messages": [{"role": "system", "content": "You describe faces."}, user], **more}


@pytest.fixture
def server() -> Iterator[TeacherServer]:
    with TeacherServer() as running:
        yield running


@pytest.fixture
def client(server: TeacherServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.base_url, api_key="k", max_retries=0, timeout=5) as made:
        yield made


def test_an_answer_follows_from_picture_and_question(server: TeacherServer, client: openai.OpenAI) -> None:
    first, again = (client.chat.completions.create(**body()) for _ in range(2))
    skin = client.chat.completions.create(**body("Describe the skin. Write 60 to 120 words."))
    other = client.chat.completions.create(**body(shade=9))
    texts = [answer.choices[0].message.content for answer in (first, again, skin, other)]
    assert texts[0] == texts[1]
    assert len(set(texts)) == 3
    assert 60 <= len((texts[0] or "").split()) <= 125
    assert first.model == "teacher-2026-01-01"
    assert first._request_id == server.records[0].request_id != again._request_id
    assert [record.attributes for record in server.records] == [("pose",), ("pose",), ("skin",), ("pose",)]
    assert [record.attempt for record in server.records] == [1, 2, 1, 1]


def test_every_answer_is_billed_as_recorded(server: TeacherServer, client: openai.OpenAI) -> None:
    server.behaviour.change(share_refused=0.2, share_cut=0.2, share_empty=0.1, share_filtered=0.2, share_cached=0.5)
    server.behaviour.image_tokens = 400
    usages = [client.chat.completions.create(**body(shade=n)).usage for n in range(40)]
    assert all(usage is not None for usage in usages)
    told = [(u.prompt_tokens, u.prompt_tokens_details.cached_tokens, u.completion_tokens) for u in usages if u]
    assert told == [(r.input_tokens, r.cached_tokens, r.output_tokens) for r in server.records]
    assert {r.outcome for r in server.records} >= {"ok", "refused", "cut", "filtered"}
    assert {r.cached_tokens > 0 for r in server.records} == {True, False}


def test_an_answer_ends_where_its_tokens_end(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(**body(max_completion_tokens=20))
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 20


@pytest.mark.parametrize(("share", "valid"), [("share_invalid_json", False), ("share_bad_attribute", True), ("", True)])
def test_structured_answers(server: TeacherServer, client: openai.OpenAI, share: str, valid: bool) -> None:
    if share:
        server.behaviour.change(**{share: 1.0})
    content = client.chat.completions.create(**body(response_format=FORM)).choices[0].message.content or ""
    if not valid:
        with pytest.raises(json.JSONDecodeError):
            json.loads(content)
        return
    good = [name for name in ATTRIBUTES if str(json.loads(content).get(name, "")).startswith("In picture")]
    assert len(good) == (1 if share else 2)


def test_faults_by_chance_can_be_repeated_and_pass(server: TeacherServer, client: openai.OpenAI) -> None:
    def statuses() -> list[int]:
        found = []
        for number in range(60):
            try:
                client.chat.completions.create(**body(shade=number))
                found.append(200)
            except openai.APIStatusError as error:
                found.append(error.status_code)
        return found

    server.behaviour.change(share_429=0.2, share_5xx=0.2, retry_after_s=7)
    first, second = statuses(), statuses()
    assert {200, 429} < set(first) <= {200, 429, 500, 502, 503}
    assert any(before != 200 and after == 200 for before, after in zip(first, second, strict=True))
    with TeacherServer(share_429=0.2, share_5xx=0.2) as other:
        client.base_url = other.base_url
        assert statuses() == first


def test_limits_and_refusals_of_work(server: TeacherServer, client: openai.OpenAI) -> None:
    def failure(kind: type[openai.APIStatusError], **behaviour: Any) -> openai.APIStatusError:
        server.behaviour.change(**behaviour)
        with pytest.raises(kind) as raised:
            client.chat.completions.create(**body())
        server.behaviour.change(**dict.fromkeys(behaviour))
        return raised.value

    assert failure(openai.RateLimitError, quota=0).code == "insufficient_quota"
    assert "Incorrect API key" in failure(openai.AuthenticationError, api_key="other").message
    assert "bad key: k" in failure(openai.BadRequestError, status=400, says="bad key: {key}").message
    server.behaviour.cap_per_s = 0.0001
    client.chat.completions.create(**body())  # the one that it lets through
    slow = failure(openai.RateLimitError, cap_per_s=0.0001, retry_after_ms=1500)
    assert (slow.code, slow.response.headers["retry-after-ms"]) == ("rate_limit_exceeded", "1500")
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(**(body() | {"model": "nobody"}))
    with pytest.raises(openai.BadRequestError, match="additionalProperties"):
        loose = {"name": "a", "strict": True, "schema": SCHEMA | {"required": []}}
        client.chat.completions.create(**body(response_format={"type": "json_schema", "json_schema": loose}))


def test_a_client_that_gives_up_is_counted(server: TeacherServer, client: openai.OpenAI) -> None:
    server.behaviour.share_hang = 1.0
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.2).chat.completions.create(**body())
    server.behaviour.change(share_hang=0.0, share_hang_up=1.0)
    with pytest.raises(openai.APIConnectionError):
        client.chat.completions.create(**body())
    assert [record.outcome for record in server.records] == ["hang", "hang up"]
    for _ in range(100):
        if server.records[0].gone:
            break
        time.sleep(0.02)
    assert server.records[0].gone
    assert server.answered() == []


def test_many_at_once_wait_together(server: TeacherServer) -> None:
    server.behaviour.latency_s = 0.5

    async def ask_all() -> None:
        async with openai.AsyncOpenAI(base_url=server.base_url, api_key="k", max_retries=0) as client:
            await asyncio.gather(*(client.chat.completions.create(**body(shade=n)) for n in range(100)))

    asyncio.run(ask_all())
    assert len(server.answered()) == 100
    assert all((record.ended or 0) - record.received >= 0.49 for record in server.records)
    most = max(sum(o.received <= r.received < (o.ended or 0) for o in server.records) for r in server.records)
    assert most >= 20


def test_batches_come_back_shuffled_with_gaps(server: TeacherServer, client: openai.OpenAI) -> None:
    server.behaviour.change(batch_share_missing=0.2, batch_share_errors=0.2, batch_share_done=0.8, batch_seconds=0.2)
    rows = [
        {"custom_id": f"n{n}", "method": "POST", "url": "/v1/chat/completions", "body": body(shade=n)}
        for n in range(50)
    ]
    data = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    file = client.files.create(file=("input.jsonl", data), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"run": "a"}
    )
    assert batch.status == "in_progress"
    time.sleep(0.25)
    batch = client.batches.retrieve(batch.id)
    assert (batch.status, batch.metadata) == ("expired", {"run": "a"})
    assert [found.id for found in client.batches.list(limit=5)] == [batch.id]
    good, bad = (
        [json.loads(line) for line in client.files.content(name).text.splitlines()]
        for name in (batch.output_file_id or "", batch.error_file_id or "")
    )
    ids = [row["custom_id"] for row in good]
    assert ids != sorted(ids, key=lambda name: int(name[1:]))
    assert {row["response"]["body"]["object"] for row in good} == {"chat.completion"}
    assert {row["error"] and row["error"]["code"] for row in bad} == {None, "batch_expired"}
    assert 0 < 50 - len(good) - len(bad) < 25
    assert sum(record.batch == batch.id for record in server.records) == 50 - 10 - (50 - len(good) - len(bad))


def test_batches_have_limits(server: TeacherServer, client: openai.OpenAI) -> None:
    row = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body()}
    data = json.dumps(row).encode() + b"\n" + json.dumps(row | {"custom_id": "b"}).encode() + b"\n"

    def code(**behaviour: Any) -> str | None:
        server.behaviour.change(**behaviour)
        file = client.files.create(file=("input.jsonl", data), purpose="batch")
        made = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
        assert made.status == "failed"
        assert made.errors is not None
        return (made.errors.data or [])[0].code

    assert code(batch_max_requests=1) == "too_many_tasks"
    assert code(batch_max_requests=2, batch_queued_tokens=10) == "token_limit_exceeded"
    server.behaviour.batch_max_bytes = 100
    with pytest.raises(openai.BadRequestError, match="larger"):
        client.files.create(file=("input.jsonl", data), purpose="batch")


def test_as_a_process_of_its_own(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    command = [sys.executable, "tests/teacher_server.py", "--log", str(log), "--set", "latency_s=0.01"]
    root = Path(__file__).resolve().parent.parent
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        control = url.removesuffix("/v1") + "/control"
        with openai.OpenAI(base_url=url, api_key="k", max_retries=0) as client:
            client.chat.completions.create(**body())
            urllib.request.urlopen(control, data=b'{"share_refused": 1.0}').read()
            assert client.chat.completions.create(**body()).choices[0].message.refusal
        told = json.load(urllib.request.urlopen(control))
        records = json.load(urllib.request.urlopen(control + "/records?since=1"))
        process.terminate()
    assert (told["requests"], told["in_flight"], told["outcomes"]) == (2, 0, {"ok": 1, "refused": 1})
    assert [record["outcome"] for record in records] == ["refused"]
    assert [json.loads(line)["outcome"] for line in log.read_text().splitlines()] == ["ok", "refused"]
