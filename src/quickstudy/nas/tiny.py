"""Tiny: small networks for small pictures and short series."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import prod

from quickstudy.errors import ShapeError
from quickstudy.nas.architecture import INPUT, OUTPUT, Architecture, Graph, Node, Value, live
from quickstudy.nas.nasbench201 import EDGES, FLOWS
from quickstudy.nas.space import Space

OPERATIONS = ("none", "skip_connect", "conv1", "conv3", "sep_conv3", "avg_pool3")
KERNEL = 9
"""Positions that conv3 and sep_conv3 see: 3 x 3 of a picture, 9 in a row of a series."""
STEMS = {"stride1": (1, False), "stride2": (2, False), "pool2": (1, True), "pool4": (2, True)}
"""The stride of the stem's convolution, and whether max-pooling halves after it."""
DOWNS = ("stride", "avg", "max")
HEADS = ("mean", "max", "grid")
DEPTHS = (1, 2, 3)
MOST_WEIGHTS = 300_000
"""Parameters between stem and head that a member has at most."""


@dataclass(frozen=True)
class Stage:
    """Cells of one width and size."""

    width: int
    size: tuple[int, ...]

    @property
    def positions(self) -> int:
        """Pixels, or steps in time."""
        return prod(self.size)


class Tiny(Space):
    """Stem, one to three stages of the same cell, head: up to about 300,000 parameters before the last layer.

    The cell is that of NAS-Bench-201 with one more operation: four feature maps, all joined, each the sum of what its
    edges bring. Convolutions are ReLU, convolution, batch normalisation. From stage to stage the width doubles and the
    size halves, rounded up.

    | choice | what it says |
    | --- | --- |
    | `0-1` ... `2-3` | the operation on an edge of the cell |
    | `width` | feature maps of the first stage |
    | `depth` | cells a stage |
    | `stages` | stages |
    | `stem` | a convolution of stride 1, of stride 2, of stride 1 and max-pooling (`pool2`), of 2 and that (`pool4`) |
    | `down` | how a stage begins: a convolution of stride 2, or average- or max-pooling and a 1x1 convolution |
    | `head` | what the classifier sees: the mean, the maximum, or the means of halves (quarters of a picture) |

    In a series, the convolutions named 3 see 9 steps: as many weights as 3x3 in a picture, so that a member has cells
    of the same size in both.

    Where the benchmark has cells whose output gets nothing from their input, this space has none: such a network
    answers the same to every picture. Edges that lie on no way from input to output are allowed, so that every member
    can be reached by changes of one choice. Unlike the benchmark, we do not build them: they are not in `graph` and
    cost nothing. Members with over 300,000 parameters between stem and head are left out too.

    Args:
        shape: Of one input, (channels, height, width) or (channels, length).
        n_classes: Outputs.

    Raises:
        ShapeError: Where shape is neither a picture's nor a series', or there are fewer than two classes.

    Example:
        >>> from quickstudy.nas.tiny import Tiny
        >>> space = Tiny(shape=(1, 28, 28), n_classes=10)
        >>> cell = ("conv3", "none", "none", "skip_connect", "conv1", "none")
        >>> a = space.architecture((*cell, 8, 1, 3, "stride2", "avg", "mean"))
        >>> [(stage.width, stage.size) for stage in space.stages(a)]
        [(8, (14, 14)), (16, (7, 7)), (32, (4, 4))]
        >>> [node.operation for node in space.graph(a).nodes][:6]
        ['input', 'stem_stride2', 'conv3', 'skip_connect', 'conv1', 'repeat1']

    References:
        Dong and Yang, [NAS-Bench-201](https://arxiv.org/abs/2001.00326), 2020.
    """

    choices: Mapping[str, tuple[Value, ...]] = {f"{start}-{end}": OPERATIONS for start, end in EDGES} | {
        "width": (4, 6, 8, 12, 16, 24, 32),
        "depth": DEPTHS,
        "stages": (1, 2, 3),
        "stem": tuple(STEMS),
        "down": DOWNS,
        "head": HEADS,
    }
    vocabulary = (
        *OPERATIONS,
        *(f"stem_{stem}" for stem in STEMS),
        *(f"down_{down}" for down in DOWNS),
        *(f"repeat{depth}" for depth in DEPTHS),
        *(f"head_{head}" for head in HEADS),
    )

    def __init__(self, *, shape: tuple[int, ...], n_classes: int) -> None:
        if len(shape) not in (2, 3) or min(shape) < 1:
            raise ShapeError(
                f"inputs of {shape} are neither pictures, (channels, h, w), nor series, (channels, length)."
            )
        if n_classes < 2:
            raise ShapeError(f"{n_classes} classes leave nothing to tell apart; give at least 2.")
        self.shape, self.n_classes = tuple(shape), n_classes
        self.dimensions = len(shape) - 1
        self.name = "tiny" if self.dimensions == 2 else "tiny1d"

    @property
    def digest(self) -> str:
        """Of all that a study of this space depends on: the costs of a member depend on the inputs and the classes."""
        return hashlib.sha256(f"{super().digest} {self.shape} {self.n_classes}".encode()).hexdigest()[:16]

    def has(self, architecture: Architecture) -> bool:
        """Whether its cell's output depends on its input, and it is small enough."""
        return any(operation != "none" for operation in cell_of(architecture)) and weights(architecture) <= MOST_WEIGHTS

    def canonical(self, architecture: Architecture) -> Architecture:
        """The same network without edges that lead nowhere, and with the first way down where it has one stage.

        Example:
            >>> from quickstudy.nas.tiny import Tiny
            >>> space = Tiny(shape=(1, 28, 28), n_classes=10)
            >>> cell = ("conv3", "none", "none", "skip_connect", "none", "none")
            >>> str(space.canonical(space.architecture((*cell, 8, 1, 1, "stride2", "max", "mean"))))[:60]
            'tiny/1 0-1=none 0-2=none 1-2=none 0-3=skip_connect 1-3=none '
        """
        values: dict[str, Value] = {**architecture.values, **dict(zip(self.choices, cell_of(architecture)))}
        if values["stages"] == 1:
            values["down"] = DOWNS[0]
        return Architecture(architecture.space, tuple(values.items()))

    def stages(self, architecture: Architecture) -> tuple[Stage, ...]:
        """Width and size of each stage."""
        values = architecture.values
        return stages_after(self.stem_sizes(architecture)[-1], int(values["width"]), int(values["stages"]))

    def stem_sizes(self, architecture: Architecture) -> tuple[tuple[int, ...], ...]:
        """The size that the stem's convolution puts out, and the one after pooling where there is some."""
        return sizes_after(self.shape[1:], str(architecture["stem"]))

    def graph(self, architecture: Architecture) -> Graph:
        """Input; for each stage its beginning, its cell's operations and how often those are repeated; head, output.

        Widths and sizes are those that a node puts out; of a picture that is not square, the size is the longer side.
        """
        values, cell, stages = architecture.values, cell_of(architecture), self.stages(architecture)
        nodes = [Node(INPUT, self.shape[0], max(self.shape[1:]))]
        for i, stage in enumerate(stages):
            begin = f"down_{values['down']}" if i else f"stem_{values['stem']}"
            nodes += [Node(word, stage.width, max(stage.size)) for word in (begin, *cell, f"repeat{values['depth']}")]
        nodes.append(Node(f"head_{values['head']}", stages[-1].width, max(grid(stages[-1].size, str(values["head"])))))
        return live(Graph((*nodes, Node(OUTPUT, self.n_classes, 1)), edges(len(stages))), "none")


@cache
def sizes_after(size: tuple[int, ...], stem: str) -> tuple[tuple[int, ...], ...]:
    """The sizes that a stem puts out, see `Tiny.stem_sizes`."""
    stride, pools = STEMS[stem]
    found = size if stride == 1 else halved(size)
    return (found, halved(found)) if pools else (found,)


@cache
def stages_after(size: tuple[int, ...], width: int, n: int) -> tuple[Stage, ...]:
    """So many stages, the first of this size and width."""
    found = [Stage(width, size)]
    while len(found) < n:
        found.append(Stage(2 * found[-1].width, halved(found[-1].size)))
    return tuple(found)


def halved(size: tuple[int, ...]) -> tuple[int, ...]:
    """Half of each side, rounded up."""
    return tuple((side + 1) // 2 for side in size)


def grid(size: tuple[int, ...], head: str) -> tuple[int, ...]:
    """The size that a head leaves."""
    return tuple(min(2, side) if head == "grid" else 1 for side in size)


def cell_of(architecture: Architecture) -> tuple[str, ...]:
    """Its six operations in the order of EDGES, `none` for those that lie on no way from input to output."""
    return chosen_cell(architecture.choices[: len(EDGES)])


@cache
def chosen_cell(chosen: tuple[tuple[str, Value], ...]) -> tuple[str, ...]:
    """The same of the choices of the cell."""
    return alive(tuple(str(value) for _, value in chosen))


def alive(operations: tuple[str, ...]) -> tuple[str, ...]:
    """The operations of a cell, `none` for those that lie on no way from input to output."""
    there, back = {0}, {3}
    used = [(edge, operation) for edge, operation in zip(EDGES, operations) if operation != "none"]
    for (start, end), _ in used:
        there |= {end} if start in there else set()
    for (start, end), _ in reversed(used):
        back |= {start} if end in back else set()
    return tuple(
        operation if start in there and end in back else "none" for (start, end), operation in zip(EDGES, operations)
    )


@cache
def edges(stages: int) -> tuple[tuple[int, int], ...]:
    """Of the graph of a network with so many stages, each 8 nodes."""
    found = [(0, 1)]
    for first in range(1, 8 * stages, 8):
        found += [(first + start, first + end) for start, end in FLOWS]
        found.append((first + 7, first + 8))
    return (*found, (8 * stages + 1, 8 * stages + 2))


MULTIPLIES = {"conv1": (1, 0), "conv3": (KERNEL, 0), "sep_conv3": (1, KERNEL)}
"""Weights of an operation's convolutions: so many times the squared width, and so many times the width."""


@cache
def convolutions(cell: tuple[str, ...]) -> tuple[int, int, int]:
    """How many there are in a cell, and their weights: times the squared width, and times the width."""
    found = [MULTIPLIES[operation] for operation in cell if operation in MULTIPLIES]
    return len(found), sum(squared for squared, _ in found), sum(plain for _, plain in found)


def multiplies(cell: tuple[str, ...], width: int) -> int:
    """Weights of the convolutions of a cell, each of which multiplies once a position."""
    _, squared, plain = convolutions(cell)
    return squared * width**2 + plain * width


def down_multiplies(down: str, width: int) -> int:
    """The same of the beginning of a stage, from this width to twice as much."""
    return (KERNEL if down == "stride" else 1) * width * 2 * width


def weights(architecture: Architecture) -> int:
    """Parameters between stem and head, which depend neither on the inputs nor on the number of classes."""
    values, cell = architecture.values, cell_of(architecture)
    norms, depth, (total, width) = convolutions(cell)[0], int(values["depth"]), (0, int(values["width"]))
    for i in range(int(values["stages"])):
        if i:
            total += down_multiplies(str(values["down"]), width) + 4 * width
            width *= 2
        total += depth * (multiplies(cell, width) + 2 * width * norms)
    return total
