"""What a search might compare networks by, and what is lost by it."""

import math

import pytest
import torch
from torch import Generator

from quickstudy.nas.build import Limits
from quickstudy.nas.tiny import Tiny
from quickstudy.tasks.task import Examples, Task


@pytest.fixture(scope="module")
def tiny_choosing(script):
    return script("tiny_choosing")


def test_each_criterion_prefers_what_is_surer_of_the_right_class(tiny_choosing):
    y = torch.tensor([0, 1])
    sure, unsure = torch.tensor([[0.9, 0.1], [0.2, 0.8]]), torch.tensor([[0.6, 0.4], [0.3, 0.7]])
    said = {name: (each(sure, y), each(unsure, y)) for name, each in tiny_choosing.CRITERIA.items()}
    assert said.pop("right answers") == (1, 1)
    assert all(a > b for a, b in said.values())
    assert said["mean probability of the right class"] == pytest.approx((0.85, 0.65))
    assert said["log-likelihood"][0] == pytest.approx((math.log(0.9) + math.log(0.8)) / 2)
    assert said["Brier's score"][0] == pytest.approx(-(2 * 0.01 + 2 * 0.04) / 2)


def test_what_ranks_networks_as_they_are_worth_loses_nothing(tiny_choosing):
    worth = [50.0, 60.0, 70.0, 80.0]
    assert tiny_choosing.lost([1.0, 2.0, 3.0, 4.0], worth) == 0
    assert tiny_choosing.lost([4.0, 3.0, 2.0, 1.0], worth, draws=2000) == pytest.approx(100 / 6, abs=1)


def test_networks_are_judged_after_each_rung_and_worth_what_another_training_gives(tiny_choosing, monkeypatch):
    y = torch.arange(60) % 3
    x = torch.rand(60, 1, 8, 8, generator=Generator().manual_seed(0))
    task = Task(Examples(x[None, :40], y[None, :40]), Examples(x[None, 40:], y[None, 40:]), n_way=3)
    live = tiny_choosing.Live("toy", task, Tiny(shape=(1, 8, 8), n_classes=3), Limits(max_params=5000), 0.0, 0)
    steps, train = [], tiny_choosing.train

    def spied(network, x, y, plan, *, generator):
        steps.append(plan.steps)
        assert len(x) == 30
        train(network, x, y, plan, generator=generator)

    monkeypatch.setattr(tiny_choosing, "train", spied)
    said, worth = tiny_choosing.judged(live, (2, 4), 3)
    assert steps == [2, 4, 4] * 3
    assert len(worth) == 3
    assert all(len(values) == 3 for values in said.values())
    assert set(said) == {(name, steps) for name in tiny_choosing.CRITERIA for steps in (2, 4)}
