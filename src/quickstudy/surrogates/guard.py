"""How far to trust a prior, by what it said of the outcomes so far."""

import math

import torch
from torch import Tensor

from quickstudy.errors import OutcomeError, ShapeError

INFLATIONS = (0.5, 1.0, 2.0)
"""By which a prior's claim of its own error may be off, equally likely."""
POINTS = 257
"""Of the quadrature over the scale."""


def prior_weight(mean: Tensor, std: Tensor, values: Tensor, *, initial: float = 0.5) -> float:
    r"""The probability that a prior predicts the outcomes better than a constant, from 0 to 1.

    A Bayesian model average of *what the prior says, on an unknown scale*, and of *a constant and noise*:

    $$M_1: y_i = \alpha + \gamma (m_i + s_i \epsilon_i) \qquad M_0: y_i = \alpha + \gamma \epsilon_i \qquad
    \gamma > 0,\ \epsilon_i \sim N(0, 1)$$

    $$w = \frac{\pi\, p_1(y)}{\pi\, p_1(y) + (1 - \pi)\, p_0(y)}, \qquad
    p(y_{1:t}) = \prod_i p(y_i \mid y_{1:i-1})$$

    Both have the right Haar prior $p(\alpha, \gamma) \propto 1 / \gamma$, under which a location and scale cost each of
    them two outcomes and no more: the weight stays at `initial` until the third. It is a matter of how well the order
    and the distances of the values follow the predictions: units do not count, and a prior whose predictions of what
    was tried are all alike, compared with its own error, is neither confirmed nor refuted. The claim $s$ is taken
    times a half, one and two, averaged. Values with outliers are better passed as `NormalScores`.

    Args:
        mean: `(t,)`, what the prior predicted of each trial, on any scale; the higher, the higher the value.
        std: `(t,)`, its own error, on the same scale.
        values: `(t,)`, what came out, in any unit.
        initial: $\pi$, the weight before any outcome.

    Raises:
        ShapeError: Where shapes do not fit.
        OutcomeError: Where a number is not finite, or an error or `initial` out of its bounds.

    References:
        Hoeting et al., [Bayesian Model Averaging](https://doi.org/10.1214/ss/1009212519), 1999. Berger et al., [Bayes
        Factors and Marginal Distributions in Invariant Situations](https://www.jstor.org/stable/25051210), 1998.
        Dawid, [Prequential Analysis](https://doi.org/10.2307/2981683), 1984.

    Example:
        >>> import torch
        >>> from quickstudy.surrogates.guard import prior_weight
        >>> said = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0])
        >>> error = torch.full((5,), 0.5)
        >>> came = torch.tensor([61.0, 64.0, 70.0, 71.0, 76.0])
        >>> prior_weight(said, error, came) > 0.9 > 0.1 > prior_weight(said, error, came.flip(0))
        True
    """
    if not 0 < initial < 1:
        raise OutcomeError(f"the weight before any outcome is {initial}. Pass one between 0 and 1, both excluded.")
    odds = log_bayes_factor(*checked(mean, std, values)) + math.log(initial / (1 - initial))
    return float(odds.sigmoid())


def log_bayes_factor(m: Tensor, s: Tensor, y: Tensor) -> Tensor:
    """That of all outcomes; 0 where they are fewer than three, or all alike."""
    if len(y) < 3 or y.std() <= 1e-12 * y.abs().max():
        return torch.zeros(()).to(y)
    y = (y - y.mean()) / y.std()
    with_prior = torch.stack([log_marginal(m, k * s, y) for k in INFLATIONS]).logsumexp(0) - math.log(len(INFLATIONS))
    return with_prior - log_marginal(torch.zeros_like(y), torch.ones_like(y), y)


def log_marginal(m: Tensor, s: Tensor, y: Tensor) -> Tensor:
    r"""$\log \int\!\!\int N(y; \alpha + \gamma m, \gamma^2 s^2) \, d\alpha \, d\gamma / \gamma$.

    The integral over $\alpha$ is closed. In $u = 1 / \gamma$ what is left is

    $$\int_0^\infty u^{t-1} e^{-(A u^2 - 2 B u + C) / 2} \frac{du}{u}$$

    with the weighted sums of squares $A$ of $y$ and $C$ of $m$, and $B$ of their products. In $\log u$ it is
    log-concave, and the trapezoidal rule, from where it begins to count to where it ceases to, has nine digits.
    """
    t, w = len(y), s.pow(-2)
    total = w.sum()
    y, m = y - (w * y).sum() / total, m - (w * m).sum() / total
    a, b, c = (w * y * y).sum(), (w * m * y).sum(), (w * m * m).sum()

    def log_integrand(x: Tensor) -> Tensor:
        return (t - 1) * x - (a * (2 * x).exp() - 2 * b * x.exp() + c) / 2

    root = (b * b + 4 * a * (t - 1)).sqrt()
    mode = torch.where(b > 0, (b + root) / (2 * a), 2 * (t - 1) / (root - b)).log()  # without cancellation
    width = (2 * a * (2 * mode).exp() - b * mode.exp()).rsqrt()
    reach = 12 * width * 2.0 ** torch.arange(6).to(y)  # its left tail is longer than a normal one
    enough = log_integrand(mode) - log_integrand(mode - reach) > 25
    left = reach[enough][0] if enough.any() else reach[-1]
    x = mode - left + (left + 12 * width) * torch.linspace(0, 1, POINTS).to(y)
    integral = log_integrand(x).logsumexp(0) + (x[1] - x[0]).log()
    return w.log().sum() / 2 - total.log() / 2 - (t - 1) / 2 * math.log(2 * math.pi) + integral


def checked(mean: Tensor, std: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """In double precision, or a complaint."""
    if not mean.shape == std.shape == values.shape or values.ndim != 1:
        raise ShapeError(
            f"predictions are {tuple(mean.shape)}, errors {tuple(std.shape)}, values {tuple(values.shape)}. "
            "Pass (t,) each."
        )
    if not all(bool(part.isfinite().all()) for part in (mean, std, values)):
        raise OutcomeError("a prediction, an error or a value is not finite. Leave failed trials out.")
    if not bool((std > 0).all()):
        raise OutcomeError(f"the prior claims an error of {float(std.min())}. Pass errors above 0.")
    return mean.double(), std.double(), values.double()
