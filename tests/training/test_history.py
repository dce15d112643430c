import json
import math

import pytest
import torch

from quickstudy.training.evaluate import Evaluation
from quickstudy.training.history import History, Progress


def found(value: float, metric: str = "accuracy %") -> Evaluation:
    return Evaluation(metric, torch.tensor([value, value]), 0.1)


def test_losses_are_means_over_fifty_steps():
    history = History()
    for step in range(125):
        history.add_step(float(step), 0.1)
    assert history.step == 125
    assert history.losses == [24.5, 74.5]
    assert history.recent_loss == 112
    assert history.seconds == pytest.approx(12.5)


def test_a_run_that_has_not_begun_has_no_loss():
    assert math.isnan(History().recent_loss)


def test_the_best_validation_is_the_first_with_the_best_score():
    history = History()
    assert [history.add_validation(found(v)) for v in (50.0, 70.0, 70.0, 60.0)] == [True, True, False, False]
    assert history.best is history.validations[1]


def test_less_error_is_better():
    history = History()
    assert [history.add_validation(found(v, "mean squared error")) for v in (2.0, 1.0, 3.0)] == [True, True, False]


def test_a_history_that_is_read_back_has_the_same_best_validation():
    for values in ((math.nan, 0.5, 0.2), (0.5, math.nan, 0.7), (0.3, 0.3), (math.nan,)):
        history = History()
        for value in values:
            history.add_validation(found(value))
        again = History.from_settings(history.to_settings())
        assert again.validations.index(again.best) == history.validations.index(history.best)
        assert again.add_validation(found(0.4)) == history.add_validation(found(0.4))


def test_a_history_survives_json():
    history = History()
    for step in range(60):
        history.add_step(0.1 * step, 0.01)
    history.add_validation(found(50.0))
    assert History.from_settings(json.loads(json.dumps(history.to_settings()))) == history


def test_the_time_left_is_the_shorter_of_steps_and_clock():
    history = History(step=10, seconds=5.0)
    assert Progress(history, 30, math.inf).seconds_left == pytest.approx(10)
    assert Progress(history, 30, 7.0).seconds_left == pytest.approx(2)
    assert Progress(history, 30, 7.0).fraction == pytest.approx(5 / 7)
    assert Progress(history, 30, math.inf).fraction == pytest.approx(1 / 3)
