import re
import xml.etree.ElementTree as ElementTree
from dataclasses import FrozenInstanceError, replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from page import Page

from quickstudy.errors import ShapeError
from quickstudy.report import Attempt, Cost, Score, SearchReport, one_of_each, render
from quickstudy.report.search_plots import curve, decades, history, pareto, short
from quickstudy.report.search_summary import best_so_far

DRAWING = (
    '<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="The network"><text>3×3 convolution</text></svg>'
)
TRIED = (
    Attempt(0, 1.0, 71.5, 900, 0.2),
    Attempt(1, 2.5, 64.0, 15000, 0.9, share=0.25),
    Attempt(2, 4.0, None, 400),
    Attempt(3, 6.0, 90.25, 12345, 0.4),
)
BARE = SearchReport(
    data="digits",
    class_names=("otter", "bee"),
    shape=(1, 8, 8),
    counts=(40, 38),
    seconds=52.3,
    architecture="tiny/1 0-1=conv3 width=8",
    drawing=DRAWING,
    costs=(Cost("parameters", 12345),),
    test=Score("found by search", "test", 91.2, None, 20, None, 70.0, 98.1),
)
FULL = replace(
    BARE,
    costs=(
        Cost("parameters", 12345, 20000),
        Cost("multiply-adds", 443616),
        Cost("peak memory", 50176, 65536, "bytes"),
        Cost("latency", 0.4213, 2.0, "ms"),
    ),
    expected=Score("found by search", "validation", 93.4, None, 15, None, 75.0, 99.0),
    baselines=(Score("largest that fits", "test", 88.0, None, 20, None, 65.0, 96.0),),
    attempts=TRIED,
    chosen=3,
    too_slow=1200,
    confusion=torch.tensor([[9, 1], [0, 10]]),
    examples=torch.randint(256, (2, 1, 8, 8), generator=torch.Generator().manual_seed(0)).byte(),
    known="It began with what 20 earlier tasks had taught it.",
    warnings=("Only 15 validation examples.",),
    files={"model.safetensors": 61234, "model.onnx": 64102},
    python="import torch",
    onnx="import onnxruntime",
    settings={"seed": "17"},
)


def said(report: SearchReport) -> str:
    return Page(render(report)).text


@pytest.mark.parametrize("report", [FULL, BARE], ids=["full", "bare"])
def test_a_report_of_a_search_is_one_valid_page_that_asks_for_no_other_file(report):
    text = render(report)
    page = Page(text)
    assert len(page.all("h1")) == 1
    assert not re.search(r"https?:|url\(|@import|src=\"(?!data:)", text)
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags}
    assert not re.search(r"\bNone\b|Undefined", page.text)
    assert all(plot.get("aria-label") or plot.get("aria-hidden") == "true" for plot in page.all("svg"))
    assert all(image["alt"] for image in page.all("img"))
    assert all(header.get("scope") in ("col", "row") for header in page.all("th"))


def test_it_says_what_was_found_how_good_it_is_and_what_it_costs():
    text = said(FULL)
    for part in (
        "A network for digits, found in 52 seconds",
        "trained 3 networks on 78 labelled examples of 2 classes. It began with what 20 earlier tasks had taught it.",
        "was then asked about 20 other examples, once",
        "91.2 % (70.0 to 98.1), 20 examples",
        "93.4 % (75.0 to 99.0), from 15 validation examples",
        "12,345 of 20,000 allowed",
        "3×3 convolution",
        "It keeps to every limit.",
        "peak memory 50,176 bytes 65,536 bytes 77 %",
        "latency 0.421 ms 2 ms 21 %",
        "multiply-adds 443,616 none",
        "tiny/1 0-1=conv3 width=8",
        "largest that fits 88.0 (65.0 to 96.0)",
        "otter 9 of 10",
        "bee 10 of 10",
        "3 networks were trained; 1 training failed, shown as ×; 1,200 more were measured and too slow",
        "hollow ones got a part of the training",
        "78 examples in 2 classes, 38 to 40 a class: pictures of 8×8 pixels and 1 channel.",
        "otter 40 examples",
        "Only 15 validation examples.",
        "model.onnx 64,102 bytes",
        "import onnxruntime",
        "seed 17",
    ):
        assert part in text


def test_a_limit_that_was_not_kept_is_said():
    assert "It is beyond the limit of latency." in said(replace(FULL, costs=(Cost("latency", 3.0, 2.0, "ms"),)))


def test_what_a_search_lacks_leaves_no_hole():
    text = said(BARE)
    for heading in ("Against other ways", "Where it is right", "How it was found", "How to use it", "Please note"):
        assert heading in said(FULL)
        assert heading not in text
    assert "no limit was set" in text
    assert "expected accuracy" not in text


def test_without_a_test_set_the_expected_accuracy_leads():
    text = said(replace(FULL, test=None, confusion=None))
    assert "There is no test set to judge it on." in text
    assert "accuracy on the test set" not in text.partition("Against")[0]
    assert "expected accuracy 93.4 %" in text
    assert "before it went on" not in text
    assert "15 validation examples, before it went on with these too" in said(replace(FULL, went_on=True))


def test_one_of_each_class_is_shown_whatever_its_values_and_channels():
    y = torch.tensor([1, 0, 1, 0])
    levels = one_of_each(torch.tensor([0.0, 1.0, 0.3, 0.4]).reshape(4, 1, 1, 1).expand(4, 3, 2, 2), y, 2)
    assert levels[:, 0, 0, 0].tolist() == [255, 0]
    stretched = one_of_each(torch.tensor([-3.0, 5.0, 0.3, 0.4]).reshape(4, 1, 1, 1).expand(4, 7, 2, 2), y, 2)
    assert stretched.shape == (2, 1, 2, 2)
    assert stretched[:, 0, 0, 0].tolist() == [255, 0]
    assert one_of_each(torch.full((4, 1, 2, 2), 9).byte(), y, 2).unique().tolist() == [9]
    assert one_of_each(torch.arange(8.0).reshape(4, 1, 2), y, 2).tolist() == [[[2, 3]], [[0, 1]]]


def test_a_search_without_latencies_has_one_front():
    without = tuple(replace(attempt, latency=None) for attempt in TRIED)
    text = said(replace(FULL, attempts=without))
    assert "Accuracy against parameters" in text
    assert "Accuracy against latency" not in text


def test_a_search_whose_trainings_all_failed_is_still_a_page():
    failed = tuple(replace(attempt, accuracy=None) for attempt in TRIED)
    text = said(replace(FULL, attempts=failed, chosen=None))
    assert "4 trainings failed" in text
    assert "Accuracy against" not in text
    assert "The large dot" not in text


def test_series_are_drawn_as_lines_and_pictures_as_pictures():
    waves = torch.sin(torch.arange(60.0)).repeat(2, 3, 1)
    page = Page(render(replace(FULL, shape=(3, 60), examples=waves)))
    assert "series of 60 steps and 3 channels" in page.text
    assert not page.all("img")
    assert len(Page(render(FULL)).all("img")) == 2


def test_short_class_names_stand_above_the_columns_of_the_confusion_and_long_ones_are_numbered():
    heads = re.findall(r"<abbr[^>]*>(\w+)</abbr>", render(replace(FULL, class_names=("7", "8"))))
    assert heads == ["7", "8"]
    assert re.findall(r"<abbr[^>]*>(\w+)</abbr>", render(FULL)) == ["1", "2"]


def test_many_classes_stay_compact():
    k = 70
    confusion = 4 * torch.eye(k, dtype=torch.int64)
    confusion[3, 7] = 2
    names = tuple(f"class {i}" for i in range(k))
    report = replace(FULL, class_names=names, counts=(9,) * k, confusion=confusion, examples=None)
    text = said(report)
    assert "the 12 classes of 70 that went worst" in text
    assert "class 3 4 of 6" in text
    assert "class 3 for class 7" in text
    assert "and 46 more classes" in text


@pytest.mark.parametrize("evil", ["<script>alert('1')</script> & co", "{{ 7 * 7 }}", '" onerror="x'])
def test_names_that_hold_html_are_shown_and_not_obeyed(evil):
    report = replace(
        FULL,
        data=evil,
        class_names=(evil, "</style></svg>"),
        warnings=(evil,),
        files={evil: 1},
        python=evil,
        known=evil,
    )
    page = Page(render(report))
    assert not page.all("script")
    assert not [attributes for _, attributes in page.tags if "onerror" in attributes]
    assert evil in page.text


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"counts": (1,)}, "2 class names came with 1 counts"),
        ({"confusion": torch.eye(3)}, r"confusion is \(3, 3\); 2 classes make it \(2, 2\)"),
        ({"examples": torch.zeros(3, 1, 8, 8).byte()}, "give one a class"),
        ({"examples": torch.zeros(2, 8)}, "give one a class"),
        ({"examples": torch.zeros(2, 1, 8, 8)}, "a report shows uint8 ones"),
        ({"chosen": 9}, "attempt 9 was chosen, and is not among the 4 attempts"),
    ],
)
def test_values_that_do_not_belong_together_are_refused(change, sentence):
    with pytest.raises(ShapeError, match=sentence):
        replace(FULL, **change)


def test_a_report_of_a_search_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        FULL.data = "other"  # type: ignore[misc]


ATTEMPTS = st.lists(st.tuples(st.floats(0, 60), st.none() | st.floats(0, 100), st.integers(1, 10**6)), max_size=25).map(
    lambda rows: [Attempt(i, *row) for i, row in enumerate(rows)]
)


@settings(max_examples=100, deadline=None)
@given(ATTEMPTS)
def test_the_best_so_far_only_rises_and_ends_at_the_best(attempts):
    found = best_so_far(attempts)
    assert all(a < b and s <= t for (s, a), (t, b) in pairwise(found))
    known = [attempt.accuracy for attempt in attempts if attempt.accuracy is not None]
    assert (found[-1][1] if found else None) == max(known, default=None)


@settings(max_examples=50, deadline=None)
@given(ATTEMPTS, st.none() | st.floats(0.1, 1e7), st.none() | st.integers(0, 24))
def test_every_search_can_be_plotted_within_its_frame(attempts, limit, chosen):
    for svg in (
        history(attempts, chosen=chosen),
        pareto(attempts, lambda attempt: attempt.parameters, x_label="parameters", limit=limit, chosen=chosen),
    ):
        root = ElementTree.fromstring(svg)
        width, height = (float(root.attrib[name]) for name in ("width", "height"))
        for dot in root.iter("circle"):
            assert 0 <= float(dot.attrib["cx"]) <= width
            assert 0 <= float(dot.attrib["cy"]) <= height


def kinds(svg: str, kind: str) -> int:
    return sum(kind in part.get("class", "").split() for part in ElementTree.fromstring(svg).iter())


def test_failed_attempts_are_crosses_partly_trained_ones_hollow_and_the_chosen_one_ringed():
    svg = history(TRIED, chosen=3)
    assert (kinds(svg, "failed"), kinds(svg, "partly"), kinds(svg, "ring"), kinds(svg, "dot")) == (1, 1, 1, 3)


def test_a_limit_is_a_line_where_it_is_near_and_not_drawn_where_it_is_far():
    def plot(limit):
        return pareto(TRIED, lambda attempt: attempt.parameters, x_label="parameters", limit=limit)

    assert "limit 20,000" in plot(20000)
    assert kinds(plot(20000), "chance") == 1
    assert kinds(plot(10**9), "chance") == 0
    assert kinds(plot(None), "chance") == 0


def test_a_flat_or_short_series_is_still_a_line():
    for series in (torch.zeros(1, 9), torch.ones(5, 1), torch.arange(2000.0)[None]):
        assert kinds(curve(series), "line") == 1


@pytest.mark.parametrize(("low", "high"), [(90, 2500), (0.02, 0.09), (1, 1e6), (5, 6)])
def test_decades_are_few_and_inside(low, high):
    found = decades(low, high)
    assert 2 <= len(found) <= 7
    assert all(low <= value <= high for value in found)


def test_round_numbers_are_short():
    assert [short(value) for value in (20000, 2e6, 0.05, 1000)] == ["20k", "2M", "0.05", "1k"]
