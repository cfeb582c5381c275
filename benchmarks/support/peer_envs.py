"""Environments of the trainers that this one is measured against: each with its own versions of what it pins.

    python benchmarks/support/peer_envs.py .bench

Made by venv and pip, outside this project's environment. Both share only torch and torchvision with it, through a
path file, where their pins allow it, as LLaMA-Factory 0.9.5 and TRL 1 do: same torch on every side, and 5 GB less for
each. The one surprising fact: pip sees what the path file shows, installs what a pin forbids into the new environment,
where it comes first, and leaves the shared one as it is.
"""

import importlib.metadata
import json
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

WHEELS_OF = "zz_shared.pth"  # sorts last


@dataclass(frozen=True)
class Peer:
    """A trainer to compare with."""

    name: str
    requirement: str
    package: str


PEERS = {
    "llamafactory": Peer("LLaMA-Factory", "llamafactory==0.9.5", "llamafactory"),
    "trl": Peer("TRL", "trl>=1.16,<2", "trl"),
}


def python_of(envs: Path, name: str) -> Path:
    """The interpreter of a peer's environment, which may not be there."""
    return envs / name / "bin" / "python"


def installed(envs: Path, name: str) -> dict[str, str] | None:
    """Versions of a peer and of what decides its speed; None if it is not installed."""
    python = python_of(envs, name)
    if not python.is_file():
        return None
    names = [PEERS[name].package, "torch", "transformers", "peft", "accelerate"]
    code = f"import importlib.metadata as m, json; print(json.dumps({{n: m.version(n) for n in {names!r}}}))"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else None


def install(envs: Path, name: str) -> str | None:
    """Make a peer's environment and install it; return why it could not be, or None."""
    folder = envs / name
    envs.mkdir(parents=True, exist_ok=True)
    venv.create(folder, with_pip=True, clear=True)
    own = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    (own / WHEELS_OF).write_text(sysconfig.get_paths()["purelib"] + "\n")
    command = [str(python_of(envs, name)), "-m", "pip", "install", "--no-cache-dir", PEERS[name].requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return (done.stderr.strip().splitlines() or ["pip failed without a word"])[-1]
    return None if installed(envs, name) else "it was installed, and its version cannot be read"


def own_versions() -> dict[str, str]:
    """The same of this project's environment."""
    return {name: importlib.metadata.version(name) for name in ("torch", "transformers", "peft", "accelerate")}


def main() -> None:
    """Install both into a folder."""
    for name in PEERS:
        found = installed(Path(sys.argv[1]), name)
        print(f"{name}: {found or install(Path(sys.argv[1]), name) or installed(Path(sys.argv[1]), name)}")


if __name__ == "__main__":
    main()
