"""A real training process on a tiny InternVL: what it changes, what it leaves alone, and what it writes down."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from rendered_examples import make_examples
from safetensors.torch import load_file
from transformers import set_seed

from facellm.checkpoint import load_checkpoint
from facellm.config import ROOT
from facellm.data import Attribute, open_image, sha256_file
from facellm.errors import FaceLLMError
from facellm.model import ChatModel, Request, Sampling, Turn
from facellm.training import jobs
from facellm.training.jobs import RunConfig, State
from facellm.training.train import train, with_lora


@pytest.fixture(scope="module")
def base_hashes(untrained_tiny: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in untrained_tiny.iterdir()}


@pytest.fixture(scope="module")
def trained(untrained_tiny: Path, base_hashes: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run: 4 faces, 32 pairs, 16 steps, in a process of its own by the command that the button starts."""
    assert base_hashes
    folder = tmp_path_factory.mktemp("trained")
    config = RunConfig(base_model=str(untrained_tiny), measured_faces=0, epochs=8, batch_size=16, learning_rate=5e-3)
    run_dir = jobs.create_run(folder / "runs", make_examples(folder / "images", 4), config)
    done = subprocess.run(
        [sys.executable, "-m", "facellm", "train", str(run_dir)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "step 16/16" in done.stdout
    return run_dir


def test_only_the_adapter_is_trained(trained: Path, untrained_tiny: Path, base_hashes: dict[str, str]) -> None:
    """Every matrix of the adapter has moved from where the seed had put it; the base is the same to the bit."""
    weights = load_file(trained / "adapter" / "adapter_model.safetensors")
    base, _ = load_checkpoint(untrained_tiny, device="cpu")
    before = {name: value.clone() for name, value in base.state_dict().items()}
    config = RunConfig.checked(jobs.load_record(trained)["config"], "config.json")
    set_seed(config.seed)
    model = with_lora(base, config)
    start = {name: value for name, value in model.state_dict().items() if "lora_" in name}
    assert len(weights) == len(start) == 2 * 7 * base.config.text_config.num_hidden_layers
    for name, value in start.items():
        assert "language_model" in name
        assert not torch.equal(weights[name.replace(".default", "")], value), f"{name} has not moved"
    for name, value in model.unload().state_dict().items():
        assert torch.equal(value, before[name]), f"{name} has moved"
    assert {path.name: sha256_file(path) for path in untrained_tiny.iterdir()} == base_hashes


def test_the_loss_fell_and_all_is_written_down(trained: Path) -> None:
    steps = jobs.metrics(trained)
    assert [line["step"] for line in steps] == list(range(1, 17))
    assert all(line["total"] == 16 for line in steps)
    assert steps[-1]["loss"] < steps[0]["loss"] - 0.5
    assert steps[-1]["epoch"] == 8
    assert steps[0]["lr"] > steps[-1]["lr"] >= 0
    status = jobs.status(trained)
    assert status.state is State.FINISHED
    assert (status.step, status.total_steps, status.eta_s) == (16, 16, None)
    assert status.adapter == trained / "adapter"
    result = json.loads((trained / "result.json").read_text())
    assert result["first_loss"] == steps[0]["loss"]
    assert result["adapter_sha256"] == sha256_file(trained / "adapter" / "adapter_model.safetensors")
    adapter = json.loads((trained / "adapter" / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == jobs.load_record(trained)["config"]["base_model"]


def test_the_adapter_answers_alike_however_often_it_is_loaded(trained: Path, untrained_tiny: Path) -> None:
    image = open_image(trained.parent.parent / "images" / "0.png")
    turn = Turn("user", Attribute.POSE.question, (image,))
    requests = [Request((turn,), name, Sampling(max_new_tokens=12)) for name in ("tuned", None)]
    answers = []
    for _ in range(2):
        with ChatModel.load(untrained_tiny, device="cpu") as model:
            model.add_adapter("tuned", trained / "adapter")
            answers.append(model.replies(requests))
    assert answers[0] == answers[1]
    assert answers[0][0] != answers[0][1], "the adapter has no effect"


def test_the_same_seed_gives_the_same_curve_however_the_rows_are_split(untrained_tiny: Path, tmp_path: Path) -> None:
    """Again in this process: a repetition to the bit; a row at a time, within rounding; another seed, another curve."""
    examples = make_examples(tmp_path / "images", 4)
    common = {
        "base_model": str(untrained_tiny),
        "measured_faces": 0,
        "max_steps": 4,
        "batch_size": 32,
        "learning_rate": 5e-3,
    }

    def losses(**changes: int) -> list[float]:
        run_dir = jobs.create_run(tmp_path / "runs", examples, RunConfig.model_validate(common | changes))
        train(run_dir)
        return [line["loss"] for line in jobs.metrics(run_dir)]

    first = losses()
    assert losses() == first
    assert losses(rows_at_once=1) == pytest.approx(first, rel=1e-4)
    assert losses(seed=1) != first


@pytest.mark.parametrize(("every", "batch_size"), [(1, 80), (8, 10)], ids=["eight pairs an image", "one pair an image"])
def test_a_step_has_as_many_pairs_as_were_asked_for_however_few_rows_are_computed_at_once(
    untrained_tiny: Path, tmp_path: Path, every: int, batch_size: int
) -> None:
    """Of twelve images a step of ten takes ten, so there are two, and their losses and tokens are the same."""
    examples = make_examples(tmp_path / "images", 12)[::every]
    curves = []
    for rows_at_once in (1, 4, 64):
        config = RunConfig(
            base_model=str(untrained_tiny),
            measured_faces=0,
            batch_size=batch_size,
            rows_at_once=rows_at_once,
            learning_rate=5e-3,
        )
        run_dir = jobs.create_run(tmp_path / "runs", examples, config)
        train(run_dir)
        curves.append([(line["loss"], line["tokens"]) for line in jobs.metrics(run_dir)])
    assert [len(curve) for curve in curves] == [2, 2, 2]
    for curve in curves[1:]:
        assert [loss for loss, _ in curve] == pytest.approx([loss for loss, _ in curves[0]], rel=1e-3)
        assert [tokens for _, tokens in curve] == [tokens for _, tokens in curves[0]]


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("train.jsonl", ('"answer": "', '"answer": "Perhaps. '), r"train\.jsonl of run-1 has been changed"),
        ("train.jsonl", ('"question"', '"qestion"'), r"train\.jsonl, line 1: "),
        ("config.json", ('"rank": 16', '"rank": -1'), r"run-1/config\.json: rank: "),
        ("config.json", ('"max_length": 2048', '"max_length": 32'), "16 of 16 pairs are longer than max_length"),
        ("config.json", ('"base_model": "', '"base_model": "no/such'), "cannot be loaded"),
    ],
)
def test_what_cannot_be_trained_ends_with_a_sentence(
    untrained_tiny: Path, tmp_path: Path, file: str, change: tuple[str, str], message: str
) -> None:
    config = RunConfig(base_model=str(untrained_tiny), measured_faces=0)
    run_dir = jobs.create_run(tmp_path / "runs", make_examples(tmp_path / "images", 2), config)
    text = (run_dir / file).read_text()
    assert change[0] in text
    (run_dir / file).write_text(text.replace(*change))
    with pytest.raises(FaceLLMError, match=message):
        train(run_dir)
    result = json.loads((run_dir / "result.json").read_text())
    assert result["state"] == "failed"
    assert "Traceback" not in result["error"]


class StopAfter(threading.Event):
    """Is set after it has been looked at so many times."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks = looks

    def is_set(self) -> bool:
        self.looks -= 1
        if self.looks < 0:
            self.set()
        return super().is_set()


@pytest.mark.parametrize(
    ("looks", "missing"),
    [(0, "train.jsonl"), (1, "base"), (2 + 32 + 2, "nothing"), (2 + 32 + 4 + 1, "nothing")],
    ids=["at once", "before loading", "at the third image", "at the second row"],
)
def test_stop_is_heard_before_the_first_step(untrained_tiny: Path, tmp_path: Path, looks: int, missing: str) -> None:
    """What the training would come to next is missing, so it would fail if it went on."""
    examples = make_examples(tmp_path / "images", 4)
    config = RunConfig(base_model=str(tmp_path / "none") if missing == "base" else str(untrained_tiny))
    run_dir = jobs.create_run(tmp_path / "runs", examples, config)
    (run_dir / missing).unlink(missing_ok=True)
    (tmp_path / missing).unlink(missing_ok=True)
    train(run_dir, stop=StopAfter(looks))
    assert jobs.status(run_dir).state is State.STOPPED
    assert json.loads((run_dir / "result.json").read_text()).keys() == {"state", "versions", "seconds"}
    assert not (run_dir / "adapter").exists()


def test_a_loss_that_is_lost_ends_the_run(untrained_tiny: Path, tmp_path: Path) -> None:
    config = RunConfig(
        base_model=str(untrained_tiny), measured_faces=0, max_steps=200, learning_rate=0.1, batch_size=8, clip=1e6
    )
    run_dir = jobs.create_run(tmp_path / "runs", make_examples(tmp_path / "images", 2), config)
    broken = Path(str(tmp_path / "broken"))
    base, processor = load_checkpoint(untrained_tiny, device="cpu")
    base.lm_head.weight.data.fill_(float("inf"))
    base.save_pretrained(broken)
    processor.save_pretrained(broken)
    record = json.loads((run_dir / "config.json").read_text())
    record["config"]["base_model"] = str(broken)
    (run_dir / "config.json").write_text(json.dumps(record))
    with pytest.raises(FaceLLMError, match="The loss became nan at step 1; .* lower learning rate"):
        train(run_dir)
    assert jobs.status(run_dir).state is State.FAILED
