"""ANIL against MAML and a plain loop of autograd, in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from quickstudy import MAML, MLP, Conv4, Examples, Task
from quickstudy.learners.anil import ANIL

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


def gradients(losses: Tensor, net: nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad((losses * torch.tensor([0.1, 2.0, -1.0])).sum(), list(net.parameters())))


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("batching", ["vmap", "loop"])
@pytest.mark.parametrize("steps", [0, 1, 3])
def test_it_is_maml_with_a_head_that_adapts_where_there_is_no_batch_norm(order, batching, steps):
    body, head, tasks = MLP(6, 8), nn.Linear(8, 3), tasks_of(6)
    net = nn.Sequential(body, head)
    anil = ANIL(body, head, lr=0.3, steps=steps, order=order, batching=batching)
    maml = MAML(net, lr=0.3, steps=steps, order=order, adapts=lambda name: name.startswith("1."))
    torch.testing.assert_close(anil.loss(tasks), maml.loss(tasks), **TIGHT)
    # First-order ANIL keeps the query's part of the features' gradient, and drops the support's, as MAML does.
    for ours, theirs in zip(gradients(anil.loss(tasks), net), gradients(maml.loss(tasks), net)):
        torch.testing.assert_close(ours, theirs, **TIGHT)
    torch.testing.assert_close(anil.adapt(tasks)(tasks.query.x).probs, maml.adapt(tasks)(tasks.query.x).probs, **TIGHT)


def test_it_is_a_plain_autograd_loop_on_features_normalised_over_the_whole_batch():
    tasks = tasks_of(1, 16, 16)
    anil = ANIL(Conv4(1, 4), nn.Linear(4, 3), lr=0.3, steps=2)
    z = anil.body(torch.cat([tasks.support.x.flatten(0, 1), tasks.query.x.flatten(0, 1)]))
    support, query = z[:18].view(3, 6, 4), z[18:].view(3, 6, 4)
    losses = []
    for i in range(3):
        w = dict(anil.net.named_parameters())
        for _ in range(2):
            loss = F.cross_entropy(functional_call(anil.net, w, (support[i],)), tasks.support.y[i])
            grads = torch.autograd.grad(loss, list(w.values()), create_graph=True)
            w = {name: value - 0.3 * g for (name, value), g in zip(w.items(), grads)}
        losses.append(F.cross_entropy(functional_call(anil.net, w, (query[i],)), tasks.query.y[i]))
    ours = anil.loss(tasks)
    torch.testing.assert_close(ours, torch.stack(losses), **TIGHT)
    for a, b in zip(gradients(ours, anil), gradients(torch.stack(losses), anil)):
        torch.testing.assert_close(a, b, **TIGHT)


def test_a_query_alone_equals_a_query_among_others_and_nothing_is_changed():
    tasks, anil = tasks_of(1, 16, 16), ANIL(Conv4(1, 4), nn.Linear(4, 3))
    anil.loss(tasks)  # running statistics away from where they start
    before = {name: value.clone() for name, value in anil.state_dict().items()}
    with torch.no_grad():
        predict = anil.adapt(tasks)
        together, alone = predict(tasks.query.x).probs[:, :1], predict(tasks.query.x[:, :1]).probs
    torch.testing.assert_close(together, alone, **TIGHT)
    assert anil.training
    assert all(torch.equal(value, before[name]) for name, value in anil.state_dict().items())


def test_adapting_in_training_mode_drops_nothing_out() -> None:
    tasks = tasks_of(6)
    learner = ANIL(MLP(6, 8), nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 3)), steps=3).train()
    first, second = (learner.adapt(tasks)(tasks.query.x).probs for _ in range(2))
    assert torch.equal(first, second)
    assert learner.net.training
