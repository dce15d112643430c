import math

import pytest
import torch
from gpytorch.kernels import MaternKernel
from torch import Generator, Tensor
from torch.distributions import InverseGamma, MultivariateNormal

from quickstudy.errors import OutcomeError, ShapeError
from quickstudy.surrogates.botorch_model import botorch_model
from quickstudy.surrogates.gaussian_process import LENGTHSCALES, NOISES, GaussianProcess
from quickstudy.surrogates.scores import NormalScores


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed), dtype=torch.float64)


def smooth(x: Tensor) -> Tensor:
    return x[:, 0].sin() + 0.5 * x[:, 1]


@pytest.fixture
def trials() -> tuple[Tensor, Tensor, Tensor]:
    x = normal(12, 3)
    return x, 80 + 5 * (smooth(x) + 0.1 * normal(12, seed=1)), smooth(x) + 0.5 * normal(12, seed=2)


@pytest.mark.parametrize("weight", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("linear", [False, True])
def test_the_posterior_of_each_setting_is_that_of_gpytorch(trials, weight, linear):
    x, y, m = trials
    process = GaussianProcess.fit(x, y, prior_mean=m, prior_weight=weight, linear=linear)
    z, mz = normal(30, 3, seed=3), normal(30, seed=4)
    candidates = process.candidates(z, prior_mean=mz)
    with torch.no_grad():
        posterior = botorch_model(process).posterior(torch.cat([z, mz[:, None]], 1)[:, None])
    ours = process.units.value_centre + process.units.value_scale * candidates.mean[0]
    std = process.units.value_scale * (process.variance[0] * candidates.variance[0]).sqrt()
    assert torch.allclose(ours, posterior.mean.flatten(), rtol=1e-6)
    assert torch.allclose(std, posterior.variance.flatten().sqrt(), rtol=1e-4)


def test_the_evidence_and_the_variance_are_integrals_over_the_variance(trials):
    x, y, m = trials
    process = GaussianProcess.fit(x, y, prior_mean=m, linear=False)
    variance = torch.logspace(-4, 4, 4001, dtype=torch.float64)
    shift_and_slope = 1 + 0.25 * torch.outer(process.m, process.m)
    evidence, log_prior, means = [], [], {}
    for lengthscale in LENGTHSCALES:
        kernel = MaternKernel(2.5).double()
        kernel.lengthscale = lengthscale
        signal = kernel(process.x).to_dense().detach() + shift_and_slope
        for noise in NOISES:
            covariance = variance[:, None, None] * (signal + noise * torch.eye(len(y)))
            likelihood = MultivariateNormal(process.m, covariance).log_prob(process.y)
            joint = (likelihood + InverseGamma(2.0, 1 / (1 + noise)).log_prob(variance)).exp()
            evidence.append(torch.trapezoid(joint, variance))
            means[lengthscale, noise] = torch.trapezoid(joint * variance, variance) / evidence[-1]
            log_prior.append(-(math.log(lengthscale) ** 2) / 2 - (math.log(noise / 0.05) / 1.5) ** 2 / 2)
    average = (torch.tensor(log_prior).double().softmax(0) * torch.stack(evidence)).sum()
    assert process.log_evidence == pytest.approx(float(average.log()), abs=1e-3)
    best = (float(process.settings[0, 0]), float(process.settings[0, 2]))
    assert float(process.variance[0]) == pytest.approx(float(means[best]), rel=1e-3)


def test_units_of_values_predictions_and_features_do_not_matter(trials):
    x, y, m = trials
    z, mz = normal(7, 3, seed=3), normal(7, seed=4)
    mean, std = GaussianProcess.fit(x, y, prior_mean=m).posterior(z, prior_mean=mz)
    other = GaussianProcess.fit(100 * x + 3, 0.01 * y - 2, prior_mean=5 * m + 1)
    mean2, std2 = other.posterior(100 * z + 3, prior_mean=5 * mz + 1)
    assert torch.allclose(mean2, 0.01 * mean - 2, rtol=1e-8)
    assert torch.allclose(std2, 0.01 * std, rtol=1e-6)


def test_the_order_of_the_trials_does_not_matter(trials):
    x, y, m = trials
    order = torch.randperm(len(y), generator=Generator().manual_seed(0))
    z, mz = normal(7, 3, seed=3), normal(7, seed=4)
    one = GaussianProcess.fit(x, y, prior_mean=m).posterior(z, prior_mean=mz)
    two = GaussianProcess.fit(x[order], y[order], prior_mean=m[order]).posterior(z, prior_mean=mz)
    assert all(torch.allclose(a, b, rtol=1e-6) for a, b in zip(one, two))


def test_without_weight_the_prior_does_not_matter(trials):
    x, y, m = trials
    z = normal(7, 3, seed=3)
    without = GaussianProcess.fit(x, y).posterior(z)
    unheeded = GaussianProcess.fit(x, y, prior_mean=m, prior_weight=0.0).posterior(z, prior_mean=normal(7))
    assert all(torch.allclose(a, b) for a, b in zip(without, unheeded))


def test_a_helpful_prior_predicts_what_features_alone_cannot():
    x, z = normal(8, 20), normal(200, 20, seed=1)
    f = lambda x: (2 * x).sin().sum(1)  # noqa: E731
    process = GaussianProcess.fit(x, f(x), prior_mean=3 + f(x) / 7)
    mean, _ = process.posterior(z, prior_mean=3 + f(z) / 7)
    alone, _ = GaussianProcess.fit(x, f(x)).posterior(z)
    assert (mean - f(z)).square().mean() < 0.2 * (alone - f(z)).square().mean()


def test_a_prior_is_used_from_the_first_trial_on():
    process = GaussianProcess.fit(normal(1, 4), torch.tensor([0.7]), prior_mean=torch.tensor([0.0]))
    mean, std = process.posterior(normal(3, 4, seed=1), prior_mean=torch.tensor([-1.0, 0.0, 1.0]))
    assert mean[0] < mean[1] < mean[2]
    assert (std > 0).all()


@pytest.mark.parametrize("t", [1, 2, 3, 10, 60])
@pytest.mark.parametrize("kind", ["random", "all alike", "same rows", "constant features", "one outlier", "huge"])
@pytest.mark.parametrize("ranks", [False, True])
def test_any_outcomes_give_finite_predictions(t, kind, ranks):
    x, y, m = normal(t, 6), normal(t, seed=1), normal(t, seed=2)
    y = {"all alike": torch.full_like(y, 0.3), "huge": 1e9 * y}.get(kind, y)
    if kind == "same rows":
        x, m = x[:1].expand(t, 6), m[:1].expand(t)
    elif kind == "constant features":
        x = torch.zeros(t, 6)
    elif kind == "one outlier":
        y = y.index_fill(0, torch.tensor([0]), 1e6)
    process = GaussianProcess.fit(x, y, prior_mean=m, ranks=ranks)
    mean, std = process.posterior(normal(20, 6, seed=3), prior_mean=normal(20, seed=4))
    assert mean.isfinite().all()
    assert std.isfinite().all()
    assert (std > 0).all()


def test_without_noise_the_process_passes_through_its_values():
    x = torch.linspace(0, 5, 30)[:, None]
    y = x[:, 0].sin()
    mean, std = GaussianProcess.fit(x, y).posterior(x)
    assert (mean - y).abs().max() < 0.02
    assert std.max() < 0.05


@pytest.mark.parametrize("ranks", [False, True])
def test_intervals_cover_what_they_claim(ranks):
    covered = []
    for seed in range(20):
        x = normal(200, 2, seed=seed)
        y = smooth(2 * x) + 0.3 * normal(200, seed=100 + seed)
        low, high = GaussianProcess.fit(x[:25], y[:25], ranks=ranks).candidates(x[25:]).interval(0.9)
        assert (low < high).all()
        covered.append(((low < y[25:]) & (y[25:] < high)).double().mean())
    assert 0.85 < torch.stack(covered).mean() < 0.96


def test_the_interval_of_values_is_that_of_the_posterior_and_the_noise(trials):
    x, y = trials[:2]
    process = GaussianProcess.fit(x, y)
    low, high = process.candidates(x).interval(0.9)
    mean, std = process.posterior(x)
    assert torch.allclose((low + high) / 2, mean)
    noise = (process.weights * process.variance * process.settings[:, 2]).sum() * process.units.value_scale**2
    assert torch.allclose((high - low) / 2, 1.6448536 * (std.square() + noise).sqrt())


def test_a_reference_keeps_a_few_trials_from_setting_the_scale():
    pool = normal(500, 4)
    x = pool[:2] * torch.tensor([1.0, 1e-3, 1e-3, 1e-3])
    process = GaussianProcess.fit(x, torch.tensor([0.0, 1.0]), reference=(pool, None))
    assert torch.allclose(process.units.width, pool.std(0) * 8**0.5, rtol=0.1)
    assert torch.allclose(
        torch.pdist(process.units.features(pool)).square().mean(), torch.tensor(1.0).double(), rtol=0.01
    )


def test_ranks_see_no_more_than_the_order():
    x, y = normal(15, 2), normal(15, seed=1)
    z = normal(5, 2, seed=2)
    scores = [GaussianProcess.fit(x, v, ranks=True).candidates(z).mean for v in (y, y.exp(), 1000 * y**3)]
    assert torch.allclose(scores[0], scores[1])
    assert torch.allclose(scores[0], scores[2])
    low, high = GaussianProcess.fit(x, y.exp(), ranks=True).posterior(x)[0], y.exp()
    assert torch.corrcoef(torch.stack([low, high]))[0, 1] > 0.5


def test_scores_and_values_are_each_others_inverse():
    values = normal(9).round(decimals=0)  # with ties
    scores = NormalScores.of(values)
    assert torch.allclose(scores.back(scores(values)), values, atol=1e-12)
    beyond = torch.tensor([-5.0, 7.0]).double()
    assert torch.allclose(scores.back(scores(beyond)), beyond, atol=1e-9)


def test_believing_a_mean_is_fitting_with_it(trials):
    """The settings and units stay, so that the posterior is compared with one conditioned by hand."""
    x, y, m = trials
    process = GaussianProcess.fit(x, y, prior_mean=m)
    z, mz = normal(6, 3, seed=3), normal(6, seed=4)
    candidates = process.candidates(z, prior_mean=mz)
    believed = candidates.believe(2)
    assert torch.equal(believed.mean, candidates.mean)
    assert (believed.variance <= candidates.variance).all()
    model = botorch_model(process)
    inputs = torch.cat([z, mz[:, None]], 1)
    with torch.no_grad():
        model.posterior(inputs[:1])
        joint = model.posterior(inputs).mvn.covariance_matrix
    noise = float(process.settings[0, 2] * process.variance[0]) * process.units.value_scale**2
    expected = joint.diagonal() - joint[:, 2].square() / (joint[2, 2] + noise)
    ours = process.units.value_scale**2 * process.variance[0] * believed.variance[0]
    assert torch.allclose(ours, expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("features", "values", "prior", "error", "message"),
    [
        ((0, 2), (0,), None, OutcomeError, "no value"),
        ((3, 2), (2,), None, ShapeError, r"features are \(3, 2\) and values \(2,\)"),
        ((3,), (3,), None, ShapeError, r"features are \(3,\)"),
        ((3, 2), (3,), (2,), ShapeError, r"3 values have \(2,\) predictions"),
    ],
)
def test_what_does_not_fit_says_so(features, values, prior, error, message):
    with pytest.raises(error, match=message):
        GaussianProcess.fit(normal(*features), normal(*values), prior_mean=None if prior is None else normal(*prior))


def test_a_failed_trial_is_named():
    with pytest.raises(OutcomeError, match=r"nan is among the values\. Leave failed trials out"):
        GaussianProcess.fit(normal(2, 2), torch.tensor([1.0, float("nan")]))


def test_candidates_need_the_features_and_the_prior_of_the_fit(trials):
    x, y, m = trials
    process = GaussianProcess.fit(x, y, prior_mean=m)
    with pytest.raises(ShapeError, match="fitted to 3 features"):
        process.posterior(normal(5, 4), prior_mean=normal(5))
    with pytest.raises(ShapeError, match="Pass prior_mean"):
        process.posterior(normal(5, 3))
