"""The loading code on a checkpoint of InternVL3-1B's true size: python -m pytest tests/test_geometry.py.

Random weights, in several files with an index, loaded in bfloat16 on the CPU. About a minute and 4 GB of memory.
"""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch
from PIL import Image

from facellm.checkpoint import load_checkpoint
from facellm.config import ROOT
from facellm.errors import ModelError
from facellm.faces import render, sample
from facellm.inputs import prompt_tokens
from facellm.model import ChatModel, Request, Sampling, Turn

sys.path.insert(0, str(ROOT / "benchmarks"))
from support.geometry import save_random  # noqa: E402 - after the path

PARAMETERS = 938_193_024  # of OpenGVLab/InternVL3-1B-hf
pytestmark = [
    pytest.mark.xdist_group("geometry"),
    pytest.mark.skipif(psutil.virtual_memory().total < 8e9, reason="needs 8 GB of memory"),
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = save_random(tmp_path_factory.mktemp("geometry") / "1B")
    yield folder
    shutil.rmtree(folder)  # 1.9 GB


def test_the_1b_model_loads_in_bfloat16_from_its_parts_and_answers(checkpoint: Path) -> None:
    index = json.loads((checkpoint / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 3
    with ChatModel.load(checkpoint, device="cpu") as model:
        loaded = model._models[None]
        assert sum(weight.numel() for weight in loaded.model.parameters()) == PARAMETERS
        assert loaded.model.lm_head.weight is not loaded.model.model.language_model.embed_tokens.weight
        if loaded.model.dtype == torch.bfloat16:  # where it is the faster type
            assert 2 * PARAMETERS <= model.memory().weights < 2 * PARAMETERS + 10_000_000
        picture = render(sample(1), 448)
        question = Turn("user", "Describe this image.", (picture,))
        (reply,) = model.replies([Request((question,), None, Sampling(max_new_tokens=2))])
        assert reply
        assert model.memory().pictures == 256 * 896 * loaded.model.dtype.itemsize
        large = Turn("user", "Describe this image.", (Image.new("RGB", (1792, 1344)),))
        tiles = loaded.processor.image_processor.get_number_of_image_patches(1344, 1792, loaded.processor.images_kwargs)
        assert tiles == 13, "twelve tiles and the thumbnail"
        assert prompt_tokens([large], loaded.processor, [tiles]).count(loaded.processor.image_token_id) == 13 * 256


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model-00002-of-00005.safetensors", None),
        ("model-00002-of-00005.safetensors", b"x" * 100),
        ("config.json", b"{}"),
    ],
    ids=["a part is missing", "a part is damaged", "no configuration"],
)
def test_a_damaged_download_is_one_sentence(checkpoint: Path, tmp_path: Path, name: str, content: bytes | None) -> None:
    for path in checkpoint.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / name).unlink()  # the link, not the file
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match="cannot be loaded") as refused:
        load_checkpoint(tmp_path, device="cpu")
    assert "\n" not in str(refused.value)
