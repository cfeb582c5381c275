"""The layers of docs and DESIGN hold: imports go one way, and importing a module does nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(
    path.relative_to(ROOT) for package in ("facellm", "annotation") for path in (ROOT / package).rglob("*.py")
)

# What annotation may use of facellm: the shared records, the ranking of the votes that it keeps, and the rendered faces
# that the first start is seeded with.
SHARED = {"facellm.config", "facellm.errors", "facellm.data", "facellm.faces", "facellm.face_text"}
SHARED |= {"facellm.votes", "facellm.ranking"}
SHARED |= {"facellm.remote_server"}  # a teacher is asked as a remote pane is: one key to one place
SHARED |= {"facellm.folders", "facellm.hub", "facellm.markdown"}  # what leaves: whole, with a card, to the Hub
TORCH = {"torch", "torchvision", "transformers", "peft", "accelerate", "safetensors"}
MODEL_SIDE = {"adapters", "calibration", "checkpoint", "collate", "decoding", "gated_lora", "inputs", "kv_cache"}
MODEL_SIDE |= {"loaded", "model", "row_text", "sampling", "train"}
MODEL_SIDE |= {"stored_weights", "merging", "extraction", "agreement_gate"}  # adapters leaving and coming back
MODEL_SIDE |= {"answer_loss", "branch_attention", "image_table", "outcome", "row_trainer", "steps", "training_data"}
MODEL_SIDE |= {"attention", "trackers", "training_progress"}
MODEL_SIDE |= {"processes", "sharding", "lora_linear"}
MODEL_SIDE |= {"training_cost", "training_speed", "free_memory", "estimating"}
MODEL_SIDE |= {"tiny", "tiny_build", "tiny_faces", "tiny_training"}  # the embedded model and how it is made


def imports(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it; `from a import b` counts as a and as a.b."""
    found: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def roots(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def test_both_packages_are_found() -> None:
    assert {"config.py", "data.py", "model.py", "train.py"} <= {p.name for p in MODULES if p.parts[0] == "facellm"}
    assert {"models.py", "store.py", "review_tab.py"} <= {p.name for p in MODULES if p.parts[0] == "annotation"}


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_go_one_way(path: Path) -> None:
    found = imports(path)
    assert "app" not in roots(found), "only app.py composes; nothing imports it"
    if path.parts[0] == "facellm":
        assert "annotation" not in roots(found), "facellm never imports annotation"
    else:
        used = {".".join(name.split(".")[:2]) for name in found if name.startswith("facellm.")}
        assert used <= SHARED, f"annotation may use only {sorted(SHARED)} of facellm"
    if not path.name.endswith("_tab.py"):
        assert "gradio" not in roots(found), "gradio belongs in *_tab.py and app.py"
        tabs = {name for name in found if any(part.endswith("_tab") for part in name.split("."))}
        assert not tabs, "only app.py puts tabs together"
    may_use_torch = path.parts[0] == "facellm" and path.stem in MODEL_SIDE
    assert may_use_torch or not (TORCH & roots(found)), "torch and its kin belong on the model side"


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_module_says_what_it_is(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse((ROOT / path).read_text(encoding="utf-8")))
    assert docstring, "every module opens with its purpose"


def test_whoever_has_settings_opens_the_store_that_they_name() -> None:
    """`Store.open(settings.data_dir)` would leave the team's database out without a word."""
    sources = [path for path in [*MODULES, Path("app.py")] if path.name != "store.py"]
    assert [str(path) for path in sources if "Store.open(" in (ROOT / path).read_text(encoding="utf-8")] == []


def test_functions_are_annotated() -> None:
    """mypy checks it too; here tests of the rule cannot be switched off by its configuration."""
    bare = []
    for path in MODULES:
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.returns is None:
                bare.append(f"{path}:{node.lineno} {node.name}")
    assert not bare


def test_importing_does_nothing(tmp_path: Path) -> None:
    """Every module imports in an empty directory without a print, a file or an engine."""
    names = [
        ".".join(path.with_suffix("").parts)
        for path in MODULES
        if path.name not in ("__init__.py", "__main__.py", "env.py") and "versions" not in path.parts
    ]
    code = f"import importlib\nfor name in {names!r}: importlib.import_module(name)"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []
