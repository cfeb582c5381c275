"""Bringing in FairFace's validation part and FairFaceGPT's pairs: python benchmarks/imports.py [--json] [--quick]

Makes 10,954 different JPEG files of 224 pixels and about 6 kB, FairFace's CSV about them and a dataset.json of eight
pairs each, and runs the commands as a person does. Of each it tells the seconds, the start of Python included,
those of a processor, and the peak memory. The surprising fact: importing again is quick, though every picture is read,
because one that is known by its content is not decoded.
"""

import argparse
import csv
import io
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from annotation.fairface import AGES, GENDERS, RACES
from annotation.imports.fairface_table import COLUMNS
from facellm.data import Attribute

ROOT = Path(__file__).resolve().parent.parent
FACES, QUICK_FACES = 10_954, 600
SIDE = 224  # pixels
COARSE = 28  # pixels of noise that are made larger: it gives files of about 6 kB
WORDS = ("face", "skin", "light", "the", "a", "soft", "visible", "appears", "with", "even", "around", "and")


def main() -> None:
    """Print seconds and peak memory of each import."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_FACES} faces instead of {FACES:,}")
    arguments = parser.parse_args()
    faces = QUICK_FACES if arguments.quick else FACES
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = make_faces(folder / "images", faces)
        labels, pairs = make_labels(folder / "labels.csv", faces), make_pairs(folder / "dataset.json", faces)
        fairface = ("import-fairface", str(labels), "--images", str(folder / "images"))
        gpt = ("import-pairs", str(pairs), "--images", str(folder / "images"))
        runs = {
            "faces": measured(folder / "data", *fairface),
            "faces, again": measured(folder / "data", *fairface),
            "pairs about known faces": measured(folder / "data", *gpt),
            "pairs, again": measured(folder / "data", *gpt),
            "pairs with their faces": measured(folder / "other", *gpt),
        }
    if arguments.json:
        print(json.dumps({"faces": faces, "mean_bytes": size, "cores": len(os.sched_getaffinity(0)), "runs": runs}))
    else:
        print(f"{faces:,} faces of {size:,} bytes on average, {len(os.sched_getaffinity(0))} cores")
        for what, run in runs.items():
            rows = f"{run['added']:>7,} added {run['known']:>7,} known"
            print(
                f"{what:<24} {rows} {run['seconds']:>7.1f} s {run['cpu_seconds']:>7.1f} s CPU {run['peak_mb']:>5.0f} MB"
            )


def make_faces(folder: Path, count: int) -> int:
    """Write `val/1.jpg` and so on; return their mean size in bytes."""
    (folder / "val").mkdir(parents=True)
    rng = random.Random(0)
    total = 0
    for number in range(1, count + 1):
        noise = Image.frombytes("RGB", (COARSE, COARSE), rng.randbytes(3 * COARSE * COARSE))
        out = io.BytesIO()
        noise.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(out, "JPEG", quality=25)
        (folder / "val" / f"{number}.jpg").write_bytes(out.getvalue())
        total += len(out.getvalue())
    return total // count


def make_labels(path: Path, count: int) -> Path:
    """Write FairFace's CSV about them."""
    values = itertools.cycle(itertools.product(AGES, GENDERS, RACES, ("True", "False")))
    with path.open("w", encoding="utf-8", newline="") as out:
        lines = csv.writer(out)
        lines.writerow(COLUMNS)
        lines.writerows((f"val/{number}.jpg", *next(values)) for number in range(1, count + 1))
    return path


def make_pairs(path: Path, count: int) -> Path:
    """Write pairs in the form of FairFaceGPT, eight for each face, about 80 words long."""
    rng = random.Random(0)
    with path.open("w", encoding="utf-8") as out:  # never whole in memory: a process inherits its parent's peak
        for number, attribute in itertools.product(range(1, count + 1), Attribute):
            turns = [
                {"from": "human", "value": f"<image>{attribute.question}"},
                {"from": "assistant", "value": " ".join(rng.choices(WORDS, k=80))},
            ]
            out.write(",\n" if out.tell() else "[")
            out.write(json.dumps({"conversations": turns, "image": f"val/{number}.jpg"}))
        out.write("]")
    return path


def measured(data_dir: Path, *arguments: str) -> dict[str, Any]:
    """Run a command; its summary, with seconds and peak memory."""
    environment = os.environ | {"FACELLM_DATA_DIR": str(data_dir)}
    command = [sys.executable, "-m", "annotation", *arguments, "--json"]
    started = time.monotonic()
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - started
    if process.returncode:
        sys.exit(f"The import failed: {' '.join(arguments)}")
    summary = json.loads(output)
    counts = {name: summary[name] for name in ("read", "added", "known", "bad")}
    cpu = usage.ru_utime + usage.ru_stime
    return counts | {"seconds": seconds, "cpu_seconds": cpu, "peak_mb": usage.ru_maxrss / 1024}


if __name__ == "__main__":
    main()
