import re
import xml.etree.ElementTree as ElementTree
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator

from quickstudy.nas.architecture import Graph, Node
from quickstudy.nas.drawing import WORDS, draw, told
from quickstudy.nas.layout import apart, layered
from quickstudy.nas.nasbench201 import NASBench201
from quickstudy.nas.nasbenchgraph import NASBenchGraph
from quickstudy.nas.tiny import Tiny

SPACES = [
    NASBench201(),
    NASBenchGraph(),
    Tiny(shape=(1, 28, 28), n_classes=10),
    Tiny(shape=(3, 20, 32), n_classes=100),
    Tiny(shape=(2, 150), n_classes=2),
]
SVG = "{http://www.w3.org/2000/svg}"


def words(svg: str) -> list[str]:
    return [part.text or "" for part in ElementTree.fromstring(svg).iter(f"{SVG}text")]


@pytest.mark.parametrize("space", SPACES, ids=lambda space: f"{space.id}{getattr(space, 'shape', '')}")
def test_a_drawing_of_any_member_is_valid_says_what_it_shows_and_overlaps_nothing(space):
    generator = Generator().manual_seed(0)
    shape = getattr(space, "shape", None)
    for _ in range(100):
        graph = space.graph(space.sample(generator=generator))
        root = ElementTree.fromstring(draw(graph, shape=shape))
        assert root.tag == f"{SVG}svg"
        assert [part.tag for part in root[:2]] == [f"{SVG}title", f"{SVG}desc"]
        assert root.get("role") == "img"
        _, _, width, height = map(float, root.attrib["viewBox"].split())
        boxes = cell_boxes(root)
        assert all(x >= 0 and x + w <= width and y >= 0 and y + h <= height for x, y, w, h in boxes)
        assert not any(
            a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]
            for a, b in combinations(boxes, 2)
        )


def cell_boxes(root: ElementTree.Element) -> list[tuple[float, ...]]:
    group = root.find(f"{SVG}g")
    assert group is not None
    return [
        tuple(float(part.attrib[name]) for name in ("x", "y", "width", "height")) for part in group.iter(f"{SVG}rect")
    ]


def test_every_operation_of_every_space_has_a_name_in_plain_words():
    of_networks = ("stem_", "down_", "repeat", "head_")
    operations = {word for space in SPACES for word in space.vocabulary if not word.startswith(of_networks)}
    assert operations <= set(WORDS)
    assert not [name for name, _ in WORDS.values() if "_" in name]


def test_a_cell_has_a_box_an_operation_and_a_line_an_edge():
    space = NASBench201()
    graph = space.graph(space.architecture(("nor_conv_3x3",) * 6))
    root = ElementTree.fromstring(draw(graph))
    assert len(cell_boxes(root)) == len(graph.nodes) == 8
    assert len([part for part in root.iter(f"{SVG}path") if part.get("class") == "a-line"]) == len(graph.edges)
    assert words(draw(graph)).count("3×3 convolution") == 6


def test_a_cell_that_lets_nothing_through_is_drawn_as_such():
    space = NASBench201()
    graph = space.graph(space.architecture(("none",) * 6))
    assert words(draw(graph)) == ["input", "output"]
    assert "nothing lies between" in draw(graph)


TINY = Tiny(shape=(1, 28, 28), n_classes=10)
CELL = ("conv3", "none", "none", "skip_connect", "conv1", "none")


def test_a_network_of_tiny_is_a_row_of_stages_with_its_cell_once():
    found = words(draw(TINY.graph(TINY.architecture((*CELL, 8, 2, 3, "stride2", "avg", "mean"))), shape=TINY.shape))
    assert found.count("2 cells") == 3
    assert found.count("3×3 convolution") == 1
    for said in ("28×28", "1 channel", "14×14", "8 maps", "7×7", "16 maps", "4×4", "32 maps", "10 classes", "mean"):
        assert said in found
    assert "twice in every stage;" in found


def test_series_have_steps_and_pictures_that_are_not_square_both_sides():
    series = Tiny(shape=(2, 150), n_classes=2)
    found = words(draw(series.graph(series.architecture((*CELL, 8, 1, 2, "pool2", "max", "grid"))), shape=series.shape))
    assert {"150 steps", "2 channels", "75 steps", "38 steps", "9-step convolution", "halves"} <= set(found)
    wide = Tiny(shape=(3, 20, 32), n_classes=2)
    found = words(draw(wide.graph(wide.architecture((*CELL, 8, 1, 2, "stride2", "max", "grid"))), shape=wide.shape))
    assert {"20×32", "10×16", "5×8", "quarters"} <= set(found)


def test_an_operation_without_a_name_is_written_as_it_is_and_obeyed_nowhere():
    svg = draw(Graph((Node("input"), Node("<script>_&"), Node("output")), ((0, 1), (1, 2))))
    assert "<script>" not in svg
    assert "<script> &" in words(svg)


def test_a_drawing_asks_for_nothing_and_has_no_identifiers_that_could_meet_on_a_page():
    svg = draw(TINY.graph(TINY.architecture((*CELL, 8, 2, 3, "stride2", "avg", "mean"))))
    assert not re.search(r"url\(|href|@import|\bid=", svg)


def test_the_same_graph_gives_the_same_drawing():
    graph = TINY.graph(TINY.sample(generator=Generator().manual_seed(1)))
    assert draw(graph) == draw(graph)


def test_those_who_cannot_see_it_are_told_every_edge():
    nodes = (Node("input"), Node("gat"), Node("skip"), Node("output"))
    assert told(Graph(nodes, ((0, 1), (1, 2), (2, 3))), series=False) == (
        "input to attention (GAT) (1); attention (GAT) (1) to skip (2); skip (2) to output"
    )


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(-500, 500), st.floats(1, 200)), min_size=1, max_size=8), st.floats(0, 40))
def test_neighbours_keep_their_distance_and_move_no_more_than_they_must(nodes, gap):
    wanted, wide = [place for place, _ in nodes], [width for _, width in nodes]
    x = apart(wanted, wide, gap)
    free = [(b - a) - (v + w) / 2 - gap for a, b, v, w in zip(x, x[1:], wide, wide[1:])]
    assert min(free, default=0.0) >= -1e-6
    assert sum(x) == pytest.approx(sum(wanted), abs=1e-6)  # blocks move about their mean
    spaced = [a + v / 2 + gap <= b - w / 2 for a, b, v, w in zip(wanted, wanted[1:], wide, wide[1:])]
    if all(spaced):
        assert x == pytest.approx(wanted)


def test_lines_that_need_not_cross_do_not():
    place = layered([20.0] * 4, [0, 0, 1, 1], [(0, 3), (1, 2)])
    assert (place.x[0] - place.x[1]) * (place.x[3] - place.x[2]) > 0


def test_an_edge_over_several_layers_has_a_place_in_each():
    assert [len(route) for route in layered([20.0] * 3, [0, 1, 2], [(0, 1), (1, 2), (0, 2)]).routes] == [2, 2, 3]
