"""The model card of an adapter: README.md with the front matter that the Hugging Face Hub reads, written from facts.

    python -m facellm push run-1 somebody/faces-lora --dry-run

What was not recorded or measured is said to be so. The one surprising fact: reviewers are counted, not named, since
they have agreed to review and not to be published.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import yaml

from facellm.data import Attribute
from facellm.markdown import table
from facellm.publishing.adapter_facts import ADAPTER_CONFIG, ADAPTER_WEIGHTS, UNKNOWN, Facts, Run, Tally, public_config
from facellm.training.recipe import RunConfig

_NOT_NUMBERS: Final = {"base_model", "snapshot", "snapshot_sha256", "compare_with"}
_NOT_MEASURED: Final = "Not measured.\n"
_USE: Final = """\
Research on models that describe faces: to study what they say and what they get wrong about whom, to compare recipes,
and to help people write and review descriptions of pictures.
"""
_LIMITS: Final = """\
**Not to be used** to identify anybody, to verify who somebody is, to watch people, or to decide about them: who is
hired, insured, lent to, let in, checked or charged. In the EU, to infer race and other sensitive traits from faces is
prohibited in general.

What it says about race, gender and age is what annotators or a teacher model perceived in pictures, gender as one of
two; that is not what a person is. Such labels and the models trained on them are known to be biased: they err more
often about some groups of faces than about others, and their words carry stereotypes. A statement about feelings,
health or character has no ground in a picture. It may describe confidently what is not there.
"""
_CITATIONS: Final = """\
```bibtex
@article{facellm2025,
  title   = {FaceLLM: A Multimodal Large Language Model for Face Understanding},
  author  = {Hatef Otroshi Shahreza and S{\\'e}bastien Marcel},
  journal = {arXiv preprint arXiv:2507.10300},
  year    = {2025}
}
@inproceedings{fairface2021,
  title     = {FairFace: Face Attribute Dataset for Balanced Race, Gender, and Age for Bias Measurement and Mitigation},
  author    = {Kimmo K{\\"a}rkk{\\"a}inen and Jungseock Joo},
  booktitle = {IEEE/CVF Winter Conference on Applications of Computer Vision (WACV)},
  year      = {2021}
}
```
"""


@contextmanager
def staged(facts: Facts, repository: str) -> Iterator[Path]:
    """A folder with all that a repository of the adapter is to hold; it is gone afterwards."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "README.md").write_text(write_card(facts, repository), encoding="utf-8")
        (folder / ADAPTER_CONFIG).write_text(public_config(facts), encoding="utf-8")
        (folder / ADAPTER_WEIGHTS).symlink_to((facts.folder / ADAPTER_WEIGHTS).absolute())
        yield folder


def write_card(facts: Facts, repository: str) -> str:
    """The whole card.

    Args:
        facts: about the adapter.
        repository: where it is going to be.
    """
    head = yaml.safe_dump(_front_matter(facts), sort_keys=False, allow_unicode=True)
    parts = [f"---\n{head}---\n", f"# {repository.rpartition('/')[2]}\n", _summary(facts)]
    parts += [f"## {title}\n\n{text}" for title, text in _sections(facts, repository) if text]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def _front_matter(facts: Facts) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if facts.base_repository:
        found |= {"base_model": facts.base_repository, "base_model_relation": "adapter"}
    found |= {
        "library_name": "peft",
        "license": facts.license or UNKNOWN,
        "pipeline_tag": "image-text-to-text",
        "language": ["en"],
        "tags": ["lora", "faces", "facellm-studio"],
    }
    if facts.run and facts.run.config.snapshot:
        found |= {"snapshot": facts.run.config.snapshot}
    if facts.run:
        found |= {"snapshot_sha256": facts.run.record["examples_sha256"]}
    return found


def _summary(facts: Facts) -> str:
    base = facts.base or "a base that its files do not name"
    adapter = facts.adapter
    lines = (
        f"A LoRA adapter of rank {adapter.get('r', UNKNOWN)} (alpha {adapter.get('lora_alpha', UNKNOWN)}) that makes "
        f"`{base}` describe faces. It adapts linear layers of the language model; how the base sees is unchanged.\n\n"
        f"- SHA-256 of `adapter_model.safetensors`: `{facts.sha256}`\n"
    )
    if facts.run is None:
        lines += "- No record of a training run is with it: on what and how it was trained is not known here.\n"
    elif facts.run.result["state"] != "finished":
        lines += f"- Its run has not come to its end; it {facts.run.result['state']}.\n"
    return lines


def _sections(facts: Facts, repository: str) -> Iterator[tuple[str, str]]:
    run = facts.run
    yield "Intended use", _USE
    yield "What it must not be used for", _LIMITS
    yield "How to load it", _loading(facts, repository)
    if run is not None:
        yield "What it was trained on", _data(run)
        yield "Faces by group", _groups(run.tally)
        yield "How it was trained", _training(run)
        yield "Recipe", _recipe(run.config)
        yield "Loss", _losses(run.result)
        yield "Accuracy on rendered faces", _accuracy(run.result)
        yield "Versions", _versions(run.record)
    else:
        yield "About it", facts.notes
    yield "Licence", _licence(facts)
    yield "Citation", _CITATIONS


def _loading(facts: Facts, repository: str) -> str:
    base = facts.base_repository or facts.base or "BASE"
    return f"""\
```python
from peft import PeftModel
from transformers import AutoModelForImageTextToText, AutoProcessor

base = AutoModelForImageTextToText.from_pretrained("{base}", dtype="auto")
model = PeftModel.from_pretrained(base, "{repository}")
processor = AutoProcessor.from_pretrained("{base}")
```

For plain transformers, without peft, `model.merge_and_unload().save_pretrained(FOLDER)` makes a checkpoint of its own;
so does `python -m facellm merge {repository} FOLDER` of FaceLLM Studio, with the processor and in little memory.
"""


def _data(run: Run) -> str:
    tally, config = run.tally, run.config
    named = f"the snapshot `{config.snapshot}`" if config.snapshot else "a file of examples"
    text = (
        f"{tally.pairs:,} question–answer pairs about {len(tally.images):,} pictures of faces, of {named}; SHA-256 of "
        f"its content: `{run.record['examples_sha256']}`.\n\n"
    )
    if held_out := run.result.get("held_out"):
        images = held_out["images"]
        about = f"{images:,} picture" if images == 1 else f"{images:,} pictures"
        text += f"Of these, {held_out['pairs']:,} pairs about {about} were held out, not trained on.\n\n"
    text += table(("attribute", "pairs"), _by_count(tally.attributes))
    text += "\n" + table(("teacher", "pairs"), _by_count(tally.teachers))
    text += "\n" + table(("decision", "pairs"), _by_count(tally.statuses)) + "\n"
    counts = sorted((count for name, count in tally.reviewers.items() if name != UNKNOWN), reverse=True)
    if counts:
        text += f"Reviewers: {len(counts)}, who decided about {', '.join(f'{count:,}' for count in counts)} pairs.\n"
    if unknown := tally.reviewers[UNKNOWN]:
        text += f"Of {unknown:,} pairs it is not recorded who reviewed them.\n"
    return text


def _by_count(counts: Any) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _groups(tally: Tally) -> str:
    """Pictures by race and gender, and by age."""
    if not tally.has_groups:
        return "Race, gender and age of no picture are known.\n"
    both = tally.groups("race", "gender")
    genders = _in_order({gender for _, gender in both})
    rows = [
        (race or UNKNOWN, *(both[race, gender] for gender in genders)) for race in _in_order({race for race, _ in both})
    ]
    ages = tally.groups("age")
    by_age = [(age or UNKNOWN, ages[age,]) for age in _in_order({age for (age,) in ages})]
    return table(("pictures", *(each or UNKNOWN for each in genders)), rows) + "\n" + table(("age", "pictures"), by_age)


def _in_order(values: set[str]) -> list[str]:
    """Ages by their first number, other values by the alphabet, unknown last."""

    def key(value: str) -> tuple[bool, int, str]:
        digits = "".join(letter if letter.isdigit() else " " for letter in value).split()
        return value == "", int(digits[0]) + value.startswith("more") if digits else 0, value

    return sorted(values, key=key)


def _training(run: Run) -> str:
    result = run.result
    lines = [f"made {run.record['created'][:10]}, {result['state']} after {_hours(result['seconds'])}"]
    if "device" in result:
        lines.append(f"on {result['device']}")
    if (peak := result.get("peak_memory_mb")) is not None:
        lines.append(f"peak memory {peak:,.0f} MB")
    if "steps" in result:
        tokens = f", {result['tokens']:,} tokens" if result.get("tokens") else ""
        lines.append(f"{result['steps']:,} steps{tokens}")
    if result.get("early_stop"):
        lines.append("ended early, since the held-out loss no longer fell")
    if (best := result.get("best_step")) is not None:
        lines.append(f"lowest held-out loss at step {best:,}")
    return "".join(f"- {line}\n" for line in lines)


def _hours(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _recipe(config: RunConfig) -> str:
    fields = RunConfig.model_fields
    values = config.model_dump(mode="json")
    rows = [(name, values[name], fields[name].description) for name in fields if name not in _NOT_NUMBERS]
    lines = ["| field | value | what it is |\n", "| --- | ---: | --- |\n"]
    lines += [f"| {name} | {'–' if value is None else value} | {meaning} |\n" for name, value, meaning in rows]
    return "".join(lines)


def _losses(result: dict[str, Any]) -> str:
    """Mean cross entropy of the answers' tokens, in nats."""
    rows = []
    if result.get("first_loss") is not None:
        rows.append(
            ("training, first step → mean of the last", *map(_loss, (result["first_loss"], result["last_loss"])))
        )
    text = table(("mean cross entropy of the answers' tokens", "before", "after"), rows) if rows else ""
    held_out = result.get("held_out")
    if not held_out:
        return text + "\nHeld-out loss: not measured at the end.\n"
    named = [("the base", "base"), ("this adapter", "run"), (_other(result), "in_use")]
    there = [(who, _loss(held_out[key])) for who, key in named if held_out.get(key) is not None]
    return text + "\n" + table((f"held-out loss, {held_out['pairs']:,} pairs", "loss"), there)


def _loss(value: float) -> str:
    return f"{value:.4f}"


def _other(result: dict[str, Any]) -> str:
    return f"the adapter in use then, {result.get('in_use') or UNKNOWN}"


def _accuracy(result: dict[str, Any]) -> str:
    found = result.get("attributes")
    if not found:
        return _NOT_MEASURED
    named = [("base", "base"), ("this adapter", "run"), (_other(result), "in_use")]
    measured = [(who, found[key]) for who, key in named if found.get(key)]
    rows: list[tuple[str, ...]] = []
    for attribute in Attribute:
        of = [scores["attributes"].get(attribute.value) for _, scores in measured]
        rows.append((attribute.topic, *(_score(score) for score in of)))
    rows.append(("overall", *(_score(scores["overall"]) for _, scores in measured)))
    return (
        f"Right answers about {found['faces']:,} rendered faces of seed {found['seed']} that were in no training, with "
        "95 % intervals. A rendered face is no photograph, and this says nothing about groups of people.\n\n"
    ) + table(("attribute", *(who for who, _ in measured)), rows)


def _score(score: dict[str, Any] | None) -> str:
    if score is None:
        return "–"
    return f"{100 * score['share']:.1f} % ({100 * score['low']:.1f}–{100 * score['high']:.1f})"


def _versions(record: dict[str, Any]) -> str:
    lines = [f"{name} {version}" for name, version in record["versions"].items()]
    git = record.get("git") or {}
    if git.get("commit"):
        lines.append(f"FaceLLM Studio, commit {git['commit']}{', changed' if git.get('changed') else ''}")
    else:
        lines.append("FaceLLM Studio, commit unknown")
    return "".join(f"- {line}\n" for line in lines)


def _licence(facts: Facts) -> str:
    base = facts.base or "its base"
    known = f"licence of `{base}`, {facts.license}," if facts.license else f"licence of `{base}`, not known here,"
    return (
        f"The adapter is of use only with its base, so the {known} applies to what is made of both. Pictures and "
        "labels have licences of their own (FairFace: CC BY 4.0), and a teacher's terms may restrict what is trained "
        "on its answers.\n"
    )
