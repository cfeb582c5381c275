"""Snapshots and exports at the size of FairFaceGPT: python benchmarks/export.py [--json] [--quick]

Fills a database with 87,632 accepted pairs about 10,954 pictures of about 6 kB, a tenth of them edited, and runs the
commands as a person does. Of each it tells the seconds, the start of Python included, and the most memory above that of
a command that does nothing but open the store. The surprising fact: most of an export's time goes into the pictures.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from uuid import UUID

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.imports import make_faces, make_labels  # noqa: E402 - after the path to this checkout

ROOT = Path(__file__).resolve().parent.parent
FACES, QUICK_FACES = 10_954, 300
WORDS = ("face", "skin", "light", "the", "a", "soft", "visible", "appears", "with", "even", "around", "and")
FORMS = ("examples", "llamafactory", "fairfacegpt", "datasets")
SPLITS = ("--splits", "train=0.8,validation=0.1,test=0.1")


def main() -> None:
    """Fill, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_FACES} faces instead of {FACES:,}")
    parser.add_argument("--worker", nargs=2, metavar=("DATA_DIR", "FACES"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        fill(Path(options.worker[0]), int(options.worker[1]))
        return
    faces = QUICK_FACES if options.quick else FACES
    with tempfile.TemporaryDirectory() as name:
        result = measure(Path(name), faces)
    if options.json:
        print(json.dumps(result))
        return
    print(f"{result['pairs']:,} pairs about {faces:,} faces, {result['cores']} cores, load {result['load']:.1f}")
    for what, run in result["runs"].items():
        spent = f"{run['seconds']:>6.1f} s {run['cpu_seconds']:>6.1f} s CPU"
        print(f"{what:<26} {spent} {run['above_mb']:>6.0f} MB above the start")


def measure(folder: Path, faces: int) -> dict[str, Any]:
    """Run everything in a folder of its own; the data are made by a process of its own: memory is inherited."""
    data_dir = folder / "data"
    make_faces(folder / "images", faces)
    labels = make_labels(folder / "labels.csv", faces)
    run(data_dir, "import-fairface", str(labels), "--images", str(folder / "images"))
    command = [sys.executable, __file__, "--worker", str(data_dir), str(faces)]
    subprocess.run(command, check=True)
    base = run(data_dir, "snapshots")
    load = os.getloadavg()[0]
    runs = {"start": base, "snapshot": run(data_dir, "snapshot", "one")}
    for form in FORMS:
        runs[f"export {form}"] = run(data_dir, "export", "one", "--format", form, "--out", str(folder / form), *SPLITS)
    linked = ("--images", "link", "--out", str(folder / "linked"))
    runs["export datasets, linked"] = run(data_dir, "export", "one", "--format", "datasets", *linked)
    runs["snapshot of one attribute"] = run(data_dir, "snapshot", "two", "--filter", "attribute=skin")
    runs["diff"] = run(data_dir, "diff", "one", "two")
    for each in runs.values():
        each["above_mb"] = each["peak_mb"] - base["peak_mb"]
    return {"pairs": faces * 8, "cores": len(os.sched_getaffinity(0)), "load": load, "runs": runs}


def run(data_dir: Path, *arguments: str) -> dict[str, Any]:
    """Run a command to its end: seconds, and the most memory it had."""
    environment = os.environ | {"FACELLM_DATA_DIR": str(data_dir)}
    started = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", "annotation", *arguments], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL
    ) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"It failed: {' '.join(arguments)}")
    cpu = usage.ru_utime + usage.ru_stime
    return {"seconds": time.monotonic() - started, "cpu_seconds": cpu, "peak_mb": usage.ru_maxrss / 1024}


def fill(data_dir: Path, faces: int) -> None:
    """Eight pairs for each face that is there, all accepted or edited."""
    from annotation.models import Action, ImageInput, PairInput, PastDecision  # noqa: PLC0415 - only the worker needs it
    from annotation.store import Store  # noqa: PLC0415
    from facellm.data import Attribute  # noqa: PLC0415

    rng = random.Random(0)
    store = Store.open(data_dir)
    images = store.images(_hashes(data_dir))
    assert len(images) == faces
    number = 0
    given = []
    for image in sorted(images.values(), key=lambda image: image.id or 0):
        pairs = []
        for attribute in Attribute:
            number += 1
            edited = rng.random() < 0.1
            pairs.append(
                PairInput(
                    attribute=attribute,
                    question=attribute.question,
                    answer=" ".join(rng.choices(WORDS, k=80)),
                    teacher="teacher",
                    prompt_version="1",
                    decision=PastDecision(
                        uuid=UUID(int=number),
                        reviewer="demo",
                        action=Action.EDIT if edited else Action.ACCEPT,
                        text=" ".join(rng.choices(WORDS, k=80)) if edited else None,
                    ),
                )
            )
        fields = image.model_dump(include={"sha256", "path", "width", "height", "bytes", "source"})
        given.append(ImageInput(**fields, labels={}, label_source="fairface", pairs=tuple(pairs)))
    store.ingest(given)
    store.close()


def _hashes(data_dir: Path) -> list[str]:
    return [path.stem for path in (data_dir / "images").glob("*/*")]


if __name__ == "__main__":
    main()
