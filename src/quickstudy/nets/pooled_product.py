"""Products of patches with kernels, of which only the maxima remain."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

VALUES_AT_ONCE = 1 << 18
"""As many products as one core's cache has room for."""
WINDOW = ([2, 2], [2, 2], [0, 0], [1, 1], False)  # size, stride, padding, dilation, whether sizes are rounded up
pool, pool_backward = torch.ops.aten.max_pool2d_with_indices, torch.ops.aten.max_pool2d_with_indices_backward
relu_backward = torch.ops.aten.threshold_backward


def pooled_product(patches: Tensor, kernels: Tensor) -> Tensor:
    r"""The largest of the products $P K$ among 2x2 positions, or zero where that is negative.

    On a processor the products are made and pooled in parts that fit into its cache, and are not kept: only one in
    four has a gradient, and where it belongs is remembered. Derivatives of any order are exact.

    Args:
        patches: `(n, h, w, p)`.
        kernels: `(p, c)`.

    Returns:
        `(n, c, h // 2, w // 2)`, stored with its channels last.

    Example:
        >>> import torch
        >>> pooled_product(torch.rand(5, 28, 28, 9), torch.rand(9, 64)).shape
        torch.Size([5, 64, 14, 14])
    """
    full = kernels.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled(patches.device.type)
    if patches.device.type == "cpu" and full and not wants_gradient(patches):
        values: Tensor = _PooledProduct.apply(patches, kernels)[0]  # type: ignore[no-untyped-call]
        return values
    return F.relu(F.max_pool2d((patches @ kernels).permute(0, 3, 1, 2), 2))


def wants_gradient(x: Tensor) -> bool:
    """Whether a tensor is part of a graph, be it one outside of the `vmap` within which it is asked, which hides it."""
    functorch = torch._C._functorch
    while not x.requires_grad and functorch.is_functorch_wrapped_tensor(x):
        x = functorch.get_unwrapped(x)
    return x.requires_grad


class _PooledProduct(torch.autograd.Function):
    """The product, and the place of each maximum in its picture. Tensors may have an axis of tasks in front."""

    @staticmethod
    def forward(patches: Tensor, kernels: Tensor) -> tuple[Tensor, Tensor]:
        *b, n, h, w, _ = patches.shape
        values = kernels.new_empty(*b, n, h // 2, w // 2, kernels.shape[-1]).movedim(-1, -3)
        small = torch.int16 if h * w <= torch.iinfo(torch.int16).max else torch.int32
        places = torch.empty_like(values, dtype=small)
        for part, kernel, value, place in in_parts(patches, kernels, values, places):
            out = value.flatten(0, -4)
            indices = torch.empty_like(out, dtype=torch.int64)
            pool(products(part, kernel), *WINDOW, out=out, indices=indices)
            out.relu_()
            place.copy_(indices.view(place.shape))
        return values, places

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
        values, places = output
        ctx.mark_non_differentiable(places)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(inputs[0], values, places)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor | None, _: None) -> tuple[None, Tensor | None]:
        if cotangent is None:
            return None, None
        patches, values, places = ctx.saved_tensors
        return None, _PutBack.apply(cotangent, patches, values.detach(), places)  # type: ignore[no-untyped-call]

    @staticmethod
    def vmap(info: Any, axes: Sequence[int | None], *tensors: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        return _PooledProduct.apply(*with_tasks_in_front(info, axes, tensors)), (0, 0)  # type: ignore[no-untyped-call]


class _PutBack(torch.autograd.Function):
    """The cotangent of the kernels; a linear map whose transpose is `_Take`."""

    @staticmethod
    def forward(cotangent: Tensor, patches: Tensor, values: Tensor, places: Tensor) -> Tensor:
        *b, _, h, w, p = patches.shape
        c = values.shape[-3]
        found = values.new_zeros(*b, p, c)
        for part, total, given, value, place in in_parts(patches, found, cotangent, values, places):
            given, indices = relu_backward(given, value, 0).flatten(0, -4), place.flatten(0, -4).long()
            given = given.contiguous(memory_format=torch.channels_last)
            back = given.new_empty(len(given), h, w, c).permute(0, 3, 1, 2)
            pool_backward(given, back, *WINDOW, indices, grad_input=back)
            part, flat = (
                each.reshape(*total.shape[:-2], -1, each.shape[-1]) for each in (part, back.permute(0, 2, 3, 1))
            )
            total += part.mT @ flat
        return found

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, kernels: Tensor) -> tuple[Tensor, None, None, None]:
        patches, values, places = ctx.saved_tensors
        found: Tensor = _Take.apply(patches, kernels, values, places)  # type: ignore[no-untyped-call]
        return found, None, None, None

    @staticmethod
    def vmap(info: Any, axes: Sequence[int | None], *tensors: Tensor) -> tuple[Tensor, int]:
        return _PutBack.apply(*with_tasks_in_front(info, axes, tensors)), 0  # type: ignore[no-untyped-call]


class _Take(torch.autograd.Function):
    """The products in given places, or zero where the maximum was; a linear map whose transpose is `_PutBack`."""

    @staticmethod
    def forward(patches: Tensor, kernels: Tensor, values: Tensor, places: Tensor) -> Tensor:
        found = torch.empty_like(values)
        for part, kernel, taken, value, place in in_parts(patches, kernels, found, values, places):
            flat, indices = (
                maps.flatten(0, -4).permute(0, 2, 3, 1).flatten(1, 2) for maps in (products(part, kernel), place)
            )
            chosen = flat.gather(1, indices.long()).view(value.movedim(-3, -1).shape).movedim(-1, -3)
            taken.copy_(relu_backward(chosen, value, 0))
        return found

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        patches, _, values, places = inputs
        ctx.save_for_backward(patches, values, places)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[None, Tensor, None, None]:
        return None, _PutBack.apply(cotangent, *ctx.saved_tensors), None, None  # type: ignore[no-untyped-call]

    @staticmethod
    def vmap(info: Any, axes: Sequence[int | None], *tensors: Tensor) -> tuple[Tensor, int]:
        return _Take.apply(*with_tasks_in_front(info, axes, tensors)), 0  # type: ignore[no-untyped-call]


def products(patches: Tensor, kernels: Tensor) -> Tensor:
    """`(n, c, h, w)`, of all tasks one after another."""
    *_, h, w, p = patches.shape
    made = patches.reshape(*kernels.shape[:-2], -1, p) @ kernels
    return made.view(-1, h, w, kernels.shape[-1]).permute(0, 3, 1, 2)


def in_parts(patches: Tensor, kernels: Tensor, *maps: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """All of it in parts of as many tasks, or pictures of one, as the cache has room for, with the kernels of each."""
    n, h, w, _ = patches.shape[-4:]
    pictures = max(1, VALUES_AT_ONCE * torch.get_num_threads() // (h * w * kernels.shape[-1]))
    if patches.ndim == 4:
        for part, *rest in zip(*(each.split(pictures) for each in (patches, *maps))):
            yield part, kernels, *rest
    elif patches.ndim == 5 and pictures >= 2 * n:
        yield from zip(*(each.split(pictures // n) for each in (patches, kernels, *maps)))
    else:
        for own in zip(patches, kernels, *maps):
            yield from in_parts(*own)


def with_tasks_in_front(info: Any, axes: Sequence[int | None], tensors: Sequence[Tensor]) -> list[Tensor]:
    """What `vmap` hands to a function, each with the axis of tasks in front."""
    return [
        tensor.expand(info.batch_size, *tensor.shape) if axis is None else tensor.movedim(axis, 0)
        for tensor, axis in zip(tensors, axes)
    ]
