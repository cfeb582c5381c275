"""Settings come from space_config.yaml, and the environment goes before it."""

from pathlib import Path

import pytest
import yaml

from facellm.config import CONFIG_FILE, EMBEDDED_ADAPTER, EMBEDDED_BASE, Settings, load_settings
from facellm.errors import ConfigError


def test_the_file_names_every_setting() -> None:
    sections = yaml.safe_load(CONFIG_FILE.read_text(encoding="utf-8"))
    assert set(sections["app"]) == set(Settings.model_fields)
    assert sections["card"]["sdk"] == "gradio"


def test_environment_goes_before_the_file(monkeypatch: pytest.MonkeyPatch, data_dir: Path) -> None:
    monkeypatch.setenv("FACELLM_MAX_NEW_TOKENS", "7")
    settings = load_settings()
    assert settings.max_new_tokens == 7
    assert settings.data_dir == data_dir


def test_embedded_pair_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().base_checkpoint == str(EMBEDDED_BASE)
    assert load_settings().adapter_path == EMBEDDED_ADAPTER
    monkeypatch.setenv("FACELLM_ADAPTER", "none")
    assert load_settings().adapter_path is None


def test_another_base_has_no_adapter_unless_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FACELLM_BASE_MODEL", "OpenGVLab/InternVL3-1B-hf")
    assert load_settings().adapter_path is None
    monkeypatch.setenv("FACELLM_ADAPTER", str(tmp_path))
    assert load_settings().adapter_path == tmp_path


@pytest.mark.parametrize(("name", "value"), [("MAX_NEW_TOKENS", "many"), ("SEED_FACES", "-1"), ("DEVICE", "tpu")])
def test_bad_setting_is_one_sentence(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"FACELLM_{name}", value)
    with pytest.raises(ConfigError, match=f"FACELLM_{name}") as caught:
        load_settings()
    assert value in str(caught.value)
    assert "\n" not in str(caught.value)
