"""How long agreement takes at the size of FairFaceGPT, and how sure its intervals are: python benchmarks/agreement.py

Each pair has verdicts of two of eight reviewers, who see the truth in 80 % and guess else. The intervals are tried on
small studies, where what is true is known. The surprising fact: of few faces, kappa's intervals are rather too wide
than too narrow.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from uuid import UUID

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent.parent / "tests")]

import numpy as np  # noqa: E402 - after the path to this checkout
import sqlalchemy as sa  # noqa: E402
from made_ratings import VERDICTS, drawn, ratings_of  # noqa: E402

from annotation import models  # noqa: E402
from annotation.agreement.agreement import RESAMPLES, measure_agreement  # noqa: E402
from annotation.agreement.coefficients import Measure  # noqa: E402
from annotation.agreement.resampling import Subset, intervals  # noqa: E402
from annotation.database import writing  # noqa: E402
from annotation.fairface import VALUES  # noqa: E402
from annotation.store import Store  # noqa: E402
from facellm.data import Attribute  # noqa: E402

FACES = {"full": 10_954, "quick": 500}
STUDIES = {"full": 1000, "quick": 100}
SHARES, ERROR = (0.85, 0.05, 0.1), 0.2
REVIEWERS = 8


def main() -> None:
    """Fill, measure, try the intervals, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="fewer faces and studies")
    options = parser.parse_args()
    size = "quick" if options.quick else "full"
    result = timed(FACES[size]) | {"held": {str(n): held(n, STUDIES[size]) for n in (50, 100, 400)}}
    if options.json:
        print(json.dumps(result))
        return
    print(
        f"{result['pairs']:,} pairs with two verdicts: read in {result['read_s']:.1f} s, {result['rows']} rows of five "
        f"coefficients measured in {result['measure_s']:.1f} s ({RESAMPLES:,} resamples)"
    )
    for faces, shares in result["held"].items():
        said = ", ".join(f"{name} {share:.3f}" for name, share in shares.items())
        print(f"95 % intervals of {faces} faces hold the truth in a share of {said}")


def timed(faces: int) -> dict[str, Any]:
    """Seconds to read and to measure."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(Path(folder))
        fill(store, faces)
        began = time.perf_counter()
        ratings = store.ratings()
        read = time.perf_counter()
        found = measure_agreement(ratings)
        measured = time.perf_counter()
        store.close()
    rows = 2 + sum(len(rows) for rows in found.tables.values()) + len(found.reviewers)
    times = {"read_s": read - began, "measure_s": measured - read}
    return {"faces": faces, "pairs": found.total.pairs, "rows": rows, **times}


def held(faces: int, studies: int) -> dict[str, float]:
    """In which share of many small studies each interval held what is true."""
    rng = np.random.default_rng(0)
    hits: dict[Measure, list[bool]] = {measure: [] for measure in Measure}
    for study in range(studies):
        table, theory = drawn(rng, faces, 2, SHARES, ERROR)
        subset = Subset(ratings_of(table, VERDICTS))
        for measure, found in intervals([subset], faces, resamples=RESAMPLES, seed=study)[0].items():
            if found.low is not None and found.high is not None:
                hits[measure].append(found.low <= theory[measure] <= found.high)
    return {measure.value: sum(of) / len(of) for measure, of in hits.items()}


def fill(store: Store, faces: int) -> None:
    """Faces with eight pairs each, and who has decided what."""
    rng = np.random.default_rng(0)
    table, _ = drawn(rng, faces * len(Attribute), REVIEWERS, SHARES, ERROR)
    first = rng.integers(REVIEWERS, size=len(table))
    second = (first + rng.integers(1, REVIEWERS, size=len(table))) % REVIEWERS
    images, pairs, decisions, verdicts = [], [], [], []
    for image in range(1, faces + 1):
        file = {"sha256": f"{image:064}", "path": "", "width": 224, "height": 224, "bytes": 1, "source": "benchmark"}
        images.append(file)
        labels = {name: str(rng.choice(values)) for name, values in VALUES.items()}
        for attribute in Attribute:
            number = len(pairs)
            text = {"question": attribute.question, "answer": "-", "teacher": "teacher", "prompt_version": "1"}
            pairs.append({"image_id": image, "attribute": attribute, "revision": 2, "overlap": 2, **text, **labels})
            for revision, who in enumerate((first[number], second[number]), start=1):
                event = decision(number, revision, int(who), int(table[number, who]))
                decisions.append(event)
                verdicts.append({name: event[name] for name in ("pair_id", "reviewer", "revision", "action")})
                verdicts[-1] |= {"decision_uuid": event["uuid"], "created_at": models._now()}
    rows = {models.Image: images, models.Pair: pairs, models.Decision: decisions, models.Verdict: verdicts}
    with writing(store._engine) as session:
        for model, values in rows.items():
            session.execute(sa.insert(model), values)


def decision(pair: int, revision: int, who: int, category: int) -> dict[str, Any]:
    """One event."""
    action = models.Action(VERDICTS[category])
    about = {"uuid": str(UUID(int=2 * pair + revision)), "pair_id": pair + 1, "revision": revision}
    return about | {"reviewer": f"reviewer {who + 1}", "action": action}


if __name__ == "__main__":
    main()
