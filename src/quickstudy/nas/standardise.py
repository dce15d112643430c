"""Inputs of mean zero and spread one, as the first link of a network."""

from collections import OrderedDict

import torch
from torch import Tensor, nn

RESOLUTION = 1e-6
"""The part of a channel's largest value below which its spread is no more than rounding."""


class Standardise(nn.Module):
    r"""Subtracts a mean from each channel, and divides by a spread: $(x - \mu_c) / \sigma_c$.

    Both are buffers: they are saved and exported with a network, and they are no parameters.

    Args:
        mean: `(channels,)`.
        spread: `(channels,)`, positive.

    Example:
        >>> import torch
        >>> from quickstudy.nas.standardise import Standardise
        >>> x = 3 + 2 * torch.randn(100, 5, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> z = Standardise.of(x)(x)
        >>> z.mean().abs().item() < 1e-5, round(z.std().item(), 2)
        (True, 1.0)
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, mean: Tensor, spread: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean.clone())
        self.register_buffer("spread", spread.clone())

    @classmethod
    def of(cls, x: Tensor) -> "Standardise":
        """That of examples `(n, channels, *size)`; a channel that never varies is only moved."""
        over = [0, *range(2, x.dim())]
        # squares of small numbers are none in float32
        spread, mean = torch.std_mean(x.double(), dim=over, correction=0)
        varies = spread > RESOLUTION * x.abs().amax(over)
        return cls(mean.to(x.dtype), torch.where(varies, spread, 1.0).to(x.dtype))

    def forward(self, x: Tensor) -> Tensor:
        """`(n, channels, *size)` to the same."""
        shape = (-1, *[1] * (x.dim() - 2))
        return (x - self.mean.view(shape)) / self.spread.view(shape)


def standardised(network: nn.Sequential, x: Tensor) -> nn.Sequential:
    """The chain of a network with the standardisation of these examples before it; it shares the network's weights."""
    links = OrderedDict[str, nn.Module]([("standardise", Standardise.of(x))])
    links.update(network.named_children())
    return nn.Sequential(links)
