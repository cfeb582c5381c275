"""A conversation as the messages of an OpenAI-compatible chat, with images as data URLs.

The one surprising fact: an image goes out as PNG, so that a remote model sees the very pixels that a local one sees
beside it. JPEG would smooth away what questions about skin are about. Only above `PNG_PIXELS`, where a PNG has many
megabytes and every model scales down anyway, is it JPEG of quality 95 without colour subsampling.
"""

import base64
import io
from collections.abc import Sequence
from typing import Any

from PIL import Image

from facellm.conversation import Turn

PNG_PIXELS = 4_000_000


def chat_messages(conversation: Sequence[Turn]) -> list[dict[str, Any]]:
    """One message a turn: a plain text where there are no images, since some servers take nothing else."""
    return [{"role": turn.role, "content": _content(turn) if turn.images else turn.text} for turn in conversation]


def _content(turn: Turn) -> list[dict[str, Any]]:
    images = [{"type": "image_url", "image_url": {"url": data_url(image)}} for image in turn.images]
    return [*images, {"type": "text", "text": turn.text}]


def data_url(image: Image.Image) -> str:
    """The image, RGB, as `data:image/…;base64,…`."""
    data = io.BytesIO()
    if image.width * image.height <= PNG_PIXELS:
        kind = "png"
        image.save(data, "PNG", compress_level=3)  # half the time of the default, and hardly larger
    else:
        kind = "jpeg"
        image.save(data, "JPEG", quality=95, subsampling=0)
    return f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode()}"
