"""A share of right answers, and how sure it is."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Share:
    r"""A share in per cent, with the ends of its 95 % interval.

    $$\frac{p + z^2 / 2n \pm z \sqrt{p (1 - p) / n + z^2 / 4n^2}}{1 + z^2 / n}$$

    The interval is never empty, stays within 0 and 100, and does not lie evenly about the share.

    Example:
        >>> from quickstudy.training.proportion import Share
        >>> all_right = Share(10, 10)
        >>> round(all_right.percent), round(all_right.low), round(all_right.high)
        (100, 72, 100)

    References:
        Wilson, Probable Inference, the Law of Succession, and Statistical Inference, 1927.
    """

    right: int
    n: int

    @property
    def percent(self) -> float:
        """The share."""
        return 100 * self.right / self.n

    @property
    def low(self) -> float:
        """The lower end."""
        return max(0.0, 100 * (self._middle - self._half))

    @property
    def high(self) -> float:
        """The upper end."""
        return min(100.0, 100 * (self._middle + self._half))

    @property
    def _middle(self) -> float:
        return (self.right / self.n + Z * Z / (2 * self.n)) / (1 + Z * Z / self.n)

    @property
    def _half(self) -> float:
        p, n = self.right / self.n, self.n
        return Z * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n)) / (1 + Z * Z / n)

    def __str__(self) -> str:
        return f"{self.percent:.1f} % ({self.low:.1f} to {self.high:.1f}, n = {self.n})"


Z = 1.96
