"""Products of patches, of which only the maxima remain, are those of the operations that they stand for."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad, vmap

from quickstudy.nets import pooled_product as module
from quickstudy.nets.pooled_product import pooled_product

TASKS, N, H, W, P, C = 3, 4, 7, 6, 5, 2
EVERYTHING, A_TASK, A_PICTURE = 1 << 20, 2 * N * H * W * C, H * W * C


@pytest.fixture(params=[EVERYTHING, A_TASK, A_PICTURE, 1], ids=["everything", "some tasks", "a picture", "nothing"])
def at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "VALUES_AT_ONCE", request.param)


@pytest.fixture
def patches() -> Tensor:
    made = torch.randn(TASKS, N, H, W, P, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    made[:, 0, :2, :2] = made[:, 0, :1, :1].clone()  # four equal maxima
    return made


@pytest.fixture
def kernels() -> Tensor:
    return torch.randn(TASKS, P, C, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def written_out(patches: Tensor, kernels: Tensor) -> Tensor:
    return F.relu(F.max_pool2d((patches @ kernels).permute(0, 3, 1, 2), 2))


def step(function: Callable[[Tensor, Tensor], Tensor], patches: Tensor, kernels: Tensor) -> Tensor:
    """What a step of gradient descent leaves, differentiable."""
    return kernels - 0.1 * grad(lambda k: function(patches, k).pow(3).sum())(kernels)


@pytest.mark.usefixtures("at_once")
def test_they_are_product_pooling_and_relu(patches: Tensor, kernels: Tensor) -> None:
    torch.testing.assert_close(pooled_product(patches[0], kernels[0]), written_out(patches[0], kernels[0]))


@pytest.mark.usefixtures("at_once")
def test_derivatives_of_first_and_second_order_are_exact_for_a_batch_of_tasks(patches: Tensor, kernels: Tensor) -> None:
    def adapted_values_and_gradient(function: Callable[[Tensor, Tensor], Tensor]) -> list[Tensor]:
        leaf = kernels.clone().requires_grad_()
        adapted = vmap(lambda p, k: step(function, p, k))(patches, leaf)
        values = vmap(function)(patches, adapted)
        return [values, *torch.autograd.grad(values.sin().sum(), leaf)]

    for found, expected in zip(*map(adapted_values_and_gradient, (pooled_product, written_out))):
        torch.testing.assert_close(found, expected)


def test_tasks_may_share_kernels_or_patches(patches: Tensor, kernels: Tensor) -> None:
    for axes in ((0, None), (None, 0)):
        own = [tensor if axis == 0 else tensor[0] for tensor, axis in zip((patches, kernels), axes)]
        torch.testing.assert_close(vmap(pooled_product, axes)(*own), vmap(written_out, axes)(*own))
    nested = vmap(vmap(pooled_product, (None, 0)), (0, None))(patches, kernels)
    torch.testing.assert_close(nested, vmap(vmap(written_out, (None, 0)), (0, None))(patches, kernels))


def test_derivatives_of_any_order_are_those_of_finite_differences(patches: Tensor, kernels: Tensor) -> None:
    leaf = kernels[0].requires_grad_()
    assert torch.autograd.gradcheck(lambda k: pooled_product(patches[0, 1:], k), leaf)
    assert torch.autograd.gradgradcheck(lambda k: pooled_product(patches[0, 1:], k).pow(3), leaf)

    def third(function: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        return grad(lambda k: step(function, patches[0], step(function, patches[0], k)).sum())(kernels[0].detach())

    torch.testing.assert_close(third(pooled_product), third(written_out))


def test_patches_have_a_gradient_where_they_want_one(patches: Tensor, kernels: Tensor) -> None:
    def gradient(function: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        return grad(lambda p: function(p, kernels[0]).sum())(patches[0])

    leaf = patches[0].clone().requires_grad_()
    pooled_product(leaf, kernels[0]).sum().backward()
    assert leaf.grad is not None
    for found in (leaf.grad, gradient(pooled_product)):
        torch.testing.assert_close(found, gradient(written_out))


def test_the_places_of_large_pictures_are_remembered() -> None:
    x = torch.rand(1, 200, 190, 3, generator=torch.Generator().manual_seed(0))
    kernels = torch.rand(3, 2, generator=torch.Generator().manual_seed(1))

    def gradient(function: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        return grad(lambda k: function(x, k).sum())(kernels)

    torch.testing.assert_close(gradient(pooled_product), gradient(written_out))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_mixed_precision_is_left_to_torch(dtype: torch.dtype, patches: Tensor, kernels: Tensor) -> None:
    leaf = kernels[0].float().requires_grad_()
    with torch.autocast("cpu", dtype):
        values = pooled_product(patches[0].float(), leaf)
    assert values.dtype == dtype
    values.sum().backward()
    assert leaf.grad is not None
