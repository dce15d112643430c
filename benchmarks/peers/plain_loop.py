"""A loop over tasks with torch.autograd, as one writes it without a library."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from peers.problem import Answer, MetaIteration, Problem, classifier, gradients_of, our_classifier


def prepare(problem: Problem, *, our_network: bool = False) -> MetaIteration:
    """Each task's share of the gradient is taken at once, so that only one task's graph is in memory.

    `our_network` gives it quickstudy's Conv4, and pictures in `channels_last`.
    """
    net = (our_classifier if our_network else classifier)(problem).train()
    support, query = problem.tasks.support, problem.tasks.query
    layout = torch.channels_last if our_network else torch.contiguous_format

    def iterate() -> Answer:
        net.zero_grad()
        total = query.x.new_zeros(())
        for i in range(len(problem.tasks)):
            xs, xq = (x[i].contiguous(memory_format=layout) for x in (support.x, query.x))
            phi: dict[str, Tensor] = dict(net.named_parameters())
            for _ in range(problem.steps):
                loss = F.cross_entropy(functional_call(net, phi, (xs,)), support.y[i])
                gradients = torch.autograd.grad(loss, list(phi.values()), create_graph=True)
                phi = {name: value - problem.lr * g for (name, value), g in zip(phi.items(), gradients)}
            loss = F.cross_entropy(functional_call(net, phi, (xq,)), query.y[i]) / len(problem.tasks)
            loss.backward()
            total += loss.detach()
        return Answer(total, gradients_of(net))

    return iterate
