"""Random search."""

from collections.abc import Sequence

from torch import Generator

from quickstudy.experience.proposer import Proposer
from quickstudy.experience.trial import TaskDescription, Trial
from quickstudy.nas.architecture import Architecture
from quickstudy.nas.baselines.candidates import tried, unseen
from quickstudy.nas.space import Space


class RandomSearch(Proposer[Architecture, Space]):
    """Draws uniformly what was not tried yet."""

    def propose(
        self,
        task: TaskDescription,
        trials: Sequence[Trial[Architecture]],
        space: Space,
        *,
        n: int = 1,
        generator: Generator,
    ) -> list[Architecture]:
        """`n` members."""
        return unseen(space, n, tried(trials), generator=generator)
