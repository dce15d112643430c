"""Classes to train on, to validate on and to test on."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from quickstudy.errors import TaskError, TooFewExamplesError
from quickstudy.tasks.episodes import LabelledSet


class Splits(NamedTuple):
    """Three labelled sets that have no class in common."""

    train: LabelledSet
    validation: LabelledSet
    test: LabelledSet


def split_classes(
    data: LabelledSet,
    *,
    n_way: int = 2,
    seed: int = 0,
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15),
    by_group: bool = True,
) -> Splits:
    """Splits a labelled set by its classes, at random.

    Every part has at least `n_way` classes, and beyond that its fraction of them, to the nearest class. Where
    the classes have groups, whole groups go to a part, the largest first and each to the part that lacks most,
    so that the fractions are met only roughly. Split first and rotate afterwards: a turned picture of a training
    class is no unseen class.

    Args:
        data: The labelled set.
        n_way: Classes that the tasks of each part will have.
        seed: Decides which class goes where.
        fractions: Of the classes, for training, validation and test. A part of fraction 0 stays empty.
        by_group: Whether to keep groups whole.

    Raises:
        TooFewExamplesError: Where there are not `n_way` classes for each part.
        TaskError: Where a fraction is negative, or they do not sum to 1.

    Example:
        >>> import torch
        >>> from quickstudy import LabelledSet
        >>> from quickstudy.tasks.split import split_classes
        >>> data = LabelledSet(torch.rand(20, 8), torch.arange(20), tuple("abcdefghijklmnopqrst"))
        >>> [part.n_classes for part in split_classes(data)]
        [14, 3, 3]
    """
    if min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6 or fractions[0] == 0:
        raise TaskError(
            f"fractions {fractions} are no split: none may be negative, the first is above 0, the sum is 1."
        )
    least = [n_way if fraction > 0 else 0 for fraction in fractions]
    if data.n_classes < sum(least):
        raise TooFewExamplesError(
            f"{n_way}-way tasks need {n_way} classes to train on and as many other ones for each further part, "
            f"{sum(least)} in all; the data has {data.n_classes}. "
            f"Add {sum(least) - data.n_classes} classes or lower n_way."
        )
    generator = torch.Generator().manual_seed(seed)
    shuffled: list[int] = torch.randperm(data.n_classes, generator=generator).tolist()
    sizes = _sizes(data.n_classes, fractions, least)
    if by_group and data.groups is not None:
        parts = _whole_groups(shuffled, data.groups, sizes)
        for part, needed in zip(parts, least):
            if len(part) < needed:
                raise TooFewExamplesError(
                    f"{len(set(data.groups))} group(s) of classes cannot be split so that each part has {needed} "
                    f"classes for {n_way}-way tasks: one has {len(part)}. Lower n_way, or pass by_group=False."
                )
    else:
        ends = (sizes[0], sizes[0] + sizes[1])
        parts = [shuffled[: ends[0]], shuffled[ends[0] : ends[1]], shuffled[ends[1] :]]
    return Splits(*(data.select(sorted(part)) for part in parts))


def _sizes(n: int, fractions: Sequence[float], least: Sequence[int]) -> list[int]:
    """How many of `n` classes each part gets: one by one, to the part that is furthest below its fraction."""
    sizes = list(least)
    for _ in range(n - sum(sizes)):
        lack = [fraction * n - size if fraction > 0 else -n - 1 for fraction, size in zip(fractions, sizes)]
        sizes[lack.index(max(lack))] += 1
    return sizes


def _whole_groups(shuffled: list[int], groups: Sequence[str], sizes: Sequence[int]) -> list[list[int]]:
    members: dict[str, list[int]] = {}
    for i in shuffled:
        members.setdefault(groups[i], []).append(i)
    parts: list[list[int]] = [[] for _ in sizes]
    for group in sorted(members.values(), key=len, reverse=True):
        lack = [size - len(part) if size else -len(shuffled) - 1 for size, part in zip(sizes, parts)]
        parts[lack.index(max(lack))] += group
    return parts
