"""Published pairs coming in: FairFaceGPT's ShareGPT form and LLaMA-Factory's, good items and every kind of bad one.

python -m pytest tests/test_pairs_import.py
"""

import json
from pathlib import Path
from typing import Any

import pytest
from imports import annotation, counts, jpeg, kill_once_there_are, make_images, query, summary

from annotation.imports.sharegpt import attribute_of
from facellm.data import Attribute

NAMES = [f"val/{number}.jpg" for number in range(1, 5)]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return make_images(tmp_path / "images", NAMES)


def sharegpt(question: str, answer: str, image: Any = "val/1.jpg", **more: Any) -> dict[str, Any]:
    turns = [{"from": "human", "value": question}, {"from": "assistant", "value": answer}]
    return {"conversations": turns, "image": image, **more}


def messages(*turns: tuple[str, Any], images: Any = ("val/1.jpg",)) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": text} for role, text in turns], "images": images}


def write(tmp_path: Path, *items: Any, name: str = "dataset.json") -> Path:
    path = tmp_path / name
    lines = name.endswith(".jsonl")
    path.write_text("\n".join(map(json.dumps, items)) if lines else json.dumps(list(items), indent=2))
    return path


def run(path: Path, images: Path, *more: str) -> dict[str, Any]:
    return summary("import-pairs", path, "--images", images, *more)


def test_fairfacegpt_comes_in_with_its_attributes(data_dir: Path, images: Path, tmp_path: Path) -> None:
    items = [
        sharegpt(f"<image>\n{attribute.question}", f"About {attribute.topic} of {name}.", name)
        for name in NAMES
        for attribute in Attribute
    ]
    told = run(write(tmp_path, *items), images, "--teacher", "gpt-4o-2024-11-20")
    assert counts(told) == (32, 32, 0, 0)
    assert told["images"] == 4
    rows = query(
        data_dir,
        "SELECT i.source, attribute, question, answer, teacher, prompt_version, status, revision"
        " FROM pairs p JOIN images i ON i.id = image_id ORDER BY p.id",
    )
    assert rows == [
        (
            f"imported:{name}",
            attribute.value,
            attribute.question,
            f"About {attribute.topic} of {name}.",
            *("gpt-4o-2024-11-20", "imported", "pending", 0),
        )
        for name in NAMES
        for attribute in Attribute
    ]
    (path,) = query(data_dir, "SELECT path FROM images WHERE id = 1")[0]
    assert (data_dir / path).read_bytes() == (images / "val/1.jpg").read_bytes()
    assert counts(run(write(tmp_path, *items), images, "--teacher", "gpt-4o-2024-11-20")) == (32, 0, 32, 0)
    assert counts(run(write(tmp_path, *items), images)) == (32, 32, 0, 0), "by another teacher they are other pairs"


@pytest.mark.usefixtures("database")
def test_pairs_join_the_images_that_are_known(data_dir: Path, images: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("file,age,gender,race,service_test\nval/1.jpg,3-9,Male,White,True\n")
    summary("import-fairface", labels, "--images", images)
    told = run(write(tmp_path, sharegpt("Describe this image.", "A boy.")), images)
    assert (counts(told), told["images"]) == ((1, 1, 0, 0), 0)
    assert query(data_dir, "SELECT source FROM images") == [("fairface:val/1.jpg",)]


@pytest.mark.parametrize("name", ["data.json", "data.jsonl"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_messages_and_images_come_in(data_dir: Path, images: Path, tmp_path: Path, name: str, bom: bytes) -> None:
    items = [
        messages(("user", "<image>Is it bright?"), ("assistant", " Yes. ")),
        messages(("user", "Is it bright?<image>"), ("assistant", "No."), images="val\\2.jpg"),
        messages(("system", "Be kind."), ("user", "Is it?"), ("assistant", "It is."), images=[f"{images}/val/3.jpg"]),
        {"messages": items_of("human", "gpt"), "image": ["val/4.jpg"]},
    ]
    path = write(tmp_path, *items, name=name)
    path.write_bytes(bom + path.read_bytes())
    assert counts(run(path, images)) == (4, 4, 0, 0)
    rows = query(data_dir, "SELECT attribute, question, answer, teacher, parameters FROM pairs ORDER BY id")
    assert [row[:4] for row in rows] == [
        (None, "Is it bright?", "Yes.", "imported"),
        (None, "Is it bright?", "No.", "imported"),
        (None, "Is it?", "It is.", "imported"),
        ("detail", "Describe this image.", "A face.", "imported"),
    ]
    assert [json.loads(row[4]).get("system") for row in rows] == [None, None, "Be kind.", None]


def items_of(user: str, assistant: str) -> list[dict[str, str]]:
    return [{"from": user, "value": "Describe this image."}, {"from": assistant, "value": "A face."}]


def test_two_answers_to_one_question_are_two_pairs(data_dir: Path, images: Path, tmp_path: Path) -> None:
    question = Attribute.SKIN.question
    items = [
        sharegpt(question, "Smooth."),
        sharegpt(question, "Rough."),
        sharegpt("Why?", "A."),
        sharegpt("Why?", "B."),
    ]
    path = write(tmp_path, *items, items[1])
    told = run(path, images)
    assert counts(told) == (5, 4, 0, 1)
    assert told["bad_rows"] == [{"row": 5, "image": "val/1.jpg", "reason": "it is the same as item 2, which stands"}]
    assert counts(run(path, images)) == (5, 0, 4, 1)
    answers = query(data_dir, "SELECT answer FROM pairs ORDER BY id")
    assert answers == [("Smooth.",), ("Rough.",), ("A.",), ("B.",)]


def bad_items(images: Path) -> list[tuple[Any, str]]:
    (images / "val/cut.jpg").write_bytes(jpeg(1)[:200])
    user, assistant = ("user", "Q?"), ("assistant", "A.")
    return [
        (17, "it is 17, expected an object"),
        ({}, "it has no images"),
        (sharegpt("Q?", "A.", image=""), "it has no images"),
        (sharegpt("Q?", "A.", image=7), "its image is 7, expected a path"),
        (sharegpt("Q?", "A.", image=["val/1.jpg", "val/2.jpg"]), "it has 2 images, and a pair has one"),
        (sharegpt("Q?", "A.", images=["val/2.jpg"]), "it has 2 images, and a pair has one"),
        (sharegpt("<image><image>Q?", "A."), "its question speaks of 2 images"),
        (sharegpt("Q?", "A.", image="val/none.jpg"), "there is no file"),
        (sharegpt("Q?", "A.", image="val/cut.jpg"), "The image is damaged or cut off"),
        (sharegpt("Q?", "A.", image="../images/../secret.jpg"), "../images/../secret.jpg leads out of"),
        (sharegpt("Q?", "A.", image="/etc/hostname"), "/etc/hostname leads out of"),
        ({"image": "val/1.jpg"}, "it has no conversations or messages"),
        ({"image": "val/1.jpg", "conversations": "Q? A."}, "it has no conversations or messages"),
        ({"image": "val/1.jpg", "conversations": ["Q?", "A."]}, 'a turn is "Q?", expected an object'),
        (messages(user, ("tool", "x"), assistant), 'a turn is by "tool", expected human or user'),
        (messages(user, ("assistant", [{"type": "text"}])), 'a turn says [{"type": "text"}], expected a text'),
        (messages(user, ("assistant", None)), "a turn says null, expected a text"),
        (messages(user, assistant, user, assistant), "it has 4 turns, expected one question and one answer: make"),
        (messages(("system", "s"), user, assistant, user), "it has 3 turns, expected one question"),
        (messages(user, ("system", "s"), assistant), "it has 3 turns, expected one question"),
        (messages(assistant, user), "its turns are assistant, user, expected one question and one answer"),
        (messages(user), "its turns are user, expected one question and one answer"),
        (sharegpt(" <image> ", "A."), "its question is empty"),
        (sharegpt("Q?", " \n"), "its answer is empty"),
        (sharegpt("Q?", "A \ud800 half."), "a turn has half a character"),
        (sharegpt("Q?", "A.", image="val/\ud800.jpg"), "its image has half a character"),
    ]


@pytest.mark.parametrize("name", ["data.json", "data.jsonl"])
def test_bad_items_are_listed_and_the_others_go_in(data_dir: Path, images: Path, tmp_path: Path, name: str) -> None:
    bad = bad_items(images)
    items = [sharegpt("First?", "Yes."), *(item for item, _ in bad), sharegpt("Last?", "Yes.", "val/4.jpg")]
    report = tmp_path / "bad.csv"
    told = run(write(tmp_path, *items, name=name), images, "--report", str(report))
    assert counts(told) == (len(items), 2, 0, len(bad))
    listed = told["bad_rows"]
    assert [(row["row"], row["reason"][: len(reason)]) for row, (_, reason) in zip(listed, bad, strict=False)] == [
        (number, reason) for number, (_, reason) in enumerate(bad[: len(listed)], start=2)
    ]
    lines = report.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + len(bad)
    assert all(reason.replace('"', '""') in line for line, (_, reason) in zip(lines[1:], bad, strict=True))
    assert query(data_dir, "SELECT question FROM pairs ORDER BY id") == [("First?",), ("Last?",)]
    assert len(query(data_dir, "SELECT * FROM images")) == 2, "no image of a bad item alone"


def test_a_broken_line_spoils_only_itself(images: Path, tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    good = json.dumps(sharegpt("Q?", "A."))
    path.write_text(f"{good}\n\n{good[:40]}\n{good.replace('val/1', 'val/2')}\n")
    done = annotation("import-pairs", path, "--images", images)
    assert done.returncode == 0, done.stderr
    first, last = done.stdout.splitlines()
    assert first.startswith("line 3: it is not JSON: ")
    assert last == "3 lines read: 2 added, 0 known already, 1 bad; new: 2 images, 0 labels."


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[{"image": "a"},', "dataset.json is not JSON: "),
        (b"\xff\xfe[]", "dataset.json is not UTF-8, at byte 0. Save it as UTF-8."),
        (b"[]", "was imported: it has no item."),
        (b"", "was imported: it has no line."),
        (b"file,age\nval/1.jpg,3-9\n", "none of its 2 lines could be used"),
        (b"[" * 100_000, "dataset.json is not JSON: "),
    ],
)
def test_a_file_of_which_nothing_can_be_used_is_one_error(
    images: Path, tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "dataset.json"
    path.write_bytes(content)
    done = annotation("import-pairs", path, "--images", images)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_questions_are_recognised() -> None:
    assert [attribute_of(attribute.question) for attribute in Attribute] == list(Attribute)
    assert attribute_of(" describe  this\nimage") is Attribute.DETAIL
    assert attribute_of("Describe the skin.") is None


def test_an_import_goes_on_after_a_kill(data_dir: Path, tmp_path: Path) -> None:
    names = [f"val/{number}.jpg" for number in range(1600)]
    images = make_images(tmp_path / "images", names)
    path = write(tmp_path, *(sharegpt(a.question, f"{a} {name}", name) for name in names for a in Attribute))
    arguments = ("import-pairs", path, "--images", images)
    before = kill_once_there_are("pairs", data_dir, *arguments)
    assert 0 < before < 8 * 1600
    assert query(data_dir, "SELECT count(*) FROM images") == [(before // 8,)], "a chunk is one transaction"
    assert counts(summary(*arguments)) == (12_800, 12_800 - before, before, 0)
    rows = query(data_dir, "SELECT answer FROM pairs ORDER BY id")
    assert rows == [(f"{attribute} {name}",) for name in names for attribute in Attribute]
    assert query(data_dir, "SELECT count(*) FROM images") == [(1600,)]


def test_decisions_survive_a_second_import(data_dir: Path, images: Path, tmp_path: Path) -> None:
    path = write(tmp_path, sharegpt("Q?", "A."), sharegpt("R?", "B."))
    run(path, images)
    from annotation.models import Action, DecisionInput, Status  # noqa: PLC0415 - only here the store itself is used
    from annotation.store import Store  # noqa: PLC0415

    store = Store.open(data_dir)
    view = store.browse(limit=1)[0]
    decision = DecisionInput(
        uuid="01234567-89ab-4def-8123-456789abcdef",
        pair_id=view.pair.id or 0,
        image_sha256=view.image.sha256,
        revision=0,
        action=Action.REJECT,
    )
    store.decide("ana", decision)
    assert counts(run(path, images)) == (2, 0, 2, 0)
    assert store.pairs([view.pair.id or 0])[0].pair.status is Status.REJECTED
    store.close()
