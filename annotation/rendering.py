"""Render the faces of the seeded data set into the data directory, on all cores.

    python -m annotation.rendering DATA_DIR 0 1 2

The cores are used by running this module as a command of its own: `multiprocessing` would import the app's main
module, torch and Gradio included, into each of its processes, and take longer than the drawing.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from annotation.images import encode_png, put_image
from facellm import faces

IMAGE_SIZE = 256  # pixels
FACES_A_PROCESS = 16  # fewer are not worth starting one


@dataclass(frozen=True)
class RenderedFace:
    """A face's number in the data set, and its stored file."""

    number: int
    sha256: str
    path: str  # relative to the data directory
    bytes: int


def render_faces(data_dir: Path, numbers: Sequence[int]) -> list[RenderedFace]:
    """Store the pictures of these faces, using every core that this process may use; in the order of the numbers.

    Raises:
        subprocess.CalledProcessError: a rendering process failed; its error is on stderr.
    """
    workers = min(len(os.sched_getaffinity(0)), len(numbers) // FACES_A_PROCESS)
    if workers < 2:
        return list(_render(data_dir, numbers))
    shares = [[str(number) for number in numbers[start::workers]] for start in range(workers)]
    command = [sys.executable, "-m", "annotation.rendering", str(data_dir)]
    root = Path(__file__).resolve().parent.parent
    processes = [subprocess.Popen([*command, *share], cwd=root, stdout=subprocess.PIPE, text=True) for share in shares]
    try:
        outputs = [process.communicate()[0] for process in processes]
    finally:
        for process in processes:
            process.kill()  # does nothing to one that has ended
    for process in processes:
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)
    rendered = [RenderedFace(**json.loads(line)) for output in outputs for line in output.splitlines()]
    return sorted(rendered, key=lambda face: face.number)


def _render(data_dir: Path, numbers: Sequence[int]) -> Iterator[RenderedFace]:
    for number in numbers:
        face = faces.sample(faces.SEEDED_SEEDS[number])
        data = encode_png(faces.render(face, IMAGE_SIZE))
        sha256, path = put_image(data_dir, data, ".png")
        yield RenderedFace(number, sha256, path, len(data))


def main() -> None:
    """Render the faces of the command line and print a JSON line for each."""
    data_dir, *numbers = sys.argv[1:]
    for face in _render(Path(data_dir), [int(number) for number in numbers]):
        sys.stdout.write(json.dumps(asdict(face)) + "\n")


if __name__ == "__main__":
    main()
