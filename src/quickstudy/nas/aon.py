"""AON, the architecture optimisation network."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from quickstudy.experience.proposer import Proposer
from quickstudy.experience.trial import TaskDescription, Trial
from quickstudy.nas.aen import Facts, Prior
from quickstudy.nas.architecture import Architecture
from quickstudy.nas.baselines.candidates import tried, unseen
from quickstudy.nas.landscape import Landscape
from quickstudy.nas.source import normal_scores
from quickstudy.nas.space import Space

STEPS = 4  # of an improvement
SEEN = 16  # numbers of a token, beside its embedding
NARROW, WIDE = 2.0, 8.0  # how fast an outcome ceases to say something of what is unlike it
ANCHOR = 1.0  # logit of the values of the start


@dataclass(frozen=True)
class Feedback:
    """What came of `t` trials in each of `b` walks, in units that need no knowledge of the task's."""

    at: Tensor  # (b, t): numbers in the landscape
    score: Tensor  # (b, t): normal scores of the outcomes among each other
    surprise: Tensor  # (b, t): those less the normal scores of AEN's predictions
    trust: Tensor  # (b,): the correlation of the two, nearer to 0 the fewer there are

    @classmethod
    def of(cls, landscape: Landscape, at: Tensor, values: Tensor) -> "Feedback":
        """Of trials `(b, t)` with these values, in any unit."""
        score, said = normal_scores(values), normal_scores(landscape.mean[at])
        together = (score * said).sum(1) / (score.square().sum(1) * said.square().sum(1)).sqrt().clamp_min(1e-6)
        return cls(at, score, score - said, together * at.shape[1] / (at.shape[1] + 3))

    def best(self, penalty: Tensor) -> Tensor:
        """Where in `at` the best of each is, `(b,)`, given what is to be taken off each, `(b, t)`."""
        return (self.score - penalty).argmax(1)


@dataclass(frozen=True)
class Step:
    """One update, in `b` walks."""

    near: Tensor  # (b, tokens): what each change leads to, -1 where it may not be
    log_probability: Tensor  # (b, tokens): that the walk goes there; -inf where it may not
    value: Tensor  # (b, tokens): what AON expects there, in normal scores less the penalty


class AON(nn.Module):
    r"""A learned optimiser of architectures: it updates the logits of a relaxed one, a few times.

    A relaxed architecture is a product of categoricals, $P_\ell(\alpha) = \prod_c \mathrm{softmax}(\ell_c)_{\alpha_c}$,
    with a logit for each **token**, a choice and a value. An update reads, at the architecture $\alpha$ that the walk
    has come to,

    1. *parameter encoder*: each token's probability, whether $\alpha$ has it, whether the best trial had it, and a
       learned embedding of the token;
    2. *performance encoder*: AEN's discrete gradient, $\mathrm{AEN}(\alpha_{c \to v}) - \mathrm{AEN}(\alpha)$, and its
       spread; how trials with that value did, how many they were, and by how much they surprised AEN; the same of
       trials whose graphs, as AEN embeds them, are like that of $\alpha_{c \to v}$; how well AEN's order agrees with
       the outcomes; and the objective, the difference of cost times its weight;
    3. *optimiser network*: a multi-layer perceptron on tokens, pooled over choices and over all, and a recurrent cell,
       whose output is added to the logits, $\ell \leftarrow \ell + \eta\, (\text{gradient} - \text{penalty}) + g$;
    4. *projection*: the walk goes on to a member of the space that differs in at most one choice, drawn from
       $P_\ell$ conditioned on that. Members are those of the space passed in, so that limits are kept; and the last
       step ends on one that was not tried.

    $g$ begins at zero: untrained, AON climbs AEN's prediction. What it learns is when to depart from that.

    What is built is an optimiser of architectures; it does not set the rates of a candidate's first training steps. It
    departs from gradient descent on a relaxed graph: graphs are discrete, so that AEN has no gradient with respect to a
    logit, and the differences to all neighbours stand for it, at one evaluation a token. And it departs from training
    both at once: AON reads graphs by AEN's encoder, which has learned before and stays as it is, so that a graph is
    looked at once in all of AON's training and not once a step.

    Args:
        space: It, or a part of it, is what is walked through.
        width: Features of a token.

    Example:
        >>> import torch
        >>> from quickstudy.nas.aen import Prior
        >>> from quickstudy.nas.aon import AON
        >>> from quickstudy.nas.landscape import Landscape
        >>> from quickstudy.nas.nasbench201 import NASBench201
        >>> space, generator = NASBench201(), torch.Generator().manual_seed(0)
        >>> land = Landscape(Prior(space, members=1, width=8), space)
        >>> start = land.numbers([space.sample(generator=generator)])
        >>> *_, last = AON(space).walk(land, start, generator=generator)
        >>> last.value.shape
        torch.Size([1, 30])

    References:
        Andrychowicz et al., [Learning to Learn by Gradient Descent by Gradient
        Descent](https://arxiv.org/abs/1606.04474), 2016. Liu et al., [DARTS](https://arxiv.org/abs/1806.09055), 2019,
        for the relaxation. Zanella, [Informed Proposals for Local MCMC in Discrete
        Spaces](https://arxiv.org/abs/1711.07424), 2020, for steps to neighbours by their probability.
    """

    pool: Tensor  # (choices, tokens): the mean over a choice's values

    def __init__(self, space: Space, *, width: int = 32) -> None:
        super().__init__()
        sizes = [len(options) for options in space.choices.values()]
        self.register_buffer("pool", torch.block_diag(*(torch.full((1, size), 1 / size) for size in sizes)))
        self.embedding = nn.Parameter(0.1 * torch.randn(sum(sizes), 8))
        self.look = nn.Linear(SEEN + 8, width)
        self.mix = nn.Linear(3 * width, width)
        self.memory = nn.GRUCell(width, width)
        self.out = nn.Linear(width, 2)
        self.rate = nn.Parameter(torch.tensor(math.log(3.0)))
        self.width = width
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)

    def walk(
        self,
        landscape: Landscape,
        start: Tensor,
        *,
        feedback: Feedback | None = None,
        weights: Tensor | None = None,
        steps: int = STEPS,
        considered: int | None = None,
        greedy: Tensor | None = None,
        generator: Generator,
    ) -> list[Step]:
        """Walks from `b` starts, side by side.

        Args:
            landscape: What is walked through.
            start: `(b,)`, numbers in it.
            feedback: Of each walk, which does not end on any of its trials.
            weights: `(b, c)`: what a standard deviation of each cost takes off the objective, in standard deviations
                of the outcome.
            steps: Updates.
            considered: Random changes that an update looks at, beside staying; None for all.
            greedy: `(b,)`, True where a walk takes what is likeliest and draws nothing; nowhere by default.
            generator: Draws the others' steps, and what is considered.
        """
        b, tokens = len(start), landscape.tokens
        if feedback is None:
            nothing = start.new_zeros(b, 0)
            feedback = Feedback(nothing, torch.zeros(b, 0), torch.zeros(b, 0), torch.zeros(b))
        if weights is None:
            weights = torch.zeros(b, landscape.costs.shape[1])
        told = Told(landscape, feedback, weights)
        at, hidden = start, torch.zeros(b * tokens, self.width)
        logits = ANCHOR * told.has(at)
        found = []
        for step in range(steps):
            near = landscape.around(at, some(considered, (b, tokens), generator))
            seen, gain, value = told.tokens(at, near, logits, step / steps)
            h = torch.cat([seen, self.embedding.expand(b, -1, -1)], -1)
            h = torch.relu(self.look(h))
            of_choice = self.pool @ h  # (b, choices, d)
            everything = of_choice.mean(1, keepdim=True).expand_as(h)
            h = torch.relu(self.mix(torch.cat([h, of_choice[:, landscape.choice], everything], -1)))
            hidden = self.memory(h.flatten(0, 1), hidden)
            update, correction = self.out(hidden).view(b, tokens, 2).unbind(-1)
            logits = logits + self.rate.exp() * gain + update
            last = step == steps - 1
            log_probability = told.moves(at, near, logits, last)
            found.append(Step(near, log_probability, value + correction))
            if not last:
                at = near.gather(1, pick(log_probability.detach(), greedy, generator)[:, None])[:, 0]
        return found


class Told:
    """What an update reads, of everything that does not change during a walk."""

    def __init__(self, landscape: Landscape, feedback: Feedback, weights: Tensor) -> None:
        self.landscape, self.feedback, self.weights = landscape, feedback, weights
        has = self.has(feedback.at) if feedback.at.shape[1] else torch.zeros(len(weights), 0, landscape.tokens)
        self.count = has.sum(1)  # (b, tokens)
        self.score = (has * feedback.score[..., None]).sum(1) / (self.count + 1)
        self.surprise = (has * feedback.surprise[..., None]).sum(1) / (self.count + 1)
        self.best = torch.zeros_like(self.count)
        if feedback.at.shape[1]:
            best = feedback.best(self.penalty(feedback.at))
            self.best = has[torch.arange(len(best)), best]
        self.features = landscape.features[feedback.at]  # (b, t, d)

    def has(self, at: Tensor) -> Tensor:
        """1 where an architecture has a token: `(..., tokens)`."""
        places = self.landscape.places[at]
        return torch.zeros(*at.shape, self.landscape.tokens).scatter_(-1, places, 1.0)

    def penalty(self, at: Tensor) -> Tensor:
        """What the costs of architectures `(b, n)` take off."""
        return (self.landscape.costs[at] * self.weights[:, None]).sum(-1)

    def tokens(self, at: Tensor, near: Tensor, logits: Tensor, time: float) -> tuple[Tensor, Tensor, Tensor]:
        """The numbers of each token `(b, tokens, SEEN)`, what a change to it gains, and its value, `(b, tokens)`."""
        land, feedback = self.landscape, self.feedback
        member = near >= 0
        there = near.where(member, at[:, None])
        penalty = self.penalty(there)
        value = land.mean[there] - penalty
        own = land.mean[at] - self.penalty(at[:, None])[:, 0]
        gain = value - own[:, None]
        shared = [
            torch.full_like(own, math.log1p(feedback.at.shape[1])),
            feedback.trust,
            own,
            torch.full_like(own, time),
        ]
        seen = [
            grouped_softmax(logits, land.choice),
            self.has(at),
            self.best,
            gain,
            land.std[there],
            self.count.log1p(),
            self.score,
            self.surprise,
            *self.alike(there),
            penalty,
            member.float(),
            *(each[:, None].expand_as(gain) for each in shared),
        ]
        return torch.stack(seen, -1), gain, value

    def alike(self, there: Tensor) -> tuple[Tensor, Tensor]:
        """How much trials of graphs like these `(b, tokens)` surprised AEN, by a narrow and a wide measure."""
        if not self.feedback.at.shape[1]:
            return torch.zeros(there.shape), torch.zeros(there.shape)
        squared = (torch.cdist(self.landscape.features[there], self.features) / self.landscape.distance).square()
        surprise = self.feedback.surprise[:, None]
        near, far = ((-speed * squared).exp() for speed in (WIDE, NARROW))
        return (near * surprise).sum(-1) / (near.sum(-1) + 0.5), (far * surprise).sum(-1) / (far.sum(-1) + 0.5)

    def moves(self, at: Tensor, near: Tensor, logits: Tensor, last: bool) -> Tensor:
        r"""Logarithm of $P_\ell$ given that at most one choice changes, `(b, tokens)`; -inf where it may not go."""
        own = self.has(at).bool()
        of_choice = logits.new_zeros(len(at), int(self.landscape.choice.max()) + 1)
        of_choice = of_choice.scatter_add(1, self.landscape.choice.expand_as(logits), logits * own)
        odds = logits - of_choice[:, self.landscape.choice]  # 0 where the architecture stays as it is
        once = own & (own.cumsum(1) > 1)  # to stay is one way, not one a choice
        shut = (near < 0) | once
        if last:
            shut |= (near[..., None] == self.feedback.at[:, None]).any(-1)
        odds = odds.masked_fill(shut, -math.inf)
        nowhere = shut.all(1, keepdim=True)
        return odds.masked_fill(nowhere, 0.0).log_softmax(1).masked_fill(shut, -math.inf)


def some(n: int | None, shape: tuple[int, int], generator: Generator) -> Tensor | None:
    """True at `n` random places of each row; None for all."""
    if n is None or n >= shape[1]:
        return None
    return torch.rand(shape, generator=generator).argsort(1) < n


def grouped_softmax(logits: Tensor, group: Tensor) -> Tensor:
    """Probabilities within each group, `(b, tokens)`."""
    raised = (logits - logits.amax(1, keepdim=True)).clamp_min(-60).exp()
    total = raised.new_zeros(len(logits), int(group.max()) + 1).scatter_add(1, group.expand_as(raised), raised)
    found: Tensor = raised / total[:, group]
    return found


def pick(log_probability: Tensor, greedy: Tensor | None, generator: Generator) -> Tensor:
    """A token of each walk, `(b,)`."""
    drawn = torch.multinomial(log_probability.exp(), 1, generator=generator)[:, 0]
    return drawn if greedy is None else log_probability.argmax(1).where(greedy, drawn)


def improve(
    aon: AON,
    landscape: Landscape,
    trials: Sequence[Trial[Architecture]],
    n: int,
    *,
    weights: Tensor | None = None,
    starts: int = 3,
    considered: int | None = None,
    generator: Generator,
) -> list[Architecture]:
    """At most `n` members that AON would try next, the most promising first, none of which was tried.

    Walks begin at the best trials and at the best by AEN of the landscape's sample; from each start one goes greedily
    and one at random. A walk offers what it may end on, likeliest first; all walks' first offers come before all second
    ones, and by AON's own value among each other.

    Args:
        aon: It knows the space's choices.
        landscape: The prior, the task, and the space, whose limits are kept.
        trials: All that was tried, as `outcomes` counts it.
        n: To be found.
        weights: `(c,)`, of the landscape's costs.
        starts: At most as many of either kind.
        considered: Random changes that an update looks at; None for all.
        generator: Of all randomness.
    """
    space = landscape.space
    past, values = outcomes(landscape, trials)
    of_cost = torch.zeros(landscape.costs.shape[1]) if weights is None else weights
    members = landscape.sample[[space.has(landscape.architectures[i]) for i in landscape.sample.tolist()]]
    promise = landscape.mean[members] - landscape.costs[members] @ of_cost
    began = [members[promise.argsort(descending=True, stable=True)[:starts]]]
    if len(past):
        member = torch.tensor([space.has(trial.choice) for trial in trials])
        score = normal_scores(values) - landscape.costs[past] @ of_cost
        best = score.masked_fill(~member, -math.inf).argsort(descending=True, stable=True)[:starts]
        began.append(past[best[member[best]]])
    start = torch.tensor(list(dict.fromkeys(torch.cat(began).tolist())))  # in an order that does not hang on numbers
    if not len(start):  # all that was drawn has turned out not to keep to the limits
        return []
    b = 2 * len(start)
    with torch.no_grad():
        feedback = Feedback.of(landscape, past.expand(b, -1), values.expand(b, -1))
        *_, last = aon.walk(
            landscape,
            start.repeat(2),
            feedback=feedback,
            weights=of_cost.expand(b, -1),
            considered=considered,
            greedy=torch.arange(b) < len(start),
            generator=generator,
        )
    offers = last.log_probability.argsort(dim=1, descending=True, stable=True)
    found: dict[int, None] = {}
    for place in range(offers.shape[1]):
        at = offers[:, place : place + 1]
        likely = last.log_probability.gather(1, at)[:, 0]
        value = last.value.gather(1, at)[:, 0].masked_fill(likely.isinf(), -math.inf)
        for walk in value.argsort(descending=True, stable=True).tolist():
            if len(found) < n and math.isfinite(value[walk]):
                found[int(last.near[walk, at[walk, 0]])] = None
        if len(found) == n:
            break
    return [landscape.architectures[number] for number in found]


def outcomes(landscape: Landscape, trials: Sequence[Trial[Architecture]]) -> tuple[Tensor, Tensor]:
    """Numbers `(t,)` in the landscape, and values `(t,)` float64, of all trials.

    A failure counts as worse than all others, and what is pending as the one of which AEN expects most nearly as much.
    """
    past = landscape.numbers([trial.choice for trial in trials])
    values = torch.tensor([math.nan if trial.value is None else trial.value for trial in trials], dtype=torch.float64)
    ended = torch.tensor([i for i, trial in enumerate(trials) if not trial.pending], dtype=torch.int64)
    known = values[ended].isfinite()
    if not known.any():  # nothing but failures, if anything
        return past, torch.zeros_like(values)
    values = values.nan_to_num(nan=float(values[ended][known].min()) - 1)
    expected = landscape.mean[past]
    for i, trial in enumerate(trials):
        if trial.pending:
            values[i] = values[ended[(expected[ended] - expected[i]).abs().argmin()]]
    return past, values


class AONSearch(Proposer[Architecture, Space]):
    """Proposes what AON makes of the best so far, and nothing else: search without a surrogate of the task's own.

    Args:
        aon: Trained by `learn_to_improve`.
        prior: AENs of the same experience.
        costs: Finds the costs that are weighed.
        weights: `(c,)`, what a standard deviation of each cost takes off, in standard deviations of the outcome.
        starts: As of `improve`.
        considered: As of `improve`.

    Raises:
        ShapeError: Where the prior needs an embedding that the task does not have.
    """

    def __init__(
        self,
        aon: AON,
        prior: Prior,
        *,
        costs: Facts | None = None,
        weights: Tensor | None = None,
        starts: int = 3,
        considered: int | None = None,
    ) -> None:
        self.aon, self.prior, self.costs, self.weights = aon, prior, costs, weights
        self.starts, self.considered = starts, considered
        self._landscape: tuple[TaskDescription, Landscape] | None = None

    def landscape(self, task: TaskDescription, space: Space) -> Landscape:
        """What the prior makes of this task's architectures; of the latest task it is kept."""
        if self._landscape is None or self._landscape[0] is not task or self._landscape[1].space is not space:
            self._landscape = task, Landscape(self.prior, space, task=task.embedding, costs=self.costs)
        return self._landscape[1]

    def propose(
        self,
        task: TaskDescription,
        trials: Sequence[Trial[Architecture]],
        space: Space,
        *,
        n: int = 1,
        generator: Generator,
    ) -> list[Architecture]:
        """`n` that AON would try next, and random members where its walks find fewer."""
        landscape = self.landscape(task, space)
        found = improve(
            self.aon,
            landscape,
            trials,
            n,
            weights=self.weights,
            starts=self.starts,
            considered=self.considered,
            generator=generator,
        )
        return found + unseen(space, n - len(found), {*tried(trials), *found}, generator=generator)
