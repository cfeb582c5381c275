"""FairFace coming in: its CSV as published, as spreadsheet programs leave it, and its Hugging Face form.

python -m pytest tests/test_fairface_import.py

The tests of the Hugging Face form need pyarrow, which is none of the app's requirements; they are skipped without it.
"""

import csv
import hashlib
import json
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from imports import annotation, counts, jpeg, kill_once_there_are, make_images, query, summary

from annotation.fairface import VALUES
from annotation.imports.fairface_labels import check_labels
from annotation.imports.picture_intake import name_below
from facellm.errors import DataError

HEADER = "file,age,gender,race,service_test"
GOOD = "3-9,Male,East Asian,False"
OFFICIAL = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "fairface_label_val.csv"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return make_images(tmp_path / "images", [f"val/{number}.jpg" for number in range(1, 7)])


def write_csv(tmp_path: Path, *rows: str, header: str = HEADER, encoding: str = "utf-8") -> Path:
    path = tmp_path / "labels.csv"
    path.write_bytes("\n".join([header, *rows, ""]).encode(encoding))
    return path


def run(path: Path, images: Path, *more: str) -> dict[str, Any]:
    return summary("import-fairface", path, "--images", images, *more)


@pytest.mark.usefixtures("database")
def test_the_official_rows_come_in_with_their_labels_and_bytes(data_dir: Path, tmp_path: Path) -> None:
    if not OFFICIAL.is_file():
        pytest.skip(f"{OFFICIAL.name} is not in ../shared/data")
    with OFFICIAL.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    some = random.Random(0).sample(rows[:1500], 150)
    images = make_images(tmp_path / "images", [row["file"] for row in some])
    told = run(OFFICIAL, images, "--limit", "1500")
    assert counts(told) == (1500, 150, 0, 1350)
    assert told["labels"] == 4 * 150
    assert "there is no file" in told["bad_rows"][0]["reason"]

    stored = query(data_dir, "SELECT source, sha256, path, bytes, width FROM images ORDER BY id")
    assert [source for source, *_ in stored] == [f"fairface:{r['file']}" for r in rows[:1500] if r in some]
    for source, sha256, path, size, width in stored:
        original = (images / source.removeprefix("fairface:")).read_bytes()
        assert (data_dir / path).read_bytes() == original, "the file's own bytes"
        assert (sha256, size, width) == (hashlib.sha256(original).hexdigest(), len(original), 16)
    labels = query(
        data_dir, "SELECT i.source, l.name, l.value, l.source FROM labels l JOIN images i ON i.id = image_id"
    )
    expected = {(f"fairface:{r['file']}", name, r[name], "fairface") for r in some for name in r if name != "file"}
    assert set(labels) == expected
    again = run(OFFICIAL, images, "--limit", "1500")
    assert counts(again) == (1500, 0, 150, 1350)
    assert (again["images"], again["labels"]) == (0, 0)


def test_all_labels_of_the_official_file_are_known() -> None:
    if not OFFICIAL.is_file():
        pytest.skip(f"{OFFICIAL.name} is not in ../shared/data")
    with OFFICIAL.open(encoding="utf-8", newline="") as file:
        rows = [check_labels(row) for row in csv.DictReader(file)]
    assert Counter(row["age"] for row in rows)["0-2"] == 199
    assert Counter(row["service_test"] for row in rows)["True"] == 5162
    assert len(rows) == 10_954


def test_bad_rows_are_listed_by_number_and_the_others_go_in(data_dir: Path, images: Path, tmp_path: Path) -> None:
    whole = (images / "val/1.jpg").read_bytes()
    (images / "val/cut.jpg").write_bytes(whole[: len(whole) // 2])
    (images / "val/text.jpg").write_text("not a picture")
    (images / "val/empty.jpg").touch()
    (images / "val/folder.jpg").mkdir()
    (images / "val/same.jpg").write_bytes(whole)
    (images.parent / "secret.jpg").write_bytes(jpeg(99))
    path = write_csv(
        tmp_path,
        f"val/1.jpg,{GOOD}",  # row 2
        "val/2.jpg,9-Mar,Male,White,False",
        "val/3.jpg,19-Oct,Male,White,False",
        "val/3.jpg,20-29,male,White,False",
        "val/3.jpg,20-29,Male,Latino,False",  # row 6
        "val/3.jpg,20-29,Male,White,maybe",
        f"val/none.jpg,{GOOD}",
        f"val/cut.jpg,{GOOD}",
        f"val/text.jpg,{GOOD}",
        f"val/empty.jpg,{GOOD}",  # row 11
        f"val/folder.jpg,{GOOD}",
        f"val/1.jpg,{GOOD}",
        f"val/./1.jpg,{GOOD}",
        f"val/same.jpg,{GOOD}",
        "val/3.jpg,20-29,Male",  # row 16
        f"val/3.jpg,{GOOD},more",
        f"../secret.jpg,{GOOD}",
        f"/etc/hostname,{GOOD}",
        f"C:\\faces\\1.jpg,{GOOD}",
        f",{GOOD}",  # row 21
        f'"val/3.jpg,{GOOD}',
        "",
        f"val/{'x' * 5000}.jpg,{GOOD}",
        f"val/3.jpg,{GOOD}",  # row 25
    )
    report = tmp_path / "bad.csv"
    told = run(path, images, "--report", str(report))
    expected = {
        3: "age is '9-Mar': a spreadsheet program has probably turned 3-9 into a date",
        4: "age is '19-Oct': a spreadsheet program has probably turned 10-19 into a date",
        5: "gender is 'male', expected one of: Male, Female",
        6: "race is 'Latino', expected one of: White, Black",
        7: "service_test is 'maybe', expected one of: True, False",
        8: "there is no file",
        9: "The image is damaged or cut off",
        10: "The image is not an image",
        11: "The image is empty",
        12: "there is no file",
        13: "the same file is in row 2, which stands",
        14: "the same file is in row 2, which stands",
        15: "it is the same picture as val/1.jpg in row 2, which stands",
        16: "it has 3 cells, and the first line has 5",
        17: "it has 6 cells, and the first line has 5",
        18: "../secret.jpg leads out of",
        19: "/etc/hostname leads out of",
        20: "C:\\faces\\1.jpg leads out of",
        21: "no image is named",
        22: "it is no CSV: unexpected end of data",
        24: "there is no file",
    }
    with report.open(encoding="utf-8", newline="") as file:
        listed = {int(row["row"]): row["reason"] for row in csv.DictReader(file)}
    assert listed.keys() == expected.keys()
    assert [n for n, reason in expected.items() if not listed[n].startswith(reason)] == [], listed
    assert counts(told) == (23, 2, 0, 21)
    assert len(told["bad_rows"]) == 20
    assert [name for (name,) in query(data_dir, "SELECT source FROM images")] == [
        "fairface:val/1.jpg",
        "fairface:val/3.jpg",
    ]
    files = [path for path in (data_dir / "images").rglob("*") if path.is_file()]
    assert len(files) == 2, "nothing of a bad row is written"

    text = annotation("import-fairface", path, "--images", images)
    assert (text.returncode, text.stderr) == (0, "")
    lines = text.stdout.splitlines()
    assert lines[0].startswith("row 3: val/2.jpg: age is '9-Mar'")
    assert lines[-2] == "… and 1 more; --report FILE.csv writes all of them."
    assert lines[-1] == "23 rows read: 0 added, 2 known already, 21 bad."


@pytest.mark.parametrize(
    ("date", "age"),
    [
        ("9-Mar", "3-9"),
        ("03-Sep", "3-9"),
        ("3. Sep", "3-9"),
        ("2026-03-09", "3-9"),
        ("3/9/2026", "3-9"),
        ("19-Oct", "10-19"),
        ("Oct-19", "10-19"),
        ("19. Okt", "10-19"),
        ("2019-10-01", "10-19"),
        ("4-May", None),
        ("marry me", None),
        ("3 to 9", None),
    ],
)
def test_ages_that_became_dates_are_told(date: str, age: str | None) -> None:
    with pytest.raises(DataError) as refused:
        check_labels({"age": date})
    assert (f"turned {age} into a date" in str(refused.value)) is (age is not None)
    assert ("expected one of: 0-2" in str(refused.value)) is (age is None)


def test_missing_labels_are_left_out(data_dir: Path, images: Path, tmp_path: Path) -> None:
    told = run(write_csv(tmp_path, "val/1.jpg,,,,", "val/2.jpg,3-9,,White,"), images)
    assert counts(told) == (2, 2, 0, 0)
    assert query(data_dir, "SELECT image_id, name, value FROM labels ORDER BY name") == [
        (2, "age", "3-9"),
        (2, "race", "White"),
    ]


@pytest.mark.parametrize(
    ("delimiter", "encoding"), [(",", "utf-8-sig"), (";", "utf-8"), ("\t", "utf-16"), (";", "utf-8-sig")]
)
def test_what_spreadsheet_programs_save_is_read(
    data_dir: Path, images: Path, tmp_path: Path, delimiter: str, encoding: str
) -> None:
    rows = [row.replace(",", delimiter) for row in (HEADER, "val/1.jpg,3-9,Male,White,TRUE", "val\\2.jpg,,,,FALSE")]
    path = tmp_path / "labels.csv"
    path.write_bytes("\r\n".join([*rows, ""]).encode(encoding))
    told = run(path, images)
    assert counts(told) == (2, 2, 0, 0)
    assert bool(told["notes"]) is (delimiter != ",")
    values = query(data_dir, "SELECT value FROM labels WHERE name = 'service_test' ORDER BY image_id")
    assert values == [("True",), ("False",)]
    assert query(data_dir, "SELECT source FROM images WHERE id = 2") == [("fairface:val/2.jpg",)]


def test_a_row_that_is_not_utf_8_spoils_only_itself(images: Path, tmp_path: Path) -> None:
    (images / "val/é.jpg").write_bytes(jpeg(50))
    path = write_csv(tmp_path, f"val/1.jpg,{GOOD}", f"val/é.jpg,{GOOD}", encoding="latin-1")
    told = run(path, images)
    assert counts(told) == (2, 1, 0, 1)
    (bad,) = told["bad_rows"]
    assert (bad["image"], bad["reason"]) == ("val/?.jpg", "it has bytes that are not UTF-8; save the file as CSV UTF-8")
    assert counts(run(write_csv(tmp_path, f"val/é.jpg,{GOOD}"), images)) == (1, 1, 0, 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"file,age,gender,service_test\nval/1.jpg,3-9,Male,False\n", "no column race: its first line is 'file,age,ge"),
        (b"val/1.jpg,3-9,Male,White,False\n", "no column file, age, gender, race, service_test: its first line"),
        (b"file,age,age,gender,race,service_test\n", "has the column age twice"),
        (b"file|age|gender|race|service_test\n", "no column file"),
        (b"", "no column file"),
        (b"PK\x03\x04 a workbook", "a spreadsheet program's own file. Expected CSV"),
        (b"file,age,gender,race,service_test\n", "Nothing of {path} was imported: it has no row"),
        (b"file,age,gender,race,service_test\nval/0.jpg,,,,\n", "none of its 1 rows could be used"),
    ],
)
def test_a_file_of_which_nothing_can_be_used_is_one_error(
    images: Path, tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(content)
    done = annotation("import-fairface", path, "--images", images)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert message.format(path=path) in line


def test_columns_may_be_in_another_order_with_others_between(data_dir: Path, images: Path, tmp_path: Path) -> None:
    path = write_csv(tmp_path, "True,x,White,Male,3-9,val/1.jpg", header="service_test,id,race,Gender, age ,file")
    assert counts(run(path, images)) == (1, 1, 0, 0)
    assert len(query(data_dir, "SELECT * FROM labels")) == 4


def test_split_and_limit_choose_rows(data_dir: Path, images: Path, tmp_path: Path) -> None:
    shutil.move(images / "val/1.jpg", make_images(images, ["train/9.jpg"]) / "train/1.jpg")
    rows = (f"train/1.jpg,{GOOD}", f"{images}/val/2.jpg,{GOOD}", f"./val/3.jpg,{GOOD}", f"val/4.jpg,{GOOD}")
    path = write_csv(tmp_path, *rows)
    assert counts(run(path, images, "--split", "val", "--limit", "2")) == (2, 2, 0, 0)
    assert counts(run(path, images, "--split", "validation")) == (3, 1, 2, 0)
    assert counts(run(path, images, "--split", "train")) == (1, 1, 0, 0)
    assert {name for (name,) in query(data_dir, "SELECT source FROM images")} == {
        *("fairface:train/1.jpg", "fairface:val/2.jpg", "fairface:val/3.jpg", "fairface:val/4.jpg")
    }
    none = annotation("import-fairface", write_csv(tmp_path, rows[0]), "--images", images, "--split", "val")
    assert none.returncode == 1
    assert "labels.csv has no row whose file is in val/." in none.stdout


def test_a_rerun_lists_the_same_and_what_is_new_comes_in(data_dir: Path, images: Path, tmp_path: Path) -> None:
    (images / "val/6.jpg").write_bytes((images / "val/1.jpg").read_bytes())
    rows = [f"val/{number}.jpg,{GOOD}" for number in (1, 2, 6)]
    first = run(write_csv(tmp_path, *rows), images)
    again = run(write_csv(tmp_path, *rows, f"val/3.jpg,{GOOD}"), images)
    assert (counts(first), counts(again)) == ((3, 2, 0, 1), (4, 1, 2, 1))
    assert first["bad_rows"] == again["bad_rows"]
    assert "val/1.jpg in row 2" in again["bad_rows"][0]["reason"]
    assert len(query(data_dir, "SELECT * FROM images")) == 3


@pytest.mark.usefixtures("database")
def test_an_image_known_from_elsewhere_gets_its_labels(data_dir: Path, images: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.json"
    turns = [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "Nobody."}]
    pairs.write_text(json.dumps([{"conversations": turns, "image": "val/1.jpg"}]))
    summary("import-pairs", pairs, "--images", images)
    told = run(write_csv(tmp_path, f"val/1.jpg,{GOOD}"), images)
    assert counts(told) == (1, 0, 1, 0)
    assert told["labels"] == 4
    assert query(data_dir, "SELECT source FROM images") == [("imported:val/1.jpg",)]


def test_a_label_that_contradicts_the_stored_one_is_listed_and_not_stored(
    data_dir: Path, images: Path, tmp_path: Path
) -> None:
    run(write_csv(tmp_path, "val/1.jpg,3-9,Male,,False"), images)
    told = run(write_csv(tmp_path, "val/1.jpg,20-29,Female,White,False", f"val/2.jpg,{GOOD}"), images)
    assert counts(told) == (2, 1, 0, 1)
    assert told["bad_rows"] == [
        {
            "row": 2,
            "image": "val/1.jpg",
            "reason": "age is '20-29', but '3-9' is stored already and stays; "
            "gender is 'Female', but 'Male' is stored already and stays",
        }
    ]
    stored = dict(query(data_dir, "SELECT name, value FROM labels WHERE image_id = 1"))
    assert stored == {"age": "3-9", "gender": "Male", "service_test": "False", "race": "White"}


def test_an_import_goes_on_after_a_kill(data_dir: Path, tmp_path: Path) -> None:
    names = [f"val/{number}.jpg" for number in range(2000)]
    images = make_images(tmp_path / "images", names)
    path = write_csv(tmp_path, *(f"{name},{GOOD}" for name in names))
    arguments = ("import-fairface", path, "--images", images)
    before = kill_once_there_are("images", data_dir, *arguments)
    assert 0 < before < 2000
    assert len(query(data_dir, "SELECT * FROM labels")) == 4 * before, "images and labels are one transaction"
    assert counts(summary(*arguments)) == (2000, 2000 - before, before, 0)
    stored = query(data_dir, "SELECT path, sha256, source FROM images ORDER BY id")
    assert [source for *_, source in stored] == [f"fairface:{name}" for name in names]
    assert all(hashlib.sha256((data_dir / path).read_bytes()).hexdigest() == sha for path, sha, _ in stored)
    assert query(data_dir, "SELECT name, count(*) FROM labels GROUP BY name ORDER BY name") == [
        *(("age", 2000), ("gender", 2000), ("race", 2000), ("service_test", 2000))
    ]
    assert counts(summary(*arguments)) == (2000, 0, 2000, 0)


def test_a_stored_file_that_is_gone_comes_back(data_dir: Path, images: Path, tmp_path: Path) -> None:
    path = write_csv(tmp_path, f"val/1.jpg,{GOOD}")
    run(path, images)
    stored = data_dir / query(data_dir, "SELECT path FROM images")[0][0]
    stored.unlink()
    assert counts(run(path, images)) == (1, 0, 1, 0)
    assert stored.read_bytes() == (images / "val/1.jpg").read_bytes()


def to_the_source(path: Path) -> tuple[Path, str]:
    return path, "is the file to import, and a report would replace it"


def to_no_folder(path: Path) -> tuple[Path, str]:
    return path.parent / "none" / "bad.csv", "cannot be written: No such file or directory"


def to_a_folder(path: Path) -> tuple[Path, str]:
    return path.parent, "cannot be written: Is a directory"


@pytest.mark.parametrize("where", [to_the_source, to_no_folder, to_a_folder])
def test_a_report_that_cannot_be_written_is_told_first(
    data_dir: Path, images: Path, tmp_path: Path, where: Callable[[Path], tuple[Path, str]]
) -> None:
    path = write_csv(tmp_path, f"val/1.jpg,{GOOD}")
    content = path.read_bytes()
    report, message = where(path)
    done = annotation("import-fairface", path, "--images", images, "--report", report)
    assert done.returncode == 1
    assert message in done.stderr
    assert (path.read_bytes(), data_dir.exists()) == (content, False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none.csv", "--images", "."), "none.csv cannot be read: No such file or directory"),
        (("labels.csv",), "A CSV needs --images"),
        (("labels.csv", "--images", "none"), "none does not exist. Give with --images the folder"),
        ((".", "--images", "."), "A Hugging Face dataset has its images in it"),
        ((".", "--config", "0.5"), "--config is 0.5; FairFace has 0.25 and 1.25."),
    ],
)
def test_what_cannot_be_is_one_line(arguments: tuple[str, ...], message: str) -> None:
    done = annotation("import-fairface", *arguments)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert message in line


def test_a_folder_that_starts_too_deep_is_pointed_out(images: Path, tmp_path: Path) -> None:
    done = annotation("import-fairface", write_csv(tmp_path, f"val/1.jpg,{GOOD}"), "--images", images / "val")
    assert done.returncode == 1
    assert "1.jpg itself is there, so --images should be the folder above" in done.stdout


def test_names_stay_below_the_folder(tmp_path: Path) -> None:
    for name in ("val/1.jpg", "./val//1.jpg", "val\\1.jpg", "val/../val/1.jpg", f"{tmp_path}/val/1.jpg"):
        assert name_below(tmp_path, name) == "val/1.jpg"
    for name in ("..", ".", "", "val/../../1.jpg", "..\\1.jpg", "/1.jpg", f"{tmp_path}2/1.jpg", "c:/1.jpg"):
        with pytest.raises(DataError):
            name_below(tmp_path, name)


# The Hugging Face form. Its classes are in another order than ours: the numbers mean what the file says.

RACES = ["East Asian", "Indian", "Black", "White", "Middle Eastern", "Latino_Hispanic", "Southeast Asian"]


def hub_table(count: int) -> Any:
    """Rows as `datasets` writes them, with what it notes in the schema."""
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed (pip install pyarrow)")
    classes = {"age": list(VALUES["age"]), "gender": ["Male", "Female"], "race": RACES}
    features: dict[str, Any] = {name: {"names": names, "_type": "ClassLabel"} for name, names in classes.items()}
    features |= {"image": {"_type": "Image"}, "service_test": {"dtype": "bool", "_type": "Value"}}
    columns = {
        "image": [{"bytes": jpeg(number), "path": None} for number in range(count)],
        "age": [number % 9 for number in range(count)],
        "gender": [number % 2 for number in range(count)],
        "race": [number % 7 for number in range(count)],
        "service_test": [number % 3 == 0 for number in range(count)],
    }
    table = pa.table(columns)
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def write_hub_clone(folder: Path, table: Any) -> Path:
    import pyarrow.parquet as pq  # noqa: PLC0415 - the caller has seen that it is there

    for number, start in enumerate(range(0, len(table), 4)):
        path = folder / "0.25" / f"validation-{number:05}-of-00003-0123456789abcdef.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.slice(start, 4), path)
    return folder


def write_saved(folder: Path, table: Any) -> Path:
    """As save_to_disk writes one split."""
    import pyarrow as pa  # noqa: PLC0415 - as above

    folder.mkdir(parents=True)
    with pa.ipc.new_stream(str(folder / "data-00000-of-00001.arrow"), table.schema) as stream:
        stream.write_table(table)
    (folder / "state.json").write_text(json.dumps({"_split": "validation"}))
    return folder


@pytest.mark.parametrize("write", [write_hub_clone, write_saved])
@pytest.mark.parametrize("split", ["val", "validation"])
def test_a_copy_of_the_hugging_face_dataset_comes_in(
    data_dir: Path, tmp_path: Path, write: Callable[[Path, Any], Path], split: str
) -> None:
    folder = write(tmp_path / "copy", hub_table(10))
    told = summary("import-fairface", folder, "--split", split)
    assert counts(told) == (10, 10, 0, 0)
    assert counts(summary("import-fairface", folder)) == (10, 0, 10, 0)
    names = query(data_dir, "SELECT source FROM images ORDER BY id")
    assert names == [(f"fairface-0.25:validation/{number}",) for number in range(10)]
    labels = query(data_dir, "SELECT image_id - 1, value FROM labels WHERE name = 'race' ORDER BY image_id")
    assert labels == [(number, RACES[number % 7]) for number in range(10)]
    (path,) = query(data_dir, "SELECT path FROM images WHERE id = 4")[0]
    assert (data_dir / path).read_bytes() == jpeg(3)
    none = annotation("import-fairface", folder, "--split", "train")
    assert none.returncode == 1
    assert "has no split train of the configuration 0.25" in none.stderr


def test_the_dataset_is_found_by_name_in_the_hubs_cache(tmp_path: Path) -> None:
    cache = tmp_path / "hub"
    repository = cache / "datasets--HuggingFaceM4--FairFace"
    write_hub_clone(repository / "snapshots" / ("0" * 40), hub_table(5))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    offline = {"HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    done = annotation("import-fairface", "HuggingFaceM4/FairFace", "--split", "val", "--limit", "3", **offline)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "3 rows read: 3 added, 0 known already, 0 bad; new: 3 images, 12 labels.\n"
    other = annotation("import-fairface", "HuggingFaceM4/FairFace2", **offline)
    assert other.returncode == 1
    assert len(other.stderr.splitlines()) == 1
    assert "HuggingFaceM4/FairFace2 cannot be had from the Hugging Face Hub" in other.stderr


@pytest.mark.parametrize("age", [99, -5])
def test_bad_rows_of_a_dataset_are_listed_by_index(tmp_path: Path, age: int) -> None:
    table = hub_table(5)
    pa = pytest.importorskip("pyarrow")
    pictures = [{"bytes": data, "path": None} for data in (jpeg(0), b"no picture", None, jpeg(0), jpeg(4))]
    table = table.set_column(0, "image", pa.array(pictures)).set_column(1, "age", pa.array([None, 1, 2, 3, age]))
    told = summary("import-fairface", write_saved(tmp_path / "copy", table))
    assert counts(told) == (5, 1, 0, 4)
    assert [(row["row"], row["reason"][:40]) for row in told["bad_rows"]] == [
        (1, "The image is not an image that can be re"),
        (2, "it has no picture"),
        (3, "it is the same picture as validation/0 i"),
        (4, f"age is the number {age}, and the file does "),
    ]
    other = annotation("import-fairface", write_hub_clone(tmp_path / "other", table.drop_columns(["race"])))
    assert other.returncode == 1
    assert "has no column race. Expected FairFace: image, age" in other.stderr


def test_without_pyarrow_the_sentence_says_what_to_install(tmp_path: Path) -> None:
    try:
        import pyarrow  # noqa: F401, PLC0415
    except ModuleNotFoundError:
        done = annotation("import-fairface", tmp_path)
        assert done.returncode == 1
        assert done.stderr == (
            "error: A Hugging Face dataset is read by pyarrow, which is not installed. "
            "Install it: pip install pyarrow\n"
        )
    else:
        pytest.skip("pyarrow is installed")
