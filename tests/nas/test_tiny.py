from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator

from quickstudy.errors import ArchitectureError, ShapeError
from quickstudy.nas.build import count
from quickstudy.nas.tiny import MOST_WEIGHTS, OPERATIONS, Tiny, alive, weights

SPACES = [
    Tiny(shape=(1, 28, 28), n_classes=10),
    Tiny(shape=(3, 33, 20), n_classes=5),
    Tiny(shape=(2, 50), n_classes=4),
]
spaces = pytest.mark.parametrize("space", SPACES, ids=lambda space: f"{space.name}{space.shape}")
CELL = ("conv3", "none", "none", "skip_connect", "conv1", "none")


@spaces
@given(seed=st.integers(0, 2**31))
def test_the_text_of_an_architecture_is_read_back_as_itself(space, seed):
    a = space.sample(generator=Generator().manual_seed(seed))
    assert space.parse(str(a)) == a


@spaces
@given(seed=st.integers(0, 2**31))
def test_the_canonical_member_is_the_same_network(space, seed):
    a = space.sample(generator=Generator().manual_seed(seed))
    b = space.canonical(a)
    assert space.parse(str(b)) == b == space.canonical(b)
    assert space.graph(b) == space.graph(a)
    assert count(space, b) == count(space, a)


@spaces
@given(seed=st.integers(0, 2**31))
def test_neighbours_that_are_the_same_network_have_one_canonical_member(space, seed):
    a = space.sample(generator=Generator().manual_seed(seed))
    for b in space.neighbours(a):
        assert (space.canonical(a) == space.canonical(b)) == (space.graph(a) == space.graph(b))


@spaces
@given(seed=st.integers(0, 2**31))
def test_neighbours_are_the_members_that_differ_in_one_choice(space, seed):
    a = space.sample(generator=Generator().manual_seed(seed))
    near = set(space.neighbours(a))
    assert all(space.has(b) and sum(x != y for x, y in zip(a.choices, b.choices)) == 1 for b in near)
    assert len(near) <= sum(len(options) - 1 for options in space.choices.values())


@spaces
@given(seed=st.integers(0, 2**31))
def test_every_node_of_a_graph_lies_on_a_way_from_input_to_output(space, seed):
    a = space.sample(generator=Generator().manual_seed(seed))
    graph = space.graph(a)
    assert len(graph.nodes) <= 8 * a["stages"] + 3 <= 27
    assert all(start < end for start, end in graph.edges)
    inner = range(1, len(graph.nodes) - 1)
    assert all(any(end == i for _, end in graph.edges) and any(start == i for start, _ in graph.edges) for i in inner)
    assert {node.operation for node in graph.nodes[1:-1]} <= set(space.vocabulary)
    assert all(node.width and node.size for node in graph.nodes)


def test_members_of_every_number_of_stages_are_encoded_together():
    space = SPACES[0]
    members = [space.architecture((*CELL, 8, 1, stages, "pool2", "avg", "mean")) for stages in (1, 2, 3)]
    encoded = space.encode(members)
    assert encoded.mask.sum(1).tolist() == [8, 13, 18]
    assert space.one_hot(members).sum(1).tolist() == [12, 12, 12]


def test_cells_whose_output_gets_nothing_are_no_members():
    space = SPACES[0]
    with pytest.raises(ArchitectureError, match="leaves out"):
        space.architecture(("conv3", "conv3", "conv3", "none", "none", "none", 8, 1, 1, "stride1", "avg", "mean"))


def test_edges_on_no_way_to_the_output_are_the_same_as_none():
    assert (
        alive(("conv3", "conv3", "none", "skip_connect", "none", "none"))
        == ("none",) * 3 + ("skip_connect",) + ("none",) * 2
    )
    assert alive(("none", "conv3", "none", "none", "conv1", "conv1")) == (
        "none",
        "conv3",
        "none",
        "none",
        "none",
        "conv1",
    )


def test_an_edge_is_alive_where_a_way_from_input_to_output_takes_it():
    ways = [(0, 4), (1, 5), (3,), (0, 2, 5)]  # positions of the edges on each way
    for operations in product(("none", "conv1"), repeat=6):
        used = {i for way in ways if all(operations[i] != "none" for i in way) for i in way}
        assert {i for i, operation in enumerate(alive(operations)) if operation != "none"} == used


def test_no_member_is_larger_than_the_space_allows():
    space = SPACES[0]
    generator = Generator().manual_seed(0)
    assert max(weights(space.sample(generator=generator)) for _ in range(300)) <= MOST_WEIGHTS
    full = ("conv3",) * 6
    with pytest.raises(ArchitectureError, match="leaves out"):
        space.architecture((*full, 32, 3, 3, "stride1", "stride", "grid"))


def test_sampling_accepts_most_of_what_it_draws():
    generator = Generator().manual_seed(0)
    drawn = torch.randint(6, (2000, 6), generator=generator)
    assert sum(any(o != "none" for o in alive(tuple(OPERATIONS[i] for i in row))) for row in drawn.tolist()) > 1900


def test_the_digest_is_that_of_inputs_and_classes():
    digests = {Tiny(shape=shape, n_classes=n).digest for shape in [(1, 28, 28), (3, 28, 28), (1, 28)] for n in (2, 3)}
    assert len(digests) == 6
    assert Tiny(shape=(1, 28, 28), n_classes=10).digest == SPACES[0].digest


@pytest.mark.parametrize("shape", [(28,), (1, 2, 3, 4), (0, 28, 28)])
def test_shapes_that_are_neither_pictures_nor_series_are_refused(shape):
    with pytest.raises(ShapeError, match="neither"):
        Tiny(shape=shape, n_classes=10)


def test_one_class_is_refused():
    with pytest.raises(ShapeError, match="1 classes"):
        Tiny(shape=(1, 28, 28), n_classes=1)
