import xml.etree.ElementTree as ElementTree

import pytest

from quickstudy.report.plots import WIDTH, Axis, Bar, Dot, Point, bars, columns, dots, line, ticks


def parts(svg: str, kind: str, strong: bool | None = None) -> list[ElementTree.Element]:
    """The elements of an SVG that carry a class name; parsing it is the proof that it is valid XML."""
    classes = [(part, part.get("class", "").split()) for part in ElementTree.fromstring(svg).iter()]
    return [part for part, names in classes if kind in names and strong in (None, "strong" in names)]


def numbers(part: ElementTree.Element, *names: str) -> list[float]:
    return [float(part.attrib[name]) for name in names]


def test_an_axis_is_linear_between_its_ends():
    axis = Axis(20, 100, 10, 330)
    assert [axis(20), axis(60), axis(100)] == [10, 170, 330]
    assert [axis.clamp(0), axis.clamp(200)] == [10, 330]


def test_an_axis_of_one_value_does_not_divide_by_zero():
    assert Axis(5, 5, 0, 100)(5) == 0


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 61.4), (20, 100), (0, 7), (0, 12345), (0.001, 0.0042)])
def test_ticks_are_few_round_and_inside(low, high):
    found = ticks(low, high)
    assert 2 <= len(found) <= 6
    assert low <= found[0] <= found[-1] <= high


def test_an_empty_interval_has_one_tick():
    assert ticks(3, 3) == [3]


def test_a_dot_lies_at_its_mean_and_its_interval_around_it():
    svg = dots([Dot("a", 50, 10), Dot("b", 75, None)])
    first, second = parts(svg, "dot")
    assert numbers(first, "cx") == [WIDTH / 2]
    assert numbers(second, "cx") == [WIDTH * 0.75]
    (interval,) = parts(svg, "interval")
    assert numbers(interval, "x1", "x2") == [WIDTH * 0.4, WIDTH * 0.6]
    assert numbers(interval, "y1") == numbers(first, "cy")


def test_an_interval_that_leaves_the_axis_is_cut_at_its_end():
    (interval,) = parts(dots([Dot("a", 98, 5)]), "interval")
    assert numbers(interval, "x2") == [WIDTH]


def test_the_row_that_the_page_is_about_stands_out():
    assert len(parts(dots([Dot("ours", 90, 1, strong=True), Dot("theirs", 80, 1)]), "dot", strong=True)) == 1


def test_chance_is_a_line_at_its_value():
    (chance,) = parts(dots([Dot("a", 50)], chance=20), "chance")
    assert numbers(chance, "x1", "x2") == [WIDTH * 0.2] * 2


def test_a_line_goes_through_its_points_inside_its_band():
    svg = line([Point(0, 20, 5), Point(10, 60, 5), Point(20, 100, 0)], x_label="steps")
    first, second, third = (numbers(part, "cx", "cy") for part in parts(svg, "dot"))
    assert second == pytest.approx([(first[0] + third[0]) / 2, (first[1] + third[1]) / 2])
    assert first[1] > third[1]  # more is higher
    (band,) = parts(svg, "band")
    heights = [float(pair.split(",")[1]) for pair in band.attrib["d"].strip("MZ").split("L")]
    assert len(heights) == 6
    assert heights[0] < first[1] < heights[-1]


def test_the_marked_point_is_larger_and_a_second_row_of_labels_is_written():
    svg = line([Point(0, 1), Point(10, 2)], x_label="seconds", low=0, high=4, marked=1, beneath=lambda x: f"<{x:g}>")
    radii = [numbers(part, "r")[0] for part in parts(svg, "dot")]
    assert radii[1] > radii[0]
    assert "<10>" in [part.text for part in parts(svg, "faint")]


def test_a_line_without_points_is_still_a_plot():
    assert not parts(line([], x_label="seconds"), "line")
    assert len(parts(line([Point(0, 50)], x_label="steps"), "dot")) == 1


def test_bars_are_as_long_as_their_values():
    widths = [numbers(part, "width")[0] for part in parts(bars([Bar("a", 4), Bar("b", 1), Bar("c", 0)]), "bar")]
    assert widths == [WIDTH, WIDTH / 4, 0]


def test_columns_are_as_high_as_their_probabilities_and_mark_answer_and_truth():
    svg = columns([0.25, 0.5, 0.25], chosen=1, truth=2)
    heights = [numbers(part, "height")[0] for part in parts(svg, "column")]
    assert heights == [5.5, 11, 5.5]
    lefts = [numbers(part, "x")[0] for part in parts(svg, "column")]
    assert numbers(parts(svg, "chosen")[0], "x") == [lefts[1]]
    assert numbers(parts(svg, "truth")[0], "x") == [lefts[2]]


def test_plots_escape_what_they_are_given():
    label = "<script>alert('1')</script> & \"co\""
    for svg in (dots([Dot(label, 1)], title=label), bars([Bar(label, 1)], title=label), line([], x_label=label)):
        assert "<script" not in svg
        assert any(part.text == label for part in ElementTree.fromstring(svg).iter("text"))


def test_those_who_cannot_see_a_plot_are_told_its_values():
    assert "maml 93.2 %" in ElementTree.fromstring(dots([Dot("maml", 93.2)], title="Accuracy")).attrib["aria-label"]
