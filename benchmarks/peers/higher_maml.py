"""higher, as in its MAML example."""

import higher
import torch
import torch.nn.functional as F

from peers.problem import Answer, MetaIteration, Problem, classifier, gradients_of


def prepare(problem: Problem) -> MetaIteration:
    """A functional copy of the network and of its optimiser for each task."""
    net = classifier(problem).train()
    inner = torch.optim.SGD(net.parameters(), lr=problem.lr)
    support, query = problem.tasks.support, problem.tasks.query

    def iterate() -> Answer:
        net.zero_grad()
        total = query.x.new_zeros(())
        for i in range(len(problem.tasks)):
            with higher.innerloop_ctx(net, inner, copy_initial_weights=False) as (copy, descent):
                for _ in range(problem.steps):
                    descent.step(F.cross_entropy(copy(support.x[i]), support.y[i]))
                loss = F.cross_entropy(copy(query.x[i]), query.y[i]) / len(problem.tasks)
                loss.backward()
                total += loss.detach()
        return Answer(total, gradients_of(net))

    return iterate
