import math

import pytest
import torch

from quickstudy.errors import TaskError
from quickstudy.tasks.sinusoid import Sinusoid


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def tasks():
    return Sinusoid(n_shot=5, n_query=200).sample(2000, generator=seeded())


def fit(tasks):
    """Amplitude and phase of each task, by least squares on sin(x) and cos(x)."""
    x, y = tasks.query.x.double(), tasks.query.y.double()
    a, b = torch.linalg.lstsq(torch.cat([x.sin(), x.cos()], -1), y).solution.squeeze(-1).T
    return (a.square() + b.square()).sqrt(), torch.atan2(-b, a), a, b


def test_a_task_is_a_regression_with_one_input_and_one_target(tasks):
    assert tasks.n_way is None
    assert tasks.support.x.shape == tasks.support.y.shape == (2000, 5, 1)
    assert tasks.query.x.shape == tasks.query.y.shape == (2000, 200, 1)


def test_every_task_is_one_sine_wave_without_noise_in_support_and_query(tasks):
    _, _, a, b = fit(tasks)
    x = tasks.everything.x.double()
    wave = a[:, None, None] * x.sin() + b[:, None, None] * x.cos()
    torch.testing.assert_close(wave, tasks.everything.y.double(), atol=1e-4, rtol=0)


def test_amplitudes_and_phases_fill_the_ranges_of_the_paper_evenly(tasks):
    amplitude, phase, *_ = fit(tasks)
    for value, low, high in ((amplitude, 0.1, 5.0), (phase, 0.0, math.pi)):
        assert low - 1e-3 <= value.min() < low + 0.05
        assert high - 0.05 < value.max() <= high + 1e-3
        assert value.mean().item() == pytest.approx((low + high) / 2, abs=0.15)


def test_inputs_fill_their_range_evenly(tasks):
    x = tasks.everything.x
    assert -5 <= x.min() < -4.99
    assert 4.99 < x.max() <= 5
    assert x.mean().item() == pytest.approx(0, abs=0.05)


def test_the_same_seed_gives_the_same_tasks():
    first, second = (Sinusoid().sample(3, generator=seeded(7)) for _ in range(2))
    assert torch.equal(first.everything.y, second.everything.y)


@pytest.mark.parametrize("setting", [{"n_shot": 0}, {"n_query": 0}])
def test_a_task_without_points_is_refused(setting):
    with pytest.raises(TaskError, match="points are no task: take at least 1 of each"):
        Sinusoid(**setting)
