"""Meta-SGD against MAML and a plain loop of autograd, in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.func import functional_call

from quickstudy import MAML, MLP, Conv4, Examples, Task
from quickstudy.learners.meta_sgd import MetaSGD
from quickstudy.learners.tables import key

pytestmark = pytest.mark.usefixtures("double")
TIGHT = {"rtol": 1e-10, "atol": 1e-12}


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def tasks_of(*shape: int, b: int = 3, k: int = 3) -> Task:
    x, y = torch.rand(b, 4 * k, *shape), torch.arange(k).repeat(b, 4)
    return Task(Examples(x[:, : 2 * k], y[:, : 2 * k]), Examples(x[:, 2 * k :], y[:, 2 * k :]), k)


def gradients(losses: Tensor, parameters: list[nn.Parameter]) -> list[Tensor]:
    return list(torch.autograd.grad((losses * torch.tensor([0.1, 2.0, -1.0])).sum(), parameters))


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize(("make", "shape"), [(lambda: MLP(6, 3), (6,)), (lambda: Conv4(1, 3), (1, 16, 16))])
def test_with_all_rates_equal_it_is_maml(order, make, shape):
    net, tasks = make(), tasks_of(*shape)
    meta_sgd, maml = MetaSGD(net, lr=0.3, steps=2, order=order), MAML(net, lr=0.3, steps=2, order=order)
    torch.testing.assert_close(meta_sgd.loss(tasks), maml.loss(tasks), **TIGHT)
    parameters = list(net.parameters())
    for ours, theirs in zip(gradients(meta_sgd.loss(tasks), parameters), gradients(maml.loss(tasks), parameters)):
        torch.testing.assert_close(ours, theirs, **TIGHT)
    torch.testing.assert_close(
        meta_sgd.adapt(tasks)(tasks.query.x).probs, maml.adapt(tasks)(tasks.query.x).probs, **TIGHT
    )


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("low_memory", [False, True])
def test_it_is_a_plain_autograd_loop_with_a_rate_for_each_weight(order, low_memory):
    tasks, learner = tasks_of(6), MetaSGD(MLP(6, 3), lr=(0.1, 0.5), steps=3, order=order, low_memory=low_memory)
    losses = []
    for i in range(3):
        phi = dict(learner.net.named_parameters())
        for _ in range(3):
            loss = F.cross_entropy(functional_call(learner.net, phi, (tasks.support.x[i],)), tasks.support.y[i])
            grads = torch.autograd.grad(loss, list(phi.values()), create_graph=order == 2)
            phi = {n: p - learner.rates[key(n)] * g for (n, p), g in zip(phi.items(), grads)}
        losses.append(F.cross_entropy(functional_call(learner.net, phi, (tasks.query.x[i],)), tasks.query.y[i]))
    ours, parameters = learner.loss(tasks), list(learner.parameters())
    torch.testing.assert_close(ours, torch.stack(losses), **TIGHT)
    for a, b in zip(gradients(ours, parameters), gradients(torch.stack(losses), parameters)):
        torch.testing.assert_close(a, b, **TIGHT)


def test_rates_are_drawn_uniformly_from_their_interval_and_by_the_generator():
    net = nn.Linear(100, 100)
    one, same, other = (
        MetaSGD(net, lr=(0.2, 0.6), generator=Generator().manual_seed(s)).rates["weight"] for s in (0, 0, 1)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert one.min() >= 0.2
    assert one.max() <= 0.6
    assert one.mean().item() == pytest.approx(0.4, abs=0.01)
    assert one.std().item() == pytest.approx(0.4 / 12**0.5, abs=0.01)


def test_rates_are_a_parameter_group_with_an_outer_rate_of_their_own():
    learner = MetaSGD(MLP(6, 3), rates_lr=0.01)
    optimizer = learner.optimizer(0.001)
    assert [group["lr"] for group in optimizer.param_groups] == [0.001, 0.01]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(learner.parameters()))
