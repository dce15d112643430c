import copy
import math

import pytest
import torch
from torch import Generator, nn

from quickstudy.nas.build import build, count
from quickstudy.nas.proxies import (
    PROXIES,
    gradient_norm,
    jacov,
    measure_latency,
    multiply_adds,
    naswot,
    parameters,
    synflow,
)
from quickstudy.nas.tiny import Tiny
from quickstudy.nets.batch_norm import NO_EPS

SPACES = [Tiny(shape=(1, 12, 12), n_classes=3), Tiny(shape=(2, 30), n_classes=3)]
spaces = pytest.mark.parametrize("space", SPACES, ids=["pictures", "series"])


def batch_of(space, n=8):
    generator = Generator().manual_seed(1)
    return torch.randn(n, *space.shape, generator=generator), torch.randint(space.n_classes, (n,), generator=generator)


@spaces
@pytest.mark.parametrize("name", PROXIES)
def test_a_proxy_is_finite_repeatable_and_leaves_the_network_as_it_was(space, name):
    batch, generator = batch_of(space), Generator().manual_seed(0)
    for _ in range(5):
        network = build(space, space.sample(generator=generator), generator=generator)
        before = copy.deepcopy(network.state_dict())
        found = PROXIES[name](network, batch)
        assert math.isfinite(found)
        assert found == pytest.approx(PROXIES[name](network, batch))
        assert network.training
        assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
        assert all(p.grad is None and not p.is_inference() for p in network.parameters())
        assert not any(module._forward_hooks for module in network.modules())


@spaces
def test_parameters_and_multiply_adds_are_those_counted_without_building(space):
    generator = Generator().manual_seed(0)
    for _ in range(10):
        a = space.sample(generator=generator)
        network, cost = build(space, a), count(space, a)
        assert parameters(network, batch_of(space)) == cost.parameters
        assert multiply_adds(network, batch_of(space)) == cost.multiply_adds


def test_synflow_is_the_logarithm_of_its_definition():
    space = SPACES[0]
    network = build(space, space.sample(generator=Generator().manual_seed(4))).double().eval()
    plain = copy.deepcopy(network)
    weights = []
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = NO_EPS
        elif isinstance(module, nn.Conv2d | nn.Linear):
            module.weight.data.abs_()
            weights.append(module.weight)
    ones = torch.ones(1, *space.shape, dtype=torch.float64)
    gradients = torch.autograd.grad(plain(ones).sum(), weights)
    flow = sum((weight * g).sum() for weight, g in zip(weights, gradients))
    assert synflow(network, batch_of(space)) == pytest.approx(flow.log().item(), rel=1e-9)


def test_synflow_of_a_network_whose_flow_no_number_holds_is_finite():
    layers = [nn.Linear(4, 4, bias=False) for _ in range(400)]
    for layer in layers:
        nn.init.constant_(layer.weight, 25.0)  # each multiplies by 100
    batch = torch.ones(2, 4), torch.zeros(2, dtype=torch.int64)
    assert synflow(nn.Sequential(*layers), batch) == pytest.approx(400 * math.log(100) + math.log(4 * 400))


def test_naswot_is_the_determinant_of_its_definition():
    network = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU())
    x = torch.randn(4, 3, generator=Generator().manual_seed(0))
    codes = torch.cat([network[:2](x) > 0, network(x) > 0], 1)
    kernel = torch.tensor([[float((a == b).sum()) for b in codes] for a in codes]) + torch.eye(4)
    assert naswot(network, (x, torch.zeros(4, dtype=torch.int64))) == pytest.approx(kernel.logdet().item(), rel=1e-5)


def test_networks_that_tell_examples_apart_have_a_higher_jacov_than_linear_ones():
    x = torch.randn(8, 10, generator=Generator().manual_seed(0))
    labels = torch.zeros(8, dtype=torch.int64)
    torch.manual_seed(0)
    linear = nn.Sequential(nn.Linear(10, 64), nn.Linear(64, 3))
    rectified = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 3))
    assert jacov(rectified, (x, labels)) > jacov(linear, (x, labels))


def test_the_gradient_norm_is_the_sum_of_the_layers():
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    x, y = torch.randn(5, 3), torch.randint(2, (5,))
    nn.functional.cross_entropy(network(x), y).backward()
    expected = sum(layer.weight.grad.norm().item() for layer in (network[0], network[2]))
    assert gradient_norm(network, (x, y)) == pytest.approx(expected, rel=1e-5)


def test_equal_examples_do_not_make_a_proxy_infinite():
    space = SPACES[0]
    network = build(space, space.sample(generator=Generator().manual_seed(0)))
    batch = torch.ones(4, *space.shape), torch.zeros(4, dtype=torch.int64)
    assert all(math.isfinite(proxy(network, batch)) for proxy in PROXIES.values())


def test_measuring_latency_leaves_the_number_of_threads_and_the_network_as_they_were():
    space = SPACES[0]
    network = build(space, space.sample(generator=Generator().manual_seed(0)))
    threads = torch.get_num_threads()
    assert 0 < measure_latency(network, space.shape, seconds=0.01) < 1000
    assert torch.get_num_threads() == threads
    assert network.training
    with pytest.raises(ValueError, match="expected 4D"):
        measure_latency(network, (5, 5), seconds=0.01)
    assert torch.get_num_threads() == threads
