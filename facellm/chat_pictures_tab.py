"""Pictures on their way into the chat: opened safely, made small enough, and not kept longer than needed.

Used by the Chat tab's parts. What the models read stays in the visitor's session, in memory; what the page shows is a
small copy without metadata. The one surprising fact: uploaded files are named by their content, so two visitors who
send the same picture share a file, and nobody may delete it but Gradio, which does so after an hour (`delete_cache`).
"""

import threading
from pathlib import Path
from typing import Any

from gradio.data_classes import FileData
from gradio.processing_utils import save_pil_to_cache
from gradio.utils import get_upload_folder
from PIL import Image

from facellm.chat_session import Picture
from facellm.config import Settings
from facellm.data import open_image
from facellm.errors import ImageError

READ_SIDE = 2048  # pixels: InternVL3 cuts a picture into at most 12 tiles of 448 pixels, so more is not seen
SHOWN_SIDE = 512  # pixels: the longer side of a picture's copy on the page
DECODED_AT_ONCE = 2  # a picture of 50 megapixels takes a few hundred MB while it is opened


class Pictures:
    """Opens what visitors send."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._decoding = threading.Semaphore(DECODED_AT_ONCE)

    @property
    def cache(self) -> str:
        """Gradio's folder for files of the page; app.py has them deleted after a while."""
        return get_upload_folder()

    def open(self, file: str | Path) -> Image.Image:
        """Open an uploaded file.

        Raises:
            ImageError: it is no image, damaged, or over a limit.
        """
        limits = self._settings
        if not Path(file).is_file():
            raise ImageError("The picture is not there any more. Add it again.")
        with self._decoding:
            return open_image(
                file,
                max_bytes=int(limits.max_image_mb * 1024 * 1024),
                max_pixels=int(limits.max_image_megapixels * 1e6),
                max_side=READ_SIDE,
            )

    def take(self, file: str | Path) -> Picture:
        """Open an uploaded file, and make the copy that the page shows.

        Raises:
            ImageError: it is no image, damaged, or over a limit.
        """
        image = self.open(file)
        shown = image.copy()
        shown.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
        return Picture(image, save_pil_to_cache(shown, self.cache, name="picture", format="jpeg"))

    def open_sent(self, image: FileData | dict[str, Any]) -> Image.Image:
        """Open the picture of a call through the API: only what was uploaded, no other file of this machine.

        Raises:
            ImageError: it was not uploaded, or cannot be read.
        """
        path = image.get("path") if isinstance(image, dict) else getattr(image, "path", None)
        if not path:
            raise ImageError("The image was not uploaded. Send it with gradio_client's handle_file.")
        return self.open(self._uploaded(path))

    def _uploaded(self, file: str | Path) -> Path:
        path = Path(file).resolve()
        if not path.is_relative_to(Path(self.cache).resolve()):
            raise ImageError("The image was not uploaded. Send it with gradio_client's handle_file.")
        return path
