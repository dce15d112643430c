"""Second derivatives that PyTorch lacks, or has wrong."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Within it, what a network computes can be differentiated twice, and rightly.

    Attention, weight normalisation, and the gains and shifts of other normalisations are taken by their definitions.
    Fused kernels of attention have no second derivative; that of the fused weight normalisation is wrong on a CPU; and
    that of a fused gain is wrong under `vmap` (2.13). Neither of the latter says anything.
    """
    with sdpa_kernel(SDPBackend.MATH), Defined():
        yield


class Defined(TorchFunctionMode):
    """Within it, torch's normalisations are those of `DEFINITIONS`."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, arguments: tuple[Any, ...] = (), options: Any = None
    ) -> Any:
        taken: Callable[..., Any] = DEFINITIONS.get(function, function)
        return taken(*arguments, **(options or {}))


def weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    r"""$w = g\, v / \|v\|$, with a norm for each index of an axis, or of the whole for -1."""
    return v * (g / torch.norm_except_dim(v, 2, dim))


def with_gain(function: Callable[..., Tensor], names: str, *, of_channels: bool) -> Callable[..., Tensor]:
    r"""A normalisation $y = g\, (x - \mu) / \sigma + b$ whose gain and shift are not fused.

    Args:
        function: Of torch.
        names: Of its arguments, in order.
        of_channels: Whether gain and shift are those of the second axis, and not of the last ones.
    """
    order = names.split()

    def normalised(*arguments: Any, **options: Any) -> Tensor:
        given = dict(zip(order, arguments)) | options
        gain, shift = given.get("weight"), given.get("bias")
        y = function(**given | {"weight": None, "bias": None})
        shape = (-1, *[1] * (y.dim() - 2))
        y = y if gain is None else y * (gain.view(shape) if of_channels else gain)
        return y if shift is None else y + (shift.view(shape) if of_channels else shift)

    return normalised


MOVING = "input running_mean running_var weight bias"
FUSED = "input weight bias running_mean running_var"
DEFINITIONS: Mapping[Callable[..., Any], Callable[..., Tensor]] = {
    torch._weight_norm: weight_norm,
    F.layer_norm: with_gain(F.layer_norm, "input normalized_shape weight bias eps", of_channels=False),
    torch.layer_norm: with_gain(
        torch.layer_norm, "input normalized_shape weight bias eps cudnn_enable", of_channels=False
    ),
    F.instance_norm: with_gain(F.instance_norm, f"{MOVING} use_input_stats momentum eps", of_channels=True),
    torch.instance_norm: with_gain(
        torch.instance_norm, f"{FUSED} use_input_stats momentum eps cudnn_enabled", of_channels=True
    ),
    F.batch_norm: with_gain(F.batch_norm, f"{MOVING} training momentum eps", of_channels=True),
    torch.batch_norm: with_gain(torch.batch_norm, f"{FUSED} training momentum eps cudnn_enabled", of_channels=True),
}
