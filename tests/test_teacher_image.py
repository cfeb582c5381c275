"""Pictures on their way to a teacher carry pixels and nothing else."""

import base64
import io
from pathlib import Path

import pytest
from PIL import Image

from annotation.teaching.teacher_image import MAX_SIDE, blank_url, teacher_url
from facellm.errors import ImageError


def sent(url: str) -> tuple[str, bytes]:
    head, _, data = url.partition(";base64,")
    return head, base64.b64decode(data)


def test_a_plain_jpeg_goes_out_byte_by_byte(tmp_path: Path) -> None:
    path = tmp_path / "face.jpg"
    Image.effect_noise((64, 64), 90).convert("RGB").save(path, "JPEG")
    assert sent(teacher_url(path)) == ("data:image/jpeg", path.read_bytes())


def test_the_place_in_a_photo_stays_here(tmp_path: Path) -> None:
    path = tmp_path / "phone.jpg"
    exif = Image.Exif()
    exif[0x010E] = "at my home"
    exif[0x0112] = 6  # lies on its side
    Image.new("RGB", (40, 20), "red").save(path, "JPEG", exif=exif)
    assert b"at my home" in path.read_bytes()
    kind, data = sent(teacher_url(path))
    assert kind == "data:image/png"
    assert b"at my home" not in data
    assert Image.open(io.BytesIO(data)).size == (20, 40)


@pytest.mark.parametrize(("mode", "suffix"), [("RGBA", ".png"), ("CMYK", ".jpg"), ("P", ".gif"), ("RGB", ".bmp")])
def test_what_a_teacher_may_not_take_becomes_a_png(tmp_path: Path, mode: str, suffix: str) -> None:
    path = tmp_path / f"face{suffix}"
    Image.new(mode, (30, 30)).save(path)
    kind, data = sent(teacher_url(path))
    assert kind == "data:image/png"
    assert Image.open(io.BytesIO(data)).mode == "RGB"


def test_a_large_picture_is_made_smaller(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.new("RGB", (MAX_SIDE * 2, 100)).save(path)
    assert Image.open(io.BytesIO(sent(teacher_url(path))[1])).size == (MAX_SIDE, 50)


def test_a_missing_or_broken_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="gone.png cannot be read"):
        teacher_url(tmp_path / "gone.png")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff no picture")
    with pytest.raises(ImageError):
        teacher_url(broken)


def test_the_blank_picture_has_one_colour() -> None:
    image = Image.open(io.BytesIO(sent(blank_url())[1]))
    assert image.getcolors() == [(224 * 224, (128, 128, 128))]
