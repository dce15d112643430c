"""What was best elsewhere is tried first."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

from torch import Generator

from quickstudy.errors import TaskError
from quickstudy.experience.proposer import Proposer
from quickstudy.experience.trial import TaskDescription, Trial
from quickstudy.nas.architecture import Architecture
from quickstudy.nas.baselines.candidates import tried, unseen
from quickstudy.nas.source import Source
from quickstudy.nas.space import Space


class RankTransfer(Proposer[Architecture, Space]):
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
        self.best_first = sorted(ranks, key=lambda architecture: -fmean(ranks[architecture]))

    def propose(
        self,
        task: TaskDescription,
        trials: Sequence[Trial[Architecture]],
        space: Space,
        *,
        n: int = 1,
        generator: Generator,
    ) -> list[Architecture]:
        """The `n` best elsewhere."""
        seen, found = tried(trials), list[Architecture]()
        for architecture in self.best_first:
            if len(found) == n:
                return found
            if architecture not in seen:
                found.append(architecture)
        return found + unseen(space, n - len(found), seen.union(found), generator=generator)
