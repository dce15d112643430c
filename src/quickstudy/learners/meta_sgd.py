"""Meta-SGD."""

from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn

from quickstudy.learners.head import head_for
from quickstudy.learners.inner_loop import InnerLoop, Params, Statistics, named_tensors
from quickstudy.learners.learner import Embedding, Learner, Predictor
from quickstudy.learners.meta_gradient import MetaGradient
from quickstudy.learners.tables import entry, table
from quickstudy.nets.batch_norm import make_batch_norm_explicit
from quickstudy.tasks.task import Task


class MetaSGD(Learner):
    r"""Meta-learns an initialisation and, for every single weight, how far and in which direction it steps.

    $$\phi_T = \theta - \alpha \circ \nabla_\theta L_{S_T}(\theta), \qquad
      \min_{\theta, \alpha} \sum_T L_{Q_T}(\phi_T)$$

    where $\alpha$ has the shape of $\theta$, and its entries may become negative. One step, as in the paper, is the
    default; with more, all share $\alpha$.

    `net`, `steps`, `adapt_steps`, `order`, `statistics`, `memory_budget`, `low_memory` and `batching` are those of
    `MAML`.

    Args:
        lr: Every entry of $\alpha$ is drawn uniformly between these two, as in the paper; one number sets all to it.
        rates_lr: Outer step size of $\alpha$; by default that of $\theta$, as in the paper.
        generator: Draws $\alpha$; by default torch's own, as networks are initialised.

    Example:
        >>> import torch
        >>> from quickstudy import MLP, Episodes, LabelledSet
        >>> from quickstudy.learners.meta_sgd import MetaSGD
        >>> data = LabelledSet(torch.rand(40, 8), torch.arange(40) % 4, ("ant", "bee", "cat", "dog"))
        >>> tasks = Episodes(data, n_way=3, n_query=5).sample(2, generator=torch.Generator())
        >>> MetaSGD(MLP(8, 3)).loss(tasks).shape
        torch.Size([2])

    References:
        Li et al., [Meta-SGD: Learning to Learn Quickly for Few-Shot Learning](https://arxiv.org/abs/1707.09835), 2017.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        lr: float | tuple[float, float] = (0.005, 0.1),
        steps: int = 1,
        adapt_steps: int | None = None,
        order: Literal[1, 2] = 2,
        rates_lr: float | None = None,
        statistics: Statistics = "support",
        memory_budget: int = 2 << 30,
        low_memory: bool = False,
        batching: Literal["vmap", "loop"] = "vmap",
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        self.net = make_batch_norm_explicit(net)
        low, high = lr if isinstance(lr, tuple) else (lr, lr)
        self.rates = table(
            {
                # drawn where the generator is, for the same rates on any device
                name: low
                + (high - low) * torch.rand(value.shape, generator=generator, dtype=value.dtype).to(value.device)
                for name, value in self.net.named_parameters()
            }
        )
        self.rates_lr = rates_lr
        self.inner = InnerLoop(self.net, descend, steps=steps, order=order, statistics=statistics, batching=batching)
        self.adapt_steps = steps if adapt_steps is None else adapt_steps
        self.meta_gradient = MetaGradient(self.inner, None, memory_budget, low_memory)

    def adapt(self, task: Task, *, generator: Generator | None = None) -> Predictor:
        return self.inner.predictors(named_tensors(self), task, [self.adapt_steps])[0]

    def embedding(self, task: Task) -> Embedding | None:
        return self.inner.embedding(named_tensors(self), task)

    def loss(self, tasks: Task, *, generator: Generator | None = None) -> Tensor:
        return self.meta_gradient.losses(named_tensors(self), tasks, head_for(tasks), {self.inner.steps: 1.0})

    def parameter_groups(self) -> list[dict[str, Any]]:
        r"""$\theta$, and $\alpha$ with the outer step size `rates_lr` where there is one."""
        rates: dict[str, Any] = {"params": list(self.rates.parameters())}
        if self.rates_lr is not None:
            rates["lr"] = self.rates_lr
        return [{"params": [p for p in self.net.parameters() if p.requires_grad]}, rates]


def descend(step: int, phi: Params, gradients: Params, meta: Params) -> Params:
    r"""The update $\phi \leftarrow \phi - \alpha \circ \nabla$."""
    return {name: value - entry(meta, "rates", name) * gradients[name] for name, value in phi.items()}
