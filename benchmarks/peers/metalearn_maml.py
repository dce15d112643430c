"""parallel-metalearn: its MAML with its own batch normalisation; `vmap` over tasks, or its sequential backend."""

from collections.abc import Iterator
from typing import Any

import torch
from metalearn.algorithms import MAML
from metalearn.inner_optimizers import InnerSGD
from metalearn.loss import CategoricalAccuracy, CrossEntropy
from metalearn.model_wrappers import MAML_Model
from metalearn.nn_models.basic_layers.BatchNormalization import BatchNorm
from torch import Tensor, nn

from peers.problem import Answer, MetaIteration, Problem, begin, gradients_of, last_layer, layers


class TakesKeywords(nn.Module):
    """A network that is told the step and the mode, as this library tells it, and passes over both.

    Args:
        net: The network.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, **kwargs: Any) -> Tensor:
        """`(n, *input)` to `(n, *output)`."""
        out: Tensor = self.net(x)
        return out


def prepare(problem: Problem, *, backend: str = "vmap") -> MetaIteration:
    """Its `step`, with an outer optimiser whose rate is zero, so that each iteration does the same."""
    # Its translator of torch's layers fails on affine batch normalisation (0.5.6); its layer is used directly.
    body = nn.Sequential(*layers(problem, lambda channels: BatchNorm(channels, track_running_stats=False)))
    net = begin(MAML_Model(TakesKeywords(body), TakesKeywords(last_layer(problem))), problem).train()
    support, query = problem.tasks.support, problem.tasks.query
    learner = MAML(
        model=net,
        optimizer=torch.optim.SGD(net.parameters(), lr=0.0),
        inner_optimizer=InnerSGD(
            net.get_fast_weights(), inner_lr=problem.lr, max_inner_steps=problem.steps, learn_lr=False
        ),
        support_loss_fn=CrossEntropy(metric_fn=CategoricalAccuracy()),
        inner_steps=problem.steps,
        chunk_size=len(problem.tasks),
        device=support.x.device,
        backend=backend,
    )

    def batches() -> Iterator[tuple[Tensor, dict[str, Tensor], Tensor, dict[str, Tensor]]]:
        while True:
            yield support.x, {"labels": support.y}, query.x, {"labels": query.y}

    source = batches()

    def iterate() -> Answer:
        loss, _ = learner.step(source, training=True)
        if backend == "sequential":  # which reports, but does not differentiate, a mean divided by the tasks twice
            loss *= len(problem.tasks)
        return Answer(torch.tensor(loss), gradients_of(net))

    return iterate
