"""What a search may choose among."""

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Generator

from quickstudy.errors import ArchitectureError, NothingFitsError
from quickstudy.nas.architecture import Architecture, Encoded, Graph, Value, encode

ATTEMPTS = 10_000
"""Combinations that are drawn at most in search of a member."""
WORD = 372 * math.lcm(*range(1, 17))
"""Numbers below this are drawn for all choices at once, which is faster than one by one; the remainder by any number of
options up to 16 is uniform."""


class Space(ABC):
    """A finite set of architectures, each a tuple of choices.

    A space says what its choices are and what graph they stand for; sampling, mutation, neighbours, text and encoding
    follow from that. Callers may rely on `sample` being uniform over `choices` that `has` accepts, and reproducible
    from the generator.
    """

    name: str
    version: int = 1
    choices: Mapping[str, tuple[Value, ...]]
    """The values of each choice, by name and in order."""
    vocabulary: tuple[str, ...]
    """The operations of its graphs, beside input and output."""

    @abstractmethod
    def graph(self, architecture: Architecture) -> Graph:
        """The graph that an architecture stands for."""

    def has(self, architecture: Architecture) -> bool:
        """Whether a combination of values is a member; all are, unless a space says otherwise."""
        return True

    def canonical(self, architecture: Architecture) -> Architecture:
        """The member that stands for all that are the same network; itself, unless a space says otherwise."""
        return architecture

    @property
    def id(self) -> str:
        """`name/version`."""
        return f"{self.name}/{self.version}"

    @property
    def digest(self) -> str:
        """Of all that a study of this space depends on."""
        return hashlib.sha256(json.dumps([self.id, list(self.choices.items())]).encode()).hexdigest()[:16]

    def architecture(self, values: Mapping[str, Value] | Sequence[Value]) -> Architecture:
        """The member with these values, by name or in order.

        Raises:
            ArchitectureError: Where a choice is missing or unknown, or has no such value.
        """
        if not isinstance(values, Mapping):
            if len(values) != len(self.choices):
                raise ArchitectureError(f"{self.id} has {len(self.choices)} choices; {len(values)} values were given.")
            values = dict(zip(self.choices, values))
        if set(values) != set(self.choices):
            raise ArchitectureError(
                f"{self.id} chooses {', '.join(self.choices)}; {', '.join(map(str, values)) or 'nothing'} was given."
            )
        for name, allowed in self.choices.items():
            if values[name] not in allowed:
                raise ArchitectureError(f"{name}={values[name]} is not one of {', '.join(map(str, allowed))}.")
        found = Architecture(self.id, tuple((name, values[name]) for name in self.choices))
        if not self.has(found):
            raise ArchitectureError(f"{self.id} leaves out {found}, though each of its choices exists.")
        return found

    def parse(self, text: str) -> Architecture:
        """The member that a canonical text stands for.

        Raises:
            ArchitectureError: Where the text is not that of a member; a text of another space is named as such.
        """
        found = Architecture.parse(text)
        if found.space != self.id:
            raise ArchitectureError(f"{text!r} is of the space {found.space}, not of {self.id}.")
        return self.architecture(found.values)

    def sample(self, *, generator: Generator) -> Architecture:
        """A member, uniformly.

        Raises:
            NothingFitsError: Where none of 10,000 combinations is one.
        """
        for _ in range(ATTEMPTS):
            drawn = torch.randint(WORD, (len(self.choices),), generator=generator).tolist()
            values = [options[number % len(options)] for number, options in zip(drawn, self.choices.values())]
            found = Architecture(self.id, tuple(zip(self.choices, values)))
            if self.has(found):
                return found
        raise NothingFitsError(f"none of {ATTEMPTS:,} combinations that were drawn is a member of {self.id}.")

    def mutate(self, architecture: Architecture, *, generator: Generator) -> Architecture:
        """A neighbour, uniformly; the architecture itself where it has none."""
        near = list(self.neighbours(architecture))
        return near[draw(len(near), generator)] if near else architecture

    def neighbours(self, architecture: Architecture) -> Iterator[Architecture]:
        """All members that differ in one choice."""
        values = architecture.values
        for name, options in self.choices.items():
            for option in options:
                if option != values[name]:
                    found = Architecture(self.id, tuple({**values, name: option}.items()))
                    if self.has(found):
                        yield found

    def encode(self, architectures: Sequence[Architecture]) -> Encoded:
        """The graphs of architectures, as a graph network takes them."""
        return encode([self.graph(architecture) for architecture in architectures], self.vocabulary)

    def one_hot(self, architectures: Sequence[Architecture]) -> torch.Tensor:
        """`(b, values)`: 1 for each value that was chosen, which is all that baselines without a graph see."""
        places = {pair: i for i, pair in enumerate((n, v) for n, options in self.choices.items() for v in options)}
        found = torch.zeros(len(architectures), len(places))
        for i, architecture in enumerate(architectures):
            found[i, [places[pair] for pair in architecture.choices]] = 1
        return found


def draw(n: int, generator: Generator) -> int:
    """One of `range(n)`."""
    return int(torch.randint(n, (), generator=generator))
