"""What the tests of the judge and of the probe share: pictures with labels, and a look into a request."""

from typing import Any

from PIL import Image as Pictures

from annotation.images import encode_png
from annotation.models import ImageInput, PairInput
from annotation.store import Store


def add_image(
    store: Store, number: int, labels: dict[str, str], pairs: tuple[PairInput, ...] = (), source: str = "test"
) -> None:
    """Store a picture of one colour, which is as good as a face to a scripted model."""
    data = encode_png(Pictures.new("RGB", (8, 8), (number, 10, 200)))
    sha256, path = store.put_image(data, ".png")
    image = ImageInput(
        sha256=sha256,
        path=path,
        width=8,
        height=8,
        bytes=len(data),
        source=source,
        labels=labels,
        label_source="test",
        pairs=pairs,
    )
    store.ingest([image])


def user_text(body: dict[str, Any]) -> str:
    """What a request says beside its picture."""
    return str(body["messages"][-1]["content"][1]["text"])


def picture_url(body: dict[str, Any]) -> str:
    """A request's picture."""
    return str(body["messages"][-1]["content"][0]["image_url"]["url"])
