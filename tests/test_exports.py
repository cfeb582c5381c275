"""Exports on real files: four forms, round trips, splits, the data card, and what is refused.

python -m pytest tests/test_exports.py
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml

from annotation.exports.exporting import Exported, export
from annotation.exports.forms import Form
from annotation.exports.splits import Splits
from annotation.models import Action, DecisionInput, Status
from annotation.pair_filter import PairFilter
from annotation.store import PairView, Store
from facellm.data import Attribute, content_hash, read_examples, sha256_file
from facellm.errors import ConfigError, DataError
from tests.imports import ROOT, annotation, query
from tests.made_faces import face

SPLITS = Splits.parse("train=0.6,validation=0.2,test=0.2")
FACES = 30
SOME = "3d776d7c5983e2025488d44b0b3ecaded30cd14ccf7146ace547681c72a91f11"  # three pairs about White male faces
MOSTLY_ON_SQLITE = True


@pytest.fixture
def store(data_dir: Path, database: str) -> Iterator[Store]:
    opened = Store.open(data_dir, database)
    opened.ingest([face(opened, number) for number in range(FACES)])
    opened.ingest([face(opened, 1000, action=Action.EDIT, text="Edited: “new”\nin two lines.", source="chat")])
    opened.ingest([face(opened, 1001, action=Action.REJECT), face(opened, 1002, action=None)])
    yield opened
    opened.close()


def exported(store: Store, out: Path, form: Form, name: str = "first", **options: Any) -> Exported:
    if name not in {snapshot.name for snapshot in store.snapshots()}:
        store.snapshot(name)
    return export(store.find_snapshot(name), store.data_dir / "snapshots" / name, out, form, **options)


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def curated(data_dir: Path) -> set[tuple[str, ...]]:
    """Image, attribute, question and standing text of all pairs that are stored."""
    sql = "SELECT sha256, attribute, question, coalesce(text, answer) FROM pairs JOIN images ON images.id = image_id"
    return set(query(data_dir, sql))


@pytest.mark.parametrize("form", list(Form))
def test_the_same_snapshot_gives_the_same_files_in_a_folder_that_can_be_moved(
    store: Store, tmp_path: Path, form: Form
) -> None:
    done = exported(store, tmp_path / "one", form, splits=SPLITS)
    exported(store, tmp_path / "two", form, splits=SPLITS)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert (sum(done.pairs.values()), sum(done.images.values())) == (8 * (FACES + 1), FACES + 1)
    assert set(done.pairs) == {"train", "validation", "test"}
    (tmp_path / "one").rename(tmp_path / "moved")
    pictures = list((tmp_path / "moved").rglob("*.bmp"))
    assert len(pictures) == FACES + 1, "each content once"
    assert all(sha256_file(path) == path.stem for path in pictures)
    assert not [name for name in os.listdir(tmp_path) if "partial" in name]


@pytest.mark.parametrize("form", [Form.FAIRFACEGPT, Form.LLAMAFACTORY])
def test_what_is_exported_can_be_imported_and_is_the_same(store: Store, tmp_path: Path, form: Form) -> None:
    exported(store, tmp_path / "out", form)
    other = tmp_path / "other"
    imported = annotation(
        "import-pairs", tmp_path / "out" / form.file(None), "--images", tmp_path / "out", FACELLM_DATA_DIR=str(other)
    )
    assert imported.returncode == 0, imported.stderr
    mine = {row for row in curated(store.data_dir) if row[0] in {sha256 for sha256, *_ in curated(other)}}
    assert len(curated(other)) == 8 * (FACES + 1)
    assert curated(other) == mine


def test_examples_are_those_of_the_snapshot_and_a_run_can_be_made_of_them(store: Store, tmp_path: Path) -> None:
    exported(store, tmp_path / "out", Form.EXAMPLES)
    frozen = list(read_examples(store.data_dir / "snapshots" / "first" / "examples.jsonl"))
    found = list(read_examples(tmp_path / "out" / "examples.jsonl"))
    assert [each.model_copy(update={"images": ()}) for each in found] == [
        each.model_copy(update={"images": ()}) for each in frozen
    ]
    assert all(Path(each.images[0]).is_relative_to(tmp_path / "out") for each in found)
    made = subprocess.run(
        [sys.executable, "-m", "facellm", "prepare", str(tmp_path / "out" / "examples.jsonl"), "--name", "typed"],
        **{"cwd": ROOT, "capture_output": True, "text": True, "timeout": 120},
    )
    assert made.returncode == 0, made.stderr


def test_llama_factory_finds_what_its_parser_looks_for(store: Store, tmp_path: Path) -> None:
    """The rules are those of llamafactory/data/parser.py and converter.py, read in November 2026."""
    out = tmp_path / "out"
    exported(store, out, Form.LLAMAFACTORY, splits=SPLITS)
    entries = json.loads((out / "dataset_info.json").read_text())
    assert set(entries) == {"first_train", "first_validation", "first_test"}
    rows = 0
    for entry in entries.values():
        assert entry["formatting"] == "sharegpt"
        columns, tags = entry["columns"], entry["tags"]
        for line in (out / entry["file_name"]).read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            turns, images = row[columns["messages"]], row[columns["images"]]
            assert [turn[tags["role_tag"]] for turn in turns] == [tags["user_tag"], tags["assistant_tag"]]
            said = "".join(turn[tags["content_tag"]] for turn in turns)
            assert said.count("<image>") == len(images) == 1
            assert turns[0][tags["content_tag"]].startswith("<image>")
            assert (out / images[0]).is_file()
            rows += 1
    assert rows == 8 * (FACES + 1)


def test_datasets_reads_the_folder_with_its_pictures(store: Store, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    done = exported(store, tmp_path / "out", Form.DATASETS, splits=SPLITS)
    found = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {name: len(rows) for name, rows in found.items()} == done.pairs
    wanted = {(each.answer, each.provenance.labels["race"]) for each in read_examples(_frozen(store))}
    assert {(row["answer"], row["race"]) for rows in found.values() for row in rows} == wanted
    assert found["train"][0]["image"].size == (8, 8)
    assert found["train"][0]["attribute"] in [attribute.value for attribute in Attribute]


def _frozen(store: Store) -> Path:
    return store.data_dir / "snapshots" / "first" / "examples.jsonl"


def test_links_take_no_room_and_are_whole_without_the_data_directory(store: Store, tmp_path: Path) -> None:
    done = exported(store, tmp_path / "out", Form.EXAMPLES, link=True)
    assert done.symbolic == 0
    picture = next((tmp_path / "out").rglob("*.bmp"))
    assert picture.stat().st_nlink == 2
    store.close()
    shutil.rmtree(store.data_dir)
    assert sha256_file(picture) == picture.stem


def test_on_another_disk_links_are_symbolic_and_that_is_told(store: Store, tmp_path: Path) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev or not os.access(other, os.W_OK):
        pytest.skip("there is no second disk")
    out = other / f"facellm-{os.getpid()}"
    try:
        done = exported(store, out, Form.EXAMPLES, link=True)
        assert done.symbolic == FACES + 1
        assert all(Path(example.images[0]).is_file() for example in read_examples(out / "examples.jsonl"))
    finally:
        shutil.rmtree(out, ignore_errors=True)


def test_an_image_keeps_its_part_when_pairs_and_images_are_added(store: Store, tmp_path: Path) -> None:
    def parts(name: str) -> dict[str, str]:
        exported(store, tmp_path / name, Form.DATASETS, name, splits=SPLITS)
        return {path.stem: path.relative_to(tmp_path / name).parts[0] for path in (tmp_path / name).rglob("*.bmp")}

    before = parts("before")
    store.ingest([face(store, number) for number in range(2000, 2040)])
    store.ingest([face(store, number, attributes=(None,)) for number in range(10)])
    after = parts("after")
    assert len(after) == len(before) + 40
    assert {image: after[image] for image in before} == before


def test_all_pairs_about_one_face_are_in_one_part(store: Store, tmp_path: Path) -> None:
    exported(store, tmp_path / "out", Form.EXAMPLES, splits=SPLITS)
    of = {
        part: {example.provenance.image_sha256 for example in read_examples(tmp_path / "out" / f"{part}.jsonl")}
        for part in SPLITS.names
    }
    assert sum(map(len, of.values())) == len(set().union(*of.values())) == FACES + 1


def test_a_pair_whose_words_have_a_media_token_is_left_out_and_told(store: Store, tmp_path: Path) -> None:
    store.ingest([face(store, 3000, attributes=(None,), question="What does <image> mean?", source="chat")])
    store.ingest([face(store, 3001, attributes=(None,), answer="Nothing, like <video>.", source="chat")])
    done = exported(store, tmp_path / "llama", Form.LLAMAFACTORY)
    assert len(done.left_out) == 2
    assert "2 pairs of the snapshot are left out" in (tmp_path / "llama" / "README.md").read_text()
    assert exported(store, tmp_path / "examples", Form.EXAMPLES).left_out == []


def test_a_target_that_is_there_is_refused_and_stays_as_it_is(store: Store, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="is there already, and an export never overwrites"):
        exported(store, tmp_path / "out", Form.EXAMPLES)
    assert list((tmp_path / "out").iterdir()) == []


def test_whatever_has_changed_since_is_refused_and_leaves_nothing_behind(store: Store, tmp_path: Path) -> None:
    store.snapshot("first")
    picture = next((store.data_dir / "images").rglob("*.bmp"))
    content, frozen = picture.read_bytes(), _frozen(store).read_bytes()
    folder = tmp_path / "exports"
    picture.write_bytes(content + b" ")
    with pytest.raises(DataError, match="is not what it was"):
        exported(store, folder / "out", Form.EXAMPLES)
    picture.unlink()
    with pytest.raises(DataError, match=r"cannot be read: No such file.* Restore it"):
        exported(store, folder / "out", Form.EXAMPLES)
    picture.write_bytes(content)
    for changed, says in ((frozen.replace(b"An answer", b"No answer"), "is not what was frozen"), (b"{}\n", "line 1")):
        _frozen(store).write_bytes(changed)
        with pytest.raises(DataError, match=says):
            exported(store, folder / "out", Form.EXAMPLES)
    with pytest.raises(DataError, match="There is no snapshot second; there are first"):
        store.find_snapshot("second")
    _frozen(store).write_bytes(frozen)
    with pytest.raises(ConfigError, match="none falls into test"):
        exported(store, folder / "out", Form.EXAMPLES, splits=Splits.parse("train=0.9999,test=0.0001"))
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("command", [("export", "first", "--format", "examples", "--out"), ("snapshot", "second")])
def test_a_disk_that_takes_no_more_leaves_nothing_behind(
    store: Store, tmp_path: Path, command: tuple[str, ...]
) -> None:
    """The limit is on the size of a file, so that a write fails half-way as on a full disk."""
    store.snapshot("first")
    store.ingest([face(store, number) for number in range(4000, 4200)])
    where = [str(tmp_path / "exports" / "out")] if command[0] == "export" else []
    limit = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000)); "
    typed = [sys.executable, "-c", limit + "runpy.run_module('annotation', run_name='__main__')", *command, *where]
    done = subprocess.run(typed, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert "was not written: file too large" in line
    assert [path.name for path in (store.data_dir / "snapshots").iterdir()] == ["first"]
    assert not (tmp_path / "exports").exists() or list((tmp_path / "exports").iterdir()) == []


def test_the_card_tells_the_facts(store: Store, tmp_path: Path) -> None:
    snapshot = store.snapshot("first")
    exported(store, tmp_path / "out", Form.DATASETS, splits=SPLITS)
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    head = yaml.safe_load(text.split("---\n")[1])
    assert (head["license"], head["language"], head["size_categories"]) == ("unknown", ["en"], ["n<1K"])
    assert [each["split"] for each in head["configs"][0]["data_files"]] == ["train", "validation", "test"]
    assert all(list((tmp_path / "out").glob(each["path"])) for each in head["configs"][0]["data_files"])
    for sentence in (
        "248 question–answer pairs about 31 pictures of faces",
        f"SHA-256 of its content: `{snapshot.sha256}`",
        "| skin | 31 | 33 | 32 | 3.1 % | 3.1 % |",
        "| White | 3 (24) | 2 (16) |\n",
        "| ana | 256 | 240 | 8 | 8 |",
        "- gpt-4o-2024-11-20: 248 pairs",
        "A teacher is named like one of OpenAI's models.",
        "- 1 pictures (chat): sent by visitors of the chat: licence and consent unknown.",
        "- 30 pictures (fairface): FairFace by Kimmo Kärkkäinen and Jungseock Joo (WACV 2021): CC BY 4.0",
        "3.0 % of the drafts (8 of 264) had not been reviewed.",
        "100.0 % of the pairs were decided by one reviewer only.",
        "No pair was judged by two reviewers on their own",
    ):
        assert sentence in text, sentence


@pytest.mark.parametrize(
    ("sources", "licence"), [(["rendered"], "apache-2.0"), (["rendered", "fairface-1.25"], "cc-by-4.0")]
)
def test_a_licence_is_named_where_all_pictures_have_one(
    data_dir: Path, tmp_path: Path, sources: list[str], licence: str
) -> None:
    store = Store.open(data_dir)
    store.ingest([face(store, number, source=source) for number, source in enumerate(sources)])
    exported(store, tmp_path / "out", Form.EXAMPLES)
    store.close()
    assert f"license: {licence}\n" in (tmp_path / "out" / "README.md").read_text()


def test_a_snapshot_of_an_earlier_version_is_exported_and_the_card_says_what_is_missing(
    store: Store, tmp_path: Path
) -> None:
    store.snapshot("first")
    (store.data_dir / "snapshots" / "first" / "facts.json").unlink()
    exported(store, tmp_path / "out", Form.EXAMPLES)
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert text.count("Not recorded: the snapshot was taken by an earlier version.") == 2
    assert "| skin | 31 |\n" in text


@pytest.mark.both_databases
def test_a_filtered_snapshot_has_what_the_filter_says_and_the_same_hash_on_both_databases(
    store: Store, tmp_path: Path
) -> None:
    taken = annotation("snapshot", "some", "--filter", "race=White gender=Male attribute=skin")
    assert taken.returncode == 0, taken.stderr
    snapshot = store.find_snapshot("some")
    assert json.loads(snapshot.filter) == {
        "attribute": "skin",
        "gender": "Male",
        "race": "White",
        "status": ["accepted", "edited"],
    }
    found = list(read_examples(store.data_dir / "snapshots" / "some" / "examples.jsonl"))
    assert {(each.attribute, each.provenance.labels["race"]) for each in found} == {(Attribute.SKIN, "White")}
    assert snapshot.count == len(found) == 3
    assert snapshot.sha256 == content_hash(found) == SOME
    lines = (store.data_dir / "snapshots" / "some" / "examples.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        each.model_dump(mode="json") | {"images": json.loads(line)["images"]}
        for each, line in zip(found, lines, strict=True)
    ], "the same as an Example, field by field"
    exported(store, tmp_path / "out", Form.EXAMPLES, "some")
    assert "| skin | 3 | 3 | 3 |" in (tmp_path / "out" / "README.md").read_text()
    nothing = annotation("snapshot", "none", "--filter", "race=White age=1000")
    assert nothing.stderr == (
        f"error: There is no accepted or edited pair, race White, age 1000 in {store.data_dir} to take a snapshot of. "
        "Ask for fewer things at once.\n"
    )
    wrong = annotation("snapshot", "none", "--filter", "colour=red")
    assert wrong.stderr.startswith("error: A filter has no colour")


@pytest.mark.both_databases
def test_diff_tells_what_was_added_removed_and_changed(store: Store) -> None:
    store.snapshot("monday")
    store.ingest([face(store, 5000, attributes=(Attribute.POSE,))])
    curated_skin = PairFilter(status=(Status.ACCEPTED,), attribute=Attribute.SKIN)
    rejected, edited = (view for view in store.browse(curated_skin, limit=2))
    store.decide("ana", decision(rejected, Action.REJECT))
    store.decide("ana", decision(edited, Action.EDIT, edited.answer.replace("quoted", "said")))
    store.snapshot("tuesday")
    done = annotation("diff", "monday", "tuesday", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [found[what]["attributes"] for what in ("added", "removed", "changed")] == [
        {"pose": 1},
        {"skin": 1},
        {"skin": 1},
    ]
    assert found["same"]["pairs"] == 8 * (FACES + 1) - 2
    (example,) = found["examples"]
    assert (example["pair_id"], example["after"]) == (edited.pair.id, edited.answer.replace("quoted", "said"))
    assert "[-“quoted”,-]{+“said”,+}" in example["words"]
    text = annotation("diff", "monday", "tuesday").stdout
    assert text.startswith("1 added: pose 1\n1 removed: skin 1\n1 changed: skin 1\n")


def decision(view: PairView, action: Action, text: str | None = None) -> DecisionInput:
    """Another one of the same reviewer."""
    seen = {"pair_id": view.pair.id, "image_sha256": view.image.sha256, "revision": 1, "others": 0}
    return DecisionInput.model_validate(seen | {"uuid": uuid4(), "action": action, "text": text})


@pytest.mark.usefixtures("store")
def test_the_commands_as_they_are_typed(tmp_path: Path) -> None:
    assert annotation("snapshots").stdout == "There is no snapshot. Take one: python -m annotation snapshot NAME\n"
    taken = annotation("snapshot", "first")
    assert taken.returncode == 0, taken.stderr
    listed = annotation("snapshots").stdout
    assert "first: 248 pairs" in listed
    (snapshot,) = json.loads(annotation("snapshots", "--json").stdout)["snapshots"]
    assert snapshot["sha256"] in listed
    out = tmp_path / "out"
    typed = ("export", "first", "--format", "fairfacegpt", "--out", out)
    done = annotation(*typed, "--splits", "train=0.7,test=0.3", "--seed", 4, "--json")
    assert done.returncode == 0, done.stderr
    numbers = json.loads(done.stdout)
    assert sum(numbers["pairs"].values()) == 248
    assert len(json.loads((out / "train.json").read_text(encoding="utf-8"))) == numbers["pairs"]["train"]
    again = annotation(*typed)
    assert (again.returncode, len(again.stderr.strip().splitlines())) == (1, 1)
    lonely = annotation("export", "first", "--format", "examples", "--out", tmp_path / "x", "--seed", 4)
    assert lonely.stderr.startswith("error: --seed says how to split")


@pytest.mark.both_databases
def test_two_reviewers_are_both_named_and_the_card_tells_how_far_they_agree(
    data_dir: Path, database: str, tmp_path: Path
) -> None:
    store = Store.open(data_dir, database)
    store.project.set_overlap("ana", 2)
    store.ingest([face(store, number, action=None) for number in range(3)])
    views = store.browse(limit=24)
    for reviewer in ("ben", "ana"):
        for view in views:
            again = decision(view, Action.REJECT if view is views[0] else Action.ACCEPT)
            store.decide(reviewer, again.model_copy(update={"revision": 0, "others": None}))
    store.snapshot("first")
    assert {each.provenance.reviewer for each in read_examples(_frozen(store))} == {"ben, ana"}
    exported(store, tmp_path / "out", Form.EXAMPLES)
    store.close()
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "24 pairs about 3 faces with verdicts of two or more of 2 reviewers" in text
    assert "| percent agreement | 100.0 % |" in text
    assert "by one reviewer only" not in text
