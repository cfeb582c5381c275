"""The embedded base model and its adapter, from nothing: python -m facellm tiny build

Draws faces, trains the vision tower, then the language model, saves the base, and fine-tunes an adapter from it by the
very command that the app's button runs. The one surprising fact: the weights are trained and used in float32 and stored
rounded to bfloat16, which halves the files; the config says float32, so that loading widens them again.
"""

import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from transformers import InternVLForConditionalGeneration, InternVLProcessor

from facellm.config import EMBEDDED_ADAPTER, EMBEDDED_BASE, EMBEDDED_DIR, ROOT
from facellm.data import Attribute, Example, Provenance, sha256_file
from facellm.errors import ConfigError
from facellm.face_text import answer
from facellm.faces import TRAINING_SEEDS, render, sample
from facellm.tiny import IMAGE_SIZE, make_model, make_processor
from facellm.tiny_faces import draw_all
from facellm.tiny_training import Report, train_language, train_tower
from facellm.training.jobs import RunConfig, create_run, recipe

# Within TRAINING_SEEDS: the base's faces from the start, its held-out faces, the adapter's faces.
HELD_OUT, ADAPTER_FACES = 900_000, 1_000_000
CURATED_SIZE = 192  # pixels, of the adapter's training pictures


class Plan(BaseModel):
    """How much is drawn and trained; the defaults made what is committed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    faces: int = Field(default=24_000, ge=1, le=HELD_OUT, description="Different faces that the base is trained on.")
    held_out: int = Field(default=1_000, ge=1, le=ADAPTER_FACES - HELD_OUT, description="Faces that test the tower.")
    tower_images: int = Field(default=180_000, ge=320, description="Pictures shown to the tower in all.")
    lists: int = Field(default=19_200, ge=96, description="Lists of all values shown to the language model in all.")
    captions: int = Field(default=24_000, ge=96, description="Captioned pictures shown to it after that.")
    adapter_faces: int = Field(default=2_000, ge=1, le=1_000_000, description="Faces of the adapter's curated set.")
    adapter_epochs: int = Field(default=4, ge=1, le=1000, description="How often the adapter sees them.")

    @classmethod
    def checked(cls, values: Mapping[str, str]) -> Self:
        """Build from what a person typed.

        Raises:
            ConfigError: a name that does not exist, or a number out of its bounds.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"])
            raise ConfigError(f"--set {name}: {first['msg']}, found {first['input']!r}. Correct it.") from error


def build(out: Path = EMBEDDED_DIR, *, seed: int = 0, plan: Plan | None = None, report: Report = print) -> None:
    """Write tiny-base/ and facellm-tiny/ below `out`. Other files there, such as the model cards, are left alone.

    Args:
        seed: of the weights, the order and the wording; the faces are the same for every seed.
        report: is told, in lines, how far it is.
    """
    plan = plan or Plan()
    started = time.monotonic()

    def tell(line: str) -> None:
        report(f"{time.monotonic() - started:6.0f} s  {line}")

    processor = make_processor()
    model = make_model(processor, seed=seed)
    tell(f"drawing {plan.faces} faces")
    pictures = draw_all(TRAINING_SEEDS[: plan.faces], IMAGE_SIZE)
    held_out = draw_all(TRAINING_SEEDS[HELD_OUT : HELD_OUT + plan.held_out], IMAGE_SIZE)
    seen = train_tower(model, processor, pictures, held_out, images=plan.tower_images, seed=seed, report=tell)
    tell("tower, on held-out faces: " + ", ".join(f"{factor} {share:.3f}" for factor, share in seen.items()))
    train_language(model, processor, pictures, lists=plan.lists, captions=plan.captions, seed=seed, report=tell)
    base = out / EMBEDDED_BASE.name
    save_rounded(model, processor, base)
    tell(f"{base} is saved; training the adapter")
    train_adapter(base, out / EMBEDDED_ADAPTER.name, plan, seed=seed)
    tell(f"{out / EMBEDDED_ADAPTER.name} is saved")


def save_rounded(model: InternVLForConditionalGeneration, processor: InternVLProcessor, folder: Path) -> None:
    """Write a checkpoint with bfloat16 tensors and a config that asks for float32."""
    rounded = {name: weights.to(torch.bfloat16) for name, weights in model.state_dict().items()}
    model.config.dtype = torch.float32
    processor.save_pretrained(folder)
    model.save_pretrained(folder, state_dict=rounded)


def train_adapter(base: Path, adapter: Path, plan: Plan, *, seed: int) -> None:
    """Fine-tune the base on a fully curated set, by `python -m facellm train`, and copy the adapter.

    Raises:
        subprocess.CalledProcessError: the training has failed; it has said why.
    """
    with tempfile.TemporaryDirectory() as scratch:
        examples = curated(Path(scratch) / "images", plan.adapter_faces, seed=seed)
        numbers = recipe(str(EMBEDDED_BASE)).model_dump()
        numbers |= {"base_model": str(base), "epochs": plan.adapter_epochs, "learning_rate": 2e-3, "seed": seed}
        run_dir = create_run(Path(scratch) / "runs", examples, RunConfig(**numbers), name=adapter.name)
        subprocess.run([sys.executable, "-m", "facellm", "train", str(run_dir)], cwd=ROOT, check=True)
        adapter.mkdir(parents=True, exist_ok=True)
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            shutil.copyfile(run_dir / "adapter" / name, adapter / name)


def curated(folder: Path, count: int, *, seed: int) -> list[Example]:
    """Render `count` faces into the folder and answer all eight questions about each truly."""
    folder.mkdir(parents=True)
    rng = random.Random(f"curated {seed}")
    examples = []
    for number in TRAINING_SEEDS[ADAPTER_FACES : ADAPTER_FACES + count]:
        face = sample(number)
        path = folder / f"{number}.png"
        render(face, CURATED_SIZE).save(path)
        source = Provenance(image_sha256=(sha256_file(path),), labels=face.labels(), teacher="template")
        for attribute in Attribute:
            examples.append(
                Example(
                    images=(str(path),),
                    attribute=attribute,
                    question=attribute.question,
                    answer=answer(face, attribute, rng),
                    provenance=source,
                )
            )
    return examples
