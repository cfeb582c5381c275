"""Train a run as `python -m facellm train` does, in several processes of this machine, by the launchers people use."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from facellm.config import ROOT
from facellm.training.run_files import json_lines

DDP = ("--multi_gpu",)  # the name means several processes; without a GPU they take the processor
FSDP = ("--use_fsdp", "--fsdp_version", "2")


def launch(run_dir: Path, *how: str, resume: bool = False) -> subprocess.Popen[str]:
    """Two processes under accelerate launch."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    return subprocess.Popen(
        [sys.executable, "-m", "accelerate.commands.launch", *how, "--num_processes", "2", "--num_machines", "1"]
        + ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", port]
        + ["-m", "facellm", "train", str(run_dir), *(["--resume"] if resume else [])],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for_step(run_dir: Path, step: int, process: subprocess.Popen[str]) -> None:
    """Wait until a training process has written a step down."""
    ends = time.monotonic() + 120
    while not any(line["step"] >= step for line in json_lines(run_dir / "metrics.jsonl")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < ends
        time.sleep(0.01)
