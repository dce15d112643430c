"""Second derivatives that PyTorch lacks, or has wrong."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.utils import parametrizations
from torch.nn.utils.weight_norm import WeightNorm
from torch.overrides import TorchFunctionMode


@contextmanager
def twice_differentiable(net: nn.Module, *, batched: bool = False) -> Iterator[None]:
    """Within it, what `net` computes can be differentiated twice, and rightly.

    Attention and weight normalisation are taken by their definitions: fused kernels of the one have no second
    derivative; that of the other is wrong on a CPU (2.13), and says nothing. Under `vmap`, so are the gains and shifts
    of other normalisations, whose fused second derivative is wrong there, and says nothing either.

    Args:
        net: A network of torch's and our own layers alone, without normalisations, pays nothing for it.
        batched: Whether it is under `vmap`.
    """
    taken = BATCHED if batched and may_normalise(net) else LOOPED if has_weight_norm(net) else None
    with sdpa_kernel(SDPBackend.MATH), nullcontext() if taken is None else Defined(taken):
        yield


class Defined(TorchFunctionMode):
    """Within it, some functions of torch are others."""

    def __init__(self, definitions: Mapping[Callable[..., Any], Callable[..., Tensor]]) -> None:
        super().__init__()
        self.definitions = definitions

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, arguments: tuple[Any, ...] = (), options: Any = None
    ) -> Any:
        taken: Callable[..., Any] = self.definitions.get(function, function)
        return taken(*arguments, **(options or {}))


def has_weight_norm(net: nn.Module) -> bool:
    """Whether a layer has torch's weight normalisation: a parametrization, or formerly a hook."""
    return any(
        isinstance(part, (parametrizations._WeightNorm, WeightNorm))
        for module in net.modules()
        for part in (module, *module._forward_pre_hooks.values())
    )


def may_normalise(net: nn.Module) -> bool:
    """Whether a network has a layer that normalises with a gain, or layers of the user's own, which may do so."""
    return has_weight_norm(net) or any(
        isinstance(module, nn.LayerNorm | _InstanceNorm)
        or not type(module).__module__.startswith(("torch.nn.", "quickstudy.nets."))
        for module in net.modules()
    )


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
        if given.get("training") is False:  # a running average's: that is right
            return function(**given)
        gain, shift = given.get("weight"), given.get("bias")
        plain = function(**given | {"weight": None, "bias": None})
        shape = (-1, *[1] * (plain.dim() - 2))
        y = plain if gain is None else plain * (gain.view(shape) if of_channels else gain)
        y = y if shift is None else y + (shift.view(shape) if of_channels else shift)
        return y.to(plain.dtype)  # under autocast gain and shift are of another

    return normalised


MOVING = "input running_mean running_var weight bias"
FUSED = "input weight bias running_mean running_var"
LOOPED: Mapping[Callable[..., Any], Callable[..., Tensor]] = {torch._weight_norm: weight_norm}
BATCHED: Mapping[Callable[..., Any], Callable[..., Tensor]] = {
    **LOOPED,
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
