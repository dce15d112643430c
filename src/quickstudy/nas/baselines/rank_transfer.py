"""What was best elsewhere is tried first."""

from collections import defaultdict
from statistics import fmean

from quickstudy.errors import TaskError
from quickstudy.nas.architecture import Architecture
from quickstudy.nas.baselines.in_order import InOrder
from quickstudy.nas.source import Source


class RankTransfer(InOrder):
    """Proposes what was tried on other tasks, by its mean rank there, and random members when that is used up.

    With a source of the whole table it is nearly perfect where tasks are alike, and no method that has to generalise
    can be held against it.

    Args:
        source: Other tasks.

    Raises:
        TaskError: Where the source has no rows.
    """

    def __init__(self, source: Source) -> None:
        if not source.rows:
            raise TaskError("There is no rank to transfer without other tasks. Give it a source.")
        ranks = defaultdict[Architecture, list[float]](list)
        for rows in source.rows.values():
            for architecture, rank in zip(rows.architectures, rows.ranks.tolist()):
                ranks[architecture].append(rank)
        super().__init__(sorted(ranks, key=lambda architecture: -fmean(ranks[architecture])))
