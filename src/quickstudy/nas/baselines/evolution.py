"""Regularised evolution."""

from collections.abc import Sequence

import torch
from torch import Generator

from quickstudy.experience.proposer import Proposer
from quickstudy.experience.trial import TaskDescription, Trial
from quickstudy.nas.architecture import Architecture
from quickstudy.nas.baselines.candidates import tried, unseen, worth
from quickstudy.nas.space import Space


class Evolution(Proposer[Architecture, Space]):
    """Mutates the best of a few that are drawn from the population, which is the latest trials: the oldest dies.

    Args:
        population: Its size, and the number of random members at the start.
        tournament: Members that are drawn, of which the best is the parent.
        attempts: Mutations that are tried before a random member takes the place of one that is new.

    References:
        Real et al., [Regularized Evolution for Image Classifier Architecture Search](https://arxiv.org/abs/1802.01548),
        2019.
    """

    def __init__(self, *, population: int = 5, tournament: int = 5, attempts: int = 20) -> None:
        self.population, self.tournament, self.attempts = population, tournament, attempts

    def propose(
        self,
        task: TaskDescription,
        trials: Sequence[Trial[Architecture]],
        space: Space,
        *,
        n: int = 1,
        generator: Generator,
    ) -> list[Architecture]:
        """`n` children, each of a parent of its own."""
        seen = tried(trials)
        if len(trials) < self.population:
            return unseen(space, n, seen, generator=generator)
        alive, found = trials[-self.population :], list[Architecture]()
        for _ in range(n * self.attempts):
            if len(found) == n:
                return found
            drawn = torch.randperm(len(alive), generator=generator)[: self.tournament].tolist()
            parent = max((alive[i] for i in drawn), key=worth)
            child = space.mutate(parent.choice, generator=generator)
            if child not in seen:
                seen.add(child)
                found.append(child)
        return found + unseen(space, n - len(found), seen, generator=generator)
