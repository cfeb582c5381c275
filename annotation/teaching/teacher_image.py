"""A stored picture on its way to a teacher: as a data URL, without metadata.

FairFace's files go out byte by byte, since making them again would cost time, size and detail. What a teacher may not
take, or what carries more than pixels (a phone writes the place into its JPEGs), goes out as a plain PNG instead.
"""

import base64
import io
from functools import cache
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from annotation.images import encode_png
from facellm.data import open_image
from facellm.errors import ImageError

MAX_SIDE = 2048  # pixels; providers scale down what is larger
_KINDS = {"JPEG": "jpeg", "PNG": "png", "WEBP": "webp"}
_PRIVATE = ("exif", "xmp", "XML:com.adobe.xmp", "photoshop", "comment", "Comment")


def teacher_url(path: Path) -> str:
    """The picture as `data:image/…;base64,…`, upright, neither side longer than MAX_SIDE.

    Raises:
        ImageError: the file is missing or cannot be decoded.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"The image file {path.name} cannot be read ({error.strerror}). Import it again.") from error
    kind = _plain_kind(data)
    if kind is None:
        kind, data = "png", encode_png(open_image(data, max_side=MAX_SIDE))
    return _url(kind, data)


@cache
def blank_url() -> str:
    """A grey picture without a face."""
    return _url("png", encode_png(Image.new("RGB", (224, 224), (128, 128, 128))))


def _url(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _plain_kind(data: bytes) -> str | None:
    """The file's kind if it can go out as it is."""
    try:
        with Image.open(io.BytesIO(data), formats=tuple(_KINDS)) as image:
            plain = image.mode in ("RGB", "L") and max(image.size) <= MAX_SIDE and not getattr(image, "is_animated", 0)
            return _KINDS[image.format or ""] if plain and not any(key in image.info for key in _PRIVATE) else None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        return None
