"""How long a team's numbers take at the size of FairFaceGPT: python benchmarks/team.py [--quick] [--json]

Fills a database with as many faces and pairs as FairFace's validation split would have, a third of them with two
reviewers, four fifths of them decided by eight people over three weeks, and counts. The surprising fact: a replay takes
longer than all else together, since each pair is added up by the functions that decide, not by the database.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import sqlalchemy as sa  # noqa: E402 - after the path to this checkout
from sqlmodel import SQLModel  # noqa: E402

from annotation import models  # noqa: E402
from annotation.database import writing  # noqa: E402
from annotation.decisions import outcome  # noqa: E402
from annotation.fairface import VALUES  # noqa: E402
from annotation.models import SHUFFLE, Action  # noqa: E402
from annotation.store import Store  # noqa: E402
from annotation.team.team_view import accepted_html, audit_html, progress_html, rates_html, reviewers_html  # noqa: E402
from facellm.data import Attribute  # noqa: E402

FACES = {"full": 10_954, "quick": 500}
TIMES = 5
REVIEWERS = ("ana", "ben", "cho", "dia", "eli", "fay", "gus", "hal")
HASTY = "hal"  # accepts everything in half a second
ANSWER = "The face is turned to the left, with even light on both cheeks. " * 8
TABLES = (models.Image, models.Label, models.Pair, models.Decision, models.Verdict)
Rows = dict[type[SQLModel], list[dict[str, Any]]]


def main() -> None:
    """Fill, count, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help=f"{FACES['quick']} faces instead of {FACES['full']:,}")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(Path(folder))
        fill(store, FACES["quick" if options.quick else "full"])
        result = measure(store)
        store.close()
    if options.json:
        print(json.dumps(result))
    else:
        print(f"{result['pairs']:,} pairs, {result['events']:,} events; seconds, medians of {TIMES}:")
        print("\n".join(f"{name:12}{seconds:8.3f}" for name, seconds in result["seconds"].items()))


def measure(store: Store) -> dict[str, Any]:
    """Everything that the tab and the commands ask for; fails if a replay differs."""
    store.audits.draw("carol", 400)
    views = store.claim("ana", "window", limit=20)
    work: dict[str, Callable[[], object]] = {
        "progress": store.team.progress,
        "reviewers": store.team.reviewers,
        "audits": store.audits.estimate,
        "whole tab": lambda: open_tab(store),
        "claim": lambda: store.claim("ana", "window", limit=20),
        "mix": lambda: store.traps.mix("ana", views, 0.02),
        "make a trap": lambda: store.traps.mix(f"new {random.random()}", views[:12], 0.2),
        "replay": store.team.replay,
    }
    seconds = {name: sorted(timed(call) for _ in range(TIMES))[TIMES // 2] for name, call in work.items()}
    replay = store.team.replay()
    if replay.differing:
        sys.exit(f"error: {replay.differing} pairs are stored otherwise than replayed")
    return {"pairs": replay.pairs, "events": replay.events, "seconds": seconds}


def open_tab(store: Store) -> None:
    """What opening the Team tab does for a curator."""
    progress, audits = store.team.progress(), store.audits.estimate()
    for _ in (progress_html(progress, audits), accepted_html(progress), rates_html(progress), audit_html(audits)):
        pass
    reviewers_html(store.team.reviewers())
    store.audits.next("carol")


def timed(call: Callable[[], object]) -> float:
    """Seconds for one call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def fill(store: Store, faces: int) -> None:
    """Faces, pairs, and what eight people have decided about them."""
    rng = random.Random(0)
    rows: Rows = {table: [] for table in TABLES}
    for image in range(1, faces + 1):
        labels = {name: rng.choice(values) for name, values in VALUES.items()}
        file = {"sha256": f"{image:064}", "path": "", "width": 224, "height": 224, "bytes": 1, "source": "benchmark"}
        rows[models.Image].append(file)
        for name, value in labels.items():
            rows[models.Label].append({"image_id": image, "name": name, "value": value, "source": "fairface"})
        for attribute in Attribute:
            add_pair(rows, image, attribute, labels, rng, decided=image < 0.8 * faces)
    with writing(store._engine) as session:
        for table, values in rows.items():
            session.execute(sa.insert(table), values)


def add_pair(
    rows: Rows, image: int, attribute: Attribute, labels: dict[str, str], rng: random.Random, *, decided: bool
) -> None:
    """A pair, with one decision about it or two."""
    pair_id, overlap = len(rows[models.Pair]) + 1, 2 if rng.random() < 1 / 3 else 1
    bad = rng.random() < (0.3 if labels["race"] == "Black" else 0.12)
    who = rng.sample(REVIEWERS, overlap) if decided else []
    verdicts = []
    for revision, name in enumerate(who, 1):
        event = decision(rows, pair_id, name, revision, bad, rng)
        rows[models.Decision].append(event)
        verdict = {name: event[name] for name in ("pair_id", "reviewer", "revision", "action", "reason", "text")}
        verdict |= {"decision_uuid": event["uuid"], "created_at": event["created_at"], "settles": False, "blind": True}
        rows[models.Verdict].append(verdict)
        verdicts.append(models.Verdict.model_validate(verdict))
    now = outcome(verdicts, overlap)
    about = {"image_id": image, "attribute": attribute, "question": attribute.question, "answer": ANSWER}
    made = {"teacher": "teacher", "prompt_version": "1", "parameters": "", "shuffle": rng.randrange(SHUFFLE)}
    state = {"status": now.status, "verdicts": now.verdicts, "text": now.text, "overlap": overlap}
    rows[models.Pair].append(about | made | labels | state | {"revision": len(who)})


def decision(rows: Rows, pair_id: int, name: str, revision: int, bad: bool, rng: random.Random) -> dict[str, Any]:
    """What somebody says: mostly what is right, but for the hasty one."""
    notices = bad and name != HASTY and rng.random() < 0.9
    action = rng.choice((Action.REJECT, Action.EDIT)) if notices else Action.ACCEPT
    when = datetime(2026, 11, 1, 8, tzinfo=UTC) + timedelta(seconds=rng.randrange(21 * 86_400))
    return {
        "uuid": str(UUID(int=len(rows[models.Decision]) + 1)),
        "pair_id": pair_id,
        "revision": revision,
        "reviewer": name,
        "action": action,
        "reason": models.Reason.WRONG if action is Action.REJECT else None,
        "text": "Better." if action is Action.EDIT else None,
        "milliseconds": rng.randint(300, 650) if name == HASTY else rng.randint(900, 9000),
        "settles": False,
        "blind": True,
        "created_at": when,
    }


if __name__ == "__main__":
    main()
