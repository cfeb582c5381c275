"""How well the automatic checks find what is wrong with 888 labelled answers, and how fast they are.

    python benchmarks/quality.py [--json] [--quick] [--misses tune|test]

tests/quality_answers.jsonl was written by hand in five goes: 550 answers before the checks, a half of which, "test",
was left out of tuning, and four more, each scored once before anything was tuned on it. Three of them then joined
"tune"; the last, "unseen", did not. The surprising fact: one author wrote answers and checks, with "test" in mind too,
so only a first scoring is nearly blind. In the four, 5 of 12, 16 of 20, 17 of 22 and 15 of 16 refusals were found, 6 of
12, 16 of 20, 18 of 22 and 15 of 16 leaks, and 15 of 18, 24 of 24, 16 of 18 and 16 of 16 contradictions.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from annotation.checks.findings import Facts, Finding  # noqa: E402 - after the path to this checkout
from annotation.checks.quality import check_pair  # noqa: E402
from annotation.models import Severity  # noqa: E402
from facellm.data import Attribute  # noqa: E402

ANSWERS = ROOT / "tests" / "quality_answers.jsonl"
PROBLEMS = ("refusal", "partial refusal", "leak", "contradiction", "identity", "off topic")
PARTS = ("tune", "test", "unseen", "all")
REPEATS = {"quick": 1, "full": 20}  # passes over the answers for the time


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="one pass for the time instead of 20")
    parser.add_argument("--misses", choices=("tune", "test"), help="list what was wrong in a half, too")
    options = parser.parse_args()
    answers = read_answers()
    result = {
        "benchmark": "quality",
        "scores": {
            half: scores([a for a in answers if half in (a["split"], "all")])
            for half in ("tune", "test", "unseen", "all")
        },
        "cpu_microseconds_per_answer": round(microseconds(answers, REPEATS["quick" if options.quick else "full"])),
    }
    print(json.dumps(result) if options.json else table(result))
    for answer in answers if options.misses else []:
        if answer["split"] == options.misses and found(answer) != set(answer["problems"]):
            print(
                f"\n{sorted(answer['problems'])} found {sorted(found(answer))}: {answer['answer']} {answer['labels']}"
            )


def read_answers() -> list[dict[str, Any]]:
    """The labelled answers: split, attribute, labels, answer, problems."""
    return [json.loads(line) for line in ANSWERS.read_text(encoding="utf-8").splitlines()]


def facts_of(answer: dict[str, Any]) -> Facts:
    """What a check sees of an answer."""
    attribute = Attribute(answer["attribute"]) if answer["attribute"] else None
    question = attribute.question if attribute else "What can be seen?"
    return Facts(attribute, question, answer["answer"], answer["labels"])


def found(answer: dict[str, Any]) -> set[str]:
    """The problems that the checks find in an answer, by the names of the labelled ones."""
    return {name for finding in check_pair(facts_of(answer)) if (name := problem(finding)) in PROBLEMS}


def problem(finding: Finding) -> str:
    """The labelled problem that a finding stands for."""
    partial = finding.check == "refusal" and finding.severity is not Severity.ERROR
    return "partial refusal" if partial else finding.check


def scores(answers: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Counts, precision and recall of each problem, and of "clean" answers how many have no finding."""
    pairs = [(set(answer["problems"]), found(answer)) for answer in answers]
    result = {}
    for name in PROBLEMS:
        hits = sum(name in true and name in said for true, said in pairs)
        true_count = sum(name in true for true, _ in pairs)
        said_count = sum(name in said for _, said in pairs)
        result[name] = {
            "answers": true_count,
            "found": hits,
            "false_alarms": said_count - hits,
            "precision": round(hits / said_count, 3) if said_count else 0.0,
            "recall": round(hits / true_count, 3) if true_count else 0.0,
        }
    return result


def microseconds(answers: list[dict[str, Any]], repeats: int) -> float:
    """Time for one answer, all checks of one pair together."""
    facts = [facts_of(answer) for answer in answers]
    start = time.process_time()
    for _ in range(repeats):
        for one in facts:
            check_pair(one)
    return (time.process_time() - start) / repeats / len(facts) * 1e6


def table(result: dict[str, Any]) -> str:
    """The same for reading."""
    lines = []
    for half, rows in result["scores"].items():
        lines.append(f"{half:18}{'answers':>9}{'found':>7}{'false alarms':>14}{'precision':>11}{'recall':>8}")
        for name, row in rows.items():
            lines.append(
                f"  {name:16}{row['answers']:>9}{row['found']:>7}{row['false_alarms']:>14}"
                f"{row['precision']:>11.3f}{row['recall']:>8.3f}"
            )
    lines.append(f"{result['cpu_microseconds_per_answer']} microseconds of one core an answer")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
