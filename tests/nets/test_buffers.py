"""Buffers are kept, whatever a network makes of them."""

import pytest
import torch
from torch import Tensor, nn

from quickstudy.nets.buffers import keeping_buffers


class Forgetful(nn.Module):
    """It reassigns one buffer, changes another in place, and fills a third that is empty."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(2))
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("latest", None)

    def forward(self, x: Tensor) -> Tensor:
        self.mean = x.mean(0)
        self.calls += 1
        self.latest = x
        return x


def test_buffers_are_those_of_before():
    net = nn.Sequential(Forgetful(), Forgetful())
    before = {name: (value, value.clone()) for name, value in net.named_buffers()}
    with keeping_buffers(net.modules()):
        net(torch.ones(3, 2))
        assert bool(net[0].mean.all())
    assert all(value is before[name][0] and torch.equal(value, before[name][1]) for name, value in net.named_buffers())
    assert net[0].latest is None


def test_they_are_kept_where_the_network_fails():
    net = nn.Sequential(Forgetful(), nn.Linear(3, 2))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), keeping_buffers(net.modules()):
        net(torch.ones(3, 2))
    assert not net[0].calls
    assert not net[0].mean.any()
