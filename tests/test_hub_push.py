"""Pushing an export to a Hub on 127.0.0.1, by the real huggingface_hub.

python -m pytest tests/test_hub_push.py
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from annotation.store import Store
from tests.hub_server import TOKEN, Hub, running_hub
from tests.imports import annotation
from tests.made_faces import face

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def hub(data_dir: Path) -> Iterator[Hub]:
    store = Store.open(data_dir)
    store.ingest([face(store, number) for number in range(2)])
    store.snapshot("first")
    store.close()
    with running_hub() as found:
        yield found


def pushed(
    out: Path, endpoint: str, repository: str = "me/faces", token: str = TOKEN
) -> subprocess.CompletedProcess[str]:
    typed = ("export", "first", "--format", "datasets", "--out", out, "--push-to-hub", repository)
    where = {"HF_ENDPOINT": endpoint, "HF_TOKEN": token, "HF_HUB_OFFLINE": "0", "HF_HOME": str(out.parent / "hf")}
    return annotation(*typed, **where)


def test_an_export_becomes_a_private_repository(hub: Hub, tmp_path: Path) -> None:
    done = pushed(tmp_path / "out", hub.url)
    assert done.returncode == 0, done.stderr
    assert f"Pushed to {hub.url}/datasets/me/faces" in done.stdout
    assert hub.private == {"me/faces": True}
    here = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert set(hub.files) - {".gitattributes"} == here
    assert all(hub.files[name] == (tmp_path / "out" / name).read_bytes() for name in here)


@pytest.mark.parametrize(
    ("token", "status", "says"),
    [("hf_wrong", 200, "HTTP 401): the token is not valid"), (TOKEN, 403, "HTTP 403): the token may not write there")],
)
def test_a_refusal_is_one_sentence_and_the_export_stays(
    hub: Hub, tmp_path: Path, token: str, status: int, says: str
) -> None:
    hub.status = status
    done = pushed(tmp_path / "out", hub.url, token=token)
    assert done.returncode == 1
    assert done.stdout == ""
    line = done.stderr.strip().splitlines()[-1]
    assert says in line
    assert f"The export is in {tmp_path / 'out'}; to try again: hf upload" in line
    assert (tmp_path / "out" / "README.md").is_file()


def test_without_a_network_the_export_stays(hub: Hub, tmp_path: Path) -> None:
    done = pushed(tmp_path / "out", NOWHERE)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("error: The Hub could not be reached to push me/faces: ")
    assert (tmp_path / "out" / "README.md").is_file()
    assert hub.requests == []


@pytest.mark.parametrize(
    ("repository", "token", "says"),
    [("me/faces", "", "needs a token that may write"), ("a/b/c", TOKEN, "is no name of a repository")],
)
def test_what_can_be_seen_without_a_network_is_told_before_the_work(
    hub: Hub, tmp_path: Path, repository: str, token: str, says: str
) -> None:
    done = pushed(tmp_path / "out", hub.url, repository, token)
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (1, 1)
    assert says in done.stderr
    assert not (tmp_path / "out").exists()
