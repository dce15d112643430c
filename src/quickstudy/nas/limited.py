"""A space without what costs too much."""

from collections.abc import Callable, Sequence

import torch
from torch import Generator

from quickstudy.errors import NothingFitsError
from quickstudy.nas.architecture import Architecture, Graph
from quickstudy.nas.space import Space, draw

Allowed = Callable[[Architecture], bool]
"""Whether an architecture keeps to the limits."""
REJECTED = 20
"""Members that are drawn of the whole space before one is made to fit."""


class Limited(Space):
    """The members of a space that are allowed; to a search it is a space like any other, so that none need know limits.

    Sampling is uniform as long as one of 20 draws is allowed. Where limits are tight it no longer is: a start, which
    is allowed, takes over the choices of a random member, in random order, each unless that breaks a limit.

    Args:
        space: The whole; limits on what has limits are one space with both.
        allowed: Whether a member keeps to the limits.
        starts: Some members that do, the more different the better; the first must go on doing so.

    Raises:
        NothingFitsError: Where there is no start, or the first is not allowed.

    Example:
        >>> from torch import Generator
        >>> from quickstudy.nas.limited import Limited
        >>> from quickstudy.nas.nasbench201 import NASBench201
        >>> space = NASBench201()
        >>> empty = space.architecture(["none"] * 6)
        >>> cheap = Limited(space, lambda cell: all("conv" not in str(value) for _, value in cell.choices), [empty])
        >>> "conv" in str(cheap.sample(generator=Generator().manual_seed(0)))
        False
    """

    def __init__(self, space: Space, allowed: Allowed, starts: Sequence[Architecture]) -> None:
        if not starts or not (space.has(starts[0]) and allowed(starts[0])):
            raise NothingFitsError(f"a search of {space.id} within limits begins with members that keep to them.")
        self.space: Space = space
        self.allowed: Allowed = allowed
        if isinstance(space, Limited):
            outer = space.allowed
            self.space, self.allowed = space.space, lambda a: outer(a) and allowed(a)
        self.starts = tuple(starts)
        self.name, self.version, self.choices, self.vocabulary = (
            space.name,
            space.version,
            space.choices,
            space.vocabulary,
        )

    @property
    def digest(self) -> str:
        """That of the whole: outcomes do not depend on limits, and may be used under others."""
        return self.space.digest

    def graph(self, architecture: Architecture) -> Graph:
        """The graph that an architecture stands for."""
        return self.space.graph(architecture)

    def has(self, architecture: Architecture) -> bool:
        """Whether it is a member of the whole, and allowed."""
        return self.space.has(architecture) and self.allowed(architecture)

    def canonical(self, architecture: Architecture) -> Architecture:
        """That of the whole, which costs the same."""
        return self.space.canonical(architecture)

    def sample(self, *, generator: Generator) -> Architecture:
        """A member, uniformly unless limits are tight."""
        for _ in range(REJECTED):
            found = self.space.sample(generator=generator)
            if self.allowed(found):
                return found
        start = self.starts[draw(len(self.starts), generator)]
        while not self.allowed(start):  # measured since, and too slow
            start = self.starts[draw(len(self.starts), generator)]
        values = dict(start.choices)
        for i in torch.randperm(len(found.choices), generator=generator).tolist():
            name, value = found.choices[i]
            other = Architecture(self.id, tuple({**values, name: value}.items()))
            if self.has(other):
                values[name] = value
        return Architecture(self.id, tuple(values.items()))
