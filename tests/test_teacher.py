"""What a teacher is sent, and what its replies mean."""

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from annotation.models import AttemptState, TaskState
from annotation.teaching.teacher import Ask, Next, Parameters, Teacher, read_completion, retry_after
from facellm.data import Attribute
from facellm.remote_server import Server

ONE = Ask((Attribute.POSE,), "Where does the head look?", combined=False)
TWO = Ask((Attribute.POSE, Attribute.SKIN), "Answer both.", combined=True)


def body(content: str | None, *, finish: str = "stop", refusal: str | None = None, **more: Any) -> str:
    choice = {"index": 0, "finish_reason": finish, "message": {"content": content, "refusal": refusal}}
    usage = {"prompt_tokens": 70, "completion_tokens": 9, "prompt_tokens_details": {"cached_tokens": 8}}
    return json.dumps({"model": "big-1", "system_fingerprint": "fp", "choices": [choice], "usage": usage} | more)


def test_an_answer_keeps_all_that_is_known_of_it() -> None:
    reply = read_completion(body("  The head is turned left.\n", service_tier="flex"), ONE)
    assert (reply.state, reply.next) == (AttemptState.OK, Next.DONE)
    assert reply.answers == {Attribute.POSE: "The head is turned left."}
    assert (reply.input_tokens, reply.cached_tokens, reply.output_tokens) == (70, 8, 9)
    assert (reply.returned_model, reply.fingerprint, reply.service_tier) == ("big-1", "fp", "flex")


@pytest.mark.parametrize(
    ("text", "end"),
    [
        (body(None, refusal="No."), TaskState.REFUSED),
        (body("I'm sorry, but I can't help with that."), TaskState.REFUSED),
        (body("I decline to answer."), TaskState.REFUSED),
        (body("The head is", finish="length"), TaskState.CUT),
        (body("", finish="content_filter"), TaskState.FILTERED),
        (body("   "), TaskState.INVALID),
        (body(None), TaskState.INVALID),
    ],
)
def test_what_is_of_no_use_has_an_end_of_its_own_and_its_usage(text: str, end: TaskState) -> None:
    for ask in (ONE, TWO):
        reply = read_completion(text, ask)
        assert reply.answers == dict.fromkeys(ask.attributes, end)
        assert reply.state == AttemptState(end.value)
        assert reply.output_tokens == 9


def test_half_a_character_is_no_answer() -> None:
    content = '{"pose": "It faces \\ud800 the camera.", "skin": "It is even \\ud83d\\ude00."}'
    reply = read_completion(body(content), TWO)
    assert reply.answers == {Attribute.POSE: TaskState.INVALID, Attribute.SKIN: "It is even \U0001f600."}


def test_of_several_answers_the_good_ones_are_taken() -> None:
    content = json.dumps({"pose": "It faces the camera.", "skin": " "})
    reply = read_completion(body(content), TWO)
    assert reply.state is AttemptState.OK
    assert reply.answers == {Attribute.POSE: "It faces the camera.", Attribute.SKIN: TaskState.INVALID}


@pytest.mark.parametrize("content", ['{"pose": "It', "[1, 2]", '"text"', '{"pose": 3}'])
def test_json_of_another_form_is_invalid(content: str) -> None:
    assert set(read_completion(body(content), TWO).answers.values()) == {TaskState.INVALID}


@pytest.mark.parametrize("text", ["<html>", "", "[]", '{"choices": []}', '{"choices": [{"message": 3}]}'])
def test_what_is_no_completion_is_asked_again(text: str) -> None:
    reply = read_completion(text, ONE)
    assert (reply.state, reply.next, reply.answers) == (AttemptState.ERROR, Next.RETRY, {})


def test_retry_after_in_all_its_forms() -> None:
    assert retry_after({"retry-after": "2"}) == 2.0
    assert retry_after({"retry-after-ms": "250", "retry-after": "2"}) == 0.25
    in_a_minute = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert 50 < (retry_after({"retry-after": in_a_minute}) or 0) <= 60
    assert retry_after({}) is None
    assert retry_after({"retry-after": "soon"}) is None


def test_a_request_says_what_was_set_and_nothing_else() -> None:
    server = Server("http://127.0.0.1:9/v1", None, 5)
    plain = Teacher(server, "big", Parameters()).body(ONE, "data:image/png;base64,AA==")
    assert set(plain) == {"model", "messages", "max_completion_tokens"}
    picture, text = plain["messages"][1]["content"]
    assert picture["image_url"] == {"url": "data:image/png;base64,AA==", "detail": "low"}
    assert text["text"] == ONE.instruction
    told = Parameters(temperature=0.5, seed=3, max_completion_tokens=100)
    both = Teacher(server, "big", told).body(TWO, "data:")
    assert (both["temperature"], both["seed"], both["max_completion_tokens"]) == (0.5, 3, 200)
    assert both["response_format"]["json_schema"]["schema"]["required"] == ["skin", "pose"]
    assert told.text == '{"detail":"low","max_completion_tokens":100,"seed":3,"temperature":0.5}'
