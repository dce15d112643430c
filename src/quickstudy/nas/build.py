"""Members of Tiny as networks, and what they cost, known before they are built."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product
from math import isqrt, prod

import torch
from torch import Generator, Tensor, nn

from quickstudy.errors import NothingFitsError, QuantityError
from quickstudy.nas.architecture import Architecture
from quickstudy.nas.limited import Limited
from quickstudy.nas.nasbench201 import EDGES
from quickstudy.nas.tiny import (
    KERNEL,
    STEMS,
    Stage,
    Tiny,
    cell_of,
    down_multiplies,
    grid,
    multiplies,
    weights,
)
from quickstudy.quantities import read_amount, read_memory, read_milliseconds

BYTES = 4  # a float32


@dataclass(frozen=True)
class Cost:
    """What one prediction takes."""

    parameters: int
    """Numbers that training sets."""
    multiply_adds: int
    """Of the convolutions and the linear layer, for one example; those with the padding's zeros included."""
    peak_memory: int
    """Bytes of activations that live at once, for one example in float32; see `count`."""


@dataclass(frozen=True)
class Limits:
    """What a network may cost; None is no limit.

    Raises:
        QuantityError: Where a limit is no number above 0.

    Example:
        >>> from quickstudy.nas.build import Cost, Limits
        >>> Limits(max_params=1000).allows(Cost(parameters=900, multiply_adds=10**6, peak_memory=4096))
        True
        >>> Limits.read(max_params="20k", max_memory="64k", max_latency="500us")
        Limits(max_params=20000, max_memory=65536, max_madds=None, max_latency=0.5)
    """

    max_params: int | None = None
    max_memory: int | None = None
    """Bytes."""
    max_madds: int | None = None
    max_latency: float | None = None
    """Milliseconds of one prediction on one thread. It is measured, and no part of a cost."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, str):
                raise QuantityError(f"{name}={value!r} is a text. Give a number, or let Limits.read read it.")
            if value is not None and not value > 0:
                raise QuantityError(f"{name}={value} is no limit. Give a number above 0, or None.")

    @classmethod
    def read(
        cls,
        *,
        max_params: str | None = None,
        max_memory: str | None = None,
        max_madds: str | None = None,
        max_latency: str | None = None,
    ) -> "Limits":
        """Limits as they are written on the command line: `20k` parameters, `64k` of memory, `2ms`.

        Raises:
            QuantityError: Where a text is none.
        """
        return cls(
            None if max_params is None else read_amount(max_params),
            None if max_memory is None else read_memory(max_memory),
            None if max_madds is None else read_amount(max_madds),
            None if max_latency is None else read_milliseconds(max_latency),
        )

    def allows(self, cost: Cost) -> bool:
        """Whether a cost keeps to all of them that can be counted."""
        pairs = (
            (cost.parameters, self.max_params),
            (cost.multiply_adds, self.max_madds),
            (cost.peak_memory, self.max_memory),
        )
        return all(most is None or found <= most for found, most in pairs)

    def within(self, space: Tiny) -> Limited:
        """The members of a space that keep to them all.

        Raises:
            NothingFitsError: Where none does; the message says the smallest there is.
        """
        starts = [architecture for architecture in frames(space) if self.allows(count(space, architecture))]
        if not starts:
            least = {name: count(space, architecture) for name, architecture in smallest(space).items()}
            raise NothingFitsError(
                f"no network of {space.id} for inputs of {space.shape} and {space.n_classes} classes keeps to the "
                f"limits: {self}. "
                f"The fewest parameters are {least['parameters'].parameters:,}, the fewest multiply-adds "
                f"{least['multiply_adds'].multiply_adds:,}, the smallest peak memory "
                f"{least['peak_memory'].peak_memory:,} bytes, each by itself. Raise the limits."
            )
        return Limited(space, lambda architecture: self.allows(count(space, architecture)), starts)

    def __str__(self) -> str:
        units = {
            "max_params": "parameters",
            "max_memory": "bytes of activations",
            "max_madds": "multiply-adds",
            "max_latency": "milliseconds",
        }
        return ", ".join(f"{most:,} {units[name]}" for name, most in vars(self).items() if most is not None) or "none"


def build(space: Tiny, architecture: Architecture, *, generator: Generator | None = None) -> nn.Sequential:
    """The network that a member stands for, `(n, *shape)` to `(n, n_classes)` logits, with He's initialisation.

    It is a chain of stem, stages and head, all modules of torch, with weights in `channels_last`. Where a batch leaves
    normalisation one value a channel (one example in training, in a stage of one position), torch raises; train with
    two examples or more.

    Args:
        space: Says shape and classes.
        architecture: A member of it.
        generator: Draws the weights; torch's own where it is None.

    Example:
        >>> import torch
        >>> from quickstudy.nas.build import build
        >>> from quickstudy.nas.tiny import Tiny
        >>> space = Tiny(shape=(1, 28, 28), n_classes=10)
        >>> a = space.sample(generator=torch.Generator().manual_seed(0))
        >>> build(space, a)(torch.rand(5, 1, 28, 28)).shape
        torch.Size([5, 10])

    References:
        He et al., [Delving Deep into Rectifiers](https://arxiv.org/abs/1502.01852), 2015.
    """
    values, cell, stages = architecture.values, cell_of(architecture), space.stages(architecture)
    layers = Layers(space.dimensions)
    stride, pools = STEMS[str(values["stem"])]
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    row = [nn.Unflatten(1, (space.shape[0], 1))] if space.dimensions == 1 else []
    parts["stem"] = nn.Sequential(
        *row,
        layers.convolution(space.shape[0], stages[0].width, KERNEL, stride=stride),
        *([layers.halve("max")] * pools),
    )
    for i, stage in enumerate(stages):
        if i:
            parts[f"down{i + 1}"] = layers.down(str(values["down"]), stages[i - 1].width)
        cells = [Cell(cell, stage.width, layers) for _ in range(int(values["depth"]))]
        parts[f"stage{i + 1}"] = nn.Sequential(*cells)
    last, head = stages[-1], str(values["head"])
    parts["head"] = nn.Sequential(
        nn.BatchNorm2d(last.width),
        nn.ReLU(),
        layers.pool(last, head),
        nn.Flatten(),
        nn.Linear(last.width * prod(grid(last.size, head)), space.n_classes),
    )
    network = nn.Sequential(parts)
    initialise(network, generator)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def initialise(network: nn.Module, generator: Generator | None) -> None:
    """He's normal initialisation for convolutions, half that variance for the linear layer, and no biases."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
        elif isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear", generator=generator)
            nn.init.zeros_(module.bias)


class Layers:
    """The modules of pictures, and of series, which become pictures of one row: with those, torch is faster."""

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions

    def conv(self, channels: int, width: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Conv2d:
        """A convolution that sees `kernel` positions, without the bias that normalisation would undo."""
        side = kernel if self.dimensions == 1 else isqrt(kernel)
        return nn.Conv2d(
            channels,
            width,
            self.along(side, 1),
            self.along(stride, 1),
            self.along(side // 2, 0),
            groups=groups,
            bias=False,
        )

    def convolution(self, channels: int, width: int, kernel: int, *, stride: int = 1) -> nn.Sequential:
        """A convolution and its normalisation."""
        return nn.Sequential(self.conv(channels, width, kernel, stride=stride), nn.BatchNorm2d(width))

    def average(self, *, stride: int = 1) -> nn.AvgPool2d:
        """The mean of 3 or 3x3 positions, fewer at the borders."""
        return nn.AvgPool2d(self.along(3, 1), self.along(stride, 1), self.along(1, 0), count_include_pad=False)

    def halve(self, how: str) -> nn.Module:
        """Pooling of 3 or 3x3 positions to half the size."""
        if how == "avg":
            return self.average(stride=2)
        return nn.MaxPool2d(self.along(3, 1), self.along(2, 1), self.along(1, 0))

    def down(self, how: str, width: int) -> nn.Sequential:
        """To twice the width and half the size."""
        if how == "stride":
            return nn.Sequential(nn.ReLU(), self.convolution(width, 2 * width, KERNEL, stride=2))
        return nn.Sequential(nn.ReLU(), self.halve(how), self.convolution(width, 2 * width, 1))

    def pool(self, stage: Stage, head: str) -> nn.Module:
        """What a head sees of a stage: all of it at once, or halves that share their middle where the side is odd."""
        high, wide = (stage.size[0] if self.dimensions == 2 else 1), stage.size[-1]
        if head != "grid":
            return (nn.MaxPool2d if head == "max" else nn.AvgPool2d)((high, wide))
        return nn.AvgPool2d(((high + 1) // 2, (wide + 1) // 2), (max(1, high // 2), max(1, wide // 2)))

    def operation(self, kind: str, width: int) -> nn.Module:
        """What a step of a cell does, other than to add."""
        match kind:
            case "relu":
                return nn.ReLU()
            case "depthwise":
                return self.conv(width, width, KERNEL, groups=width)
            case "avg_pool3":
                return self.average()
            case _:
                return self.convolution(width, width, 1 if kind == "conv1" else KERNEL)

    def along(self, value: int, otherwise: int) -> tuple[int, int]:
        """A value of every side, where the only row of a series has another."""
        return (value if self.dimensions == 2 else otherwise), value


@dataclass(frozen=True)
class Step:
    """One operation of a cell in the order in which they are computed. Values are numbered, 0 is the cell's input."""

    kind: str
    inputs: tuple[int, ...]


@cache
def plan(cell: tuple[str, ...]) -> tuple[tuple[Step, ...], int]:
    """The steps of a cell, of which the i-th makes value i + 1, and the value that is its output.

    A value is rectified once, whatever number of convolutions read it.
    """
    steps: list[Step] = []

    def new(kind: str, *inputs: int) -> int:
        steps.append(Step(kind, inputs))
        return len(steps)

    nodes: dict[int, int] = {0: 0}
    rectified: dict[int, int] = {}
    for (start, end), operation in zip(EDGES, cell):
        if operation == "none":
            continue
        value = nodes[start]
        if "conv" in operation:
            value = rectified[value] if value in rectified else rectified.setdefault(value, new("relu", value))
        if operation == "sep_conv3":
            value = new("conv1", new("depthwise", value))
        elif operation != "skip_connect":
            value = new(operation, value)
        nodes[end] = new("add", nodes[end], value) if end in nodes else value
    return tuple(steps), nodes[3]


@cache
def live_at_once(cell: tuple[str, ...]) -> int:
    """Feature maps of a cell that live at once, by the rule of `count`."""
    steps, output = plan(cell)
    last = {0: -1} | {value: i for i, step in enumerate(steps) for value in step.inputs} | {output: len(steps)}
    live, most = {0}, 1
    for i, step in enumerate(steps):
        dying = {value for value in step.inputs if last[value] == i}
        in_place = step.kind in ("relu", "add") and bool(dying)
        most = max(most, len(live) + (not in_place))
        live = live - dying | {i + 1}
    return most


class Cell(nn.Module):
    """Four feature maps and the operations between them."""

    def __init__(self, cell: tuple[str, ...], width: int, layers: Layers) -> None:
        super().__init__()
        self.steps, self.output = plan(cell)
        self.operations = nn.ModuleDict(
            {
                f"{i}_{step.kind}": layers.operation(step.kind, width)
                for i, step in enumerate(self.steps)
                if step.kind != "add"
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        """`(n, width, *size)` to the same."""
        values = [x]
        for i, step in enumerate(self.steps):
            inputs = [values[value] for value in step.inputs]
            values.append(
                inputs[0] + inputs[1] if step.kind == "add" else self.operations[f"{i}_{step.kind}"](inputs[0])
            )
        return values[self.output]


def count(space: Tiny, architecture: Architecture) -> Cost:
    """What a member costs, exactly, without building it.

    Peak memory is the largest sum of the activations that live at once, under this rule. Operations run one after the
    other, in the order in which the built network computes them. A tensor lives from the operation that makes it (the
    input from the start) to the last operation that reads it. An operation has its inputs and its output at the same
    time, except that ReLU, batch normalisation and sums write over an input that nothing reads afterwards. Views and
    weights cost nothing. That is what a careful runtime allocates for inference; training takes more.

    Example:
        >>> import torch
        >>> from quickstudy.nas.build import count
        >>> from quickstudy.nas.tiny import Tiny
        >>> space = Tiny(shape=(1, 28, 28), n_classes=10)
        >>> cell = ("conv3", "none", "none", "skip_connect", "conv1", "none")
        >>> count(space, space.architecture((*cell, 8, 1, 3, "stride2", "avg", "mean")))
        Cost(parameters=14882, multiply_adds=443616, peak_memory=18816)
    """
    values, cell, stages = architecture.values, cell_of(architecture), space.stages(architecture)
    channels, positions, (first, last) = space.shape[0], prod(space.shape[1:]), (stages[0], stages[-1])
    sizes = [prod(size) for size in space.stem_sizes(architecture)]
    head = str(values["head"])
    features = last.width * prod(grid(last.size, head))

    parameters = weights(architecture) + KERNEL * channels * first.width + 2 * first.width + 2 * last.width
    parameters += features * space.n_classes + space.n_classes

    multiply_adds = KERNEL * channels * first.width * sizes[0] + features * space.n_classes
    memory = [channels * positions + first.width * sizes[0], first.width * sum(sizes) if len(sizes) > 1 else 0]
    for i, stage in enumerate(stages):
        if i:
            before = stages[i - 1]
            multiply_adds += down_multiplies(str(values["down"]), before.width) * stage.positions
            strided, after = values["down"] == "stride", stage.width * stage.positions
            made = after if strided else before.width * stage.positions
            memory += [before.width * before.positions + made, made if strided else made + after]
        multiply_adds += int(values["depth"]) * multiplies(cell, stage.width) * stage.positions
        memory.append(live_at_once(cell) * stage.width * stage.positions)
    memory += [last.width * last.positions + features, features + space.n_classes]
    return Cost(parameters, multiply_adds, BYTES * max(memory))


def frames(space: Tiny) -> list[Architecture]:
    """Every stem, width, depth, number of stages and head with a cell that only passes its input on, the cheapest."""
    cell = ("none",) * 3 + ("skip_connect",) + ("none",) * 2
    frame = list(space.choices.values())[len(cell) :]
    return [Architecture(space.id, tuple(zip(space.choices, (*cell, *rest)))) for rest in product(*frame)]


def smallest(space: Tiny) -> Mapping[str, Architecture]:
    """The member with the least of each cost, by the names of Cost.

    Example:
        >>> from quickstudy.nas.build import count, smallest
        >>> from quickstudy.nas.tiny import Tiny
        >>> space = Tiny(shape=(1, 28, 28), n_classes=10)
        >>> count(space, smallest(space)["parameters"]).parameters
        102
    """
    costs = {architecture: vars(count(space, architecture)) for architecture in frames(space)}
    return {name: min(costs, key=lambda a: int(costs[a][name])) for name in Cost.__dataclass_fields__}
