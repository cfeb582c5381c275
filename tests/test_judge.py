"""A judge of another family: what it is asked, what is kept of its verdicts, and how far people agree with it.

python -m pytest tests/test_judge.py
"""

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from asked_again import add_image, user_text
from openai_server import OpenAIServer
from sqlmodel import col, select
from typer.testing import CliRunner

from annotation.__main__ import app
from annotation.exchanges import CHAT
from annotation.models import (
    Action,
    Attempt,
    DecisionInput,
    Flag,
    GenerationRun,
    PairInput,
    PastDecision,
    Purpose,
    Severity,
    Task,
    TaskState,
)
from annotation.store import Store
from annotation.teaching.families import family
from annotation.teaching.judge_report import Calibration, calibrations, kappa
from annotation.teaching.shares import drawn
from annotation.teaching.verdicts import (
    JUDGE_SYSTEM,
    JUDGE_VERSION,
    VERDICT_SCHEMA,
    find_quote,
    judge_instruction,
    read_verdict,
)
from facellm.data import Attribute
from facellm.errors import ConfigError

MOSTLY_ON_SQLITE = True
ROOT = Path(__file__).resolve().parent.parent
JUDGE = "claude-x"
GOOD = "The head faces the camera. It is not tilted."
BAD = "The head is turned sharply  to the left. It is not tilted."
LABELS = {"age": "20-29", "gender": "Female", "race": "Latino_Hispanic"}


def verdict(score: int, *, quote: str = "", contradicts: bool = False, reason: str = "As it is.") -> str:
    return json.dumps({"reason": reason, "quote": quote, "contradicts_labels": contradicts, "score": score})


def by_text(body: dict[str, Any]) -> str:
    """A judge that objects to heads turned to the left."""
    if "turned sharply" in user_text(body):
        return verdict(1, quote="“turned sharply to the LEFT”", reason="It faces the camera.")
    return verdict(5)


def pair(answer: str, attribute: Attribute | None = Attribute.POSE, teacher: str = "gpt-4o", **more: Any) -> PairInput:
    fields = {"attribute": attribute, "question": "How is the head?", "answer": answer, "teacher": teacher}
    return PairInput.model_validate(fields | {"prompt_version": "p"} | more)


def decision(action: Action) -> PastDecision:
    return PastDecision(uuid=uuid4(), reviewer="ada", action=action, text="It is." if action is Action.EDIT else None)


@pytest.fixture
def store(data_dir: Path, database: str) -> Iterator[Store]:
    """Four pairs to judge, two of them wrong; a free question and a visitor's picture are none."""
    store = Store.open(data_dir, database)
    add_image(store, 1, LABELS, (pair(GOOD), pair(BAD, Attribute.DETAIL), pair("?", None)))
    add_image(store, 2, {}, (pair(BAD), pair(GOOD, Attribute.DETAIL)))
    add_image(store, 3, LABELS, (pair(BAD),), CHAT)
    yield store
    store.close()


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        server.models[JUDGE] = "/weights/judge"
        server.models["o3"] = "/weights/o3"
        server.answer = by_text
        yield server


def judge(server: OpenAIServer, *arguments: str, model: str = JUDGE, code: int = 0) -> Any:
    command = ["judge", "--model", model, "--base-url", server.base_url, *arguments, "--json"]
    result = CliRunner().invoke(app, command)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def rows(store: Store, table: type[Any]) -> list[Any]:
    with store.ledger.reading() as session:
        return list(session.exec(select(table).order_by(col(table.id))))


def test_verdicts_are_read_and_nothing_else_is() -> None:
    found = read_verdict(f"```json\n{verdict(2, contradicts=True)}\n```")
    assert found is not None
    assert (found.score, found.contradicts_labels, found.severity) == (2, True, Severity.ERROR)
    kinds = [
        read_verdict(verdict(score, contradicts=against)) for score, against in ((3, False), (5, True), (4, False))
    ]
    assert [each and each.severity for each in kinds] == [Severity.WARNING, Severity.WARNING, None]
    for text in ("", "score 3", "{}", verdict(6), verdict(0), '{"score": 3}', "[" + verdict(3)[:-1]):
        assert read_verdict(text) is None


@pytest.mark.parametrize(
    ("quote", "words"),
    [
        ("turned sharply to the left", "turned sharply  to the left"),
        ("“The HEAD”", "The head"),
        ("tilted...", "tilted"),
        ("turned right", None),
        ("...", None),
        ("", None),
    ],
)
def test_a_quote_is_found_whatever_its_blanks(quote: str, words: str | None) -> None:
    span = find_quote(BAD, quote)
    assert (BAD[span[0] : span[1]] if span else None) == words


def test_a_judge_is_told_the_labels_in_words_and_nothing_of_other_kinds() -> None:
    told = judge_instruction("How is the head?", GOOD, LABELS | {"service_test": "True", "hair_colour": "red"})
    assert f"<answer>\n{GOOD}\n</answer>" in told
    assert "Known labels: age: 20 to 29 years old; gender: female; race: Latino or Hispanic; hair colour: red." in told
    assert "service" not in told
    assert "No labels are known" in judge_instruction("?", GOOD, {"service_test": "True"})


def test_the_version_goes_up_with_the_words() -> None:
    told = judge_instruction("Question?", "Answer.", LABELS) + judge_instruction("Question?", "Answer.", {})
    found = hashlib.sha256(json.dumps([JUDGE_SYSTEM, told, VERDICT_SCHEMA]).encode()).hexdigest()[:16]
    assert (JUDGE_VERSION, found) == ("judge-1", "45838a8e053b044f"), (
        "new words: raise JUDGE_VERSION, then record this hash"
    )


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("gpt-4o-2024-11-20", "gpt-6-luna", True),
        ("o3", "openai/gpt-4o", True),
        ("ft:gpt-4o-mini:org::id", "chatgpt-4o-latest", True),
        ("Qwen/Qwen2.5-VL-7B-Instruct", "qwen3-vl", True),
        ("gemini-3-pro", "google/gemma-3-27b-it", True),
        ("claude-x", "gpt-4o", False),
        ("olmo-2", "o3", False),
        ("template-v1", "gpt-4o", False),
        ("123", "456", False),
    ],
)
def test_families_are_guessed_by_names(one: str, other: str, same: bool) -> None:
    assert (family(one) == family(other)) is same


def test_a_share_is_the_same_each_time_and_holds_the_smaller_one() -> None:
    things = [f"pair {number}" for number in range(1000)]
    tenth = drawn(things, str, share=0.1)
    assert len(tenth) == 100
    assert tenth == drawn(things, str, share=0.1) == sorted(tenth, key=things.index)
    assert set(tenth) < set(drawn(things, str, share=0.2))
    assert len(drawn(things, str, share=0.0001)) == 1
    assert set(drawn(things, str, limit=7)) < set(tenth)
    assert drawn([], str, share=0.5) == []


@pytest.mark.both_databases
def test_low_scores_become_flags_and_every_verdict_is_in_the_ledger(store: Store, server: OpenAIServer) -> None:
    outcome = judge(server)
    assert (outcome["state"], outcome["finished"], outcome["ends"]) == ("done", 4, {"ok": 4})
    bad = [each for each in store.browse(limit=9) if each.pair.answer == BAD and each.image.source != CHAT]
    flags = rows(store, Flag)
    assert {flag.pair_id for flag in flags} == {each.pair.id for each in bad}
    for flag in flags:
        assert (flag.check, flag.severity) == ("judge", Severity.ERROR)
        assert BAD[flag.span_start : flag.span_end] == "turned sharply  to the left"
        assert flag.message == "It faces the camera. (claude-x: 1 of 5)"
    assert {task.subject for task in rows(store, Task)} == {"pair:1", "pair:2", "pair:4", "pair:5"}
    assert all(task.pair_id is None for task in rows(store, Task)), "no pair comes of a verdict"
    assert sorted(read_verdict(each.raw).score for each in rows(store, Attempt)) == [1, 1, 5, 5]
    assert [run.purpose for run in rows(store, GenerationRun)] == [Purpose.JUDGE]
    assert len(store.browse(limit=99)) == 6, "no new pairs"


@pytest.mark.usefixtures("store")
def test_the_request_asks_for_a_verdict_about_the_picture(server: OpenAIServer) -> None:
    judge(server, "--limit", "1")
    (request,) = server.asked()
    assert request.body["messages"][0]["content"] == JUDGE_SYSTEM
    assert request.body["response_format"]["json_schema"]["schema"] == VERDICT_SCHEMA
    assert request.body["messages"][1]["content"][0]["image_url"]["url"].startswith("data:image/png;base64,")


@pytest.mark.usefixtures("store")
def test_nothing_is_judged_twice(server: OpenAIServer) -> None:
    assert judge(server, "--limit", "1")["total"] == 1
    assert judge(server)["total"] == 3
    assert judge(server)["total"] == 0
    texts = Counter(user_text(request.body) + str(request.body["messages"][1]) for request in server.asked())
    assert len(server.asked()) == 4
    assert set(texts.values()) == {1}
    assert judge(server, "--temperature", "0.5")["total"] == 4, "another judge, by what it is told"


def test_a_refusal_is_final_and_bad_json_is_asked_once_more(store: Store, server: OpenAIServer) -> None:
    server.answer = lambda body: "I decline to answer." if "turned sharply" in user_text(body) else "Fine, I think."
    assert judge(server)["ends"] == {"invalid": 2, "refused": 2}
    assert len(server.asked()) == 6
    server.answer = by_text
    assert judge(server)["total"] == 0
    assert rows(store, Flag) == []


def test_what_a_failure_left_is_judged_by_the_next_run(store: Store, server: OpenAIServer) -> None:
    server.failure, server.failing_text = 401, "turned sharply"
    with pytest.raises(Exception, match="refuses all work"):
        judge(server, "--concurrency", "1")
    done = [task.subject for task in rows(store, Task) if task.state is TaskState.OK]
    server.failure = None
    assert judge(server)["total"] == 4 - len(done)
    assert len(rows(store, Flag)) == 2
    assert {task.state for task in rows(store, Task)} == {TaskState.OK}


def test_a_killed_run_leaves_no_verdict_out_and_no_flag_twice(
    store: Store, server: OpenAIServer, data_dir: Path
) -> None:
    for number in range(10, 30):
        add_image(store, number, LABELS, (pair(BAD),))
    answered, going = threading.Semaphore(0), threading.Event()

    def slow(body: dict[str, Any]) -> str:
        answered.release()
        if not going.is_set():
            time.sleep(0.1)
        return by_text(body)

    server.answer = slow
    command = [sys.executable, "-m", "annotation", "judge", "--model", JUDGE, "--base-url", server.base_url]
    environment = os.environ | {"FACELLM_DATA_DIR": str(data_dir)}
    with subprocess.Popen([*command, "--concurrency", "3"], cwd=ROOT, env=environment) as process:
        for _ in range(8):
            assert answered.acquire(timeout=60)
        process.kill()
    going.set()
    done = sum(task.state is TaskState.OK for task in rows(store, Task))
    assert 0 < done < 24
    assert judge(server)["total"] == 24 - done
    assert Counter(flag.pair_id for flag in rows(store, Flag)).most_common(1)[0][1] == 1
    assert len(rows(store, Flag)) == 22
    assert len(server.asked()) <= 24 + 3, "only what was in flight was sent again"


def test_only_the_pairs_that_are_meant_are_judged(store: Store, server: OpenAIServer) -> None:
    add_image(store, 7, {"age": "0-2"}, (pair(GOOD, teacher="llava", decision=decision(Action.ACCEPT)),))
    assert judge(server, "--status", "accepted")["total"] == 1
    assert judge(server, "--exclude-ages", "0-2", "--temperature", "0")["total"] == 4
    assert judge(server, "--teacher", "llava", "--temperature", "1")["total"] == 1
    assert judge(server, "--share", "0.5", "--temperature", "1.5")["total"] == 3


def test_an_edited_pair_gets_no_flag_for_its_draft(store: Store, server: OpenAIServer) -> None:
    (view,) = [each for each in store.browse(limit=9) if each.pair.id == 2]
    edit = {"uuid": uuid4(), "pair_id": 2, "image_sha256": view.image.sha256, "revision": 0, "action": "edit"}
    store.decide("ada", DecisionInput.model_validate(edit | {"text": GOOD}))
    judge(server)
    assert [flag.pair_id for flag in rows(store, Flag)] == [4]


def test_a_quote_from_the_draft_marks_nothing_in_an_edit(store: Store, server: OpenAIServer) -> None:
    judge(server)
    (view,) = store.pairs([2])
    assert [flag.span_start for flag in view.flags] == [BAD.index("turned")]
    told = {"pair_id": 2, "image_sha256": view.image.sha256}
    edit = told | {"uuid": uuid4(), "revision": 0, "action": "edit", "text": "Nothing of it is to be seen here at all."}
    store.decide("ada", DecisionInput.model_validate(edit))
    (edited,) = store.pairs([2])
    assert [(flag.check, flag.span_start) for flag in edited.flags if flag.check == "judge"] == [("judge", None)]
    assert edited.suspicion >= view.suspicion, "the queue goes by the rows, and both must agree"
    undo = told | {"uuid": uuid4(), "revision": 1, "action": "undo", "undoes": edit["uuid"]}
    store.decide("ada", DecisionInput.model_validate(undo))
    assert [flag.span_start for flag in store.pairs([2])[0].flags] == [BAD.index("turned")]


@pytest.mark.usefixtures("store")
def test_a_judge_of_the_teachers_family_is_refused_unless_it_is_meant(server: OpenAIServer) -> None:
    with pytest.raises(ConfigError, match=r"o3 seems to be of the family of gpt-4o \(4 pairs\)"):
        judge(server, model="o3")
    assert server.asked() == []
    assert judge(server, "--same-family", model="o3")["finished"] == 4


@pytest.mark.both_databases
@pytest.mark.usefixtures("store")
def test_a_dry_run_sends_nothing_and_says_how_much(server: OpenAIServer) -> None:
    rough = judge(server, "--dry-run", "--price", "2,10")
    assert server.asked() == []
    assert (rough["requests"], rough["basis"]) == (4, "assumed")
    assert rough["input_tokens"] > 4 * 300
    assert rough["cost_usd"] == pytest.approx((rough["input_tokens"] * 2 + rough["output_tokens"] * 10) / 1e6)


@pytest.mark.usefixtures("store")
def test_the_cost_is_kept(server: OpenAIServer) -> None:
    outcome = judge(server, "--price", "2,10")
    assert outcome["cost_usd"] == pytest.approx(4 * (100 * 2 + 10 * 10) / 1e6)
    stopped = judge(server, "--price", "2,10", "--max-cost", "0.0005", "--concurrency", "1", "--temperature", "1")
    assert (stopped["state"], stopped["finished"]) == ("stopped", 2)


def test_cohens_kappa() -> None:
    assert kappa(20, 5, 10, 15) == pytest.approx(0.4)  # the textbook's example
    assert kappa(5, 0, 0, 5) == 1.0
    assert kappa(10, 0, 0, 0) is None


def judged(store: Store, server: OpenAIServer, actions: Callable[[int], Action], images: int) -> Calibration:
    """Judge pairs that people decided about; the judge objects to two of three of those that were rejected."""
    for number in range(images):
        answer = BAD if number % 3 == 0 else GOOD
        add_image(store, 20 + number, {}, (pair(answer, decision=decision(actions(number))),))
    judge(server, "--status", "accepted")
    judge(server, "--status", "rejected")
    judge(server, "--status", "edited")
    (found,) = calibrations(store.ledger)
    return found


@pytest.mark.both_databases
def test_verdicts_are_compared_with_what_people_decided(store: Store, server: OpenAIServer) -> None:
    kinds = {0: Action.REJECT, 1: Action.ACCEPT, 2: Action.ACCEPT, 3: Action.EDIT, 4: Action.REJECT, 5: Action.ACCEPT}
    found = judged(store, server, lambda number: kinds[number % 6], 210)
    assert (found.verdicts, found.compared, found.enough) == (210, 210, True)
    assert (found.both_for, found.both_against, found.judge_against, found.people_against) == (105, 70, 0, 35)
    assert found.agreement == pytest.approx(175 / 210)
    assert found.kappa == pytest.approx((175 / 210 - 0.5) / 0.5)
    assert found.kappa_low is not None and found.kappa_high is not None
    assert 0.5 < found.kappa_low < found.kappa < found.kappa_high < 0.8
    assert found.scores[1] == {"accepted": 0, "edited": 35, "rejected": 35}
    assert found.scores[5] == {"accepted": 105, "edited": 0, "rejected": 35}
    text = CliRunner().invoke(app, ["judge", "--report"]).stdout
    assert "agreement 0.833, Cohen's kappa 0.667 (95 % interval 0." in text
    assert "Fewer than" not in text


def test_few_decisions_are_said_to_be_few(store: Store, server: OpenAIServer) -> None:
    assert CliRunner().invoke(app, ["judge", "--report"]).stdout == "Nothing was judged yet.\n"
    judged(store, server, lambda _: Action.ACCEPT, 4)
    judge(server)
    (found,) = json.loads(CliRunner().invoke(app, ["judge", "--report", "--json"]).stdout)
    assert (found["verdicts"], found["compared"], found["enough"], found["needed"]) == (8, 4, False, 200)
    text = CliRunner().invoke(app, ["judge", "--report"]).stdout
    assert "Fewer than 200 pairs have both" in text
    assert CliRunner().invoke(app, ["judge", "--report", "--model", "other"]).stdout == "Nothing was judged yet.\n"


def test_a_judge_has_to_be_named() -> None:
    result = CliRunner().invoke(app, ["judge"])
    assert isinstance(result.exception, ConfigError)
    assert "--model NAME" in str(result.exception)
