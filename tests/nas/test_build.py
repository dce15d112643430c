import re
import time
from math import prod

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Generator, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.utils.flop_counter import FlopCounterMode

from quickstudy.errors import NothingFitsError, QuantityError
from quickstudy.nas.build import Cost, Limits, build, count, smallest
from quickstudy.nas.tiny import DOWNS, HEADS, OPERATIONS, STEMS, Tiny

SPACES = [
    Tiny(shape=(1, 28, 28), n_classes=10),
    Tiny(shape=(3, 33, 20), n_classes=5),
    Tiny(shape=(1, 1, 1), n_classes=2),
    Tiny(shape=(2, 50), n_classes=4),
    Tiny(shape=(1, 3), n_classes=700),
]
spaces = pytest.mark.parametrize("space", SPACES, ids=lambda space: f"{space.name}{space.shape}")
CELL = ("conv3", "sep_conv3", "avg_pool3", "skip_connect", "none", "conv1")


def random(space, seed):
    return space.sample(generator=Generator().manual_seed(seed))


def interpreted(network: nn.Module, shape: tuple[int, ...]) -> int:
    """Peak memory in bytes of torch's own trace of the network, where each tensor has a storage or shares another's."""
    traced = fx.symbolic_trace(network)
    ShapeProp(traced).propagate(torch.zeros(1, *shape))
    modules, nodes = dict(traced.named_modules()), [node for node in traced.graph.nodes if node.op != "output"]
    storage: dict[fx.Node, fx.Node] = {}
    held: set[fx.Node] = set()
    peak = 0
    for i, node in enumerate(nodes):
        kind = type(modules[node.target]).__name__ if node.op == "call_module" else node.name.partition("_")[0]
        later = {storage[a] for other in nodes[i + 1 :] for a in other.all_input_nodes if a in storage}
        read = [storage[a] for a in node.all_input_nodes]
        free = [one for one in read if one not in later]
        shared = read if kind in ("Flatten", "Unflatten") else free if kind in ("ReLU", "BatchNorm2d", "add") else []
        storage[node] = shared[0] if shared else node
        held.add(storage[node])
        peak = max(peak, sum(prod(one.meta["tensor_meta"].shape) for one in held))
        held &= later | {storage[node]}
    return 4 * peak


@spaces
@settings(deadline=None, max_examples=12)
@given(seed=st.integers(0, 2**31))
@example(seed=217208)  # of odd sizes, and cells that hold one map at a time
def test_costs_are_those_of_the_built_network(space, seed):
    a = random(space, seed)
    network, cost = build(space, a).eval(), count(space, a)
    assert cost.parameters == sum(p.numel() for p in network.parameters())
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        logits = network(torch.zeros(1, *space.shape))
    assert logits.shape == (1, space.n_classes)
    assert cost.multiply_adds == flops.get_total_flops() // 2
    assert cost.peak_memory == interpreted(network, space.shape)


@pytest.mark.parametrize("space", SPACES[2:4], ids=["one pixel", "series"])
@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("down", DOWNS)
@pytest.mark.parametrize("head", HEADS)
def test_every_kind_of_member_trains(space, stem, down, head):
    a = space.architecture((*CELL, 6, 2, 3, stem, down, head))
    network = build(space, a)
    network(torch.rand(3, *space.shape)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_counting_takes_less_than_a_millisecond():
    space = SPACES[0]
    members = [random(space, seed) for seed in range(100)]
    start = time.process_time()
    for a in members:
        count(space, a)
    assert (time.process_time() - start) / len(members) < 1e-3


def test_the_same_generator_gives_the_same_weights():
    space, a = SPACES[0], random(SPACES[0], 3)
    one = build(space, a, generator=Generator().manual_seed(0)).state_dict()
    torch.manual_seed(5)
    two = build(space, a, generator=Generator().manual_seed(0)).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_edges_on_no_way_to_the_output_are_not_built():
    space = SPACES[0]
    rest = (8, 1, 1, "stride1", "avg", "mean")
    dead = space.architecture(("conv3", "conv3", "conv3", "conv1", "none", "none", *rest))
    none = space.architecture(("none", "none", "none", "conv1", "none", "none", *rest))
    assert count(space, dead) == count(space, none)
    assert space.graph(dead) == space.graph(none)
    assert build(space, dead).state_dict().keys() == build(space, none).state_dict().keys()


def test_limits_hold_each_cost():
    cost = Cost(parameters=100, multiply_adds=1000, peak_memory=64)
    assert Limits().allows(cost)
    assert Limits(max_params=100, max_memory=64, max_madds=1000).allows(cost)
    for limits in (Limits(max_params=99), Limits(max_memory=63), Limits(max_madds=999)):
        assert not limits.allows(cost)


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**31))
def test_sampling_within_limits_never_exceeds_them(seed):
    space, limits = SPACES[0], Limits(max_params=5_000, max_memory=64_000, max_madds=1_000_000)
    generator = Generator().manual_seed(seed)
    within = limits.within(space)
    a = within.sample(generator=generator)
    b = within.mutate(a, generator=generator)
    assert limits.allows(count(space, a))
    assert limits.allows(count(space, b))


def test_very_tight_limits_still_leave_different_networks_to_sample():
    space = SPACES[0]
    limits = Limits(max_params=count(space, smallest(space)["parameters"]).parameters + 400)
    within, generator = limits.within(space), Generator().manual_seed(0)
    found = {within.sample(generator=generator) for _ in range(50)}
    assert len(found) > 25
    assert all(limits.allows(count(space, a)) for a in found)


@spaces
def test_nothing_costs_less_than_the_smallest(space):
    least = {name: getattr(count(space, a), name) for name, a in smallest(space).items()}
    assert all(space.has(a) for a in smallest(space).values())
    for seed in range(100):
        assert all(getattr(count(space, random(space, seed)), name) >= value for name, value in least.items())


def test_limits_are_read_as_written_and_refused_where_they_are_none():
    assert Limits.read(max_params="20k", max_latency="2ms") == Limits(max_params=20_000, max_latency=2.0)
    with pytest.raises(QuantityError, match="max_params='20k' is a text"):
        Limits(max_params="20k")
    for none in ({"max_memory": 0}, {"max_latency": float("nan")}, {"max_madds": -1}):
        with pytest.raises(QuantityError, match=f"{next(iter(none))}=.* is no limit"):
            Limits(**none)


def test_limits_that_nothing_meets_name_the_smallest_there_is():
    space = SPACES[0]
    fewest = count(space, smallest(space)["parameters"]).parameters
    assert Limits(max_params=fewest).within(space).sample(generator=Generator().manual_seed(0))
    message = re.escape(f"The fewest parameters are {fewest:,}")
    with pytest.raises(NothingFitsError, match=message):
        Limits(max_params=fewest - 1).within(space)


def test_all_operations_are_built():
    space = SPACES[0]
    for operation in OPERATIONS[1:]:
        build(space, space.architecture((operation,) * 6 + (4, 1, 1, "pool4", "avg", "mean")))
