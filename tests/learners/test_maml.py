"""MAML's options do what they say; its gradient is tested in test_meta_gradient.py."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy import MAML, MLP, Conv4, Examples, Learner, MAMLPlusPlus, MetaSGD, Reptile, Task
from quickstudy.errors import ShapeError
from quickstudy.learners.familiarity import familiarity
from quickstudy.testing.learners import answers, double, picture_tasks, vector_tasks


def tasks_of(b: int = 3) -> Task:
    return vector_tasks(2).sample(b, generator=torch.Generator().manual_seed(0)).map(double)


def net_of(hidden: tuple[int, ...] = (5,)) -> MLP:
    torch.manual_seed(0)
    return MLP(6, 3, hidden=hidden).double()


def test_without_steps_it_answers_with_the_initialisation() -> None:
    tasks, net = tasks_of(), net_of()
    expected = net(tasks.query.x.flatten(0, 1)).softmax(-1).unflatten(0, (3, -1))
    torch.testing.assert_close(answers(MAML(net, steps=0), tasks), expected.detach())


def test_one_step_on_a_linear_network_is_the_closed_form() -> None:
    tasks, net = tasks_of(1), net_of(())
    layer = net.layers[0]
    assert isinstance(layer, nn.Linear)
    x, y = tasks.support.x[0], tasks.support.y[0]
    residual = (net(x).softmax(-1) - F.one_hot(y, 3)) / len(x)  # the gradient of the mean loss at the logits
    weight, bias = layer.weight - 0.3 * residual.T @ x, layer.bias - 0.3 * residual.sum(0)
    expected = (tasks.query.x[0] @ weight.T + bias).softmax(-1)
    torch.testing.assert_close(answers(MAML(net, lr=0.3), tasks)[0], expected.detach())


def test_parameters_that_do_not_adapt_stay_as_they_are_and_are_still_meta_learned() -> None:
    tasks, net = tasks_of(), net_of()
    last: Callable[[str], bool] = lambda name: name.startswith("layers.2")  # noqa: E731
    learner = MAML(net, lr=0.3, steps=3, adapts=last)
    body, head = nn.Sequential(*net.layers[:2]), net.layers[2]
    assert isinstance(head, nn.Linear)
    features = tasks.map(lambda v: body(v.flatten(0, 1)).unflatten(0, v.shape[:2]).detach() if v.ndim == 3 else v)
    alone = MAML(nn.Sequential(head), lr=0.3, steps=3)
    torch.testing.assert_close(answers(learner, tasks), answers(alone, features))
    learner.loss(tasks).sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in net.parameters())


def test_a_network_of_which_nothing_adapts_is_refused() -> None:
    with pytest.raises(ShapeError, match="none of its 2, such as 'weight', is let adapt"):
        MAML(nn.Linear(6, 3), adapts=lambda name: False)
    with pytest.raises(ShapeError, match="Flatten needs a parameter that adapts by gradient descent: it has none"):
        MAML(nn.Flatten())


def test_the_regulariser_is_added_to_the_loss_at_the_adapted_weights() -> None:
    tasks, net = tasks_of(), net_of()
    plain = MAML(net, lr=0.3)
    regularised = MAML(net, lr=0.3, regulariser=lambda phi: 0.1 * sum(p.square().sum() for p in phi.values()))  # type: ignore[arg-type, return-value]
    shrunk = MAML(net, lr=0.0, regulariser=lambda phi: torch.stack([p.square().sum() for p in phi.values()]).sum())
    unmoved = torch.stack([p.square().sum() for p in net.parameters()]).sum()
    torch.testing.assert_close(shrunk.loss(tasks) - MAML(net, lr=0.0).loss(tasks), unmoved.expand(3))
    assert bool((regularised.loss(tasks) > plain.loss(tasks)).all())


def test_more_steps_fit_the_support_set_better() -> None:
    tasks, net = tasks_of(), net_of()
    seen = Task(tasks.support, tasks.support, tasks.n_way)
    losses = [MAML(net, lr=0.3, steps=steps).loss(seen).mean().item() for steps in (0, 1, 5, 25)]
    assert losses == sorted(losses, reverse=True)


def test_transductive_answers_depend_on_the_other_queries_and_inductive_ones_do_not() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(Conv4(1, 4), nn.Linear(4, 3)).double()
    tasks = picture_tasks(2).sample(2, generator=torch.Generator().manual_seed(0)).map(double)
    some = tasks.query.x[:, :4]
    for statistics, same in (("support", True), ("transductive", False)):
        with torch.no_grad():
            predictor = MAML(net, lr=0.1, statistics=statistics).adapt(tasks)  # type: ignore[arg-type]
            found, among = predictor(some).probs, predictor(tasks.query.x).probs[:, :4]  # type: ignore[attr-defined]
        assert torch.allclose(found, among, atol=1e-9) == same


def test_a_binary_task_may_have_one_logit() -> None:
    torch.manual_seed(0)
    x = torch.rand(2, 8, 6)
    tasks = tasks_of(2)
    y = torch.tensor([0, 1] * 4).expand(2, 8)
    examples = type(tasks.support)(x, y)
    found = answers(MAML(MLP(6, 1), steps=2), Task(examples, examples, 2))
    assert found.shape == (2, 8, 2)
    torch.testing.assert_close(found.sum(-1), torch.ones(2, 8))


class CountsCalls(nn.Module):
    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(6, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        out: Tensor = self.last(x)
        return out


def test_a_network_that_counts_its_calls_is_still_batched() -> None:
    maml, tasks = MAML(CountsCalls().double(), lr=0.3, steps=2), tasks_of()
    torch.testing.assert_close(maml.loss(tasks), MAML(maml.net, lr=0.3, steps=2, batching="loop").loss(tasks))
    assert not maml.inner.loops


class TwoWays(nn.Module):
    """Takes one of two ways by what it sees, which `vmap` refuses."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(x)
        return out if x.sum() > 0 else out.tanh()


@pytest.mark.parametrize("make", [MAML, MAMLPlusPlus, MetaSGD, Reptile])
def test_it_is_told_once_that_vmap_refuses_a_network(
    make: Callable[..., Learner], caplog: pytest.LogCaptureFixture
) -> None:
    net, tasks = TwoWays().double(), tasks_of()
    learner = make(net, lr=0.3, steps=2)
    loss = learner.loss(tasks)
    answers(learner, tasks)
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "vmap refuses this network, so its tasks are taken one by one"
    ]
    torch.testing.assert_close(loss, make(net, lr=0.3, steps=2, batching="loop").loss(tasks))


def test_masked_examples_that_are_no_numbers_change_no_step_and_no_familiarity():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(1, 6, 6, generator=generator), torch.tensor([[0, 1, 2, 0, 1, 2]])
    x[0, 5] = math.nan
    mask = torch.tensor([[True] * 5 + [False]])
    torch.manual_seed(0)
    maml = MAML(MLP(6, 3), lr=0.1, steps=2)
    query = Examples(x[:, :3], y[:, :3])
    clear, masked = Task(Examples(x[:, :5], y[:, :5]), query, 3), Task(Examples(x, y, mask), query, 3)
    for one, other in zip(maml.adapt_stepwise(clear, 2), maml.adapt_stepwise(masked, 2)):
        torch.testing.assert_close(one(query.x).probs, other(query.x).probs)
    torch.testing.assert_close(familiarity(maml, clear)(query.x), familiarity(maml, masked)(query.x))


def test_the_embedding_of_a_network_that_uses_a_layer_twice_is_what_its_last_layer_is_given():
    activation = nn.Tanh()
    net = nn.Sequential(nn.Linear(6, 5), activation, nn.Linear(5, 4), activation, nn.Linear(4, 3)).double()
    task = tasks_of()
    embed = MAML(net).embedding(task)
    assert embed is not None
    torch.testing.assert_close(embed(task.query.x), net[:-1](task.query.x))
