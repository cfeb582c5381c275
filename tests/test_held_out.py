"""Images that are measured and not trained on: which ones, when they end a run, and what the result says of them."""

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from rendered_examples import make_examples
from safetensors.torch import load_file, save_file

from facellm.checkpoint import load_checkpoint
from facellm.config import EMBEDDED_ADAPTER, EMBEDDED_BASE, Settings
from facellm.data import Example, write_examples
from facellm.errors import DataError
from facellm.training import jobs
from facellm.training.prepare import configure
from facellm.training.recipe import RunConfig, portable_name
from facellm.training.train import train
from facellm.training.training_data import TrainingData


def run(folder: Path, examples: list[Example], **changes: object) -> Path:
    """A run that has ended."""
    common = {"device": "cpu", "dtype": "float32", "measured_faces": 0, "trackers": "none", "held_out": 0.25}
    run_dir = jobs.create_run(folder / "runs", examples, RunConfig.model_validate(common | changes))
    train(run_dir)
    return run_dir


def result(run_dir: Path) -> dict[str, Any]:
    return json.loads((run_dir / "result.json").read_text())


def measured(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "held_out.jsonl").read_text().splitlines()]


def nonsense(folder: Path, faces: int) -> list[Example]:
    """Answers that can be learnt by heart and foretell nothing."""
    chance = random.Random(0)
    words = ["red", "tall", "seven", "open", "left", "soft", "blue", "under"]
    return [
        each.model_copy(update={"answer": " ".join(chance.choices(words, k=8))})
        for place, each in enumerate(make_examples(folder / "images", faces))
        if place % 8 < 2
    ]


def test_no_held_out_image_is_trained_on_and_each_keeps_its_part(untrained_tiny: Path, tmp_path: Path) -> None:
    """Of 16 faces four; with pairs added about the same ones, in another order and another folder, the same four."""
    _, processor = load_checkpoint(untrained_tiny, device="cpu")

    def parts(folder: str, examples: list[Example], share: float = 0.25) -> tuple[set[str], set[str]]:
        write_examples(tmp_path / folder / "train.jsonl", examples)
        config = RunConfig(base_model=str(untrained_tiny), held_out=share)
        data = TrainingData(tmp_path / folder / "train.jsonl", processor, config)
        assert sorted([*data.training, *data.held_out]) == list(range(len(data)))
        names = ({Path(data.images.paths[image]).name for row in data[part] for image in row.images}
                 for part in (data.training, data.held_out))  # fmt: skip
        return next(names), next(names)

    everything = make_examples(tmp_path / "one" / "images", 16)
    few = [each for place, each in enumerate(everything) if place % 8 < 2]
    trained, held = parts("one", few)
    assert len(trained) == 12 and len(held) == 4 and not trained & held
    elsewhere = make_examples(tmp_path / "two" / "images", 16)[::-1]
    assert parts("two", elsewhere) == (trained, held)
    _, more = parts("one", everything, share=0.5)
    assert held < more, "a larger share holds out the same ones and more"
    _, none = parts("one", everything, share=0.0)
    assert none == set()


def test_a_run_that_gets_worse_is_ended_and_its_best_adapter_taken(untrained_tiny: Path, tmp_path: Path) -> None:
    examples = nonsense(tmp_path, 8)
    options = {"base_model": str(untrained_tiny), "epochs": 40, "batch_size": 6, "learning_rate": 2e-2}
    options |= {"evaluations": 1, "schedule": "constant"}
    run_dir = run(tmp_path, examples, patience=3, **options)
    found, looks = result(run_dir), measured(run_dir)
    assert found["state"] == "finished" and found["early_stop"]
    best = min((look for look in looks if look["step"]), key=lambda look: look["loss"])
    assert found["steps"] == looks[-1]["step"] < 80
    assert [look["step"] for look in looks if look["best"]][-1] == best["step"] == found["best_step"]
    assert len([look for look in looks if look["step"] > best["step"]]) == 3
    assert found["held_out"]["images"] == 2 and found["held_out"]["pairs"] == 4
    assert found["held_out"]["run"] == best["loss"] < looks[-1]["loss"]
    assert found["held_out"]["base"] == looks[0]["loss"]
    again = run(tmp_path, examples, compare_with=str(run_dir / "adapter"), **options | {"max_steps": 1})
    assert result(again)["held_out"]["in_use"] == pytest.approx(best["loss"], rel=1e-6)
    assert result(again)["in_use"] == run_dir.name


def test_without_patience_no_step_and_no_loss_is_another(untrained_tiny: Path, tmp_path: Path) -> None:
    """Patience that is not exhausted takes the best adapter, but trains alike; without, the last one is taken."""
    options = {"base_model": str(untrained_tiny), "epochs": 3, "batch_size": 6, "learning_rate": 2e-2}
    options |= {"evaluations": 1, "schedule": "constant"}
    examples = nonsense(tmp_path, 8)
    plain, patient = (run(tmp_path, examples, patience=patience, **options) for patience in (0, 100))
    assert [line["loss"] for line in jobs.metrics(plain)] == [line["loss"] for line in jobs.metrics(patient)]
    assert not result(plain)["early_stop"] and not result(patient)["early_stop"]
    assert result(plain)["held_out"]["run"] == measured(plain)[-1]["loss"]
    assert not (plain / "best").exists()


def test_a_run_is_measured_beside_the_adapter_in_use(tmp_path: Path) -> None:
    """By default, beside the configured base, that is the configured one; its name holds wherever the checkout is."""
    settings = Settings(device="cpu")
    changes = {"max_steps": 2, "measured_faces": 2, "held_out": 0.25, "trackers": "none"}
    config = configure(settings, settings.base_checkpoint, changes, "--set")
    assert config.compare_with == portable_name(str(EMBEDDED_ADAPTER)) == "facellm/embedded/facellm-tiny"
    assert configure(settings, "some/other-base", {}, "--set").compare_with is None
    assert configure(Settings(adapter="none"), str(EMBEDDED_BASE), {}, "--set").compare_with is None
    run_dir = jobs.create_run(tmp_path / "runs", make_examples(tmp_path / "images", 8), config)
    train(run_dir)
    found = result(run_dir)
    losses = found["held_out"]
    assert found["in_use"] == "facellm-tiny" and "not_measured" not in found
    assert losses["in_use"] < losses["run"] < losses["base"]
    assert found["attributes"].keys() == {"faces", "seed", "base", "run", "in_use"}
    assert found["attributes"]["in_use"]["overall"]["right"] > found["attributes"]["base"]["overall"]["right"]


@pytest.mark.parametrize(
    ("which", "why"),
    [("gone", "does not exist"), ("of another base", "it was trained on another base")],
)
def test_an_adapter_that_cannot_be_measured_fails_no_run(
    untrained_tiny: Path, tmp_path: Path, which: str, why: str
) -> None:
    other = tmp_path / "other" / "adapter"
    if which != "gone":
        base, _ = load_checkpoint(untrained_tiny, device="cpu")
        model = get_peft_model(base, LoraConfig(r=4, target_modules=r"model\.language_model\..*\.q_proj"))
        model.save_pretrained(str(other))
        weights = load_file(other / "adapter_model.safetensors")
        narrow = {name: value[:, :8].contiguous() if "lora_A" in name else value for name, value in weights.items()}
        save_file(narrow, other / "adapter_model.safetensors")
    run_dir = run(
        tmp_path,
        make_examples(tmp_path / "images", 4),
        base_model=str(untrained_tiny),
        max_steps=2,
        compare_with=str(other),
        measured_faces=1,
    )
    found = result(run_dir)
    assert found["state"] == "finished" and (run_dir / "adapter").is_dir()
    assert found["held_out"]["run"] == measured(run_dir)[-1]["loss"]
    assert found["held_out"].get("in_use") is None
    assert found["attributes"].keys() == {"faces", "seed", "base", "run"}
    assert "other" in found["not_measured"] and "\n" not in found["not_measured"]
    assert re.search(why, found["not_measured"]), found["not_measured"]


def test_an_adapter_in_use_that_adapts_few_layers_is_measured(untrained_tiny: Path, tmp_path: Path) -> None:
    """As many do: queries and values only. Its loss is its own, and the layers that it leaves are the base's."""
    base, _ = load_checkpoint(untrained_tiny, device="cpu")
    torch.manual_seed(0)
    few = LoraConfig(r=4, target_modules=r"model\.language_model\..*\.(q|v)_proj", init_lora_weights=False)
    get_peft_model(base, few).save_pretrained(tmp_path / "few")
    examples = make_examples(tmp_path / "images", 8)
    found = result(run(tmp_path, examples, base_model=str(untrained_tiny), compare_with=str(tmp_path / "few")))
    losses = found["held_out"]
    assert "not_measured" not in found
    assert len({losses["base"], losses["run"], losses["in_use"]}) == 3


def test_no_run_without_an_image_to_learn_from(untrained_tiny: Path, tmp_path: Path) -> None:
    """All pairs show the same two images, of which one is held out."""
    images = [each.images[0] for each in make_examples(tmp_path / "images", 2)[::8]]
    examples = [each.model_copy(update={"images": tuple(images)}) for each in make_examples(tmp_path / "images", 2)]
    with pytest.raises(DataError, match="held_out is 0.5, and no image is left to train on"):
        run(tmp_path, examples, base_model=str(untrained_tiny), held_out=0.5)
