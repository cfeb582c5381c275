"""Settings come from space_config.yaml, and the environment goes before it."""

from pathlib import Path

import pytest
import yaml

from facellm.config import CONFIG_FILE, EMBEDDED_ADAPTER, EMBEDDED_BASE, RemoteServer, Settings, load_settings
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


def test_without_a_gpu_the_embedded_pair_is_the_default() -> None:
    settings = load_settings()
    on_cpu = settings.model_copy(update={"device": "cpu"})
    assert on_cpu.base_checkpoint == str(EMBEDDED_BASE)
    assert on_cpu.adapter_path == EMBEDDED_ADAPTER
    assert on_cpu.all_checkpoints == {}


def test_with_a_gpu_facellm_stands_beside_its_internvl3() -> None:
    settings = load_settings().model_copy(update={"device": "cuda"})
    assert settings.base_checkpoint == "OpenGVLab/InternVL3-1B-hf"
    assert list(settings.all_checkpoints) == ["FaceLLM-1B"]
    assert settings.adapter_path is None
    instead = settings.embedded
    assert (instead.base_checkpoint, instead.adapter_path) == (str(EMBEDDED_BASE), EMBEDDED_ADAPTER)
    assert instead.all_checkpoints == {}
    named = settings.model_copy(update={"base_model": "some/other"})
    assert (named.base_checkpoint, named.all_checkpoints) == ("some/other", {})


def test_a_key_is_read_when_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    server = RemoteServer(base_url="http://127.0.0.1:1/v1", model="m", key_variable="MY_SERVERS_KEY")
    with pytest.raises(ConfigError, match="MY_SERVERS_KEY, which is to hold the key for http://127.0.0.1:1/v1, is not"):
        _ = server.api_key
    monkeypatch.setenv("MY_SERVERS_KEY", "secret")
    assert server.api_key == "secret"
    assert "secret" not in repr(server)
    assert RemoteServer(base_url="http://127.0.0.1:1/v1", model="m").api_key is None


def test_remotes_and_checkpoints_come_from_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACELLM_REMOTES", '{"vllm": {"base_url": "http://127.0.0.1:8000/v1", "model": "facellm"}}')
    monkeypatch.setenv("FACELLM_CHECKPOINTS", '{"FaceLLM-8B": "Idiap/FaceLLM-8B"}')
    settings = load_settings()
    assert settings.remotes["vllm"].model == "facellm"
    assert settings.checkpoints == {"FaceLLM-8B": "Idiap/FaceLLM-8B"}
    monkeypatch.setenv("FACELLM_REMOTES", '{"vllm": {"url": "x"}}')
    with pytest.raises(ConfigError, match="FACELLM_REMOTES"):
        load_settings()


def test_teachers_come_from_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = '{"vllm": {"base_url": "http://127.0.0.1:8000/v1", "model": "m", "key_variable": "K", "price": %s}}'
    monkeypatch.setenv("FACELLM_TEACHERS", teacher % "[0.1, 0.5]")
    settings = load_settings()
    assert (settings.teachers["vllm"].model, settings.teachers["vllm"].price) == ("m", (0.1, 0.5))
    with pytest.raises(ConfigError, match="The variable K, which is to hold the key"):
        _ = settings.teachers["vllm"].api_key
    monkeypatch.setenv("FACELLM_TEACHERS", teacher % "[1]")
    with pytest.raises(ConfigError, match="FACELLM_TEACHERS"):
        load_settings()


def test_a_command_works_on_the_same_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACELLM_SEED_FACES", "7")
    url = "postgresql://ana@db/facellm"
    environment = Settings(data_dir=tmp_path, database=url).command_environment
    assert (environment["FACELLM_DATA_DIR"], environment["FACELLM_SEED_FACES"]) == (str(tmp_path), "7")
    assert environment["FACELLM_DATABASE"] == url


def test_a_command_takes_an_adapter_by_its_name(data_dir: Path) -> None:
    settings = load_settings()
    folder = data_dir / "runs" / "run-1" / "adapter"
    folder.mkdir(parents=True)
    (folder.parent / "config.json").touch()
    assert settings.find_adapter("run-1", beside=None) == str(folder)
    (data_dir / "runs" / "run-2").mkdir()
    (data_dir / "runs" / "run-2" / "config.json").touch()
    with pytest.raises(ConfigError, match="The run run-2 has left no adapter yet"):
        settings.find_adapter("run-2", beside=None)
    assert settings.find_adapter("facellm-tiny", beside="x") == str(EMBEDDED_ADAPTER)
    assert settings.find_adapter(None, beside=None) == str(EMBEDDED_ADAPTER)
    assert settings.find_adapter(None, beside="x") is None
    assert settings.find_adapter("none", beside=None) is None
    assert settings.find_adapter("some/repo", beside=None) == "some/repo"
