"""What became of architectures on earlier tasks."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from quickstudy.nas.architecture import Architecture
from quickstudy.nas.space import Space


@dataclass(frozen=True)
class Rows:
    """Members that were trained on one task, and what came of it."""

    architectures: tuple[Architecture, ...]
    values: Tensor  # (n,) float64
    """What is to be as large as possible, in any unit: tasks are compared by rank."""
    task: Tensor | None = None  # (e,)
    """The task's embedding."""
    proxies: Tensor | None = None  # (n, p)
    """Zero-cost proxies of each on that task, costs among them, each in its unit, the same for all tasks."""
    space: Space | None = None
    """Whose graphs these are, where those depend on the task's inputs; None: the prior's own space."""
    encoder: str | None = None
    """The digest of the encoder that the embedding is by, where it is known."""
    data: str | None = None
    """The data set that the task is made from: what is left out to judge a prior is left out with all tasks of its data
    set. None: no other task is of the same."""

    def __len__(self) -> int:
        return len(self.architectures)

    @property
    def ranks(self) -> Tensor:
        """`(n,)`: 0 for the worst and 1 for the best of these rows; what is equal shares its mean rank."""
        return scaled_ranks(self.values)


@dataclass(frozen=True)
class Source:
    """What is known of earlier tasks when a search on another one begins."""

    space: Space
    rows: Mapping[str, Rows]
    """By the name of the task; empty where nothing is known."""


def parted(data: Mapping[str, str], n: int) -> tuple[tuple[str, ...], ...]:
    """Tasks in at most `n` parts of about the same size, all tasks of a data set in one.

    Args:
        data: The data set of each task. That with the most tasks comes first, each goes to the smallest part so far.
        n: Parts.

    Example:
        >>> from quickstudy.nas.source import parted
        >>> parted({"mnist": "mnist", "fashion": "fashion", "fashion-tops": "fashion"}, 2)
        (('fashion', 'fashion-tops'), ('mnist',))
    """
    together: dict[str, list[str]] = {}
    for name, of in data.items():
        together.setdefault(of, []).append(name)
    parts: list[list[str]] = [[] for _ in range(n)]
    for group in sorted(together.values(), key=len, reverse=True):
        min(parts, key=len).extend(group)
    return tuple(tuple(part) for part in parts if part)


def scaled_ranks(values: Tensor) -> Tensor:
    """`(n,)` float64: 0 for the smallest and 1 for the largest; what is equal shares its mean rank."""
    return (places(values) - 0.5) / max(1, len(values) - 1)


def normal_scores(values: Tensor) -> Tensor:
    r"""The quantile of a standard normal with each value's rank, $\Phi^{-1}((r - \tfrac12) / n)$; ties share theirs.

    Outcomes of different tasks, in different units and with tails of failures, become comparable. Each row of `(*b, n)`
    is ranked by itself.

    Example:
        >>> import torch
        >>> from quickstudy.nas.source import normal_scores
        >>> normal_scores(torch.tensor([10.0, 91.5, 90.0]))
        tensor([-0.9674,  0.9674,  0.0000])
    """
    found: Tensor = torch.special.ndtri(places(values) / max(1, values.shape[-1]))
    return found.float()


def places(values: Tensor) -> Tensor:
    """`(*b, n)` float64: how many of a row are smaller, and half of those that are equal, itself among them."""
    ordered = values.sort().values
    below, upto = (torch.searchsorted(ordered, values.contiguous(), right=right) for right in (False, True))
    return (below + upto).double() / 2
