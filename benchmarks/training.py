"""Training side by side with LLaMA-Factory and TRL: same model, pairs, recipe and machine.

    python benchmarks/training.py [--json] [--quick] [--only speed,pairs,linear,memory,exact] [--envs .bench]
    python benchmarks/training.py --gpu     instead of these: InternVL3-1B and 8B geometry on a GPU, beside TRL

speed   CPU and wall time of a sample, and memory, of every trainer in its own process, one thread each; --threads 2
pairs   the same for 1, 2 and 4 pairs of an image, where less or nothing is to share, beside LLaMA-Factory's fastest
linear  this trainer's cost of an image with 1 to 16 pairs
memory  its peak memory with 10,000 and with 100,000 pairs
exact   how far its loss and gradients are from those of a plain padded batch of transformers, in float32

The geometry is that of the reference measurement: InternVL with a tower of 8 layers and a language model of 6, both
256 wide, 256 image tokens, 11,008 words; about 490 tokens a pair. Every side is measured as support/watched.py
describes, in turn (A B C A B C), and the least of the repeats counts, since what else the machine does only ever adds.
LLaMA-Factory and TRL are installed by pip into environments of their own, see support/peer_envs.py; --quick installs
nothing and takes what is there. The one surprising fact: what counts is the first epoch, although this trainer keeps
the vision features for later ones, since FaceLLM's recipe has one; later ones are printed beside it.
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
from support.trainers import BATCH, CHECKOUT, SIDES, Task, run  # noqa: E402
from support.training_exact import exact as exactness  # noqa: E402
from support.training_gpu import NoGpu  # noqa: E402
from support.training_gpu import gpu as on_gpu  # noqa: E402
from support.training_growth import linear as growth  # noqa: E402
from support.training_growth import memory as memory_by_pairs  # noqa: E402
from support.watched import ProcessFailed, Watched  # noqa: E402

WARM_UP = 3  # steps
MOST_LOSS_DIFFERENCE, MOST_GRADIENT_ERROR = 1e-6, 1e-5
MOST_OFF_THE_LINE = 0.15  # of the cost of an image
FLAT = 1.05  # times the memory for ten times the pairs
WITH_PEERS = {"speed", "pairs", "gpu"}
# At least so many times as fast in CPU time; with 1, 2 and 4 pairs an image, as the fastest of LLaMA-Factory.
TARGETS = {"llamafactory": 6.0, "llamafactory-fastest": 4.0, "trl-fastest": 6.0}
NEVER_SLOWER = {"llamafactory-fastest": 1.0}


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
    gpu: bool


def main() -> None:
    """Measure and print."""
    options = parsed()
    with tempfile.TemporaryDirectory(prefix="facellm-training-") as temporary:
        options.folder = (options.folder or Path(temporary)).resolve()
        options.folder.mkdir(parents=True, exist_ok=True)
        measure(options)


def measure(options: Options) -> None:
    """All parts that were asked for."""
    parts = ["gpu"] if options.gpu else options.only.split(",")
    wanted = [name for name in PEERS if WITH_PEERS & set(parts)]
    peers = {name: versions for name in wanted if (versions := ready(name, options))}
    results: dict[str, Any] = {}
    for name in parts:
        began = time.monotonic()
        try:
            results[name] = PARTS[name](options, peers)
        except (NoGpu, ProcessFailed) as error:
            sys.exit(f"{name}: {error}")
        results[name] |= {"seconds": round(time.monotonic() - began), "load_1min": round(os.getloadavg()[0], 1)}
        if not options.json:
            print(f"{name}: {PARTS[name].__doc__}\n{TABLES[name](results[name])}\n", flush=True)
    versions = {"ours": own_versions()} | peers
    if options.json:
        print(json.dumps({"benchmark": "training", "cores": os.cpu_count(), "versions": versions, "parts": results}))
    else:
        for name, each in versions.items():
            print(f"{name}: " + ", ".join(f"{package} {version}" for package, version in each.items()))


def parsed() -> Options:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="few steps, no installation")
    parser.add_argument("--only", default="speed,pairs,linear,memory,exact", help="some of these")
    parser.add_argument("--envs", type=Path, default=CHECKOUT / ".bench", help="where the others are installed")
    parser.add_argument("--threads", type=int, default=1, help="threads and cores of each process")
    parser.add_argument("--repeats", type=int, help="how often each is measured  [default: 3; 1 with --quick]")
    parser.add_argument("--steps", type=int, help="counted steps  [default: 8; 3 with --quick]")
    parser.add_argument("--sides", default=",".join(SIDES), help=f"some of {', '.join(SIDES)}")
    parser.add_argument("--folder", type=Path, help="keep base, images and logs here  [default: a temporary folder]")
    parser.add_argument("--gpu", action="store_true", help="InternVL3-1B and 8B geometry on a GPU, and nothing else")
    options = parser.parse_args(namespace=Options())
    for given, known in ((options.only, PARTS), (options.sides, SIDES)):
        if unknown := set(given.split(",")) - set(known):
            parser.error(f"there is no {', '.join(sorted(unknown))}; expected some of {', '.join(known)}")
    options.repeats = options.repeats or (1 if options.quick else 3)
    options.steps = options.steps or (3 if options.quick else 8)
    options.envs = options.envs.resolve()
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
    """every trainer, 8 pairs an image, each image for the first time"""
    return compared(options, peers, 8, list(SIDES), TARGETS)


def pairs(options: Options, peers: dict[str, Any]) -> dict[str, Any]:
    """fewer pairs an image, where less or nothing is to share"""
    sides = ["ours", "llamafactory-fastest"]
    return {"per_image": {count: compared(options, peers, count, sides, NEVER_SLOWER) for count in (1, 2, 4)}}


def compared(
    options: Options, peers: dict[str, Any], per_image: int, sides: list[str], targets: dict[str, float]
) -> dict[str, Any]:
    """Every side in turn, as often as there are repeats; what one needs for a sample, and how ours compares."""
    rows: dict[str, Any] = {side: {"title": SIDES[side].title} for side in sides if side in options.sides.split(",")}
    runs: dict[str, list[Watched]] = {side: [] for side in rows}
    for _ in range(options.repeats):
        for side, row in rows.items():
            if (peer := SIDES[side].peer) is not None and peer not in peers:
                row["missing"] = "not installed"
                continue
            images = None if SIDES[side].first else WARM_UP * BATCH // per_image  # the warm-up is the first epoch
            task = Task(options.folder, per_image, WARM_UP + options.steps, images=images)
            try:
                done = run(side, task, envs=options.envs, threads=options.threads)
                cpu, wall = done.per_step(WARM_UP)
                runs[side].append(done)
                said = f"{row['title']}: {cpu / BATCH:.4f} CPU s and {wall / BATCH:.4f} s a sample"
                print(said, file=sys.stderr, flush=True)  # a run of many minutes can be cut off
            except ProcessFailed as error:
                row["missing"] = str(error)
    for side, found in runs.items():
        if found:
            rows[side] |= summary(found)
    compare(rows, targets)
    return {"threads": options.threads, "steps": options.steps, "repeats": options.repeats, "rows": rows}


def summary(runs: list[Watched]) -> dict[str, Any]:
    """What a sample costs, the least of the repeats; all of them are kept, too."""
    steps = [run.per_step(WARM_UP) for run in runs]
    first, last = runs[0].steps[WARM_UP - 1], runs[0].steps[-1]
    return {
        "cpu_per_sample": min(cpu for cpu, _ in steps) / BATCH,
        "samples_per_second": BATCH / min(wall for _, wall in steps),
        "tokens_per_sample": (last.line["tokens"] - first.line["tokens"]) / (last.number - first.number) / BATCH,
        "memory": max(run.memory for run in runs),
        "whole_run_cpu": min(run.cpu for run in runs),
        "losses": [step.line["loss"] for step in runs[0].steps],
        "repeats_cpu": [cpu / BATCH for cpu, _ in steps],
        "repeats_wall": [wall / BATCH for _, wall in steps],
    }


def compare(rows: dict[str, Any], targets: dict[str, float]) -> None:
    """Add to each peer's row how many times as fast ours is, and whether that is enough."""
    ours = rows.get("ours", {})
    if "cpu_per_sample" not in ours:
        return
    for side, row in rows.items():
        if SIDES[side].peer is None or "cpu_per_sample" not in row:
            continue
        row["ours_faster_cpu"] = row["cpu_per_sample"] / ours["cpu_per_sample"]
        row["ours_faster_wall"] = ours["samples_per_second"] / row["samples_per_second"]
        if side in targets:
            row["target"] = targets[side]
            row["met"] = row["ours_faster_cpu"] >= targets[side] and ours["memory"] <= row["memory"]


def linear(options: Options, _: dict[str, Any]) -> dict[str, Any]:
    """this trainer's cost of an image by the number of its pairs; a row over the cutoff becomes two"""
    return growth(options.folder, steps=options.steps, repeats=options.repeats, threads=options.threads)


def memory(options: Options, _: dict[str, Any]) -> dict[str, Any]:
    """the most memory of this trainer by the number of pairs"""
    sizes = (1_000, 10_000) if options.quick else (10_000, 100_000)
    return memory_by_pairs(options.folder, sizes=sizes, threads=options.threads)


def exact(options: Options, _: dict[str, Any]) -> dict[str, Any]:
    """one step against a plain padded batch of transformers, in float32"""
    return {"cases": exactness(options.folder, options.threads)}


def gpu(options: Options, peers: dict[str, Any]) -> dict[str, Any]:
    """InternVL3's sizes with random weights, 16 pairs a step, 8 an image"""
    return {"rows": on_gpu(options.folder, envs=options.envs, steps=options.steps, peers=peers)}


def speed_table(result: dict[str, Any]) -> str:
    """Sides one under another."""
    columns = ("CPU s/sample", "samples/s", "tokens", "memory", "ours, CPU", "ours, wall")
    lines = [f"{'':34}" + "".join(f"{column:>13}" for column in columns)]
    for row in result["rows"].values():
        if "cpu_per_sample" not in row:
            lines.append(f"{row['title']:34}  {row['missing']}")
            continue
        figures = [f"{row['cpu_per_sample']:.4f}", f"{row['samples_per_second']:.2f}"]
        figures += [f"{row['tokens_per_sample']:.0f}", f"{row['memory'] / 1e9:.2f} GB"]
        if "ours_faster_cpu" in row:
            figures += [f"{row['ours_faster_cpu']:.2f}×", f"{row['ours_faster_wall']:.2f}×"]
        verdict = f"  {'met' if row['met'] else 'MISSED'} (≥ {row['target']:g}×, memory ≤)" if "met" in row else ""
        lines.append(f"{row['title']:34}" + "".join(f"{figure:>13}" for figure in figures) + verdict)
    return "\n".join([*lines, "{repeats} × {steps} steps; threads of each process: {threads}".format(**result)])


def pairs_table(result: dict[str, Any]) -> str:
    """The same for each number of pairs."""
    return "\n".join(f"{count} an image\n{speed_table(each)}" for count, each in result["per_image"].items())


def linear_table(result: dict[str, Any]) -> str:
    """Pairs one under another."""
    lines = [
        f"{count:>4} pairs{seconds:>10.4f} CPU s an image{seconds / count:>10.4f} a pair"
        f"{result['tokens_per_image'][count]:>8.0f} tokens"
        for count, seconds in result["cpu_per_image"].items()
    ]
    verdict = "met" if result["furthest"] <= MOST_OFF_THE_LINE else "MISSED"
    line = f"line: {result['start']:.4f} + {result['per_pair']:.4f} a pair; furthest from it {result['furthest']:.1%}"
    return "\n".join([*lines, f"{line}  {verdict} (≤ {MOST_OFF_THE_LINE:.0%})"])


def memory_table(result: dict[str, Any]) -> str:
    """Sizes one under another."""
    lines = [
        f"{size:>8,} pairs{each['memory'] / 1e9:>8.3f} GB{each['first_step_cpu']:>8.1f} CPU s to the first step's end"
        for size, each in result["sizes"].items()
    ]
    used = [each["memory"] for each in result["sizes"].values()]
    verdict = "met" if used[-1] <= FLAT * used[0] else "MISSED"
    about = f"{used[-1] / used[0]:.3f}× the memory; {result['bytes_per_pair']:.0f} bytes more for each pair"
    return "\n".join([*lines, f"{about}  {verdict} (≤ {FLAT}×)"])


def exact_table(result: dict[str, Any]) -> str:
    """Cases one under another."""
    lines = []
    for each in result["cases"]:
        is_met = each["loss_difference"] <= MOST_LOSS_DIFFERENCE and each["gradient_error"] <= MOST_GRADIENT_ERROR
        lines.append(
            f"{each['case']:44} loss {each['loss']:.6f}, difference {each['loss_difference']:.1e}, "
            f"gradient error {each['gradient_error']:.1e}  {'met' if is_met else 'MISSED'}"
        )
    return "\n".join(lines)


def gpu_table(result: dict[str, Any]) -> str:
    """Sizes and sides one under another."""
    lines = [result["rows"][0]["card"]]
    for row in result["rows"]:
        figures = row.get("missing") or (
            f"{row['samples_per_second']:8.2f} samples/s{row['tokens_per_second']:10.0f} tokens/s  "
            + (f"{row['share_of_peak']:.1%} of the peak" if row["share_of_peak"] else "peak not known")
        )
        lines.append(f"{row['size']:4}{row['title']:34}{figures}")
    return "\n".join(lines)


PARTS = {"speed": speed, "pairs": pairs, "linear": linear, "memory": memory, "exact": exact, "gpu": gpu}
TABLES = {
    "speed": speed_table,
    "pairs": pairs_table,
    "linear": linear_table,
    "memory": memory_table,
    "exact": exact_table,
    "gpu": gpu_table,
}

if __name__ == "__main__":
    main()
