"""What the generation costs: the ledger beside the server's bill, the dry run beside the ledger, and the cost limit."""

from typing import Any

from support.teacher_process import PRICE, Figure, Workplace, at_most, exactly, paid, teacher, workplace

OPTIONS = ("--concurrency", "32", "--timeout", "5")
FAULTS = {"share_429": 0.05, "share_5xx": 0.02, "share_hang": 0.005}
TROUBLE = {
    "share_refused": 0.03,
    "share_said_no": 0.02,
    "share_filtered": 0.02,
    "share_cut": 0.03,
    "share_empty": 0.02,
    "share_invalid_json": 0.05,
    "share_bad_attribute": 0.1,
    "share_cached": 0.3,
}
LITTLE_TROUBLE = {"share_refused": 0.02, "share_cut": 0.01, "share_empty": 0.01, "share_invalid_json": 0.02}
SPENT = "SELECT coalesce(sum(cost_usd), 0) FROM attempts"
WORKERS = 32


def ledger(quick: bool) -> list[Figure]:
    """The sum of the ledger beside tokens × price of the server's log, with all kinds of useless answers in the mix."""
    found = []
    for mode in ("--per-attribute", "--per-image"):
        found += [Figure(mode[2:].replace("-", " "), ""), *_bill(mode, 40 if quick else 150)]
    return found


def _bill(mode: str, images: int) -> list[Figure]:
    with teacher(latency_s=0.05, **TROUBLE, **FAULTS) as served, workplace(images, served) as place:
        outcome = place.run(*OPTIONS, mode)
        records = served.records()
        spent = place.one(SPENT)
        told = place.one("SELECT sum(cost_usd) FROM generation_runs")
        rows = place.one("SELECT count(*) FROM attempts WHERE input_tokens IS NOT NULL")
        open_tasks = "SELECT count(*) FROM tasks WHERE state NOT IN ('ok', 'refused', 'filtered', 'cut', 'invalid'"
        unfinished = place.one(f"{open_tasks}, 'fallback')")
        attempts = place.one("SELECT count(*) FROM attempts")
    bill = paid(records)
    answered = sum(record["status"] == 200 for record in records)
    cached = sum(record["cached_tokens"] > 0 for record in records)
    useless = sum(record["status"] == 200 and record["outcome"] != "ok" for record in records)
    return [
        Figure("requests", len(records)),
        Figure("answers that are not simply good, and paid", useless),
        Figure("answers with cached input", cached),
        Figure("USD by the server's log", round(bill, 6)),
        Figure("USD by the ledger", round(spent, 6)),
        at_most("difference, USD", abs(spent - bill), 0.0001),
        at_most("difference of what the run says, USD", abs(told - bill), 0.0001),
        at_most("difference of what --json says, USD", abs(outcome["cost_usd"] - bill), 0.0001),
        exactly("ledger rows less answers", rows - answered, 0),
        exactly("ledger rows less requests", attempts - len(records), 0),
        exactly("tasks without an end", unfinished, 0),
    ]


def dry_run(quick: bool) -> list[Figure]:
    """The dry run beside what the same plan then costs; the server's answers are as long as models make them."""
    found = []
    single, combined = (40, 90) if quick else (150, 300)
    found += [Figure("per attribute, 50 requests to learn from", ""), *_foretold("--per-attribute", single, 7)]
    return found + [Figure("per image, 50 requests to learn from", ""), *_foretold("--per-image", combined, 50)]


def _foretold(mode: str, images: int, learned: int) -> list[Figure]:
    models = {"gpt-4o": "gpt-4o-2024-11-20"}
    told: dict[str, Any] = {"model": "gpt-4o"}
    with teacher(latency_s=0.05, models=models, **LITTLE_TROUBLE) as served, workplace(images, served) as place:
        before = _estimate(place, mode, **told)
        place.run(*OPTIONS, mode, "--limit", str(learned), **told)
        first = place.one(SPENT)
        after = _estimate(place, mode, **told)
        sent = served.requests
        place.run(*OPTIONS, mode, **told)
        real = place.one(SPENT)
    return [
        Figure("requests of the first run", sent),
        Figure("foretold before any request, USD", round(before["cost_usd"], 4)),
        Figure("and in truth", round(real, 4)),
        at_most("relative error", abs(before["cost_usd"] / real - 1), 0.10),
        Figure("basis then", after["basis"]),
        Figure("foretold of the rest, USD", round(after["cost_usd"], 4)),
        Figure("and in truth, of the rest", round(real - first, 4)),
        at_most("relative error, of the rest", abs(after["cost_usd"] / (real - first) - 1), 0.03),
    ]


def _estimate(place: Workplace, *options: str, **told: Any) -> dict[str, Any]:
    return place.run(*options, "--dry-run", **told)


def max_cost(quick: bool) -> list[Figure]:
    """How far beyond --max-cost a run goes: no further than what was in flight."""
    found = []
    images = 40 if quick else 100
    for share in (0.02, 0.5):
        with teacher(latency_s=0.3, share_said_no=0.05) as served, workplace(images, served) as place:
            limit = round(share * place.run("--dry-run")["cost_usd"], 6)
            outcome = place.run(*OPTIONS, "--max-cost", str(limit))
            spent, dearest = place.one(SPENT), place.one("SELECT max(cost_usd) FROM attempts")
            bill = paid(served.records(), PRICE)
            claimed = place.one("SELECT count(*) FROM tasks WHERE state = 'claimed'")
        found += [
            Figure("limit, USD", limit),
            Figure("spent, USD", round(spent, 6)),
            at_most("beyond the limit, in requests of the dearest kind", (spent - limit) / dearest, WORKERS),
            at_most("ledger less bill, USD", abs(spent - bill), 0.0001),
            exactly("state of the run", outcome["state"], "stopped"),
            exactly("tasks still claimed", claimed, 0),
        ]
    return found
