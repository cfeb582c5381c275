"""transformers' Trainer on rows with a shared prefix: the exact loss of a step, however its rows are spread.

A batch of its data loader is a whole step, and its rows are computed a few at a time, by one process or by several.
Each part's summed loss is divided by the answer tokens of the whole step, so its gradients add up to those of the mean.

The one surprising fact: the model's head is taken off while it trains. The loss needs it on the answers' tokens alone,
in chunks (see `answer_loss`), and so the model's `logits` are hidden states here.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, load_peft_weights
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import InternVLForConditionalGeneration, PrinterCallback, Trainer
from transformers.modeling_outputs import BaseModelOutputWithPooling

from facellm.training.answer_loss import summed_loss
from facellm.training.attention import Kernel, attend_by, mask_for
from facellm.training.collate import NO_LOSS, PADDING, Row, answer_places, collate
from facellm.training.lora_linear import fused_lora
from facellm.training.sharding import shard_on_cpu, spare_the_eyes, spread_like, whole
from facellm.training.steps import Steps
from facellm.training.training_data import TrainingData

Step = dict[str, Any]  # parts: the batches; answers: how many tokens are learnt in the step, by all processes


class RowTrainer(Trainer):
    """A Trainer whose data are the rows of a TrainingData."""

    def __init__(
        self,
        data: TrainingData,
        *,
        per_step: int,
        at_once: int,
        compute_dtype: torch.dtype,
        best: Path,
        sharded: bool = False,
        model: PeftModel,
        kernel: Kernel = Kernel.SDPA,
        **kwargs: Any,
    ) -> None:
        """Make it.

        Args:
            data: what is trained on, and what is measured.
            per_step: rows of a step.
            at_once: rows that are computed at once.
            compute_dtype: bfloat16 for automatic mixed precision; float32: as the weights are.
            best: a folder for the adapter of the lowest held-out loss.
            kernel: of the attention.
            sharded: spread the language model's weights over the processes.
            kwargs: Trainer's own.
        """
        self.sharded = sharded
        super().__init__(model=model, train_dataset=data, **kwargs)
        self.remove_callback(PrinterCallback)
        self.loss_is_scaled_for_ga = True  # by compute_loss
        self.data = data
        self.per_step = per_step
        self.at_once = at_once
        self.compute_dtype = compute_dtype
        self.best = best
        self.kernel = kernel
        self.adapted = model
        self.base: InternVLForConditionalGeneration = model.get_base_model()  # type: ignore[assignment]
        if self.is_fsdp_enabled:
            spare_the_eyes(self.accelerator, self.base)
        self.is_over: Callable[[], bool] = lambda: False  # asked before an epoch: nothing is left to be learnt
        self.is_stopped: Callable[[], bool] = lambda: False  # asked between parts of a measurement
        self.seen = 0  # tokens that this process has trained on, filling not counted

    def create_accelerator_and_postprocess(self) -> None:
        """Trainer's, and sharding on a CPU."""
        super().create_accelerator_and_postprocess()
        if self.sharded and not self.is_fsdp_enabled:
            self.is_fsdp_enabled = shard_on_cpu(self.accelerator)

    def steps(self, rows: Sequence[int], per_step: int) -> Steps:
        """How these rows are spread over steps and processes."""
        return Steps(
            rows,
            self.data.lengths,
            per_step=per_step,
            at_once=self.at_once,
            seed=self.args.seed,
            rank=self.args.process_index,
            processes=self.args.world_size,
        )

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The steps; Accelerate has no part in it, since Steps knows of the processes already."""
        steps = self.steps(self.data.training, self.per_step)
        pinned = self.args.dataloader_pin_memory
        return _StepLoader(self.data, batch_sampler=steps, collate_fn=self._collate, pin_memory=pinned)

    def _collate(self, parts: Sequence[Sequence[Row]]) -> Step:
        stand_in = self.data[self.data.training[:1]] if any(not rows for rows in parts) else []
        return {"parts": [collate(rows) if rows else _unlearnt(stand_in) for rows in parts]}

    @property
    def chosen(self) -> dict[str, str]:
        """What holds for the whole run, however often it is resumed."""
        return {"dtype": str(self.compute_dtype).removeprefix("torch."), "kernel": str(self.kernel)}

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Trainer's; it would always do a step, even after the last."""
        self.control.should_training_stop |= self.state.global_step >= self.state.max_steps or self.is_over()
        if not self.control.should_training_stop:
            super()._run_epoch(*args, **kwargs)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """A checkpoint's weights: the adapter. Trainer's own asks the Hub about the base each time."""
        if self.is_fsdp_enabled:
            super()._save(output_dir, state_dict)
        else:
            # Into the folder as it is: other processes write to it at the same time.
            self.adapted.save_pretrained(str(output_dir), save_embedding_layers=False)
            (Path(str(output_dir)) / "README.md").unlink(missing_ok=True)

    def training_step(self, model: nn.Module, inputs: Step, num_items_in_batch: Any = None) -> Tensor:
        """Add up the gradients of a step's parts; return this process's share of the step's loss."""
        parts = inputs["parts"]
        answers = sum(answer_places(part["labels"])[1].numel() for part in parts)
        total = self.accelerator.reduce(torch.tensor(answers, device=self.args.device), "sum")
        losses = []
        for number, part in enumerate(parts, start=1):
            # Gradients are exchanged once a step, with the last part.
            with nullcontext() if number == len(parts) else self.accelerator.no_sync(model):
                losses.append(super().training_step(model, part | {"answers": total}, None))
        return torch.stack(losses).sum()

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Tensor:
        """This part's share of the step's mean loss: its summed loss, divided by the step's answer tokens."""
        assert not return_outputs
        if (inputs["labels"] != NO_LOSS).any():  # else it is a stand-in
            self.seen += int((inputs["segments"] != PADDING).sum())
        # Processes average their gradients, while the count is of all of them together.
        return self.part_loss(model, inputs) * self.accelerator.num_processes / inputs["answers"]

    def part_loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """The summed cross entropy of a batch's answer tokens."""
        features = self.data.images.features(batch["images"].tolist(), self.base)
        places, labels = answer_places(batch["labels"])
        with self._mixed_precision():
            hidden = model(
                input_ids=batch["input_ids"],
                position_ids=batch["position_ids"],
                attention_mask={"full_attention": mask_for(self.kernel, batch["segments"], self.compute_dtype)},
                mm_encoder_outputs={"image": BaseModelOutputWithPooling(pooler_output=features)},
                use_cache=False,
            ).logits
        return summed_loss(hidden[places], self.head, labels)

    def _mixed_precision(self) -> Any:
        if self.compute_dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.args.device.type, self.compute_dtype)

    @torch.no_grad()
    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """The mean loss of the held-out answers' tokens; nothing if the run is stopped meanwhile."""
        loss = self.held_out_loss(self.model_wrapped)
        if loss is None:  # measured again when the run is resumed at this step
            self.control.should_save = self.control.should_training_stop = True
            return {}
        metrics = {"eval_loss": loss}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    @torch.no_grad()
    def held_out_loss(self, model: nn.Module) -> float | None:
        """The same of any model that has this base; None if the run is stopped meanwhile."""
        was_training = model.training
        model.eval()
        try:
            return self._held_out_loss(model)
        finally:
            model.train(was_training)

    def _held_out_loss(self, model: nn.Module) -> float | None:
        sums = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        for part in self.steps(self.data.held_out, len(self.data.held_out)).parts(self.data.held_out):
            if self.is_stopped():
                return None
            batch = self._prepare_inputs(self._collate([self.data[part]])["parts"][0])
            sums[0] += self.part_loss(model, batch).double()
            sums[1] += answer_places(batch["labels"])[1].numel()
        loss, tokens = self.accelerator.reduce(sums, "sum").tolist()
        return float(loss / tokens)

    def save_best(self) -> None:
        """Keep the adapter as it is now, in place of an earlier one."""
        save_adapter(self.adapted, self.best, writes=self.is_world_process_zero())

    @torch.no_grad()
    def take_best(self) -> None:
        """Put the adapter that was kept back into the model."""
        self.accelerator.wait_for_everyone()  # the first process may still be writing it
        kept = load_peft_weights(str(self.best), device="cpu")
        for name, weights in _adapter_weights(self.adapted):
            value = kept[name.replace(".default", "")].to(weights)
            weights.copy_(spread_like(value, weights))

    @contextmanager
    def headless(self) -> Iterator[None]:
        """While the block runs, the model ends before its head."""
        head = self.base.lm_head
        self.head = head.weight.detach().to(self.args.device)  # whole, and in each process
        self.base.lm_head = nn.Identity()
        try:
            with attend_by(self.kernel, self.base), fused_lora(self.adapted):
                yield
        finally:
            self.base.lm_head = head


class _StepLoader(DataLoader[Any]):
    def set_epoch(self, epoch: int) -> None:
        self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]


def _unlearnt(rows: Sequence[Row]) -> dict[str, Tensor]:
    """A batch for a process that has no row while others have one: computed like theirs, and not learnt from."""
    batch = collate(rows)
    return batch | {"labels": torch.full_like(batch["labels"], NO_LOSS)}


def _adapter_weights(model: PeftModel) -> list[tuple[str, Tensor]]:
    return [(name, weights) for name, weights in model.named_parameters() if weights.requires_grad]


def save_adapter(model: PeftModel, folder: Path, *, writes: bool = True) -> None:
    """Save the adapter as PEFT does, complete or not at all.

    Args:
        writes: whether this process is the one that does; the others give it their parts of the weights.
    """
    state = {name: whole(weights.detach()).cpu() for name, weights in _adapter_weights(model)}
    if not writes:
        return
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        # save_embedding_layers="auto" would ask the Hub about the base
        model.save_pretrained(str(partial), state_dict=state, save_embedding_layers=False)
    except BaseException:  # such as a full disk, which this would keep full
        shutil.rmtree(partial, ignore_errors=True)
        raise
    (partial / "README.md").unlink()  # PEFT's form of a model card, not filled in
    for weights in partial.glob("*.safetensors"):  # which safetensors lets none but the owner read
        shutil.copymode(partial / "adapter_config.json", weights)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
