"""Local search."""

from collections.abc import Sequence

from torch import Generator

from quickstudy.experience.proposer import Proposer
from quickstudy.experience.trial import TaskDescription, Trial
from quickstudy.nas.architecture import Architecture
from quickstudy.nas.baselines.candidates import tried, unseen, worth
from quickstudy.nas.space import Space, draw


class LocalSearch(Proposer[Architecture, Space]):
    """Tries neighbours of where it stands, goes to one as soon as it is better, and begins anew where none is.

    Where it stands follows from the trials: it begins at the best of the first `initial`, and a trial that is no
    neighbour is where it began anew. Trials that are pending, or that the space no longer has, say nothing of that.

    Args:
        initial: Random members at the start.

    References:
        White et al., [Exploring the Loss Landscape in Neural Architecture Search](https://arxiv.org/abs/2005.02960),
        2021.
    """

    def __init__(self, *, initial: int = 5) -> None:
        self.initial = initial

    def propose(
        self,
        task: TaskDescription,
        trials: Sequence[Trial[Architecture]],
        space: Space,
        *,
        n: int = 1,
        generator: Generator,
    ) -> list[Architecture]:
        """`n` neighbours, or random members where there are not so many."""
        seen = tried(trials)
        if len(trials) < self.initial:
            return unseen(space, n, seen, generator=generator)
        near = [other for other in space.neighbours(self.standing(trials, space).choice) if other not in seen]
        found = [near.pop(draw(len(near), generator)) for _ in range(min(n, len(near)))]
        return found + unseen(space, n - len(found), seen.union(found), generator=generator)

    def standing(self, trials: Sequence[Trial[Architecture]], space: Space) -> Trial[Architecture]:
        """The trial whose neighbours are tried next."""
        at = max(trials[: self.initial], key=worth)
        near = set(space.neighbours(at.choice))
        for trial in trials[self.initial :]:
            if trial.pending or not space.has(trial.choice):
                continue
            if trial.choice not in near or worth(trial) > worth(at):
                at, near = trial, set(space.neighbours(trial.choice))
        return at
