"""How far the estimate of a run was off: python benchmarks/estimates.py [--json] [--quick]

Makes runs on models with random weights, asks `python -m facellm estimate`, then trains each in a process of its own
and prints its peak memory and its seconds beside the estimate. The one surprising fact: the peak is the kernel's own
count for the process, which includes the pages of libraries that other processes share.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.geometry import save_random

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from facellm import face_text, faces
from facellm.config import EMBEDDED_BASE, ROOT
from facellm.data import Attribute, Example, Provenance, sha256_file, write_examples


@dataclass(frozen=True)
class Case:
    """A run to estimate and to train."""

    name: str
    size: str  # of benchmarks/support/geometry.py, or "tiny"
    images: int
    pairs: int  # of an image
    changes: tuple[str, ...]


QUICK = [
    Case("tiny", "tiny", 64, 8, ("epochs=4",)),
    Case("reference geometry", "reference", 20, 8, ("epochs=1", "batch_size=16")),
    Case("the same, checkpointing", "reference", 20, 8, ("epochs=1", "batch_size=16", "gradient_checkpointing=true")),
]
MORE = [
    Case("tiny, float32", "tiny", 64, 8, ("epochs=4", "dtype=float32")),
    Case("reference, float32", "reference", 20, 8, ("batch_size=16", "dtype=float32")),
    Case("reference, 8 rows at once", "reference", 64, 8, ("batch_size=64", "rows_at_once=8")),
    Case("reference, 1 pair an image", "reference", 64, 1, ("batch_size=16",)),
    Case("InternVL3-1B", "1B", 4, 8, ("batch_size=16", "rows_at_once=1", "measured_faces=0", "held_out=0")),
    Case("InternVL3-1B, 2 rows", "1B", 4, 8, ("batch_size=16", "rows_at_once=2", "measured_faces=0", "held_out=0")),
]


def main() -> None:
    """Print the estimate of each run, what it took, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="small models only")
    parser.add_argument("--only", help="cases whose names contain this")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="for all cases")
    options = parser.parse_args()
    cases = [case for case in [*QUICK, *([] if options.quick else MORE)] if (options.only or "") in case.name]
    with tempfile.TemporaryDirectory() as folder:
        found = [measure(case, Path(folder), options.set, verbose=not options.json) for case in cases]
    if options.json:
        print(json.dumps({"threads": os.cpu_count(), "cases": found}, indent=2))


def measure(case: Case, folder: Path, changes: list[str], *, verbose: bool) -> dict[str, Any]:
    """Estimate a run and train it."""
    environment = os.environ | {"FACELLM_DATA_DIR": str(folder / "data"), "PYTHONWARNINGS": "ignore"}
    base = EMBEDDED_BASE if case.size == "tiny" else folder / case.size
    if not base.exists():
        save_random(base, case.size)
    examples = folder / f"{case.images}-{case.pairs}-{case.size}.jsonl"
    if not examples.exists():
        write_examples(examples, make_examples(folder / "images", case, 64 if case.size == "tiny" else 448))
    named = [word for change in [*case.changes, *changes] for word in ("--set", change)]
    run_dir = _command(["prepare", str(examples), "--base", str(base), *named], environment).strip()
    started = time.monotonic()
    estimate = json.loads(_command(["estimate", run_dir, "--json"], environment))
    estimate_s = time.monotonic() - started
    seconds, cpu_seconds, peak = train(run_dir, environment)
    result = {
        "name": case.name,
        "estimated_gb": round(estimate["total"] / 1e9, 2),
        "peak_gb": round(peak / 1e9, 2),
        "memory_ratio": round(estimate["total"] / peak, 2),
        "estimated_s": estimate["seconds"],
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "time_ratio": round(estimate["seconds"] / seconds, 2),
        "cpu_time_ratio": round(estimate["seconds"] / cpu_seconds, 2),
        "command_s": round(estimate_s, 1),
        "estimate": estimate,
    }
    if verbose:
        print(
            f"{case.name:28} memory {result['estimated_gb']:6.2f} GB for {result['peak_gb']:6.2f} "
            f"({result['memory_ratio']:.2f}×)   time {result['estimated_s']:6.1f} s for {result['seconds']:6.1f} "
            f"({result['time_ratio']:.2f}×), CPU {result['cpu_seconds']:6.1f} ({result['cpu_time_ratio']:.2f}×)   "
            f"{estimate['dtype']}",
            flush=True,
        )
    return result


def make_examples(folder: Path, case: Case, side: int) -> list[Example]:
    """Rendered faces with answers of 60 to 100 words, each several true sentences."""
    folder.mkdir(exist_ok=True)
    found = []
    for seed in range(case.images):
        face, path, rng = faces.sample(seed), folder / f"{seed}-{side}.png", random.Random(seed)
        if not path.exists():
            faces.render(face, side).save(path)
        for attribute in list(Attribute)[: case.pairs]:
            others = rng.sample(list(Attribute), len(Attribute))
            text, words = [], rng.randint(60, 100)
            for about in [attribute, *others, *others, *others]:
                if len(" ".join(text).split()) < words:
                    text.append(face_text.answer(face, about, rng))
            answer = " ".join(text)
            provenance = Provenance(image_sha256=(sha256_file(path),))
            found.append(
                Example(
                    images=(str(path),),
                    attribute=attribute,
                    question=attribute.question,
                    answer=answer,
                    provenance=provenance,
                )
            )
    return found


def train(run_dir: str, environment: dict[str, str]) -> tuple[float, float, int]:
    """Seconds, seconds of the processor, and peak bytes of the training process.

    Where training takes one thread, the processor's seconds are what the run takes on a machine that does nothing else.
    """
    started = time.monotonic()
    log = Path(run_dir) / "log.txt"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "facellm", "train", run_dir], cwd=ROOT, env=environment, stdout=out, stderr=out
        )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"The training of {run_dir} failed:\n{log.read_text()[-2000:]}")
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return time.monotonic() - started, usage.ru_utime + usage.ru_stime, peak


def _command(words: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "facellm", *words], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    if done.returncode != 0:
        sys.exit(f"python -m facellm {' '.join(words)} failed: {done.stderr}{done.stdout}")
    return done.stdout


if __name__ == "__main__":
    main()
