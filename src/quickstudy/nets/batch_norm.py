"""Batch normalisation whose statistics are always explicit."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Moments(NamedTuple):
    """Mean and variance of each channel, `(c,)` each."""

    mean: Tensor
    var: Tensor


class BatchNorm(nn.Module):
    r"""Batch normalisation over all axes but the second, of any number of dimensions.

    $$y = \gamma \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta$$

    By itself it does what `torch.nn.BatchNorm2d` does: in training mode $\mu$ and $\sigma^2$ are those of the
    batch, and update the running averages; in evaluation mode they are the running averages. Inside
    `normalised_by` they are the moments that the caller gives, and inside `moments_of` they are the batch's, which
    the caller receives; both leave the running averages alone. Parameters and buffers bear torch's names.

    Args:
        channels: `c`, the size of the second axis.
        eps: Added to the variance.
        momentum: Weight of the new batch in the running averages.

    References:
        Ioffe and Szegedy, [Batch Normalization](https://arxiv.org/abs/1502.03167), 2015.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, channels: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.int64))
        self.eps, self.momentum = eps, momentum
        self.given: Moments | None = None
        self.observing = False
        self.observed: Moments | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Normalises `(n, c, *size)`."""
        moments = self.given
        if moments is None and not self.training and not self.observing:
            moments = Moments(self.running_mean, self.running_var)
        if moments is None:
            axes = [0, *range(2, x.ndim)]
            var, mean = torch.var_mean(x, axes, correction=0)
            moments = Moments(mean, var)
            if self.observing:
                self.observed = moments
            else:
                self._track(moments, x.numel() // x.shape[1])
        scale = self.weight * torch.rsqrt(moments.var + self.eps)
        shift = self.bias - moments.mean * scale
        shape = (-1, *(1,) * (x.ndim - 2))
        return torch.addcmul(shift.view(shape), x, scale.view(shape))

    @torch.no_grad()
    def _track(self, moments: Moments, n: int) -> None:
        unbiased = moments.var * (n / max(n - 1, 1))
        self.running_mean.lerp_(moments.mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        self.num_batches_tracked += 1

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}, eps={self.eps}, momentum={self.momentum}"


def make_batch_norm_explicit(net: nn.Module) -> nn.Module:
    """Replaces torch's batch normalisation layers inside `net` by `BatchNorm`, in place; weights and names stay.

    Returns `net`, or its replacement where `net` itself is such a layer.
    """
    # Torch names the layers that normalise each channel over a batch only by this private class.
    if isinstance(net, nn.modules.batchnorm._BatchNorm):
        explicit = BatchNorm(net.num_features, eps=net.eps, momentum=0.1 if net.momentum is None else net.momentum)
        explicit.load_state_dict({**explicit.state_dict(), **net.state_dict()})
        device = next((p.device for p in net.parameters()), None)
        return explicit.train(net.training).to(device) if device is not None else explicit.train(net.training)
    for name, child in net.named_children():
        replacement = make_batch_norm_explicit(child)
        if replacement is not child:
            setattr(net, name, replacement)
    return net


def batch_norms(net: nn.Module) -> dict[str, BatchNorm]:
    """The batch normalisation layers of `net` by name."""
    return {name: module for name, module in net.named_modules() if isinstance(module, BatchNorm)}


@contextmanager
def normalised_by(net: nn.Module, moments: Mapping[str, Moments]) -> Iterator[None]:
    """Within it, each layer of `net` named in `moments` normalises by those."""
    layers = batch_norms(net)
    for name, given in moments.items():
        layers[name].given = given
    try:
        yield
    finally:
        for layer in layers.values():
            layer.given = None


@contextmanager
def moments_of(net: nn.Module) -> Iterator[dict[str, Moments]]:
    """Within it, layers normalise by their batch; the dictionary holds the moments of the last one afterwards."""
    layers = batch_norms(net)
    observed: dict[str, Moments] = {}
    for layer in layers.values():
        layer.observing = True
    try:
        yield observed
        observed.update({name: layer.observed for name, layer in layers.items() if layer.observed is not None})
    finally:
        for layer in layers.values():
            layer.observing, layer.observed = False, None
