"""Several devices: two processes that talk by gloo."""

import multiprocessing
import sys
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy

from quickstudy import MAML, MLP, Conv4, Episodes, LabelledSet, PrototypicalNetwork, meta_train
from quickstudy.errors import DivergedError, ShapeError


def tasks(shape: tuple[int, ...]) -> Episodes:
    x = torch.rand(48, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Episodes(LabelledSet(x, torch.arange(6).repeat(8), tuple("abcdef")), n_way=3, n_query=3)


class SGD(MAML):
    """MAML whose outer step shows its gradient."""

    def optimizer(self, lr=None):
        return torch.optim.SGD(self.parameters(), lr=1.0)


class LosesItsWayOnOne(SGD):
    """Its loss is not finite on the second device only."""

    def loss(self, tasks, *, generator=None):
        return super().loss(tasks) * (float("nan") if torch.distributed.get_rank() == 1 else 1)


def train(fabric: Fabric | None, out: Path | None = None) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    learner = SGD(MLP(6, 3).double(), lr=0.1, steps=2)
    meta_train(learner, tasks((6,)), steps=2, tasks_per_step=4, fabric=fabric, out=out)
    return learner.state_dict()


def in_two_processes(fabric: Fabric, folder: Path) -> None:
    torch.set_num_threads(1)
    found = {"maml": train(fabric, folder)}
    # Batch normalisation: running averages agree afterwards.
    torch.manual_seed(0)
    learner = PrototypicalNetwork(Conv4(1, 2).double())
    meta_train(learner, tasks((1, 16, 16)), steps=2, tasks_per_step=2, fabric=fabric)
    found["batch norm"] = learner.state_dict()
    # A clock that each process reads differently, and a loss that only one of them finds to be no number.
    history = meta_train(
        SGD(MLP(6, 3).double()), tasks((6,)), steps=10**9, seconds=0.2, tasks_per_step=2, fabric=fabric
    )
    found["steps"] = {"n": torch.tensor(history.step)}
    try:
        meta_train(LosesItsWayOnOne(MLP(6, 3).double()), tasks((6,)), steps=3, tasks_per_step=2, fabric=fabric)
    except DivergedError as error:
        found["diverged"] = {str(error): torch.zeros(())}
    try:
        meta_train(SGD(MLP(6, 3).double()), tasks((6,)), steps=3, tasks_per_step=3, fabric=fabric)
    except ShapeError as error:
        found["refused"] = {str(error): torch.zeros(())}
    torch.save(found, folder / f"{fabric.global_rank}.pt")


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two processes found."""
    folder = tmp_path_factory.mktemp("devices")
    multiprocessing.set_forkserver_preload([__name__])  # what takes seconds to import is imported once
    fabric = Fabric(accelerator="cpu", devices=2, strategy=DDPStrategy(start_method="forkserver"))
    fabric.launch(in_two_processes, folder)
    return folder, [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


pytestmark = pytest.mark.skipif(
    sys.platform == "win32" or not torch.distributed.is_available(), reason="needs torch.distributed with gloo"
)


def test_two_devices_with_half_the_tasks_each_take_the_steps_of_one_with_all(two):
    alone = train(None)
    for found in two[1]:
        for name, value in alone.items():
            torch.testing.assert_close(found["maml"][name], value, rtol=1e-12, atol=1e-14)


def test_devices_agree_on_weights_and_running_averages(two):
    one, other = (found["batch norm"] for found in two[1])
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_devices_agree_on_when_the_time_is_up(two):
    one, other = (found["steps"]["n"] for found in two[1])
    assert one == other


def test_a_loss_that_is_not_finite_on_one_device_stops_all(two):
    for found in two[1]:
        assert "the loss is nan at step 1" in next(iter(found["diverged"]))


def test_tasks_that_do_not_divide_among_devices_are_refused(two):
    for found in two[1]:
        assert "3 tasks a step do not divide among 2 devices" in next(iter(found["refused"]))


def test_a_run_on_two_devices_can_be_resumed_on_one(two):
    torch.manual_seed(0)
    learner = SGD(MLP(6, 3).double(), lr=0.1, steps=2)
    history = meta_train(learner, tasks((6,)), steps=3, tasks_per_step=4, out=two[0], resume=True)
    assert history.step == 3
