"""Hair, glasses and what covers a rendered head: cap, scarf, headphones; a layer each.

Used by `facellm.face_drawing`. The one surprising fact: hair is the part of the head above a hairline that goes right
round it, so that it comes forward over the ear of a turned head by itself.
"""

import random

import numpy as np

from facellm.face_canvas import BLACK, WHITE, Canvas, Point, curve, ellipse, mix
from facellm.face_look import Look


def hair_behind(canvas: Canvas, look: Look) -> None:
    """What is seen of the hair behind the head."""
    head, dark = look.head, mix(look.hair, BLACK, 0.28)
    back = -2.5 * look.side  # the back of a turned head comes round on the other side
    if look.labels["hair_style"] == "long":
        width = head.width * 1.2
        left, right, top = head.x - width + back, head.x + width + back, head.y - head.height * 0.35
        hem = head.y + head.height * (1.2 if look.style else 1.32)
        shape = ellipse((head.x + back, top), width, head.height * 0.78, 180, 360)
        shape += curve((right, top), (right + 4.5, hem - 18), (right + 1, hem))
        shape += curve((right + 1, hem), (head.x + back, hem + 4), (left - 1, hem))
        shape += curve((left - 1, hem), (left - 4.5, hem - 18), (left, top))
        canvas.area(shape, dark)
    elif look.labels["hair_style"] == "curly":
        rng = random.Random(look.rng.random())
        for angle in range(-205, 26, 12):
            x, y = ellipse((head.x + back, head.y - 4), head.width * 1.13, head.height * 0.96, angle, angle, 1)[0]
            radius = rng.uniform(6.2, 8.0)
            canvas.disc((x, y), radius, radius, dark)
    else:
        canvas.disc((head.x + 2 * back, head.y - head.height * 0.3), head.width * 1.04, head.height * 0.76, dark)


def _hairline(style: str, parting: float, longitude: float) -> float:
    """The height at which the hair ends, at a longitude; past 80 degrees it goes round the ear to the nape."""
    away = abs(longitude)
    if style == "long":
        bend = abs(longitude - parting) / 60
        return -0.66 + 0.3 * min(1.0, bend) ** 1.5 if away < 62 else -0.2
    if away < 60:
        wave = 0.05 * np.cos((longitude - parting) / 14)
        return -0.55 + wave + 0.1 * (away / 60) ** 3
    if away < 78:
        return -0.08
    return -0.16 if away < 98 else 0.38


def hair_front(canvas: Canvas, look: Look) -> None:
    """The hair on top, at the sides and on the forehead."""
    head, style = look.head, look.labels["hair_style"]
    angles = range(-90, 91, 3)
    line = [head.at(angle - head.turn, _hairline(style, look.parting, angle - head.turn)) for angle in angles]
    low_left, low_right = (_hairline(style, look.parting, angle - head.turn) for angle in (-90, 90))
    over = head.outline(1.09, -1, low_right)[:61][::-1]
    area = [*line, *over, *[(2 * head.x - x, y) for x, y in head.outline(1.09, -1, low_left)[:61]]]
    canvas.area(area, look.hair)
    mask = canvas.mask(area)
    crown = head.at(-18, -0.82)
    if style == "curly":
        _curls(canvas, look, line)
    if style == "long":
        for sign in (-1, 1):
            if look.side != sign:
                _lock(canvas, look, sign)
    canvas.shade(ellipse(crown, head.width * 0.55, 3.2), mix(look.hair, WHITE, 0.5), 2.2, 0.75, mask)


def _curls(canvas: Canvas, look: Look, line: list[Point]) -> None:
    head = look.head
    rng = random.Random(look.rng.random())
    light, dark = mix(look.hair, WHITE, 0.16), mix(look.hair, BLACK, 0.16)
    spots = [
        ellipse((head.x, head.y), head.width * grow, head.height * grow, angle, angle, 1)[0]
        for grow in (1.08, 0.9)
        for angle in range(-178, 0, 13)
    ]
    spots = [
        spot
        for spot in spots
        if spot[1] < head.y - head.height * 0.28
        and (spot[1] < head.y - head.height * 0.62 or abs(spot[0] - head.x) > head.width * 0.8)
    ]
    spots += [(x, y - 3) for x, y in line[4:-4:4] if y < head.y - head.height * 0.4]
    for x, y in spots:
        radius = rng.uniform(4.4, 5.6)
        centre = (x + rng.uniform(-0.8, 0.8), y + rng.uniform(-0.8, 0.8))
        canvas.disc(centre, radius, radius, look.hair)
        start = rng.uniform(0, 360)
        canvas.stroke(
            ellipse(centre, radius * 0.6, radius * 0.6, start, start + 210, 12), 0.8, rng.choice((light, dark))
        )


def _lock(canvas: Canvas, look: Look, sign: int) -> None:
    """The hair that falls over one ear to the shoulder."""
    head = look.head
    hem = head.y + head.height * (1.14 if look.style else 1.26)
    inner_x, inner_y = head.at(sign * 60, -0.36)
    outer_x = head.x + sign * head.width * 1.16
    middle = (inner_x + outer_x) / 2
    area = [
        *curve((inner_x, inner_y), (inner_x + sign * 2, head.y), (middle - sign * 0.5, hem)),
        *curve((middle, hem), (outer_x, hem + 3), (outer_x + sign * 2.5, hem - 1)),
        *curve(
            (outer_x + sign * 2.5, hem - 1),
            (outer_x + sign * 1.5, head.y),
            (outer_x - sign * 2.5, head.y - head.height * 0.62),
        ),
    ]
    canvas.area(area, look.hair)
    strand = curve(((inner_x + outer_x) / 2, inner_y - 2), (middle + sign * 2, head.y), (middle + sign * 2.5, hem - 5))
    canvas.stroke(strand, 0.8, mix(look.hair, WHITE, 0.22))


def glasses(canvas: Canvas, look: Look) -> None:
    """Glasses or sunglasses, with the temple of the near side."""
    kind = look.labels["glasses"]
    if kind == "none":
        return
    head = look.head
    frame = (236, 232, 222) if kind == "glasses" and look.labels["skin_tone"] == "dark" else (34, 34, 42)
    tinted = kind == "sunglasses"
    inner = []
    for sign in (-1, 1):
        x, y = head.at(sign * 24, 0.04)
        narrow = head.narrowing(sign * 22)
        width, height = 7.4 * narrow, 6.2 if tinted else 6.6
        power = 1.0 if look.style else 0.62  # round or rounded square
        lens = [
            (x + width * np.sign(a) * abs(a) ** power, y + height * np.sign(b) * abs(b) ** power)
            for a, b in ellipse((0, 0), 1, 1, steps=64)
        ]
        if tinted:
            canvas.area(lens, (26, 28, 36))
            canvas.shade(
                [(x - width, y - height), (x + width, y - height), (x - width, y + height)],
                (120, 132, 156),
                1.6,
                0.45,
                canvas.mask(lens),
            )
        else:
            canvas.shade(
                [(x - width, y - height), (x + width * 0.4, y - height), (x - width, y + height * 0.4)],
                WHITE,
                1.2,
                0.22,
                canvas.mask(lens),
            )
        canvas.stroke([*lens, lens[1]], 1.4, frame)
        inner.append((x - sign * width, y - 1))
        if look.side != sign:
            canvas.stroke([(x + sign * width, y - 1.5), (head.at(sign * 84, -0.02)[0], y - 1)], 1.4, frame)
    canvas.stroke(curve(inner[0], ((inner[0][0] + inner[1][0]) / 2, inner[0][1] - 2), inner[1]), 1.4, frame)


def occlusion(canvas: Canvas, look: Look) -> None:
    """What covers a part of the head."""
    kind = look.labels["occlusion"]
    if kind == "cap":
        _cap(canvas, look)
    elif kind == "scarf":
        _scarf(canvas, look)
    elif kind == "headphones":
        _headphones(canvas, look)


def _cap(canvas: Canvas, look: Look) -> None:
    head, colour = look.head, look.accent
    edge = [head.at(angle - head.turn, -0.6 + 0.06 * (1 - (angle / 90) ** 2)) for angle in range(-90, 91, 6)]
    grown = [(head.x + (x - head.x) * 1.16, y) for x, y in edge]
    dome = [
        (x, y - 2.5)
        for x, y in ellipse((head.x, head.y - head.height * 0.6), head.width * 0.98, head.height * 0.56, 180, 360)
    ]
    area = [*dome, *grown[::-1]]
    canvas.area(area, colour)
    canvas.shade(
        ellipse((head.x - 6, head.y - head.height * 0.95), 9, 5), mix(colour, WHITE, 0.5), 4, 0.7, canvas.mask(area)
    )
    canvas.stroke(
        curve(
            (head.x + head.turn / 4, head.y - head.height * 1.2),
            (head.x + head.turn / 2.4, head.y - head.height),
            (head.x + head.turn / 2.6, head.y - head.height * 0.62),
        ),
        0.7,
        mix(colour, BLACK, 0.3),
    )
    x, y = head.x + head.turn / 2.1, head.y - head.height * 0.57
    brim = [*ellipse((x, y), head.width * 0.92, 4.6, 0, 180), *ellipse((x, y), head.width * 0.92, 2.6, 180, 360)]
    canvas.shade([(px, py + 2.5) for px, py in brim], BLACK, 1.5, 0.35, canvas.mask(head.outline()))
    canvas.area(brim, mix(colour, BLACK, 0.28))


def _scarf(canvas: Canvas, look: Look) -> None:
    head, colour = look.head, look.accent
    chin = head.y + head.height
    dark, light = mix(colour, BLACK, 0.25), mix(colour, WHITE, 0.28)
    tail_x = head.x + (6 if look.style else -12)
    canvas.area([(tail_x, chin + 8), (tail_x + 9, chin + 8), (tail_x + 10, 101), (tail_x - 2, 101)], dark)
    wrap = [
        *curve((head.x - 21, chin - 1), (head.x, chin + 4), (head.x + 21, chin - 1)),
        *curve((head.x + 25, chin + 10), (head.x, chin + 21), (head.x - 25, chin + 10)),
    ]
    canvas.area(wrap, colour)
    for lift in (3.4, 7.4):
        canvas.stroke(
            curve((head.x - 22, chin + lift), (head.x, chin + lift + 7), (head.x + 22, chin + lift)), 1.5, light
        )
    canvas.shade(ellipse((head.x, chin), head.width * 0.6, 3), BLACK, 1.5, 0.3, canvas.mask(wrap))


def _headphones(canvas: Canvas, look: Look) -> None:
    head, colour = look.head, look.accent
    steel = (58, 60, 70)
    top = 1.22 if look.labels["hair_style"] == "curly" else 1.14
    turn = np.radians(head.turn)
    near = -look.side or -1
    reach = 180 if look.side == 0 else 112
    band = [
        (
            head.x + near * head.width * 1.14 * np.cos(np.radians(angle)) * np.cos(turn),
            head.y + head.height * (0.05 - (top + 0.05) * np.sin(np.radians(angle))),
        )
        for angle in range(0, reach + 1, 6)
    ]
    canvas.stroke(band, 3.4, steel)
    for sign in (-1, 1):
        if look.side == sign:
            continue
        x, y = head.at(sign * 88, 0.06)
        width = 6.6 if look.side else 4.6
        x += sign * (2.4 if look.side == 0 else 0)
        canvas.disc((x, y), width + 0.8, 9, steel)
        canvas.disc((x, y), width, 8.2, colour)
        canvas.disc((x - 0.6, y - 1), width * 0.55, 5, mix(colour, WHITE, 0.3))
