"""An order that was known before."""

from collections.abc import Sequence
from itertools import islice

from torch import Generator

from quickstudy.experience.proposer import Proposer
from quickstudy.experience.trial import TaskDescription, Trial
from quickstudy.nas.architecture import Architecture
from quickstudy.nas.baselines.candidates import tried, unseen
from quickstudy.nas.space import Space


class InOrder(Proposer[Architecture, Space]):
    """Proposes members in an order that does not depend on trials, and random ones when it is used up.

    Args:
        best_first: Members.
    """

    def __init__(self, best_first: Sequence[Architecture]) -> None:
        self.best_first = best_first

    def propose(
        self,
        task: TaskDescription,
        trials: Sequence[Trial[Architecture]],
        space: Space,
        *,
        n: int = 1,
        generator: Generator,
    ) -> list[Architecture]:
        """The next `n`."""
        seen = tried(trials)
        left = (one for one in self.best_first if one not in seen and space.has(one))
        found = list(islice(left, n))
        return found + unseen(space, n - len(found), seen.union(found), generator=generator)
