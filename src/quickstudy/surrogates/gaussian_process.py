"""A Gaussian process on learned features, around a prior's predictions."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from quickstudy.errors import OutcomeError, ShapeError
from quickstudy.surrogates.scores import NormalScores

LENGTHSCALES = (0.25, 0.5, 1.0, 2.0, 4.0)
"""In units of the root mean squared distance between points."""
LINEAR = (0.0, 0.5, 0.9)
"""Shares of the signal's variance that are linear in the features."""
NOISES = (0.001, 0.01, 0.05, 0.2, 0.7, 2.5)
"""Variances of the noise, where that of the signal is 1."""
SHAPE = 2.0
"""Of the inverse gamma prior of the signal's variance: its mean is known, its variance infinite."""
SHIFT, SLOPE = 1.0, 0.25
"""Prior variances of the mean's shift (about 0) and of the prior's slope (about 1), of standardised quantities."""
MEMBERS = 4
"""Settings that are kept at most."""


@dataclass(frozen=True)
class GaussianProcess:
    r"""A Gaussian process whose mean is a shift and a weighted slope on what a prior predicts.

    $$y = c + w \beta m(x) + f(x) + \epsilon, \qquad f \sim GP\left(0, \sigma^2 \left[(1 - a) M_{5/2}(|x - x'| / \ell) +
    2 a x^\top x'\right]\right), \qquad \epsilon \sim N(0, \sigma^2 \nu)$$

    with $M_{5/2}(r) = (1 + \sqrt5 r + \frac53 r^2) e^{-\sqrt5 r}$, features $x$, values $y$ and predictions $m$
    standardised, the first over their root mean squared distance, so that $2 x^\top x$ is 1 on average, $c \sim N(0,
    \sigma^2)$, $\beta \sim N(1, \sigma^2 / 4)$, and $w$ the weight of the prior: at 0 the mean is constant. The scale
    of $m$ is therefore free, and $\beta$ falls where $m$ misleads.

    $c$, $\beta$ and $\sigma^2$ (inverse gamma, so that the variance of a value is 1 a priori) are integrated in closed
    form. What is left, $\ell$, $\nu$ and $a$, is averaged over a grid of 90 by marginal likelihood and a log-normal
    prior, one Cholesky factor each, all in one batch; the best four are kept. Nothing is descended:
    it cannot diverge, needs no restarts, and knows how unsure it is of its settings when it has seen two values.

    The posterior of many candidates makes no covariance of all of them. `botorch_model` hands the process to GPyTorch
    and BoTorch (`pip install 'quickstudy[botorch]'`); a search needs neither.

    References:
        Rasmussen and Williams, [Gaussian Processes for Machine Learning](https://gaussianprocess.org/gpml/), 2006,
        sections 2.7 and 5.4.

    Example:
        >>> import torch
        >>> from quickstudy.surrogates.gaussian_process import GaussianProcess
        >>> x = torch.linspace(0, 6, 20)[:, None]
        >>> process = GaussianProcess.fit(x, x[:, 0].sin())
        >>> mean, std = process.posterior(torch.tensor([[1.5], [60.0]]))
        >>> abs(float(mean[0]) - 0.9975) < 0.02, float(std[0]) < 0.05 < float(std[1])
        (True, True)
    """

    x: Tensor  # (t, d): standardised features over the root mean squared distance
    m: Tensor  # (t,): standardised predictions, times the weight
    y: Tensor  # (t,): standardised values
    settings: Tensor  # (g, 3): lengthscale, linear share, noise
    weights: Tensor  # (g,): of the settings
    variance: Tensor  # (g,): posterior mean of the signal's variance
    chol: Tensor  # (g, t, t)
    units: "Units"
    log_evidence: float
    """Log marginal likelihood of the standardised values, all settings averaged."""

    @classmethod
    def fit(
        cls,
        features: Tensor,
        values: Tensor,
        *,
        prior_mean: Tensor | None = None,
        prior_weight: float = 1.0,
        reference: tuple[Tensor, Tensor | None] | None = None,
        ranks: bool = False,
        linear: bool = True,
    ) -> "GaussianProcess":
        """The process given the outcomes of `t` trials.

        Args:
            features: `(t, d)`.
            values: `(t,)`, in any unit.
            prior_mean: `(t,)`, what a prior predicts, on any scale; the higher, the higher the value.
            prior_weight: From 0, a constant mean, to 1.
            reference: Features `(r, d)` of many members of the space and their predictions, by which features and
                predictions are standardised; by those of the trials otherwise, which are few and chosen.
            ranks: Whether values count by their ranks alone, as normal scores: for values with outliers.
            linear: Whether a part of the signal may be linear.

        Raises:
            ShapeError: Where shapes do not fit.
            OutcomeError: Where there is no value, or one that is not finite.
        """
        checked(features, values, prior_mean)
        known, predicted = reference or (features, prior_mean)
        units = Units.of(values, known, predicted if prior_mean is not None else None, prior_weight, ranks)
        x, m, y = units.features(features), units.predictions(prior_mean, len(values)), units.values(values)
        grid = [(le, a, nu) for le in LENGTHSCALES for a in (LINEAR if linear else (0.0,)) for nu in NOISES]
        settings = x.new_tensor(grid)

        lengthscale, share, noise = settings[:, :, None, None].unbind(1)
        distance = torch.cdist(x, x)
        bases = torch.stack([matern(distance / le) for le in LENGTHSCALES])
        rough = bases.repeat_interleave(len(grid) // len(LENGTHSCALES), 0)  # (g, t, t)
        known_part = 2 * x @ x.T
        covariance = (1 - share) * rough + share * known_part + mean_covariance(m, m)
        chol = torch.linalg.cholesky(covariance + noise * torch.eye(len(y)).to(x))
        squares = torch.linalg.solve_triangular(chol, (y - m).view(1, -1, 1), upper=False).square().sum((1, 2))
        lengthscale, _, noise = settings.unbind(1)
        t, rate = len(y), (SHAPE - 1) / (1 + noise)
        half = SHAPE + t / 2
        log_likelihood = (
            -chol.diagonal(dim1=1, dim2=2).log().sum(1)
            - t / 2 * math.log(2 * math.pi)
            + math.lgamma(half)
            - math.lgamma(SHAPE)
            + SHAPE * rate.log()
            - half * (rate + squares / 2).log()
        )
        log_prior = (-lengthscale.log().square() / 2 - ((noise / 0.05).log() / 1.5).square() / 2).log_softmax(0)
        joint = log_likelihood + log_prior
        weights, order = joint.softmax(0).sort(descending=True)
        kept = min(MEMBERS, 1 + int((weights.cumsum(0) < 0.95).sum()))
        best, weights = order[:kept], weights[:kept] / weights[:kept].sum()
        variance = ((rate + squares / 2) / (half - 1))[best]
        return cls(x, m, y, settings[best], weights, variance, chol[best], units, float(joint.logsumexp(0)))

    def posterior(self, features: Tensor, *, prior_mean: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation `(n,)` of the noiseless values of `n` candidates, in the values' units.

        Args:
            features: `(n, d)`.
            prior_mean: `(n,)`; needed where the fit had one.
        """
        return self.candidates(features, prior_mean=prior_mean).moments()

    def candidates(self, features: Tensor, *, prior_mean: Tensor | None = None) -> "Candidates":
        """The joint posterior of `n` candidates, to choose several of them."""
        if features.ndim != 2 or features.shape[1] != self.x.shape[1]:
            raise ShapeError(
                f"the process was fitted to {self.x.shape[1]} features; these are {tuple(features.shape)}. "
                "Pass (n, d) of the same features."
            )
        if prior_mean is None and self.units.prior_scale is not None and self.units.weight:
            raise ShapeError("the process was fitted around a prior's predictions. Pass prior_mean for the candidates.")
        z, m = self.units.features(features), self.units.predictions(prior_mean, len(features))
        lengthscale, share, _ = self.settings[:, :, None, None].unbind(1)
        cross = matern(torch.cdist(self.x, z) / lengthscale).mul_(1 - share)
        cross.addcmul_(share, 2 * self.x @ z.T).add_(mean_covariance(self.m, m))
        white = torch.linalg.solve_triangular(self.chol, cross, upper=False)  # (g, t, n)
        residual = torch.linalg.solve_triangular(self.chol, (self.y - self.m).view(1, -1, 1), upper=False)  # (g, t, 1)
        mean = m + (white.mT @ residual).squeeze(-1)
        own = (1 - share[..., 0]) + share[..., 0] * 2 * z.square().sum(1) + SHIFT + SLOPE * m.square()
        variance = (own - white.square().sum(1)).clamp_min(1e-12)
        return Candidates(self, z, m, white, mean, variance)


@dataclass(frozen=True)
class Candidates:
    """The posterior of candidates, from which one after the other may be taken."""

    process: GaussianProcess
    z: Tensor  # (n, d)
    m: Tensor  # (n,)
    white: Tensor  # (g, t, n): their covariance with what is known, whitened
    mean: Tensor  # (g, n)
    variance: Tensor  # (g, n), in units of the signal's

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation `(n,)` over the settings, in the values' units."""
        weights, scale = self.process.weights[:, None], self.process.variance[:, None]
        mean = (weights * self.mean).sum(0)
        variance = (weights * (scale * self.variance + (self.mean - mean).square())).sum(0)
        return self.process.units.back(mean, variance.sqrt())

    def interval(self, share: float = 0.9) -> tuple[Tensor, Tensor]:
        """Between which a new value of each lies with that probability, noise and all, `(n,)`, in the values' units.

        The mixture over settings is taken for a normal distribution of its mean and variance.
        """
        weights, scale = self.process.weights[:, None], self.process.variance[:, None]
        mean = (weights * self.mean).sum(0)
        own = scale * (self.variance + self.process.settings[:, 2:])
        far = float(torch.special.ndtri(mean.new_tensor((1 + share) / 2)))
        half = far * (weights * (own + (self.mean - mean).square())).sum(0).sqrt()
        return self.process.units.value(mean - half), self.process.units.value(mean + half)

    def believe(self, i: int) -> "Candidates":
        r"""The posterior as if candidate `i` had been tried and had given its mean.

        Means stay as they are, for the believed value agrees with them, and the variance falls by

        $$\frac{\operatorname{cov}(x, x_i)^2}{\operatorname{var}(x_i) + \nu}$$

        References:
            Ginsbourger et al., [Kriging Is Well-Suited to Parallelize
            Optimization](https://doi.org/10.1007/978-3-642-10701-6_6), 2010.
        """
        lengthscale, share, noise = self.process.settings[:, :, None].unbind(1)
        distance = (self.z - self.z[i]).square().sum(1).sqrt()
        own = (1 - share) * matern(distance / lengthscale) + share * 2 * (self.z @ self.z[i])
        cross = own + mean_covariance(self.m[i : i + 1], self.m) - (self.white[:, :, i : i + 1] * self.white).sum(1)
        row = cross / (self.variance[:, i : i + 1] + noise).sqrt()  # (g, n)
        variance = (self.variance - row.square()).clamp_min(1e-12)
        return replace(self, white=torch.cat([self.white, row[:, None]], 1), variance=variance)


@dataclass(frozen=True)
class Units:
    """What is subtracted and divided by, so that all is standardised, and how to get back."""

    centre: Tensor  # (d,)
    width: Tensor  # (d,)
    value_centre: float
    value_scale: float
    scores: NormalScores | None
    weight: float
    prior_centre: float
    prior_scale: float | None
    """None where there is no prior."""

    @classmethod
    def of(cls, values: Tensor, x: Tensor, m: Tensor | None, weight: float, ranks: bool) -> "Units":
        """Of values `(t,)`, and of features `(r, d)` and predictions `(r,)`, the trials' or of many."""
        x, y = x.double(), values.double()
        scores = NormalScores.of(y) if ranks else None
        y = scores(y) if scores else y
        spread = x.std(0, unbiased=False)
        floor = 0.1 * spread.square().mean().sqrt()  # a feature that hardly varies is not blown up
        width = (spread.square() + floor.square()).sqrt()
        varying = (spread / width.where(width > 0, 1)).square().sum()
        width = width.where(width > 0, 1) * (2 * varying if varying > 0 else varying + 1).sqrt()
        centre, prior_scale = 0.0, None
        if m is not None:
            centre, prior_scale = float(m.double().mean()), deviation(m.double())
        return cls(x.mean(0), width, float(y.mean()), deviation(y), scores, weight, centre, prior_scale)

    def features(self, x: Tensor) -> Tensor:
        """`(n, d)`, with a mean squared distance of 1."""
        return (x.double() - self.centre) / self.width

    def values(self, y: Tensor) -> Tensor:
        """`(t,)`, standardised."""
        y = self.scores(y.double()) if self.scores else y.double()
        return (y - self.value_centre) / self.value_scale

    def predictions(self, m: Tensor | None, n: int) -> Tensor:
        """`(n,)`, standardised and times the weight of the prior; zeros where there is none."""
        if m is None or self.prior_scale is None:
            return torch.zeros(n).to(self.centre)
        return self.weight * (m.double() - self.prior_centre) / self.prior_scale

    def value(self, y: Tensor) -> Tensor:
        """From standardised to the values' units."""
        y = self.value_centre + self.value_scale * y
        return y if self.scores is None else self.scores.back(y)

    def back(self, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation in the values' units; for ranks, the median and half of the way between
        the values one deviation off."""
        mean, std = self.value_centre + self.value_scale * mean, self.value_scale * std
        if self.scores is None:
            return mean, std
        return self.scores.back(mean), (self.scores.back(mean + std) - self.scores.back(mean - std)) / 2


def matern(r: Tensor) -> Tensor:
    r"""$(1 + \sqrt5 r + \frac53 r^2) e^{-\sqrt5 r}$."""
    r = math.sqrt(5) * r
    decay = r.neg().exp_()
    return torch.addcmul(decay, r.mul_(r / 3 + 1), decay)


def mean_covariance(a: Tensor, b: Tensor) -> Tensor:
    """What the unknown shift and slope add to the covariance: `(t,)` and `(n,)` to `(t, n)`."""
    return SHIFT + SLOPE * a[:, None] * b


def deviation(values: Tensor) -> float:
    """The standard deviation of values, or 1 where they do not differ."""
    found = float(values.std()) if len(values) > 1 else 0.0
    return found if found > 1e-9 * float(values.abs().max()) else 1.0


def checked(features: Tensor, values: Tensor, prior_mean: Tensor | None) -> None:
    """Refuses what no process can be fitted to."""
    if features.ndim != 2 or values.shape != features.shape[:1]:
        raise ShapeError(
            f"features are {tuple(features.shape)} and values {tuple(values.shape)}. Pass (t, d) and (t,)."
        )
    if prior_mean is not None and prior_mean.shape != values.shape:
        raise ShapeError(f"{len(values)} values have {tuple(prior_mean.shape)} predictions. Pass one a value.")
    if not len(values):
        raise OutcomeError("there is no value to fit a process to. Try a few members of the space first.")
    for name, tensor in {"features": features, "values": values, "predictions": prior_mean}.items():
        if tensor is not None and not tensor.isfinite().all():
            wrong = tensor[~tensor.isfinite()][0].item()
            raise OutcomeError(f"{wrong} is among the {name}. Leave failed trials out, or give them a low value.")
