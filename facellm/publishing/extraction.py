"""A LoRA adapter out of a merged checkpoint: what was added to the base's linear layers, as two thin matrices each.

    python -m facellm extract OpenGVLab/InternVL3-1B-hf Idiap/FaceLLM-1B#model facellm-1b --rank 16

Each layer's difference is cut to the rank by its singular values, tensor by tensor, so neither model is in memory as a
whole. A = √S Vᵀ and B = U √S carry all of it: alpha is the rank, so PEFT's scale is 1.

The one surprising fact: published weights are rounded to bfloat16, so the difference is the update plus noise of every
rank, or of a small update only what survived. The plain cut is still the best estimate: no other matrix of this rank is
nearer to the published weights, and they are what answers. One that looks for the trained matrices within the bounds of
the rounding came 1.9 times nearer to those, and no nearer, mostly further, to the published answers.
"""

import dataclasses
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from facellm.adapters import KEY_PREFIX, LANGUAGE_MODEL, WEIGHTS
from facellm.errors import DataError, ModelError
from facellm.folders import beside, check_new
from facellm.publishing.agreement_gate import Agreement, Device, Question, answer, compare
from facellm.publishing.stored_weights import StoredWeights
from facellm.training.recipe import find_base, portable_name

LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
FULL_SIDE = 1536  # up to here all singular values are computed, of larger matrices the first ones
SHARES = (0.99, 0.999, 0.9999)  # of the energy, for which the rank is told
_CLASS = {
    "base_model_class": "InternVLForConditionalGeneration",
    "parent_library": "transformers.models.internvl.modeling_internvl",
}


@dataclass(frozen=True)
class Factored:
    """One layer's difference D, cut to a rank."""

    module: str
    down: Tensor  # A [rank, in]
    up: Tensor  # B [out, rank]
    energy: float  # of D: the sum of its squares
    values: Tensor  # squared singular values, the largest first; all of a small matrix, else some
    rank: int  # how many are above what rounding alone can make
    residual: float  # largest entry of |D - B A|
    largest: float  # largest entry of |D|

    @property
    def kept(self) -> float:
        """The energy that the rank keeps."""
        return min(self.energy, float(self.values[: len(self.down)].sum()))


@dataclass(frozen=True)
class Spectrum:
    """What the differences of all layers are like."""

    rank: int  # that was asked for
    layers: int  # that differ
    kept: float  # share of all energy
    worst_layer: str
    worst_kept: float  # its share
    rank_found: int  # the largest of any layer, above what rounding alone can make
    rank_found_in: str
    ranks: dict[float, int | None]  # share of energy → rank that keeps it; None: more than was looked at
    residual: float
    residual_in: str
    largest: float

    @classmethod
    def of(cls, layers: Sequence[Factored], rank: int) -> "Spectrum":
        """Take the numbers of the layers together."""
        energy = sum(layer.energy for layer in layers)
        worst = min(layers, key=lambda layer: layer.kept / layer.energy)
        highest = max(layers, key=lambda layer: layer.rank)
        roughest = max(layers, key=lambda layer: layer.residual)
        return cls(
            rank=rank,
            layers=len(layers),
            kept=sum(layer.kept for layer in layers) / energy,
            worst_layer=worst.module,
            worst_kept=worst.kept / worst.energy,
            rank_found=highest.rank,
            rank_found_in=highest.module,
            ranks={share: _rank_for(share * energy, layers) for share in SHARES},
            residual=roughest.residual,
            residual_in=roughest.module,
            largest=max(layer.largest for layer in layers),
        )

    def lines(self) -> Iterator[str]:
        """For a person."""
        ranks = (f"{100 * share:g} %: {rank or 'more than was looked at'}" for share, rank in self.ranks.items())
        yield f"layers that differ         {self.layers}"
        yield f"energy that rank {self.rank:<4} keeps {100 * self.kept:.4f} %"
        yield f"  least of it in           {self.worst_layer}: {100 * self.worst_kept:.4f} %"
        yield f"rank above the rounding    {self.rank_found}, in {self.rank_found_in}"
        yield f"rank that would keep       {', '.join(ranks)}"
        yield f"largest difference         {self.largest:.2g}"
        yield f"largest residual           {self.residual:.2g}, in {self.residual_in}"


@dataclass(frozen=True)
class Extraction:
    """What was found, and whether it is an adapter."""

    spectrum: Spectrum
    agreement: Agreement
    equal: int  # tensors elsewhere, all equal

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        spectrum = dataclasses.asdict(self.spectrum)
        spectrum["ranks"] = {str(share): rank for share, rank in self.spectrum.ranks.items()}
        return {"spectrum": spectrum, "agreement": self.agreement.to_dict(), "equal_tensors": self.equal}

    def lines(self) -> Iterator[str]:
        """For a person."""
        yield from self.spectrum.lines()
        yield f"equal tensors elsewhere    {self.equal}, all"
        yield f"answers                    {self.agreement}"

    def why_not(self) -> str:
        """The sentence for an adapter that does not pass."""
        spectrum, share = self.spectrum, f"{100 * SHARES[-1]:g} %"
        needed = spectrum.ranks[SHARES[-1]]
        takes = "more than was looked at" if needed is None else f"rank {needed}"
        advice = f"Try --rank {needed}" if needed is not None and needed > spectrum.rank else "Try a higher --rank"
        return (
            f"No adapter was written, since one of rank {spectrum.rank} does not say the same: {self.agreement}. It "
            f"keeps {100 * spectrum.kept:.2f} % of the difference's energy; {share} takes {takes}, and up to rank "
            f"{spectrum.rank_found} is more than rounding. {advice}, or name the base that it was trained from."
        )


@dataclass(frozen=True)
class Work:
    """How an extraction is done, apart from what it is about."""

    device: Device = "auto"
    dtype: Literal["float32", "bfloat16"] = "float32"  # in which answers are compared


def extract(
    base: str, merged: str, out: Path, questions: Sequence[Question], *, rank: int, work: Work | None = None
) -> Extraction:
    """Recover an adapter; the folder is there afterwards only if its answers agree, see `Extraction.agreement`.

    Args:
        base: the checkpoint that was trained from: a folder or a Hub id.
        merged: the one that came out.
        out: the adapter's folder to be made.
        questions: on which both are compared.
        rank: of the adapter.

    Raises:
        ModelError: one of them cannot be read, or they differ in more than the language model's linear layers, or
            in nothing.
        DataError: the place is taken or cannot be written.
    """
    work = work or Work()
    check_new(out)
    base = find_base(base)
    before, after = StoredWeights.open(base), StoredWeights.open(merged)
    linears = _linears(before)
    equal = _check_elsewhere(before, after, set(linears))
    layers = [found for name in linears if (found := _factored(before, after, name, rank, work)) is not None]
    if not layers:
        raise ModelError(f"All tensors of {merged} are those of {base}: there is no difference to extract.")
    with beside(out) as partial:
        _save(layers, linears, before, rank, partial)
        kind: torch.dtype = getattr(torch, work.dtype)
        answered = answer(merged, questions, device=work.device, dtype=kind)
        agreement = compare(base, partial, answered, device=work.device, dtype=kind)
        if agreement.passed:
            os.rename(partial, out)
    return Extraction(Spectrum.of(layers, rank), agreement, equal)


def _linears(weights: StoredWeights) -> list[str]:
    """Names of the weights that an adapter of ours may change, in their order."""
    return [
        name
        for name in weights.skeleton.state_dict()
        if name.startswith(LANGUAGE_MODEL) and name.endswith(tuple(f".{linear}.weight" for linear in LINEARS))
    ]


def _check_elsewhere(before: StoredWeights, after: StoredWeights, linears: set[str]) -> int:
    """Compare all tensors that LoRA cannot have changed; return how many.

    Raises:
        ModelError: the two are of different shapes, or one of these tensors differs; the message has its name.
    """
    shapes, others = ({name: tuple(t.shape) for name, t in w.skeleton.state_dict().items()} for w in (before, after))
    for name in shapes | others:
        if shapes.get(name) != others.get(name):
            raise ModelError(
                f"{after.source} was not trained from {before.source}: its tensor {name} has the shape "
                f"{_words(others.get(name))}, the base's {_words(shapes.get(name))}. Name the base that it was "
                "trained from."
            )
    different = {}
    names = [name for name in shapes if name not in linears]
    for name in names:
        old, new = before.read(name), after.read(name)
        if not _is_same(old, new):
            different[name] = float((new.float() - old.float()).abs().max())
    if different:
        worst = max(different, key=lambda name: different[name])
        listed = ", ".join(list(different)[:3]) + (", …" if len(different) > 3 else "")
        raise ModelError(
            f"{after.source} is no LoRA of the language model's linear layers on {before.source}: {len(different)} of "
            f"{len(names)} other tensors differ ({listed}), the most {worst}, by up to {different[worst]:.2g}. "
            "Name the base that it was trained from."
        )
    return len(names)


def _words(shape: tuple[int, ...] | None) -> str:
    return "none" if shape is None else "×".join(map(str, shape)) or "of one number"


def _is_same(old: Tensor, new: Tensor) -> bool:
    """Whether nothing was changed but perhaps the type in which it is stored."""
    return torch.equal(old.to(new.dtype), new)


def _factored(before: StoredWeights, after: StoredWeights, name: str, rank: int, work: Work) -> Factored | None:
    """A layer's difference, cut to the rank; None where there is none."""
    old, new = before.read(name), after.read(name)
    if _is_same(old, new):
        return None
    kind = torch.device("cuda" if work.device != "cpu" and torch.cuda.is_available() else "cpu")
    new_there = new.to(kind, torch.float32)
    difference = new_there - old.to(kind, torch.float32)
    if not bool(difference.isfinite().all()):
        raise ModelError(f"The tensor {name} holds numbers that are not finite, so there is no difference to extract.")
    left, values, right = decomposed(difference, rank)
    roots = values[:rank].sqrt()
    up, down = left[:, :rank] * roots, right[:rank] * roots[:, None]
    noise = _rounding(torch.maximum(new_there.abs(), difference.abs()), new.dtype)
    noise = max(noise, float(values[0]) * max(difference.shape) * torch.finfo(torch.float32).eps)  # of the SVD itself
    return Factored(
        module=name.removesuffix(".weight"),
        down=_padded(down, rank, 0).cpu(),
        up=_padded(up, rank, 1).cpu(),
        energy=float(difference.double().square().sum()),
        values=values.double().square().cpu(),
        rank=int((values > noise).sum()),
        residual=float((difference - up @ down).abs().max()),
        largest=float(difference.abs().max()),
    )


def decomposed(difference: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """U [out, k], S and Vᵀ [k, in]: at least as many as the rank asks for, and all S of a small matrix."""
    if min(difference.shape) <= FULL_SIDE:
        return _all_values(difference, rank)
    with torch.random.fork_rng(devices=[difference.device] if difference.is_cuda else []):
        torch.manual_seed(0)  # the same checkpoints give the same adapter
        left, values, right = torch.svd_lowrank(difference, q=min(*difference.shape, 4 * rank + 32), niter=6)
    return left, values, right.mT


def _all_values(difference: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """By the eigenvectors of D Dᵀ in float64: all S as exact as LAPACK's in float32, vectors only for the rank."""
    if difference.shape[0] > difference.shape[1]:
        left, values, right = _all_values(difference.mT, rank)
        return right.mT, values, left.mT
    exact = difference.double()
    squares, vectors = torch.linalg.eigh(exact @ exact.mT)  # the smallest first
    values, left = squares.flip(0).clamp_min(0).sqrt(), vectors.flip(1)[:, :rank]
    sizes = values[:rank, None]
    right = torch.where(sizes > 0, (left.mT @ exact) / sizes.clamp_min(torch.finfo(torch.float64).tiny), 0)
    return left.float(), values.float(), right.float()


def _rounding(size: Tensor, kind: torch.dtype) -> float:
    """Above this a singular value is no work of rounding numbers of these sizes to a type.

    Rounding is off by up to half a step, evenly: 1/√12 of a step on average. The largest singular value of an m × n
    matrix of such noise is (√m + √n) times that (Marchenko and Pastur); twice it is beyond doubt.
    """
    _, exponents = torch.frexp(size)
    steps = torch.ldexp(torch.full_like(size, torch.finfo(kind).eps), exponents - 1)
    spread = float(steps.square().mean().sqrt()) / math.sqrt(12)
    return 2 * spread * (math.sqrt(size.shape[0]) + math.sqrt(size.shape[1]))


def _padded(matrix: Tensor, rank: int, side: int) -> Tensor:
    """Filled with zeros, where a small layer has fewer dimensions than the adapter's rank."""
    short = rank - matrix.shape[side]
    return torch.nn.functional.pad(matrix, (0, short) if side == 1 else (0, 0, 0, short)).contiguous()


def _rank_for(energy: float, layers: Sequence[Factored]) -> int | None:
    """The rank of all layers that keeps this much energy; None if more than was looked at."""
    longest = max(len(layer.values) for layer in layers)
    summed = sum(torch.nn.functional.pad(layer.values, (0, longest - len(layer.values))) for layer in layers)
    assert isinstance(summed, Tensor)
    reached = (summed.cumsum(0) >= energy * (1 - 1e-9)).nonzero()
    return int(reached[0]) + 1 if len(reached) else None


def _save(layers: Sequence[Factored], linears: Sequence[str], base: StoredWeights, rank: int, folder: Path) -> None:
    """Write the adapter as PEFT does; a layer without a difference, among others of its kind, has zeros."""
    kinds = [kind for kind in LINEARS if any(layer.module.endswith(f".{kind}") for layer in layers)]
    tensors = {}
    for name in linears:
        module = name.removesuffix(".weight")
        if module.endswith(tuple(f".{kind}" for kind in kinds)):
            outputs, inputs = base.tensors[name].shape
            tensors[f"{KEY_PREFIX}{module}.lora_A.weight"] = torch.zeros(rank, inputs)
            tensors[f"{KEY_PREFIX}{module}.lora_B.weight"] = torch.zeros(outputs, rank)
    for layer in layers:
        tensors[f"{KEY_PREFIX}{layer.module}.lora_A.weight"] = layer.down
        tensors[f"{KEY_PREFIX}{layer.module}.lora_B.weight"] = layer.up
    pattern = rf"model\.language_model\..*\.({'|'.join(kind.removesuffix('_proj') for kind in kinds)})_proj"
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules=pattern,
        base_model_name_or_path=portable_name(base.source),
        auto_mapping=_CLASS,
        inference_mode=True,
    )
    config.save_pretrained(str(folder))
    try:
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        shutil.copymode(folder / "adapter_config.json", folder / WEIGHTS)  # safetensors lets none but the owner read it
    except SafetensorError as error:
        raise DataError(f"The adapter was not written: {error}. Make room, or choose another place.") from error
