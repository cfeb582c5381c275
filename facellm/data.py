"""The one record that curation, training and evaluation exchange, and the safe way to open an image.

An `Example` is one question about one or more images with its answer. Files of examples are JSONL; a relative image
path is relative to the folder of the JSONL file, so that a data directory can be moved as a whole. The content hash
leaves those paths out: it names the images by their SHA-256, so the same pairs have the same hash wherever they lie.
"""

import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator
from enum import StrEnum
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from facellm.errors import DataError, ImageError

_DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")  # modes of more than 8 bits
SNAPSHOT_FILE = "examples.jsonl"  # in snapshots/NAME
IMAGE_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
MAX_IMAGE_BYTES = 10 * 1024 * 1024
MAX_IMAGE_PIXELS = 50_000_000


class Attribute(StrEnum):
    """The eight things that FairFaceGPT asks about a face; the value is what is stored."""

    DEMOGRAPHIC = "demographic"
    STRUCTURE = "structure"
    SKIN = "skin"
    EXPRESSION = "expression"
    LIGHTING = "lighting"
    POSE = "pose"
    FORENSIC = "forensic"
    DETAIL = "detail"

    @property
    def topic(self) -> str:
        """The attribute's name as FairFaceGPT spells it, such as `skin texture`."""
        return _TOPICS[self]

    @property
    def question(self) -> str:
        """The question stored with each pair; it never carries a hint about the answer."""
        if self is Attribute.DETAIL:
            return "Describe this image."
        return f"Describe the {self.topic} of the image based on the visual information."


_TOPICS = {
    Attribute.DEMOGRAPHIC: "demographic attributes",
    Attribute.STRUCTURE: "facial structure",
    Attribute.SKIN: "skin texture",
    Attribute.EXPRESSION: "expression and emotion",
    Attribute.LIGHTING: "lighting and image quality",
    Attribute.POSE: "face pose",
    Attribute.FORENSIC: "forensic considerations",
    Attribute.DETAIL: "detail",
}


class Provenance(BaseModel):
    """Where an example comes from: enough to find its image, its pair and the decision that let it in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_sha256: tuple[str, ...]
    pair_id: int | None = None
    status: str | None = None  # accepted or edited
    reviewer: str | None = None
    teacher: str | None = None  # the model that wrote the answer
    prompt_version: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)


class Example(BaseModel):
    """One question about one or more images, with its answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: tuple[str, ...] = Field(min_length=1)
    attribute: Attribute | None = None
    question: str = Field(min_length=1)
    answer: str = Field(min_length=1)
    provenance: Provenance


def read_examples(path: Path) -> Iterator[Example]:
    """Yield the examples of a JSONL file, with image paths made absolute.

    Raises:
        DataError: the file is missing, or a line is not an example; the message names the line.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist. Expected a JSONL file of examples, such as a snapshot.")
    folder = path.parent.resolve()
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                yield parse_example(line, folder)
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(str(part) for part in first["loc"]) or "the line"
                raise DataError(
                    f"{path}, line {number}: {where}: {first['msg']}. Expected one example a line."
                ) from error


def parse_example(line: bytes, folder: Path) -> Example:
    """The example of a line, with image paths made absolute.

    Args:
        folder: that of the file, itself absolute.

    Raises:
        ValidationError: the line is not an example.
    """
    example = Example.model_validate_json(line)
    return example.model_copy(update={"images": tuple(_absolute(folder, image) for image in example.images)})


@lru_cache(1024)  # the pairs of an image name it again and again, and resolving asks the disk for every folder
def _absolute(folder: Path, image: str) -> str:
    return str((folder / image).resolve())


def write_examples(path: Path, examples: Iterable[Example]) -> int:
    """Write examples to a JSONL file, image paths relative to its folder; return how many.

    The file appears complete or not at all.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(path.suffix + ".partial")
    folder = path.parent.resolve()

    @cache
    def relative(image: str) -> str:
        return Path(os.path.relpath(Path(image).resolve(), folder)).as_posix()

    count = 0
    with partial.open("w", encoding="utf-8") as out:
        for example in examples:
            record = example.model_dump(mode="json") | {"images": [relative(image) for image in example.images]}
            out.write(json.dumps(record, ensure_ascii=False) + "\n")
            count += 1
    partial.replace(path)
    return count


class ContentHash:
    """SHA-256 over what examples say, in their order, wherever their images lie."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._encode = json.JSONEncoder(sort_keys=True, ensure_ascii=False).encode  # json.dumps makes one each time

    def of(self, examples: Iterable[Example]) -> Iterator[Example]:
        """Pass examples on, and take each into the hash."""
        for example in examples:
            self.add(example.model_dump(mode="json", exclude={"images"}))
            yield example

    def add(self, record: dict[str, Any]) -> None:
        """Take an example into the hash that is a JSON object already, without its `images`."""
        self._digest.update(self._encode(record).encode() + b"\n")

    def hexdigest(self) -> str:
        """The hash of what has been passed on so far: 64 hex digits."""
        return self._digest.hexdigest()


def content_hash(examples: Iterable[Example]) -> str:
    """The `ContentHash` of all these examples: 64 hex digits."""
    content = ContentHash()
    for _ in content.of(examples):
        pass
    return content.hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes: 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_image(
    source: Path | str | bytes,
    *,
    max_bytes: int = MAX_IMAGE_BYTES,
    max_pixels: int = MAX_IMAGE_PIXELS,
    max_side: int | None = None,
) -> Image.Image:
    """Open an image that a person sent, as upright 8-bit RGB without metadata.

    Transparency is laid on white, 16-bit and CMYK are converted, of an animation the first frame is taken. Size limits
    are checked before anything is decoded.

    Args:
        source: a file's path, or its bytes.
        max_bytes: the largest file that is read.
        max_pixels: the largest width × height that is decoded.
        max_side: make a larger image so small that neither side is longer, in pixels; a JPEG is then decoded at a
            fraction of its size, which takes a fraction of the memory.

    Raises:
        ImageError: not an image, cut off, empty, or over a limit.
    """
    data, name = _read_limited(source, max_bytes)
    try:
        with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise ImageError(
                    f"{name} has {image.width}×{image.height} pixels; at most {max_pixels / 1e6:g} megapixels are "
                    "accepted. Make it smaller and try again."
                )
            if max_side is not None:
                image.draft(None, (max_side, max_side))  # a JPEG is decoded not much larger; others do not heed it
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            plain = _plain_rgb(image)
            if max_side is not None:
                plain.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
            return plain
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{name} is not an image that can be read. Send a JPEG, PNG, WebP, GIF, BMP or TIFF file."
        ) from error
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{name} has too many pixels; at most {max_pixels / 1e6:g} megapixels are accepted. "
            "Make it smaller and try again."
        ) from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise ImageError(f"{name} is damaged or cut off, and cannot be decoded. Send the file again.") from error


def _read_limited(source: Path | str | bytes, max_bytes: int) -> tuple[bytes, str]:
    if isinstance(source, bytes):
        data, name = source, "The image"
    else:
        path = Path(source)
        name = path.name
        if not path.is_file():
            raise ImageError(f"{path} does not exist. Give the path of an image file.")
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    if not data:
        raise ImageError(f"{name} is empty (0 bytes). Send the file again.")
    if len(data) > max_bytes:
        raise ImageError(f"{name} is larger than {max_bytes / 1024 / 1024:g} MB. Make it smaller and try again.")
    return data, name


def _plain_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB with no metadata: a fresh image, so that nothing but pixels is carried over."""
    if image.mode in _DEEP:
        image = _to_8_bit(image)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        canvas = Image.new("RGBA", rgba.size, "white")
        canvas.alpha_composite(rgba)
        image = canvas
    plain = image.convert("RGB")
    plain.info = {}
    return plain


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey to 8 bit: `convert` alone would clip everything above 255 to white."""
    if image.mode == "F":
        low, high = image.getextrema()
        span = (high - low) or 1.0  # type: ignore[operator]
        return image.point(lambda value: (value - low) * (255.0 / span)).convert("L")
    return image.convert("I").point(lambda value: value * (1 / 257)).convert("L")
