"""How long the statistics take at the size of FairFaceGPT: python benchmarks/stats.py [--quick] [--json]

Fills a database with as many faces, answers, requests and flags as FairFace's validation split would have, of which one
group is refused five times as often, and counts. The surprising fact: no picture is stored, since none is looked at.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from uuid import UUID

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import sqlalchemy as sa  # noqa: E402 - after the path to this checkout
from sqlmodel import SQLModel  # noqa: E402

from annotation import models  # noqa: E402
from annotation.database import writing  # noqa: E402
from annotation.fairface import VALUES  # noqa: E402
from annotation.statistics.stats import stats  # noqa: E402
from annotation.store import Store  # noqa: E402
from facellm.data import Attribute  # noqa: E402

FACES = {"full": 10_954, "quick": 500}
TIMES = 5
CHECKS = {"contradiction": 0.02, "leaked hint": 0.02, "hedging": 0.03, "length": 0.01}
ANSWER = "The face is turned to the left, with even light on both cheeks. " * 8
TABLES = (models.Image, models.Label, models.GenerationRun, models.Attempt, models.Pair, models.Task, models.Flag)
Rows = dict[type[SQLModel], list[dict[str, Any]]]
ASKED = {"parameters": "{}", "teacher": "teacher", "prompt_version": "1"}


def main() -> None:
    """Fill, count, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help=f"{FACES['quick']} faces instead of {FACES['full']:,}")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(Path(folder))
        fill(store, FACES["quick" if options.quick else "full"])
        seconds = [timed(store) for _ in range(TIMES)]
        numbers = stats(store)
        store.close()
    result = {
        "faces": numbers["images"],
        "answers": sum(numbers["tasks"]["states"].values()),
        "comparisons": numbers["comparisons"],
        "seconds": sorted(seconds)[TIMES // 2],
        "named": [each["sentence"] for each in numbers["notable"] if each["within"] is None],
    }
    if options.json:
        print(json.dumps(result))
    else:
        print(f"{result['answers']:,} answers, {result['faces']:,} faces: {result['seconds']:.2f} s, median of {TIMES}")
        print("\n".join(result["named"]))


def timed(store: Store) -> float:
    """Seconds for all numbers once."""
    began = time.perf_counter()
    stats(store)
    return time.perf_counter() - began


def fill(store: Store, faces: int) -> None:
    """One run that has asked everything about so many faces."""
    rng = random.Random(0)
    rows: Rows = {table: [] for table in TABLES}
    rows[models.GenerationRun].append(run_row(faces))
    for image in range(1, faces + 1):
        labels = {name: rng.choice(values) for name, values in VALUES.items()}
        file = {"sha256": f"{image:064}", "path": "", "width": 224, "height": 224, "bytes": 1, "source": "benchmark"}
        rows[models.Image].append(file)
        for name, value in labels.items():
            rows[models.Label].append({"image_id": image, "name": name, "value": value, "source": "fairface"})
        hot = (labels["race"], labels["gender"]) == ("Middle Eastern", "Female")
        shy = rng.random() < (0.15 if hot else 0.03)
        for attribute in Attribute:
            add_answer(rows, image, attribute, rng, refused=shy and rng.random() < 0.7)
    with writing(store._engine) as session:
        for table, values in rows.items():
            session.execute(sa.insert(table), values)


def run_row(faces: int) -> dict[str, Any]:
    """The run that has asked."""
    size = faces * len(Attribute)
    where = {"uuid": str(UUID(int=1)), "host": "", "pid": 1, "process_started": 0.0, "base_url": "", "options": "{}"}
    what = {"purpose": models.Purpose.GENERATE, "teacher": "teacher", "state": models.RunState.DONE}
    return where | what | {"total": size, "finished": size}


def add_answer(rows: Rows, image: int, attribute: Attribute, rng: random.Random, *, refused: bool) -> None:
    """A request with what came of it: a refusal, or a pair and perhaps flags."""
    number, pair = len(rows[models.Attempt]) + 1, None
    about = {"image_id": image, **ASKED}
    if not refused:
        pair = len(rows[models.Pair]) + 1
        rows[models.Pair].append(about | {"attribute": attribute, "question": attribute.question, "answer": ANSWER})
        for check, rate in CHECKS.items():
            if rng.random() < rate:
                flag = {"pair_id": pair, "check": check, "severity": models.Severity.INFO, "message": "-"}
                rows[models.Flag].append(flag)
    state = "refused" if refused else "ok"
    used = {"input_tokens": 481, "cached_tokens": 0, "output_tokens": 120, "cost_usd": 0.0024, "raw": ANSWER}
    sent = {
        "uuid": str(UUID(int=number)),
        "attributes": json.dumps([attribute]),
        "prompt_sha256": "0" * 64,
        "run_id": 1,
    }
    came = {"state": models.AttemptState(state), "returned_model": "teacher-dated"}
    rows[models.Attempt].append(about | used | sent | came | {"run_id": 1})
    task = {"attribute": attribute, "state": models.TaskState(state), "run_id": 1}
    rows[models.Task].append(about | task | {"attempt_id": number, "pair_id": pair})


if __name__ == "__main__":
    main()
