import io
import math
from dataclasses import FrozenInstanceError, replace

import pytest
import torch
from PIL import Image

from quickstudy.errors import ShapeError
from quickstudy.report import AdaptReport, Predictions, Score, SelfCheck, TaskShown
from quickstudy.report.png import png


def pictures(n: int, channels: int = 1) -> torch.Tensor:
    return torch.randint(256, (n, channels, 5, 4), generator=torch.Generator().manual_seed(0)).byte()


TASK = TaskShown("maml", ("ant", "bee"), pictures(2), (0, 1), pictures(3), (0, 1, 1), torch.eye(2)[[0, 1, 0]])
REPORT = AdaptReport("glyphs", "mine", ("ant", "bee"), pictures(3), (0, 0, 1), "glyphs", 1.0)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_holds_the_picture_as_it_is(channels):
    (picture,) = pictures(1, channels)
    levels = torch.tensor(list(Image.open(io.BytesIO(png(picture))).tobytes()))
    assert torch.equal(levels, picture.movedim(0, -1).flatten().long())


@pytest.mark.parametrize("shape", [(4, 4), (2, 4, 4), (1, 0, 4)])
def test_what_is_no_picture_is_refused(shape):
    with pytest.raises(ShapeError, match="1 or 3 channels"):
        png(torch.zeros(shape, dtype=torch.uint8))


def test_a_task_counts_its_right_answers():
    assert TASK.predicted == (0, 1, 0)
    assert TASK.right == 2


@pytest.mark.parametrize(
    "change",
    [
        {"support": torch.rand(2, 1, 5, 4)},
        {"query": pictures(4)},
        {"query_labels": (0, 1, 2)},
        {"support_labels": (0, -1)},
        {"probabilities": torch.ones(3, 3)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_task_whose_parts_do_not_fit_is_refused(change):
    with pytest.raises(ShapeError):
        replace(TASK, **change)


def test_none_of_these_comes_first_then_the_least_certain_and_ties_in_the_order_of_files():
    found = Predictions(("a", "b", "c", "d"), pictures(4), (0, 1, None, 0), torch.tensor([0.9, 0.5, math.nan, 0.5]))
    assert found.order == (2, 1, 3, 0)
    report = replace(REPORT, predictions=found)
    assert report.counts == (2, 1)
    assert report.unknown == 1


def test_predictions_have_one_of_each_a_file():
    with pytest.raises(ShapeError, match="2 files"):
        Predictions(("a", "b"), pictures(2), (0,), torch.ones(2))
    with pytest.raises(ShapeError, match="pictures"):
        Predictions(("a", "b"), pictures(1), (0, 1), torch.ones(2))


def test_a_label_without_a_class_name_is_refused():
    with pytest.raises(ShapeError, match=r"predictions\.labels hold 2"):
        replace(REPORT, predictions=Predictions(("a",), pictures(1), (2,), torch.ones(1)))


def test_a_confusion_of_other_classes_is_refused():
    score = Score("glyphs", "left-out pictures", 90, 5, 3)
    check = SelfCheck((score,), "glyphs", "It won.", score, torch.eye(3))
    with pytest.raises(ShapeError, match="confusion"):
        replace(REPORT, check=check)


def test_a_report_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        REPORT.prior = "other"  # type: ignore[misc]
