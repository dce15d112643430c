"""Small plots as SVG: values in, a string out.

Plots carry class names and no colours, so that the page's style sheet sets both themes. They are drawn in pixels for
a column of about 340, on a telephone and in a page of two columns alike, so that their words stay readable.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from quickstudy.report.svg import WIDTH, number, path, px, segment, svg, text

__all__ = ["WIDTH", "Axis", "Bar", "Dot", "Point", "bars", "columns", "dots", "line", "ticks"]


@dataclass(frozen=True)
class Axis:
    """Maps values to pixels, linearly.

    Example:
        >>> from quickstudy.report.plots import Axis
        >>> Axis(0, 100, 10, 210)(25)
        60.0
    """

    low: float
    high: float
    start: float
    """The pixel of `low`."""
    stop: float
    """The pixel of `high`."""

    def __call__(self, value: float) -> float:
        span = self.high - self.low or 1.0
        return self.start + (value - self.low) / span * (self.stop - self.start)

    def clamp(self, value: float) -> float:
        """The same for a value that may lie outside: the nearest end."""
        return self(min(max(value, self.low), self.high))


@dataclass(frozen=True)
class Dot:
    """A row of a dot plot."""

    label: str
    mean: float
    ci95: float | None = None
    """Half the width of the interval, where it lies evenly about the mean."""
    strong: bool = False
    """Whether it is the row that the page is about."""
    ends: tuple[float, float] | None = None
    """Both ends of the interval, where it does not."""


@dataclass(frozen=True)
class Point:
    """A point of a line."""

    x: float
    mean: float
    ci95: float = 0.0
    """Half the width of the interval."""


@dataclass(frozen=True)
class Bar:
    """A row of a bar plot."""

    label: str
    value: float
    text: str = ""
    """Written beside it."""


def ticks(low: float, high: float, at_most: int = 6) -> list[float]:
    """Round numbers in an interval, both ends included where they are round.

    Example:
        >>> from quickstudy.report.plots import ticks
        >>> ticks(0, 100), ticks(0, 63, 4)
        ([0.0, 20.0, 40.0, 60.0, 80.0, 100.0], [0.0, 25.0, 50.0])
    """
    if not high > low:
        return [low]
    rough = (high - low) / max(at_most - 1, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


def dots(
    rows: Sequence[Dot],
    *,
    low: float = 0.0,
    high: float = 100.0,
    unit: str = "%",
    chance: float | None = None,
    title: str = "",
) -> str:
    """A dot plot with 95 % intervals, each label above its dot.

    Args:
        rows: From top to bottom.
        low: Left end of the axis.
        high: Right end of the axis.
        unit: Of the axis.
        chance: Where to draw a line for guessing.
        title: What the plot shows, for those who cannot see it.

    Example:
        >>> from quickstudy.report.plots import Dot, dots
        >>> dots([Dot("from scratch", 40.0, 1.0)], title="accuracy").startswith("<svg")
        True
    """
    top, step = (18.0 if chance is not None else 6.0), 42.0
    bottom = top + step * len(rows)
    x = Axis(low, high, 0.0, WIDTH)
    parts = []
    for tick in ticks(low, high):
        anchor = "start" if tick == low else "end" if tick == high else "middle"
        parts.append(segment(x(tick), top, x(tick), bottom, "grid"))
        parts.append(text(x(tick), bottom + 16, number(tick, unit), "tick", anchor))
    if chance is not None:
        parts += [segment(x(chance), top - 4, x(chance), bottom, "chance")]
        parts += [text(min(max(x(chance), 36.0), WIDTH - 36.0), top - 8, f"chance {number(chance, unit)}", "tick")]
    for i, row in enumerate(rows):
        y, strong = top + step * i + 28, " strong" if row.strong else ""
        parts.append(segment(x.start, y, x.clamp(row.mean), y, "stem" + strong))
        parts.append(text(x.start, y - 11, row.label, "label halo" + strong, anchor="start"))
        value = f"{row.mean:.1f}"
        ends = row.ends or (None if row.ci95 is None else (row.mean - row.ci95, row.mean + row.ci95))
        if ends is not None:
            parts.append(segment(x.clamp(ends[0]), y, x.clamp(ends[1]), y, "interval" + strong))
        parts.append(f'<circle cx="{px(x.clamp(row.mean))}" cy="{px(y)}" r="4" class="dot{strong}"/>')
        parts.append(text(WIDTH, y - 11, value, "value halo" + strong, anchor="end"))
    said = "; ".join(f"{row.label} {row.mean:.1f} {unit}" for row in rows)
    return svg(bottom + 24, parts, f"{title}: {said}" if title else said)


def line(
    points: Sequence[Point],
    *,
    x_label: str,
    low: float = 0.0,
    high: float = 100.0,
    unit: str = "%",
    chance: float | None = None,
    beneath: Callable[[float], str] | None = None,
    marked: int | None = None,
    title: str = "",
) -> str:
    """A line with its 95 % band.

    Args:
        points: In the order of x.
        x_label: What x is, with its unit.
        low: Lower end of the axis of means.
        high: Upper end of it.
        unit: Of the means.
        chance: Where to draw a line for guessing.
        beneath: For a value of x, what a second row of labels says of it.
        marked: Index of a point that is picked out.
        title: What the plot shows, for those who cannot see it.

    Example:
        >>> from quickstudy.report.plots import Point, line
        >>> line([Point(0, 20.0, 1.0), Point(60, 95.0, 0.5)], x_label="seconds").count("<path")
        2
    """
    height = 220.0
    floor = height - (50.0 if beneath else 38.0)
    last = max((point.x for point in points), default=1.0)
    first = min((point.x for point in points), default=0.0)
    first = 0.0 if first >= 0 else first
    x, y = Axis(first, last if last > first else first + 1, 40.0, WIDTH - 16.0), Axis(low, high, floor, 12.0)
    parts = []
    for tick in ticks(low, high):
        parts += [
            segment(x.start, y(tick), x.stop, y(tick), "grid"),
            text(34, y(tick) + 4, number(tick, unit), "tick", "end"),
        ]
    for tick in ticks(x.low, x.high):
        parts += [segment(x(tick), floor, x(tick), floor + 4, "axis"), text(x(tick), floor + 17, number(tick), "tick")]
        if beneath:
            parts.append(text(x(tick), floor + 30, beneath(tick), "tick faint"))
    parts += [segment(x.start, floor, x.stop, floor, "axis"), text((x.start + x.stop) / 2, height - 3, x_label, "tick")]
    if chance is not None and low <= chance <= high:
        parts += [segment(x.start, y(chance), x.stop, y(chance), "chance")]
        parts += [text(x.stop, y(chance) - 5, "chance", "tick halo", "end")]
    if points:
        upper = [(x(p.x), y.clamp(p.mean + p.ci95)) for p in points]
        lower = [(x(p.x), y.clamp(p.mean - p.ci95)) for p in reversed(points)]
        middle = [(x(p.x), y.clamp(p.mean)) for p in points]
        parts += [f'<path d="{path(upper + lower)}Z" class="band"/>', f'<path d="{path(middle)}" class="line"/>']
        parts += [
            f'<circle cx="{px(a)}" cy="{px(b)}" r="{4.5 if i == marked else 2}" class="dot strong"/>'
            for i, (a, b) in enumerate(middle)
        ]
    ends = f"{points[0].mean:.1f} to {points[-1].mean:.1f} {unit}" if points else "no points"
    return svg(height, parts, f"{title}: {ends}, against {x_label}" if title else f"{ends}, against {x_label}")


def bars(rows: Sequence[Bar], *, title: str = "", high: float | None = None) -> str:
    """Horizontal bars from zero, each label above its bar.

    Args:
        rows: From top to bottom; values are not negative.
        title: What the plot shows, for those who cannot see it.
        high: The value of a bar over the whole width; by default the largest.

    Example:
        >>> from quickstudy.report.plots import Bar, bars
        >>> bars([Bar("ant", 12), Bar("bee", 3)], title="answers").count("<rect")
        2
    """
    step = 32.0
    x = Axis(0.0, high or max((row.value for row in rows), default=0.0) or 1.0, 0.0, WIDTH)
    parts = []
    for i, row in enumerate(rows):
        top = step * i
        parts.append(text(0, top + 14, row.label, "label", "start"))
        parts.append(text(WIDTH, top + 14, row.text or f"{row.value:g}", "value", "end"))
        if high is not None:
            parts.append(segment(0, top + 21.5, WIDTH, top + 21.5, "grid"))
        parts.append(f'<rect x="0" y="{px(top + 19)}" width="{px(x.clamp(row.value))}" height="5" class="bar"/>')
    said = "; ".join(f"{row.label} {row.text or f'{row.value:g}'}" for row in rows)
    return svg(step * len(rows), parts, f"{title}: {said}" if title else said)


def columns(values: Sequence[float], *, chosen: int, truth: int | None = None, width: float = 64.0) -> str:
    """Probabilities of a few classes as a row of columns, for one small picture.

    Args:
        values: In [0, 1], one a class.
        chosen: The class that was answered, in the strong colour.
        truth: The right class, with a tick beneath it.
        width: In pixels.

    Example:
        >>> from quickstudy.report.plots import columns
        >>> columns([0.1, 0.9], chosen=1, truth=1).count('class="column chosen"')
        1
    """
    height, gap = 22.0, (2.0 if len(values) <= 10 else 1.0)
    each = (width - gap * (len(values) - 1)) / max(len(values), 1)
    y = Axis(0.0, 1.0, height, 0.0)
    parts = []
    for i, value in enumerate(values):
        left, top = i * (each + gap), min(y.clamp(value), height - 1)
        kind = "column chosen" if i == chosen else "column"
        parts.append(
            f'<rect x="{px(left)}" y="{px(top)}" width="{px(each)}" height="{px(height - top)}" class="{kind}"/>'
        )
        if i == truth:
            parts.append(f'<rect x="{px(left)}" y="{px(height + 2)}" width="{px(each)}" height="2" class="truth"/>')
    return svg(height + 4, parts, "", width)
