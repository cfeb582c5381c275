"""The forms in which other tools read pairs: which files there are, and what one pair looks like in them.

    examples       examples.jsonl         our own records, as `python -m facellm prepare` takes them
    llamafactory   pairs.jsonl            messages, images, and LLaMA-Factory's dataset_info.json
    fairfacegpt    dataset.json           FairFaceGPT's published form: conversations, image
    datasets       train/metadata.jsonl   what `datasets.load_dataset(DIR)` reads

With splits there are files train, validation and test instead. Image paths are relative, so the folder can be moved.

The one surprising fact: LLaMA-Factory counts the tokens `<image>`, `<video>` and `<audio>` in the texts, and stops
where they are not as many as there are pictures. So a pair whose own words have one is left out of those two forms.
"""

import json
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from annotation.exports.snapshot_file import Row
from annotation.models import FREE_QUESTION, GROUPS

IMAGE_TOKEN: Final = "<image>"
_MEDIA_TOKENS: Final = (IMAGE_TOKEN, "<video>", "<audio>")
_WHOLE: Final = {"examples": "examples.jsonl", "llamafactory": "pairs.jsonl", "fairfacegpt": "dataset.json"}


class Form(StrEnum):
    """Who is to read it."""

    EXAMPLES = "examples"
    LLAMAFACTORY = "llamafactory"
    FAIRFACEGPT = "fairfacegpt"
    DATASETS = "datasets"

    def folder(self, part: str | None) -> str:
        """The folder below the export that holds a part's file and pictures; empty for the export itself."""
        return (part or "train") if self is Form.DATASETS else ""

    def file(self, part: str | None) -> str:
        """The path below the export of a part's pairs; part None: of all pairs."""
        if self is Form.DATASETS:
            return f"{self.folder(part)}/metadata.jsonl"
        return _WHOLE[self] if part is None else part + Path(_WHOLE[self]).suffix

    def takes(self, row: Row) -> bool:
        """Whether the pair can be said in this form."""
        if self in (Form.EXAMPLES, Form.DATASETS):
            return True
        return not any(token in text for token in _MEDIA_TOKENS for text in (row.question, row.answer))

    def record(self, row: Row, image: str) -> dict[str, Any]:
        """A pair in this form; `image` is the picture's path from the folder of the file."""
        match self:
            case Form.EXAMPLES:
                return {"images": [image]} | row.record
            case Form.LLAMAFACTORY:
                asked = {"role": "user", "content": IMAGE_TOKEN + row.question}
                return {"messages": [asked, {"role": "assistant", "content": row.answer}], "images": [image]}
            case Form.FAIRFACEGPT:
                asked = {"from": "human", "value": IMAGE_TOKEN + row.question}
                return {"conversations": [asked, {"from": "assistant", "value": row.answer}], "image": image}
            case Form.DATASETS:
                return _table_row(row, image)


def _table_row(row: Row, image: str) -> dict[str, Any]:
    """Flat, and nothing is null: a column that begins with nulls would be given another type than the later ones."""
    provenance = row.record["provenance"]
    groups = {name: row.labels.get(name, "") for name in GROUPS}
    origin = {name: provenance[name] or "" for name in ("status", "teacher", "prompt_version")}
    said = {"question": row.question, "answer": row.answer, "attribute": row.attribute or FREE_QUESTION}
    return {"file_name": image} | said | groups | origin | {"pair_id": row.pair_id, "image_sha256": row.image}


def dataset_info(name: str, parts: Iterable[str | None]) -> str:
    """LLaMA-Factory's entry for each file: `NAME`, or `NAME_train` and so on; used by `dataset_dir: DIR`."""
    entry = {
        "formatting": "sharegpt",
        "columns": {"messages": "messages", "images": "images"},
        "tags": {
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
            "system_tag": "system",
        },
    }
    entries = {
        name if part is None else f"{name}_{part}": {"file_name": Form.LLAMAFACTORY.file(part)} | entry
        for part in parts
    }
    return json.dumps(entries, indent=2) + "\n"


class PairWriter:
    """Writes the pairs of one file, one at a time; `.json` is one list, `.jsonl` a record a line."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._out = path.open("w", encoding="utf-8")
        self._encode = json.JSONEncoder(ensure_ascii=False).encode  # json.dumps makes one each time
        self._list = path.suffix == ".json"
        self._before = "[\n" if self._list else ""

    def write(self, record: dict[str, Any]) -> None:
        """Add a record."""
        self._out.write(self._before + self._encode(record))
        self._before = ",\n" if self._list else "\n"

    def end(self) -> None:
        """Write what is still to come, and close the file."""
        self._out.write("\n]\n" if self._list else "\n")
        self._out.close()

    def close(self) -> None:
        """Close the file as it is, after a failure."""
        self._out.close()
