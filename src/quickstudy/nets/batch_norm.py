"""Batch normalisation whose statistics are always explicit."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from quickstudy.errors import ShapeError

logger = logging.getLogger(__name__)

NO_EPS = 1e-30
"""Adds nothing to a variance of one in any precision; some versions of torch refuse 0."""


class Moments(NamedTuple):
    """Mean and variance of each channel, `(c,)` each."""

    mean: Tensor
    var: Tensor


class BatchNorm(nn.Module):
    r"""Batch normalisation over all axes but the second, of any number of dimensions.

    $$y = \gamma \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta$$

    By itself it does what `torch.nn.BatchNorm2d` does: in training mode $\mu$ and $\sigma^2$ are those of the
    batch, and update the running averages; in evaluation mode they are the running averages. Inside
    `normalised_by` they are the moments that the caller gives, inside `normalised_by_batch` and `moments_of` those of
    the batch, which `moments_of` hands to the caller; all of them leave the running averages alone. Parameters and
    buffers bear torch's names. Moments are computed in float32 at least, whatever the precision of the batch.

    Args:
        channels: `c`, the size of the second axis.
        eps: Added to the variance.
        momentum: Weight of the new batch in the running averages; None averages over all batches alike.
        affine: Whether it has $\gamma$ and $\beta$; else they are 1 and 0.

    References:
        Ioffe and Szegedy, [Batch Normalization](https://arxiv.org/abs/1502.03167), 2015.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, channels: int, *, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.int64))
        self.eps, self.momentum = eps, momentum
        self.given: tuple[Moments, ...] | None = None  # one for each call of a forward pass, or one for all
        self.source: Literal["mode", "batch", "observed"] = "mode"
        self.share: Tensor | None = None
        self.observed: tuple[Moments, ...] | None = None  # one for each call
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        """Normalises `(n, c, *size)`."""
        if self.given is not None:
            return self._affine(x, self._next(self.given))
        if self.source == "observed" or (self.source == "batch" and self.share is not None):
            return self._affine(x, self._observe(moments_among(x, self.share)))
        if self.source == "batch":
            return F.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)
        momentum = self._momentum()
        mean, var = self.running_mean, self.running_var
        return F.batch_norm(x, mean, var, self.weight, self.bias, self.training, momentum, self.eps)

    def choose(self, batch: Callable[[Tensor | None], Moments], n: int) -> Moments:
        """The moments to normalise by, for a network that knows a shorter way than `forward`.

        Args:
            batch: Gives the moments of the batch, whose examples have the shares given or equal ones.
            n: Values of a channel in the batch.
        """
        if self.given is not None:
            return self._next(self.given)
        if self.source == "mode" and not self.training:
            return Moments(self.running_mean, self.running_var)
        moments = batch(self.share)
        if self.source == "observed":
            self._observe(moments)
        elif self.source == "mode":
            momentum = self._momentum()
            with torch.no_grad():
                self.running_mean.lerp_(moments.mean.to(self.running_mean.dtype), momentum)
                self.running_var.lerp_((moments.var * n / max(n - 1, 1)).to(self.running_var.dtype), momentum)
        return moments

    def scale_and_shift(self, moments: Moments) -> tuple[Tensor, Tensor]:
        """What normalisation by these moments multiplies by and adds, `(c,)` each."""
        scale = torch.rsqrt(moments.var + self.eps)
        scale = scale if self.weight is None else self.weight * scale
        shift = -moments.mean * scale
        return scale, shift if self.bias is None else self.bias + shift

    def _affine(self, x: Tensor, moments: Moments) -> Tensor:
        scale, shift = (part.to(x.dtype) for part in self.scale_and_shift(moments))  # vmap takes one precision only
        # One fused kernel each way: normalisation by mean 0 and variance 1 leaves its own scale and shift.
        return F.batch_norm(x, torch.zeros_like(shift), torch.ones_like(shift), scale, shift, False, 0.0, NO_EPS)

    def _observe(self, moments: Moments) -> Moments:
        self.observed = (*(self.observed or ()), moments)
        return moments

    def _next(self, given: tuple[Moments, ...]) -> Moments:
        """A network that calls the layer several times has moments for each call, in turn."""
        moments = given[self.calls % len(given)]
        self.calls += 1
        return moments

    def _momentum(self) -> float:
        """The weight of a new batch in the running averages; counts the batch in training mode."""
        if self.training:
            self.num_batches_tracked += 1
        if self.momentum is not None:
            return self.momentum
        return 1 / int(self.num_batches_tracked) if self.training else 0.0

    def extra_repr(self) -> str:
        affine = "" if self.weight is not None else ", affine=False"
        return f"{self.running_mean.numel()}, eps={self.eps}, momentum={self.momentum}{affine}"


class _Moments(torch.autograd.Function):
    """Mean and variance of each channel, with derivatives of one pass each over `x`; torch's own take several.

    `apply(x, tasks)` takes that many axes of tasks in front of `(n, c, *size)`.
    """

    @staticmethod
    def forward(x: Tensor, tasks: int) -> tuple[Tensor, Tensor]:
        if tasks == 0 and x.device.type == "cpu":
            mean, var = torch.batch_norm_update_stats(x, None, None, 0.0)  # makes no copy of x
            return mean, var
        axes = _all_but_channels(x, tasks)
        mean = x.mean(axes, keepdim=True)
        return mean.squeeze(axes), (x - mean).square().mean(axes)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(inputs[0], output[0])
        ctx.tasks = inputs[1]

    @staticmethod
    def backward(ctx: Any, of_mean: Tensor, of_var: Tensor) -> tuple[Tensor, None]:
        x, mean = ctx.saved_tensors
        axes, n = _all_but_channels(x, ctx.tasks), x.numel() // mean.numel()
        shape = [1 if axis in axes else size for axis, size in enumerate(x.shape)]
        slope = of_var * (2 / n)
        return torch.addcmul((of_mean / n - slope * mean).reshape(shape), x, slope.reshape(shape)), None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int, None], x: Tensor, tasks: int
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        return _Moments.apply(x.movedim(in_dims[0], 0), tasks + 1), (0, 0)  # type: ignore[no-untyped-call]


def _all_but_channels(x: Tensor, tasks: int) -> tuple[int, ...]:
    """The axes of `(*tasks, n, c, *size)` that moments are taken over."""
    return tasks, *range(tasks + 2, x.ndim)


def moments_among(x: Tensor, share: Tensor | None = None) -> Moments:
    """The moments of `(n, c, *size)`, each example counting by its share `(n,)`, or alike; in float32 at least."""
    x = at_least_float32(x)
    if share is None:
        return Moments(*_Moments.apply(x, 0))  # type: ignore[no-untyped-call]
    flat, share = x.flatten(2) if x.ndim > 2 else x[..., None], share.to(x.dtype)  # (n, c, positions)
    with without_autocast(x):
        mean = share @ flat.mean(-1)
        return Moments(mean, share @ (flat - mean[:, None]).square().mean(-1))


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision as float32; anything else as it is."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Within it, matrix products on the device of `x` keep their precision: eight bits do not make a variance."""
    device = x.device.type
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


def make_batch_norm_explicit(net: nn.Module) -> nn.Module:
    """Replaces torch's batch normalisation layers inside `net` by `BatchNorm`, in place; weights and names stay.

    A layer that kept no running averages (`track_running_stats=False`) keeps them from then on, since without them a
    query's answer would depend on the others of its batch; the log warns that it has none yet.

    Returns:
        `net`, or its replacement where `net` itself is such a layer.

    Raises:
        ShapeError: Where a lazy layer has not seen its first batch, or a layer does more than torch's: has a `forward`
            of its own, hooks, or parametrizations.
    """
    explicit: dict[nn.Module, nn.Module] = {}  # a layer that is used in several places stays one layer

    def replace(module: nn.Module) -> nn.Module:
        # Torch names the layers that normalise each channel over a batch only by this private class.
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            if module not in explicit:
                explicit[module] = _explicit(module)
            return explicit[module]
        for name, child in module._modules.items():  # named_children leaves out a layer's second place
            if child is not None and (replacement := replace(child)) is not child:
                setattr(module, name, replacement)
        return module

    return replace(net)


def _explicit(layer: nn.modules.batchnorm._BatchNorm) -> BatchNorm:
    if isinstance(layer, nn.modules.lazy.LazyModuleMixin):
        raise ShapeError(f"{layer} does not know its number of channels yet. Run the network once on a batch before.")
    if extra := _what_torch_does_not(layer):
        raise ShapeError(
            f"{layer} has {extra}, which a batch normalisation with explicit statistics would leave out. "
            "Move what it does beside normalising into a module of its own, after a batch normalisation of torch's."
        )
    explicit = BatchNorm(layer.num_features, eps=layer.eps, momentum=layer.momentum, affine=layer.affine)
    own = layer.state_dict()
    if "running_mean" not in own:
        logger.warning(
            "%s kept no running averages; as BatchNorm it keeps them, and has none until it has been trained.", layer
        )
    like = next((value for value in own.values() if value.is_floating_point()), None)
    if like is not None:
        explicit.to(like.device, like.dtype)
    explicit.load_state_dict({**explicit.state_dict(), **own})
    for name, parameter in layer.named_parameters():
        explicit.get_parameter(name).requires_grad_(parameter.requires_grad)
    return explicit.train(layer.training)


def _what_torch_does_not(layer: nn.modules.batchnorm._BatchNorm) -> str | None:
    """What a layer does beside torch's batch normalisation."""
    if "forward" in vars(layer) or type(layer).forward not in (
        nn.modules.batchnorm._BatchNorm.forward,
        nn.SyncBatchNorm.forward,
    ):
        return "a forward of its own"
    if is_parametrized(layer):
        return "parametrizations"
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)
    return "hooks" if any(hooks) else None


def batch_norms(net: nn.Module) -> dict[str, BatchNorm]:
    """The batch normalisation layers of `net` by name."""
    return {name: module for name, module in net.named_modules() if isinstance(module, BatchNorm)}


@contextmanager
def normalised_by(net: nn.Module, moments: Mapping[str, Moments]) -> Iterator[None]:
    """Within it, each layer of `net` named in `moments` normalises by those: see `moments_of`."""
    layers = batch_norms(net)
    for name, given in moments.items():
        layer = layers[name if name in layers else name.rpartition(".")[0]]
        layer.given = (*(layer.given or ()), given)
    try:
        yield
    finally:
        for layer in layers.values():
            layer.given, layer.calls = None, 0


@contextmanager
def normalised_by_batch(net: nn.Module, share: Tensor | None = None) -> Iterator[None]:
    """Within it, layers normalise by their batch, whatever mode they are in.

    Args:
        net: The network.
        share: Each example's share of the moments, `(n,)` and summing to one; equal ones by default.
    """
    layers = batch_norms(net).values()
    for layer in layers:
        layer.source, layer.share = "batch", share
    try:
        yield
    finally:
        for layer in layers:
            layer.source, layer.share, layer.observed = "mode", None, None


@contextmanager
def moments_of(net: nn.Module, share: Tensor | None = None) -> Iterator[dict[str, Moments]]:
    """`normalised_by_batch` that fills a dictionary with the moments that each layer saw when it ends.

    They go by the layer's name; a layer that was called several times has one entry a call, in their order: `norm.1`,
    `norm.2`, and so on.
    """
    layers = batch_norms(net)
    observed: dict[str, Moments] = {}
    for layer in layers.values():
        layer.source, layer.share = "observed", share
    try:
        yield observed
        for name, layer in layers.items():
            calls = layer.observed or ()
            names = [name] if len(calls) == 1 else [f"{name}.{i + 1}" for i in range(len(calls))]
            observed.update(zip(names, calls))
    finally:
        for layer in layers.values():
            layer.source, layer.share, layer.observed = "mode", None, None
