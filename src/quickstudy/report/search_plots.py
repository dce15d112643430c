"""The plots of a search."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor

from quickstudy.experience.front import front
from quickstudy.report.plots import Axis, ticks
from quickstudy.report.search_summary import Attempt, best_so_far
from quickstudy.report.svg import WIDTH, number, path, px, segment, svg, text

_LEFT, _RIGHT, _TOP, _FLOOR, _HEIGHT = 40.0, WIDTH - 16.0, 14.0, 186.0, 224.0  # pixels
_FAR = 100.0  # a limit that many times beyond all that was tried is not drawn


def history(attempts: Sequence[Attempt], *, chosen: int | None = None) -> str:
    """Accuracy of every attempt against the seconds of the search, and the best so far as a line.

    Attempts with a share of the training are hollow, failed ones are crosses at the bottom.

    Args:
        attempts: What was tried.
        chosen: The number of the one that is picked out.

    Example:
        >>> from quickstudy.report.search_plots import history
        >>> from quickstudy.report.search_summary import Attempt
        >>> history([Attempt(0, 1.0, 70.0, 9), Attempt(1, 2.0, None, 9)]).count('class="failed"')
        1
    """
    low, high = accuracies(attempts)
    last = max([attempt.seconds for attempt in attempts], default=1.0)
    x, y = Axis(0.0, max(last, 0.001), _LEFT, _RIGHT), Axis(low, high, _FLOOR, _TOP)
    parts = vertical_axis(y, x.stop)
    for tick in ticks(0.0, x.high):
        done = sum(attempt.seconds <= tick for attempt in attempts)
        parts += [
            segment(x(tick), _FLOOR, x(tick), _FLOOR + 4, "axis"),
            text(x(tick), _FLOOR + 17, number(tick), "tick"),
        ]
        parts.append(text(x(tick), _FLOOR + 30, number(done), "tick faint"))
    parts.append(text((x.start + x.stop) / 2, _HEIGHT + 5, "seconds, and networks tried", "tick"))
    best = best_so_far(attempts)
    if best:
        steps = [(x(best[0][0]), y(best[0][1]))]
        for (_, before), (seconds, accuracy) in pairwise(best):
            steps += [(x(seconds), y(before)), (x(seconds), y(accuracy))]
        steps.append((x.stop, steps[-1][1]))
        parts.append(f'<path d="{path(steps)}" class="line"/>')
    for attempt in attempts:
        if attempt.accuracy is None:
            a, b = x(attempt.seconds), _FLOOR - 7
            cross = f"M{px(a - 3)},{px(b - 3)}L{px(a + 3)},{px(b + 3)}M{px(a - 3)},{px(b + 3)}L{px(a + 3)},{px(b - 3)}"
            parts.append(f'<path d="{cross}" class="failed"/>')
    parts += dots_of(attempts, chosen, lambda attempt: x(attempt.seconds), y)
    said = f"best {best[-1][1]:.1f} % after {best[-1][0]:.0f} seconds" if best else "none succeeded"
    return svg(_HEIGHT + 10, parts, f"Validation accuracy in the search: {len(attempts)} networks, {said}")


def pareto(
    attempts: Sequence[Attempt],
    cost: Callable[[Attempt], float | None],
    *,
    x_label: str,
    limit: float | None = None,
    chosen: int | None = None,
) -> str:
    """Accuracy against a cost, in logarithms, with the Pareto front as a line and the limit as another.

    Args:
        attempts: What was tried.
        cost: What is on the horizontal axis; None where it is not known of an attempt.
        x_label: What that is, with its unit.
        limit: At most this much was asked for.
        chosen: The number of the attempt that is picked out.

    Example:
        >>> from quickstudy.report.search_plots import pareto
        >>> from quickstudy.report.search_summary import Attempt
        >>> tried = [Attempt(0, 1.0, 70.0, 100), Attempt(1, 2.0, 80.0, 900)]
        >>> "limit 1,000" in pareto(tried, lambda attempt: attempt.parameters, x_label="parameters", limit=1000)
        True
    """
    known = [a for a in attempts if a.accuracy is not None and (cost(a) or 0) > 0]
    values = [float(cost(a) or 0) for a in known] or [1.0, 10.0]
    shown = limit is not None and 0 < limit <= _FAR * max(values)
    ends = [*values, limit] if shown and limit is not None else values
    low, high = math.log10(min(ends) / 1.25), math.log10(max(ends) * 1.25)
    x, y = Axis(low, high, _LEFT, _RIGHT), Axis(*accuracies(known), _FLOOR, _TOP)

    def along(value: float) -> float:
        return x.clamp(math.log10(value))

    parts = []
    if shown and limit is not None:
        parts.append(
            f'<rect x="{px(along(limit))}" y="{px(_TOP)}" width="{px(x.stop - along(limit))}" '
            f'height="{px(_FLOOR - _TOP)}" class="beyond"/>'
        )
    parts += vertical_axis(y, x.stop)
    for value in decades(10**low, 10**high):
        parts += [segment(along(value), _FLOOR, along(value), _FLOOR + 4, "axis")]
        parts += [text(along(value), _FLOOR + 17, short(value), "tick")]
    parts.append(text((x.start + x.stop) / 2, _HEIGHT - 4, x_label, "tick"))
    best = front(known, cost=lambda a: float(cost(a) or 0), value=lambda a: a.accuracy or 0.0)
    if best:
        places = [(along(float(cost(a) or 1)), y(a.accuracy or 0.0)) for a in best]
        steps = places[:1]
        for before, after in pairwise(places):
            steps += [(after[0], before[1]), after]
        steps.append((along(limit) if shown and limit else x.stop, places[-1][1]))
        parts.append(f'<path d="{path(steps)}" class="line"/>')
    if shown and limit is not None:
        parts.append(segment(along(limit), _TOP - 4, along(limit), _FLOOR, "chance"))
        parts.append(text(along(limit) - 5, _FLOOR - 7, f"limit {number(limit)}", "tick halo", "end"))
    parts += dots_of(known, chosen, lambda attempt: along(float(cost(attempt) or 1)), y, {a.number for a in best})
    said = "; ".join(f"{a.accuracy:.1f} % at {number(float(cost(a) or 0))}" for a in best)
    return svg(_HEIGHT, parts, f"Pareto front of accuracy against {x_label}: {said}")


def curve(series: Tensor, *, width: float = 76.0, height: float = 48.0) -> str:
    """A series `(channels, length)` as small lines, at most three channels, all on one scale."""
    few = series[:3].float()
    low, high = float(few.min()), float(few.max())
    y = Axis(low, high, height - 3, 3.0)
    x = Axis(0, max(few.shape[1] - 1, 1), 2.0, width - 2)
    every = max(1, few.shape[1] // 150)
    lines = [[(x(i), y(float(channel[i]))) for i in range(0, len(channel), every)] for channel in few]
    parts = [f'<path d="{path(points)}" class="{"line" if i == 0 else "thin"}"/>' for i, points in enumerate(lines)]
    return svg(height, parts, "", width)


def dots_of(
    attempts: Sequence[Attempt],
    chosen: int | None,
    x: Callable[[Attempt], float],
    y: Axis,
    strong: set[int] | None = None,
) -> list[str]:
    """A dot an attempt, the chosen one last and largest."""
    parts = []
    for attempt in sorted(attempts, key=lambda attempt: (attempt.number == chosen, attempt.number in (strong or ()))):
        if attempt.accuracy is not None:
            picked = attempt.number == chosen
            kind = "dot" + (" strong" if picked or attempt.number in (strong or ()) else "")
            kind += " partly" if attempt.share < 1 and not picked else ""
            at = f'cx="{px(x(attempt))}" cy="{px(y(attempt.accuracy))}"'
            parts += [f'<circle {at} r="8.5" class="ring"/>'] if picked else []
            parts.append(f'<circle {at} r="{5 if picked else 3}" class="{kind}"/>')
    return parts


def vertical_axis(y: Axis, right: float) -> list[str]:
    """Lines and numbers of accuracies."""
    parts = []
    for tick in ticks(y.low, y.high):
        parts += [
            segment(_LEFT, y(tick), right, y(tick), "grid"),
            text(34, y(tick) + 4, number(tick, "%"), "tick", "end"),
        ]
    return [*parts, segment(_LEFT, _FLOOR, right, _FLOOR, "axis")]


def accuracies(attempts: Sequence[Attempt]) -> tuple[float, float]:
    """The ends of an axis that holds all of them: multiples of 5 or 10."""
    found = [attempt.accuracy for attempt in attempts if attempt.accuracy is not None] or [0.0, 100.0]
    step = 10.0 if max(found) - min(found) > 20 else 5.0
    low, high = step * math.floor(min(found) / step), step * math.ceil(max(found) / step)
    return max(0.0, low - (step if low == min(found) else 0)), min(100.0, max(high, low + step))


def decades(low: float, high: float) -> list[float]:
    """A few round numbers in an interval, evenly apart in logarithms where it is long enough.

    Example:
        >>> from quickstudy.report.search_plots import decades
        >>> decades(90, 2500), decades(1, 1e6)
        ([100.0, 200.0, 500.0, 1000.0, 2000.0], [1.0, 10.0, 100.0, 1000.0, 10000.0, 100000.0, 1000000.0])
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        found = [factor * 10.0**power for power in powers for factor in factors]
        found = [value for value in found if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
        if len(found) <= 6:
            break
    return found if len(found) > 1 else [value for value in ticks(low, high, 4) if value > 0]


def short(value: float) -> str:
    """A round number in few letters.

    Example:
        >>> from quickstudy.report.search_plots import short
        >>> short(20000), short(1e6), short(0.05), short(500)
        ('20k', '1M', '0.05', '500')
    """
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
