import csv
import json

import pytest
import torch
from torch import Generator

from quickstudy.nas.across import AcrossResult, Compared, worst
from quickstudy.nas.across_files import save_across
from quickstudy.nas.build import Limits, count
from quickstudy.nas.tiny import Tiny
from quickstudy.nas.tried import Tried
from quickstudy.training.evaluate import Evaluation

SPACE = Tiny(shape=(1, 6, 6), n_classes=2)


def accuracies(seed: int) -> Evaluation:
    values = 100 * torch.rand(10, generator=Generator().manual_seed(seed), dtype=torch.float64)
    return Evaluation("accuracy %", values, 0.5)


@pytest.fixture
def found() -> AcrossResult:
    """Three that were compared: the best on average, another one that is neither, and the best of the worst."""
    drawn = [SPACE.sample(generator=Generator().manual_seed(i)) for i in range(4)]
    best, neither, steady = (
        Compared(one, count(SPACE, one), 0.1, accuracies(i), None if i == 1 else accuracies(10 + i))
        for i, one in enumerate(drawn[:3])
    )
    tried = [Tried(one, count(SPACE, one), (), 60.0, 1.0, 1.0, 0.1) for one in drawn[:3]]
    tried.append(Tried(drawn[3], count(SPACE, drawn[3]), (), None, 0.0, 2.0, 0.1, "the loss is nan"))
    return AcrossResult(
        SPACE,
        Limits(max_params=3000),
        best,
        steady,
        (best, neither, steady),
        accuracies(20),
        tuple(tried),
        12.34,
        {"seed": 3},
    )


def test_every_figure_of_the_result_is_in_the_file(found, tmp_path):
    save_across(tmp_path, found)
    saved = json.loads((tmp_path / "across.json").read_text())
    assert saved["best mean"] == str(found.best_mean.architecture)
    assert saved["best worst decile"] == str(found.best_worst.architecture)
    assert saved["compared"][0]["source mean %"] == pytest.approx(found.best_mean.source.mean)
    assert saved["compared"][0]["source accuracies %"] == found.best_mean.source.values.tolist()
    assert [row["test accuracies %"] is None for row in saved["compared"]] == [False, True, False]
    assert saved["nearest neighbour"]["test mean %"] == pytest.approx(found.neighbour.mean)
    assert saved["settings"] == {"seed": 3, "shape": [1, 6, 6]}
    assert [one["failure"] for one in saved["tried"]] == [None, None, None, "the loss is nan"]


def test_the_table_has_a_row_for_each_that_was_compared_and_says_what_it_is_best_at(found, tmp_path):
    save_across(tmp_path, found)
    table = list(csv.DictReader((tmp_path / "across.csv").read_text().splitlines()))
    assert [row["architecture"] for row in table] == [str(one.architecture) for one in found.compared]
    assert [row["best"] for row in table] == ["mean", "", "worst decile"]
    assert float(table[2]["test worst decile %"]) == pytest.approx(worst(found.best_worst.test.values), abs=1e-3)
    assert [row["test mean %"] == "" for row in table] == [one.test is None for one in found.compared]
    assert [int(row["parameters"]) for row in table] == [one.cost.parameters for one in found.compared]
