"""Reptile computes what its paper says."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from quickstudy import MLP, Reptile, Task
from quickstudy.testing.learners import double, vector_tasks

STEPS, INNER = 4, 0.2


def tasks_of(b: int = 3) -> Task:
    return vector_tasks(2).sample(b, generator=torch.Generator().manual_seed(0)).map(double)


def solutions(net: nn.Module, tasks: Task) -> list[dict[str, Tensor]]:
    """What plain gradient descent makes of the same network on each task."""
    found, everything = [], tasks.everything
    for x, y in zip(everything.x, everything.y):
        phi = {name: p.detach().requires_grad_() for name, p in net.named_parameters()}
        for _ in range(STEPS):
            loss = F.cross_entropy(functional_call(net, phi, (x,)), y)
            gradients = torch.autograd.grad(loss, list(phi.values()))
            phi = {n: (p - INNER * g).detach().requires_grad_() for (n, p), g in zip(phi.items(), gradients)}
        found.append({name: p.detach() for name, p in phi.items()})
    return found


@pytest.mark.parametrize("batching", ["vmap", "loop"])
@pytest.mark.parametrize("rate", [1.0, 0.25])
def test_a_step_of_its_optimiser_is_the_update_of_the_paper(rate: float, batching: Any) -> None:
    torch.manual_seed(0)
    net, tasks = MLP(6, 3).double(), tasks_of()
    learner = Reptile(net, lr=INNER, steps=STEPS, batching=batching)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    found = solutions(net, tasks)
    optimizer = learner.optimizer(rate)
    learner.loss(tasks).mean().backward()
    optimizer.step()
    for name, p in net.named_parameters():
        mean_gap = torch.stack([phi[name] - before[name] for phi in found]).mean(0)
        torch.testing.assert_close(p.detach(), before[name] + rate * mean_gap, rtol=1e-12, atol=1e-13)


def test_its_loss_is_half_the_squared_distance_to_the_solution() -> None:
    torch.manual_seed(0)
    net, tasks = MLP(6, 3).double(), tasks_of()
    gaps = [
        0.5 * sum((p - phi[name]).square().sum() for name, p in net.named_parameters()) for phi in solutions(net, tasks)
    ]
    torch.testing.assert_close(Reptile(net, lr=INNER, steps=STEPS).loss(tasks), torch.stack(gaps))  # type: ignore[arg-type]


def test_the_partial_update_moves_the_parameters_that_it_names_and_no_others() -> None:
    torch.manual_seed(0)
    net, tasks = MLP(6, 3, hidden=(5,)).double(), tasks_of()
    learner = Reptile(net, lr=INNER, steps=STEPS, moves=lambda name: name.startswith("layers.0"))
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    optimizer = learner.optimizer()
    learner.loss(tasks).mean().backward()
    optimizer.step()
    moved = {name for name, p in net.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"layers.0.weight", "layers.0.bias"}


def test_more_steps_on_a_new_task_than_in_meta_training_are_an_option() -> None:
    torch.manual_seed(0)
    net, tasks = MLP(6, 3).double(), tasks_of()
    short, long = Reptile(net, lr=INNER, steps=1, adapt_steps=20), Reptile(net, lr=INNER, steps=20)
    torch.testing.assert_close(
        short.adapt(tasks)(tasks.query.x).probs,  # type: ignore[attr-defined]
        long.adapt(tasks)(tasks.query.x).probs,  # type: ignore[attr-defined]
    )


class Tempered(nn.Module):
    """A network with a parameter that is a single number."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.temperature = nn.Linear(6, 3), nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x) / self.temperature
        return out


def test_a_parameter_may_be_a_single_number() -> None:
    torch.manual_seed(0)
    net, tasks = Tempered().double(), tasks_of()
    Reptile(net, lr=INNER, steps=STEPS).loss(tasks).mean().backward()
    gap = torch.stack([net.temperature - phi["temperature"] for phi in solutions(net, tasks)]).mean()
    torch.testing.assert_close(net.temperature.grad, gap)
