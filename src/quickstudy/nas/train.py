"""Training small networks fast, on one task."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.optim.sgd import sgd

from quickstudy.errors import DivergedError, ShapeError
from quickstudy.nas.standardise import Standardise

CHECK = 25
"""Steps between two looks at the loss and the clock: each waits for the device."""
SOON = 5
"""The step after which the clock is looked at again: the first one takes longer than all others."""
MOVED = 28
"""Of so many pixels, or steps in time, inputs are moved by one."""
SHARE = 0.9
"""The part of the time left that is planned with."""


@dataclass(frozen=True)
class Schedule:
    """How a network is trained: SGD with Nesterov's momentum, one cycle of its rate, complete for the number of steps.

    The rate rises linearly from zero to `lr` and falls along a cosine to zero; few steps are no beginning of many. The
    default rate is high and the decay strong: trainings are short.

    Example:
        >>> from quickstudy.nas.train import Schedule
        >>> schedule = Schedule(steps=100, lr=0.2)
        >>> [round(schedule.rate(progress), 4) for progress in (0.0, 0.1, 0.2, 0.6, 1.0)]
        [0.0, 0.1, 0.2, 0.1, 0.0]

    References:
        Smith and Topin, [Super-Convergence](https://arxiv.org/abs/1708.07120), 2017.
    """

    steps: int = 300
    batch_size: int = 32
    lr: float = 0.2
    """The highest rate."""
    warm_up: float = 0.2
    """The part of the steps in which the rate rises."""
    momentum: float = 0.9
    weight_decay: float = 0.005
    """Of weights; biases and normalisation do not decay."""
    label_smoothing: float = 0.0
    """The part of a label's weight that is spread evenly over all classes."""
    shift: int = 0
    """Pixels, or steps in time, by which an example is moved at most, at random; its border is repeated. Along a
    shorter side it is moved by as much less, and by one at least."""
    moved: float = 0.5
    """The probability with which that is done to it, each time that it is seen."""
    flip: bool = False
    """Whether each picture is mirrored with probability one half."""

    @classmethod
    def for_inputs(cls, shape: Sequence[int], **settings: Any) -> "Schedule":
        """The schedule of searches: half of the examples are moved by one pixel, or step in time, in 28.

        Pictures of characters gain much by it. With photographs it is a point or two, either way. Moving all examples
        gains no more, and can lose much where a digit's place in its frame tells (`benchmarks/tiny_ending.py`).

        Args:
            shape: Of an input, `(channels, *size)`.
            settings: As for the class.

        Example:
            >>> from quickstudy.nas.train import Schedule
            >>> Schedule.for_inputs((1, 14, 14)).shift, Schedule.for_inputs((3, 60), steps=100).shift
            (1, 2)
        """
        return cls(shift=max(1, round(max(shape[1:]) / MOVED)), **settings)

    @property
    def inputs(self) -> str:
        """What becomes of them, in words.

        Example:
            >>> from quickstudy.nas.train import Schedule
            >>> Schedule.for_inputs((1, 28, 28)).inputs, Schedule().inputs
            ('moved at random by 1 at most, with probability 0.5', 'as they are')
        """
        moved = [f"moved at random by {self.shift} at most, with probability {self.moved:g}"] if self.shift else []
        return "; ".join([*moved, *(["half of them mirrored"] if self.flip else [])]) or "as they are"

    def rate(self, progress: float) -> float:
        """The rate once this part of the steps is done, from 0 to 1."""
        if progress < self.warm_up:
            return self.lr * progress / self.warm_up
        return self.lr * 0.5 * (1 + math.cos(math.pi * (progress - self.warm_up) / (1 - self.warm_up)))


@dataclass(frozen=True)
class Trained:
    """What became of a training."""

    losses: Tensor  # (steps,)
    """Of each step, on its batch."""
    seconds: float
    complete: bool
    """False where the deadline left time for fewer steps than planned."""

    @property
    def steps(self) -> int:
        """Steps that were made."""
        return len(self.losses)


def train(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    schedule: Schedule,
    *,
    generator: Generator,
    deadline: float | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Trained:
    """Trains a classifier in place, on the device that its weights and the examples lie on, and leaves it for use.

    The same seed of `generator` gives the same weights on the same machine, unless the deadline interferes. All
    examples are seen equally often. Where the network begins with `Standardise`, that is done once for all steps.

    Args:
        network: Maps `(n, *input)` to `(n, classes)` logits.
        x: Inputs, `(n, *input)`, float.
        y: int64 labels, `(n,)`.
        schedule: Where there are fewer examples than a batch takes, a batch is all of them.
        generator: On the CPU. Draws the order of the examples, their shifts and flips.
        deadline: On the clock of `time.perf_counter`. Where it would come before all steps are done, the plan becomes
            one of fewer steps, to its end: as many as the pace so far allows, told anew at every look at the clock.
        on_progress: Is called with the steps done and the steps planned, every 25 steps and at the end.

    Raises:
        DivergedError: Where a loss is not finite.
        ShapeError: Where there are fewer than two examples, or not one label for each.

    Example:
        >>> import torch
        >>> from quickstudy.nas.train import Schedule, answer, train
        >>> from torch import nn
        >>> generator = torch.Generator().manual_seed(0)
        >>> x = torch.randn(200, 2, generator=generator)
        >>> y = (x[:, 0] > x[:, 1]).long()
        >>> network = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 2))
        >>> train(network, x, y, Schedule(steps=200), generator=generator).complete
        True
        >>> bool((answer(network, x).argmax(1) == y).float().mean() > 0.9)
        True
    """
    if len(x) < 2 or y.shape != x.shape[:1]:
        raise ShapeError(f"x is {tuple(x.shape)} and y {tuple(y.shape)}; give two examples or more, a label for each.")
    body, x = after_standardising(network, x)
    order = batches(len(x), schedule, generator).to(x.device)  # (steps, batch)
    labels, losses = y[order], torch.zeros(schedule.steps, device=x.device)
    network.train()
    descent = Descent(body, schedule)
    start, total = time.perf_counter(), schedule.steps
    step, since, counted = 0, start, 0
    with products(body):
        while step < total:
            inputs = augmented(x[order[step]], schedule, generator)
            loss = F.cross_entropy(body(inputs), labels[step], label_smoothing=schedule.label_smoothing)
            loss.backward()
            descent.step(schedule.rate((step + 0.5) / total))
            losses[step] = loss.detach()
            step += 1
            if step % CHECK == 0 or step == total or (step in (1, SOON) and deadline is not None):
                check(losses[:step])
                if deadline is not None and (step < total or step == SOON):
                    now = time.perf_counter()
                    left = SHARE * (deadline - now) * (step - counted) / (now - since)
                    if step < SOON and now < deadline:
                        left = max(left, SOON - step)  # what the first one took says little of the others
                    total = step + int(min(schedule.steps - step, max(0, left)))
                    if step == 1:
                        since, counted = now, 1
                if on_progress is not None:
                    on_progress(step, total)
    network.eval()
    return Trained(losses[:step].cpu(), time.perf_counter() - start, step == schedule.steps)


def answer(network: nn.Module, x: Tensor, *, batch_size: int = 256) -> Tensor:
    """The probabilities of the classes, `(n, classes)`, in evaluation mode.

    Example:
        >>> import torch
        >>> from quickstudy.nas.train import answer
        >>> answer(torch.nn.Linear(2, 3), torch.rand(5, 2)).sum(1).round(decimals=3)
        tensor([1., 1., 1., 1., 1.])
    """
    was_training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            found = torch.cat([network(part).softmax(1) for part in x.split(batch_size)])
    finally:
        network.train(was_training)
    return found.clone()


def after_standardising(network: nn.Module, x: Tensor) -> tuple[nn.Module, Tensor]:
    """The network without a first link that standardises, and the inputs as that link gives them."""
    if isinstance(network, nn.Sequential) and len(network) > 1 and isinstance(first := network[0], Standardise):
        network, x = network[1:], first(x)
    return network, x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


@contextmanager
def products(network: nn.Module) -> Iterator[None]:
    """Within it, convolutions that see one pixel are matrix products of what lies in `channels_last`.

    On a CPU a small one is faster so than torch's convolution.
    """
    found = [layer for layer in network.modules() if type(layer) is nn.Conv2d and is_product(layer)]
    for layer in found:
        layer.forward = partial(product, layer)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in found:
            del layer.forward


def is_product(layer: nn.Conv2d) -> bool:
    """Whether each pixel's output is a product with the same matrix."""
    plain = layer.kernel_size == layer.stride == (1, 1) and layer.groups == 1 and layer.padding == (0, 0)
    return plain and layer.weight.device.type == "cpu"


def product(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """`(n, channels, h, w)` to `(n, width, h, w)`."""
    return F.linear(x.permute(0, 2, 3, 1), layer.weight.flatten(1), layer.bias).permute(0, 3, 1, 2)


def batches(n: int, schedule: Schedule, generator: Generator) -> Tensor:
    """Which examples each step sees, `(steps, batch)`: permutations, one after the other."""
    size = min(n, schedule.batch_size)
    epochs = -(-schedule.steps * size // n)
    drawn = torch.cat([torch.randperm(n, generator=generator) for _ in range(epochs)])
    return drawn[: schedule.steps * size].view(schedule.steps, size)


class Descent:
    """The steps of `torch.optim.SGD`, fused: the first optimizer of a process takes seconds to import, a search's own.

    Weights decay; biases and normalisation do not.
    """

    def __init__(self, network: nn.Module, schedule: Schedule) -> None:
        self.schedule = schedule
        self.parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        for parameter in self.parameters:
            parameter.grad = None
        self.parts: list[tuple[float, list[Tensor], list[Tensor | None]]] = []

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Goes down the gradient, and forgets it. The loss depends on the same parameters in every step."""
        if not self.parts:
            used: list[Tensor] = [parameter for parameter in self.parameters if parameter.grad is not None]
            weights, others = [p for p in used if p.dim() > 1], [p for p in used if p.dim() <= 1]
            decays = ((self.schedule.weight_decay, weights), (0.0, others))
            self.parts = [(decay, part, [None] * len(part)) for decay, part in decays]
        for decay, part, momenta in self.parts:
            sgd(
                part,
                [parameter.grad for parameter in part if parameter.grad is not None],
                momenta,
                fused=True,
                weight_decay=decay,
                momentum=self.schedule.momentum,
                lr=rate,
                dampening=0.0,
                nesterov=True,
                maximize=False,
            )
        for parameter in self.parameters:
            parameter.grad = None


def augmented(x: Tensor, schedule: Schedule, generator: Generator) -> Tensor:
    """A batch `(n, channels, *size)`, each example moved and mirrored as the schedule says."""
    if schedule.shift:
        moves = torch.rand(len(x), 1, generator=generator) < schedule.moved
        for axis in range(2, x.dim()):
            most = max(1, round(schedule.shift * x.shape[axis] / max(x.shape[2:])))
            offsets = moves * torch.randint(-most, most + 1, (len(x), 1), generator=generator)
            places = (torch.arange(x.shape[axis]) + offsets).clamp(0, x.shape[axis] - 1).to(x.device)
            x = x.take_along_dim(places.view(len(x), *(-1 if i == axis else 1 for i in range(1, x.dim()))), axis)
    if schedule.flip:
        flipped = (torch.rand(len(x), generator=generator) < 0.5).to(x.device)
        x = torch.where(flipped.view(-1, *[1] * (x.dim() - 1)), x.flip(-1), x)
    return x


def check(losses: Tensor) -> None:
    """Raises DivergedError where one of them is not finite."""
    strange = ~losses.isfinite()
    if bool(strange.any()):
        step = int(strange.int().argmax())
        raise DivergedError(
            f"the loss is {losses[step].item()} at step {step + 1}. Lower the rate (lr), or standardise the inputs."
        )
