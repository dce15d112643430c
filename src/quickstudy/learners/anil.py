"""Almost no inner loop."""

from dataclasses import replace
from functools import partial
from typing import Literal

from torch import Generator, Tensor, nn

from quickstudy.learners.embedding import embed, embed_inductively, evaluating
from quickstudy.learners.head import head_for
from quickstudy.learners.inner_loop import InnerLoop, gradient_descent, named_tensors
from quickstudy.learners.learner import Embedding, Learner, Predictor
from quickstudy.nets.batch_norm import make_batch_norm_explicit
from quickstudy.tasks.task import Task


class ANIL(Learner):
    r"""MAML of which only the last layers adapt: features are meta-learned, and fixed within a task.

    $$w_T = w - \alpha \nabla_w L_{S_T}(w, f_\theta), \qquad \min_{\theta, w} \sum_T L_{Q_T}(w_T, f_\theta)$$

    with as many inner steps as asked for. Features of the support and query sets of all tasks of a step are computed
    once, so that a step costs about what a step of a prototypical network does. In meta-training, the body's batch
    normalisation uses the statistics of all tasks of a step; afterwards, the running ones. (The paper normalises by
    the query set, as MAML does.)

    `lr` ($\alpha$), `steps`, `order` and `batching` are those of `MAML`; a new task takes as many steps. It needs no
    `memory_budget` and no `low_memory`: its body is gone through once, and what a step keeps is the size of the head.

    Args:
        body: $f_\theta$, maps `(n, *input)` to `(n, *features)`. Its torch batch normalisation layers, and those of
            `head`, become `BatchNorm`.
        head: $w$, maps `(n, *features)` to `(n, out)`. All its parameters adapt.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from quickstudy import MLP, Episodes, LabelledSet
        >>> from quickstudy.learners.anil import ANIL
        >>> data = LabelledSet(torch.rand(40, 8), torch.arange(40) % 4, ("ant", "bee", "cat", "dog"))
        >>> tasks = Episodes(data, n_way=3, n_query=5).sample(2, generator=torch.Generator())
        >>> ANIL(MLP(8, 16), nn.Linear(16, 3), lr=0.1, steps=5).loss(tasks).shape
        torch.Size([2])

    References:
        Raghu et al., [Rapid Learning or Feature Reuse?](https://arxiv.org/abs/1909.09157), 2020, section 4.
    """

    def __init__(
        self,
        body: nn.Module,
        head: nn.Module,
        *,
        lr: float = 0.1,
        steps: int = 5,
        order: Literal[1, 2] = 2,
        batching: Literal["vmap", "loop"] = "vmap",
    ) -> None:
        super().__init__()
        self.body = make_batch_norm_explicit(body)
        self.net = make_batch_norm_explicit(head)  # what adapts goes by this name in every gradient learner
        self.inner = InnerLoop(self.net, partial(gradient_descent, lr=lr), steps=steps, order=order, batching=batching)

    def adapt(self, task: Task, *, generator: Generator | None = None) -> Predictor:
        head, support = head_for(task), replace(task.support, x=embed_inductively(self.body, task.support.x))
        with evaluating(self.net):
            adapted = self.inner.adapt(named_tensors(self), support, head, [self.inner.steps])[0]
        predict = self.inner.predictor(adapted, head)
        return lambda x: predict(embed_inductively(self.body, x))

    def embedding(self, task: Task) -> Embedding:
        return lambda x: embed_inductively(self.body, x).flatten(2)

    def loss(self, tasks: Task, *, generator: Generator | None = None) -> Tensor:
        head = head_for(tasks)
        support, query = embed(self.body, tasks.support, tasks.query)
        adapted = self.inner.adapt(named_tensors(self), replace(tasks.support, x=support), head, [self.inner.steps])[0]
        losses = head.losses(self.inner.outputs(adapted, query), tasks.query.y)  # (b, q)
        return (losses * tasks.query.weights()).sum(1)
