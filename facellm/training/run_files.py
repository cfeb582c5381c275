"""The small files of a run directory: JSON that appears complete or not at all, JSONL that grows, the end of a log.

The one surprising fact: readers look while another process writes, so a last line without its end is no error.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from facellm.errors import DataError


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None if there is no file.

    Raises:
        DataError: it holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. Make it readable, or make the run again.") from error
    except ValueError as error:
        raise DataError(f"{path.parent.name}/{path.name} is not JSON: {error}. Make the run again.") from error
    if not isinstance(found, dict):
        raise DataError(f"{path.parent.name}/{path.name} holds no JSON object. Make the run again.")
    return found


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write an object; the file appears complete or not at all, even if the machine goes down."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file that appears complete or not at all, even if the machine goes down."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")  # another process may write the same just now
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())  # else the new name can reach the disk before the content does
        partial.replace(path)
    except BaseException:  # such as a full disk
        partial.unlink(missing_ok=True)
        raise


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects in a JSONL file that may just be written to: a last line without its end is left out.

    Raises:
        DataError: a line holds something else; the message names it.
    """
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            if line.endswith("\n"):
                yield json_line(line, f"{path.parent.name}/{path.name}, line {number}")


def json_line(line: str, where: str) -> dict[str, Any]:
    """The object that a line holds; `where` says which line, for the message.

    Raises:
        DataError: it holds something else.
    """
    try:
        found = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where}, is not JSON: {error}. Make the run again.") from error
    if not isinstance(found, dict):
        raise DataError(f"{where}, holds no JSON object. Make the run again.")
    return found


def tail(path: Path, size: int) -> str:
    """The last whole lines of a file, at most `size` bytes; empty if there is no file."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        length = file.seek(0, os.SEEK_END)
        file.seek(max(0, length - size))
        text = file.read().decode("utf-8", errors="replace")
    return text if length <= size else text.partition("\n")[2]


def append_json(path: Path, value: dict[str, Any]) -> None:
    """Add a line to a JSONL file; readers see it at once."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(value) + "\n")
