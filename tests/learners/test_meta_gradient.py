"""The meta-gradient against a plain loop of autograd, in float64."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.parametrizations import weight_norm

from quickstudy import MAML, MLP, Conv4, Examples, MAMLPlusPlus, Task
from quickstudy.learners import inner_loop, meta_gradient
from quickstudy.learners.head import head_for
from quickstudy.learners.inner_loop import named_tensors
from quickstudy.learners.meta_gradient import MetaGradient
from quickstudy.nets.batch_norm import BatchNorm

TOLERANCE = 1e-10  # relative, in float64


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def tasks_of(*shape: int, b: int = 3, k: int = 3, queries: int = 2) -> Task:
    x = torch.rand(b, (2 + queries) * k, *shape)
    y = torch.arange(k).repeat(b, 2 + queries)
    return Task(Examples(x[:, : 2 * k], y[:, : 2 * k]), Examples(x[:, 2 * k :], y[:, 2 * k :]), k)


class WithBuiltInNorm(nn.Module):
    """A stranger's network: torch's own batch normalisation, an unused branch, a shared weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.again = nn.Conv2d(4, 4, 3, padding=1)
        self.unused = nn.Linear(3, 3)
        self.out = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.elu(self.norm(self.first(x)))
        x = F.elu(self.again(self.again(x)))
        out: Tensor = self.out(x.mean((-2, -1)))
        return out


class Stubborn(torch.autograd.Function):
    """An operation that knows nothing of vmap."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.tanh()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return g * (1 - x.tanh().square())


class RefusesVmap(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.b(Stubborn.apply(self.a(x)))
        return out


NETS = {
    "linear": (lambda: nn.Linear(6, 3), (6,)),
    "mlp": (lambda: MLP(6, 3, hidden=(7, 5)), (6,)),
    "conv4": (lambda: nn.Sequential(Conv4(1, 4), nn.Linear(4, 3)), (1, 16, 16)),
    "strided conv4": (lambda: nn.Sequential(Conv4(3, 4, downsample="stride"), nn.Linear(4, 3)), (3, 16, 16)),
    "stranger": (WithBuiltInNorm, (1, 8, 8)),
    "no vmap": (RefusesVmap, (6,)),
}


def plain_losses(
    net: nn.Module,
    tasks: Task,
    lr: float,
    steps: int,
    order: int,
    statistics: str,
    adapts: Callable[[str], bool] = lambda name: True,
    regulariser: Callable[[dict[str, Tensor]], Tensor] = lambda phi: torch.zeros(()),
) -> Tensor:
    """The reference: one task after another, autograd all the way."""
    norms = [m for m in net.modules() if isinstance(m, BatchNorm)]
    losses = []
    for i in range(len(tasks)):
        sx, sy, qx, qy = tasks.support.x[i], tasks.support.y[i], tasks.query.x[i], tasks.query.y[i]
        phi = dict(net.named_parameters())
        for norm in norms:
            norm.source = "observed"
        for _ in range(steps):
            loss = F.cross_entropy(functional_call(net, phi, (sx,)), sy)
            own = {name: value for name, value in phi.items() if adapts(name)}
            grads = torch.autograd.grad(loss, list(own.values()), create_graph=order == 2, allow_unused=True)
            phi |= {n: p if g is None else p - lr * g for (n, p), g in zip(own.items(), grads)}
        if statistics == "support":
            for norm in norms:
                norm.observed = None
            functional_call(net, phi, (sx,))
            for norm in norms:
                norm.source, norm.given = "mode", norm.observed
        losses.append(F.cross_entropy(functional_call(net, phi, (qx,)), qy) + regulariser(phi))
        for norm in norms:
            norm.source, norm.given, norm.observed = "mode", None, None
    return torch.stack(losses)


def gradient(losses: Tensor, net: nn.Module, weights: Tensor) -> list[Tensor]:
    total, parameters = (losses * weights).sum(), list(net.parameters())
    found = torch.autograd.grad(total, parameters, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(net.parameters(), found)]


@pytest.mark.parametrize("statistics", ["support", "transductive"])
@pytest.mark.parametrize(("order", "steps"), [(1, 2), (2, 1), (2, 3)])
@pytest.mark.parametrize("name", NETS)
def test_it_is_that_of_a_plain_autograd_loop(name: str, order: Any, steps: int, statistics: Any) -> None:
    make, shape = NETS[name]
    tasks = tasks_of(*shape)
    maml = MAML(make(), lr=0.3, steps=steps, order=order, statistics=statistics)
    expected = plain_losses(maml.net, tasks, 0.3, steps, order, statistics)
    for weights in (torch.full((3,), 1 / 3), torch.tensor([0.1, 2.0, -1.0])):
        losses = maml.loss(tasks)
        torch.testing.assert_close(losses, expected, rtol=TOLERANCE, atol=TOLERANCE)
        for ours, theirs in zip(gradient(losses, maml.net, weights), gradient(expected, maml.net, weights)):
            torch.testing.assert_close(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("low_memory", [False, True])
@pytest.mark.parametrize("adapts", [lambda name: True, lambda name: "0" not in name], ids=["all", "some"])
@pytest.mark.parametrize("order", [1, 2])
def test_that_of_a_regulariser_is_that_of_a_plain_autograd_loop(
    order: Any, adapts: Callable[[str], bool], low_memory: bool
) -> None:
    def quartic(phi: Mapping[str, Tensor]) -> Tensor:
        return 0.1 * torch.stack([value.pow(4).sum() for value in phi.values()]).sum()

    make, shape = NETS["mlp"]
    tasks, weights = tasks_of(*shape), torch.tensor([0.1, 2.0, -1.0])
    maml = MAML(make(), lr=0.3, steps=2, order=order, adapts=adapts, low_memory=low_memory, regulariser=quartic)
    losses = plain_losses(maml.net, tasks, 0.3, 2, order, "support", adapts, quartic)
    torch.testing.assert_close(maml.loss(tasks), losses, rtol=TOLERANCE, atol=TOLERANCE)
    for ours, theirs in zip(gradient(maml.loss(tasks), maml.net, weights), gradient(losses, maml.net, weights)):
        torch.testing.assert_close(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize("name", ["mlp", "conv4", "no vmap"])
def test_recomputing_steps_changes_nothing(name: str, steps: int, order: Any) -> None:
    make, shape = NETS[name]
    tasks, net = tasks_of(*shape), make()
    results = []
    for low_memory in (False, True):
        maml = MAML(net, lr=0.3, steps=steps, order=order, low_memory=low_memory)
        losses = maml.loss(tasks)
        results.append([losses, *gradient(losses, net, torch.tensor([0.1, 2.0, -1.0]))])
    for plain, recomputed in zip(*results):
        torch.testing.assert_close(recomputed, plain, rtol=TOLERANCE, atol=TOLERANCE)


def test_chunks_change_nothing() -> None:
    net, tasks = MLP(6, 3), tasks_of(6, b=5)
    whole, one_by_one = MAML(net, lr=0.3, steps=2), MAML(net, lr=0.3, steps=2, memory_budget=1)
    assert one_by_one.meta_gradient.tasks_at_once(named_tensors(one_by_one), tasks, head_for(tasks), [2]) == 1
    for a, b in zip(
        gradient(whole.loss(tasks), net, torch.ones(5)), gradient(one_by_one.loss(tasks), net, torch.ones(5))
    ):
        torch.testing.assert_close(a, b)


def test_the_graph_of_each_network_that_is_asked_counts_against_the_budget() -> None:
    make, shape = NETS["conv4"]
    tasks, learner = tasks_of(*shape, b=64), MAML(make(), lr=0.3, steps=3)
    counted = replace(learner.meta_gradient, memory_budget=10 << 20)
    arguments = named_tensors(learner), tasks, head_for(tasks)
    assert 1 < counted.tasks_at_once(*arguments, [1, 2, 3]) < counted.tasks_at_once(*arguments, [3]) < 64


def test_queries_count_against_the_budget() -> None:
    few, many = tasks_of(6, b=64), tasks_of(6, b=64, queries=500)
    learner = MAML(MLP(6, 3), lr=0.3, steps=3, memory_budget=1 << 20)
    of_few, of_many = (
        learner.meta_gradient.tasks_at_once(named_tensors(learner), tasks, head_for(tasks), [3])
        for tasks in (few, many)
    )
    assert 1 <= of_many < of_few


def test_low_memory_asks_one_network_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    net, tasks, asked = MLP(6, 3), tasks_of(6), []
    plain = MAMLPlusPlus(net, lr=0.3, steps=4, multi_step=1.0)
    gradients = gradient(plain.loss(tasks), plain, torch.ones(3))
    ask = MetaGradient._query_half

    def count(self: MetaGradient, networks: list[inner_loop.Adapted], *rest: Any) -> Any:
        asked.append(len(networks))
        return ask(self, networks, *rest)

    monkeypatch.setattr(MetaGradient, "_query_half", count)
    learner = MAMLPlusPlus(net, lr=0.3, steps=4, multi_step=1.0, low_memory=True)
    for ours, theirs in zip(gradient(learner.loss(tasks), learner, torch.ones(3)), gradients):
        torch.testing.assert_close(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE)
    assert asked == [1, 1, 1, 1]


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(2, 1, batch_first=True)
        self.last = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        words = x.unflatten(1, (3, 2))
        out: Tensor = self.last(self.attention(words, words, words, need_weights=False)[0].flatten(1))
        return out


def former_weight_norm() -> nn.Module:
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        return nn.Sequential(nn.utils.weight_norm(nn.Linear(6, 4)), nn.Tanh(), nn.Linear(4, 3))


def normalised(norm: nn.Module) -> nn.Module:
    """With a normalisation of 3 channels of 2."""
    return nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Unflatten(1, (3, 2)), norm, nn.Flatten(), nn.Linear(6, 3))


class Functional(nn.Module):
    """Normalises by functions."""

    def __init__(self) -> None:
        super().__init__()
        self.gain, self.shift = nn.Parameter(torch.rand(3) + 0.5), nn.Parameter(torch.rand(3))

    def forward(self, x: Tensor) -> Tensor:
        x = F.batch_norm(x, None, None, self.gain, bias=self.shift, training=True)
        x = torch.instance_norm(x.tanh(), self.gain, self.shift, None, None, True, 0.1, 1e-5, False)
        return torch.layer_norm(x, (3, 2), weight=self.gain[:, None].expand(3, 2))


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # vmap's, of fused attention in the query half
@pytest.mark.parametrize("batching", ["vmap", "loop"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: MLP(6, 3, hidden=(4,)),
        Attention,
        lambda: nn.Sequential(weight_norm(nn.Linear(6, 4)), nn.Tanh(), weight_norm(nn.Linear(4, 3), dim=1)),
        former_weight_norm,
        lambda: normalised(nn.LayerNorm(2)),
        lambda: normalised(nn.InstanceNorm1d(3, affine=True)),
        lambda: normalised(nn.GroupNorm(3, 3)),
        lambda: normalised(Functional()),
        lambda: normalised(nn.TransformerEncoderLayer(2, 1, 4, dropout=0.0, batch_first=True)),
    ],
    ids=[
        *("mlp", "attention", "weight norm", "former weight norm", "layer norm", "instance norm", "group norm"),
        *("functions", "transformer"),
    ],
)
def test_it_is_the_finite_difference(make: Callable[[], nn.Module], batching: Any) -> None:
    maml, tasks = MAML(make(), lr=0.2, steps=3, batching=batching), tasks_of(6)
    maml.loss(tasks).sum().backward()
    for parameter in maml.parameters():
        direction = torch.randn_like(parameter)
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * 1e-6 * direction
                values.append(maml.loss(tasks).sum())
                parameter -= sign * 1e-6 * direction
        assert parameter.grad is not None
        torch.testing.assert_close(
            (parameter.grad * direction).sum(), (values[0] - values[1]) / 2e-6, rtol=1e-5, atol=1e-7
        )


def test_first_order_is_second_order_where_the_hessian_is_zero() -> None:
    class LinearLoss(nn.Module):
        """Outputs (z, -z) at a point where cross-entropy is replaced by a loss that is linear in the weights."""

        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.zeros(6))

        def forward(self, x: Tensor) -> Tensor:
            return (x @ self.w)[:, None]

    class LinearHead:
        def losses(self, output: Tensor, y: Tensor) -> Tensor:
            return output.squeeze(-1) * (1 - 2 * y)

    tasks, gradients = tasks_of(6, k=2), []
    for order in (1, 2):
        maml = MAML(LinearLoss(), lr=0.3, steps=3, order=order)  # type: ignore[arg-type]
        losses = maml.meta_gradient.losses(dict(maml.named_parameters()), tasks, LinearHead(), {3: 1.0})  # type: ignore[arg-type]
        gradients.append(torch.autograd.grad(losses.sum(), maml.parameters())[0])
    torch.testing.assert_close(gradients[0], gradients[1])
    assert gradients[0].abs().sum() > 0


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.b(F.dropout(self.a(x), 0.3, self.training))
        return out


@pytest.mark.parametrize("steps", [1, 5])
def test_recomputed_steps_meet_the_same_dropout(steps: int) -> None:
    """Two recomputations of the same noise agree with the finite difference of a loss under fixed noise."""
    tasks, maml = tasks_of(6), MAML(Noisy(), lr=0.2, steps=steps, low_memory=True)

    def loss() -> Tensor:
        torch.manual_seed(3)
        return maml.loss(tasks).sum()

    loss()  # the size of a graph is measured the first time
    maml.zero_grad()
    loss().backward()
    weight = next(maml.parameters())
    direction, values = torch.randn_like(weight), []
    for sign in (1, -1):
        with torch.no_grad():
            weight += sign * 1e-6 * direction
        values.append(loss().detach())
        with torch.no_grad():
            weight -= sign * 1e-6 * direction
    assert weight.grad is not None
    torch.testing.assert_close((weight.grad * direction).sum(), (values[0] - values[1]) / 2e-6, rtol=1e-4, atol=1e-7)


def test_unequal_weights_meet_the_same_dropout() -> None:
    tasks, maml = tasks_of(6), MAML(Noisy(), lr=0.2, steps=2)
    gradients = []
    for weights in (torch.tensor([1.0, 2.0, -1.0]), torch.tensor([1.0, 1.0, 1.0]), torch.tensor([0.0, 1.0, -2.0])):
        torch.manual_seed(3)
        gradients.append(gradient(maml.loss(tasks), maml.net, weights))
    for first, ones, difference in zip(*gradients):
        torch.testing.assert_close(first, ones + difference)


def test_measuring_the_size_of_a_graph_takes_no_noise() -> None:
    tasks, maml = tasks_of(6), MAML(Noisy(), lr=0.2, steps=2)
    torch.manual_seed(3)
    first = maml.loss(tasks).detach()
    torch.manual_seed(3)
    torch.testing.assert_close(maml.loss(tasks).detach(), first)


class Faint(nn.Module):
    """A network whose gradients are far below what float16 can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(3e-5 * torch.tanh(self.first(x)))


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("low_memory", [False, True])
def test_small_gradients_are_not_rounded_to_zero_in_mixed_precision(monkeypatch, order, low_memory):
    torch.manual_seed(0)
    net, x, y = Faint().float(), torch.randn(4, 12, 6, dtype=torch.float32), torch.arange(3).repeat(4, 4)
    tasks = Task(Examples(x[:, :6], y[:, :6]), Examples(x[:, 6:], y[:, 6:]), 3)

    def gradient(*, half: bool) -> Tensor:
        learner = MAML(net, lr=0.1, steps=2, order=order, low_memory=low_memory)
        learner.zero_grad()
        with torch.autocast("cpu", dtype=torch.float16, enabled=half):  # on a GPU just so
            losses = learner.loss(tasks)
        assert losses.mean().item() == pytest.approx(1.1, abs=0.01)
        losses.mean().backward()
        return net.first.weight.grad.clone()

    def error() -> float:
        return float((gradient(half=True) - exact).norm() / exact.norm())

    exact = gradient(half=False)
    assert error() < 2e-3
    for module in (inner_loop, meta_gradient):
        monkeypatch.setattr(module, "loss_scale", lambda x: 1.0)
    assert error() > 1e-2  # what it was without


class Before(nn.Module):
    """A learned layer before a network that takes its inputs for pictures nobody differentiates."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.rest = nn.Conv2d(1, 1, 3, padding=1), nn.Sequential(Conv4(1, 3), nn.Linear(3, 3))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.rest(self.first(x))
        return out


@pytest.mark.parametrize("adapts", [None, lambda name: not name.startswith("first")], ids=["all", "all but the first"])
def test_what_comes_before_conv4_has_its_whole_gradient(adapts):
    net, tasks, found = Before(), tasks_of(1, 16, 16), []
    for batching in ("vmap", "loop"):
        net.zero_grad()
        maml = MAML(net, lr=0.3, steps=2, adapts=adapts, batching=batching)
        maml.loss(tasks).mean().backward()
        found.append({name: p.grad.clone() for name, p in net.named_parameters()})
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], rtol=1e-9, atol=1e-12, msg=name)
