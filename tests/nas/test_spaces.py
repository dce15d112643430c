import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator

from quickstudy.errors import ArchitectureError, NothingFitsError
from quickstudy.nas.architecture import Architecture
from quickstudy.nas.limited import Limited
from quickstudy.nas.nasbench201 import NASBench201
from quickstudy.nas.nasbenchgraph import NASBenchGraph
from quickstudy.nas.space import Space

SPACES = [NASBench201(), NASBenchGraph()]
spaces = pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)


def random(space: Space, seed: int) -> Architecture:
    return space.sample(generator=Generator().manual_seed(seed))


@spaces
@given(seed=st.integers(0, 2**31))
def test_the_text_of_an_architecture_is_read_back_as_itself(space, seed):
    a = random(space, seed)
    assert space.parse(str(a)) == a
    assert hash(space.parse(str(a))) == hash(a)


@spaces
@given(seed=st.integers(0, 2**31))
def test_neighbours_differ_in_one_choice_and_are_all_of_them(space, seed):
    a = random(space, seed)
    near = list(space.neighbours(a))
    assert len(set(near)) == len(near) == sum(len(options) - 1 for options in space.choices.values())
    assert all(sum(x != y for x, y in zip(a.choices, b.choices)) == 1 for b in near)
    assert space.mutate(a, generator=Generator().manual_seed(seed)) in near


@spaces
def test_sampling_is_uniform_over_values(space):
    generator = Generator().manual_seed(0)
    codes = space.one_hot([space.sample(generator=generator) for _ in range(3000)])
    expected = torch.cat([torch.full((len(options),), 1 / len(options)) for options in space.choices.values()])
    assert torch.allclose(codes.mean(0), expected, atol=0.04)


@spaces
def test_every_node_of_a_graph_lies_on_a_way_from_input_to_output(space):
    graph = space.graph(random(space, 0))
    assert all(start < end for start, end in graph.edges)
    inner = range(1, len(graph.nodes) - 1)
    assert all(any(end == i for _, end in graph.edges) and any(start == i for start, _ in graph.edges) for i in inner)


def test_limits_without_a_member_to_begin_with_are_refused():
    space = NASBench201()
    with pytest.raises(NothingFitsError, match="nasbench201/1"):
        Limited(space, lambda a: False, [random(space, 0)])


@spaces
@given(seed=st.integers(0, 2**31))
def test_what_is_sampled_within_limits_keeps_to_them(space, seed):
    start = random(space, seed)
    few = Limited(space, lambda a: sum(a[name] != start[name] for name in space.choices) <= 2, [start])
    generator = Generator().manual_seed(seed)
    a = few.sample(generator=generator)
    assert few.has(a)
    assert few.has(few.mutate(a, generator=generator))
    assert few.digest == space.digest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not the text"),
        ("nasbench201/1 0-1", "not the text"),
        ("nasbenchgraph/1 link=w0000", "of the space nasbenchgraph/1"),
        ("nasbench201/1 0-1=none", "chooses 0-1, 0-2"),
        ("nasbench201/1 0-1=max 0-2=none 1-2=none 0-3=none 1-3=none 2-3=none", "0-1=max is not one of none"),
        ("toy/1 width=016", "canonical"),
    ],
)
def test_a_text_of_no_member_says_what_is_wrong(text, message):
    with pytest.raises(ArchitectureError, match=message):
        NASBench201().parse(text)


def test_a_cell_of_nasbench201_has_the_published_text():
    text = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|none~2|"
    space = NASBench201()
    assert space.to_published(space.from_published(text)) == text


@pytest.mark.parametrize("text", ["|nor_conv_3x3~0|", "|none~7|+|none~0|none~1|+|none~0|none~1|none~2|", ""])
def test_a_text_that_is_no_published_cell_is_refused(text):
    with pytest.raises(ArchitectureError):
        NASBench201().from_published(text)


def test_a_space_of_members_has_no_others():
    whole = NASBenchGraph()
    members = frozenset(random(whole, seed) for seed in range(20))
    space = NASBenchGraph(members)
    assert {random(space, seed) for seed in range(5)} <= members
    stranger = next(a for a in whole.neighbours(next(iter(members))) if a not in members)
    with pytest.raises(ArchitectureError, match="leaves out"):
        space.parse(str(stranger))


def test_cells_that_differ_only_off_the_way_have_the_same_graph():
    space = NASBench201()
    dead = ["none", "nor_conv_3x3", "nor_conv_1x1", "skip_connect", "nor_conv_1x1", "avg_pool_3x3"]
    graphs = {space.graph(space.architecture([*dead[:2], other, *dead[3:]])) for other in ("none", "nor_conv_3x3")}
    assert len(graphs) == 1
    assert [node.operation for node in graphs.pop().nodes][1:-1] == ["nor_conv_3x3", "skip_connect", "avg_pool_3x3"]


def test_a_cell_without_a_way_is_input_and_output():
    space = NASBench201()
    graph = space.graph(space.architecture(["nor_conv_3x3", "none", "none", "none", "none", "none"]))
    assert (len(graph.nodes), graph.edges) == (2, ())
