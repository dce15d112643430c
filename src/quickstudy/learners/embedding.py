"""Embedding batches of tasks, which metric learners share."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.tasks.task import Examples


def embed(net: nn.Module, *xs: Tensor) -> tuple[Tensor, ...]:
    """Embeds sets `(b, n, *input)` into `(b, n, *features)`, all in one forward pass.

    In training mode batch normalisation therefore sees support and query as one batch.
    """
    flat = torch.cat([x.flatten(0, 1) for x in xs])
    if flat.ndim == 4:
        flat = flat.contiguous(memory_format=torch.channels_last)
    z: Tensor = net(flat)
    parts = z.split([x.shape[0] * x.shape[1] for x in xs])
    return tuple(part.unflatten(0, x.shape[:2]) for part, x in zip(parts, xs))


def embed_inductively(net: nn.Module, x: Tensor) -> Tensor:
    """Embeds `(b, n, *input)` with running statistics and without dropout, whatever mode `net` is in."""
    with evaluating(net):
        return embed(net, x)[0]


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Within it, every part of `net` is in evaluation mode; afterwards each is in its former mode."""
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def one_hot(examples: Examples, n_way: int) -> Tensor:
    """Labels as `(b, n, k)`, rows of masked examples zero."""
    return F.one_hot(examples.y, n_way) * examples.real()[..., None]
