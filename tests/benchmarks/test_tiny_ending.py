"""A network that was chosen ends in every way from the same weights, with the examples and steps that are said."""

import pytest
import torch
from torch import Generator

from quickstudy.nas.build import Limits
from quickstudy.nas.tiny import Tiny
from quickstudy.tasks.task import Examples, Task


@pytest.fixture(scope="module")
def tiny_ending(script):
    return script("tiny_ending")


def test_every_ending_begins_where_the_last_training_ended(tiny_ending, monkeypatch):
    y = torch.arange(60) % 3
    x = torch.rand(60, 1, 8, 8, generator=Generator().manual_seed(0))
    task = Task(Examples(x[None, :40], y[None, :40]), Examples(x[None, 40:], y[None, 40:]), n_way=3)
    space = Tiny(shape=(1, 8, 8), n_classes=3)
    live = tiny_ending.Live("toy", task, space, Limits(), 0.0, 0)
    monkeypatch.setattr(tiny_ending, "chosen", lambda live: space.sample(generator=Generator().manual_seed(0)))
    seen, moved, train = [], [], tiny_ending.train

    def spied(network, x, y, plan, *, generator):
        before = [p.detach().clone() for p in network.parameters()]
        train(network, x, y, plan, generator=generator)
        moved.append(plan.shift * plan.moved)
        seen.append((before, [p.detach().clone() for p in network.parameters()], len(x), plan.steps, plan.lr))

    monkeypatch.setattr(tiny_ending, "train", spied)
    found = tiny_ending.endings(live, 8)
    assert tuple(found) == tiny_ending.NAMES
    assert found[tiny_ending.BETTER] in (found[tiny_ending.CHOSEN], found[tiny_ending.MOVED])
    (first, last, n, *_), *others = seen
    assert moved == [0] * 11 + [0.5, 1]
    assert n == 30
    assert [steps for *_, steps, _ in others] == [4, 4, 8, 8, 2, 2, 4, 4, 8, 16, 8, 8]
    assert [n for *_, n, _, _ in others] == [40] * 6 + [30] + [40] * 3 + [30] * 2
    assert [round(lr, 2) for *_, lr in others] == [0.1, 0.2, 0.1, 0.2, 0.1, 0.2, 0.1, 0.2, 0.2, 0.2, 0.2, 0.2]
    for i, (before, *_) in enumerate(others):
        start = last if i < len(tiny_ending.FURTHER) else first
        assert all(torch.equal(a, b) for a, b in zip(before, start))
