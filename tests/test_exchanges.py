"""A chat exchange becomes a pending pair: once, with its provenance, and like any other pair from then on.

python -m pytest tests/test_exchanges.py
"""

import io
import json
import multiprocessing
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from PIL import Image
from raw_sql import rows
from sqlalchemy.exc import IntegrityError

from annotation.models import FREE_QUESTION, Action, DecisionInput, Status
from annotation.pair_filter import PairFilter
from annotation.seed import seed
from annotation.statistics.stats import stats
from annotation.store import PairView, Store
from facellm.data import Attribute, content_hash, open_image, read_examples
from facellm.errors import DataError, ImageError

PARAMETERS = json.dumps({"temperature": 0.7, "top_p": 0.9, "max_new_tokens": 160, "seed": 3, "turns": [["Hi", "Hé"]]})


def picture(colour: int = 90) -> Image.Image:
    return Image.new("RGB", (8, 6), (colour, 0, 200))


def send(store: Store, image: Image.Image | bytes | None = None, **changes: Any) -> int:
    usual = {
        "images": [picture() if image is None else image],
        "question": "Is she wearing a hat?",
        "answer": "No, her head is bare.",
        "attribute": None,
        "teacher": "facellm-tiny",
        "teacher_source": "embedded/facellm-tiny@1f3a",
        "parameters": PARAMETERS,
    }
    return store.add_exchange(**(usual | changes))


def view_of(store: Store, pair_id: int) -> PairView:
    (view,) = store.pairs([pair_id])
    return view


def accept(store: Store, pair_id: int) -> None:
    view = view_of(store, pair_id)
    store.decide(
        "ana",
        DecisionInput(uuid=uuid4(), pair_id=pair_id, image_sha256=view.image.sha256, revision=0, action=Action.ACCEPT),
    )


@pytest.fixture
def store(data_dir: Path, database: str) -> Iterator[Store]:
    opened = Store.open(data_dir, database)
    yield opened
    opened.close()


def test_an_exchange_is_a_pending_pair_with_its_provenance(store: Store) -> None:
    view = view_of(store, send(store))
    pair = view.pair
    assert (pair.question, pair.answer) == ("Is she wearing a hat?", "No, her head is bare.")
    assert (pair.attribute, pair.status, pair.revision) == (None, Status.PENDING, 0)
    assert (pair.teacher, pair.prompt_version) == ("facellm-tiny", "chat")
    told = json.loads(pair.parameters)
    assert told["request"] == json.loads(PARAMETERS)
    assert told["teacher_source"] == "embedded/facellm-tiny@1f3a"
    assert (view.image.source, view.labels, view.decision) == ("chat", {}, None)
    assert (view.image.width, view.image.height) == (8, 6)


def test_only_the_pixels_of_the_picture_are_stored(store: Store) -> None:
    sideways = picture()
    sideways.putpixel((0, 0), (1, 2, 3))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right
    exif[0x013B] = "Zoë Photographer"
    out = io.BytesIO()
    sideways.save(out, "PNG", exif=exif)
    image = view_of(store, send(store, out.getvalue())).image
    stored = (store.data_dir / image.path).read_bytes()
    assert image.bytes == len(stored)
    assert b"Photographer" not in stored
    assert image.path == f"images/{image.sha256[:2]}/{image.sha256}.png"
    with Image.open(io.BytesIO(stored)) as found:
        assert (found.size, found.mode, found.info) == ((6, 8), "RGB", {})
        assert found.getpixel((5, 0)) == (1, 2, 3)

    marked = open_image(out.getvalue())
    marked.info |= {"icc_profile": b"profile", "exif": b"Exif\0\0secret"}
    assert view_of(store, send(store, marked)).image.sha256 == image.sha256
    assert store.image_count() == 1


def test_the_same_exchange_again_is_the_same_pair(store: Store) -> None:
    first = send(store)
    assert send(store) == first
    reordered = json.dumps(dict(reversed(json.loads(PARAMETERS).items())), indent=1)
    assert send(store, parameters=reordered) == first
    accept(store, first)
    assert send(store) == first
    assert view_of(store, first).pair.status is Status.ACCEPTED


@pytest.mark.parametrize(
    "change",
    [
        {"question": "Is she wearing glasses?"},
        {"answer": "Yes, a straw hat."},
        {"attribute": Attribute.DETAIL},
        {"teacher": "base"},
        {"teacher_source": "embedded/facellm-tiny@77aa"},
        {"parameters": "{}"},
        {"images": [picture(91)]},
    ],
    ids=lambda change: next(iter(change)),
)
@pytest.mark.parametrize("attribute", [None, Attribute.POSE])
def test_another_exchange_is_another_pair(store: Store, attribute: Attribute | None, change: dict[str, Any]) -> None:
    assert send(store, **({"attribute": attribute} | change)) != send(store, attribute=attribute)


def test_an_exchange_about_a_known_picture_joins_it(store: Store) -> None:
    seed(store, 1)
    known = store.browse(PairFilter(status=(Status.ACCEPTED,)), limit=1)[0]
    view = view_of(store, send(store, (store.data_dir / known.image.path).read_bytes(), attribute=Attribute.POSE))
    assert view.image == known.image
    assert view.labels == known.labels != {}
    assert store.image_count() == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": []}, "has no picture"),
        ({"images": [picture(), picture(1)]}, "has 2 pictures, and a pair has one"),
        ({"question": " \n"}, "has no question"),
        ({"answer": ""}, "has no answer"),
        ({"parameters": "temperature=1"}, "not JSON"),
        ({"parameters": '{"temperature": NaN}'}, "NaN"),
        ({"parameters": "[1]"}, r"are \[1\]. Expected a JSON object"),
        ({"images": [picture().convert("RGBA")]}, "is RGBA, expected RGB"),
        ({"images": [b"no picture"]}, "not an image that can be read"),
    ],
)
def test_what_cannot_be_reviewed_is_refused_and_leaves_nothing(
    store: Store, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        send(store, **change)
    assert len(str(caught.value).splitlines()) == 1
    assert isinstance(caught.value, ImageError) == ("RGB" in message or "image" in message)
    assert store.browse() == []
    assert not (store.data_dir / "images").exists()


def test_free_questions_are_reviewed_counted_and_frozen_like_all_pairs(store: Store) -> None:
    seed(store, 2)
    pending = len(store.browse(limit=100))
    free, pose = send(store), send(store, attribute=Attribute.POSE)
    assert [view.pair.id for view in store.browse(limit=100)][pending:] == [free, pose]
    assert [view.pair.id for view in store.browse(PairFilter(attribute=FREE_QUESTION))] == [free]
    assert pose in [view.pair.id for view in store.browse(PairFilter(attribute=Attribute.POSE), limit=5000)]
    assert store.counts()[None] == dict.fromkeys(Status, 0) | {Status.PENDING: 1}
    before = store.accepted_counts()
    accept(store, free)
    assert store.accepted_counts() == before | {None: 1}
    assert sum(store.accepted_counts().values()) == store.snapshot("all").count

    numbers = stats(store)
    assert numbers["attributes"][FREE_QUESTION]["accepted"] == 1
    assert sum(sum(of.values()) for of in numbers["attributes"].values()) == numbers["pairs"] == 2 * 8 + 2
    examples = list(read_examples(store.data_dir / "snapshots" / "all" / "examples.jsonl"))
    assert store.snapshots()[0].sha256 == content_hash(examples)
    example = examples[-1]
    assert (example.attribute, example.question) == (None, "Is she wearing a hat?")
    provenance = example.provenance
    assert (provenance.pair_id, provenance.teacher, provenance.prompt_version) == (free, "facellm-tiny", "chat")
    assert provenance.labels == {}


def test_the_database_itself_refuses_a_second_one(store: Store, data_dir: Path) -> None:
    for attribute in (None, Attribute.POSE):
        pair = send(store, attribute=attribute)
        columns = (
            "image_id, attribute, question, answer, teacher, prompt_version, parameters, status, revision, created_at"
        )
        with pytest.raises(IntegrityError, match="(?i)unique"):
            rows(data_dir, f"INSERT INTO pairs ({columns}) SELECT {columns} FROM pairs WHERE id = {pair}")


def test_a_long_conversation_is_known_again(store: Store) -> None:
    turns = [["Q?", random.Random(turn).randbytes(1000).hex()] for turn in range(20)]
    told = json.dumps({"earlier": turns})
    for attribute in (None, Attribute.POSE):
        pair = send(store, attribute=attribute, parameters=told)
        assert send(store, attribute=attribute, parameters=told) == pair
        assert send(store, attribute=attribute, parameters=json.dumps({"earlier": turns[:-1]})) != pair


def test_threads_that_send_one_exchange_make_one_pair(store: Store) -> None:
    start = threading.Barrier(6)
    ids: list[int] = []

    def click() -> None:
        start.wait()
        ids.extend(send(store, answer=f"Answer {number}.") for number in range(5))

    threads = [threading.Thread(target=click) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(ids), len(set(ids))) == (30, 5)
    assert store.counts()[None][Status.PENDING] == 5


def _open_and_send(data_dir: Path, database: str) -> None:
    store = Store.open(data_dir, database)
    for number in range(5):
        send(store, answer=f"Answer {number}.")
    store.close()


def test_processes_that_send_one_exchange_make_one_pair(data_dir: Path, database: str) -> None:
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=_open_and_send, args=(data_dir, database)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    store = Store.open(data_dir, database)
    assert (store.image_count(), store.counts()[None][Status.PENDING]) == (1, 5)
    store.close()
