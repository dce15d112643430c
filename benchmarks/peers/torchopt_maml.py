"""TorchOpt's differentiable SGD, as in its few-shot example, but for one task's graph at a time."""

import torch.nn.functional as F
import torchopt

from peers.problem import Answer, MetaIteration, Problem, classifier, gradients_of


def prepare(problem: Problem) -> MetaIteration:
    """The network's weights are replaced by the adapted ones within a task, and put back after it."""
    net = classifier(problem).train()
    inner = torchopt.MetaSGD(net, lr=problem.lr)
    support, query = problem.tasks.support, problem.tasks.query
    parameters = list(net.parameters())

    def iterate() -> Answer:
        for parameter in parameters:
            parameter.grad = None
        weights = torchopt.extract_state_dict(net, by="reference", detach_buffers=True)
        state = torchopt.extract_state_dict(inner, by="reference")
        total = query.x.new_zeros(())
        for i in range(len(problem.tasks)):
            for _ in range(problem.steps):
                inner.step(F.cross_entropy(net(support.x[i]), support.y[i]))
            loss = F.cross_entropy(net(query.x[i]), query.y[i]) / len(problem.tasks)
            loss.backward()
            total += loss.detach()
            torchopt.recover_state_dict(net, weights)
            torchopt.recover_state_dict(inner, state)
        return Answer(total, gradients_of(net))

    return iterate
