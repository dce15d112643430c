"""The graph networks of NAS-Bench-Graph."""

from collections.abc import Mapping

from quickstudy.nas.architecture import INPUT, OUTPUT, Architecture, Graph, Node, Value
from quickstudy.nas.space import Space

LINKS = ("0000", "0001", "0011", "0012", "0013", "0111", "0112", "0122", "0123")
OPERATIONS = ("gat", "gcn", "gin", "cheb", "sage", "arma", "graph", "fc", "skip")


class NASBenchGraph(Space):
    """Four layers of graph networks in one of nine wirings: a digit a layer says which comes before it, 0 the input.

    Layers that nothing follows are joined in the output. The benchmark trained one of each set of isomorphic members,
    26,206 of 59,049 combinations; `members`, where it is given, are those.

    References:
        Qin et al., [NAS-Bench-Graph](https://arxiv.org/abs/2206.09166), 2022.
    """

    name = "nasbenchgraph"
    choices: Mapping[str, tuple[Value, ...]] = {"link": tuple(f"w{link}" for link in LINKS)} | {
        f"layer{i}": OPERATIONS for i in (1, 2, 3, 4)
    }
    vocabulary = OPERATIONS

    def __init__(self, members: frozenset[Architecture] | None = None) -> None:
        self.members = members

    def has(self, architecture: Architecture) -> bool:
        """Whether the benchmark trained it."""
        return self.members is None or architecture in self.members

    def graph(self, architecture: Architecture) -> Graph:
        """Input, four layers, output."""
        link = [int(digit) for digit in str(architecture["link"])[1:]]
        nodes = (Node(INPUT), *(Node(str(architecture[f"layer{i}"])) for i in (1, 2, 3, 4)), Node(OUTPUT))
        edges = [(before, i + 1) for i, before in enumerate(link)]
        edges += [(i, 5) for i in (1, 2, 3, 4) if i not in link]
        return Graph(nodes, tuple(edges))
