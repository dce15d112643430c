"""Model-agnostic meta-learning."""

from collections.abc import Callable
from functools import partial
from typing import Literal

from torch import Generator, Tensor, nn

from quickstudy.learners.head import head_for
from quickstudy.learners.inner_loop import InnerLoop, Params, Statistics, gradient_descent, named_tensors, theta
from quickstudy.learners.learner import Embedding, Learner, Predictor
from quickstudy.learners.meta_gradient import MetaGradient
from quickstudy.nets.batch_norm import make_batch_norm_explicit
from quickstudy.tasks.task import Task


class MAML(Learner):
    r"""Meta-learns an initialisation from which a few gradient steps solve a task.

    $$\phi_T = \theta - \alpha \nabla_\theta L_{S_T}(\theta), \qquad
      \min_\theta \sum_T J_{Q_T}(\phi_T), \quad J = L_{Q_T}(\phi_T) + \lambda J_{reg}(\phi_T)$$

    with as many inner steps as asked for. The gradient through the steps is exact for `order=2`.

    Args:
        net: Maps `(n, *input)` to `(n, out)`. Its parameters are $\theta$, and its torch batch normalisation layers
            become `BatchNorm`.
        lr: Inner step size $\alpha$. The paper's 0.4 on Omniglot goes with transductive statistics.
        steps: Number of inner steps in meta-training.
        adapt_steps: Number of inner steps on a new task; as many as `steps` by default.
        order: 2 differentiates through the inner gradients; 1 is first-order MAML.
        adapts: Says for a parameter's name whether it adapts; the others are shared by all tasks. By default all do,
            frozen ones too, which meta-training leaves as they are.
        regulariser: $\lambda J_{reg}$, a scalar function of one task's weights by name once they are adapted; those
            that do not adapt are among them.
        statistics: What batch normalisation normalises queries by: "support", so that a query's answer does not
            depend on the others; or "transductive", by the query set itself, as in the paper's code.
        memory_budget: Bytes that the graphs of tasks adapted at once may take.
        low_memory: Memory that grows with the logarithm of the number of steps $T$; each is taken
            $2 + \log_2(T) / 2$ times instead of once, only the last time with its graph.
        batching: "vmap", or "loop" over tasks; a network that `vmap` refuses turns to the loop by itself.

    Example:
        >>> import torch
        >>> from quickstudy import MAML, MLP, Episodes, LabelledSet
        >>> data = LabelledSet(torch.rand(40, 8), torch.arange(40) % 4, ("ant", "bee", "cat", "dog"))
        >>> tasks = Episodes(data, n_way=3, n_query=5).sample(2, generator=torch.Generator())
        >>> MAML(MLP(8, 3), lr=0.1, steps=5).loss(tasks).shape
        torch.Size([2])

    References:
        Finn et al., [Model-Agnostic Meta-Learning](https://arxiv.org/abs/1703.03400), 2017, algorithm 2.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        lr: float = 0.1,
        steps: int = 1,
        adapt_steps: int | None = None,
        order: Literal[1, 2] = 2,
        adapts: Callable[[str], bool] | None = None,
        regulariser: Callable[[Params], Tensor] | None = None,
        statistics: Statistics = "support",
        memory_budget: int = 2 << 30,
        low_memory: bool = False,
        batching: Literal["vmap", "loop"] = "vmap",
    ) -> None:
        super().__init__()
        self.net = make_batch_norm_explicit(net)
        self.inner = InnerLoop(
            self.net,
            partial(gradient_descent, lr=lr),
            steps=steps,
            order=order,
            start=theta if adapts is None else partial(chosen, adapts=adapts),
            statistics=statistics,
            batching=batching,
        )
        self.adapt_steps = steps if adapt_steps is None else adapt_steps
        self.meta_gradient = MetaGradient(self.inner, regulariser, memory_budget, low_memory)

    def adapt(self, task: Task, *, generator: Generator | None = None) -> Predictor:
        return self.inner.predictors(named_tensors(self), task, [self.adapt_steps])[0]

    def adapt_stepwise(self, task: Task, steps: int) -> list[Predictor]:
        """Predictors before the first inner step and after each of `steps`, `steps + 1` of them."""
        return self.inner.predictors(named_tensors(self), task, range(steps + 1))

    def embedding(self, task: Task) -> Embedding | None:
        return self.inner.embedding(named_tensors(self), task)

    def loss(self, tasks: Task, *, generator: Generator | None = None) -> Tensor:
        meta = named_tensors(self)
        return self.meta_gradient.losses(meta, tasks, head_for(tasks), {self.inner.steps: 1.0})


def chosen(meta: Params, *, adapts: Callable[[str], bool]) -> Params:
    """The network's parameters that adapt."""
    return {name: value for name, value in theta(meta).items() if adapts(name)}
