"""Examples survive the file and the move of a data directory; their hash says what they say."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from facellm.data import Attribute, Example, Provenance, content_hash, read_examples, write_examples
from facellm.errors import DataError


@pytest.fixture
def example(tmp_path: Path) -> Example:
    image = tmp_path / "studio" / "images" / "face.png"
    image.parent.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(image)
    return Example(
        images=(str(image),),
        attribute=Attribute.POSE,
        question=Attribute.POSE.question,
        answer="The head is turned to the left – clearly.",
        provenance=Provenance(image_sha256=("ab",), labels={"pose": "left"}),
    )


def test_a_moved_directory_still_reads(example: Example, tmp_path: Path) -> None:
    path = tmp_path / "studio" / "snapshots" / "one" / "examples.jsonl"
    assert write_examples(path, [example]) == 1
    assert json.loads(path.read_text(encoding="utf-8"))["images"] == ["../../images/face.png"]
    shutil.move(tmp_path / "studio", tmp_path / "elsewhere")
    (read,) = read_examples(tmp_path / "elsewhere" / "snapshots" / "one" / "examples.jsonl")
    assert read.answer == example.answer
    assert Path(read.images[0]) == tmp_path / "elsewhere" / "images" / "face.png"


def test_hash_follows_the_content_only(example: Example) -> None:
    moved = example.model_copy(update={"images": ("/elsewhere/face.png",)})
    changed = example.model_copy(update={"answer": "The head is turned to the right."})
    other_image = example.model_copy(update={"provenance": Provenance(image_sha256=("cd",))})
    assert content_hash([example]) == content_hash([moved])
    assert len({content_hash(rows) for rows in ([example], [changed], [other_image], [example, changed])}) == 4


def test_a_failed_write_leaves_the_old_file(example: Example, tmp_path: Path) -> None:
    path = tmp_path / "examples.jsonl"
    write_examples(path, [example])
    before = path.read_bytes()

    def broken() -> "list[Example]":
        yield example
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_examples(path, broken())
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("line", "named"), [("{", "line 2"), ('{"images": []}', "images"), ('{"images": ["a"], "colour": 1}', "line 2")]
)
def test_bad_line_is_named(example: Example, tmp_path: Path, line: str, named: str) -> None:
    path = tmp_path / "examples.jsonl"
    write_examples(path, [example])
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match="line 2") as caught:
        list(read_examples(path))
    assert named in str(caught.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl does not exist"):
        list(read_examples(tmp_path / "none.jsonl"))


def test_questions_are_fairfacegpts() -> None:
    assert len(Attribute) == 8
    assert Attribute.SKIN.question == "Describe the skin texture of the image based on the visual information."
    assert Attribute.DETAIL.question == "Describe this image."
