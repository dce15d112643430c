"""BatchNorm is torch's, with its statistics in the open."""

import copy
import logging
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from quickstudy.errors import ShapeError
from quickstudy.nets.batch_norm import (
    BatchNorm,
    batch_norms,
    make_batch_norm_explicit,
    moments_among,
    moments_of,
    normalised_by,
    normalised_by_batch,
)

KINDS = {
    "vectors": (nn.BatchNorm1d, (6, 4)),
    "series": (nn.BatchNorm1d, (6, 4, 5)),
    "pictures": (nn.BatchNorm2d, (6, 4, 5, 3)),
    "volumes": (nn.BatchNorm3d, (3, 4, 5, 3, 2)),
}
SETTINGS: dict[str, dict[str, object]] = {
    "as usual": {},
    "another momentum and epsilon": {"momentum": 0.3, "eps": 1e-2},
    "cumulative averages": {"momentum": None},
    "not affine": {"affine": False},
}


def batches(*shape: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [2 * torch.randn(*shape, generator=generator) + i for i in range(4)]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_it_does_what_torch_does(kind: str, settings: str) -> None:
    make, shape = KINDS[kind]
    theirs = make(4, **SETTINGS[settings])  # type: ignore[arg-type]
    for p in theirs.parameters():
        nn.init.normal_(p)
    ours = make_batch_norm_explicit(copy.deepcopy(theirs))
    assert isinstance(ours, BatchNorm)
    for x in batches(*shape):
        for net in (ours, theirs):
            net.train()
        torch.testing.assert_close(ours(x), theirs(x))
        for net in (ours, theirs):
            net.eval()
        torch.testing.assert_close(ours(x), theirs(x))
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)


def test_gradients_are_those_of_torch() -> None:
    theirs = nn.BatchNorm2d(4).double()
    ours = make_batch_norm_explicit(copy.deepcopy(theirs))
    x, weights = (batch.double() for batch in batches(6, 4, 5, 3)[:2])
    found = []
    for net in (ours, theirs):
        own = x.clone().requires_grad_()
        (net(own) * weights).sum().backward()
        found.append([own.grad, *(p.grad for p in net.parameters())])
    torch.testing.assert_close(found[0], found[1])


def test_weights_and_averages_of_a_users_network_are_kept() -> None:
    theirs = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Sequential(nn.Linear(4, 3)))
    theirs(batches(5, 6)[0])
    state = copy.deepcopy(theirs.state_dict())
    ours = make_batch_norm_explicit(copy.deepcopy(theirs))
    assert list(batch_norms(ours)) == ["1"]
    assert ours.state_dict().keys() == state.keys()
    for name, value in state.items():
        assert torch.equal(ours.state_dict()[name], value)
    x = batches(5, 6)[1]
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_a_layer_used_twice_stays_one_layer() -> None:
    shared = nn.BatchNorm1d(4)
    net = make_batch_norm_explicit(nn.Sequential(shared, nn.ReLU(), shared))
    assert isinstance(net, nn.Sequential)
    assert isinstance(net[0], BatchNorm)
    assert net[0] is net[2]


def test_precision_mode_and_frozen_parameters_are_kept() -> None:
    theirs = nn.BatchNorm2d(4).double().eval()
    theirs.weight.requires_grad_(False)
    ours = make_batch_norm_explicit(theirs)
    assert isinstance(ours, BatchNorm)
    assert ours.weight is not None
    assert ours.weight.dtype == ours.running_mean.dtype == torch.float64
    assert not ours.training
    assert [p.requires_grad for p in ours.parameters()] == [False, True]


def test_a_layer_without_running_averages_keeps_them_from_then_on_and_the_log_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    x = batches(6, 4)[0]
    theirs = nn.BatchNorm1d(4, track_running_stats=False)
    with caplog.at_level(logging.WARNING):
        ours = make_batch_norm_explicit(copy.deepcopy(theirs))
    assert "running averages" in caplog.text
    torch.testing.assert_close(ours.train()(x), theirs.train()(x))
    ours.eval()
    torch.testing.assert_close(ours(x[:1]), ours(x)[:1])


def test_a_lazy_layer_is_refused_until_it_has_seen_a_batch() -> None:
    with pytest.raises(ShapeError, match="Run the network once"):
        make_batch_norm_explicit(nn.LazyBatchNorm1d())


class WithReLU(nn.BatchNorm1d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


def hooked() -> nn.Module:
    layer = nn.BatchNorm1d(4)
    layer.register_forward_hook(lambda module, inputs, output: output.relu())
    return layer


def parametrised() -> nn.Module:
    layer = nn.BatchNorm1d(4)
    torch.nn.utils.parametrize.register_parametrization(layer, "weight", nn.Softplus())
    return layer


@pytest.mark.parametrize(
    ("make", "extra"),
    [(lambda: WithReLU(4), "forward of its own"), (hooked, "hooks"), (parametrised, "parametrizations")],
)
def test_a_layer_that_does_more_than_torchs_is_refused(make: Callable[[], nn.Module], extra: str) -> None:
    with pytest.raises(ShapeError, match=extra):
        make_batch_norm_explicit(nn.Sequential(nn.Linear(6, 4), make()))


class Renamed(nn.BatchNorm1d):
    """Torch's by another name."""


@pytest.mark.parametrize("make", [Renamed, nn.SyncBatchNorm])
def test_a_layer_that_does_what_torchs_does_is_taken(make: type[nn.Module]) -> None:
    assert isinstance(make_batch_norm_explicit(make(4)), BatchNorm)


def test_a_lazy_layer_is_taken_when_it_has_seen_a_batch() -> None:
    layer = nn.LazyBatchNorm1d()
    layer(batches(6, 4)[0])
    assert isinstance(make_batch_norm_explicit(layer), BatchNorm)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("share", [None, torch.full((6,), 1 / 6)])
def test_moments_of_half_precision_are_those_of_float32(dtype: torch.dtype, share: Tensor | None) -> None:
    x = (200 * batches(6, 4, 5, 3)[0]).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        found = moments_among(x, share)
    for one, expected in zip(found, moments_among(x.float(), share)):
        torch.testing.assert_close(one, expected)


def test_in_mixed_precision_vmap_takes_the_layer() -> None:
    layer, x = BatchNorm(4), torch.stack(batches(6, 4))
    with moments_of(layer), torch.autocast("cpu", torch.bfloat16):
        found = torch.func.vmap(layer)(x.bfloat16())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), torch.stack([layer.train()(one) for one in x]), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("kept", [{}, {"share": torch.full((6,), 1 / 6)}])
def test_a_layer_used_twice_has_moments_for_each_use(kept: dict[str, Tensor]) -> None:
    shared = BatchNorm(4)
    net = nn.Sequential(shared, nn.Tanh(), shared, nn.Sequential(BatchNorm(4)))
    a, b = batches(6, 4)[:2]
    with moments_of(net, **kept) as moments:
        of_batch = net(a)
    assert list(moments) == ["0.1", "0.2", "3.0"]
    for _ in range(2):
        with normalised_by(net, moments):
            torch.testing.assert_close(net(a), of_batch)
            torch.testing.assert_close(net(b)[:1], net(b[:1]))


def test_given_moments_are_used_and_running_averages_left_alone() -> None:
    net = nn.Sequential(BatchNorm(4))
    a, b = batches(6, 4, 5, 3)[:2]
    before = copy.deepcopy(net.state_dict())
    with moments_of(net) as moments:
        of_batch = net(a)
    with normalised_by_batch(net):
        torch.testing.assert_close(net(a), of_batch)
    with normalised_by(net, moments):
        torch.testing.assert_close(net(a), of_batch)
        torch.testing.assert_close(net(b)[:1], net(b[:1]))
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 5, 3)])
def test_examples_without_a_share_do_not_count(shape: tuple[int, ...]) -> None:
    x = batches(*shape)[0]
    share = torch.tensor([0.25, 0.25, 0.0, 0.25, 0.25, 0.0])
    for found, expected in zip(moments_among(x, share), moments_among(x[share > 0])):
        torch.testing.assert_close(found, expected)
    net = nn.Sequential(BatchNorm(4))
    with normalised_by_batch(net, share):
        found = net(x)[share > 0]
    with normalised_by_batch(net):
        torch.testing.assert_close(found, net(x[share > 0]))


def test_an_error_inside_leaves_layers_as_they_were() -> None:
    layer = BatchNorm(4)
    net = nn.Sequential(layer)
    for context in (moments_of(net), normalised_by_batch(net), normalised_by(net, {})):
        with pytest.raises(RuntimeError), context:
            net(torch.rand(2, 3))
        assert (layer.given, layer.source, layer.share, layer.observed) == (None, "mode", None, None)


@pytest.mark.parametrize("shape", [(6, 3), (6, 3, 5, 4)])
def test_moments_of_a_batch_of_tasks_and_their_derivatives_are_those_of_each(shape: tuple[int, ...]) -> None:
    x = torch.randn(2, 4, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()

    def of_moments(x: Tensor) -> Tensor:
        mean, var = moments_among(x)
        return (mean.sin() * var.exp()).sum()

    def written_out(x: Tensor) -> Tensor:
        axes = [0, *range(2, x.ndim)]
        return (x.mean(axes).sin() * x.var(axes, correction=0).exp()).sum()

    def after_a_step(function: Callable[[Tensor], Tensor]) -> list[Tensor]:
        values = vmap(vmap(lambda x: function(x - 0.1 * grad(function)(x)), in_dims=1))(x.movedim(1, 2))
        return [values, *torch.autograd.grad(values.sum(), x)]

    for found, expected in zip(after_a_step(of_moments), after_a_step(written_out)):
        torch.testing.assert_close(found, expected)
