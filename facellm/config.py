"""The app's settings: `space_config.yaml` (section `app`), overridden by FACELLM_* environment variables.

This is the only module that reads the environment. Nothing is read at import: `load_settings()` does it, and only
`app.py` and the commands call that.
"""

import ctypes
import os
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    YamlConfigSettingsSource,
)

from facellm.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent
CONFIG_FILE = ROOT / "space_config.yaml"
EMBEDDED_DIR = Path(__file__).resolve().parent / "embedded"
EMBEDDED_BASE = EMBEDDED_DIR / "tiny-base"
EMBEDDED_ADAPTER = EMBEDDED_DIR / "facellm-tiny"


REAL_BASE = "OpenGVLab/InternVL3-1B-hf"
REAL_CHECKPOINTS = {"FaceLLM-1B": "Idiap/FaceLLM-1B#model"}  # beside it, where there is a GPU

OAUTH_VARIABLES = ("OAUTH_CLIENT_ID", "OAUTH_CLIENT_SECRET", "OAUTH_SCOPES", "OPENID_PROVIDER_URL")


# As torchrun, accelerate and Ray name them, then as mpirun's kinds do.
_RANK = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
_SIZE = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_LOCAL_SIZE = ("LOCAL_WORLD_SIZE", "MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE", "MV2_COMM_WORLD_LOCAL_SIZE")


class Launched(NamedTuple):
    """This process among those that were launched together to train one run."""

    rank: int  # from 0
    size: int  # 1: it was started alone
    local_size: int  # those on this machine
    sharded: bool  # the weights are to be spread over them (FSDP)


def launched() -> Launched:
    """What a launcher of several processes has told this one."""

    def number(names: tuple[str, ...], default: int) -> int:
        return next((int(os.environ[name]) for name in names if os.environ.get(name, "").isdigit()), default)

    size = number(_SIZE, 1)
    sharded = os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"
    return Launched(number(_RANK, 0), size, number(_LOCAL_SIZE, size), sharded)


def keep_ray_on_this_machine() -> None:
    """Have Ray, which is not imported yet, listen on the loopback address: it would replace 127.0.0.1 by another one.

    The variable's name is of two other systems, where that is the default; it means the same on each.
    """
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"


def ray_address() -> str | None:
    """The Ray cluster to train on, if one is named."""
    return os.environ.get("RAY_ADDRESS") or None


class Endpoint(BaseModel):
    """A model of an OpenAI-compatible server."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str = Field(min_length=1, description="Such as http://127.0.0.1:8000/v1.")
    model: str = Field(min_length=1, description="The model's name there.")
    key_variable: str | None = Field(default=None, description="The environment variable that holds the key.")

    @property
    def api_key(self) -> str | None:
        """The key, read now, so that it is stored nowhere.

        Raises:
            ConfigError: the variable is not set.
        """
        if self.key_variable is None:
            return None
        if not (key := os.environ.get(self.key_variable)):
            raise ConfigError(
                f"The variable {self.key_variable}, which is to hold the key for {self.base_url}, is not set. "
                "Set it, or do without key_variable if that server needs no key."
            )
        return key


class RemoteServer(Endpoint):
    """One that answers in a pane of the chat."""

    adapters: dict[str, str] = Field(
        default_factory=dict, description="LoRA adapters that it is to load, by name: paths on that server (vLLM)."
    )


class TeacherEndpoint(Endpoint):
    """One that writes question-answer pairs."""

    price: tuple[float, float] | None = Field(
        default=None, description="USD per million input and output tokens, where prices.json does not know the model."
    )


class Settings(BaseSettings):
    """All settings of the app. Field by field as in `space_config.yaml`; unknown keys there are refused."""

    model_config = SettingsConfigDict(env_prefix="FACELLM_", extra="forbid", frozen=True)

    data_dir: Path = Path("data")
    database: str = Field(default="", repr=False)  # may hold a password
    base_model: str = "auto"
    adapter: str = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    quantization: Literal["none", "8bit", "4bit"] = "none"
    checkpoints: dict[str, str] = Field(default_factory=dict)
    remotes: dict[str, RemoteServer] = Field(default_factory=dict)
    teachers: dict[str, TeacherEndpoint] = Field(default_factory=dict)
    reviewer: str = Field(default="reviewer", min_length=1)
    sign_in: Literal["auto", "local", "huggingface", "none"] = "auto"
    admins: list[str] = Field(default_factory=list)
    session_secret: SecretStr = SecretStr("")
    max_new_tokens: int = Field(default=160, ge=1, le=4096)
    max_image_mb: float = Field(default=10, gt=0)
    max_image_megapixels: float = Field(default=50, gt=0)
    max_question_chars: int = Field(default=2000, ge=1)
    seed_faces: int = Field(default=320, ge=0)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments first, then the environment, then the file."""
        file_settings = YamlConfigSettingsSource(settings_cls, yaml_file=CONFIG_FILE, yaml_config_section="app")
        return init_settings, env_settings, file_settings

    @property
    def runs_dir(self) -> Path:
        """One directory for each training run."""
        return self.data_dir / "runs"

    @property
    def snapshots_dir(self) -> Path:
        """One JSONL file of examples for each snapshot."""
        return self.data_dir / "snapshots"

    @property
    def command_environment(self) -> dict[str, str]:
        """The environment for a command of ours that is to work on the same data."""
        return os.environ | {"FACELLM_DATA_DIR": str(self.data_dir), "FACELLM_DATABASE": self.database}

    @property
    def is_on_space(self) -> bool:
        """Whether this is a Hugging Face Space, which strangers can open."""
        return os.environ.get("SYSTEM") == "spaces" and bool(os.environ.get("SPACE_ID"))

    @property
    def has_oauth(self) -> bool:
        """Whether visitors can sign in with Hugging Face: a Space whose card says `hf_oauth: true`."""
        return self.is_on_space and all(os.environ.get(name) for name in OAUTH_VARIABLES)

    @property
    def huggingface_admins(self) -> list[str]:
        """The Hugging Face users who are admins whatever the accounts say: the named ones, else the Space's owner."""
        owner = os.environ.get("SPACE_AUTHOR_NAME", "") if self.is_on_space else ""
        return self.admins or [name for name in [owner] if name]

    @property
    def is_remote_only(self) -> bool:
        """Whether no model is loaded here: all panes are remote."""
        return self.base_model == "none"

    @property
    def base_checkpoint(self) -> str:
        """The base model to load or to train; where none is named, InternVL3-1B on a GPU, else the embedded one."""
        if self.base_model not in ("auto", "none"):
            return self.base_model
        return REAL_BASE if self.uses_gpu else str(EMBEDDED_BASE)

    @property
    def all_checkpoints(self) -> dict[str, str]:
        """The whole models beside the base: those of the settings, and FaceLLM beside the InternVL3 of a GPU."""
        return (REAL_CHECKPOINTS if self.base_model == "auto" and self.uses_gpu else {}) | self.checkpoints

    @property
    def uses_gpu(self) -> bool:
        """Whether models go to a GPU; asked of the driver, since torch takes seconds to import."""
        return self.device == "cuda" or (self.device == "auto" and has_gpu())

    @property
    def embedded(self) -> "Settings":
        """The same settings with the embedded pair of models."""
        chosen = {"base_model": str(EMBEDDED_BASE), "adapter": str(EMBEDDED_ADAPTER), "checkpoints": {}}
        return self.model_copy(update=chosen)

    @property
    def adapter_path(self) -> Path | None:
        """The adapter that answers beside the base; None when there is to be none.

        `auto` means the embedded adapter, and only beside the embedded base, for which it was trained.
        """
        if self.adapter == "none":
            return None
        if self.adapter == "auto":
            return EMBEDDED_ADAPTER if self.base_checkpoint == str(EMBEDDED_BASE) else None
        return Path(self.adapter)

    def find_adapter(self, wanted: str | None, *, beside: str | None) -> str | None:
        """The folder or Hub id of the adapter that a command is to use; None for the base alone.

        Args:
            wanted: a name (a run's, or of the configured adapter), a folder, a Hub id, or none; None: as configured.
            beside: the base model that was named, if one was: the configured adapter was not made for that.

        Raises:
            ConfigError: it is a run that has left no adapter yet.
        """
        if wanted is None:
            return None if beside or self.adapter_path is None else str(self.adapter_path)
        if wanted == "none":
            return None
        if wanted == self.adapter_name:
            return str(self.adapter_path)
        run = self.runs_dir / wanted
        if Path(wanted).is_dir() or not (run / "config.json").is_file():
            return wanted
        if not (run / "adapter").is_dir():
            raise ConfigError(
                f"The run {wanted} has left no adapter yet. Wait until it has ended, or stop it, which saves one; "
                f"python -m facellm runs says how it stands."
            )
        return str(run / "adapter")

    @property
    def adapter_name(self) -> str | None:
        """The name under which that adapter answers: its folder's, and for a run's `adapter/` the run's."""
        if self.adapter_path is None:
            return None
        path = self.adapter_path.absolute()
        return path.parent.name if path.name == "adapter" else path.name


@cache
def has_gpu() -> bool:
    """Whether NVIDIA's driver knows of a GPU."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int()
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0


def load_settings() -> Settings:
    """Read the settings, with a relative `data_dir` resolved against the working directory.

    Raises:
        ConfigError: the file or a variable holds something that is not a setting, or a value out of its range.
    """
    try:
        settings = Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"The setting {name} is not usable ({first['msg']}; found {first['input']!r}). "
            f"Correct it in {CONFIG_FILE.name} or in the variable FACELLM_{name.partition('.')[0].upper()}."
        ) from error
    except SettingsError as error:  # a variable that should hold JSON
        raise ConfigError(f"A FACELLM_ variable cannot be read: {error}. Expected JSON, such as {{}}.") from error
    except (yaml.YAMLError, KeyError) as error:
        raise ConfigError(f"{CONFIG_FILE.name} cannot be read: {error}. Expected the sections card and app.") from error
    return settings.model_copy(update={"data_dir": settings.data_dir.resolve()})
