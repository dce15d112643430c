"""Where the nodes of a graph lie when it is drawn in layers, from top to bottom."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations
from statistics import fmean

_PERMUTED = 6  # nodes of a layer of which every order is tried; more are ordered by their neighbours
_BEND = 12.0  # room of a line that passes a layer, in pixels


@dataclass(frozen=True)
class Layout:
    """Nodes in layers, and lines that pass between the nodes of layers."""

    x: tuple[float, ...]
    """The middle of each node; the leftmost edge of all is 0."""
    routes: tuple[tuple[float, ...], ...]
    """For each edge where it is in each layer from its start to its end."""
    width: float
    """Of all."""


def layered(
    widths: Sequence[float], layers: Sequence[int], edges: Sequence[tuple[int, int]], *, gap: float = 16.0
) -> Layout:
    """Places nodes so that few lines cross and most are short.

    Edges over several layers get a place in each. The order within layers is improved, one layer at a time, until
    nothing crosses less; then every node goes as near to the mean of its neighbours as its layer allows.

    Args:
        widths: Of the nodes, in pixels.
        layers: Of the nodes, counted from 0.
        edges: From, to; each goes to a higher layer.
        gap: Between neighbours, in pixels.

    Example:
        >>> from quickstudy.nas.layout import layered
        >>> layered([20, 20, 20, 20], [0, 1, 1, 2], [(0, 1), (0, 2), (1, 3), (2, 3)], gap=10).x
        (25.0, 10.0, 40.0, 25.0)

    References:
        Sugiyama et al., Methods for Visual Understanding of Hierarchical System Structures, 1981.
    """
    wide, level = list(widths), list(layers)
    chains: list[list[int]] = []
    for start, end in edges:
        chain = [start]
        for layer in range(layers[start] + 1, layers[end]):
            chain.append(len(wide))
            wide.append(_BEND)
            level.append(layer)
        chains.append([*chain, end])
    rows: list[list[int]] = [[] for _ in range(max(level, default=-1) + 1)]
    for node, layer in enumerate(level):
        rows[layer].append(node)
    near: list[list[int]] = [[] for _ in wide]
    for chain in chains:
        for a, b in pairwise(chain):
            near[a].append(b)
            near[b].append(a)
    order(rows, near, level)
    x = spread(rows, near, wide, gap)
    left = min((x[node] - wide[node] / 2 for node in range(len(wide))), default=0.0)
    right = max((x[node] + wide[node] / 2 for node in range(len(wide))), default=0.0)
    x = [round(value - left, 3) for value in x]
    return Layout(tuple(x[: len(widths)]), tuple(tuple(x[node] for node in chain) for chain in chains), right - left)


def order(rows: list[list[int]], near: Sequence[Sequence[int]], level: Sequence[int]) -> None:
    """Reorders each row in place."""
    place = [0.0] * len(level)

    def settle(row: Sequence[int]) -> None:
        for i, node in enumerate(row):
            place[node] = i - (len(row) - 1) / 2

    def badness(row: Iterable[int]) -> tuple[int, float]:
        row = tuple(row)
        settle(row)
        ends = [(place[node], place[other], level[other]) for node in row for other in near[node]]
        crossings = sum(
            (a - c) * (b - d) < 0 for i, (a, b, one) in enumerate(ends) for c, d, two in ends[:i] if one == two
        )
        return crossings, sum((a - b) ** 2 for a, b, _ in ends)

    for row in rows:
        settle(row)
    for _ in range(8):
        before = [list(row) for row in rows]
        for row in [*rows, *reversed(rows)]:
            if len(row) <= _PERMUTED:
                row[:] = min(permutations(row), key=badness)
            else:
                row.sort(key=lambda node: fmean(place[other] for other in near[node]) if near[node] else place[node])
            settle(row)
        if rows == before:
            break


def spread(
    rows: Sequence[Sequence[int]], near: Sequence[Sequence[int]], wide: Sequence[float], gap: float
) -> list[float]:
    """The middle of each node."""
    x = [0.0] * len(wide)
    for row in rows:
        for node, value in zip(row, apart([0.0] * len(row), [wide[node] for node in row], gap)):
            x[node] = value
    for _ in range(24):
        for row in [*rows, *reversed(rows)]:
            wanted = [fmean(x[other] for other in near[node]) if near[node] else x[node] for node in row]
            for node, value in zip(row, apart(wanted, [wide[node] for node in row], gap)):
                x[node] = value
    return x


def apart(wanted: Sequence[float], wide: Sequence[float], gap: float) -> list[float]:
    """The places nearest to those wanted, in squares, at which neighbours do not overlap: an isotonic regression.

    Example:
        >>> from quickstudy.nas.layout import apart
        >>> apart([0.0, 0.0], [20.0, 20.0], gap=10.0), apart([0.0, 90.0], [20.0, 20.0], gap=10.0)
        ([-15.0, 15.0], [0.0, 90.0])
    """
    shifts = [0.0]
    for a, b in pairwise(wide):
        shifts.append(shifts[-1] + (a + b) / 2 + gap)
    blocks: list[tuple[float, int]] = []  # mean, number
    for value, shift in zip(wanted, shifts):
        mean, n = value - shift, 1
        while blocks and blocks[-1][0] > mean:
            before, m = blocks.pop()
            mean, n = (before * m + mean * n) / (m + n), m + n
        blocks.append((mean, n))
    means = [mean for mean, n in blocks for _ in range(n)]
    return [mean + shift for mean, shift in zip(means, shifts)]
