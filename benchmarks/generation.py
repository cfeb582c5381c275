"""Whether the generation can be trusted with 87,632 paid requests: speed, crashes, money, memory, batches, keys.

    python benchmarks/generation.py [--json] [--quick] [--only throughput,kills]

Runs `python -m annotation generate` as a process on data directories of its own, against tests/teacher_server.py as
another process on this machine, which fails, limits and bills as it is told to. The one surprising fact: a server at
home answers as fast as it is told, so speed here is the program's, and no provider's.
"""

import argparse
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support.generation_money import dry_run, ledger, max_cost  # noqa: E402 - after the path to this checkout
from support.generation_safety import batch, key, kills, two  # noqa: E402
from support.generation_speed import cap, faults, memory, stops, throughput  # noqa: E402

PARTS = {
    "throughput": throughput,
    "faults": faults,
    "cap": cap,
    "stops": stops,
    "kills": kills,
    "two": two,
    "ledger": ledger,
    "dry-run": dry_run,
    "max-cost": max_cost,
    "memory": memory,
    "batch": batch,
    "key": key,
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="smaller plans: minutes instead of a quarter of an hour")
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {', '.join(PARTS)}, with commas between")
    options = parser.parse_args()
    names = options.only.split(",")
    if unknown := [name for name in names if name not in PARTS]:
        parser.error(f"there is no part {', '.join(unknown)}; expected some of {', '.join(PARTS)}")
    results = {}
    for name in names:
        results[name] = measure(name, options.quick)
        if not options.json:
            print(table(name, results[name]), flush=True)
    if options.json:
        print(json.dumps({"benchmark": "generation", "cores": os.cpu_count(), "parts": results}))


def measure(name: str, quick: bool) -> dict[str, Any]:
    """One part: its figures, whether all its targets are met, and how long it took under which load."""
    began = time.monotonic()
    figures = PARTS[name](quick)
    return {
        "figures": [asdict(figure) for figure in figures],
        "targets_met": all(figure.met is not False for figure in figures),
        "seconds": round(time.monotonic() - began, 1),
        "load_1min": round(os.getloadavg()[0], 1),
    }


def table(name: str, result: dict[str, Any]) -> str:
    """The same for reading."""
    verdict = "all targets met" if result["targets_met"] else "MISSED"
    about = (PARTS[name].__doc__ or "").partition("\n")[0]
    lines = [f"{name}: {about}", f"  ({result['seconds']} s, load {result['load_1min']}): {verdict}"]
    for figure in result["figures"]:
        judged = "" if figure["met"] is None else f"  {'met' if figure['met'] else 'MISSED'} ({figure['target']})"
        lines.append(f"  {figure['name']:58}{figure['value']!s:>12}{judged}")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
