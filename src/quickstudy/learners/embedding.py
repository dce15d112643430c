"""Embedding batches of tasks, which metric learners share."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.nets.buffers import keeping_buffers
from quickstudy.tasks.task import Examples, Task


def embed(net: nn.Module, *sets: Examples) -> tuple[Tensor, ...]:
    """Embeds sets `(b, n, *input)` into `(b, n, *features)`, all in one forward pass; masked examples become zero.

    In training mode batch normalisation therefore sees support and query as one batch, of the real examples alone.
    """
    sizes = [examples.y.shape[0] * examples.y.shape[1] for examples in sets]
    flat = torch.cat([examples.x.flatten(0, 1) for examples in sets])
    if all(examples.mask is None for examples in sets):
        z = _forward(net, flat)
    else:
        real = torch.cat([examples.real().flatten() for examples in sets])
        z = scatter(_forward(net, flat[real]), real)
    return tuple(part.unflatten(0, examples.y.shape[:2]) for part, examples in zip(z.split(sizes), sets))


def embed_inductively(net: nn.Module, x: Tensor) -> Tensor:
    """Embeds `(b, n, *input)` with running statistics and without dropout, whatever mode `net` is in."""
    with evaluating(net):
        z: Tensor = _forward(net, x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return z


def scatter(values: Tensor, real: Tensor) -> Tensor:
    """Rows `(m, *size)` where `real` `(n,)` is true, `m` times, and zeros elsewhere: `(n, *size)`."""
    return values.new_zeros(len(real), *values.shape[1:]).index_put((real,), values)


def _forward(net: nn.Module, flat: Tensor) -> Tensor:
    if flat.ndim == 4:
        flat = flat.contiguous(memory_format=torch.channels_last)
    z: Tensor = net(flat)
    return z


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Within it, every part of `net` is in evaluation mode; afterwards each has its former mode and buffers."""
    modules = list(net.modules())
    modes = [module.training for module in modules]
    net.eval()
    try:
        with keeping_buffers(modules):
            yield
    finally:
        for module, training in zip(modules, modes):
            module.training = training


def one_hot(examples: Examples, n_way: int) -> Tensor:
    """Labels as `(b, n, k)`, rows of masked examples zero."""
    return F.one_hot(examples.y, n_way) * examples.real()[..., None]


def is_absent(task: Task) -> Tensor:
    """Classes that no example of the support set is of, `(b, 1, k)`."""
    assert task.n_way is not None
    return (one_hot(task.support, task.n_way).sum(1) == 0)[:, None]


def without(logits: Tensor, absent: Tensor) -> Tensor:
    """Logits `(b, q, k)` that give absent classes no probability, and a loss that is finite all the same."""
    return logits.masked_fill(absent, torch.finfo(logits.dtype).min / 4)
