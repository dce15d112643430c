"""What every method of maml_speed.py is asked, and the network that its peers are asked it of."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from quickstudy import Task, conv4_classifier


@dataclass(frozen=True)
class Problem:
    """The gradient of MAML's mean query loss with respect to the initial weights."""

    tasks: Task
    """Support and query pictures `(b, n, 1, side, side)`."""
    width: int
    """Feature maps of every layer of the network."""
    start: tuple[Tensor, ...]
    """The initial weights, in the order of the network's parameters."""
    lr: float
    """Inner step size."""
    steps: int
    """Inner steps."""


class Answer(NamedTuple):
    """What a meta-iteration finds."""

    loss: Tensor
    """The mean query loss over the tasks."""
    gradients: list[Tensor]
    """Its gradients, in the order of the network's parameters."""


MetaIteration = Callable[[], Answer]
Net = TypeVar("Net", bound=nn.Module)


class WrittenBatchNorm(nn.Module):
    """Normalisation by the batch, written out: under `vmap`, torch 2.13 differentiates its fused kernel twice wrongly.

    Args:
        channels: The size of the second axis.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """`(n, channels, h, w)` to the same."""
        var, mean = torch.var_mean(x, (0, 2, 3), correction=0)
        scale = self.weight * torch.rsqrt(var + 1e-5)
        return x * scale[:, None, None] + (self.bias - mean * scale)[:, None, None]


def fused_batch_norm(channels: int) -> nn.Module:
    """Torch's own, by the statistics of the batch."""
    return nn.BatchNorm2d(channels, track_running_stats=False)


def layers(problem: Problem, norm: Callable[[int], nn.Module] = fused_batch_norm) -> Iterable[nn.Module]:
    """Conv4 as it is usually written, up to its last layer."""
    for i in range(4):
        yield nn.Conv2d(problem.width if i else 1, problem.width, 3, padding=1, bias=False)
        yield norm(problem.width)
        yield from (nn.ReLU(), nn.MaxPool2d(2))
    yield nn.Flatten()


def last_layer(problem: Problem) -> nn.Linear:
    """One output a class."""
    side, n_way = problem.tasks.support.x.shape[-1] // 16, problem.tasks.n_way
    assert n_way is not None
    return nn.Linear(problem.width * side * side, n_way)


def classifier(problem: Problem, norm: Callable[[int], nn.Module] = fused_batch_norm) -> nn.Sequential:
    """The whole network, with the problem's initial weights."""
    return begin(nn.Sequential(*layers(problem, norm), last_layer(problem)), problem)


def our_classifier(problem: Problem) -> nn.Module:
    """quickstudy's Conv4, which computes the same with less memory, with these weights."""
    n_way = problem.tasks.n_way
    assert n_way is not None
    return begin(conv4_classifier(n_way, width=problem.width, size=problem.tasks.support.x.shape[-1]), problem)


def begin(net: Net, problem: Problem) -> Net:
    """`net` with the problem's initial weights, on their device."""
    net = net.to(problem.start[0].device, problem.start[0].dtype)
    parameters = list(net.parameters())
    assert [p.shape for p in parameters] == [p.shape for p in problem.start]
    with torch.no_grad():
        for parameter, value in zip(parameters, problem.start):
            parameter.copy_(value)
    return net


def gradients_of(net: nn.Module) -> list[Tensor]:
    """What `backward` has left in a network."""
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in net.parameters()]
