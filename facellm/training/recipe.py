"""What a training run is told: every number of the LoRA recipe with its bounds, and two sets of defaults.

    recipe("OpenGVLab/InternVL3-1B-hf")     FaceLLM's recipe (arXiv:2507.10300)
    recipe(str(EMBEDDED_BASE))              the one for the embedded tiny model
    adjusted(recipe(base), {"rank": 8}, "--set")

The one surprising fact: a base model inside the checkout is named relative to it (`facellm/embedded/tiny-base`), in
runs and in adapters, so that both still find it after the checkout has moved.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from facellm.config import EMBEDDED_BASE, ROOT
from facellm.errors import ConfigError


class RunConfig(BaseModel):
    """The numbers of one run, as in `config.json`. The defaults are FaceLLM's; `recipe` chooses by base model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_model: str = Field(min_length=1, description="Checkpoint to adapt: a folder or a Hub id.")
    snapshot: str | None = Field(default=None, description="The snapshot that the pairs come from.")
    snapshot_sha256: str | None = Field(
        default=None, min_length=64, max_length=64, description="The snapshot's content hash."
    )

    compare_with: str | None = Field(
        default=None, description="The adapter in use when the run was made: folder or Hub id, measured beside it."
    )

    epochs: int = Field(default=1, ge=1, le=1000, description="How often every pair is seen.")
    max_steps: int | None = Field(
        default=None, ge=1, description="Number of steps; where it is set, epochs do not count."
    )
    batch_size: int = Field(
        default=80,
        ge=1,
        le=4096,
        description="Pairs of one step, about: an image brings all its pairs, so steps take images.",
    )
    rows_at_once: int = Field(
        default=4,
        ge=1,
        le=1024,
        description="Rows computed at a time; a step of more adds up their gradients, exactly.",
    )
    share_prefix: bool = Field(
        default=True,
        description="Put the pairs of an image in one row, so that the image is computed once; same gradients.",
    )
    max_length: int = Field(
        default=2048, ge=16, le=131_072, description="Longest row in tokens. A longer pair is refused, never cut."
    )

    learning_rate: float = Field(default=1e-5, gt=0, le=0.1, description="AdamW's peak learning rate.")
    schedule: Literal["cosine", "linear", "constant"] = Field(
        default="cosine", description="How the learning rate falls."
    )
    warmup: float = Field(default=0.0, ge=0, lt=1, description="Share of the steps in which the learning rate rises.")
    weight_decay: float = Field(default=0.0, ge=0, le=1, description="AdamW's weight decay.")
    clip: float = Field(default=1.0, gt=0, description="Largest norm of a step's gradient.")

    rank: int = Field(default=16, ge=1, le=1024, description="Rank of the LoRA matrices.")
    alpha: int = Field(
        default=32, ge=1, le=4096, description="LoRA's scale; its effect is alpha / rank. Twice the rank unless set."
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Share of LoRA's inputs dropped in training.")

    rslora: bool = Field(
        default=False, description="Scale LoRA by alpha / √rank instead of alpha / rank; for high ranks."
    )
    dora: bool = Field(default=False, description="Weight-decomposed LoRA: refused, since the chat cannot serve it.")

    seed: int = Field(
        default=0, ge=0, lt=2**32, description="Of the LoRA matrices, the order of the images and dropout."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="Where to train; auto takes a GPU if any."
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="Type to compute in; auto takes bfloat16 where the processor computes it faster. "
        "Quantized weights are always computed in bfloat16.",
    )
    quantization: Literal["none", "8bit", "4bit"] = Field(
        default="none", description="Of the base's language model while training (QLoRA); needs bitsandbytes."
    )
    attention: Literal["auto", "sdpa", "flex"] = Field(
        default="auto",
        description="Kernel of the shared prefix; auto takes the fastest on a GPU, else SDPA. Same result.",
    )
    gradient_checkpointing: bool = Field(
        default=False, description="Compute activations again instead of keeping them: less memory, a third slower."
    )
    feature_cache_mb: int = Field(
        default=1024, ge=0, description="Memory for vision features that later epochs use again."
    )
    feature_disk_gb: float = Field(
        default=20, ge=0, description="Disk, in the run's folder while it trains, for those that do not fit there."
    )

    held_out: float = Field(
        default=0.05, ge=0, le=0.5, description="Share of the images that are not trained on but measured."
    )
    evaluations: int = Field(
        default=4, ge=0, le=100, description="How often an epoch the held-out loss is measured; once at the end anyway."
    )
    patience: int = Field(
        default=0, ge=0, description="Stop early after so many measurements without a lower held-out loss; 0: never."
    )
    measured_faces: int = Field(
        default=40, ge=0, le=1000, description="Rendered faces asked about after the run, as by `attributes`; 0: none."
    )
    checkpoint_minutes: float = Field(
        default=5, gt=0, description="Time between two checkpoints, from which a run can be resumed."
    )
    trackers: Literal["installed", "none"] = Field(
        default="installed", description="Log to TensorBoard and Trackio, too, where they are installed."
    )

    @field_validator("base_model", "compare_with")
    @classmethod
    def _portable(cls, value: str | None) -> str | None:
        return None if value is None else portable_name(value)

    @field_validator("dora")
    @classmethod
    def _servable(cls, value: bool) -> bool:
        """Refuse what PEFT could train and the chat could not answer with."""
        if value:
            raise ValueError(
                "is on, but DoRA rescales whole rows of the base's weights, and the chat answers by base and adapter "
                "from one copy of them. Leave it off; rslora works."
            )
        return value

    @property
    def checkpoint(self) -> str:
        """The base model as it can be loaded: a folder of the checkout as an absolute path."""
        return find_base(self.base_model)

    @property
    def compared(self) -> str | None:
        """`compare_with` as it can be loaded, likewise."""
        return None if self.compare_with is None else find_base(self.compare_with)

    @classmethod
    def checked(cls, values: Mapping[str, Any], source: str) -> Self:
        """Build from values that a person wrote; `source` says where, for the message.

        Raises:
            ConfigError: a name that does not exist, or a value out of its bounds.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(f"{source}: {_complaint(error)} Correct it and try again.") from error


def _complaint(error: ValidationError) -> str:
    """What is wrong first, in one plain sentence."""
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"there is no field {name}; the fields are {', '.join(numbers())}."
    if first["type"] != "missing" and first["input"] is None:
        kind = {"int_type": "a whole number", "float_type": "a number"}.get(first["type"], "a value")
        return f"{name} is empty, and needs {kind}."
    if first["type"] == "value_error":  # one of ours, a sentence
        return f"{name} {first['ctx']['error']}"
    found = "" if first["type"] == "missing" else f", found {first['input']!r}"
    return f"{name}: {first['msg']}{found}."


def numbers() -> list[str]:
    """The fields that say how to train; the others say on what, and are chosen in other ways."""
    about = ("base_model", "snapshot", "snapshot_sha256", "compare_with")
    return [name for name in RunConfig.model_fields if name not in about]


def changes_from(items: Sequence[str]) -> dict[str, str]:
    """Changes to a recipe that a person typed as FIELD=VALUE.

    Raises:
        ConfigError: one of them has no =.
    """
    for item in items:
        if "=" not in item:
            fields = ", ".join(numbers())
            raise ConfigError(f"--set {item}: expected FIELD=VALUE, such as epochs=3. The fields are {fields}.")
    return dict(item.partition("=")[::2] for item in items)


def recipe(base_model: str) -> RunConfig:
    """The defaults for a base model.

    The embedded model is thousands of times smaller than FaceLLM's bases and has to learn from about a thousand pairs
    in minutes, so it takes a higher rate, smaller steps and several epochs, and computes in its weights' own type.
    """
    if portable_name(base_model) == portable_name(str(EMBEDDED_BASE)):
        return RunConfig(base_model=base_model, epochs=12, batch_size=32, learning_rate=3e-3, dtype="float32")
    return RunConfig(base_model=base_model)


def adjusted(config: RunConfig, changes: Mapping[str, Any], source: str) -> RunConfig:
    """A recipe with some of its numbers changed; alpha is twice the rank unless it is given, too.

    Args:
        config: the recipe.
        changes: field → value, as a person wrote it.
        source: where the values come from, for the message.

    Raises:
        ConfigError: a name that does not exist, or a value out of its bounds.
    """
    changed = RunConfig.checked({**config.model_dump(), **changes}, source)
    return changed if "alpha" in changes else changed.model_copy(update={"alpha": 2 * changed.rank})


def portable_name(base_model: str) -> str:
    """A folder inside the checkout, relative to it; any other folder, absolute; a Hub id as it is."""
    path = Path(find_base(base_model))
    if not (path.is_absolute() or path.is_dir()):
        return base_model
    path = path.resolve()
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)


def find_base(name: str) -> str:
    """The folder that a portable name stands for, or the name itself."""
    inside = ROOT / name
    return str(inside) if inside.is_dir() else name
