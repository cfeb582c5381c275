"""The data card of an export: README.md with the front matter that the Hugging Face Hub reads, written from counts.

Nothing in it is a claim that nobody counted; what was not recorded is said to be unknown. The one surprising fact: it
bears no date but the snapshot's, so that the same snapshot has the same card.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from annotation.exports.card_gaps import gaps
from annotation.exports.card_tables import (
    agreement_table,
    attribute_table,
    group_table,
    label_lines,
    reviewer_table,
    split_table,
)
from annotation.exports.facts import Facts
from annotation.exports.forms import Form
from annotation.exports.licences import licence, source_lines
from annotation.exports.splits import Splits
from annotation.exports.tally import Tally
from annotation.exports.version import program_version
from annotation.models import Snapshot
from annotation.teaching.families import family

CARD: Final = "README.md"
_SIZES: Final = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_READING: Final = {
    Form.EXAMPLES: "Records of FaceLLM Studio, one a line: `python -m facellm prepare FILE` makes a run of them.",
    Form.LLAMAFACTORY: "For LLaMA-Factory, with `dataset_dir:` this folder, `dataset:` a name in `dataset_info.json`.",
    Form.FAIRFACEGPT: "FairFaceGPT's form: a list of `conversations` and `image`, paths from this folder.",
    Form.DATASETS: "`datasets.load_dataset(FOLDER)`, with `datasets` 3.4 or newer: earlier ones keep one row an image.",
}
_USE: Final = """\
Research on models that describe faces: to train them, to measure them, and to study what they get wrong about whom.

Not for decisions about people. Race, gender and age are what annotators perceived in a picture, gender as one of two;
they are not what a person is. In the EU, to infer race from faces is prohibited in general, and data that reveal it
are specially protected."""
_OPENAI: Final = """\
A teacher is named like one of OpenAI's models. OpenAI's usage policies forbid to evaluate or classify people by their
biometric data and to infer sensitive attributes from it, and its terms restrict to train models on output that compete
with its own. Whether they allow what you mean to do is for you to find out."""


@dataclass(frozen=True)
class Card:
    """All that a data card is written from."""

    snapshot: Snapshot
    form: Form
    splits: Splits | None
    tally: Tally
    facts: Facts | None  # None: the snapshot was taken by an earlier version
    left_out: int  # pairs that the form cannot say


def write_card(path: Path, card: Card) -> None:
    """Write the card."""
    head = yaml.safe_dump(_front_matter(card), sort_keys=False, allow_unicode=True)
    parts = [f"---\n{head}---\n", f"# {card.snapshot.name}\n", _summary(card)]
    parts += [f"## {title}\n\n{text}" for title, text in _sections(card) if text]
    path.write_text("\n".join(part.rstrip("\n") + "\n" for part in parts), encoding="utf-8")


def _front_matter(card: Card) -> dict[str, Any]:
    """What the Hub shows and searches by, and which files are which split."""
    names: tuple[str | None, ...] = (None,) if card.splits is None else card.splits.names
    files = [
        {
            "split": name or "train",
            "path": f"{card.form.folder(name)}/**" if card.form.folder(name) else card.form.file(name),
        }
        for name in names
    ]
    return {
        "pretty_name": card.snapshot.name,
        "license": licence(card.facts, card.tally),
        "language": ["en"],
        "task_categories": ["visual-question-answering", "image-text-to-text"],
        "size_categories": [next((name for limit, name in _SIZES if card.tally.pair_count < limit), "1M<n<10M")],
        "tags": ["faces", "facellm-studio"],
        "configs": [{"config_name": "default", "data_files": files}],
    }


def _summary(card: Card) -> str:
    tally, snapshot = card.tally, card.snapshot
    left_out = (
        f"{card.left_out:,} pairs of the snapshot are left out: their own words have a token such as `<image>`, which "
        "this form keeps for pictures.\n"
        if card.left_out
        else ""
    )
    return (
        f"{tally.pair_count:,} question–answer pairs about {tally.image_count:,} pictures of faces, written by teacher "
        f"models and reviewed by people in FaceLLM Studio.\n\n{_READING[card.form]}\n\n{left_out}"
        f"- snapshot: {snapshot.name}, {snapshot.count:,} pairs, taken {snapshot.created_at:%Y-%m-%d %H:%M} UTC\n"
        f"- filter: `{snapshot.filter}`\n"
        f"- SHA-256 of its content: `{snapshot.sha256}`\n"
        f"- written by FaceLLM Studio, {program_version()}\n"
    )


def _sections(card: Card) -> Iterator[tuple[str, str]]:
    tally, facts = card.tally, card.facts
    yield "Intended use", _USE
    yield "Pairs by attribute", attribute_table(tally, facts)
    yield "Faces by group", group_table(tally)
    yield "Other labels", label_lines(tally)
    yield "Splits", split_table(tally, card.splits)
    yield "Teachers", _teachers(tally)
    yield "Reviewers", reviewer_table(facts)
    yield "Agreement", agreement_table(facts)
    yield "Licences of the pictures", source_lines(facts, tally)
    yield "Known gaps", "".join(f"- {gap}\n" for gap in gaps(tally, facts))


def _teachers(tally: Tally) -> str:
    lines = [f"- {name}: {count:,} pairs\n" for name, count in sorted(tally.teachers.items())]
    lines += [f"- prompt version {name}: {count:,} pairs\n" for name, count in sorted(tally.prompt_versions.items())]
    return "".join(lines) + (f"\n{_OPENAI}\n" if any(family(name) == "gpt" for name in tally.teachers) else "")
