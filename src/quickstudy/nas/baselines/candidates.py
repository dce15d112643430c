"""What a baseline chooses among."""

import math
from collections.abc import Collection, Sequence
from functools import lru_cache
from itertools import product

from torch import Generator, Tensor

from quickstudy.experience.trial import Trial
from quickstudy.nas.architecture import Architecture
from quickstudy.nas.space import ATTEMPTS, Space

LISTED = 100_000
"""Combinations of choices up to which a space is listed; of a larger one, members are drawn."""


def candidates(space: Space, *, n: int, generator: Generator) -> tuple[tuple[Architecture, ...], Tensor]:
    """All members of a small space, or `n` of a large one, and their codes `(members, values)`."""
    if math.prod(map(len, space.choices.values())) <= LISTED:
        return members(space)
    drawn = tuple({space.sample(generator=generator): None for _ in range(n)})
    return drawn, space.one_hot(drawn)


@lru_cache(maxsize=4)
def members(space: Space) -> tuple[tuple[Architecture, ...], Tensor]:
    """All members of a space and their codes `(members, values)`, in the order of its choices."""
    pairs = [[(name, value) for value in options] for name, options in space.choices.items()]
    found = tuple(filter(space.has, (Architecture(space.id, choices) for choices in product(*pairs))))
    return found, space.one_hot(found)


def unseen(space: Space, n: int, seen: Collection[Architecture], *, generator: Generator) -> list[Architecture]:
    """`n` members, uniformly, that are not among `seen`; fewer where the space has no more of them."""
    found: dict[Architecture, None] = {}
    for _ in range(ATTEMPTS):
        if len(found) == n:
            return list(found)
        drawn = space.sample(generator=generator)
        if drawn not in seen:
            found[drawn] = None
    everything, _ = candidates(space, n=ATTEMPTS, generator=generator)  # nearly all of it is seen: look at the rest
    return [*found, *(a for a in everything if a not in seen and a not in found)][:n]


def around_the_best(
    space: Space,
    trials: Sequence[Trial[Architecture]],
    *,
    parents: int,
    children: int,
    drawn: int,
    generator: Generator,
) -> list[Architecture]:
    """New members: as many mutations of each of the best trials as there are children, and some that are drawn."""
    seen, best = tried(trials), sorted(trials, key=worth, reverse=True)[:parents]
    mutations = [space.mutate(trial.choice, generator=generator) for trial in best for _ in range(children)]
    found = dict.fromkeys(child for child in mutations if child not in seen)
    return list(found | dict.fromkeys(unseen(space, drawn, seen, generator=generator)))


def tried(trials: Collection[Trial[Architecture]]) -> set[Architecture]:
    """What was tried, failures too."""
    return {trial.choice for trial in trials}


def worth(trial: Trial[Architecture]) -> float:
    """Its value, worse than any other where it failed."""
    return -math.inf if trial.value is None else trial.value
