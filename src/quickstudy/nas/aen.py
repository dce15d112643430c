"""AEN, the architecture evaluation network."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.distributions import Normal

from quickstudy.errors import ShapeError
from quickstudy.nas.architecture import Architecture, Encoded
from quickstudy.nas.source import Rows, normal_scores
from quickstudy.nas.space import Space
from quickstudy.nets.graph_network import GraphNetwork

NUMBERS = 3  # of a node: position, width, size
FARTHEST = 4.0  # standard deviations from the mean: proxies farther off say no more than that
STEEPNESS = 3.0  # of the ranking loss: a difference of a third of a standard deviation counts as one

STEPS, PASSES = 300, 20  # of training, at least

Facts = Callable[[Space, Sequence[Architecture]], Tensor]
"""What is known of architectures without training, such as the logarithms of their costs: `(b, p)`, in any unit."""


class AEN(nn.Module):
    r"""Predicts how an architecture will do on a task, from its graph.

    A graph network embeds the architecture: the adjacency, normalised, is what messages pass along, and is not encoded
    besides, so that relabelling nodes changes nothing. A fully connected head joins that with the embedding of the
    task and with zero-cost proxies, where there are any, and gives a normal distribution of the standardised outcome.
    It is trained on several tasks at once, on each by the likelihood and by all pairs,

    $$L = \mathbb{E}_i\, \tfrac12 \Big(\frac{y_i - \mu_i}{\sigma_i}\Big)^2 + \log \sigma_i +
    \mathbb{E}_{y_i > y_j} \log\big(1 + e^{-3 (\mu_i - \mu_j)}\big)$$

    Args:
        operations: Size of the space's vocabulary, without input and output.
        task: Size of a task's embedding, or 0.
        proxies: Number of proxies, or 0.
        width: Features of a node.
        depth: Graph convolutions.
        dropout: Of what the head is given, while it learns.

    Example:
        >>> from torch import Generator
        >>> from quickstudy.nas.aen import AEN
        >>> from quickstudy.nas.nasbench201 import NASBench201
        >>> space, generator = NASBench201(), Generator().manual_seed(0)
        >>> cells = [space.sample(generator=generator) for _ in range(4)]
        >>> AEN(len(space.vocabulary), width=8)(space.encode(cells)).mean.shape
        torch.Size([4])
    """

    def __init__(
        self,
        operations: int,
        *,
        task: int = 0,
        proxies: int = 0,
        width: int = 32,
        depth: int = 3,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.graph = GraphNetwork(operations + 2, NUMBERS, width=width, depth=depth)
        self.head = nn.Sequential(nn.Linear(width + task + proxies, width), nn.ReLU(), nn.Linear(width, 2))
        self.task, self.proxies, self.dropout = task, proxies, dropout

    def features(self, encoded: Encoded) -> Tensor:
        """What it knows an architecture by, `(b, d)`."""
        found: Tensor = self.graph(encoded.operations, encoded.features, encoded.adjacency, encoded.mask)
        return found

    def forward(self, encoded: Encoded, task: Tensor | None = None, proxies: Tensor | None = None) -> Normal:
        """The standardised outcome of each, batch shape `(b,)`.

        Args:
            encoded: The architectures.
            task: The task's embedding, `(task,)`.
            proxies: Standardised proxies of each on that task, `(b, proxies)`.

        Raises:
            ShapeError: Where the task or the proxies are not those it was made for.
        """
        return self.judge(self.features(encoded), task, proxies)

    def judge(self, features: Tensor, task: Tensor | None = None, proxies: Tensor | None = None) -> Normal:
        """The same of `features`, `(b, d)`."""
        joined = [features]
        for name, size, given in (("task", self.task, task), ("proxies", self.proxies, proxies)):
            if (0 if given is None else given.shape[-1]) != size:
                shape = None if given is None else tuple(given.shape)
                raise ShapeError(f"{name} has the shape {shape}, and this AEN was made for {size} numbers.")
            if given is not None:
                joined.append(given.expand(len(features), size))
        mean, log_std = self.head(F.dropout(torch.cat(joined, 1), self.dropout, self.training)).unbind(1)
        return Normal(mean, log_std.clamp(-4, 3).exp())

    def loss(
        self, encoded: Encoded, scores: Tensor, task: Tensor | None = None, proxies: Tensor | None = None
    ) -> Tensor:
        """The loss on one task, a scalar, for standardised outcomes `(b,)`."""
        predicted = self(encoded, task, proxies)
        likelihood: Tensor = -predicted.log_prob(scores).mean()
        gap = predicted.mean[:, None] - predicted.mean
        better = (scores[:, None] > scores).to(gap.dtype)  # a product is faster than to pick them
        return likelihood + (F.softplus(-STEEPNESS * gap) * better).sum() / better.sum().clamp(min=1)


class Prior(nn.Module):
    """Some AENs of the same experience, which differ in their first weights: their mean is what is expected.

    Proxies come in their own units; what `learn` has seen of them standardises them, within four deviations. Members
    that learned from the same rows err together, so their spread says too little of a new task: `calibrate` finds by
    how much. It also finds how far a new task's embedding is to be heeded: with few tasks to learn from, what an
    embedding says of a task unlike all of them may be far off.

    Args:
        space: Whose architectures they evaluate.
        members: How many there are.
        facts: Finds the proxies of any architecture, where they can be computed for all that a search looks at.
        task, proxies, width, depth, dropout: Of each `AEN`.
    """

    centre: Tensor  # (p,)
    spread: Tensor  # (p,)
    inflation: Tensor  # ()
    """By which standard deviations are multiplied, so that they hold on new tasks; see `calibrate`."""
    usual: Tensor  # (e,)
    """The mean embedding of the tasks that were learned from."""
    heed: Tensor  # ()
    """The part of an embedding's difference from the usual one that counts; see `calibrate`."""
    trust: Tensor  # ()
    """How probable it is, before any outcome, that it predicts those of a new task better than a constant does."""

    def __init__(
        self,
        space: Space,
        *,
        members: int = 5,
        facts: Facts | None = None,
        task: int = 0,
        proxies: int = 0,
        width: int = 32,
        depth: int = 3,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.space, self.facts = space, facts
        self.members = nn.ModuleList(
            AEN(len(space.vocabulary), task=task, proxies=proxies, width=width, depth=depth, dropout=dropout)
            for _ in range(members)
        )
        self.register_buffer("centre", torch.zeros(proxies))
        self.register_buffer("spread", torch.ones(proxies))
        self.register_buffer("usual", torch.zeros(task))
        self.register_buffer("heed", torch.ones(()))
        self.register_buffer("inflation", torch.ones(()))
        self.register_buffer("trust", torch.tensor(0.5))

    def each(self) -> Iterator[AEN]:
        """The members."""
        for member in self.members:
            assert isinstance(member, AEN)
            yield member

    def proxies(self, architectures: Sequence[Architecture], space: Space | None = None) -> Tensor | None:
        """Those that its facts find, `(b, p)`; None where it has none."""
        return None if self.facts is None else self.facts(space or self.space, architectures)

    def standardise(self, proxies: Tensor | None) -> Tensor | None:
        """Proxies in standard deviations from the mean over all that was learned from."""
        if proxies is None or proxies.shape[-1:] != self.centre.shape:
            return proxies  # None, or what AEN refuses
        return ((proxies.to(self.centre) - self.centre) / self.spread).clamp(-FARTHEST, FARTHEST)

    def heeded(self, task: Tensor | None) -> Tensor | None:
        """A task's embedding, as far as it is heeded."""
        if task is None or task.shape[-1:] != self.usual.shape:
            return task  # None, or what AEN refuses
        return self.usual + self.heed * (task.to(self.usual) - self.usual)

    def forward(self, encoded: Encoded, task: Tensor | None = None, proxies: Tensor | None = None) -> Normal:
        """The mixture's mean and standard deviation, batch shape `(b,)`."""
        return self.judge(self.features(encoded), task, proxies)

    def judge(self, features: Tensor, task: Tensor | None = None, proxies: Tensor | None = None) -> Normal:
        """The same of `features`, `(b, members d)`."""
        task, proxies = self.heeded(task), self.standardise(proxies)
        own = features.chunk(len(self.members), 1)
        each = [member.judge(part, task, proxies) for member, part in zip(self.each(), own, strict=True)]
        means, variances = torch.stack([one.mean for one in each]), torch.stack([one.variance for one in each])
        return Normal(means.mean(0), self.inflation * (variances.mean(0) + means.var(0, correction=0)).sqrt())

    def features(self, encoded: Encoded) -> Tensor:
        """The members' side by side, `(b, members d)`."""
        return torch.cat([member.features(encoded) for member in self.each()], 1)


def learn(
    prior: Prior,
    experience: Mapping[str, Rows],
    *,
    epochs: int | None = None,
    lr: float = 3e-3,
    weight_decay: float = 1e-3,
    jitter: float = 0.0,
    generator: Generator | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Prior:
    """Trains a prior on the outcomes of tasks already solved, in place, and returns it.

    Args:
        prior: Its weights are where training begins.
        experience: Outcomes by task, each in its own unit.
        epochs: Passes over all of it; a task is one batch, and one step. None makes 300 steps, or 20 passes where
            there are more than 15 tasks.
        lr: Of AdamW, annealed to zero by a cosine.
        weight_decay: Of AdamW.
        jitter: Standard deviation of noise on the tasks' embeddings. With few tasks, an embedding without noise is a
            name, and what is learned of a name says nothing of a new task.
        generator: Of that noise, and of dropout; torch's own where it is None.
        on_progress: Called with the epochs done and in all.

    Raises:
        ShapeError: Where there is no task, or one with fewer than two outcomes.
    """
    if not experience:
        raise ShapeError("An AEN learns from at least one task, and none was given.")
    if short := [name for name, outcomes in experience.items() if len(outcomes) < 2]:
        raise ShapeError(f"An AEN learns from pairs of outcomes; {', '.join(short)} has fewer than two.")
    batches = []
    for outcomes in experience.values():
        space = outcomes.space or prior.space
        found = outcomes.proxies if outcomes.proxies is not None else prior.proxies(outcomes.architectures, space)
        batches.append((space.encode(outcomes.architectures), normal_scores(outcomes.values), outcomes.task, found))
    known = [proxies for *_, proxies in batches if proxies is not None]
    if known and known[0].shape[-1:] == prior.centre.shape:
        everything = torch.cat(known).to(prior.centre)
        prior.centre.copy_(everything.mean(0))
        prior.spread.copy_(everything.std(0).clamp_min(1e-6))
    told = [task for _, _, task, _ in batches if task is not None]
    if told and told[0].shape == prior.usual.shape:
        prior.usual.copy_(torch.stack(told).mean(0))
    if epochs is None:
        epochs = max(PASSES, math.ceil(STEPS / len(batches)))
    optimizer = torch.optim.AdamW(prior.parameters(), lr=lr, weight_decay=weight_decay)
    prior.train()
    with seeded_dropout(prior, generator):
        for epoch in range(epochs):
            for i, (encoded, scores, task, proxies) in enumerate(batches):
                for group in optimizer.param_groups:
                    group["lr"] = 0.5 * lr * (1 + math.cos(math.pi * (epoch + i / len(batches)) / epochs))
                losses = [
                    member.loss(encoded, scores, blurred(task, jitter, generator), prior.standardise(proxies))
                    for member in prior.each()
                ]
                optimizer.zero_grad()
                torch.stack(losses).sum().backward()
                for member in prior.each():
                    nn.utils.clip_grad_norm_(member.parameters(), 1.0)
                optimizer.step()
            if on_progress is not None:
                on_progress(epoch + 1, epochs)
    return prior.eval()


@contextmanager
def seeded_dropout(prior: Prior, generator: Generator | None) -> Iterator[None]:
    """What dropout draws, which it draws from torch's own generator, follows from this one."""
    follows = generator is not None and any(member.dropout for member in prior.each())
    with torch.random.fork_rng(devices=[], enabled=follows):
        if follows:
            torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        yield


def blurred(task: Tensor | None, jitter: float, generator: Generator | None) -> Tensor | None:
    """A task's embedding with noise."""
    if task is None or not jitter:
        return task
    return task + jitter * torch.randn(task.shape, generator=generator)


def expected(
    prior: Prior,
    architectures: Sequence[Architecture],
    task: Tensor | None = None,
    *,
    space: Space | None = None,
    proxies: Tensor | None = None,
) -> Normal:
    """What a prior expects of architectures, without a graph.

    Args:
        prior: It finds the proxies by its facts, where it has some and none are given.
        architectures: `b` of them.
        task: The task's embedding, `(task,)`.
        space: Whose graphs they are; the prior's own where it is None.
        proxies: `(b, p)`, in their own units.
    """
    with torch.no_grad():
        encoded = (space or prior.space).encode(architectures)
        found: Normal = prior(encoded, task, proxies if proxies is not None else prior.proxies(architectures, space))
    return found
