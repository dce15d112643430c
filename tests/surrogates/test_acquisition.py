import math
import warnings

import pytest
import torch
from botorch.acquisition.analytic import ExpectedImprovement, LogExpectedImprovement
from torch import Generator

from quickstudy.errors import ShapeError
from quickstudy.surrogates.acquisition import (
    expected_improvement,
    log_expected_improvement,
    propose,
)
from quickstudy.surrogates.botorch_model import botorch_model
from quickstudy.surrogates.gaussian_process import GaussianProcess


def process(t: int = 9) -> GaussianProcess:
    x = torch.rand(t, 2, generator=Generator().manual_seed(0), dtype=torch.float64)
    return GaussianProcess.fit(x, (4 * x).sin().sum(1))


@pytest.fixture
def pool() -> torch.Tensor:
    return torch.rand(50, 2, generator=Generator().manual_seed(1), dtype=torch.float64)


def test_expected_improvement_is_that_of_botorch(pool):
    model = botorch_model(process())
    inputs = torch.cat([pool, torch.zeros(50, 1)], 1)[:, None]
    for best in torch.tensor([-3.0, 0.5, 1.2, 1.9, 30.0]).double():  # BoTorch rounds a float to single precision
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # BoTorch warns of its own expected improvement's precision
            posterior = model.posterior(inputs)
            mean, std = posterior.mean.flatten(), posterior.variance.flatten().sqrt()
            plain, log = ExpectedImprovement(model, best)(inputs), LogExpectedImprovement(model, best)(inputs)
        assert torch.allclose(expected_improvement(mean, std, best), plain, rtol=1e-6, atol=1e-14)
        assert torch.allclose(log_expected_improvement(mean, std, best), log, rtol=1e-10)


def test_expected_improvement_is_the_mean_of_what_exceeds_the_best():
    y = 0.3 + 0.7 * torch.randn(400_000, generator=Generator().manual_seed(0), dtype=torch.float64)
    exact = expected_improvement(torch.tensor([0.3]), torch.tensor([0.7]), 0.8)
    assert float((y - 0.8).clamp_min(0).mean()) == pytest.approx(float(exact), rel=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_logarithm_is_smooth_and_rising_however_small_the_improvement(dtype):
    z = torch.cat([-torch.logspace(6, -3, 4000), torch.logspace(-3, 3, 1000)]).to(dtype).requires_grad_()
    found = log_expected_improvement(z, torch.ones_like(z), 0.0)
    (slope,) = torch.autograd.grad(found.sum(), z)
    assert found.isfinite().all()
    assert (found.diff() > 0).all()
    assert slope.isfinite().all()
    assert (slope > 0).all()


def test_nothing_jumps_where_one_formula_takes_over_from_another():
    for edge in (-1.0, -1e3):
        z = torch.tensor([edge * (1 + 1e-9), edge, edge * (1 - 1e-9)]).double()
        low, middle, high = (log_expected_improvement(z, torch.ones(3).double(), 0.0) + z.square() / 2).tolist()
        assert low == pytest.approx(middle, abs=1e-7)
        assert high == pytest.approx(middle, abs=1e-7)


def test_what_is_known_improves_by_its_distance_or_not_at_all():
    mean, std = torch.tensor([2.0, 1.0, 0.0]), torch.zeros(3)
    assert expected_improvement(mean, std, 1.0).tolist() == [1.0, 0.0, 0.0]
    assert log_expected_improvement(mean, std, 1.0).tolist() == [0.0, -math.inf, -math.inf]


def test_one_proposal_is_the_best_by_expected_improvement(pool):
    fitted = process()
    best = 0.5
    expected = log_expected_improvement(*fitted.posterior(pool), best).argmax()
    assert propose(fitted.candidates(pool), 1, best=best).tolist() == [int(expected)]


def test_a_batch_starts_with_the_best_and_spreads_out(pool):
    candidates = process().candidates(pool)
    batch = propose(candidates, 5, best=1.5)
    mean, std = candidates.moments()
    greedy = log_expected_improvement(mean, std, 1.5).topk(5).indices
    assert batch[0] == greedy[0]
    assert torch.pdist(pool[batch]).mean() > torch.pdist(pool[greedy]).mean()


def test_nothing_is_proposed_twice_or_beyond_the_limits(pool):
    allowed = torch.full((50,), -math.inf)
    allowed[[3, 7, 11]] = 0.0
    assert sorted(propose(process().candidates(pool), 5, best=1.0, log_feasible=allowed).tolist()) == [3, 7, 11]
    same = process().candidates(pool[:1].expand(4, 2))
    assert sorted(propose(same, 4, best=1.0).tolist()) == [0, 1, 2, 3]


def test_a_batch_of_nothing_is_refused(pool):
    with pytest.raises(ShapeError, match="0 candidates"):
        propose(process().candidates(pool), 0, best=1.0)


def test_without_exploration_the_best_mean_is_proposed(pool):
    candidates = process().candidates(pool)
    mean, _ = candidates.moments()
    assert propose(candidates, 1, best=float(mean.median()), exploration=1e-6)[0] == mean.argmax()
