"""What the generation survives: kill -9, two processes at once, batches with gaps; and where its key is to be found."""

import json
import random
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.teacher_process import KEY, Figure, Workplace, at_least, at_most, exactly, teacher, wait_until, workplace

WORKERS = 32
OPTIONS = ("--concurrency", str(WORKERS), "--timeout", "5")
Question = tuple[str, str]  # SHA-256 of the image, attribute


@dataclass(frozen=True)
class _Kill:
    """One process that was killed."""

    first: int  # number of the first request that it sent
    after: int  # and of the first one that it did not send
    stored: set[Question]  # what had an end in the database then


def kills(quick: bool) -> list[Figure]:
    """kill -9 at random moments, then a run that finishes, then one that has nothing to do."""
    count, images = (4, 60) if quick else (20, 300)
    rng = random.Random(4)
    with teacher(latency_s=0.5) as served, workplace(images, served) as place:
        done = [_killed(place, rng.uniform(0.0, 3.0), asking=number % 4 > 0) for number in range(count)]
        outcome = place.run(*OPTIONS)
        sent = served.requests
        place.run(*OPTIONS)
        sent_again = served.requests - sent
        records = served.records()
        pairs, twice = place.pairs()
    asked = [_question(record) for record in records]
    resent = [len(_of(asked, kill) & set(asked[kill.after :])) for kill in done]
    in_flight = [len(_of(asked, kill) - kill.stored) for kill in done]
    paid_twice = sum(n - 1 for n in Counter(asked[i] for i, r in enumerate(records) if not r["gone"]).values())
    again = [len(kill.stored & set(asked[kill.after :])) for kill in done]
    return [
        Figure("processes killed", count),
        at_least("of them while requests were in flight", sum(n > 0 for n in in_flight), count / 2),
        exactly("pairs in the end", pairs, images * 8),
        exactly("pairs that are there twice", twice, 0),
        exactly("failed tasks", outcome["ends"].get("failed", 0), 0),
        Figure("requests sent again after a kill, all", sum(resent)),
        at_most("requests sent again beyond those in flight", max(map(_beyond, resent, in_flight)), 0),
        at_most("most in flight at a kill", max(in_flight), WORKERS),
        exactly("stored answers that were asked for again", sum(again), 0),
        Figure("answers that were sent but lost, and so paid twice", paid_twice),
        exactly("requests of a run with nothing to do", sent_again, 0),
    ]


def _killed(place: Workplace, seconds: float, *, asking: bool) -> _Kill:
    """Start a run, and kill it some seconds after that or, with `asking`, after its first request."""
    first = place.teacher.requests
    process = place.start(*OPTIONS)
    if asking:
        wait_until(lambda: place.teacher.requests > first, 60)
    time.sleep(seconds)
    process.kill()
    place.finish(process)
    wait_until(lambda: not place.teacher.control()["in_flight"], 10)
    return _Kill(first, place.teacher.requests, place.finished())


def _of(asked: list[Question], kill: _Kill) -> set[Question]:
    return set(asked[kill.first : kill.after])


def _beyond(resent: int, in_flight: int) -> int:
    return max(0, resent - in_flight)


def _question(record: dict[str, Any]) -> Question:
    return record["image"], record["attributes"][0]


def two(quick: bool) -> list[Figure]:
    """Two processes at one database; then two more, of which one is killed on the way."""
    images = 40 if quick else 120
    with teacher(latency_s=0.3) as served, workplace(images, served) as place:
        statuses, shares = _together(place, kill=False)
        records = served.records()
        pairs, twice = place.pairs()
    with teacher(latency_s=0.3) as served, workplace(images, served) as place:
        _together(place, kill=True)
        left_pairs, left_twice = place.pairs()
        abandoned = sum(record["gone"] for record in served.records())
        more = served.requests - images * 8
    return [
        Figure("tasks", images * 8),
        exactly("requests of both", len(records), images * 8),
        exactly("questions sent twice", len(records) - len({_question(record) for record in records}), 0),
        Figure("share of the smaller half", round(min(shares) / max(1, sum(shares)), 2)),
        exactly("pairs", pairs, images * 8),
        exactly("pairs that are there twice", twice, 0),
        exactly("exit statuses", statuses, [0, 0]),
        exactly("pairs where one of two was killed", left_pairs, images * 8),
        exactly("of them twice", left_twice, 0),
        Figure("requests that the killed one left open", abandoned),
        at_most("requests sent again after that", more, WORKERS),
    ]


def _together(place: Workplace, *, kill: bool) -> tuple[list[int], list[int]]:
    """Exit statuses, and how many tasks each did."""
    both = [place.start(*OPTIONS, "--json") for _ in range(2)]
    if kill:
        wait_until(lambda: place.teacher.requests > 150, 60)
        both[0].kill()
    statuses = [place.finish(process)[0] for process in both]
    rows = place.rows("SELECT count(*) FROM attempts WHERE state = 'ok' GROUP BY run_id")
    return statuses, [row[0] for row in rows]


def key(quick: bool) -> list[Figure]:  # noqa: ARG001 - every part is called alike
    """A key of its own kind, servers that quote it in all they say, and a look into everything that is left behind."""
    found: list[str] = []
    pairs = 0
    quoting = {"says": f"Something about {KEY} and {{key}} is wrong."}
    trials: list[dict[str, Any]] = [{"api_key": KEY}, {"api_key": "another"}]
    trials += [quoting | {"status": status} for status in (400, 403, 429, 500)]
    trials.append({"redirect_to": f"http://127.0.0.1:9/{KEY}"})
    for behaviour in trials:
        with teacher(**behaviour) as served, workplace(2, served) as place:
            _give_time(place, place.start("--timeout", "5", "--concurrency", "4", "--limit", "1"))
            place.finish(place.start("--dry-run"))
            pairs += place.pairs()[0]
            found += [str(path) for path in place.data_dir.rglob("*") if _holds(path)]
            found += [text[:200] for text in place.said if KEY in text]
    return [
        Figure("servers, each with another mistake", len(trials)),
        exactly("pairs of the one that takes the key", pairs, 8),
        exactly("files and outputs that hold the key", len(found), 0),
    ]


def _give_time(place: Workplace, process: "subprocess.Popen[str]") -> None:
    """A server that is never any use may be asked for long: end it by Ctrl-C after some seconds."""
    try:
        process.wait(8)
    except subprocess.TimeoutExpired:
        process.terminate()
    place.finish(process)


def _holds(path: Path) -> bool:
    return path.is_file() and KEY.encode() in path.read_bytes()


def batch(quick: bool) -> list[Figure]:
    """Batches whose rows come back shuffled, with gaps and errors, expired, and cut at the limits."""
    images = 30 if quick else 120
    gaps = {"batch_share_missing": 0.05, "batch_share_errors": 0.05, "batch_seconds": 1.0}
    with teacher(**gaps, batch_share_done=0.8) as served, workplace(images, served) as place:
        first = place.run("--batch", "--poll", "0.3", statuses=(0, 3))
        served.control(batch_share_missing=0.0, batch_share_errors=0.0, batch_share_done=1.0)
        last = place.run("--resume", "--poll", "0.3")
        more = place.run("--resume", "--poll", "0.3")
        answers = Counter(_question(record) for record in served.records() if record["status"] == 200)
        pairs, twice = place.pairs()
        batches = place.rows("SELECT remote_id, requests FROM batches ORDER BY id")
    return [
        Figure("tasks", images * 8),
        Figure("rows of each batch", " ".join(str(row[1]) for row in batches)),
        Figure("ended in the first run", first["finished"]),
        exactly("pairs in the end", pairs, images * 8),
        exactly("pairs that are there twice", twice, 0),
        exactly("questions that were answered twice", sum(n > 1 for n in answers.values()), 0),
        exactly("requests of a run with nothing to do", more["requests"], 0),
        Figure("requests of --resume", last["requests"]),
        *_kills_of_batches(quick),
        *_split(quick),
    ]


def _kills_of_batches(quick: bool) -> list[Figure]:
    """kill -9 while files are written, sent and collected: no batch may be sent twice."""
    images, count = (20, 3) if quick else (60, 10)
    rng = random.Random(6)
    with teacher(batch_seconds=4.0) as served, workplace(images, served) as place:
        for _ in range(count):
            process = place.start("--batch", "--poll", "0.3")
            time.sleep(rng.uniform(1.0, 4.0))
            process.kill()
            place.finish(process)
        place.run("--batch", "--poll", "0.3")
        pairs, twice = place.pairs()
        answers = Counter(_question(record) for record in served.records())
    return [
        Figure("batch runs killed", count),
        exactly("pairs after that", pairs, images * 8),
        exactly("of them twice", twice, 0),
        exactly("questions that a batch asked twice after that", sum(n > 1 for n in answers.values()), 0),
    ]


def _split(quick: bool) -> list[Figure]:
    """A queue that takes little makes batches smaller; the limits of a file do so, too."""
    images = 20 if quick else 3600
    small = {"batch_queued_tokens": 40_000} if quick else {}
    with teacher(batch_seconds=0.5, **small) as served, workplace(images, served) as place:
        place.run("--batch", "--poll", "0.5")
        sizes = place.rows("SELECT requests, bytes FROM batches WHERE state = 'collected'")
        states = Counter(record["status"] for record in served.records())
        pairs, twice = place.pairs()
    return [
        Figure("files of a larger plan, requests", " ".join(str(row[0]) for row in sizes)),
        at_most("megabytes of the largest", max(row[1] for row in sizes) / 1e6, 200),
        exactly("files are several", len(sizes) > 1, True),
        exactly("pairs of that plan", pairs, images * 8),
        exactly("of them twice", twice, 0),
        exactly("statuses of its rows", json.dumps(states), json.dumps({200: images * 8})),
    ]
