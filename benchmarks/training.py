"""Training side by side with LLaMA-Factory and TRL: same model, pairs, recipe and machine.

    python benchmarks/training.py [--json] [--quick] [--only speed,pairs,linear,memory,exact] [--envs .bench] [--gpu]

speed   CPU seconds and wall seconds a sample, and memory, of every trainer in its own process, one thread each
pairs   the same for 1, 2 and 4 pairs an image, where less or nothing is to share, against LLaMA-Factory's fastest
linear  this trainer's cost of an image with 1 to 16 pairs
memory  its peak memory with 10,000 and with 100,000 pairs
exact   how far its loss and gradients are from a plain padded batch of transformers, in float32

The geometry is that of the reference measurement: InternVL with a tower of 8 layers and a language model of 6, both
256 wide, 256 image tokens, 11,008 words; about 490 tokens a pair. Every side is measured as support/watched.py
describes, in turn (A B C A B C), and the least of the repeats counts, since what else the machine does only ever adds.
LLaMA-Factory and TRL are installed by pip into environments of their own, see support/peer_envs.py; --quick installs
nothing and takes what is there. The one surprising fact: only the first epoch counts, although this trainer keeps the
vision features for later ones: FaceLLM's recipe has one epoch.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support.peer_envs import PEERS, install, installed, own_versions  # noqa: E402 - after the path to this checkout
from support.trainers import BATCH, SIDES, ProcessFailed, Task, run, run_ours  # noqa: E402

WARM_UP = 3  # steps
CHECKOUT = Path(__file__).resolve().parent.parent


class Options(argparse.Namespace):
    """What was asked for."""

    json: bool
    quick: bool
    only: str
    envs: Path
    threads: int
    repeats: int
    steps: int
    sides: str
    folder: Path


def main() -> None:
    """Measure and print."""
    options = parsed()
    results: dict[str, Any] = {}
    peers = {name: version for name in PEERS if (version := ready(name, options))}
    for name in options.only.split(","):
        began = time.monotonic()
        results[name] = PARTS[name](options, peers)
        results[name]["seconds"] = round(time.monotonic() - began)
        if not options.json:
            print(f"\n{name}: {PARTS[name].__doc__}\n{table(name, results[name])}", flush=True)
    if options.json:
        versions = {"ours": own_versions()} | peers
        print(json.dumps({"benchmark": "training", "cores": os.cpu_count(), "versions": versions, "parts": results}))


def parsed() -> Options:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="few steps, no installation")
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {', '.join(PARTS)}, with commas between")
    parser.add_argument("--envs", type=Path, default=CHECKOUT / ".bench", help="where the others are installed")
    parser.add_argument("--threads", type=int, default=1, help="threads and cores of each process")
    parser.add_argument("--repeats", type=int, help="how often each is measured  [default: 3; 1 with --quick]")
    parser.add_argument("--steps", type=int, help="counted steps  [default: 8; 3 with --quick]")
    parser.add_argument("--sides", default=",".join(SIDES), help=f"some of {', '.join(SIDES)}")
    parser.add_argument("--folder", type=Path, help="keep base, images and logs here  [default: a temporary folder]")
    options = parser.parse_args(namespace=Options())
    for given, known in ((options.only, PARTS), (options.sides, SIDES)):
        if unknown := set(given.split(",")) - set(known):
            parser.error(f"there is no {', '.join(sorted(unknown))}; expected some of {', '.join(known)}")
    options.repeats = options.repeats or (1 if options.quick else 3)
    options.steps = options.steps or (3 if options.quick else 8)
    options.envs = options.envs.resolve()
    options.folder = (options.folder or Path(tempfile.mkdtemp(prefix="facellm-training-"))).resolve()
    options.folder.mkdir(parents=True, exist_ok=True)
    return options


def ready(name: str, options: Options) -> dict[str, str] | None:
    """A peer's versions, after it has been installed if need be; None where it cannot be, which is said."""
    if all(SIDES[side].peer != name for side in options.sides.split(",")):
        return None
    found = installed(options.envs, name)
    if found is None and not options.quick:
        print(f"Installing {PEERS[name].requirement} into {options.envs / name} …", file=sys.stderr)
        if reason := install(options.envs, name):
            print(f"{PEERS[name].name} could not be installed: {reason}", file=sys.stderr)
        found = installed(options.envs, name)
    return found


def speed(options: Options, peers: dict[str, Any]) -> dict[str, Any]:
    """every trainer, 8 pairs an image"""
    return compared(options, peers, 8, list(SIDES))


def pairs(options: Options, peers: dict[str, Any]) -> dict[str, Any]:
    """fewer pairs an image, where there is less to share"""
    sides = ["ours", "llamafactory-fastest"]
    return {"per_image": {count: compared(options, peers, count, sides) for count in (1, 2, 4)}}


def compared(options: Options, peers: dict[str, Any], per_image: int, sides: list[str]) -> dict[str, Any]:
    """Every side in turn, as often as there are repeats; what one needs for a sample, and how it compares."""
    task = Task(options.folder, per_image, WARM_UP + options.steps)
    chosen = [side for side in sides if side in options.sides.split(",")]
    rows: dict[str, Any] = {}
    for _ in range(options.repeats):
        for side in chosen:
            row = rows.setdefault(side, {"title": SIDES[side].title, "cpu": [], "wall": [], "memory": []})
            if (peer := SIDES[side].peer) is not None and peer not in peers:
                row["missing"] = "not installed"
                continue
            try:
                done = run(side, task, envs=options.envs, threads=options.threads)
                cpu, wall = done.mean_per_step(WARM_UP)
            except ProcessFailed as error:
                row["missing"] = str(error)
                continue
            first, last = done.steps[WARM_UP - 1], done.steps[-1]
            row["tokens"] = (last.line["tokens"] - first.line["tokens"]) / (last.number - first.number) / BATCH
            row["loss"] = [step.line["loss"] for step in done.steps[:2]]
            row["cpu"].append(cpu / BATCH)
            row["wall"].append(wall / BATCH)
            row["memory"].append(done.memory)
    for row in rows.values():
        if row["cpu"]:
            row["cpu_per_sample"], row["samples_per_second"] = min(row["cpu"]), 1 / min(row["wall"])
            if rows.get("ours", {}).get("cpu"):
                row["ours_faster_cpu"] = min(row["cpu"]) / min(rows["ours"]["cpu"])
                row["ours_faster_wall"] = min(row["wall"]) / min(rows["ours"]["wall"])
    return {"threads": options.threads, "steps": options.steps, "repeats": options.repeats, "rows": rows}


PARTS = {"speed": speed, "pairs": pairs}


def table(name: str, result: dict[str, Any]) -> str:
    """A part for reading."""
    if name == "pairs":
        return "\n".join(f"{count} a image\n{table('speed', each)}" for count, each in result["per_image"].items())
    head = f"{'':36}{'CPU s/sample':>14}{'samples/s':>11}{'tokens':>9}{'memory':>10}{'ours, CPU':>12}{'ours, wall':>12}"
    lines = [head]
    for row in result["rows"].values():
        if not row["cpu"]:
            lines.append(f"{row['title']:36}  {row.get('missing', 'not measured')}")
            continue
        figures = f"{row['cpu_per_sample']:>14.4f}{row['samples_per_second']:>11.2f}{row['tokens']:>9.0f}"
        figures += f"{max(row['memory']) / 1e9:>7.2f} GB"
        if "ours_faster_cpu" in row:
            figures += f"{row['ours_faster_cpu']:>11.2f}×{row['ours_faster_wall']:>11.2f}×"
        lines.append(f"{row['title']:36}{figures}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
