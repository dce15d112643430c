"""Training from scratch, the baseline without a prior."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from quickstudy.learners.embedding import evaluating
from quickstudy.learners.head import Head, head_for
from quickstudy.learners.learner import Learner, Predictor
from quickstudy.learners.solve import Solution, descend, outputs, real_examples, seeded
from quickstudy.nets.batch_norm import make_batch_norm_explicit, moments_of, normalised_by_batch
from quickstudy.tasks.task import Task


class FromScratch(Learner):
    r"""Trains a freshly initialised network on the support set of every task, by full-batch steps of Adam.

    $$\phi_T = \mathrm{Adam}(L_{S_T}; \phi_0), \qquad \phi_0 \sim \text{the network's own initialisation}$$

    Each task has an initialisation of its own, drawn from the generator. Batch normalisation uses the moments of the
    support set, in training and for queries, so that a query's answer does not depend on the others.

    There is nothing to meta-learn: it has no parameters, and `loss` is zero.

    Args:
        make: Makes a new network, which maps `(n, *input)` to `(n, out)`.
        lr: Learning rate of Adam.
        steps: Number of steps.

    Example:
        >>> import torch
        >>> from quickstudy import MLP, Episodes, LabelledSet
        >>> from quickstudy.learners.from_scratch import FromScratch
        >>> data = LabelledSet(torch.rand(40, 8), torch.arange(40) % 4, ("ant", "bee", "cat", "dog"))
        >>> task = Episodes(data, n_way=3, n_shot=1, n_query=5).sample(1, generator=torch.Generator())
        >>> learner = FromScratch(lambda: MLP(8, 3), steps=5)
        >>> learner.adapt(task, generator=torch.Generator().manual_seed(0))(task.query.x).probs.shape
        torch.Size([1, 15, 3])

    References:
        Kingma and Ba, [Adam](https://arxiv.org/abs/1412.6980), 2015.
    """

    def __init__(self, make: Callable[[], nn.Module], *, lr: float = 3e-3, steps: int = 20) -> None:
        super().__init__()
        self.make, self.lr, self.steps = make, lr, steps

    def adapt(self, task: Task, *, generator: Generator | None = None) -> Predictor:
        head = head_for(task)
        solutions = []
        for i in range(len(task)):
            x, y = real_examples(task.support, i)
            with seeded(generator, x.device):
                solutions.append(self.solve(x, y, head))
        return lambda x: head(outputs(solutions, x))

    def loss(self, tasks: Task, *, generator: Generator | None = None) -> Tensor:
        x = tasks.query.x
        return torch.zeros(len(tasks), dtype=x.dtype if x.is_floating_point() else None, device=x.device)

    def solve(self, x: Tensor, y: Tensor, head: Head) -> Solution:
        """A new network trained on one support set."""
        net = make_batch_norm_explicit(self.make()).train().to(x.device, x.dtype if x.is_floating_point() else None)
        with normalised_by_batch(net):
            descend(net, x, y, head, torch.optim.Adam(net.parameters(), lr=self.lr), self.steps)
        net.requires_grad_(False)
        with torch.no_grad(), evaluating(net), moments_of(net) as moments:
            net(x)
        return Solution(net, moments)
