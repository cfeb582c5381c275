"""The features of a rendered face: skin and ears, wrinkles, nose, beard, mouth, eyes and brows, a layer each.

Used by `facellm.face_drawing`. The one surprising fact: brows are drawn over glasses, as illustrators do, because an
expression must be seen behind sunglasses too.
"""

from facellm.face_canvas import BLACK, WHITE, Canvas, Point, curve, ellipse, mix
from facellm.face_look import Look


def skin(canvas: Canvas, look: Look) -> None:
    """The face with its light and shade, and the ears that can be seen."""
    head, skin = look.head, look.skin
    if look.side == 0:
        for sign in (-1, 1):
            _ear(canvas, look, sign)
    face = canvas.mask(head.outline())
    canvas.area(head.outline(), skin)
    brow = (head.x + head.turn / 6, head.y - head.height * 0.3)
    canvas.shade(ellipse(brow, head.width * 0.6, head.height * 0.4), mix(skin, (255, 226, 196), 0.4), 5, 0.55, face)
    rim = [*head.outline(1.2), *reversed(head.outline(0.94))]
    canvas.shade(rim, mix(skin, look.ink, 0.45), 2.6, 0.7, face)
    for sign in (-1, 1):
        cheek = ellipse(head.at(sign * 36, 0.3), 5 * head.narrowing(sign * 36), 3.8)
        canvas.shade(cheek, mix(skin, (226, 70, 60), 0.34), 2.2, 0.7, face)
    if look.side:
        _ear(canvas, look, -look.side)


def _ear(canvas: Canvas, look: Look, sign: int) -> None:
    x, y = look.head.at(sign * 86, 0.06)
    x += sign * (1.4 if look.side == 0 else 0)
    canvas.disc((x, y), 4.2, 6.6, mix(look.skin, look.ink, 0.22))
    canvas.disc((x, y), 3.6, 6, look.skin)
    canvas.disc((x + 0.5 * sign, y), 1.9, 3.6, mix(look.skin, look.ink, 0.3))


def wrinkles(canvas: Canvas, look: Look) -> None:
    """Lines on the forehead, by the eyes and by the mouth; deep ones are wider, darker and more."""
    if look.labels["wrinkles"] == "none":
        return
    head, deep = look.head, look.labels["wrinkles"] == "deep"
    width, ink = (1.7, look.ink) if deep else (1.2, mix(look.skin, look.ink, 0.9))
    for sign in (-1, 1):
        fold = [head.at(sign * 13, 0.28), head.at(sign * 30, 0.36), head.at(sign * 33, 0.62), head.at(sign * 24, 0.5)]
        canvas.shade(fold, look.ink, softness=1.2, strength=0.5 if deep else 0.15)
        if deep:
            canvas.shade(ellipse(head.at(sign * 24, 0.17), 4.6 * head.narrowing(sign * 22), 1.6), look.ink, 1.0, 0.5)
    for v in (-0.45, -0.37, -0.29) if deep else (-0.42, -0.33):
        canvas.stroke([head.at(angle, v - 0.02 * (angle / 26) ** 2) for angle in range(-26, 27, 4)], width, ink)
    for sign in (-1, 1):
        canvas.stroke(curve(head.at(sign * 15, 0.3), head.at(sign * 26, 0.4), head.at(sign * 29, 0.58)), width, ink)
        if head.narrowing(sign * 46) < 0.45:
            continue  # the far temple of a turned head
        for v in (-0.06, 0.04, 0.14) if deep else (-0.03, 0.1):
            canvas.stroke([head.at(sign * 47, 0.03 + v * 0.4), head.at(sign * 57, v)], width * 0.8, ink)
        if deep:
            bag = [head.at(sign * angle, 0.15 + 0.035 * (1 - ((angle - 24) / 12) ** 2)) for angle in range(12, 37, 4)]
            canvas.stroke(bag, width * 0.8, ink)


def nose(canvas: Canvas, look: Look) -> None:
    """The nose; of a turned head its profile."""
    head = look.head
    x, y = head.at(0, 0.25)
    ink = mix(look.skin, look.ink, 0.55)
    if look.side:
        tip = (x + 3.6 * look.side, y)
        bridge = (head.at(0, -0.08)[0] + 0.6 * look.side, head.at(0, -0.08)[1])
        canvas.area([bridge, tip, (x - 2.2 * look.side, y + 1.6)], mix(look.skin, WHITE, 0.1))
        canvas.stroke(
            [bridge, *curve(bridge, (x + 2.2 * look.side, y - 4), tip), (x - 0.6 * look.side, y + 1.8)], 1.0, ink
        )
    else:
        canvas.shade(ellipse((x, y - 1), 2.6, 4), mix(look.skin, look.ink, 0.4), 1.5, 0.5)
        canvas.disc((x, y - 0.6), 2.4, 2.1, mix(look.skin, WHITE, 0.14))
        canvas.stroke(curve((x - 2.8, y + 0.6), (x, y + 3.2), (x + 2.8, y + 0.6)), 1.0, ink)


def beard(canvas: Canvas, look: Look) -> None:
    """A moustache, or a full beard that leaves the mouth free."""
    if look.labels["beard"] == "none":
        return
    head = look.head
    colour = mix(look.hair, BLACK, 0.3 if look.labels["hair_colour"] == "blond" else 0.05)
    if look.labels["beard"] == "full":
        edge = [(angle, 0.06 + 0.4 * max(0.0, 1 - abs(angle / 84) ** 7)) for angle in range(-88, 89, 4)]
        points = [head.at(angle, v) for angle, v in edge if -90 <= angle + head.turn <= 90]
        area = [*points, *_jaw(look)]
        canvas.area(area, colour)
        canvas.shade(
            ellipse((head.x, head.y + head.height * 1.02), head.width * 0.8, 4),
            mix(colour, BLACK, 0.5),
            2,
            0.5,
            canvas.mask(area),
        )
    corners = head.at(-27, 0.5), head.at(27, 0.5)
    top, bottom = head.at(0, 0.3), head.at(0, 0.43)
    upper = [*curve(corners[0], head.at(-15, 0.31), top), *curve(top, head.at(15, 0.31), corners[1])]
    lower = [*curve(corners[1], head.at(13, 0.46), bottom), *curve(bottom, head.at(-13, 0.46), corners[0])]
    canvas.area([*upper, *lower], colour)


def _jaw(look: Look) -> list[Point]:
    """The contour of a beard from right to left; on a turned head it ends at the ear, not at the neck behind it."""
    head = look.head
    low = head.outline(1.07, top=0.06)
    if look.side == 0:
        return low
    ear = head.at(-look.side * 86, 0.06)[0]
    return [(max(x, ear), y) if look.side > 0 else (min(x, ear), y) for x, y in low]


def mouth(canvas: Canvas, look: Look) -> None:
    """The mouth, which says most about the expression."""
    head, expression = look.head, look.labels["expression"]
    lip = mix(mix(look.skin, (196, 62, 70), 0.62), BLACK, 0.12)
    inside, teeth = (92, 24, 32), (252, 250, 246)
    x, y = head.at(0, 0.56)
    left, right = head.at(-21, 0.56)[0], head.at(21, 0.56)[0]
    half = (right - left) / 2
    x = (left + right) / 2
    if look.labels["beard"] == "full":
        canvas.disc((x, y + 0.3), half + 2.2, 5.6, mix(look.skin, look.ink, 0.1))
    if expression == "happy":
        smile = [
            *curve((x - half - 0.8, y - 2), (x, y - 0.6), (x + half + 0.8, y - 2)),
            *curve((x + half + 0.8, y - 2), (x, y + 11.5), (x - half - 0.8, y - 2)),
        ]
        canvas.area(smile, inside)
        canvas.area(
            [
                *curve((x - half, y - 1.7), (x, y - 0.4), (x + half, y - 1.7)),
                *curve((x + half * 0.86, y + 0.3), (x, y + 2.8), (x - half * 0.86, y + 0.3)),
            ],
            teeth,
        )
        canvas.stroke([*smile, smile[0]], 0.9, lip)
    elif expression == "surprised":
        canvas.disc((x, y + 1.4), half * 0.62 + 0.9, 6.1, lip)
        canvas.disc((x, y + 1.4), half * 0.62, 5.2, inside)
        canvas.disc((x, y + 4.2), half * 0.4, 2, (198, 84, 88))
    elif expression == "angry":
        box = [(x - half, y - 1), (x + half, y - 1), (x + half + 0.8, y + 3.6), (x - half - 0.8, y + 3.6)]
        canvas.area(box, teeth)
        canvas.stroke([(x - half, y + 1.4), (x + half, y + 1.4)], 0.7, (150, 140, 140))
        for share in (-0.5, 0, 0.5):
            canvas.stroke([(x + share * half, y - 1), (x + share * half, y + 3.6)], 0.6, (150, 140, 140))
        canvas.stroke([*box, box[0]], 1.4, mix(lip, BLACK, 0.3))
    elif expression == "sad":
        canvas.stroke(
            curve((x - half * 0.95, y + 4), (x, y - 4.6), (x + half * 0.95, y + 4)), 2.0, mix(lip, BLACK, 0.2)
        )
    else:
        canvas.area(
            [
                *curve((x - half * 0.8, y), (x, y - 2.6), (x + half * 0.8, y)),
                *curve((x + half * 0.8, y), (x, y + 3.6), (x - half * 0.8, y)),
            ],
            lip,
        )
        canvas.stroke([(x - half * 0.9, y), (x + half * 0.9, y)], 0.9, mix(lip, BLACK, 0.45))


def eyes(canvas: Canvas, look: Look) -> None:
    """The eyes, and the tears of a sad face."""
    head, expression = look.head, look.labels["expression"]
    height = {"surprised": 4.8, "happy": 3.3, "sad": 3.0, "angry": 2.7}.get(expression, 3.5)
    lash = mix(BLACK, look.hair, 0.2)
    for sign in (-1, 1):
        x, y = head.at(sign * 24, 0.02)
        width = 5.0 * head.narrowing(sign * 22)
        canvas.disc((x, y), width + 0.5, height + 0.5, mix(look.skin, look.ink, 0.5))
        canvas.disc((x, y), width, height, (250, 250, 248))
        white = canvas.mask(ellipse((x, y), width, height))
        gaze = x + head.turn / 36 * width * 0.3
        iris = min(3.0, height * 0.92)
        round_seen = min(1.0, width / 4)
        canvas.area(ellipse((gaze, y), iris * round_seen, iris), look.iris, white)
        canvas.area(ellipse((gaze, y), 1.6 * round_seen, 1.6), (18, 16, 20), white)
        canvas.disc((gaze - 0.9, y - 1.0), 0.75, 0.75, WHITE)
        lid = ellipse((x, y + 0.2), width + 0.4, height + 0.5, 190, 350)
        canvas.stroke(lid, 1.3, lash)
        if expression == "sad":
            tear = (x + sign * width * 0.3, y + height + 4.4)
            canvas.area([(tear[0], tear[1] - 3.6), *ellipse(tear, 1.5, 1.8, -20, 200, 12)], (120, 186, 232))
            canvas.disc((tear[0] - 0.4, tear[1]), 0.5, 0.7, WHITE)


def brows(canvas: Canvas, look: Look) -> None:
    """The brows, in the colour of the hair."""
    head, expression = look.head, look.labels["expression"]
    inner, outer, lift = {
        "surprised": (-0.285, -0.27, -0.06),
        "happy": (-0.19, -0.17, -0.05),
        "sad": (-0.28, -0.13, 0.0),
        "angry": (-0.09, -0.26, 0.01),
    }.get(expression, (-0.18, -0.17, -0.03))
    colour = mix(look.hair, BLACK, 0.3)
    for sign in (-1, 1):
        line = curve(
            head.at(sign * 11, inner), head.at(sign * 24, (inner + outer) / 2 + lift), head.at(sign * 38, outer)
        )
        canvas.stroke(line, 2.2 if expression == "angry" else 1.8, colour)
