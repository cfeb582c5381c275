"""FaceLLM's LoRA recipe: python -m facellm train RUN_DIR

Reads config.json and train.jsonl of a run directory; writes metrics.jsonl, held_out.jsonl, checkpoints, adapter/ and,
last, result.json. Only the linear layers of the language model are adapted; the vision tower and the projector stay as
they are, so each image's features are computed once. The loss is the mean cross entropy of the answers' tokens.

The one surprising fact: the target of LoRA is a pattern, not the usual list of names, since PEFT would find `q_proj`
in the vision tower too, and such an adapter cannot answer beside its base in one batch.
"""

import logging
import resource
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import InternVLForConditionalGeneration, TrainingArguments, set_seed

from facellm.checkpoint import language_width, load_checkpoint
from facellm.config import launched
from facellm.data import sha256_file
from facellm.errors import DataError, ModelError
from facellm.training.attention import choose_kernel
from facellm.training.checkpoints import FOLDER as CHECKPOINTS
from facellm.training.checkpoints import Checkpoint, last_checkpoint, tidy
from facellm.training.disk_space import free_reserve, full_disk_is_told
from facellm.training.estimating import ExamplesFile, disk_budget, estimate
from facellm.training.estimating import check as check_fits
from facellm.training.image_table import Room
from facellm.training.jobs import State
from facellm.training.outcome import NOT_MEASURED, attribute_accuracy, held_out_losses
from facellm.training.processes import Stopped, Team
from facellm.training.recipe import RunConfig
from facellm.training.row_trainer import RowTrainer, save_adapter
from facellm.training.run_directory import ADAPTER, BEST, EXAMPLES, FEATURES, RESULT, STAGE, load_record, versions
from facellm.training.run_files import write_json, write_text
from facellm.training.trackers import Trackers
from facellm.training.training_data import TrainingData
from facellm.training.training_progress import Progress, cut_back
from facellm.training.training_speed import compute_type, training_threads

LANGUAGE_LINEARS = r"model\.language_model\..*\.(q|k|v|o|gate|up|down)_proj"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
log = logging.getLogger(__name__)


def train(run_dir: Path, *, stop: threading.Event | None = None, resume: bool = False) -> None:
    """Train a run to its end, or until `stop` is set, and write its result.json.

    `stop` is looked at between the stages, at each image and pair while they are read, and after each step.

    Args:
        resume: go on after the last checkpoint; without, from the start.

    Raises:
        FaceLLMError: the run cannot be trained; result.json holds the sentence.
    """
    stop = stop or threading.Event()
    team = Team(launched())
    with _recorded(run_dir, team) as result:
        record = load_record(run_dir)
        config = RunConfig.checked(record["config"], f"{run_dir.name}/config.json")
        team.join(on_cpu=_on_cpu(config))
        with team.together():
            _check_stop(stop)  # importing torch takes seconds
            checkpoint = last_checkpoint(run_dir) if resume else None
            if team.is_first:
                (run_dir / RESULT).unlink(missing_ok=True)
                cut_back(run_dir, checkpoint.step if checkpoint else -1)
        log.info(f"Run {run_dir.name}: {record['pairs']} pairs of {record['images']} images, base {config.base_model}")
        log.info(config.model_dump_json())
        torch.set_num_threads(min(torch.get_num_threads(), max(1, training_threads() // team.local_size)))
        _learn(run_dir, config, record["examples_sha256"], checkpoint, stop, team, result)
        team.leave()
        if team.is_first and (run_dir / ADAPTER).is_dir():
            result["adapter_sha256"] = sha256_file(run_dir / ADAPTER / ADAPTER_WEIGHTS)
        if team.is_first and result["state"] is State.FINISHED:  # the weights are loaded anew, as the chat has them
            result |= attribute_accuracy(run_dir, config, stop, beside=NOT_MEASURED not in result)
            shutil.rmtree(run_dir / CHECKPOINTS, ignore_errors=True)


def _check_stop(stop: threading.Event) -> None:
    if stop.is_set():
        raise Stopped


def _learn(
    run_dir: Path,
    config: RunConfig,
    sha256: str,
    checkpoint: Checkpoint | None,
    stop: threading.Event,
    team: Team,
    result: dict[str, Any],
) -> None:
    """Train, save the adapter, and measure the held-out loss; when it returns, the memory is free again."""
    trainer, progress = _prepared(run_dir, config, sha256, checkpoint, stop, team)
    result["seconds"] = progress.seconds_before
    with trainer.headless():
        _enter(run_dir, "training", team)
        with closing(Trackers(run_dir, config, progress)) as trackers:
            trainer.add_callback(trackers)
            _fit(trainer, config, None if checkpoint is None else str(checkpoint.path))
        if team.any(stop.is_set()):
            stop.set()
        result |= progress.summary() | {"device": str(trainer.args.device), "dtype": trainer.chosen["dtype"]}
        result["peak_memory_mb"] = _peak_memory_mb(config)
        if progress.losses:
            if config.patience and progress.best and not stop.is_set():
                trainer.take_best()
            save_adapter(trainer.adapted, run_dir / ADAPTER, writes=team.is_first)
        result["state"] = State.STOPPED if stop.is_set() else State.FINISHED
        if not stop.is_set():
            _enter(run_dir, "measuring", team)
            result |= held_out_losses(trainer, progress, config)


def _prepared(
    run_dir: Path, config: RunConfig, sha256: str, checkpoint: Checkpoint | None, stop: threading.Event, team: Team
) -> tuple[RowTrainer, Progress]:
    """Load the base and read the examples; the trainer, ready to go, and its progress."""
    with team.together():
        _enter(run_dir, "reading", team)
        _check_stop(stop)
        if team.is_first and not team.sharded:  # the estimate knows of one process, and whole weights
            needed = estimate(config, ExamplesFile(run_dir / EXAMPLES), folder=run_dir)
            log.info(needed.table())
            check_fits(needed)
        # What was found faster on this machine at the first start holds: another type would be another curve.
        dtype = _dtype(checkpoint.chosen["dtype"]) if checkpoint else _compute_dtype(config)
    dtype = team.agreed(dtype)
    with team.together():
        base, processor = load_checkpoint(
            config.checkpoint,
            device="cpu" if team.sharded else config.device,  # what is to be spread over GPUs may fit none of them
            dtype=dtype if config.quantization == "none" else None,
            quantization=config.quantization,
        )
        data = TrainingData(run_dir / EXAMPLES, processor, config, check=lambda: _check_stop(stop))
        _check_unchanged(run_dir, data.sha256, sha256)
        progress = Progress(run_dir, config, stop)
        trainer = progress.trainer = _trainer(run_dir, config, base, dtype, data, progress, team)
        trainer.is_over, trainer.is_stopped = (lambda: progress.has_waited), progress.is_stopped
        _check_stop(stop)
    return trainer, progress


def _check_unchanged(run_dir: Path, found: str, expected: str) -> None:
    if found != expected:
        raise DataError(
            f"{EXAMPLES} of {run_dir.name} has been changed since the run was made: its hash is "
            f"{found[:12]}…, expected {expected[:12]}…. Make a new run from the file."
        )


def _trainer(
    run_dir: Path,
    config: RunConfig,
    base: InternVLForConditionalGeneration,
    dtype: torch.dtype,
    data: TrainingData,
    progress: Progress,
    team: Team,
) -> RowTrainer:
    arguments = _arguments(run_dir, config)
    set_seed(config.seed)
    trainer = RowTrainer(
        data,
        per_step=max(1, round(config.batch_size * len(data.training) / data.pairs[0])),
        at_once=config.rows_at_once,
        compute_dtype=dtype,
        kernel=choose_kernel(config.attention, base, dtype, arguments.device),
        best=run_dir / BEST,
        sharded=team.sharded,
        model=with_lora(base, config),
        args=arguments,
        callbacks=[progress],
    )
    lora = sum(weights.numel() for weights in trainer.adapted.parameters() if weights.requires_grad)
    steps = len(trainer.get_train_dataloader())
    is_once = config.max_steps <= steps if config.max_steps else config.epochs == 1
    data.images.room = Room(
        memory=config.feature_cache_mb * 1024**2,
        disk=disk_budget(config, run_dir, lora) // team.local_size,
        folder=run_dir / FEATURES,
        again=data.again if is_once else None,
    )
    log.info(
        f"{len(data.training)} rows of {sum(data.lengths) // len(data)} tokens on average, on {trainer.args.device} in "
        f"{trainer.chosen['dtype']}; {len(data.held_out)} rows are held out"
    )
    return trainer


@contextmanager
def _recorded(run_dir: Path, team: Team) -> Iterator[dict[str, Any]]:
    """Write result.json when the block ends, however it ends; the block fills in what it has reached."""
    started = time.monotonic()
    result: dict[str, Any] = {"state": State.FAILED, "versions": versions()}
    if team.size > 1:
        result["processes"] = team.size
    try:
        with full_disk_is_told(run_dir):
            yield result
    except Stopped:
        result["state"] = State.STOPPED
    except BaseException as error:
        result["state"] = State.FAILED
        result["error"] = team.sentence(error)
        raise
    finally:
        if team.is_first:
            shutil.rmtree(run_dir / FEATURES, ignore_errors=True)
            tidy(run_dir)
            free_reserve(run_dir)
        result["seconds"] = round(result.get("seconds", 0) + time.monotonic() - started, 1)
        if _is_mine_to_write(run_dir, result, team):
            write_json(run_dir / RESULT, result)
        log.info(f"{result['state'].capitalize()} after {result['seconds']:.0f} s")


def _is_mine_to_write(run_dir: Path, result: dict[str, Any], team: Team) -> bool:
    """The first process writes how the run ended, and any process that it has failed, unless another was before it."""
    if team.size == 1:
        return True
    return team.may_write_end(failed=result["state"] is State.FAILED) and not (run_dir / RESULT).exists()


def _enter(run_dir: Path, stage: str, team: Team) -> None:
    """Note what the run does from now on."""
    if team.is_first:
        write_text(run_dir / STAGE, stage)


def with_lora(base: InternVLForConditionalGeneration, config: RunConfig) -> PeftModel:
    """The base with untrained adapters on the language model's linear layers; all else is frozen."""
    lora = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        use_rslora=config.rslora,
        target_modules=LANGUAGE_LINEARS,
    )
    layer: Any
    for layer in base.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):  # bitsandbytes packs 4-bit weights for it when they are first
            layer.support_avx512bf16_for_cpu = False  # used in evaluation, and no gradient passes them any more
    if config.gradient_checkpointing:
        base.activation_checkpointing_enable()
    model = get_peft_model(base, lora)
    model.peft_config["default"].base_model_name_or_path = config.base_model
    return model


def _compute_dtype(config: RunConfig) -> torch.dtype:
    return compute_type(config, "cpu" if _on_cpu(config) else "cuda", language_width(config.checkpoint))


def _dtype(name: str) -> torch.dtype:
    return {"bfloat16": torch.bfloat16, "float32": torch.float32}[name]


def _on_cpu(config: RunConfig) -> bool:
    return config.device == "cpu" or (config.device == "auto" and not torch.cuda.is_available())


def _arguments(run_dir: Path, config: RunConfig) -> TrainingArguments:
    arguments = TrainingArguments(
        output_dir=str(run_dir / CHECKPOINTS),
        num_train_epochs=config.epochs,
        max_steps=config.max_steps or -1,
        learning_rate=config.learning_rate,
        lr_scheduler_type="constant_with_warmup" if config.schedule == "constant" else config.schedule,
        warmup_steps=config.warmup,
        weight_decay=config.weight_decay,
        max_grad_norm=config.clip,
        seed=config.seed,
        use_cpu=_on_cpu(config),
        save_strategy="no",  # Progress says when
        logging_steps=1,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to="none",
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_pin_memory=not _on_cpu(config),
        ddp_find_unused_parameters=False,  # each step uses all of the adapter
        ddp_broadcast_buffers=False,
    )
    arguments._n_gpu = min(1, arguments.n_gpu)  # one process, one GPU: else Trainer splits batches by nn.DataParallel
    return arguments


def _fit(trainer: RowTrainer, config: RunConfig, checkpoint: str | None) -> None:
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"The memory of {trainer.args.device} was too small for rows_at_once {config.rows_at_once} of up to "
            f"max_length {config.max_length} tokens. Lower rows_at_once first: it changes no result."
        ) from error


def _peak_memory_mb(config: RunConfig) -> int:
    """Of the GPU, or of the process."""
    if not _on_cpu(config):
        return round(torch.cuda.max_memory_allocated() / 1e6)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6)
