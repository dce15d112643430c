import builtins
import math
import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from page import Page

import quickstudy.report
from quickstudy.errors import MissingExtraError
from quickstudy.report import (
    AdaptReport,
    DemoReport,
    Predictions,
    Score,
    SelfCheck,
    StepCurve,
    TaskShown,
    TrainingCurve,
    render,
)
from quickstudy.training.history import Validation

EVIL = "<script>alert(\"1\")</script> & 'co'"


def pictures(n: int, channels: int = 1) -> torch.Tensor:
    return torch.randint(256, (n, channels, 5, 4), generator=torch.Generator().manual_seed(0)).byte()


METHODS = ("prototypical network, trained live", "nearest neighbour on pixels")
SCORES = (
    Score(METHODS[0], "5-way 1-shot", 94.93, 0.42, 600, 0.0021),
    Score(METHODS[0], "20-way 1-shot", 87.7, 0.31, 600, 0.0078),
    Score(METHODS[1], "5-way 1-shot", 55.6, 0.5, 600),
)
BARE = DemoReport("a prototypical network", METHODS[0], 61.4, "1,987 characters", "318 others", SCORES[:1], {})
DEMO = replace(
    BARE,
    scores=SCORES,
    chance={"5-way 1-shot": 20.0, "20-way 1-shot": 5.0},
    curve=TrainingCurve(
        METHODS[0],
        "5-way 1-shot",
        tuple(Validation(s * 25, float(s), "accuracy %", m, 1.0) for s, m in ((1, 40.0), (30, 93.0), (60, 91.0))),
        chance=20.0,
    ),
    task=TaskShown(
        METHODS[0],
        ("lao bo", "hebrew he"),
        pictures(2),
        (0, 1),
        pictures(3),
        (0, 1, 1),
        torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.73, 0.27]]),
    ),
    steps=StepCurve("maml, shipped", "5-way 1-shot", ((0, 40.0, 1.0), (1, 70.0, 1.0), (5, 96.0, 0.5)), 600, 20.0),
    shell="quickstudy adapt glyphs my_classes/",
    python="import quickstudy",
    settings={"seed": "17", "torch": "2.13.0"},
)
ADAPT_BARE = AdaptReport("glyphs", "my_classes", ("lao bo", "hebrew he"), pictures(2), (0, 1), "the prior", 2.31)
ADAPT = replace(
    ADAPT_BARE,
    support=pictures(14),
    support_labels=(0,) * 12 + (1,) * 2,
    check=SelfCheck(
        (
            Score("the prior", "left-out pictures", 92.9, None, 14, 0.002, 68.6, 98.7),
            Score("from scratch", "left-out pictures", 62.5, 19.4, 14, 1.2),
        ),
        "the prior",
        "The prior won the check.",
        Score("the choice", "left-out pictures", 85.7, None, 14, None, 60.1, 96.0),
        torch.tensor([[11, 1], [0, 2]]),
    ),
    predictions=Predictions(
        ("a/one.png", "a/two.png", "b/three.png"),
        pictures(3),
        (0, None, 1),
        torch.tensor([0.97, math.nan, 0.66]),
        (1, 1, 0),
    ),
    warnings=("bad.png could not be read and was left out.",),
    settings={"seed": "17"},
)
EVERY = pytest.mark.parametrize("report", [DEMO, BARE, ADAPT, ADAPT_BARE], ids=["demo", "bare demo", "adapt", "bare"])


@EVERY
def test_a_report_is_valid_html_in_the_right_order(report):
    page = Page(render(report))
    assert [tag for tag, _ in page.tags[:2]] == ["html", "head"]
    assert len(page.all("h1")) == 1
    assert "None" not in page.text
    assert "Undefined" not in page.text


@EVERY
def test_a_report_asks_for_no_other_file(report):
    text = render(report)
    page = Page(text)
    assert not re.search(r"https?:|url\(|@import|src=\"(?!data:)", text)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert any("default-src 'none'" in (meta.get("content") or "") for meta in page.all("meta"))


@EVERY
def test_every_picture_has_words_and_every_plot_a_label_or_none_to_read(report):
    page = Page(render(report))
    assert all(image["alt"] and image["src"].startswith("data:image/png;base64,") for image in page.all("img"))
    assert all(plot.get("aria-label") or plot.get("aria-hidden") == "true" for plot in page.all("svg"))
    assert all(header.get("scope") in ("col", "row") for header in page.all("th"))


def test_the_demo_says_what_was_learned_how_fast_and_how_well():
    text = Page(render(DEMO)).text
    assert "Learning to learn, in 61 seconds" in text
    for said in ("94.9 %", "± 0.4, guessing 20 %", "87.7 %", "1,500 steps", "mean of 600 tasks", "2.1 ms", "guessing"):
        assert said in text


@EVERY
def test_a_report_says_of_what_its_intervals_are(report):
    said = "one written ± is of a mean over tasks, one written (from to) Wilson’s of a share of right answers"
    assert said in Page(render(report)).text


def test_a_method_that_was_not_measured_in_a_setting_has_a_dash():
    rows = render(DEMO).split("<tbody>")[1].split("</tbody>")[0].split("<tr")
    row = next(row for row in rows if METHODS[1] in row)
    assert Page("<tr" + row).text == f"{METHODS[1]} 55.6 ± 0.5 – – –"


def test_a_mistake_is_marked_by_more_than_colour():
    page = Page(render(DEMO))
    assert [item for item in page.all("li") if item.get("class") == "wrong"] == [{"class": "wrong"}]
    assert page.text.count("✗") == 2  # in the sentence that explains it, and at the mistake
    assert "named 2 of 3 new pictures rightly" in page.text
    assert "hebrew he, answered lao bo: wrong" in [image["alt"] for image in page.all("img")]


def test_what_a_demo_lacks_leaves_no_hole():
    text = Page(render(BARE)).text
    for heading in ("One task", "How it got there", "With your own pictures"):
        assert heading in Page(render(DEMO)).text
        assert heading not in text
    assert "Adapting to a new task" not in Page(render(replace(DEMO, steps=None))).text
    assert "Meta-training ." in Page(render(replace(DEMO, steps=None))).text


def test_the_checkpoint_that_was_kept_is_picked_out():
    plot = next(piece for piece in render(DEMO).split("<svg") if "Validation accuracy" in piece)
    assert re.findall(r'<circle [^>]*r="([\d.]+)"', plot) == ["2", "4.5", "2"]


def test_an_adapt_report_says_what_to_expect_and_why():
    text = Page(render(ADAPT)).text
    for said in (
        "3 pictures in 2 classes",
        "14 labelled pictures in my_classes, 2 to 12 a class",
        "The prior won the check.",
        "accuracy to expect 86 % (60 to 96), from 14 pictures left out: some chose the method, the others judged it",
        "on the pictures that chose it, so a little flattering",
        "bad.png could not be read",
        "and 2 more",
        "92.9 (68.6 to 98.7)",
        "62.5 ± 19.4",
        "1 looks like none of the classes",
    ):
        assert said in text


def test_predictions_are_shown_least_certain_first_with_file_and_probability():
    text = Page(render(ADAPT)).text
    places = [text.index(name) for name in ("two.png", "three.png", "one.png")]
    assert places == sorted(places)
    assert "none of these closest to hebrew he two.png" in text
    assert "hebrew he 66 %, or lao bo three.png" in text
    assert "lao bo 97 % one.png" in text


def test_one_picture_a_class_leaves_nothing_to_check_with():
    text = Page(render(ADAPT_BARE)).text
    assert "One picture a class leaves nothing to check with" in text
    assert "How far to trust it" not in text
    assert "Its answers" not in text


def test_a_long_list_is_cut_at_a_stated_number():
    many = Predictions(
        tuple(f"{i}.png" for i in range(30)), pictures(30), (0,) * 30, torch.linspace(0.5, 1, 30).flip(0)
    )
    page = Page(render(replace(ADAPT, predictions=many, at_most=10, csv="answers.csv")))
    assert "the 10 least certain of 30 pictures" in page.text
    assert "All of them are in answers.csv" in page.text
    assert len(page.all("img")) == 10 + 12  # two of the 14 support pictures are beyond the tenth of their class


def test_many_classes_stay_compact():
    k = 80
    names = tuple(f"class {i}" for i in range(k))
    confusion = 3 * torch.eye(k, dtype=torch.int64)
    confusion[3, 7] = 2
    report = replace(
        ADAPT,
        class_names=names,
        support=pictures(5 * k),
        support_labels=tuple(i // 5 for i in range(5 * k)),
        check=replace(ADAPT.check, confusion=confusion),
    )
    page = Page(render(report))
    assert "class 3 for class 7" in page.text
    assert "and 20 more classes" in page.text
    assert "and 0 pictures in 68 other classes" in page.text
    assert len(page.all("img")) == 3 * 60 + 3


def test_a_check_without_a_mistake_says_so_by_its_matrix_and_one_without_a_matrix_has_none():
    clean = replace(ADAPT.check, confusion=torch.diag(torch.tensor([12, 2])))
    assert 'class="mistake"' not in render(replace(ADAPT, check=clean))
    assert "Who was taken for whom" not in render(replace(ADAPT, check=replace(clean, confusion=None)))


@pytest.mark.parametrize("evil", [EVIL, "{{ 7 * 7 }}", '" onerror="x'])
def test_names_that_hold_html_are_shown_and_not_obeyed(evil):
    predictions = replace(ADAPT.predictions, files=(evil,) * 3)
    names = (evil, "</style></svg>")
    adapt = replace(
        ADAPT, class_names=names, predictions=predictions, warnings=(evil,), folder=evil, settings={evil: evil}
    )
    demo = replace(DEMO, task=replace(DEMO.task, class_names=names), shell=evil, live=evil, learner=f"a {evil}")
    for report in (adapt, demo):
        page = Page(render(report))
        assert not page.all("script")
        assert not [attributes for _, attributes in page.tags if "onerror" in attributes]
        assert " ".join(evil.split()) in page.text


def test_colour_pictures_are_never_inverted_and_grey_ones_only_where_they_are_ink():
    colour = Page(render(replace(ADAPT_BARE, support=pictures(2, 3))))
    assert all("grey" not in image["class"].split() for image in colour.all("img"))
    assert Page(render(ADAPT_BARE)).all("body") == [{"class": "ink"}]
    assert Page(render(replace(ADAPT_BARE, ink=False))).all("body") == [{}]


def test_without_jinja2_the_remedy_is_named(monkeypatch):
    real = builtins.__import__

    def refuse(name, *arguments, **more):
        if name.split(".")[0] == "jinja2":
            raise ImportError(name)
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtraError, match=r"quickstudy\[report\]"):
        render(BARE)


def test_the_templates_are_inside_the_package():
    folder = Path(quickstudy.report.__file__).parent / "templates"
    assert {path.name for path in folder.iterdir()} == {
        "adapt.html",
        "demo.html",
        "page.html",
        "parts.html",
        "search.html",
        "style.css",
    }
    project = Path(__file__).parents[2] / "pyproject.toml"
    assert tomllib.loads(project.read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == [
        "src/quickstudy"
    ]
