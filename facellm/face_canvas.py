"""What rendered faces are drawn on and with: a canvas in hundredths of its width, and the solid that is the head.

Used by `facellm.face_drawing`. The one surprising fact: features are placed on the head by longitude and height, so a
turned head is the same drawing with another longitude in front, and eyes narrow, ears vanish and hair comes round as
they do on a real head.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageChops, ImageDraw, ImageFilter

Colour = tuple[int, int, int]
Point = tuple[float, float]

BLACK: Colour = (0, 0, 0)
WHITE: Colour = (255, 255, 255)


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """The colour that lies `share` (0–1) of the way from the first to the second."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


class Canvas:
    """A picture that is drawn on in hundredths of its width."""

    def __init__(self, pixels: int) -> None:
        """A black square of so many pixels a side."""
        self.pixels = pixels
        self.scale = pixels / 100
        self.image = Image.new("RGB", (pixels, pixels))
        self.pen = ImageDraw.Draw(self.image)

    def scaled(self, points: Sequence[Point]) -> list[Point]:
        """Points in pixels."""
        return [(x * self.scale, y * self.scale) for x, y in points]

    def area(self, points: Sequence[Point], colour: Colour, inside: Image.Image | None = None) -> None:
        """Fill a polygon, within a mask if one is given."""
        if inside is None:
            self.pen.polygon(self.scaled(points), fill=colour)
        else:
            self._paste(points, colour, 0, 1, inside, shrink=1)

    def disc(self, centre: Point, rx: float, ry: float, colour: Colour) -> None:
        """Fill an upright ellipse."""
        x, y = centre
        self.pen.ellipse([value * self.scale for value in (x - rx, y - ry, x + rx, y + ry)], fill=colour)

    def stroke(self, points: Sequence[Point], width: float, colour: Colour) -> None:
        """Draw a line with round ends."""
        self.pen.line(self.scaled(points), fill=colour, width=max(1, round(width * self.scale)), joint="curve")
        for end in (points[0], points[-1]):
            self.disc(end, width / 2, width / 2, colour)

    def mask(self, points: Sequence[Point]) -> Image.Image:
        """The polygon as a mask of the canvas's size."""
        mask = Image.new("L", self.image.size)
        ImageDraw.Draw(mask).polygon(self.scaled(points), fill=255)
        return mask

    def shade(
        self,
        points: Sequence[Point],
        colour: Colour,
        softness: float,
        strength: float,
        inside: Image.Image | None = None,
    ) -> None:
        """Lay a polygon with soft edges over the picture, `strength` 0–1, within a mask if one is given."""
        self._paste(points, colour, softness, strength, inside, shrink=4)

    def _paste(
        self,
        points: Sequence[Point],
        colour: Colour,
        softness: float,
        strength: float,
        inside: Image.Image | None,
        shrink: int,
    ) -> None:
        """Paste through a mask of the polygon's surroundings only, made at a fraction of the size if it is soft."""
        margin = 3 * softness
        columns, rows = [x for x, _ in points], [y for _, y in points]
        left, top = (max(0, int((min(values) - margin) * self.scale)) for values in (columns, rows))
        width, height = (
            min(self.pixels, int((max(values) + margin) * self.scale) + 2) - low
            for values, low in ((columns, left), (rows, top))
        )
        if width <= 0 or height <= 0:
            return
        scale = self.scale / shrink
        mask = Image.new("L", (-(-width // shrink), -(-height // shrink)))
        place = [(x * scale - left / shrink, y * scale - top / shrink) for x, y in points]
        ImageDraw.Draw(mask).polygon(place, fill=round(255 * strength))
        if softness:
            mask = mask.filter(ImageFilter.GaussianBlur(softness * scale)).resize(
                (mask.width * shrink, mask.height * shrink), Image.Resampling.BILINEAR
            )
        mask = mask.crop((0, 0, width, height))
        if inside is not None:
            mask = ImageChops.multiply(mask, inside.crop((left, top, left + width, top + height)))
        self.image.paste(colour, (left, top), mask)


def ellipse(centre: Point, rx: float, ry: float, start: float = 0, end: float = 360, steps: int = 48) -> list[Point]:
    """Points of an ellipse's arc, degrees clockwise from three o'clock."""
    angles = [math.radians(start + (end - start) * step / steps) for step in range(steps + 1)]
    return [(centre[0] + rx * math.cos(angle), centre[1] + ry * math.sin(angle)) for angle in angles]


def curve(start: Point, bend: Point, end: Point, steps: int = 20) -> list[Point]:
    """Points of a quadratic Bézier curve."""
    points = []
    for step in range(steps + 1):
        t = step / steps
        a, b, c = (1 - t) ** 2, 2 * t * (1 - t), t * t
        points.append((a * start[0] + b * bend[0] + c * end[0], a * start[1] + b * bend[1] + c * end[1]))
    return points


@dataclass(frozen=True)
class Head:
    """The solid: a centre, half axes, the shape of the lower half, and how far it is turned (degrees, + is right)."""

    x: float
    y: float
    width: float
    height: float
    squareness: float
    taper: float
    turn: float

    def half_width(self, v: float) -> float:
        """Half the width at height v, -1 (crown) to 1 (chin)."""
        power = 2.1 if v < 0 else self.squareness
        rounded = max(0.0, 1 - min(1.0, abs(v)) ** power) ** (1 / power)
        return self.width * rounded * (1 - self.taper * max(0.0, v))

    def at(self, longitude: float, v: float) -> Point:
        """Where a feature is seen: longitude in degrees from the nose, height -1 to 1."""
        shown = max(-90.0, min(90.0, longitude + self.turn))
        return self.x + self.half_width(v) * math.sin(math.radians(shown)), self.y + self.height * v

    def narrowing(self, longitude: float) -> float:
        """How much narrower a feature there looks than from its front, 0–1."""
        return max(0.3, math.cos(math.radians(longitude + self.turn)))

    def outline(self, grow: float = 1.0, top: float = -1.0, bottom: float = 1.0) -> list[Point]:
        """The contour between two heights, `grow` times as wide and as high."""
        heights = [top + (bottom - top) * (1 - math.cos(math.pi * step / 60)) / 2 for step in range(61)]
        right = [(self.x + self.half_width(v) * grow, self.y + self.height * v * grow) for v in heights]
        return right + [(2 * self.x - x, y) for x, y in reversed(right)]
