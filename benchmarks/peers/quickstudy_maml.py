"""quickstudy's own."""

from peers.problem import Answer, MetaIteration, Problem, classifier, gradients_of, our_classifier
from quickstudy import MAML


def prepare(problem: Problem, *, low_memory: bool = False, usual_network: bool = False) -> MetaIteration:
    """As `meta_train` does it. Batch statistics of the query set, so that all methods do the same work.

    `usual_network` gives it the network of its peers, in torch's modules, as a user's own would be.
    """
    tasks, net = problem.tasks, (classifier if usual_network else our_classifier)(problem)
    learner = MAML(net, lr=problem.lr, steps=problem.steps, statistics="transductive", low_memory=low_memory).train()

    def iterate() -> Answer:
        learner.zero_grad()
        loss = learner.loss(tasks).mean()
        loss.backward()
        return Answer(loss.detach(), gradients_of(learner.net))

    return iterate
