"""Bad and odd images, as people upload them: each is handled right or refused in one sentence."""

import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from facellm.data import MAX_IMAGE_BYTES, open_image
from facellm.errors import ImageError

SIZE = (40, 30)
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def halves(mode: str, left: object, right: object) -> Image.Image:
    """An image of two colours, so that turning and mirroring show."""
    image = Image.new(mode, SIZE, left)  # type: ignore[arg-type]
    image.paste(right, (SIZE[0] // 2, 0, *SIZE))  # type: ignore[arg-type]
    return image


def near(pixel: object, colour: tuple[int, int, int], tolerance: int = 40) -> bool:
    assert isinstance(pixel, tuple)
    return all(abs(found - wanted) <= tolerance for found, wanted in zip(pixel, colour, strict=True))


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_every_accepted_format_opens(format: str, tmp_path: Path) -> None:
    path = tmp_path / "face.bin"  # the name says nothing; the content decides
    path.write_bytes(encoded(halves("RGB", RED, BLUE), format))
    image = open_image(path)
    assert (image.mode, image.size) == ("RGB", SIZE)
    assert near(image.getpixel((2, 15)), RED)
    assert near(image.getpixel((37, 15)), BLUE)


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "is empty"),
    "text": (lambda: b"I am a face", "not an image"),
    "svg": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "not an image"),
    "html": (lambda: b"<!doctype html><img src=x onerror=alert(1)>", "not an image"),
    "pdf": (lambda: b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "not an image"),
    "eps": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
    "11 MB": (lambda: os.urandom(MAX_IMAGE_BYTES + 1), "larger than 10 MB"),
    "cut PNG": (lambda: encoded(Image.effect_noise((99, 99), 99), "PNG")[:2000], "damaged or cut off"),
    "cut JPEG": (lambda: encoded(Image.effect_noise((99, 99), 99), "JPEG")[:2000], "damaged or cut off"),
    "PNG header only": (lambda: encoded(halves("RGB", RED, BLUE), "PNG")[:33], "not an image"),
    "20,000×20,000": (lambda: encoded(Image.new("1", (20_000, 20_000)), "PNG"), "pixels"),
    "60 megapixels": (lambda: encoded(Image.new("1", (10_000, 6_000)), "PNG"), "10000×6000 pixels; at most 50 mega"),
}


@pytest.mark.parametrize(("make", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_good_image_is_refused_in_one_sentence(
    make: Callable[[], bytes], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "upload.png"
    path.write_bytes(make())
    for source in (path, path.read_bytes()):
        with pytest.raises(ImageError, match=reason) as refused:
            open_image(source)
        assert "\n" not in str(refused.value)
    assert str(refused.value).startswith("The image"), "bytes have no name"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="nowhere.png does not exist"):
        open_image(tmp_path / "nowhere.png")


def test_the_limits_can_be_set() -> None:
    data = encoded(halves("RGB", RED, BLUE), "PNG")
    with pytest.raises(ImageError, match="pixels"):
        open_image(data, max_pixels=SIZE[0] * SIZE[1] - 1)
    with pytest.raises(ImageError, match="larger than"):
        open_image(data, max_bytes=len(data) - 1)
    assert open_image(data, max_pixels=SIZE[0] * SIZE[1], max_bytes=len(data)).size == SIZE


def test_of_an_animation_the_first_frame_is_taken() -> None:
    frames = [Image.new("RGB", SIZE, colour) for colour in (RED, GREEN, BLUE)]
    for format in ("GIF", "WEBP"):
        animation = encoded(frames[0], format, save_all=True, append_images=frames[1:], duration=100)
        assert near(open_image(animation).getpixel((20, 15)), RED)


def test_cmyk_keeps_its_colours() -> None:
    image = open_image(encoded(halves("CMYK", (0, 255, 255, 0), (255, 255, 0, 0)), "JPEG"))
    assert near(image.getpixel((2, 15)), RED, 60)
    assert near(image.getpixel((37, 15)), BLUE, 60)


def test_sixteen_bit_grey_keeps_its_brightness() -> None:
    for format in ("PNG", "TIFF"):
        image = open_image(encoded(halves("I;16", 128 * 257, 10 * 257), format))
        assert near(image.getpixel((2, 15)), (128, 128, 128), 1)
        assert near(image.getpixel((37, 15)), (10, 10, 10), 1)


def test_transparency_is_laid_on_white() -> None:
    image = open_image(encoded(halves("RGBA", (255, 0, 0, 255), (0, 0, 0, 0)), "PNG"))
    assert near(image.getpixel((2, 15)), RED)
    assert near(image.getpixel((37, 15)), (255, 255, 255))
    grey = open_image(encoded(halves("LA", (90, 255), (0, 0)), "PNG"))
    assert [near(grey.getpixel((x, 15)), colour) for x, colour in ((2, (90, 90, 90)), (37, (255, 255, 255)))]


def test_a_transparent_palette_entry_is_laid_on_white() -> None:
    image = Image.new("P", SIZE, 0)
    image.putpalette([*RED, *BLUE])
    image.paste(1, (SIZE[0] // 2, 0, *SIZE))
    for format in ("PNG", "GIF"):
        opened = open_image(encoded(image, format, transparency=1))
        assert near(opened.getpixel((2, 15)), RED)
        assert near(opened.getpixel((37, 15)), (255, 255, 255))


def test_exif_turns_the_image_upright_and_all_metadata_is_dropped() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the top is at the right of the stored pixels
    exif[0x010F] = "A camera"
    exif.get_ifd(0x8825)[1] = "N"  # GPS
    image = open_image(encoded(halves("RGB", RED, BLUE), "JPEG", exif=exif, comment="secret", quality=95))
    assert image.size == (SIZE[1], SIZE[0])
    assert near(image.getpixel((15, 2)), RED)
    assert near(image.getpixel((15, 37)), BLUE)
    assert not image.getexif()
    assert image.info == {}
    assert b"secret" not in encoded(image, "PNG")


def test_a_photo_with_a_second_picture_inside_opens_as_its_first() -> None:
    both = encoded(
        Image.new("RGB", SIZE, RED), "MPO", save_all=True, append_images=[Image.new("RGB", SIZE, BLUE)]
    )  # as phones write depth maps
    assert near(open_image(both).getpixel((20, 15)), RED)


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_a_large_image_is_made_smaller_where_that_is_asked(format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    data = encoded(halves("RGB", RED, BLUE).resize((4000, 3000)), format, exif=exif)
    image = open_image(data, max_side=1000)
    assert (image.mode, image.size, image.info) == ("RGB", (750, 1000), {})
    assert near(image.getpixel((375, 10)), RED)
    assert near(image.getpixel((375, 990)), BLUE)
    assert open_image(data, max_side=5000).size == (3000, 4000)
