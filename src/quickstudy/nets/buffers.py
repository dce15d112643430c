"""Buffers of a network, kept as they are."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from quickstudy.nets.batch_norm import BatchNorm


@contextmanager
def keeping_buffers(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Within it, these modules have copies of their buffers; whatever `forward` makes of those is forgotten.

    `BatchNorm` keeps its own, which know when to stay as they are, and so does what TorchScript has compiled.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from quickstudy.nets.buffers import keeping_buffers
        >>> net = nn.InstanceNorm1d(2, track_running_stats=True)
        >>> with keeping_buffers(net.modules()):
        ...     _ = net(torch.ones(3, 2, 5))
        ...     net.running_mean
        tensor([0.1000, 0.1000])
        >>> net.running_mean
        tensor([0., 0.])
    """
    kept = [
        (module._buffers, dict(module._buffers))
        for module in modules
        if module._buffers and not isinstance(module, (BatchNorm, torch.jit.ScriptModule))
    ]
    for buffers, own in kept:
        buffers.update((name, value if value is None else value.clone()) for name, value in own.items())
    try:
        yield
    finally:
        for buffers, own in kept:
            buffers.clear()
            buffers.update(own)
