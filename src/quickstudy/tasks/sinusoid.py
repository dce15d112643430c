"""Sinusoid regression."""

import math

import torch
from torch import Generator, Tensor

from quickstudy.errors import TaskError
from quickstudy.tasks.task import Examples, Task


class Sinusoid:
    r"""Sine waves that differ in amplitude and phase, the regression of the MAML paper.

    $$y = A \sin(x - \varphi), \quad A \sim U[0.1, 5], \quad \varphi \sim U[0, \pi], \quad x \sim U[-5, 5]$$

    Targets hold no noise. In the paper `n_shot` is 5 or 10, and meta-training has as many query points.

    Args:
        n_shot: Support points a task.
        n_query: Query points a task.

    Raises:
        TaskError: Where either is below 1.

    Example:
        >>> import torch
        >>> from quickstudy.tasks.sinusoid import Sinusoid
        >>> tasks = Sinusoid(n_shot=5, n_query=10).sample(25, generator=torch.Generator().manual_seed(0))
        >>> tasks.support.x.shape, tasks.query.y.shape, tasks.n_way
        (torch.Size([25, 5, 1]), torch.Size([25, 10, 1]), None)

    References:
        Finn et al., [Model-Agnostic Meta-Learning](https://arxiv.org/abs/1703.03400), 2017, section 5.1.
    """

    def __init__(self, *, n_shot: int = 10, n_query: int = 10) -> None:
        if n_shot < 1 or n_query < 1:
            raise TaskError(f"{n_shot} support and {n_query} query points are no task: take at least 1 of each.")
        self.n_shot, self.n_query = n_shot, n_query

    def sample(self, b: int, *, generator: Generator) -> Task:
        """Draws `b` sine waves."""

        def uniform(low: float, high: float, n: int) -> Tensor:
            return low + (high - low) * torch.rand(b, n, 1, generator=generator)

        amplitude, phase = uniform(0.1, 5, 1), uniform(0, math.pi, 1)
        x = uniform(-5, 5, self.n_shot + self.n_query)
        points = Examples(x, amplitude * torch.sin(x - phase))
        return Task(
            points.map(lambda value: value[:, : self.n_shot]), points.map(lambda value: value[:, self.n_shot :]), None
        )
