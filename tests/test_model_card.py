"""An adapter's way to a Hub on 127.0.0.1, and the card it takes along: python -m pytest tests/test_model_card.py"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hub_server import TOKEN, Hub, running_hub
from peft import PeftConfig
from rendered_examples import make_examples

from facellm.attributes import Measured, Score
from facellm.config import EMBEDDED_ADAPTER, EMBEDDED_BASE, ROOT
from facellm.data import Attribute, sha256_file
from facellm.errors import ConfigError, DataError, ModelError
from facellm.publishing.adapter_facts import gather, public_config
from facellm.publishing.model_card import staged, write_card
from facellm.training.recipe import RunConfig
from facellm.training.run_directory import create_run
from facellm.training.run_files import read_json, write_json

LABELS = [{"race": "Black", "gender": "Female", "age": "20-29"}, {"race": "Indian", "gender": "Male", "age": "3-9"}]


@pytest.fixture
def run_dir(tmp_path: Path, data_dir: Path) -> Path:
    """A run that has ended as the trainer leaves it, with the embedded adapter as what it has learnt."""
    examples = []
    for number, example in enumerate(make_examples(tmp_path / "pictures", 3)):
        known = LABELS[number // 8] if number < 16 else {}
        who = {"reviewer": "ana" if number < 10 else "bo", "status": "edited" if number == 3 else "accepted"}
        origin = example.provenance.model_copy(update={"teacher": "qwen3-vl", "labels": known, **who})
        examples.append(example.model_copy(update={"provenance": origin}))
    config = RunConfig(base_model=str(EMBEDDED_BASE), snapshot="Monday", learning_rate=0.002, rslora=False)
    run = create_run(data_dir / "runs", examples, config, name="faces")
    shutil.copytree(EMBEDDED_ADAPTER, run / "adapter")
    (run / "adapter" / "README.md").unlink()
    record = read_json(run / "config.json")
    assert record is not None
    write_json(run / "config.json", record | {"git": {"commit": "abc1234", "changed": True}})
    write_json(run / "result.json", RESULT)
    return run


def measured(right: int) -> dict[str, Any]:
    return Measured(40, 0, dict.fromkeys(Attribute, Score(right, 40))).to_dict()


RESULT = {
    "state": "finished",
    "device": "cuda (NVIDIA H100)",
    "seconds": 4000.0,
    "steps": 7,
    "tokens": 12345,
    "first_loss": 2.5,
    "last_loss": 0.75,
    "best_step": 5,
    "early_stop": True,
    "peak_memory_mb": 1500,
    "held_out": {"images": 1, "pairs": 8, "base": 2.25, "run": 0.5, "in_use": None},
    "attributes": {"faces": 40, "seed": 0, "base": measured(1), "run": measured(30)},
    "in_use": None,
}


def front_matter(card: str) -> dict[str, Any]:
    return yaml.safe_load(card.split("---\n")[1])


def test_the_card_says_what_the_run_has_recorded(run_dir: Path) -> None:
    card = write_card(gather(run_dir / "adapter", "somebody/base"), "me/faces-lora")
    record = read_json(run_dir / "config.json")
    assert record is not None
    assert front_matter(card) == {
        "base_model": "somebody/base",
        "base_model_relation": "adapter",
        "library_name": "peft",
        "license": "apache-2.0",
        "pipeline_tag": "image-text-to-text",
        "language": ["en"],
        "tags": ["lora", "faces", "facellm-studio"],
        "snapshot": "Monday",
        "snapshot_sha256": record["examples_sha256"],
    }
    assert "24 question–answer pairs about 3 pictures of faces, of the snapshot `Monday`" in card
    assert "8 pairs about 1 picture were held out, not trained on" in card
    assert "| qwen3-vl | 24 |" in card
    assert "| accepted | 23 |" in card
    assert "Reviewers: 2, who decided about 14, 10 pairs." in card
    assert not re.search(r"\b(ana|bo)\b", card), "reviewers are not named"
    assert "| pictures | Female | Male | unknown |" in card
    assert "| Black | 1 | 0 | 0 |" in card
    assert card.index("| 3-9 | 1 |") < card.index("| 20-29 | 1 |") < card.index("| unknown | 1 |")
    for text in ("on cuda (NVIDIA H100)", "1 h 6 min", "peak memory 1,500 MB", "7 steps, 12,345 tokens", "at step 5"):
        assert text in card
    for name, value in record["config"].items():
        if name not in ("base_model", "snapshot", "snapshot_sha256", "compare_with"):
            assert f"| {name} | {'–' if value is None else value} |" in card
    assert "2.5000 | 0.7500" in card
    assert "| the base | 2.2500 |\n| this adapter | 0.5000 |" in card
    assert "| overall | 2.5 % (1.3–4.9) | 75.0 % (" in card
    assert "commit abc1234, changed" in card
    assert all(f"{name} {version}" in card for name, version in record["versions"].items())
    assert 'PeftModel.from_pretrained(base, "me/faces-lora")' in card
    assert "2507.10300" in card
    assert "to identify anybody" in card


def test_what_was_not_measured_is_said_to_be_so_and_no_path_leaves(run_dir: Path, tmp_path: Path) -> None:
    base = tmp_path / "secret-place" / "my-base"
    shutil.copytree(EMBEDDED_BASE, base)
    (base / "README.md").write_text("---\nlicense: mit\n---\n# Mine\n")
    record = read_json(run_dir / "config.json")
    assert record is not None
    config = record["config"] | {"base_model": str(base), "compare_with": str(tmp_path / "secret-place" / "adapter")}
    write_json(
        run_dir / "config.json", {key: value for key, value in record.items() if key != "git"} | {"config": config}
    )
    kept = ("state", "seconds", "steps", "first_loss", "last_loss")
    write_json(run_dir / "result.json", {key: RESULT[key] for key in kept} | {"not_measured": f"{base} is gone"})
    facts = gather(run_dir / "adapter")
    with staged(facts, "me/faces") as folder:
        texts = [(folder / name).read_text() for name in ("README.md", "adapter_config.json")]
        assert sha256_file(folder / "adapter_model.safetensors") == facts.sha256
    assert not folder.exists()
    card = texts[0]
    assert all(str(tmp_path) not in text for text in texts)
    assert "`my-base`" in card
    assert json.loads(texts[1])["base_model_name_or_path"] == "my-base"
    assert front_matter(card)["license"] == "mit"
    assert "base_model" not in front_matter(card)
    assert "Held-out loss: not measured at the end." in card
    assert "## Accuracy on rendered faces\n\nNot measured." in card
    assert "commit unknown" in card


def test_a_folder_without_a_run_says_what_is_known() -> None:
    facts = gather(EMBEDDED_ADAPTER)
    card = write_card(facts, "me/tiny")
    assert "of rank 16 (alpha 32) that makes `facellm/embedded/tiny-base` describe faces" in card
    assert "No record of a training run is with it" in card
    assert "## About it\n\nA LoRA adapter (rank 16" in card
    assert front_matter(card)["license"] == "apache-2.0"
    assert json.loads(public_config(facts)) == json.loads((EMBEDDED_ADAPTER / "adapter_config.json").read_text())


def test_what_cannot_be_described_truly_is_refused(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no folder with an adapter: it has no adapter_config.json"):
        gather(tmp_path)
    with pytest.raises(ConfigError, match=r"--base no such/name/of is no name of a repository"):
        gather(run_dir / "adapter", "no such/name/of")
    lines = (run_dir / "train.jsonl").read_text().splitlines()
    (run_dir / "train.jsonl").write_text("\n".join(lines[1:]) + "\n")
    with pytest.raises(DataError, match="is not what the run was trained on"):
        gather(run_dir / "adapter")
    (run_dir / "result.json").unlink()
    with pytest.raises(ModelError, match="has not ended"):
        gather(run_dir / "adapter")


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub() as found:
        yield found


def push(tmp_path: Path, endpoint: str, *options: str, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    where = {"HF_ENDPOINT": endpoint, "HF_TOKEN": token, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf")}
    command = [sys.executable, "-m", "facellm", "push", "faces", "me/faces-lora", *options]
    return subprocess.run(command, cwd=ROOT, env=os.environ | where, capture_output=True, text=True, timeout=120)


def test_a_run_becomes_a_repository_that_peft_reads(run_dir: Path, hub: Hub, tmp_path: Path) -> None:
    done = push(tmp_path, hub.url, "--dry-run", token="")
    assert done.returncode == 0, done.stderr
    assert hub.requests == []
    assert done.stdout.startswith("---\n")
    assert re.search(
        r"\n +[\d,]+ bytes  adapter_model.safetensors\n(?:Mind .*\n)?Nothing was sent to me/faces-lora.\n$", done.stdout
    )
    done = push(tmp_path, hub.url, "--public")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"Pushed to {hub.url}/me/faces-lora\n"
    assert hub.private == {"me/faces-lora": False}
    assert set(hub.files) - {".gitattributes"} == {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    assert hub.files["adapter_model.safetensors"] == (run_dir / "adapter" / "adapter_model.safetensors").read_bytes()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / name).write_bytes(hub.files[name])
    assert PeftConfig.from_pretrained(str(tmp_path)).r == 16
    assert f"SHA-256 of its content: `{front_matter(hub.files['README.md'].decode())['snapshot_sha256']}`" in (
        hub.files["README.md"].decode()
    )


def test_a_refusal_is_one_sentence_without_the_token(run_dir: Path, hub: Hub, tmp_path: Path) -> None:
    assert run_dir.is_dir()
    done = push(tmp_path, hub.url, token="hf_wrong")
    assert done.returncode == 1
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("error: The Hub refused to take me/faces-lora (HTTP 401): the token is not valid.")
    assert "hf_wrong" not in done.stderr + done.stdout
    assert hub.files == {}
    done = push(tmp_path, hub.url, token="")
    assert (done.returncode, "push needs a token that may write" in done.stderr) == (1, True)
