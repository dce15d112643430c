"""Ordinary training of a network on the support set of one task, which the baselines share."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from quickstudy.learners.embedding import evaluating
from quickstudy.learners.head import Head
from quickstudy.learners.inner_loop import channels_last
from quickstudy.nets.batch_norm import Moments, normalised_by
from quickstudy.tasks.task import Examples


@dataclass(frozen=True)
class Solution:
    """A network of one task's own."""

    net: nn.Module
    moments: dict[str, Moments]
    """What its batch normalisation layers normalise queries by; layers not named, by their running averages."""

    def __call__(self, x: Tensor) -> Tensor:
        """Outputs for queries, `(q, *input)` to `(q, out)`."""
        with evaluating(self.net), normalised_by(self.net, self.moments):
            out: Tensor = self.net(channels_last(x))
        return out


def outputs(solutions: Sequence[Solution], x: Tensor) -> Tensor:
    """Outputs of each task's network for its queries, `(b, q, *input)` to `(b, q, out)`."""
    return torch.stack([solution(own) for solution, own in zip(solutions, x)])


def real_examples(examples: Examples, i: int) -> tuple[Tensor, Tensor]:
    """Inputs `(n, *input)` and labels or targets of task `i`, without those that are masked out."""
    if examples.mask is None:
        return examples.x[i], examples.y[i]
    return examples.x[i][examples.mask[i]], examples.y[i][examples.mask[i]]


@torch.enable_grad()
def descend(net: nn.Module, x: Tensor, y: Tensor, head: Head, optimizer: torch.optim.Optimizer, steps: int) -> None:
    """Takes full-batch steps on the mean loss of a support set."""
    x = channels_last(x)
    for _ in range(steps):
        optimizer.zero_grad()
        head.losses(net(x), y).mean().backward()
        optimizer.step()


@contextmanager
def seeded(generator: Generator | None, device: torch.device) -> Iterator[None]:
    """Within it, torch's own randomness on the CPU and on `device` follows a number drawn from `generator`.

    Networks initialise themselves, and drop out, by torch's global generators, which are as before afterwards.
    """
    where = "cpu" if generator is None else generator.device
    seed = int(torch.randint(2**62, (), generator=generator, device=where))
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
