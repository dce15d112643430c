"""What is worth trying next."""

import math

import torch
from torch import Tensor

from quickstudy.errors import ShapeError
from quickstudy.surrogates.gaussian_process import Candidates


def expected_improvement(mean: Tensor, std: Tensor, best: float | Tensor) -> Tensor:
    r"""How much a normal value exceeds the best one so far on average, where falling short counts as nothing.

    $$EI = E[\max(y - y^*, 0)] = \sigma\, h(z), \qquad h(z) = \phi(z) + z \Phi(z), \qquad z = (\mu - y^*) / \sigma$$

    Args:
        mean: `(*n,)`.
        std: `(*n,)`, at least 0; where it is 0 nothing is left to chance.
        best: The best value so far.

    References:
        Jones et al., [Efficient Global Optimization](https://doi.org/10.1023/A:1008306431147), 1998.

    Example:
        >>> import torch
        >>> from quickstudy.surrogates.acquisition import expected_improvement
        >>> expected_improvement(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0]), best=0.0)
        tensor([0.3989, 1.0000])
    """
    return log_expected_improvement(mean, std, best).exp()


def log_expected_improvement(mean: Tensor, std: Tensor, best: float | Tensor) -> Tensor:
    r"""The logarithm of expected improvement, exact where that is too small for a number.

    With $z < -1$, $h(z) = \phi(z) \left(1 - |z| \sqrt{\pi/2} \operatorname{erfcx}(|z| / \sqrt 2)\right)$, whose
    bracket is taken from its expansion $z^{-2} - 3 z^{-4}$ below -1000.

    Args:
        mean: `(*n,)`.
        std: `(*n,)`, at least 0.
        best: The best value so far.

    References:
        Ament et al., [Unexpected Improvements to Expected Improvement](https://arxiv.org/abs/2310.20708), 2023.

    Example:
        >>> import torch
        >>> from quickstudy.surrogates.acquisition import log_expected_improvement
        >>> log_expected_improvement(torch.tensor([0.0, -40.0]), torch.ones(2), best=0.0)
        tensor([  -0.9189, -808.2986])
    """
    gain, width = (mean - best).double(), std.double()
    z = gain / width.where(width > 0, 1)
    found = log_h(z) + width.log()
    return found.where(width > 0, gain.clamp_min(0).log()).to(mean.dtype)


def log_h(z: Tensor) -> Tensor:
    """The logarithm of the expected improvement of a standard normal value on -z."""
    log_density = -z.square() / 2 - math.log(2 * math.pi) / 2
    high = z.clamp_min(-1)
    upper = (high * torch.special.ndtr(high) + (-high.square() / 2).exp() / math.sqrt(2 * math.pi)).log()
    low = -z.clamp(-1e3, -1)
    bracket = (-low * math.sqrt(math.pi / 2) * torch.special.erfcx(low / math.sqrt(2))).log1p()
    far = -z.clamp_max(-1e3)
    lower = torch.where(z > -1e3, bracket, -2 * far.log() + (-3 / far.square()).log1p())
    return torch.where(z > -1, upper, log_density + lower)


def propose(
    candidates: Candidates,
    q: int,
    *,
    best: float,
    log_feasible: Tensor | None = None,
    exploration: float = 1.0,
) -> Tensor:
    """The positions `(q,)` of candidates to try at once, by kriging believer.

    Each is the best by expected improvement once those before it are believed to give their posterior mean. The
    variance around them falls, so that the next one looks elsewhere; their mean counts as a best value; and no
    candidate is taken twice. One more costs a matrix-vector product, not a fit.

    Args:
        candidates: Of a process that was fitted to what is known.
        q: How many; all where there are fewer.
        best: The best value so far, in the values' units.
        log_feasible: `(n,)`, the logarithm of the probability of keeping to the limits; -infinity leaves one out.
        exploration: What standard deviations are multiplied by; near 0 the best mean is proposed.

    Raises:
        ShapeError: Where `q` is not positive.

    References:
        Ginsbourger et al., [Kriging Is Well-Suited to Parallelize
        Optimization](https://doi.org/10.1007/978-3-642-10701-6_6), 2010.

    Example:
        >>> import torch
        >>> from quickstudy.surrogates.acquisition import propose
        >>> from quickstudy.surrogates.gaussian_process import GaussianProcess
        >>> x = torch.tensor([[0.0], [5.0], [10.0]])
        >>> process = GaussianProcess.fit(x, torch.tensor([0.0, 1.0, 0.0]))
        >>> propose(process.candidates(torch.tensor([[4.0], [4.1], [6.2], [0.0]])), 2, best=1.0)
        tensor([0, 2])
    """
    if q < 1:
        raise ShapeError(f"{q} candidates were asked for. Ask for at least one.")
    free = torch.zeros(len(candidates.z)).to(candidates.z) if log_feasible is None else log_feasible.double()
    found: list[int] = []
    for _ in range(min(q, int((free > -math.inf).sum()))):
        mean, std = candidates.moments()
        score = log_expected_improvement(mean, exploration * std, best) + free
        i = int(score.argmax())
        found.append(i)
        free = free.index_fill(0, torch.tensor([i]).to(free.device), -math.inf)
        best = max(best, float(mean[i]))
        candidates = candidates.believe(i)
    return torch.tensor(found, dtype=torch.int64)
