"""Every event of the built app has a least role, and the server heeds it, whatever the page shows.

python -m pytest tests/test_access.py
"""

import hashlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import uuid4

import gradio as gr
import pytest
from gradio_calls import Caller
from rendered_examples import make_examples
from whole_page import served

from annotation.models import Purpose, Role
from annotation.seed import seed
from annotation.store import Store
from facellm.config import Settings, TeacherEndpoint, load_settings
from facellm.training import jobs
from facellm.training.recipe_form_tab import RecipeForm

PASSWORD = "correct horse battery"
NOT = "Only a"  # how a refusal begins

# Every event and server function of the page, by its function: what one has to be, at the least, for it to do anything.
# Those of a visitor change nothing that is kept, except that anybody may send answers to review and vote.
VISITOR, REVIEWER, CURATOR, ADMIN = Role
EVENTS: dict[str, Role] = {
    "build_notice.<locals>.<lambda>": VISITOR,
    "build_settings.<locals>.choose": VISITOR,
    "build_settings.<locals>.change": VISITOR,
    "build_settings.<locals>.make_same": VISITOR,
    "build_settings.<locals>.whose": VISITOR,
    "build_settings.<locals>.<lambda>": VISITOR,
    "build_chat_tab.<locals>.<lambda>": VISITOR,
    "_camera.<locals>.take": VISITOR,
    "_choose_mode": VISITOR,
    "_in_its_mode.<locals>.listener": VISITOR,
    "_edited.<locals>.listener": VISITOR,
    "publish_endpoints.<locals>.ask": VISITOR,
    "publish_endpoints.<locals>.compare": VISITOR,
    "ChatEvents.mark": VISITOR,
    "ChatEvents.again": VISITOR,
    "ChatEvents.clear": VISITOR,
    "ChatEvents.show": VISITOR,
    "ChatEvents.stop": VISITOR,
    "ChatEvents.pick": VISITOR,
    "ChatEvents.offer": VISITOR,
    "ChatEvents.arrive": VISITOR,
    "ChatEvents.send_to_review": VISITOR,  # stored as pending
    "BlindEvents.vote": VISITOR,
    "BlindEvents.clear": VISITOR,
    "BlindEvents.arrive": VISITOR,
    "BlindEvents.export": CURATOR,
    "_Generation.show": VISITOR,
    "_Generation.tick": VISITOR,
    "_Generation.refresh": VISITOR,
    "_Generation.consent_needed": VISITOR,
    "_Generation.teacher_chosen": VISITOR,
    "_Generation.estimate": CURATOR,
    "_Generation.begin": CURATOR,
    "_Generation.go_on": CURATOR,
    "_Generation.stop": CURATOR,
    "_Statistics.draw": VISITOR,
    "_Statistics.refresh": VISITOR,
    "build_dataset_tab.<locals>.refresh": VISITOR,
    "_Tuning.refresh": VISITOR,
    "_Tuning.show": VISITOR,
    "_Tuning.tick": VISITOR,
    "_Tuning.defaults": VISITOR,
    "_Tuning.ask_delete": VISITOR,
    "_Tuning.start_over": VISITOR,
    "_Tuning.estimate": VISITOR,  # tells those who may not fine-tune nothing
    "RunComparison.look": VISITOR,
    "_Tuning.begin": CURATOR,
    "_Tuning.stop": CURATOR,
    "_Tuning.go_on": CURATOR,
    "_Tuning.delete": CURATOR,
    "_Panel.arrive": VISITOR,
    "_Panel.show": VISITOR,
    "_Panel.set_role": ADMIN,
    "_Panel.new_password": ADMIN,
    "_Panel.switch": ADMIN,
    "_Panel.add": ADMIN,
    "build_app.<locals>.<lambda>": VISITOR,
    "build_account_bar.<locals>.me": VISITOR,
    "build_team_tab.<locals>.refresh": VISITOR,
    "_build_agreement.<locals>.measure": CURATOR,
    "_build_settings.<locals>.change": CURATOR,
    "_Audit.draw": CURATOR,
    "_Audit.right": CURATOR,
    "_Audit.wrong": CURATOR,
    "_Audit.take_back": CURATOR,
    "_Audit.put_off": VISITOR,  # shows another one, to curators only
    "_about_queue.<locals>.claim": VISITOR,  # whoever may not decide is given no lease
    "_about_queue.<locals>.renew": VISITOR,  # this and the next two: of one's own leases
    "_about_queue.<locals>.release": VISITOR,
    "_about_queue.<locals>.leave": VISITOR,
    "_about_queue.<locals>.facets": VISITOR,
    "_about_pairs.<locals>.recall": VISITOR,
    "_about_pairs.<locals>.history": VISITOR,
    "_about_pairs.<locals>.pair_events": VISITOR,
    "_about_project.<locals>.me": VISITOR,
    "_about_project.<locals>.guidelines": VISITOR,
    "_about_project.<locals>.save_guidelines": CURATOR,
    "_about_decisions.<locals>.decide": REVIEWER,
    "_about_decisions.<locals>.decide_lot": REVIEWER,
}
SERVER_FUNCTIONS = {name for name in EVENTS if name.startswith("_about_")}


def name_of(function: Any) -> str:
    while isinstance(function, partial):
        function = function.func
    return str(function.__qualname__)


@dataclass
class Studio:
    """The built app, served, with accounts, a data set, and a run of each kind to stop and delete."""

    url: str
    page: gr.Blocks
    store: Store
    settings: Settings

    def event(self, name: str) -> int:
        return next(number for number, each in self.page.fns.items() if each.fn and name_of(each.fn) == name)

    def component(self, elem_id: str) -> int:
        return next(number for number, block in self.page.blocks.items() if block.elem_id == elem_id)

    def caller(self, name: str, session: str) -> Caller:
        """Somebody who has signed in; empty: a visitor. Who shares a session shares what the page was shown."""
        caller = Caller(self.url, session=session)
        if name:
            assert caller.post("sign-in", name=name, password=PASSWORD).status_code == 200
        return caller

    def state(self) -> str:
        """A hash of all that is kept: every row of the database, and every other file below the data directory."""
        found = hashlib.sha256()
        with sqlite3.connect(self.store.data_dir / "studio.db") as connection:
            for line in connection.iterdump():
                found.update(line.encode())
        for path in sorted(self.store.data_dir.rglob("*")):
            if path.is_file() and not path.name.startswith("studio.db"):
                found.update(str(path).encode() + path.read_bytes())
        return found.hexdigest()


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    teacher = TeacherEndpoint(base_url="http://127.0.0.1:9/v1", model="teacher")
    changes = {"data_dir": tmp_path_factory.mktemp("access"), "base_model": "none", "teachers": {"teacher": teacher}}
    settings = load_settings().model_copy(update=changes)
    store = Store.open(settings.data_dir)
    seed(store, 9)
    for name, role in (("ann", ADMIN), ("cleo", CURATOR), ("rob", REVIEWER), ("vic", VISITOR)):
        store.accounts.add(name, role, password=PASSWORD)
    run_dir = jobs.create_run(
        settings.runs_dir,
        make_examples(settings.data_dir / "examples", 1),
        jobs.recipe(settings.base_checkpoint),
        name="old",
    )
    (run_dir / "result.json").write_text('{"state": "finished"}')
    store.ledger.start_run(Purpose.GENERATE, "teacher", teacher.base_url, {"model": "teacher"})
    with served(settings, store) as (url, page):
        yield Studio(url, page, store, settings)
    store.close()


def load(studio: Studio, admin: Caller) -> None:
    """Load the page as an admin, and press Delete: the session then allows all inputs, and knows what to delete."""
    for name, inputs in (("_Panel.arrive", []), ("_Tuning.refresh", [None]), ("_Generation.refresh", [None])):
        assert admin.event(studio.event(name), inputs).data
    assert admin.event(studio.event("_Tuning.ask_delete"), ["old"]).data


def protected_calls(studio: Studio) -> dict[str, list[Any]]:
    """What each protected event is sent: inputs with which it would do something."""
    run = studio.store.ledger.runs(1)[0].uuid
    audits = studio.store.audits.all()
    first = audits[0].id if audits else None
    form = ["teacher", ["skin"], "One request each", "1", [], "", True]
    return {
        "BlindEvents.export": [],
        "_Generation.estimate": form,
        "_Generation.begin": form,
        "_Generation.go_on": [run],
        "_Generation.stop": [run],
        "_Tuning.begin": [studio.settings.base_checkpoint, "", *form_of(studio.settings.base_checkpoint)],
        "_Tuning.stop": ["old"],
        "_Tuning.go_on": ["old"],
        "_Tuning.delete": [None],
        "_build_agreement.<locals>.measure": [],
        "_build_settings.<locals>.change": [3, 50, True, 5],
        "_Audit.draw": [5, False, None, None],
        "_Audit.right": [first, None, None],
        "_Audit.wrong": [first, None, None],
        "_Audit.take_back": [None, first],
        "_Panel.set_role": ["vic", "admin"],
        "_Panel.new_password": ["vic"],
        "_Panel.switch": ["vic"],
        "_Panel.add": ["new", "", "admin"],
    }


def form_of(base: str) -> list[Any]:
    """What the page of the Fine-tune tab sends of its form."""
    with gr.Blocks():
        form = RecipeForm(jobs.recipe(base))
        form.advanced()
    return form.defaults(jobs.recipe(base))


def server_calls(studio: Studio) -> dict[str, dict[str, Any]]:
    """What each protected server function of the desk is sent."""
    (view,) = studio.store.browse(limit=1)
    decision = {
        "uuid": str(uuid4()),
        "pair_id": view.pair.id,
        "image_sha256": view.image.sha256,
        "revision": 0,
        "action": "accept",
    }
    return {
        "decide": decision,
        "decide_lot": {"lot": str(uuid4()), "decisions": [decision]},
        "save_guidelines": {"text": "Anything goes."},
    }


def test_every_event_and_server_function_has_a_role(studio: Studio) -> None:
    events = {name_of(each.fn) for each in studio.page.fns.values() if each.fn is not None}
    functions = {name_of(each) for block in studio.page.blocks.values() for each in getattr(block, "server_fns", [])}
    assert sorted((events | functions) ^ EVENTS.keys()) == [], "a new event needs a least role in EVENTS, and its check"
    protected = {name for name, role in EVENTS.items() if role is not VISITOR}
    assert set(protected_calls(studio)) == protected - SERVER_FUNCTIONS
    assert {name.split(".")[-1] for name in protected & SERVER_FUNCTIONS} == set(server_calls(studio))


@pytest.mark.parametrize("name", ["", "vic", "rob", "cleo"])
def test_who_may_not_changes_nothing(studio: Studio, name: str) -> None:
    """Everything is tried in the session of an admin's page, by people of lower roles."""
    session = uuid4().hex
    ann, calls = studio.caller("ann", session), protected_calls(studio)
    role = next((each.role for each in studio.store.accounts.all() if each.name == name), VISITOR)
    caller = studio.caller(name, session)
    before = studio.state()
    refused = [each for each in calls if EVENTS[each].rank > role.rank]
    assert len(refused) == {"": 19, "vic": 19, "rob": 19, "cleo": 4}[name]
    for each in refused:
        load(studio, ann)
        told = caller.event(studio.event(each), calls[each]).told
        assert any(NOT in sentence for sentence in told), (each, told)
    assert studio.state() == before


@pytest.mark.parametrize("name", ["", "vic", "rob"])
def test_the_desk_refuses_who_may_not(studio: Studio, name: str) -> None:
    desk, before, calls = studio.component("review-desk"), studio.state(), server_calls(studio)
    caller = studio.caller(name, "desk")
    for each in calls if name != "rob" else ["save_guidelines"]:
        reply = caller.server_function(desk, each, calls[each]).json()
        assert NOT in reply.get("message", reply.get("error")), each
    claim = {"filter": {}, "order": "by image", "holder": "w", "exclude": [], "limit": 5, "known": []}
    if name != "rob":
        assert caller.server_function(desk, "claim", claim | {"filter": {"status": ["pending"]}}).json()["pairs"]
    assert studio.state() == before, "visitors look on, and lease nothing"


def test_the_desk_does_it_for_who_may(studio: Studio) -> None:
    desk, calls = studio.component("review-desk"), server_calls(studio)
    reply = studio.caller("rob", "desk").server_function(desk, "decide", calls["decide"]).json()
    assert reply["ok"] == calls["decide"]["uuid"]
    assert [event.reviewer for event in studio.store.events(calls["decide"]["pair_id"])] == ["rob"]
    reply = studio.caller("cleo", "desk").server_function(desk, "save_guidelines", calls["save_guidelines"]).json()
    assert studio.store.project.read().guidelines == "Anything goes."


def test_who_may_is_not_refused(studio: Studio) -> None:
    """The same calls, by an admin: whatever comes of them, it is not that he may not."""
    ann, calls = studio.caller("ann", uuid4().hex), protected_calls(studio)
    harmless = [each for each in calls if each not in ("_Tuning.begin", "_Generation.begin", "_Generation.go_on")]
    load(studio, ann)
    for each in harmless:
        told = ann.event(studio.event(each), calls[each]).told
        assert not any(NOT in sentence for sentence in told), (each, told)
    names = {each.name: (each.role, each.active) for each in studio.store.accounts.all()}
    assert names["new"] == (ADMIN, True)
    assert names["vic"] == (ADMIN, False)
    assert not (studio.settings.runs_dir / "old").exists()
    assert studio.store.ledger.runs(1)[0].stop_requested


def test_the_panel_tells_nothing_to_others(studio: Studio) -> None:
    for name in ("", "rob", "cleo"):
        shown = studio.caller(name, uuid4().hex).event(studio.event("_Panel.arrive"), []).data
        assert shown is not None
        assert shown[0]["visible"] is False
        assert "ann" not in str(shown[1:])
    shown = studio.caller("ann", uuid4().hex).event(studio.event("_Panel.arrive"), []).data
    assert shown is not None
    assert "rob" in shown[1]
