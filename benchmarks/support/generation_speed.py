"""How fast the generation is: beside a loop that asks one by one, below a limit that nobody announced, in memory."""

import base64
import resource
import signal
import statistics
import subprocess
import time
from typing import Any

import openai
from support.teacher_process import (
    KEY,
    MODEL,
    Figure,
    Workplace,
    at_least,
    at_most,
    exactly,
    peak_memory_mb,
    teacher,
    wait_until,
    workplace,
)

LATENCY = 0.5
FAULTS = {"share_429": 0.05, "share_5xx": 0.02, "share_hang": 0.005}
MANY_FAULTS = {"share_429": 0.09, "share_5xx": 0.07, "share_hang": 0.01, "share_hang_up": 0.03}
WORKERS = ("--concurrency", "32", "--timeout", "5")
CAP = 20  # requests per second


def throughput(quick: bool) -> list[Figure]:
    """2,000 tasks with 32 workers, beside a sequential loop at the same server."""
    tasks = 400 if quick else 2000
    with teacher(latency_s=LATENCY, **FAULTS) as served, workplace(tasks // 8, served) as place:
        bare, polite = _loop(place, 10 if quick else 40, 0.0), _loop(place, 4 if quick else 12, 1.0)
        before = served.requests
        began, cpu = time.monotonic(), _cpu_of_children()
        outcome = place.run(*WORKERS)
        seconds, cpu = time.monotonic() - began, _cpu_of_children() - cpu
        records = served.records(before)
        complete = _complete(place, tasks, outcome)
    per_s = tasks / seconds
    faulty = sum(record["outcome"] != "ok" for record in records)
    return [
        Figure("tasks", tasks),
        Figure("requests that the server spoilt", faulty),
        Figure("seconds, start of Python included", round(seconds, 1)),
        at_least("tasks per second", per_s, 40 if not quick else 0),
        Figure("processor time for each request, ms", round(1000 * cpu / len(records), 2)),
        Figure("tasks per second while it was asking", round(outcome["finished"] / outcome["seconds"], 1)),
        Figure("sequential loop, answers per second", round(bare, 3)),
        Figure("the same with a second of sleep", round(polite, 3)),
        at_least("times the loop", per_s / bare, 20),
        at_least("times the loop with its sleep", per_s / polite, 55),
        *complete,
    ]


def faults(quick: bool) -> list[Figure]:
    """A fifth of all requests is spoilt."""
    tasks = 160 if quick else 800
    with teacher(latency_s=LATENCY, **MANY_FAULTS) as served, workplace(tasks // 8, served) as place:
        outcome = place.run(*WORKERS)
        records = served.records()
        complete = _complete(place, tasks, outcome)
    faulty = sum(record["outcome"] != "ok" for record in records) / len(records)
    return [
        Figure("tasks", tasks),
        Figure("share of requests spoilt", round(faulty, 3)),
        *complete,
    ]


def _cpu_of_children() -> float:
    """Seconds of processor time of the commands that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _complete(place: Workplace, tasks: int, outcome: dict[str, Any]) -> list[Figure]:
    pairs, twice = place.pairs()
    return [
        exactly("failed tasks", outcome["ends"].get("failed", 0), 0),
        exactly("pairs", pairs, tasks),
        exactly("pairs that are there twice", twice, 0),
    ]


def _loop(place: Workplace, count: int, sleep: float) -> float:
    """Answers per second of the original's way: one request, a pause, the next one.

    By the median, so that a request that the server lets hang does not flatter us; what fails is not counted.
    """
    seconds = []
    paths = [row[0] for row in place.rows("SELECT path FROM images LIMIT ?", count)]
    with openai.OpenAI(base_url=place.teacher.url, api_key=KEY, max_retries=0, timeout=5) as client:
        for number in range(count):
            data = base64.b64encode((place.data_dir / paths[number % len(paths)]).read_bytes()).decode()
            image = {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{data}"}}
            content: Any = [{"type": "text", "text": f"Describe the pose of the head. ({number})"}, image]
            began = time.monotonic()
            try:
                client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": content}])
            except openai.APIError:
                continue
            time.sleep(sleep)
            seconds.append(time.monotonic() - began)
    return 1 / statistics.median(seconds)


def cap(quick: bool) -> list[Figure]:
    """A limit of 20 requests per second that nobody announced, and then of 40."""
    settle, window = (15, 15) if quick else (20, 40)
    with teacher(latency_s=LATENCY, cap_per_s=CAP) as served, workplace(300 if quick else 500, served) as place:
        process = place.start(*WORKERS, "--json")
        wait_until(lambda: served.requests, 60)
        began = time.time()
        time.sleep(settle + window)
        served.control(cap_per_s=2 * CAP)
        doubled = time.time()
        time.sleep(20 + window / 2)
        ended = time.time()
        stopped = _interrupt(place, process)
        records = served.records()
    used, limited = _use(records, began + settle, doubled, CAP)
    later, limited_later = _use(records, doubled + 20, ended, 2 * CAP)
    first, _ = _use(records, began, began + settle, CAP)
    return [
        Figure(f"used of the limit, first {settle} s", round(first, 3)),
        at_least(f"used of the limit, {window} s after that", used, 0.85),
        at_most("share of 429s in that time", limited, 0.03),
        at_most("seconds until the doubled limit was used to 85 %", _regained(records, doubled, ended), 20),
        at_least("used of the doubled limit from 20 s on", later, 0.85),
        at_most("share of 429s in that time", limited_later, 0.03),
        *stopped,
    ]


def _use(records: list[dict[str, Any]], since: float, until: float, limit: float) -> tuple[float, float]:
    """(share of the limit that was used, share of requests above it) between two times."""
    these = [record for record in records if since <= record["received"] < until]
    over = sum(record["outcome"] == "cap" for record in these)
    return (len(these) - over) / (until - since) / limit, over / max(1, len(these))


def _regained(records: list[dict[str, Any]], doubled: float, ended: float) -> float:
    """Seconds from the doubling until the first five began in which 85 % of it were used."""
    for start in range(int(ended - doubled) - 4):
        if _use(records, doubled + start, doubled + start + 5, 2 * CAP)[0] >= 0.85:
            return start
    return float("inf")


def stops(quick: bool) -> list[Figure]:
    """What no patience helps against ends the run; what a server asks to be waited for is waited for."""
    images, quota, wait = (20, 60, 2.0) if quick else (60, 200, 3.0)
    with teacher(latency_s=0.3, quota=quota) as served, workplace(images, served) as place:
        status, _ = place.finish(place.start(*WORKERS))
        beyond = served.requests - quota
        kept = place.pairs()[0]
    with teacher(api_key="another") as served, workplace(images, served) as place:
        refused, _ = place.finish(place.start(*WORKERS))
        asked = served.requests
    with teacher(latency_s=0.1, share_429=0.06, retry_after_s=wait) as served, workplace(images, served) as place:
        place.run(*WORKERS)
        waits = _waits(served.records())
    return [
        exactly("exit status when the quota is used up", status, 1),
        at_most("requests after that", beyond, 32),
        exactly("pairs of the answers before that", kept, quota),
        exactly("exit status where the key is refused", refused, 1),
        at_most("requests with it", asked, 32),
        Figure("requests that were asked to wait", len(waits)),
        at_least("shortest wait, as a share of Retry-After", min(waits) / wait, 0.99),
        at_most("median wait, the same", statistics.median(waits) / wait, 1.1),
    ]


def _waits(records: list[dict[str, Any]]) -> list[float]:
    """Seconds from each 429 to the next request of the same content."""
    refused: dict[str, float] = {}
    waits = []
    for record in records:
        if record["key"] in refused:
            waits.append(record["received"] - refused.pop(record["key"]))
        if record["status"] == 429:
            refused[record["key"]] = record["received"]
    return waits


def memory(quick: bool) -> list[Figure]:
    """All of FairFace's validation set: 87,632 tasks."""
    images, seconds = (2000, 15) if quick else (10_954, 90)
    with teacher(latency_s=0.0) as served, workplace(images, served) as place:
        dry = place.start("--dry-run", "--json")
        dry_peak = _peak(dry, 300)
        place.finish(dry)
        process = place.start("--concurrency", "64", "--timeout", "5", "--json")
        wait_until(lambda: served.requests, 120)
        peak = _peak(process, seconds)
        stopped = _interrupt(place, process)
        answered = sum(record["status"] == 200 for record in served.records())
        kept = place.one("SELECT count(*) FROM pairs")
    return [
        Figure("tasks", images * 8),
        at_most("peak memory of the dry run, MB", dry_peak, 500),
        at_most(f"peak memory in {seconds} s of asking without latency, MB", peak, 500),
        Figure("answers in that time", answered),
        Figure("answers per second", round(answered / seconds, 1)),
        exactly("answers that were not stored", answered - kept, 0),
        *stopped,
    ]


def _peak(process: "subprocess.Popen[str]", seconds: float) -> float:
    """The most memory of a process within some seconds, MB."""
    peak, until = 0.0, time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < until:
        peak = max(peak, peak_memory_mb(process.pid))
        time.sleep(0.2)
    return peak


def _interrupt(place: Workplace, process: "subprocess.Popen[str]") -> list[Figure]:
    """Press Ctrl-C, and see that what was in flight is waited for and stored."""
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    status, _ = place.finish(process, timeout=60)
    gone = sum(record["gone"] for record in place.teacher.records())
    return [
        at_most("seconds from Ctrl-C to the end", time.monotonic() - began, 5),
        exactly("exit status after Ctrl-C", status, 0),
        exactly("requests that were broken off by Ctrl-C", gone, 0),
        exactly("tasks still claimed", place.one("SELECT count(*) FROM tasks WHERE state = 'claimed'"), 0),
    ]
