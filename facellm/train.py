"""FaceLLM's LoRA recipe: python -m facellm train RUN_DIR

Reads config.json and train.jsonl of a run directory; writes metrics.jsonl, adapter/ and, last, result.json. Only the
linear layers of the language model are adapted; the vision tower and the projector stay as they are, so each image's
features are computed once. The loss is the mean cross entropy of the answers' tokens.

The one surprising fact: the target of LoRA is a pattern, not the usual list of names, since PEFT would find `q_proj`
in the vision tower too, and such an adapter cannot answer beside its base in one batch.
"""

import logging
import math
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import (
    InternVLForConditionalGeneration,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from facellm.checkpoint import load_checkpoint
from facellm.collate import NO_LOSS, PADDING, ImageTable, Row, collate, encode, make_rows, model_inputs
from facellm.data import content_hash, read_examples, sha256_file
from facellm.errors import DataError, FaceLLMError, ModelError
from facellm.jobs import State
from facellm.recipe import RunConfig
from facellm.run_directory import ADAPTER, EXAMPLES, METRICS, RESULT, load_record, versions
from facellm.run_files import append_json, write_json

LANGUAGE_LINEARS = r"model\.language_model\..*\.(q|k|v|o|gate|up|down)_proj"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
CGROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")
log = logging.getLogger(__name__)


def train(run_dir: Path, *, stop: threading.Event | None = None) -> None:
    """Train a run to its end, or until `stop` is set, and write its result.json.

    `stop` is looked at between the stages, at each image and pair while they are read, and after each step.

    Raises:
        FaceLLMError: the run cannot be trained; result.json holds the sentence.
    """
    stop = stop or threading.Event()

    def check_stop() -> None:
        if stop.is_set():
            raise _Stopped

    with _recorded(run_dir) as result:
        check_stop()  # importing torch takes seconds
        record = load_record(run_dir)
        config = RunConfig.checked(record["config"], f"{run_dir.name}/config.json")
        examples = list(read_examples(run_dir / EXAMPLES))
        if (found := content_hash(examples)) != record["examples_sha256"]:
            raise DataError(
                f"{EXAMPLES} of {run_dir.name} has been changed since the run was made: its hash is {found[:12]}…, "
                f"expected {record['examples_sha256'][:12]}…. Make a new run from the file."
            )
        torch.set_num_threads(_threads())
        log.info(f"Run {run_dir.name}: {record['pairs']} pairs of {record['images']} images, base {config.base_model}")
        log.info(config.model_dump_json())

        check_stop()
        base, processor = load_checkpoint(config.checkpoint, device=config.device)
        base = base.bfloat16() if base.device.type == "cuda" else base.float()
        table = ImageTable(examples, processor, budget=config.feature_cache_mb * 1024 * 1024, check=check_stop)
        pairs = encode(examples, processor, table, config.max_length, check=check_stop)
        rows = make_rows(pairs, config.max_length, share_prefix=config.share_prefix)
        check_stop()
        set_seed(config.seed)
        model = with_lora(base, config)

        arguments = _arguments(run_dir, config, pairs=len(examples), rows=len(rows), device=base.device)
        progress = _Progress(run_dir / METRICS, stop)
        trainer = _RowTrainer(
            table, config.rows_at_once, model=model, args=arguments, train_dataset=rows, callbacks=[progress]
        )
        progress.tokens = trainer.tokens
        log.info(f"{len(rows)} rows of {sum(map(len, rows)) // len(rows)} tokens on {base.device}, on average")
        check_stop()
        _fit(trainer, config)

        result |= progress.summary()
        if progress.losses:
            result["adapter_sha256"] = _save_adapter(model, run_dir / ADAPTER)
        result["state"] = State.STOPPED if stop.is_set() else State.FINISHED
        result["device"] = str(base.device)


class _Stopped(Exception):
    """Stop came before the first step."""


@contextmanager
def _recorded(run_dir: Path) -> Iterator[dict[str, Any]]:
    """Write result.json when the block ends, however it ends; the block fills in what it has reached."""
    started = time.monotonic()
    result: dict[str, Any] = {"state": State.FAILED, "versions": versions()}
    try:
        yield result
    except _Stopped:
        result["state"] = State.STOPPED
    except BaseException as error:
        result["error"] = str(error) if isinstance(error, FaceLLMError) else f"{type(error).__name__}: {error}"
        raise
    finally:
        result["seconds"] = round(time.monotonic() - started, 1)
        write_json(run_dir / RESULT, result)
        log.info(f"{result['state'].capitalize()} after {result['seconds']:.0f} s")


def with_lora(base: InternVLForConditionalGeneration, config: RunConfig) -> PeftModel:
    """The base with untrained adapters on the language model's linear layers; all else is frozen."""
    lora = LoraConfig(
        r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules=LANGUAGE_LINEARS
    )
    model = get_peft_model(base, lora)
    model.peft_config["default"].base_model_name_or_path = config.base_model
    return model


def _arguments(run_dir: Path, config: RunConfig, *, pairs: int, rows: int, device: torch.device) -> TrainingArguments:
    arguments = TrainingArguments(
        output_dir=str(run_dir / "checkpoints"),
        num_train_epochs=config.epochs,
        max_steps=config.max_steps or -1,
        per_device_train_batch_size=min(rows, max(1, round(config.batch_size * rows / pairs))),
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.schedule,
        warmup_steps=config.warmup,
        weight_decay=config.weight_decay,
        max_grad_norm=config.clip,
        seed=config.seed,
        bf16=device.type == "cuda",
        use_cpu=device.type == "cpu",
        save_strategy="no",
        logging_steps=1,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to="none",
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_pin_memory=device.type == "cuda",
    )
    arguments._n_gpu = min(1, arguments.n_gpu)  # one process, one GPU: else Trainer splits batches by nn.DataParallel
    return arguments


class _RowTrainer(Trainer):
    """transformers' Trainer on rows: it computes the loss of the answers' tokens, and counts tokens.

    A batch is a whole step, and its rows are computed a few at a time. Trainer's own accumulation knows only batches
    of one size, so that the size of a step would depend on how many rows are computed at once.
    """

    def __init__(self, table: ImageTable, rows_at_once: int, **kwargs: Any) -> None:
        super().__init__(data_collator=partial(_collate_step, rows_at_once), **kwargs)
        self.remove_callback(PrinterCallback)
        self.model_accepts_loss_kwargs = True  # so that it counts the answers' tokens of a step
        self.table = table
        self.seen = 0

    def tokens(self) -> int:
        """How many tokens the model has been trained on, filling not counted."""
        return self.seen

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Add up the gradients of a step's parts; return the step's loss."""
        losses = [super(_RowTrainer, self).training_step(model, part, num_items_in_batch) for part in inputs["parts"]]
        return torch.stack(losses).sum()

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """This part's share of the step's mean loss: its summed loss, divided by the step's answer tokens."""
        assert not return_outputs and num_items_in_batch is not None
        self.seen += int((inputs["segments"] != PADDING).sum())
        forward, labels = model_inputs(inputs, self.table, self.accelerator.unwrap_model(model).get_base_model())
        logits = model(**forward).logits.float()
        loss = nn.functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=NO_LOSS, reduction="sum"
        )
        # Processes average their gradients, while the count is of all of them together.
        return loss * self.accelerator.num_processes / num_items_in_batch


def _collate_step(rows_at_once: int, rows: Sequence[Row]) -> dict[str, Any]:
    """A step's rows in parts of at most `rows_at_once`, and all their labels, which Trainer counts."""
    parts = [collate(rows[first : first + rows_at_once]) for first in range(0, len(rows), rows_at_once)]
    return {"parts": parts, "labels": torch.tensor([label for row in rows for label in row.labels])}


class _Progress(TrainerCallback):
    """Writes a line of metrics after each step, and ends the training when it is told to or the loss is lost."""

    def __init__(self, path: Path, stop: threading.Event) -> None:
        self.path = path
        self.stop = stop
        self.tokens = lambda: 0
        self.losses: list[float] = []
        self.started = 0.0

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.started = time.monotonic()

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.stop.is_set():
            control.should_training_stop = True

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        logs = kwargs["logs"]
        if "loss" not in logs:  # the summary at the end
            return
        step, total, loss = state.global_step, state.max_steps, logs["loss"]
        if not math.isfinite(loss):
            raise ModelError(
                f"The loss became {loss} at step {step}; expected a number. Train again with a lower learning rate."
            )
        self.losses.append(loss)
        seconds = time.monotonic() - self.started
        eta = seconds / step * (total - step)
        line = {"step": step, "total": total, "epoch": round(logs["epoch"], 4), "loss": loss}
        line |= {"lr": logs["learning_rate"], "grad_norm": float(logs["grad_norm"]), "tokens": self.tokens()}
        append_json(self.path, line | {"seconds": round(seconds, 2), "eta": round(eta, 1)})
        log.info(f"step {step}/{total}  epoch {logs['epoch']:.2f}  loss {loss:.4f}  {eta:.0f} s left")

    def summary(self) -> dict[str, Any]:
        """What result.json says of the loss: its first value, and the mean of the last steps."""
        last = self.losses[-10:]
        return {
            "steps": len(self.losses),
            "tokens": self.tokens(),
            "first_loss": self.losses[0] if self.losses else None,
            "last_loss": sum(last) / len(last) if last else None,
        }


def _fit(trainer: Trainer, config: RunConfig) -> None:
    try:
        trainer.train()
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"The memory of {trainer.args.device} was too small for rows_at_once {config.rows_at_once} of up to "
            f"max_length {config.max_length} tokens. Lower rows_at_once first: it changes no result."
        ) from error


def _save_adapter(model: PeftModel, folder: Path) -> str:
    """Save the adapter as PEFT does, complete or not at all; return the SHA-256 of its weights."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(str(partial), save_embedding_layers=False)  # "auto" would ask the Hub about the base
    (partial / "README.md").unlink()  # PEFT's form of a model card, not filled in
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return sha256_file(folder / ADAPTER_WEIGHTS)


def _threads() -> int:
    """One thread fewer than there are cores: the app goes on beside a run, and torch's threads wait for the slowest.

    On two cores with another busy process, two threads were ten times slower than one. A container's limit counts as
    its cores; torch sees all of the machine's.
    """
    cores = torch.get_num_threads()
    try:
        quota, period = CGROUP_LIMIT.read_text().split()
    except OSError:  # no container, or not Linux
        quota = "max"
    if quota != "max":
        cores = min(cores, round(int(quota) / int(period)))
    return max(1, cores - 1)
