"""What curation is worth: python benchmarks/curation.py [--json] [--quick] [--seeds 3] [--faces 213]

Seeds a data set as the app's first start does, and trains the embedded model by its usual recipe three times a seed:
on all pairs as the template teacher wrote them, mistakes included; on those without the mistakes, as if a reviewer had
rejected each; and on all with the mistakes corrected, as if a reviewer had edited each. The number of steps is the
same. Each adapter is measured like `python -m facellm attributes`, on faces that none of them was trained on.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from sqlmodel import select  # noqa: E402

from annotation.database import connect, reading  # noqa: E402
from annotation.models import Pair, Status  # noqa: E402
from annotation.pair_filter import PairFilter  # noqa: E402
from annotation.seed import TRUTH_FILE, seed  # noqa: E402
from annotation.store import DATABASE, Store  # noqa: E402
from facellm.attributes import Measured, measure_model  # noqa: E402
from facellm.config import EMBEDDED_BASE  # noqa: E402
from facellm.data import Example, read_examples  # noqa: E402
from facellm.training.jobs import create_run, recipe  # noqa: E402
from facellm.training.train import train  # noqa: E402

ARMS = ("as drafted", "mistakes rejected", "mistakes corrected")


def main() -> None:
    """Print the accuracy of each seed and arm, their means, and what curation gains."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="one seed, few faces and steps: shows that it works")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each arm")
    parser.add_argument("--faces", type=int, default=213, help="faces of the data set, eight pairs each")
    parser.add_argument("--base", default=str(EMBEDDED_BASE), help="the base model")
    arguments = parser.parse_args()
    seeds, faces, count, steps = arguments.seeds, arguments.faces, 200, None
    if arguments.quick:
        seeds, faces, count, steps = 1, 64, 12, 24
    accuracy: dict[str, list[float]] = {arm: [] for arm in ARMS}
    with tempfile.TemporaryDirectory() as folder:
        arms = make_arms(Path(folder), faces)
        changes = {} if steps is None else {"max_steps": steps}
        for number in range(seeds):
            for arm, examples in arms.items():
                adapter = tune(Path(folder), arguments.base, examples, number, usual=arms[ARMS[0]], **changes)
                measured = measure_model(arguments.base, adapter, device="cpu", count=count)
                accuracy[arm].append(measured.overall.share)
                if not arguments.json:
                    print(
                        f"seed {number}  {arm:<18}  {measured.overall.share:6.1%}   {by_attribute(measured)}",
                        flush=True,
                    )
    pairs = {arm: len(examples) for arm, examples in arms.items()}
    mean = {arm: statistics.mean(shares) for arm, shares in accuracy.items()}
    result = {"pairs": pairs, "accuracy": accuracy, "mean": mean}
    print(json.dumps(result) if arguments.json else table(mean, pairs))


def make_arms(data_dir: Path, faces: int) -> dict[str, list[Example]]:
    """The three sets of examples, from a seeded data set and what was planted in it."""
    store = Store.open(data_dir)
    try:
        seed(store, faces)
        store.snapshot("all", PairFilter(status=tuple(Status)))
    finally:
        store.close()
    with reading(connect(data_dir / DATABASE)) as session:
        drafts = {pair.id: pair.answer for pair in session.exec(select(Pair))}
    lines = (data_dir / TRUTH_FILE).read_text(encoding="utf-8").splitlines()
    truth = {(line["image_sha256"], line["attribute"]): line for line in map(json.loads, lines)}
    arms: dict[str, list[Example]] = {arm: [] for arm in ARMS}
    for example in read_examples(data_dir / "snapshots" / "all" / "examples.jsonl"):
        known = truth[example.provenance.image_sha256[0], example.attribute]
        drafted = example.model_copy(update={"answer": drafts[example.provenance.pair_id]})
        arms[ARMS[0]].append(drafted)
        if not known["mistake"]:
            arms[ARMS[1]].append(drafted)
        arms[ARMS[2]].append(example.model_copy(update={"answer": known["right_answer"]}))
    return arms


def tune(
    folder: Path, base: str, examples: Sequence[Example], number: int, *, usual: Sequence[Example], **changes: int
) -> Path:
    """Train an adapter with the recipe's steps for the `usual` examples; return its folder."""
    config = recipe(str(EMBEDDED_BASE))
    changes.setdefault("max_steps", config.epochs * round(len(usual) / config.batch_size))
    config = type(config)(**config.model_dump() | changes | {"base_model": base, "seed": number, "device": "cpu"})
    run_dir = create_run(folder / "runs", examples, config)
    train(run_dir)
    return run_dir / "adapter"


def by_attribute(measured: Measured) -> str:
    """The shares of the attributes, on one line."""
    return "  ".join(f"{attribute} {score.share:.0%}" for attribute, score in measured.attributes.items())


def table(mean: dict[str, float], pairs: dict[str, int]) -> str:
    """The means, and what each way of curating gains."""
    lines = [f"{'training pairs':<20}{'pairs':>8}{'accuracy':>11}{'gain':>15}"]
    for arm, share in mean.items():
        gain = f"{100 * (share - mean[ARMS[0]]):+.1f} points" if arm != ARMS[0] else ""
        lines.append(f"{arm:<20}{pairs[arm]:>8,}{share:>11.1%}{gain:>15}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
