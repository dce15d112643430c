"""What was best on earlier tasks, to begin with on the next."""

from collections.abc import Mapping

from torch import Tensor

from quickstudy.nas.aen import Facts
from quickstudy.nas.architecture import Architecture
from quickstudy.nas.source import Rows
from quickstudy.nas.space import Space


def portfolio(experience: Mapping[str, Rows], costs: Facts, space: Space) -> tuple[Architecture, ...]:
    """Of each task the architectures that no cheaper one was as good as: the best under any limit.

    A search begins with members that were drawn at random; what is good and rare in the space is hardly among them.

    Args:
        experience: By task.
        costs: What is weighed against the outcome; an architecture is cheaper where it is in all of them, or equal.
        space: Of tasks that do not say theirs.

    Returns:
        Each once, in the order of the tasks.

    Example:
        >>> import torch
        >>> from quickstudy.nas.facts import log_costs
        >>> from quickstudy.nas.portfolio import portfolio
        >>> from quickstudy.nas.source import Rows
        >>> from quickstudy.nas.tiny import Tiny
        >>> space = Tiny(shape=(1, 8, 8), n_classes=2)
        >>> cell = ("conv1", "none", "none", "skip_connect", "conv1", "none")
        >>> small, large = (space.architecture((*cell, w, 1, 1, "stride2", "avg", "mean")) for w in (4, 8))
        >>> rows = Rows((small, large), torch.tensor([0.9, 0.8]), space=space)
        >>> portfolio({"one": rows}, log_costs, space) == (small,)
        True

    References:
        Feurer et al., [Auto-sklearn 2.0](https://arxiv.org/abs/2007.04074), 2020, for portfolios of what was good on
        earlier tasks; theirs is built greedily for all tasks together.
    """
    found: dict[Architecture, None] = {}
    for rows in experience.values():
        kept = best(rows.values, costs(rows.space or space, rows.architectures))
        found |= dict.fromkeys(rows.architectures[i] for i in kept.tolist())
    return tuple(found)


def best(values: Tensor, costs: Tensor) -> Tensor:
    """The places of those that none beats: no other has at least the value at no cost above, and differs in one.

    Args:
        values: `(n,)`.
        costs: `(n, c)`.
    """
    no_worse = (values[:, None] >= values) & (costs[:, None] <= costs).all(-1)
    better = (values[:, None] > values) | (costs[:, None] < costs).any(-1)
    return (~(no_worse & better).any(0)).nonzero()[:, 0]
