"""The cell of NAS-Bench-201."""

from collections.abc import Mapping

from quickstudy.errors import ArchitectureError
from quickstudy.nas.architecture import INPUT, OUTPUT, Architecture, Graph, Node, Value, live
from quickstudy.nas.space import Space

EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
FLOWS = (
    *((0, i + 1) for i, (start, _) in enumerate(EDGES) if start == 0),
    *((i + 1, j + 1) for i, (_, end) in enumerate(EDGES) for j, (start, _) in enumerate(EDGES) if end == start),
    *((i + 1, len(EDGES) + 1) for i, (_, end) in enumerate(EDGES) if end == 3),
)
"""From where to where values go between nodes that are the cell's input, the operations on EDGES, and its output."""
OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")


class NASBench201(Space):
    """Four nodes of feature maps, all joined, with one of five operations on each of the six edges: 15,625 cells.

    Operations are the nodes of its graph, so that each edge of the cell is a node here; feature maps are where they
    meet.

    References:
        Dong and Yang, [NAS-Bench-201](https://arxiv.org/abs/2001.00326), 2020.

    Example:
        >>> from quickstudy.nas.nasbench201 import NASBench201
        >>> space = NASBench201()
        >>> cell = space.from_published("|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|"
        ...                             "+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|")
        >>> cell.choices[:2]
        (('0-1', 'avg_pool_3x3'), ('0-2', 'nor_conv_1x1'))
        >>> len(space.graph(cell).nodes)
        8
    """

    name = "nasbench201"
    choices: Mapping[str, tuple[Value, ...]] = {f"{start}-{end}": OPERATIONS for start, end in EDGES}
    vocabulary = OPERATIONS

    def graph(self, architecture: Architecture) -> Graph:
        """Input, the operations that matter, output: `none` is left out, and what nothing comes from or goes to."""
        nodes = (Node(INPUT), *(Node(str(value)) for _, value in architecture.choices), Node(OUTPUT))
        return live(Graph(nodes, FLOWS), "none")

    def from_published(self, text: str) -> Architecture:
        """The cell of the benchmark's own text, `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`.

        Raises:
            ArchitectureError: Where the text is not that of a cell.
        """
        words = [word.partition("~")[0] for word in text.replace("+", "").split("|") if word]
        found = self.architecture(words)
        if self.to_published(found) != text:
            raise ArchitectureError(f"{text} is no cell. Write it as {self.to_published(found)}.")
        return found

    def to_published(self, architecture: Architecture) -> str:
        """The benchmark's own text of a cell."""
        values = architecture.values
        return "+".join(
            "|" + "".join(f"{values[f'{start}-{end}']}~{start}|" for start in range(end)) for end in (1, 2, 3)
        )
