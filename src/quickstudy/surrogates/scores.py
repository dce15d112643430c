"""Values as normal scores of their ranks, and back."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class NormalScores:
    r"""The Gaussian copula of a few values: monotone, and blind to their scale.

    $$z_i = \Phi^{-1}\left(\frac{\text{rank}_i - \frac12}{t}\right)$$

    with the mean rank where values tie. Between values the way back is linear; beyond them it goes on with the
    outermost slopes.

    Example:
        >>> import torch
        >>> from quickstudy.surrogates.scores import NormalScores
        >>> scores = NormalScores.of(torch.tensor([0.1, 94.0, 93.0], dtype=torch.float64))
        >>> scores(torch.tensor([0.1, 93.0, 94.0], dtype=torch.float64))
        tensor([-0.9674,  0.0000,  0.9674], dtype=torch.float64)
        >>> scores.back(torch.tensor([0.0, -0.9674], dtype=torch.float64)).round(decimals=2)
        tensor([93.0000,  0.1000], dtype=torch.float64)
    """

    values: Tensor  # (u,): the different values, ascending
    scores: Tensor  # (u,)

    @classmethod
    def of(cls, values: Tensor) -> "NormalScores":
        """The scores of values `(t,)`, which are at least one."""
        found, counts = values.unique(return_counts=True)
        ranks = counts.cumsum(0) - counts / 2
        return cls(found, torch.special.ndtri(ranks.to(values) / len(values)))

    def __call__(self, values: Tensor) -> Tensor:
        """Values to scores."""
        return interpolate(values, self.values, self.scores)

    def back(self, scores: Tensor) -> Tensor:
        """Scores to values."""
        return interpolate(scores, self.scores, self.values)


def interpolate(x: Tensor, knots: Tensor, heights: Tensor) -> Tensor:
    """The line through `(knots, heights)`, ascending, at `x`; of slope 1 through a single one."""
    if len(knots) == 1:
        return x - knots + heights
    left = (torch.searchsorted(knots, x.contiguous()) - 1).clamp(0, len(knots) - 2)
    slope = heights.diff() / knots.diff()
    return heights[left] + slope[left] * (x - knots[left])
