"""Second derivatives that PyTorch lacks, or has wrong."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrizations
from torch.nn.utils.weight_norm import WeightNorm
from torch.overrides import TorchFunctionMode


@contextmanager
def twice_differentiable(net: nn.Module) -> Iterator[None]:
    """Within it, what `net` computes can be differentiated twice, and rightly.

    Attention and weight normalisation are taken by their definitions: fused kernels of the one have no second
    derivative; the fused kernel of the other has one that is wrong on a CPU (2.13), and says nothing.
    """
    with sdpa_kernel(SDPBackend.MATH), DefinedWeightNorm() if has_weight_norm(net) else nullcontext():
        yield


class DefinedWeightNorm(TorchFunctionMode):
    """Within it, torch's weight normalisation is `weight_norm`."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, arguments: tuple[Any, ...] = (), options: Any = None
    ) -> Any:
        return (weight_norm if function is torch._weight_norm else function)(*arguments, **(options or {}))


def weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    r"""$w = g\, v / \|v\|$, with a norm for each index of an axis, or of the whole for -1."""
    return v * (g / torch.norm_except_dim(v, 2, dim))


def has_weight_norm(net: nn.Module) -> bool:
    """Whether a layer has torch's weight normalisation: a parametrization, or formerly a hook."""
    return any(
        isinstance(part, (parametrizations._WeightNorm, WeightNorm))
        for module in net.modules()
        for part in (module, *module._forward_pre_hooks.values())
    )
