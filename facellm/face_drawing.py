"""How a rendered face is drawn: layers from the background to the light, at three times the size.

Use `facellm.faces.render`. The one surprising fact: nothing that is asked about a face may be hidden, so caps leave a
fringe, sunglasses leave the brows, scarves leave the chin, and beards leave the mouth.
"""

from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageFilter

from facellm import face_features, face_wear
from facellm.face_canvas import BLACK, WHITE, Canvas, curve, ellipse, mix
from facellm.face_look import Look, make_look

SUPERSAMPLING = 3
GRAIN = 64  # cells of film grain across the picture, whatever its size: finer grain is lost at 64 pixels


def draw(labels: Mapping[str, str], seed: int, size: int) -> Image.Image:
    """Draw the face with these labels; the seed decides colours, places and small choices. RGB, size×size."""
    look = make_look(labels, seed)
    canvas = Canvas(size * SUPERSAMPLING)
    for layer in _LAYERS:
        layer(canvas, look)
    image = canvas.image.resize((size, size), Image.Resampling.BOX)
    return _lit(_degraded(image, labels["quality"], seed), labels["lighting"])


def _backdrop(canvas: Canvas, look: Look) -> None:
    canvas.image.paste(look.background, (0, 0, canvas.pixels, canvas.pixels))
    glow = mix(look.background, WHITE, 0.5)
    canvas.shade(ellipse((50, 44), 40, 40), glow, softness=9, strength=0.9)
    canvas.shade([(0, 82), (100, 82), (100, 100), (0, 100)], mix(look.background, BLACK, 0.25), 12, 0.7)


def _body(canvas: Canvas, look: Look) -> None:
    head = look.head
    chin = head.y + head.height
    neck, shade = head.width * 0.46, mix(look.skin, look.ink, 0.34)
    shoulders = [
        (2, 101),
        *curve((2, 101), (6, chin + 8), (34, chin + 5)),
        *curve((66, chin + 5), (94, chin + 8), (98, 101)),
    ]
    canvas.area(shoulders, look.clothes)
    canvas.shade([(0, 100), (20, 80), (50, 100)], mix(look.clothes, BLACK, 0.5), 5, 0.35, canvas.mask(shoulders))
    canvas.area(
        [(50 - neck, chin - 14), (50 + neck, chin - 14), (50 + neck + 1.5, chin + 5), (50 - neck - 1.5, chin + 5)],
        look.skin,
    )
    canvas.disc((50, chin + 5), neck + 1.6, 4.4, look.skin)
    canvas.shade(
        ellipse((head.x, chin - 3), head.width * 0.8, 8),
        shade,
        2,
        0.9,
        canvas.mask([(50 - neck, chin - 14), (50 + neck, chin - 14), (50 + neck, chin + 7), (50 - neck, chin + 7)]),
    )
    canvas.stroke(ellipse((50, chin + 4.5), neck + 2.2, 5.6, 0, 180), 1.8, mix(look.clothes, WHITE, 0.25))


def _lit(image: Image.Image, lighting: str) -> Image.Image:
    """The picture under another light than an even one; after its grain, which would drown a dim face."""
    if lighting == "even":
        return image
    if lighting == "dim":
        factor = np.array([0.44, 0.46, 0.56], np.float32)
    else:
        ramp = np.linspace(0, 1, image.width, dtype=np.float32)
        ramp = ramp if lighting == "left" else 1 - ramp
        ramp = ramp * ramp * (3 - 2 * ramp)
        bright, dark = np.array([1.14, 1.1, 1.02], np.float32), np.array([0.4, 0.4, 0.48], np.float32)
        factor = bright + (dark - bright) * ramp[None, :, None]
    return Image.fromarray(np.clip(np.asarray(image) * factor, 0, 255).astype(np.uint8))


def _degraded(image: Image.Image, quality: str, seed: int) -> Image.Image:
    if quality == "blurry":
        return image.filter(ImageFilter.GaussianBlur(image.width * 0.019))
    if quality == "grainy":
        grain = np.random.default_rng(seed).normal(0, 24, (GRAIN, GRAIN, 3))
        cells = Image.fromarray(np.clip(grain + 128, 0, 255).astype(np.uint8))
        noise = np.asarray(cells.resize(image.size, Image.Resampling.BILINEAR), dtype=np.float32) - 128
        return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))
    return image


_LAYERS: tuple[Callable[[Canvas, Look], None], ...] = (
    _backdrop,
    face_wear.hair_behind,
    _body,
    face_features.skin,
    face_features.wrinkles,
    face_features.nose,
    face_features.beard,
    face_features.mouth,
    face_features.eyes,
    face_wear.hair_front,
    face_wear.glasses,
    face_features.brows,
    face_wear.occlusion,
)
