"""What holds on a CPU holds on a GPU: `make gpu` runs these where there is one."""

from pathlib import Path

import pytest
import torch
from torch import Generator, nn

from quickstudy import (
    MAML,
    MLP,
    Conv4,
    Episodes,
    LabelledSet,
    Learner,
    MAMLPlusPlus,
    MetaSGD,
    PrototypicalNetwork,
    Reptile,
    evaluate,
    meta_train,
)
from quickstudy.errors import is_out_of_memory

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here"),
]
DEVICE = "cuda"


def pictures() -> LabelledSet:
    """Six classes of ten noisy pictures."""
    random, y = Generator().manual_seed(0), torch.arange(60) % 6
    centres = torch.rand(6, 1, 16, 16, generator=random)
    return LabelledSet(centres[y] + 0.3 * torch.rand(60, 1, 16, 16, generator=random), y, tuple("abcdef"))


def source(device: str = "cpu") -> Episodes:
    return Episodes(pictures().to(device), n_way=3, n_query=5)


class Double:
    """Tasks in float64, in which a GPU rounds nearly as a CPU does."""

    def __init__(self, source: Episodes) -> None:
        self.source = source

    def sample(self, b: int, *, generator: Generator):
        return self.source.sample(b, generator=generator).map(
            lambda value: value.double() if value.is_floating_point() else value
        )


def classifier() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(Conv4(1, 4), nn.Linear(4, 3))


LEARNERS = {
    "MAML": lambda: MAML(classifier(), steps=2),
    "MAML in little memory": lambda: MAML(classifier(), steps=3, low_memory=True),
    "MAML++": lambda: MAMLPlusPlus(classifier(), steps=2, multi_step=0.5),
    "Meta-SGD": lambda: MetaSGD(classifier()),
    "Reptile": lambda: Reptile(classifier(), steps=2),
    "prototypical network": lambda: PrototypicalNetwork(Conv4(1, 4)),
}
learners = pytest.mark.parametrize("name", LEARNERS)


def made(name: str, device: str) -> Learner:
    torch.manual_seed(0)
    return LEARNERS[name]().double().to(device)


def test_a_seed_draws_the_same_tasks() -> None:
    here, there = (source(device).sample(4, generator=Generator().manual_seed(1)) for device in ("cpu", DEVICE))
    assert there.support.x.device.type == DEVICE
    assert torch.equal(here.support.x, there.support.x.cpu())
    assert torch.equal(here.query.y, there.query.y.cpu())


@learners
def test_losses_and_meta_gradients_are_those_of_the_cpu(name: str) -> None:
    found = []
    for device in ("cpu", DEVICE):
        learner = made(name, device)
        tasks = Double(source()).sample(3, generator=Generator().manual_seed(1)).to(device)
        losses = learner.loss(tasks, generator=Generator().manual_seed(0))
        losses.sum().backward()
        gradients = [p.grad.cpu() for p in learner.parameters() if p.grad is not None]
        found.append([losses.detach().cpu(), *gradients])
    for here, there in zip(*found, strict=True):
        torch.testing.assert_close(there, here, rtol=1e-8, atol=1e-10)


@learners
def test_answers_are_those_of_the_cpu(name: str) -> None:
    here, there = (evaluate(made(name, device), Double(source()), tasks=16).values for device in ("cpu", DEVICE))
    torch.testing.assert_close(there, here)


def fabric(precision: str = "32-true"):
    from lightning_fabric import Fabric

    return Fabric(accelerator="auto", devices=1, precision=precision)


def test_training_goes_there_and_comes_back() -> None:
    learner = PrototypicalNetwork(Conv4(1, 4))
    history = meta_train(learner, source(DEVICE), steps=60, validation=source(), validation_tasks=40, fabric=fabric())
    assert next(learner.parameters()).device.type == "cpu"
    assert history.best is not None
    assert history.best.mean > 60


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_mixed_precision_learns(precision: str) -> None:
    learner = MAML(classifier(), steps=1)
    history = meta_train(learner, source(DEVICE), steps=20, fabric=fabric(precision))
    assert history.step == 20
    assert all(p.isfinite().all() for p in learner.parameters())


def test_a_run_that_is_resumed_has_the_random_state_of_one_that_never_stopped(tmp_path: Path) -> None:
    def run(steps: int, **options: object) -> list[torch.Tensor]:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), MLP(256, 3))
        meta_train(learner := MAML(net), source(DEVICE), steps=steps, fabric=fabric(), **options)
        return [*learner.parameters(), torch.rand(1, device=DEVICE)]

    whole = run(4, out=tmp_path / "a")
    run(2, out=tmp_path / "b")
    assert all(map(torch.equal, run(4, out=tmp_path / "b", resume=True), whole))


def test_full_memory_is_told_from_other_errors() -> None:
    with pytest.raises(RuntimeError) as full:
        torch.empty(1 << 50, device=DEVICE)
    assert is_out_of_memory(full.value)
