"""What a network's output means: a distribution over labels or targets."""

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Categorical, Distribution, Independent, Normal

from quickstudy.errors import ShapeError
from quickstudy.tasks.task import Task


class Head(ABC):
    """Turns outputs into losses, with tensors alone, and into distributions."""

    @abstractmethod
    def losses(self, output: Tensor, y: Tensor) -> Tensor:
        """Negative log-likelihood of each example, up to a constant: `(n, out)` and labels or targets to `(n,)`."""

    @abstractmethod
    def __call__(self, output: Tensor) -> Distribution:
        """The distribution that outputs `(*b, q, out)` stand for, with batch shape `(*b, q)`."""


class Classification(Head):
    r"""One logit a class, or for two classes a single one, $p(y = 1) = \sigma(z)$.

    Outputs beyond the task's classes are left out, so that a network with ten also takes five-way tasks.

    Args:
        n_way: Classes of the task.
    """

    def __init__(self, n_way: int) -> None:
        self.n_way = n_way

    def losses(self, output: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(self.logits(output).flatten(0, -2), y.flatten(), reduction="none").view(y.shape)

    def __call__(self, output: Tensor) -> Distribution:
        return Categorical(logits=self.logits(output), validate_args=False)

    def logits(self, output: Tensor) -> Tensor:
        """`(..., out)` to `(..., n_way)`."""
        if self.n_way == 2 and output.shape[-1] == 1:
            return torch.cat([torch.zeros_like(output), output], -1)
        if output.shape[-1] < self.n_way:
            raise ShapeError(
                f"the network has {output.shape[-1]} outputs; a {self.n_way}-way task needs {self.n_way}. "
                f"Build the network with {self.n_way} outputs, or draw {output.shape[-1]}-way tasks."
            )
        return output[..., : self.n_way]


class Regression(Head):
    r"""A Gaussian around the output with variance 1/2, whose negative log-likelihood is the squared error.

    $$-\log N(y; \mu, \tfrac12) = (y - \mu)^2 + \tfrac12 \log \pi$$

    summed over the coordinates of a target; the constant is left out of `losses`.
    """

    def losses(self, output: Tensor, y: Tensor) -> Tensor:
        if output.shape != y.shape:
            raise ShapeError(f"outputs are {tuple(output.shape)} and targets {tuple(y.shape)}: they must be the same.")
        return (output - y).square().sum(-1)

    def __call__(self, output: Tensor) -> Distribution:
        scale = torch.full_like(output, math.sqrt(0.5))
        return Independent(Normal(output, scale, validate_args=False), 1, validate_args=False)


def head_for(task: Task) -> Head:
    """The head that fits a task."""
    return Regression() if task.n_way is None else Classification(task.n_way)
