"""What benchmarks of the generation share: a teacher as a process, a data directory of made faces, the real command.

The one surprising fact: what was sent and paid is asked of the server, and what came of it of the database file, past
the program that is measured.
"""

import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from PIL import Image  # noqa: E402 - after the path to this checkout

from annotation.fairface import LABEL_SOURCE, VALUES  # noqa: E402
from annotation.models import ImageInput  # noqa: E402
from annotation.store import DATABASE, Store  # noqa: E402

PRICE = (2.5, 10.0)  # USD per million tokens in and out: gpt-4o's
MODEL = "teacher"
KEY_VARIABLE = "BENCHMARK_TEACHER_KEY"
KEY = "sk-benchmark-4f1c9ad27be05836"
SIDE = 224  # pixels, as FairFace's pictures
FINAL = ("ok", "refused", "filtered", "cut", "invalid", "fallback")  # states in which a task is never asked again


@dataclass(frozen=True)
class Figure:
    """One line of a result."""

    name: str
    value: float | int | str | bool
    target: str = ""
    met: bool | None = None  # None: there is no target


def at_least(name: str, value: float, least: float) -> Figure:
    """A figure that is to be no smaller."""
    return Figure(name, round(value, 4), f"at least {least:g}", value >= least)


def at_most(name: str, value: float, most: float) -> Figure:
    """A figure that is to be no larger."""
    return Figure(name, round(value, 6), f"at most {most:g}", value <= most)


def exactly(name: str, value: Any, wanted: Any) -> Figure:
    """A figure that is to be this."""
    return Figure(name, value, f"{wanted}", value == wanted)


class Teacher:
    """tests/teacher_server.py as a process, steered over its own port."""

    def __init__(self, url: str, log: Path) -> None:
        self.url = url
        self.log = log

    def control(self, **behaviour: Any) -> dict[str, Any]:
        """Change fields of its Behaviour; returns them all, and what it counts."""
        data = json.dumps(behaviour).encode() if behaviour else None
        with urllib.request.urlopen(self.url.removesuffix("/v1") + "/control", data=data, timeout=60) as answer:
            told: dict[str, Any] = json.load(answer)
        return told

    def records(self, since: int = 0) -> list[dict[str, Any]]:
        """What it received, from the given number on."""
        address = f"{self.url.removesuffix('/v1')}/control/records?since={since}"
        with urllib.request.urlopen(address, timeout=60) as answer:
            found: list[dict[str, Any]] = json.load(answer)
        return found

    @property
    def requests(self) -> int:
        """How many chat requests it received."""
        count: int = self.control()["requests"]
        return count


@contextmanager
def teacher(**behaviour: Any) -> Iterator[Teacher]:
    """A teacher that behaves like this, with a log in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "requests.jsonl"
        told = [part for name, value in behaviour.items() for part in ("--set", f"{name}={json.dumps(value)}")]
        command = [sys.executable, str(ROOT / "tests" / "teacher_server.py"), "--log", str(log), *told]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        try:
            yield Teacher(process.stdout.readline().strip(), log)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


@dataclass
class Workplace:
    """A data directory, and the command that works on it."""

    data_dir: Path
    teacher: Teacher
    said: list[str] = field(default_factory=list)  # everything that commands printed

    def command(self, *options: str, model: str = MODEL, price: tuple[float, float] = PRICE) -> list[str]:
        """The words of one generation."""
        words = [sys.executable, "-m", "annotation", "generate", "--model", model, "--base-url", self.teacher.url]
        words += ["--price", f"{price[0]},{price[1]}", "--key-variable", KEY_VARIABLE]
        return [*words, *options]

    def start(self, *options: str, **told: Any) -> "subprocess.Popen[str]":
        """Start one and return at once; `finish` takes what it printed."""
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "FACELLM_"))
        }
        environment |= {"FACELLM_DATA_DIR": str(self.data_dir), KEY_VARIABLE: KEY}
        return subprocess.Popen(
            self.command(*options, **told),
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, process: "subprocess.Popen[str]", timeout: float = 1800) -> tuple[int, str]:
        """Wait for a command; returns its exit status and what it printed to stdout."""
        out, err = process.communicate(timeout=timeout)
        self.said += [out, err]
        return process.returncode, out

    def run(self, *options: str, statuses: tuple[int, ...] = (0,), **told: Any) -> dict[str, Any]:
        """Run one with --json to its end.

        Raises:
            RuntimeError: it exited with another status.
        """
        status, out = self.finish(self.start(*options, "--json", **told))
        if status not in statuses:
            raise RuntimeError(f"{' '.join(self.command(*options))} exited with {status}: {self.said[-1][-800:]}")
        found: dict[str, Any] = json.loads(out)
        return found

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """What a query of the database file returns; nothing where there is no such table yet."""
        path = self.data_dir / DATABASE
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as connection:
            return connection.execute(query, values).fetchall()

    def one(self, query: str, *values: object) -> Any:
        """The first value of its first row."""
        return self.rows(query, *values)[0][0]

    def finished(self) -> set[tuple[str, str]]:
        """(SHA-256 of the image, attribute) of the tasks that have an end."""
        marks = ",".join("?" * len(FINAL))
        query = "SELECT i.sha256, t.attribute FROM tasks t JOIN images i ON i.id = t.image_id WHERE t.state IN"
        return set(self.rows(f"{query} ({marks})", *FINAL))

    def pairs(self) -> tuple[int, int]:
        """How many pairs there are, and how many of them are there twice."""
        twice = "SELECT count(*) FROM (SELECT 1 FROM pairs GROUP BY image_id, attribute HAVING count(*) > 1)"
        return self.one("SELECT count(*) FROM pairs"), self.one(twice)


@contextmanager
def workplace(images: int, teacher: Teacher) -> Iterator[Workplace]:
    """A data directory with so many made pictures and FairFace labels."""
    with tempfile.TemporaryDirectory() as folder:
        add_images(Path(folder), images)
        yield Workplace(Path(folder), teacher)


def add_images(data_dir: Path, count: int, *, first: int = 0) -> None:
    """Store pictures of noise, as large as FairFace's (224 pixels, about 6 kB), with labels drawn by chance."""
    with closing(Store.open(data_dir)) as store:
        rows = [_image(store, number) for number in range(first, first + count)]
        store.ingest(rows)


def _image(store: Store, number: int) -> ImageInput:
    rng = random.Random(number)
    out = BytesIO()
    Image.frombytes("RGB", (9, 9), rng.randbytes(243)).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(out, "JPEG")
    sha256, path = store.put_image(out.getvalue(), ".jpg")
    return ImageInput(
        sha256=sha256,
        path=path,
        width=SIDE,
        height=SIDE,
        bytes=len(out.getvalue()),
        source=f"fairface:benchmark/{number}.jpg",
        labels={name: rng.choice(values) for name, values in VALUES.items()},
        label_source=LABEL_SOURCE,
    )


def paid(records: list[dict[str, Any]], price: tuple[float, float] = PRICE) -> float:
    """USD for the tokens of these requests; a price that was typed holds for cached input, too."""
    tokens = [(record["input_tokens"], record["output_tokens"]) for record in records]
    return sum(into * price[0] + out * price[1] for into, out in tokens) / 1e6


def peak_memory_mb(pid: int) -> float:
    """The most memory that a living process has held; 0 for one that is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def wait_until(condition: Any, seconds: float, every: float = 0.05) -> bool:
    """Whether something becomes true in time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(every)
    return False
