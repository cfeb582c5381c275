"""Charts as inline SVG: bars over time, a growing sum, an interval on a scale, a line of small bars.

    bars({"2026-11-25": 120, "2026-11-26": 90}, "accepted per day")

Colours come from team.css, so that they follow the theme. The one surprising fact: an SVG is stretched to the width it
has, so it holds shapes only; all words are HTML beside it and stay readable on a phone.
"""

import html
from collections.abc import Mapping, Sequence
from typing import Final

WIDTH: Final = 600
HEIGHT: Final = 100
FEWEST: Final = 12  # bars that there is room for: a single one is no wall


def bars(values: Mapping[str, int], title: str) -> str:
    """One bar for each, in their order; names are told by the pointer, and the first and last below."""
    top = max(values.values(), default=0) or 1
    step = WIDTH / max(len(values), FEWEST)
    width = max(1.0, 0.8 * step)
    shapes = "".join(
        f'<rect x="{place * step:.1f}" y="{HEIGHT - HEIGHT * value / top:.1f}" width="{width:.1f}" '
        f'height="{HEIGHT * value / top:.1f}"><title>{html.escape(name)}: {value:,}</title></rect>'
        for place, (name, value) in enumerate(values.items())
    )
    return _figure(title, shapes, "team-bars", top, list(values))


def growing(values: Mapping[str, int], title: str, *, start: int = 0) -> str:
    """The sum of all so far, as an area; `start` is what there was before the first."""
    total, sums = start, []
    for value in values.values():
        total += value
        sums.append(total)
    top = total or 1
    step = WIDTH / max(len(sums) - 1, 1)
    points = [(place * step, HEIGHT - HEIGHT * value / top) for place, value in enumerate(sums)]
    points += [(WIDTH, points[0][1])] if len(points) == 1 else []
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    shapes = f'<polygon points="0,{HEIGHT} {line} {WIDTH},{HEIGHT}"/><polyline points="{line}"/>' if points else ""
    return _figure(title, shapes, "team-area", top, list(values))


def _figure(title: str, shapes: str, kind: str, top: int, names: Sequence[str]) -> str:
    ends = dict.fromkeys((names[0], names[-1])) if names else {}
    axis = "".join(f"<span>{html.escape(name)}</span>" for name in ends)
    words = f"{title}, from {names[0]} to {names[-1]}; the highest is {top:,}" if names else title
    return (
        f'<figure class="team-chart {kind}"><figcaption>{html.escape(title)}<span>{top:,}</span></figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" aria-label="{html.escape(words)}">'
        f"{shapes}</svg><div>{axis}</div></figure>"
    )


def interval(value: float, low: float, high: float, *, begin: float, loud: bool = False) -> str:
    """A share with its interval on a scale from `begin` to 1; decoration of the numbers beside it."""
    ends = [100 * (each - begin) / (1 - begin or 1) for each in (low, value, high)]
    return (
        f'<svg class="team-interval{" team-loud" if loud else ""}" viewBox="0 0 100 10" preserveAspectRatio="none" '
        f'aria-hidden="true"><line x1="0" y1="5" x2="100" y2="5" class="team-scale"/>'
        f'<line x1="{ends[0]:.1f}" y1="5" x2="{max(ends[2], ends[0] + 0.5):.1f}" y2="5" class="team-range"/>'
        f'<line x1="{ends[1]:.1f}" y1="0" x2="{ends[1]:.1f}" y2="10" class="team-value"/></svg>'
    )


def sparkline(values: Sequence[int]) -> str:
    """A row of small bars without words."""
    top = max(values, default=0) or 1
    shapes = "".join(
        f'<rect x="{4 * place}" y="{20 - 20 * value / top:.1f}" width="3" height="{20 * value / top:.1f}"/>'
        for place, value in enumerate(values)
    )
    return f'<svg class="team-spark" viewBox="0 0 {4 * max(len(values), 1)} 20" aria-hidden="true">{shapes}</svg>'


def parts(values: Mapping[str, int]) -> str:
    """A bar of all, divided by name; the colours are those of the classes `team-NAME`."""
    total = sum(values.values()) or 1
    shapes, at = "", 0.0
    for name, value in values.items():
        width = 100 * value / total
        shapes += f'<rect class="team-{name}" x="{at:.3f}" y="0" width="{width:.3f}" height="10"/>'
        at += width
    return f'<svg class="team-parts" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">{shapes}</svg>'
