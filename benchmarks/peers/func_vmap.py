"""torch.func alone: the loss of a task, `vmap` over tasks, and the gradient of their mean."""

import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, grad, grad_and_value, vmap

from peers.problem import Answer, MetaIteration, Problem, WrittenBatchNorm, classifier

Params = dict[str, Tensor]


def prepare(problem: Problem) -> MetaIteration:
    """All tasks at once."""
    net = classifier(problem, WrittenBatchNorm).train()
    theta = {name: value.detach() for name, value in net.named_parameters()}
    support, query = problem.tasks.support, problem.tasks.query

    def loss(phi: Params, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(net, phi, (x,)), y)

    def of_task(theta: Params, xs: Tensor, ys: Tensor, xq: Tensor, yq: Tensor) -> Tensor:
        phi = theta
        for _ in range(problem.steps):
            gradients = grad(loss)(phi, xs, ys)
            phi = {name: value - problem.lr * gradients[name] for name, value in phi.items()}
        return loss(phi, xq, yq)

    def of_all(theta: Params) -> Tensor:
        losses: Tensor = vmap(of_task, (None, 0, 0, 0, 0))(theta, support.x, support.y, query.x, query.y)
        return losses.mean()

    def iterate() -> Answer:
        gradients, value = grad_and_value(of_all)(theta)
        return Answer(value, list(gradients.values()))

    return iterate
