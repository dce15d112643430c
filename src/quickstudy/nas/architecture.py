"""An architecture, and the graph that it stands for."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from quickstudy.errors import ArchitectureError

Value = str | int
INPUT, OUTPUT = "input", "output"


@dataclass(frozen=True)
class Architecture:
    """A member of a space: what it chose, in the order of the space's choices.

    Its text is canonical, `parse(str(a)) == a`, and short enough to be the key of a trial.

    Example:
        >>> from quickstudy.nas.architecture import Architecture
        >>> a = Architecture("toy/1", (("first", "conv"), ("width", 16)))
        >>> str(a)
        'toy/1 first=conv width=16'
        >>> Architecture.parse(str(a)) == a
        True
    """

    space: str
    """Name and version of the space, `name/version`."""
    choices: tuple[tuple[str, Value], ...]
    """Names and values. A value in digits is a number."""

    def __getitem__(self, name: str) -> Value:
        return self.values[name]

    @property
    def values(self) -> Mapping[str, Value]:
        """The choices by name."""
        return dict(self.choices)

    def __str__(self) -> str:
        return " ".join([self.space, *(f"{name}={value}" for name, value in self.choices)])

    @classmethod
    def parse(cls, text: str) -> "Architecture":
        """The architecture of a canonical text; whether a space has it is the space's to say.

        Raises:
            ArchitectureError: Where the text is not `name/version choice=value ...`.
        """
        space, *words = text.split(" ")
        pairs = [word.partition("=") for word in words]
        if "/" not in space or not pairs or not all(name and value for name, _, value in pairs):
            raise ArchitectureError(f"{text!r} is not the text of an architecture, 'space/version choice=value ...'.")
        found = cls(space, tuple((name, int(value) if value.isdecimal() else value) for name, _, value in pairs))
        if str(found) != text:
            raise ArchitectureError(f"{text!r} is not canonical; that would be {str(found)!r}.")
        return found


@dataclass(frozen=True)
class Node:
    """An operation in a graph."""

    operation: str
    width: int = 0
    """Channels that it puts out; 0 where the space does not say."""
    size: int = 0
    """Side or length of what it puts out; 0 where the space does not say."""


@dataclass(frozen=True)
class Graph:
    """A directed acyclic graph of operations; every edge goes from a lower node to a higher one."""

    nodes: tuple[Node, ...]
    """The first is the input, the last the output."""
    edges: tuple[tuple[int, int], ...]
    """From, to."""

    def depth(self) -> tuple[int, ...]:
        """The longest way from the input to each node, in edges."""
        return depths(len(self.nodes), self.edges)


def live(graph: Graph, dead: str) -> Graph:
    """The graph without `dead` operations, and without all that lies on no way from the input to the output.

    Input and output always stay.
    """
    kept, edges = between(tuple(node.operation != dead for node in graph.nodes), graph.edges)
    return Graph(tuple(graph.nodes[node] for node in kept), edges)


Edges = tuple[tuple[int, int], ...]
SHAPES = 4096
"""Graphs without their operations that are remembered: a space has few, and is asked of them again and again."""


@lru_cache(SHAPES)
def between(alive: tuple[bool, ...], edges: Edges) -> tuple[tuple[int, ...], Edges]:
    """The nodes that lie on a way of live ones from the first to the last, and the edges between them as they stay."""
    last = len(alive) - 1
    there = [(a, b) for a, b in edges if alive[a] and alive[b]]
    reached, needed = {0}, {last}
    for a, b in sorted(there):
        if a in reached:
            reached.add(b)
    for a, b in sorted(there, key=lambda edge: -edge[1]):
        if b in needed:
            needed.add(a)
    kept = sorted((reached & needed) | {0, last})
    place = {node: i for i, node in enumerate(kept)}
    return tuple(kept), tuple((place[a], place[b]) for a, b in there if a in place and b in place)


@lru_cache(SHAPES)
def depths(nodes: int, edges: Edges) -> tuple[int, ...]:
    """The longest way from the first of so many nodes to each, in edges."""
    found = [0] * nodes
    for start, end in sorted(edges, key=lambda edge: edge[1]):
        found[end] = max(found[end], found[start] + 1)
    return tuple(found)


@lru_cache(SHAPES)
def ends(edges: Edges) -> tuple[np.ndarray, np.ndarray]:
    """Where edges begin, and where they end."""
    both = np.array(edges, np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


@dataclass(frozen=True)
class Encoded:
    """Graphs as tensors, padded to the same number of nodes."""

    operations: Tensor  # (b, v) int64, positions in the vocabulary
    features: Tensor  # (b, v, 3): position from input (0) to output (1), log2 of width and of size over 10
    adjacency: Tensor  # (b, v, v): 1 from row to column
    mask: Tensor  # (b, v): True where there is a node

    def __getitem__(self, index: "slice | Tensor") -> "Encoded":
        return Encoded(self.operations[index], self.features[index], self.adjacency[index], self.mask[index])

    def __len__(self) -> int:
        return len(self.operations)

    def trimmed(self) -> "Encoded":
        """Without nodes that are padding in all of them."""
        n = int(self.mask.sum(1).max()) if len(self) else 0
        return Encoded(self.operations[:, :n], self.features[:, :n], self.adjacency[:, :n, :n], self.mask[:, :n])


def encode(graphs: "list[Graph]", vocabulary: tuple[str, ...]) -> Encoded:
    """Graphs as tensors.

    Args:
        graphs: Their order is kept.
        vocabulary: All operations that a space has, beside input and output.

    Raises:
        ArchitectureError: Where an operation is not in the vocabulary.
    """
    words = {word: i for i, word in enumerate((INPUT, OUTPUT, *vocabulary))}
    if strange := {node.operation for graph in graphs for node in graph.nodes} - set(words):
        raise ArchitectureError(f"{min(strange)!r} is not among the operations {', '.join(words)}.")
    b, v = len(graphs), max((len(graph.nodes) for graph in graphs), default=0)
    operations, features = np.zeros((b, v), np.int64), np.zeros((b, v, 3), np.float32)
    adjacency, mask = np.zeros((b, v, v), np.float32), np.zeros((b, v), np.bool_)
    for i, graph in enumerate(graphs):
        n, depth = len(graph.nodes), graph.depth()
        longest = max(1, *depth)
        operations[i, :n] = [words[node.operation] for node in graph.nodes]
        features[i, :n] = [(d / longest, node.width, node.size) for d, node in zip(depth, graph.nodes)]
        mask[i, :n] = True
        adjacency[i][ends(graph.edges)] = 1
    features[..., 1:] = np.log2(np.maximum(features[..., 1:], 1)) / 10
    return Encoded(*map(torch.from_numpy, (operations, features, adjacency, mask)))
