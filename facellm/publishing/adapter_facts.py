"""What is known about an adapter: its own files, and those of the run that it came from, if they are around it.

The one surprising fact: files name models by folders of this machine. What leaves it names the base by a repository,
by its place in this program, or by its folder's own name, never by a path.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from facellm.config import EMBEDDED_BASE
from facellm.data import ContentHash, Example, read_examples, sha256_file
from facellm.errors import ConfigError, DataError, ModelError
from facellm.sources import is_repository
from facellm.training.recipe import RunConfig, find_base, portable_name
from facellm.training.run_directory import CONFIG, EXAMPLES, RESULT, load_record
from facellm.training.run_files import read_json

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
GROUPS = ("race", "gender", "age")
UNKNOWN = "unknown"
_TEMPLATE = "[More Information Needed]"  # in the form that PEFT writes, not filled in


@dataclass
class Tally:
    """What a run was trained on, counted."""

    pairs: int = 0
    images: dict[str, dict[str, str]] = field(default_factory=dict)  # by hash, with their labels
    attributes: Counter[str] = field(default_factory=Counter)  # pairs
    statuses: Counter[str] = field(default_factory=Counter)
    teachers: Counter[str] = field(default_factory=Counter)
    reviewers: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, examples: Iterable[Example]) -> "Tally":
        """Count examples."""
        found = cls()
        for example in examples:
            origin = example.provenance
            found.pairs += 1
            found.images |= dict.fromkeys(origin.image_sha256, origin.labels)
            found.attributes[example.attribute.topic if example.attribute else "free question"] += 1
            found.statuses[origin.status or UNKNOWN] += 1
            found.teachers[origin.teacher or UNKNOWN] += 1
            found.reviewers[origin.reviewer or UNKNOWN] += 1
        return found

    @property
    def has_groups(self) -> bool:
        """Whether race, gender or age of any face is known."""
        return any(labels.get(name) for labels in self.images.values() for name in GROUPS)

    def groups(self, *names: str) -> Counter[tuple[str, ...]]:
        """Images by the values of some labels; "" where one is not known."""
        return Counter(tuple(labels.get(name, "") for name in names) for labels in self.images.values())


@dataclass(frozen=True)
class Run:
    """The run that an adapter came from."""

    record: dict[str, Any]  # config.json
    config: RunConfig
    result: dict[str, Any]  # result.json
    tally: Tally


@dataclass(frozen=True)
class Facts:
    """All that a model card is written from."""

    name: str
    folder: Path
    adapter: dict[str, Any]  # adapter_config.json
    sha256: str  # of the weights
    base: str | None  # as others may read it, see the module
    license: str | None  # the base's, where it is known
    run: Run | None
    notes: str  # what whoever made the folder has written about it

    @property
    def base_repository(self) -> str | None:
        """The base's repository, if that is what it is named by."""
        place = (self.base or "").partition("#")[0]
        return place if is_repository(place) else None


def gather(folder: Path, base: str | None = None) -> Facts:
    """Read all that there is about an adapter.

    Args:
        folder: the adapter's; a run's is named adapter and lies in the run's directory.
        base: its base's repository, where the files name it otherwise.

    Raises:
        ConfigError: it is no folder with an adapter, or the base's name is none of a repository.
        DataError: the run's examples are not those that it was made with, or one of its files is damaged.
        ModelError: the run has not ended.
    """
    if missing := [name for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS) if not (folder / name).is_file()]:
        raise ConfigError(
            f"{folder} is no folder with an adapter: it has no {missing[0]}. Give the name of a run that has ended, or "
            "a folder."
        )
    if base is not None and not is_repository(base.partition("#")[0]):
        raise ConfigError(f"--base {base} is no name of a repository. Expected OWNER/NAME.")
    adapter = read_json(folder / ADAPTER_CONFIG) or {}
    around = folder.absolute().parent
    run = _run(around) if all((around / name).is_file() for name in (CONFIG, EXAMPLES)) else None
    named = run.config.base_model if run else adapter.get("base_model_name_or_path")
    return Facts(
        name=folder.absolute().name if run is None else around.name,
        folder=folder,
        adapter=adapter,
        sha256=sha256_file(folder / ADAPTER_WEIGHTS),
        base=base or (None if not named else _public(named)),
        license=_license(named) or _license(base),
        run=run,
        notes=_notes(folder / "README.md"),
    )


def _run(run_dir: Path) -> Run:
    record = load_record(run_dir)
    result = read_json(run_dir / RESULT)
    if result is None:
        raise ModelError(f"The run {run_dir.name} has not ended. Wait until it has, or stop it.")
    content = ContentHash()
    tally = Tally.of(content.of(read_examples(run_dir / EXAMPLES)))
    if content.hexdigest() != record["examples_sha256"]:
        raise DataError(
            f"{run_dir.name}/{EXAMPLES} is not what the run was trained on: its hash is {content.hexdigest()[:12]}…, "
            f"that of the run {record['examples_sha256'][:12]}…. Restore it from a copy."
        )
    return Run(record, RunConfig.checked(record["config"], f"{run_dir.name}/{CONFIG}"), result, tally)


def _public(base: str) -> str:
    name = portable_name(base)
    return Path(name).name if Path(name).is_absolute() else name


def _license(base: str | None) -> str | None:
    """What the base's own card says, where it is on this machine; nothing is asked of the Hub."""
    if not base:
        return None
    if portable_name(base) == portable_name(str(EMBEDDED_BASE)):
        return "apache-2.0"
    found = _front_matter(_card_of(base)).get("license")
    return found if isinstance(found, str) else None


def _card_of(base: str) -> str:
    place = find_base(base).partition("#")[0]
    path: Any = Path(place) / "README.md"
    if is_repository(place):
        from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415 - it takes half a second, and few need it

        path = try_to_load_from_cache(place, "README.md")
    return Path(path).read_text("utf-8", "replace") if isinstance(path, str | Path) and Path(path).is_file() else ""


def _front_matter(text: str) -> dict[str, Any]:
    head, _, _ = text.removeprefix("---\n").partition("\n---")
    if not text.startswith("---\n"):
        return {}
    try:
        found = yaml.safe_load(head)
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}


def _notes(path: Path) -> str:
    """A README without its front matter and title; empty if it is a form that nobody has filled in."""
    text = path.read_text("utf-8", "replace") if path.is_file() else ""
    if _TEMPLATE in text:
        return ""
    if text.startswith("---\n"):
        text = text.removeprefix("---\n").partition("\n---")[2]
    lines = text.strip().splitlines()
    return "\n".join(lines[1:] if lines and lines[0].startswith("# ") else lines).strip()


def public_config(facts: Facts) -> str:
    """adapter_config.json as it may leave this machine, as JSON."""
    base = facts.base_repository or facts.base
    return json.dumps(facts.adapter | {"base_model_name_or_path": base}, indent=2, sort_keys=True) + "\n"
