"""What every meta-learning algorithm is."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.distributions import Distribution

from quickstudy.learners.boundary import refusing_adapt, refusing_init, refusing_loss
from quickstudy.tasks.task import Task

Predictor = Callable[[Tensor], Distribution]
"""Maps queries `(b, q, *input)` to `Categorical`, or `Independent(Normal, 1)`, of batch shape `(b, q)`."""

Embedding = Callable[[Tensor], Tensor]
"""Maps inputs `(b, n, *input)` of a batch of tasks to features `(b, n, d)`."""

HOW = ("memory_budget", "low_memory", "batching")
"""Options that say how something is computed, not what: a run may go on, and a prior be used, with others."""


class Learner(nn.Module, ABC):
    """Learns how to learn from tasks: `loss` is what meta-training lowers, `adapt` what a new task calls.

    A caller may rely on this, and the contract suite in `quickstudy.testing` checks it:

    - `adapt` reads all of a task but its query, leaves the learner as it was, and works under `torch.no_grad`.
    - A batch of tasks gives what its tasks give one by one, and so does `loss`, unless the learner was constructed to
      compare tasks.
    - Predictions are inductive: a query gets the same answer alone or among others, unless the learner was
      constructed to be transductive.
    - `loss` is differentiable once, and finite on finite tasks.
    - Inputs of a kind or size that it cannot take are refused in one sentence, and so is an option that is none of the
      values that its annotation, a `Literal`, lists.
    """

    options: Mapping[str, str | int | float | None] = MappingProxyType({})
    """What it was constructed with, as far as that is plain values."""
    functions: tuple[str, ...] = ()
    """The names of functions that it was constructed with: no file can hold them."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__init__" in vars(cls):
            cls.__init__ = refusing_init(cls.__init__)  # type: ignore[method-assign]
        if "adapt" in vars(cls):
            cls.adapt = refusing_adapt(cls.adapt)  # type: ignore[method-assign]
        if "loss" in vars(cls):
            cls.loss = refusing_loss(cls.loss)  # type: ignore[method-assign]

    @abstractmethod
    def adapt(self, task: Task, *, generator: Generator | None = None) -> Predictor:
        """Learns from the support sets of a batch of tasks.

        Returns:
            A predictor for the same batch of tasks.
        """

    @abstractmethod
    def loss(self, tasks: Task, *, generator: Generator | None = None) -> Tensor:
        """The meta-training loss of each task, `(b,)`."""

    def embedding(self, task: Task) -> Embedding | None:
        """What maps inputs of a batch of tasks to features in which like is near, without reading their queries.

        None, unless the method has one: it serves to tell what is of none of the classes.
        """
        return None

    def at(self, progress: float) -> None:
        """Is told before every outer step how much of meta-training is done, in [0, 1]; for methods that anneal."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Groups for the outer optimiser; a method with several meta-rates has several."""
        return [{"params": [p for p in self.parameters() if p.requires_grad]}]

    def optimizer(self, lr: float | None = None) -> torch.optim.Optimizer:
        """The outer optimiser that the method is usually trained with: Adam, with rate 0.001 if none is given."""
        return torch.optim.Adam(self.parameter_groups(), lr=1e-3 if lr is None else lr)


def query_loss(predictor: Predictor, task: Task) -> Tensor:
    """Mean negative log-likelihood of the query set under a predictor, a task, `(b,)`."""
    log_p: Tensor = predictor(task.query.x).log_prob(task.query.y)
    return -(log_p * task.query.weights()).sum(1)
