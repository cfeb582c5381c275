"""An adapter merged into its base, against the base with the adapter beside it: python -m pytest tests/test_merging.py

The merged checkpoints are read by transformers alone, in a process that cannot import peft or facellm.
"""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lively_model import LANGUAGE_LINEARS, save_adapter, save_lively
from peft import PeftModel
from transformers import AutoModelForImageTextToText

from facellm.config import EMBEDDED_ADAPTER, EMBEDDED_BASE, ROOT
from facellm.data import Attribute
from facellm.errors import DataError, FaceLLMError, ModelError
from facellm.faces import render, sample
from facellm.folders import check_room
from facellm.model import ChatModel, Request, Sampling, Turn
from facellm.publishing.merging import merge

PLAIN = """
import json, sys
sys.modules.update(peft=None, facellm=None)
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

folder, picture, *questions = sys.argv[1:]
model, processor = AutoModelForImageTextToText.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
answers = []
for question in questions:
    content = [{"type": "image", "image": Image.open(picture)}, {"type": "text", "text": question}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=True,
        return_tensors="pt",
    )
    tokens = model.generate(**inputs, max_new_tokens=64, do_sample=False)[0, inputs["input_ids"].shape[1]:]
    answers.append(processor.decode(tokens, skip_special_tokens=True))
print(json.dumps({"dtype": str(model.dtype), "answers": answers}))
"""
KINDS = {
    "stabilised": {"r": 9, "use_rslora": True, "target_modules": LANGUAGE_LINEARS},
    "patterns": {
        "r": 2,
        "target_modules": LANGUAGE_LINEARS,
        "rank_pattern": {"q_proj": 5, r"layers\.1\.mlp\.up_proj": 3},
        "alpha_pattern": {"v_proj": 32, "model.language_model.layers.0.self_attn.o_proj": 1},
    },
}


@pytest.fixture(scope="module")
def lively(untrained_tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_lively(untrained_tiny, tmp_path_factory.mktemp("merging") / "lively")


def logits(model: torch.nn.Module) -> torch.Tensor:
    tokens = torch.randint(10, 700, (3, 24), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=tokens).logits
    return found


def facellm(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "facellm", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_the_merged_embedded_model_answers_in_plain_transformers_as_the_adapter_does(tmp_path: Path) -> None:
    done = facellm("merge", "facellm-tiny", tmp_path / "merged")
    assert done.returncode == 0, done.stderr
    assert "with 28 layers changed" in done.stdout
    render(sample(1), 256).save(tmp_path / "face.png")
    questions = [attribute.question for attribute in Attribute]
    with ChatModel.load(EMBEDDED_BASE, device="cpu") as model:
        model.add_adapter("tuned", EMBEDDED_ADAPTER)
        picture = render(sample(1), 256)
        asked = [Request((Turn("user", each, (picture,)),), "tuned", Sampling(max_new_tokens=64)) for each in questions]
        expected = model.replies(asked)
    command = [sys.executable, "-c", PLAIN, str(tmp_path / "merged"), str(tmp_path / "face.png"), *questions]
    plain = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert plain.returncode == 0, plain.stderr
    found = json.loads(plain.stdout)
    assert found["answers"] == expected
    assert found["dtype"] == "torch.float32", "what the base's config.json says, though its file holds bfloat16"


@pytest.mark.parametrize("kind", KINDS)
def test_merged_logits_are_those_that_peft_computes(lively: Path, tmp_path: Path, kind: str) -> None:
    adapter = save_adapter(lively, tmp_path / "adapter", seed=3, **KINDS[kind])
    base = AutoModelForImageTextToText.from_pretrained(lively)
    plain = logits(base)
    expected = logits(PeftModel.from_pretrained(base, adapter))
    merge(adapter, tmp_path / "merged", base=str(lively))
    found = logits(AutoModelForImageTextToText.from_pretrained(tmp_path / "merged"))
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
    assert (found - plain).abs().max() > 1e-2 * expected.abs().max(), "the adapter must matter here"


def test_shards_are_written_in_the_type_of_the_base_and_rounded_once(lively: Path, tmp_path: Path) -> None:
    half = AutoModelForImageTextToText.from_pretrained(lively, dtype=torch.bfloat16)
    half.save_pretrained(tmp_path / "half")
    adapter = save_adapter(lively, tmp_path / "adapter", seed=5, r=4, target_modules=LANGUAGE_LINEARS)
    done = merge(adapter, tmp_path / "merged", base=str(tmp_path / "half"), shard_bytes=500_000)
    assert done.files == len(list((tmp_path / "merged").glob("model-*.safetensors"))) > 3
    assert all(path.stat().st_size < 510_000 for path in (tmp_path / "merged").glob("model-*.safetensors"))
    found = AutoModelForImageTextToText.from_pretrained(tmp_path / "merged")
    full = AutoModelForImageTextToText.from_pretrained(tmp_path / "half", dtype=torch.float32)
    expected = PeftModel.from_pretrained(full, adapter).merge_and_unload()
    assert found.dtype == torch.bfloat16
    theirs = expected.state_dict()
    for name, tensor in found.state_dict().items():
        assert torch.allclose(tensor.float(), theirs[name].bfloat16().float(), rtol=2**-7, atol=1e-7), name
        if "_proj" not in name:
            assert torch.equal(tensor, theirs[name].bfloat16()), name


def test_what_does_not_fit_or_is_in_the_way_is_refused_and_nothing_is_left(lively: Path, tmp_path: Path) -> None:
    narrow = save_adapter(lively, tmp_path / "adapter", seed=1, r=2, target_modules=LANGUAGE_LINEARS)
    config = json.loads((narrow / "adapter_config.json").read_text())
    (narrow / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": None}))
    with pytest.raises(FaceLLMError, match="does not say what its base is"):
        merge(narrow, tmp_path / "out")
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "config.json").write_bytes((lively / "config.json").read_bytes())
    with pytest.raises(ModelError, match="cannot be read"):
        merge(narrow, tmp_path / "out", base=str(damaged))
    wide = json.loads((EMBEDDED_BASE / "config.json").read_text())
    wide["text_config"] |= {"intermediate_size": 96}
    other = AutoModelForImageTextToText.from_config(
        type(AutoModelForImageTextToText.from_pretrained(lively).config)(**wide)
    )
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(ModelError, match="was trained on another base"):
        merge(narrow, tmp_path / "out", base=str(tmp_path / "other"))
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "letter.txt").write_text("mine")
    with pytest.raises(DataError, match="there already"):
        merge(narrow, tmp_path / "taken", base=str(lively))
    assert {path.name for path in tmp_path.iterdir()} == {"adapter", "damaged", "other", "taken"}
    assert (tmp_path / "taken" / "letter.txt").read_text() == "mine"


def test_a_disk_that_is_too_small_is_told_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"out needs 1,000,000\.0 GB, and the disk of .* GB left"):
        check_room(tmp_path / "new" / "out", 10**15)


def test_a_disk_that_fills_up_leaves_nothing_behind(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "facellm", "merge", "facellm-tiny", str(tmp_path / "out")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000)),
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith(f"error: {tmp_path / 'out'} was not written: ")
    assert len(done.stderr.splitlines()) == 1
    assert [path for path in tmp_path.iterdir() if path.name != "data"] == []
