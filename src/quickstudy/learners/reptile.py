"""Reptile."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from quickstudy.errors import ShapeError
from quickstudy.learners.head import head_for
from quickstudy.learners.inner_loop import InnerLoop, Statistics, gradient_descent, named_tensors
from quickstudy.learners.learner import Embedding, Learner, Predictor
from quickstudy.nets.batch_norm import make_batch_norm_explicit
from quickstudy.tasks.task import Task


class Reptile(Learner):
    r"""Meta-learns an initialisation by moving it towards each task's solution.

    $$\theta \leftarrow \theta + \epsilon (\phi_T - \theta)$$

    That step is a gradient step of size $\epsilon$ on $\frac12\|\theta - \phi_T\|^2$ with $\phi_T$ held fixed, which is
    what `loss` returns. Plain SGD with rate $\epsilon$ is the paper's update, so it is the default outer optimiser;
    Adam is not Reptile. In meta-training a task is solved from its support and query sets together.

    The inner loop departs from the paper's experiments: it takes full-batch steps of plain gradient descent, where they
    take mini-batches and Adam with $\beta_1 = 0$. Their accuracies are therefore not to be expected of it.

    `net`, `lr`, `steps`, `adapt_steps`, `statistics` (transductive in the paper) and `batching` are those of `MAML`.

    Args:
        moves: Says for a parameter's name whether meta-training moves it towards the tasks' solutions (the partial
            update); the others adapt in the inner loop, and stay as they were initialised. By default all move.

    Raises:
        ShapeError: Where none moves.

    Example:
        >>> import torch
        >>> from quickstudy import MLP, Episodes, LabelledSet, Reptile
        >>> data = LabelledSet(torch.rand(40, 8), torch.arange(40) % 4, ("ant", "bee", "cat", "dog"))
        >>> tasks = Episodes(data, n_way=3, n_query=5).sample(2, generator=torch.Generator())
        >>> Reptile(MLP(8, 3), lr=0.1, steps=5).loss(tasks).shape
        torch.Size([2])

    References:
        Nichol et al., [On First-Order Meta-Learning Algorithms](https://arxiv.org/abs/1803.02999), 2018.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        lr: float = 0.1,
        steps: int = 5,
        adapt_steps: int | None = None,
        moves: Callable[[str], bool] | None = None,
        statistics: Statistics = "support",
        batching: Literal["vmap", "loop"] = "vmap",
    ) -> None:
        super().__init__()
        self.net = make_batch_norm_explicit(net)
        self.inner = InnerLoop(
            self.net, partial(gradient_descent, lr=lr), steps=steps, order=1, statistics=statistics, batching=batching
        )
        # Meta-training asks for weights alone, so that nothing is computed to normalise queries by.
        self.solving = replace(self.inner, statistics="transductive")
        self.adapt_steps = steps if adapt_steps is None else adapt_steps
        self.moves = moves
        if moves is not None and not any(map(moves, dict(self.net.named_parameters()))):
            raise ShapeError("moves holds for none of the network's parameters, so that nothing would be learned.")

    def adapt(self, task: Task, *, generator: Generator | None = None) -> Predictor:
        return self.inner.predictors(named_tensors(self), task, [self.adapt_steps])[0]

    def embedding(self, task: Task) -> Embedding | None:
        return self.inner.embedding(named_tensors(self), task)

    def loss(self, tasks: Task, *, generator: Generator | None = None) -> Tensor:
        with torch.no_grad():
            meta = named_tensors(self)
            phi = self.solving.adapt(meta, tasks.everything, head_for(tasks), [self.inner.steps])[0].weights
        gaps = [
            (parameter - phi[name]).square().reshape(len(tasks), -1).sum(1)
            for name, parameter in self.net.named_parameters()
            if self.moves is None or self.moves(name)
        ]
        return 0.5 * torch.stack(gaps).sum(0)  # (b,)

    def optimizer(self, lr: float | None = None) -> torch.optim.Optimizer:
        r"""Plain SGD with rate $\epsilon$, by default 1: $\theta$ moves to the mean of the tasks' solutions."""
        return torch.optim.SGD(self.parameter_groups(), lr=1.0 if lr is None else lr)
