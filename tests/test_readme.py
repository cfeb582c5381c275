"""What the README says is there, is there: its tree, its commands, its targets, its pictures."""

import re
from pathlib import Path

import pytest
import typer

from annotation.__main__ import app as annotation_app
from facellm.__main__ import app as facellm_app

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def listed_in_tree() -> set[str]:
    """The paths in the README's tree; deeper levels are indented by two spaces."""
    tree = re.search(r"## Layout\n.*?```\n(.*?)```", README, re.DOTALL)
    assert tree is not None
    found, folder = set(), ""
    for line in tree[1].splitlines():
        head = re.match(r"( *)(\S+(?:, \S+)*)", line)
        assert head is not None
        if not head[1]:
            folder = ""
        for name in head[2].split(", "):
            path = folder + name
            found.add(path.rstrip("/"))
            if name.endswith("/") and not head[1]:
                folder = name
    return found


def test_the_tree_is_the_disk() -> None:
    listed = listed_in_tree()
    missing = sorted(path for path in listed if not (ROOT / path).exists())
    assert missing == [], "the README names what is not there"
    modules = {
        path.relative_to(ROOT).as_posix()
        for package in ("facellm", "annotation")
        for path in (ROOT / package).glob("*.py")
        if path.name != "__init__.py"
    }
    modules |= {
        path.parent.relative_to(ROOT).as_posix()
        for package in ("facellm", "annotation")
        for path in (ROOT / package).glob("*/__init__.py")
    }
    assert sorted(modules - listed) == [], "the README leaves out modules"


def command_names(app: typer.Typer, prefix: str) -> list[str]:
    """Every command line of a Typer app, groups followed, such as `facellm tiny build`."""
    group = typer.main.get_command(app)
    found = []

    def walk(command: typer.core.TyperGroup, words: str) -> None:
        for name, inner in command.commands.items():
            if isinstance(inner, typer.core.TyperGroup):
                walk(inner, f"{words} {name}")
            else:
                found.append(f"{words} {name}")

    assert isinstance(group, typer.core.TyperGroup)
    walk(group, prefix)
    return found


COMMANDS = command_names(facellm_app, "facellm") + command_names(annotation_app, "annotation")


def test_commands_are_discovered() -> None:
    assert {"facellm chat", "facellm train", "facellm tiny build", "annotation snapshot"} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_described(command: str) -> None:
    assert f"`python -m {command}" in README


def test_every_command_it_names_exists() -> None:
    named = set(re.findall(r"python -m ((?:facellm|annotation)(?: [a-z]+(?:-[a-z]+)*)+)", README))
    assert named
    assert sorted(name for name in named if name not in COMMANDS) == []


def test_targets_benchmarks_and_pictures_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+)\b", README)) <= targets
    for path in re.findall(r"(?:!\[[^]]*\]\(|python )((?:docs|benchmarks)/[^) `]+)", README):
        assert (ROOT / path).is_file(), path
