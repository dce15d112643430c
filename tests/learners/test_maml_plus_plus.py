"""MAML++ against MAML and a plain loop of autograd, in float64."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from quickstudy import MAML, MLP, Conv4, Examples, Task
from quickstudy.learners.head import head_for
from quickstudy.learners.maml_plus_plus import MAMLPlusPlus
from quickstudy.learners.tables import key
from quickstudy.nets.batch_norm import Moments, batch_norms, moments_of, normalised_by

pytestmark = pytest.mark.usefixtures("double")
TIGHT = {"rtol": 1e-10, "atol": 1e-12}
OFF = {"multi_step": 0.0, "learned_rates": False, "per_step_norm": False}


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def tasks_of(*shape: int, b: int = 3, k: int = 3) -> Task:
    x, y = torch.rand(b, 4 * k, *shape), torch.arange(k).repeat(b, 4)
    return Task(Examples(x[:, : 2 * k], y[:, : 2 * k]), Examples(x[:, 2 * k :], y[:, 2 * k :]), k)


def gradients(losses: Tensor, module: nn.Module) -> list[Tensor]:
    free = [p for p in module.parameters() if p.requires_grad]
    found = torch.autograd.grad((losses * torch.tensor([0.1, 2.0, -1.0])).sum(), free, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(free, found)]


def shaken(learner: MAMLPlusPlus) -> MAMLPlusPlus:
    """The learner with tables that differ at every step."""
    with torch.no_grad():
        for parameter in (*learner.rates.parameters(), *learner.norms.parameters()):
            parameter += 0.1 * torch.rand_like(parameter)
    return learner


def plain_losses(learner: MAMLPlusPlus, tasks: Task, order: int, importance: dict[int, float]) -> Tensor:
    """The reference: one task after another, autograd all the way."""
    net, losses = learner.net, []
    theta, norms, transductive = dict(net.named_parameters()), learner.norms, learner.inner.statistics != "support"

    def network(step: int, phi: dict[str, Tensor]) -> dict[str, Tensor]:
        return {**theta, **phi, **{name.replace("/", "."): value[step] for name, value in norms.items()}}

    for i in range(len(tasks)):
        sx, sy, qx, qy = tasks.support.x[i], tasks.support.y[i], tasks.query.x[i], tasks.query.y[i]
        phi, total = {name: value for name, value in theta.items() if key(name) not in norms}, torch.zeros(())
        for step in range(max(importance) + 1):
            if step in importance:
                with moments_of(net) as moments:
                    functional_call(net, network(step, phi), (qx if transductive else sx,))
                with normalised_by(net, moments):
                    loss = F.cross_entropy(functional_call(net, network(step, phi), (qx,)), qy)
                total = total + importance[step] * loss
            if step < max(importance):
                with moments_of(net):
                    loss = F.cross_entropy(functional_call(net, network(step, phi), (sx,)), sy)
                grads = torch.autograd.grad(loss, list(phi.values()), create_graph=order == 2)
                phi = {
                    n: p - (learner.rates[key(n)][step] if learner.rates else 0.3) * g
                    for (n, p), g in zip(phi.items(), grads)
                }
        losses.append(total)
    return torch.stack(losses)


@pytest.mark.parametrize(("make", "shape"), [(lambda: MLP(6, 3), (6,)), (lambda: Conv4(1, 3), (1, 16, 16))])
@pytest.mark.parametrize("statistics", ["support", "transductive"])
def test_with_everything_off_it_is_maml(make, shape, statistics):
    net, tasks = make(), tasks_of(*shape)
    ours = MAMLPlusPlus(net, lr=0.3, steps=2, statistics=statistics, **OFF)
    maml = MAML(net, lr=0.3, steps=2, statistics=statistics)
    torch.testing.assert_close(ours.loss(tasks), maml.loss(tasks), **TIGHT)
    for a, b in zip(gradients(ours.loss(tasks), ours), gradients(maml.loss(tasks), maml)):
        torch.testing.assert_close(a, b, **TIGHT)
    torch.testing.assert_close(ours.adapt(tasks)(tasks.query.x).probs, maml.adapt(tasks)(tasks.query.x).probs, **TIGHT)


ALL = {"multi_step": 0.5, "learned_rates": True, "per_step_norm": True}


@pytest.mark.parametrize(
    "part",
    [
        {"multi_step": 0.5},
        {"learned_rates": True},
        {"per_step_norm": True},
        ALL,
        {**ALL, "first_order": 0.4},
        {**ALL, "first_order": 0.4, "low_memory": True},
        {**ALL, "statistics": "transductive"},
        {**ALL, "statistics": "running"},
        {**ALL, "low_memory": True},
        {**ALL, "batching": "loop"},
    ],
    ids=str,
)
def test_each_part_and_all_of_them_are_a_plain_autograd_loop(part):
    tasks, net = tasks_of(1, 16, 16), nn.Sequential(Conv4(1, 4), nn.Linear(4, 3))
    learner = shaken(MAMLPlusPlus(net, lr=0.3, steps=3, **{**OFF, **part}))
    first_order = learner.first_order
    for progress in (0.1, 0.45 if first_order else 0.9):
        learner.at(progress)
        order = 1 if progress < first_order else 2
        expected, ours = plain_losses(learner, tasks, order, learner.importance()), learner.loss(tasks)
        torch.testing.assert_close(ours, expected, **TIGHT)
        for a, b in zip(gradients(ours, learner), gradients(expected, learner)):
            torch.testing.assert_close(a, b, **TIGHT)


def test_importance_sums_to_one_begins_uniform_and_ends_on_the_last_step():
    learner = MAMLPlusPlus(MLP(6, 3), steps=5, multi_step=0.2)
    assert learner.importance() == pytest.approx(dict.fromkeys(range(1, 6), 0.2))
    last = 0.0
    for progress in (0.0, 0.05, 0.1, 0.199):
        learner.at(progress)
        importance = learner.importance()
        assert sum(importance.values()) == pytest.approx(1)
        assert min(importance.values()) >= 0.03 / 5 - 1e-12
        assert importance[5] > last
        last = importance[5]
    learner.at(0.2)
    assert learner.importance() == {5: 1.0}


def test_first_order_gradients_turn_second_order():
    tasks, net = tasks_of(6), MLP(6, 3)
    annealed = MAMLPlusPlus(net, lr=0.3, steps=2, first_order=0.5, **OFF)
    for progress, order in ((0.0, 1), (0.49, 1), (0.5, 2), (1.0, 2)):
        annealed.at(progress)
        maml = MAML(net, lr=0.3, steps=2, order=order)
        for a, b in zip(gradients(annealed.loss(tasks), annealed), gradients(maml.loss(tasks), maml)):
            torch.testing.assert_close(a, b, **TIGHT)


def test_weights_of_per_step_batch_norm_learn_but_do_not_adapt():
    learner, tasks = MAMLPlusPlus(Conv4(1, 3), steps=2, lr=0.3, multi_step=1.0), tasks_of(1, 16, 16)
    learner.loss(tasks).sum().backward()
    assert not any(key(name) in learner.rates for name in ("blocks.0.norm.weight", "blocks.0.norm.bias"))
    for name, value in learner.norms.items():
        assert value.shape[0] == 3
        assert (value.grad.flatten(1).abs().sum(1) > 0).all(), name  # every step has its own
    trained = {id(p) for group in learner.parameter_groups() for p in group["params"]}
    assert trained == {id(p) for p in learner.parameters() if p.requires_grad}


def test_running_averages_are_kept_for_each_step_and_evaluation_uses_them():
    tasks = tasks_of(1, 16, 16)
    learner = shaken(MAMLPlusPlus(nn.Sequential(Conv4(1, 4), nn.Linear(4, 3)), steps=2, lr=0.3, statistics="running"))
    name = "0.blocks.1.norm"
    for layer in batch_norms(learner.net).values():
        layer.momentum = 1.0  # the averages are those of the last tasks
    learner.loss(tasks)
    every = learner.inner.adapt(dict(learner.named_parameters()), tasks.support, head_for(tasks), [0, 1, 2])
    for step, adapted in enumerate(every):
        expected = Moments(*(value.detach().mean(0) for value in adapted.moments[name]))
        torch.testing.assert_close(learner.running_moments(step)[name], expected, **TIGHT)
    assert not torch.allclose(learner.running_moments(0)[name].mean, learner.running_moments(2)[name].mean)

    with torch.no_grad():
        before = learner.adapt(tasks)(tasks.query.x).probs
        learner.get_buffer(f"running_mean/{key(name)}")[1] += 1  # changes how the second inner step normalises
        assert not torch.allclose(learner.adapt(tasks)(tasks.query.x).probs, before)


class TwiceNormalised(nn.Module):
    """One batch normalisation layer for two places, whose inputs differ."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.norm, self.last = (
            nn.Linear(6, 4),
            nn.Linear(4, 4),
            nn.BatchNorm1d(4),
            nn.Linear(4, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.second(F.relu(self.norm(self.first(x))))))


def test_a_layer_that_is_called_twice_has_one_running_average_of_both_calls():
    learner, tasks = MAMLPlusPlus(TwiceNormalised(), steps=1, statistics="running"), tasks_of(6)
    before = Moments(*(value.clone() for value in learner.running_moments(0)["norm"]))
    learner.loss(tasks)
    seen = learner.inner.adapt(dict(learner.named_parameters()), tasks.support, head_for(tasks), [0])[0].moments
    assert seen.keys() == {"norm.1", "norm.2"}
    for part in ("mean", "var"):
        expected = getattr(before, part)
        for call in ("norm.1", "norm.2"):  # as torch's own layer would, call by call
            expected = expected.lerp(getattr(seen[call], part).detach().mean(0), 0.1)
        torch.testing.assert_close(getattr(learner.running_moments(0)["norm"], part), expected, **TIGHT)
    assert learner.adapt(tasks)(tasks.query.x).probs.isfinite().all()


@pytest.mark.parametrize("statistics", ["support", "running"])
def test_predictions_are_inductive_and_adapting_changes_nothing(statistics):
    tasks = tasks_of(1, 16, 16)
    learner = shaken(MAMLPlusPlus(Conv4(1, 3), steps=2, adapt_steps=4, statistics=statistics))
    learner.loss(tasks)
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    with torch.no_grad():
        predict = learner.adapt(tasks)
        torch.testing.assert_close(predict(tasks.query.x).probs[:, :1], predict(tasks.query.x[:, :1]).probs, **TIGHT)
        one_by_one = torch.cat([learner.adapt(tasks[i : i + 1])(tasks.query.x[i : i + 1]).probs for i in range(3)])
        torch.testing.assert_close(predict(tasks.query.x).probs, one_by_one, **TIGHT)
    assert all(torch.equal(value, before[name]) for name, value in learner.state_dict().items())


def test_in_evaluation_mode_the_loss_leaves_running_averages_alone():
    learner, tasks = MAMLPlusPlus(Conv4(1, 3), steps=1, statistics="running").eval(), tasks_of(1, 16, 16)
    before = {name: value.clone() for name, value in learner.named_buffers()}
    learner.loss(tasks)
    assert all(torch.equal(value, before[name]) for name, value in learner.named_buffers())


def test_a_copy_is_independent_of_its_original():
    learner, tasks = MAMLPlusPlus(Conv4(1, 3), steps=1, statistics="running"), tasks_of(1, 16, 16)
    twin = copy.deepcopy(learner)
    expected = twin.adapt(tasks)(tasks.query.x).probs
    with torch.no_grad():
        for value in (*learner.parameters(), *learner.buffers()):
            value += 1
    torch.testing.assert_close(twin.adapt(tasks)(tasks.query.x).probs, expected)


def test_batch_norm_without_weights_has_none_at_any_step():
    net = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4, affine=False), nn.ReLU(), nn.Linear(4, 3))
    learner = MAMLPlusPlus(net, steps=2, statistics="running")
    assert len(learner.norms) == 0
    assert learner.loss(tasks_of(6)).isfinite().all()


def test_regression_adapts_with_learned_rates():
    x = torch.rand(2, 6, 4)
    examples = Examples(x, x.sum(-1, keepdim=True))
    learner = MAMLPlusPlus(MLP(4, 1), steps=3, multi_step=1.0)
    assert learner.loss(Task(examples, replace(examples), None)).shape == (2,)
    assert batch_norms(learner.net) == {}
