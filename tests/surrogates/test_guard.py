import math

import pytest
import torch
from torch import Generator, Tensor

from quickstudy.errors import OutcomeError, ShapeError
from quickstudy.surrogates.guard import log_marginal, prior_weight

CORRELATION = 0.9
ERROR = math.sqrt(1 / CORRELATION**2 - 1)  # of a prior whose predictions have deviation 1


def told(t: int, seed: int, correlation: float = CORRELATION) -> tuple[Tensor, Tensor, Tensor]:
    """What a prior says, its claim, and what comes out in other units."""
    m, noise = torch.randn(2, t, generator=Generator().manual_seed(seed), dtype=torch.float64)
    y = correlation * m + math.sqrt(1 - correlation**2) * noise
    return m, torch.full_like(m, ERROR), 60 + 7 * y


def weights(t: int, correlation: float, runs: int = 30) -> Tensor:
    return torch.tensor([prior_weight(*told(t, seed, correlation)) for seed in range(runs)])


def test_a_prior_that_is_right_is_trusted_more_with_every_few_outcomes():
    found = [weights(t, CORRELATION).median() for t in (3, 5, 10, 20)]
    assert found == sorted(found)
    assert found[2] > 0.98
    assert weights(10, CORRELATION).quantile(0.1) > 0.9


def test_a_shuffled_prior_is_dropped_within_ten_outcomes():
    found = weights(10, 0.0)
    assert found.median() < 0.05
    assert (found < 0.2).double().mean() > 0.85
    assert (weights(20, 0.0) < 0.2).double().mean() > 0.85


def test_a_prior_that_is_the_wrong_way_round_is_dropped_sooner():
    assert (weights(5, -CORRELATION) < 0.1).double().mean() > 0.9


def test_a_modest_prior_that_is_right_is_kept():
    """It claims less than it holds."""
    m, s, y = told(15, 0)
    assert prior_weight(m, 2 * s, y) > 0.9


@pytest.mark.parametrize("t", [0, 1, 2])
def test_location_and_scale_take_two_outcomes_to_be_known(t):
    assert prior_weight(*told(t, 0), initial=0.3) == pytest.approx(0.3)


def test_units_do_not_matter_but_the_sign_does():
    m, s, y = told(6, 1)
    weight = prior_weight(m, s, y)
    assert prior_weight(5 * m - 3, 5 * s, y / 100) == pytest.approx(weight, rel=1e-6)
    assert prior_weight(m, s, -y) < weight


def test_the_order_of_the_outcomes_does_not_matter():
    m, s, y = told(8, 2)
    assert prior_weight(m.flip(0), s.flip(0), y.flip(0)) == pytest.approx(prior_weight(m, s, y), rel=1e-6)


def test_predictions_that_are_alike_are_neither_confirmed_nor_refuted():
    _, s, y = told(12, 3)
    assert prior_weight(torch.full_like(y, 0.4), s, y) == pytest.approx(0.5, abs=1e-6)


def test_outcomes_that_are_alike_say_nothing():
    m, s, y = told(12, 3)
    assert prior_weight(m, s, torch.full_like(y, 0.1)) == 0.5


def test_the_evidence_is_the_double_integral():
    m, s, y = told(5, 5)
    y = (y - y.mean()) / y.std()
    alpha = torch.linspace(-30, 30, 1501).double()[:, None, None]
    log_gamma = torch.linspace(-5, 5, 251).double()[:, None]
    gamma = log_gamma.exp()
    density = torch.distributions.Normal(alpha + gamma * m, gamma * s).log_prob(y).sum(-1).exp()  # (alpha, gamma)
    expected = torch.trapezoid(torch.trapezoid(density, alpha[:, 0, 0], dim=0), log_gamma[:, 0])
    assert float(log_marginal(m, s, y)) == pytest.approx(float(expected.log()), abs=1e-4)


@pytest.mark.parametrize("t", [2, 3, 10, 200])
def test_the_evidence_of_noise_alone_is_known_in_closed_form(t):
    r"""$\Gamma((t-1)/2) / (2 \sqrt t \pi^{(t-1)/2} S^{(t-1)/2})$."""
    y = torch.randn(t, generator=Generator().manual_seed(0), dtype=torch.float64)
    half = (t - 1) / 2
    squares = float((y - y.mean()).square().sum())
    exact = math.lgamma(half) - math.log(2) - math.log(t) / 2 - half * math.log(math.pi * squares)
    found = log_marginal(torch.zeros(t).double(), torch.ones(t).double(), y)
    assert float(found) == pytest.approx(exact, abs=1e-8)


def test_what_cannot_be_weighed_says_so():
    m, s, y = told(4, 0)
    with pytest.raises(ShapeError, match=r"values \(3,\)"):
        prior_weight(m, s, y[:3])
    with pytest.raises(OutcomeError, match=r"error of 0\.0"):
        prior_weight(m, 0 * s, y)
    with pytest.raises(OutcomeError, match="not finite"):
        prior_weight(m, s, y / 0)
    with pytest.raises(OutcomeError, match=r"1\.0\. Pass one between"):
        prior_weight(m, s, y, initial=1.0)
