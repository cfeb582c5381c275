"""The grounding probe, against scripted teachers: one that looks, and one that only repeats what it is told.

python -m pytest tests/test_probe.py
"""

import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from asked_again import add_image, picture_url, user_text
from openai_server import OpenAIServer
from sqlmodel import col, select
from typer.testing import CliRunner

from annotation.__main__ import app
from annotation.checks.named_labels import LABEL_VALUES, false_values, is_named, possible
from annotation.fairface import AGES, age_words, ethnicity, person
from annotation.models import Attempt, GenerationRun, Image, Purpose, Task, TaskState
from annotation.statistics.intervals import mean, wilson
from annotation.store import Store
from annotation.teaching.probe import false_hint
from annotation.teaching.probe_report import likeness, probe_reports
from annotation.teaching.teacher_image import blank_url, teacher_url
from facellm import face_text, faces
from facellm.data import Attribute

MOSTLY_ON_SQLITE = True
MODEL = "some-teacher"
PEOPLE = (
    {"age": "20-29", "gender": "Female", "race": "East Asian"},
    {"age": "60-69", "gender": "Male", "race": "Black"},
    {"age": "3-9", "gender": "Male", "race": "White"},
    {"age": "40-49", "gender": "Female", "race": "Latino_Hispanic"},
)
NOBODY = "The picture is an even grey area without a face, so nothing can be said about anybody in it."


def described(labels: dict[str, str]) -> str:
    """A description that names all three labels."""
    noun = person(labels["age"], labels["gender"])
    she = "She" if labels["gender"] == "Female" else "He"
    return f"The picture shows a {noun} of {ethnicity(labels['race'])} descent. {she} looks {age_words(labels['age'])}."


def hinted(text: str) -> dict[str, str]:
    """The labels that a prompt tells."""
    found = {}
    for age in AGES:
        if f"age: {age_words(age)}" in text:
            found["age"] = age
    for gender in ("Male", "Female"):
        if any(f"person: {person(age, gender)};" in text for age in AGES):
            found["gender"] = gender
    for race in LABEL_VALUES["race"]:
        if f"ethnicity: {ethnicity(race)}." in text:
            found["race"] = race
    return found


def repeats(body: dict[str, Any]) -> str:
    """A teacher that does not look."""
    return described(hinted(user_text(body)))


def all_at_once(body: dict[str, Any]) -> str:
    """The same for several attributes in one request."""
    keys = body["response_format"]["json_schema"]["schema"]["required"]
    return json.dumps(dict.fromkeys(keys, repeats(body)))


@pytest.fixture
def store(data_dir: Path, database: str) -> Iterator[Store]:
    store = Store.open(data_dir, database)
    for number, labels in enumerate(PEOPLE):
        add_image(store, number, labels)
    yield store
    store.close()


@pytest.fixture
def looks(store: Store) -> Callable[[dict[str, Any]], str]:
    """A teacher that describes what the picture shows, whatever it is told."""
    with store.ledger.reading() as session:
        paths = list(session.exec(select(Image.path).order_by(col(Image.id))))
    shown = {teacher_url(store.data_dir / path): labels for path, labels in zip(paths, PEOPLE, strict=True)}

    def look(body: dict[str, Any]) -> str:
        url = picture_url(body)
        return NOBODY if url == blank_url() else described(shown[url])

    return look


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        server.models[MODEL] = "/weights/teacher"
        server.answer = repeats
        yield server


def run(server: OpenAIServer, command: str, *arguments: str) -> Any:
    told = [command, "--model", MODEL, "--base-url", server.base_url, *arguments, "--json"]
    result = CliRunner().invoke(app, told)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def tasks(store: Store) -> list[Task]:
    with store.ledger.reading() as session:
        return list(session.exec(select(Task).where(Task.subject != "").order_by(col(Task.id))))


def row(report: dict[str, Any], label: str, attribute: str | None) -> dict[str, Any]:
    (found,) = [each for each in report["echo"] if (each["label"], each["attribute"]) == (label, attribute)]
    return dict(found)


@pytest.mark.usefixtures("store")
def test_a_teacher_that_only_repeats_is_found_out(server: OpenAIServer) -> None:
    run(server, "generate", "--attributes", "demographic,detail")
    found = run(server, "probe", "--share", "1")
    assert found["run"]["ends"] == {"ok": 4 * 2 * 4}, "blank and three false hints, each about two attributes"
    (report,) = found["reports"]
    assert report["images"] == 4
    assert [each["attribute"] for each in report["blank"]] == ["demographic", "detail"]
    assert [each["likeness"]["value"] for each in report["blank"]] == [1.0, 1.0]
    assert all(each["other_faces"]["value"] < 0.5 for each in report["blank"])
    for label in ("age", "gender", "race"):
        for attribute, number in (("demographic", 4), ("detail", 4), (None, 8)):
            of = row(report, label, attribute)
            assert (of["follows_hint"], of["follows_picture"], of["unclear"], of["declined"]) == (number, 0, 0, 0)
            assert of["echo"]["value"] == of["blank"]["value"] == 1.0
            assert of["echo"]["low"] == pytest.approx(0.51, abs=0.01), "four faces are not many"


@pytest.mark.both_databases
def test_a_teacher_that_looks_is_not_suspected(server: OpenAIServer, looks: Callable[[dict[str, Any]], str]) -> None:
    server.answer = looks
    run(server, "generate", "--attributes", "demographic")
    (report,) = run(server, "probe", "--share", "1")["reports"]
    assert report["blank"][0]["likeness"]["value"] < 0.1
    for label in ("age", "gender", "race"):
        of = row(report, label, "demographic")
        assert (of["follows_hint"], of["follows_picture"], of["unclear"]) == (0, 4, 0)
        assert of["blank"]["count"] == of["echo"]["count"] == 0
        assert 0.4 < of["echo"]["high"] < 0.6


def test_the_answers_are_in_the_ledger_and_never_become_pairs(store: Store, server: OpenAIServer) -> None:
    run(server, "generate", "--attributes", "demographic")
    run(server, "probe", "--share", "1")
    assert len(store.browse(limit=99)) == 4
    found = tasks(store)
    assert {task.subject.split("=")[0] for task in found} == {"blank", "wrong:age", "wrong:gender", "wrong:race"}
    assert all(task.pair_id is None and task.state is TaskState.OK for task in found)
    with store.ledger.reading() as session:
        attempts = session.exec(select(Attempt).where(Attempt.subject != "")).all()
        purposes = session.exec(select(GenerationRun.purpose).order_by(col(GenerationRun.id))).all()
    assert len(attempts) == len(found) == 16
    assert purposes == [Purpose.GENERATE, Purpose.PROBE]


def test_a_false_hint_is_told_in_the_place_of_the_true_one(store: Store, server: OpenAIServer) -> None:
    run(server, "generate", "--attributes", "demographic")
    sent = len(server.asked())
    run(server, "probe", "--share", "1")
    with store.ledger.reading() as session:
        urls = {
            teacher_url(store.data_dir / path): number
            for number, path in enumerate(session.exec(select(Image.path).order_by(col(Image.id))))
        }
    for request in server.asked()[sent:]:
        told, url = hinted(user_text(request.body)), picture_url(request.body)
        if url == blank_url():
            assert told in PEOPLE
            continue
        true = PEOPLE[urls[url]]
        (different,) = [name for name in true if told[name] != true[name]]
        assert told[different] in false_values(different, true[different])


@pytest.mark.usefixtures("store")
def test_nothing_is_probed_twice_and_a_larger_share_asks_only_the_rest(server: OpenAIServer) -> None:
    run(server, "generate", "--attributes", "demographic")
    assert run(server, "probe", "--share", "0.25")["run"]["total"] == 4
    assert run(server, "probe", "--share", "0.25")["run"]["total"] == 0
    assert run(server, "probe", "--share", "0.5")["run"]["total"] == 4
    assert run(server, "probe", "--share", "1")["run"]["total"] == 8
    sent = len(server.asked())
    assert CliRunner().invoke(app, ["probe", "--model", MODEL, "--report"]).exit_code == 0
    assert len(server.asked()) == sent


def test_a_false_hint_is_tried_only_where_the_stored_answer_names_the_label(store: Store, server: OpenAIServer) -> None:
    server.answer = lambda body: "She smiles." if "person: woman" in user_text(body) else "A broad smile."
    run(server, "generate", "--attributes", "expression")
    run(server, "probe", "--share", "1")
    assert [task.subject for task in tasks(store) if task.subject != "blank"] == ["wrong:gender=Male"] * 2


@pytest.mark.usefixtures("store")
def test_a_refusal_is_no_echo_and_final(server: OpenAIServer) -> None:
    run(server, "generate", "--attributes", "demographic")
    server.answer = lambda body: "I decline to answer." if picture_url(body) == blank_url() else NOBODY
    (report,) = run(server, "probe", "--share", "1")["reports"]
    assert report["blank"][0]["ends"] == {"refused": 4}
    assert report["blank"][0]["likeness"] is None
    of = row(report, "gender", "demographic")
    assert (of["blank"], of["follows_hint"], of["unclear"]) == (None, 0, 4)
    assert run(server, "probe", "--share", "1")["run"]["total"] == 0


@pytest.mark.usefixtures("store")
def test_several_attributes_in_one_request_are_probed_in_one_request(server: OpenAIServer) -> None:
    server.answer = all_at_once
    run(server, "generate", "--attributes", "demographic,detail", "--per-image")
    sent = len(server.asked())
    (report,) = run(server, "probe", "--share", "1")["reports"]
    assert len(server.asked()) - sent == 4 * 4
    assert row(report, "race", None)["echo"]["count"] == 8
    assert [each["likeness"]["value"] for each in report["blank"]] == [1.0, 1.0]


@pytest.mark.usefixtures("store")
def test_what_several_give_no_answer_to_is_not_asked_alone(server: OpenAIServer) -> None:
    server.answer = all_at_once
    run(server, "generate", "--attributes", "demographic,detail", "--per-image")
    sent = len(server.asked())
    server.answer = repeats  # prose
    assert run(server, "probe", "--share", "1")["run"]["ends"] == {"invalid": 32}
    assert len(server.asked()) - sent == 16
    assert run(server, "probe", "--share", "1")["run"]["total"] == 0


@pytest.mark.usefixtures("store")
def test_excluded_ages_are_not_probed(server: OpenAIServer) -> None:
    run(server, "generate", "--attributes", "demographic")
    found = run(server, "probe", "--share", "1", "--exclude-ages", "3-9,60-69")
    assert (found["reports"][0]["images"], found["run"]["total"]) == (2, 8)


def test_rendered_faces_are_probed_by_their_factors(store: Store, server: OpenAIServer) -> None:
    face = faces.sample(3)
    add_image(store, 99, face.labels())

    def follows(body: dict[str, Any]) -> str:
        """Names the pose that it is told, if any."""
        told = re.search(r"pose: (?:turned to the )?(left|right|facing)", user_text(body))
        named = {"facing": "frontal"}.get(told[1], told[1]) if told else "frontal"
        return face_text.answer(faces.Face(**face.labels() | {"pose": named}, seed=1), Attribute.POSE, random.Random(1))

    server.answer = follows
    run(server, "generate", "--attributes", "pose")
    (report,) = run(server, "probe", "--share", "1")["reports"]
    assert row(report, "pose", "pose")["follows_hint"] == 1
    assert row(report, "pose", "pose")["blank"]["count"] == 1


@pytest.mark.usefixtures("store")
def test_only_stored_answers_of_the_same_options_can_be_compared_with(server: OpenAIServer) -> None:
    with pytest.raises(Exception, match="there are none at all"):
        run(server, "probe")
    run(server, "generate", "--attributes", "pose", "--temperature", "0.5")
    with pytest.raises(Exception, match=r'there are 4 with {"detail":"low",.*"temperature":0.5}. Give the options'):
        run(server, "probe")


@pytest.mark.both_databases
@pytest.mark.usefixtures("store")
def test_a_dry_run_sends_nothing(server: OpenAIServer) -> None:
    run(server, "generate", "--attributes", "demographic")
    sent = len(server.asked())
    rough = run(server, "probe", "--share", "1", "--dry-run", "--price", "1,1")
    assert (rough["requests"], rough["basis"]) == (16, "assumed")
    assert rough["cost_usd"] > 0
    assert len(server.asked()) == sent


@pytest.mark.both_databases
def test_the_report_is_a_table_for_reading(store: Store, server: OpenAIServer) -> None:
    told = ["probe", "--model", MODEL, "--report"]
    assert CliRunner().invoke(app, told).stdout == "Nothing was probed yet.\n"
    run(server, "generate", "--attributes", "demographic")
    run(server, "probe", "--share", "1")
    text = CliRunner().invoke(app, told).stdout
    assert "4 images probed" in text
    assert re.search(r"^gender +demographic +4/4 100 % \(51 to 100\) +4/4 100 % \(51 to 100\) +0 +0 +0$", text, re.M)
    assert re.search(r"^demographic +4 +0 +1\.00", text, re.M)
    assert len(probe_reports(store.ledger, MODEL)) == 1
    assert probe_reports(store.ledger, "other") == []


@pytest.mark.parametrize("labels", PEOPLE)
def test_a_text_names_its_own_values_and_no_false_ones(labels: dict[str, str]) -> None:
    text = described(labels)
    for name, value in labels.items():
        assert is_named(name, value, text)
        assert not any(is_named(name, other, text) for other in false_values(name, value))
        assert not is_named(name, value, NOBODY)
        assert possible(name, NOBODY) == set(LABEL_VALUES[name])


def test_what_a_text_leaves_open_is_not_named() -> None:
    assert possible("gender", "She wears a hat.") == {"Female"}
    assert possible("race", "The woman looks East Asian or Southeast Asian.") >= {"East Asian", "Southeast Asian"}
    assert possible("age", "The person may be in her twenties.") >= {"20-29"}
    assert "60-69" not in possible("age", "The person may be in her twenties.")
    assert possible("pose", "The head is turned to the left of the picture.") == {"left"}
    assert possible("pose", "A fine day.") == {"frontal", "left", "right"}


def test_a_false_age_is_plainly_another() -> None:
    for age in AGES:
        steps = {abs(AGES.index(age) - AGES.index(other)) for other in false_values("age", age)}
        assert steps and steps <= {2, 3, 4}
    assert false_hint("a" * 64, "race", "White") == false_hint("a" * 64, "race", "White") != "White"


def test_likeness_counts_runs_of_three_words() -> None:
    assert likeness("The head is turned left.", "the HEAD is turned left") == 1.0
    assert likeness("one two three four", "two three four five") == pytest.approx(1 / 3)
    assert likeness("a b", "a b") == 1.0
    assert likeness("Yes.", "No.") == 0.0


def test_intervals() -> None:
    share = wilson(8, 10)
    assert share is not None
    assert (round(share.low, 3), round(share.high, 3)) == (0.490, 0.943)  # Newcombe 1998
    wide = wilson(8, 10, independent=5)
    assert wide is not None and wide.low < share.low and wide.high > share.high
    assert wilson(0, 0) is None
    found = mean([0.2, 0.4, 0.6])
    assert found is not None and found.value == pytest.approx(0.4)
    assert (found.low, found.high) == (
        pytest.approx(0.4 - 1.96 * 0.2 / 3**0.5),
        pytest.approx(0.4 + 1.96 * 0.2 / 3**0.5),
    )
    assert mean([]) is None
