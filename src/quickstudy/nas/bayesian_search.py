"""Bayesian optimisation over architectures, around what earlier tasks taught."""

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from quickstudy.experience.proposer import Proposer
from quickstudy.experience.trial import TaskDescription, Trial
from quickstudy.nas.aen import Prior
from quickstudy.nas.architecture import Architecture
from quickstudy.nas.baselines.candidates import candidates, worth
from quickstudy.nas.known import Known
from quickstudy.nas.space import Space
from quickstudy.surrogates.acquisition import propose
from quickstudy.surrogates.gaussian_process import GaussianProcess
from quickstudy.surrogates.guard import prior_weight
from quickstudy.surrogates.scores import NormalScores

REFERENCE = 2000
"""Members, drawn once, by which features and predictions are standardised."""
NEAR = 5
"""The best trials, whose neighbours are candidates."""
IMPROVED = 20
"""Candidates that are asked of `improve`."""
LUCK = 0.75
"""Share of what the process does not explain of a value that is taken for luck; the rest is the member's own."""


class BayesianSearch(Proposer[Architecture, Space]):
    r"""Expected improvement under a Gaussian process on AEN's features, around AEN's prediction.

    The first proposal is what the prior expects most of. From then on the process corrects the prior by what was
    found, and the prior's weight is the probability that it predicts better than a constant, beginning with its trust:
    where it mispredicts the first outcomes, its prediction soon counts for nothing. The features, and half of the
    candidates, remain the prior's.

    In the expected improvement the process's standard deviation is taken times `exploration`: where outcomes are few
    and noisy, the textbook's spends them on what is unknown rather than on what is good.

    What is pending is believed to do as expected, so that the next proposal looks elsewhere.

    A proposal is the best of a shortlist of members that were not tried: those of which the prior expects most and as
    many at random, half of `drawn` each (without a prior, all at random); the neighbours of the five best trials; and
    what `improve` offers.

    A single outcome is noisy, and the best of many was lucky as well as good. So the `incumbent` is the trial that is
    best when three quarters of what the process does not explain are taken for luck.

    Args:
        prior: Learned from other tasks; None searches on one-hot codes around a constant.
        guarded: Whether the prior's weight may fall; else it is 1.
        feedback: Whether outcomes count; else architectures are proposed in the order of the prior.
        exploration: Of standard deviations in the expected improvement; 1 is the textbook's.
        drawn: Candidates of each proposal, besides neighbours.
        improve: Offers more of them, as `AONSearch` does.
        portfolio: What was good on earlier tasks, of this space or another one with its choices. What the space has of
            it, and the neighbours of the five, drawn ones among them, that the prior expects most of, are candidates
            like those that are drawn: all of them of the first proposal, and of later ones the best by the prior.

    References:
        White et al., [BANANAS](https://arxiv.org/abs/1910.11858), 2021, for Bayesian optimisation with a neural
        predictor.
    """

    def __init__(
        self,
        prior: Prior | None = None,
        *,
        guarded: bool = True,
        feedback: bool = True,
        exploration: float = 0.3,
        drawn: int = 2000,
        improve: Proposer[Architecture, Space] | None = None,
        portfolio: Sequence[Architecture] = (),
    ) -> None:
        self.prior, self.guarded, self.feedback, self.exploration = prior, guarded, feedback, exploration
        self.drawn, self.improve, self.portfolio = drawn, improve, tuple(portfolio)
        self._pool: tuple[Known, Tensor, Tensor] | None = None

    def propose(
        self,
        task: TaskDescription,
        trials: Sequence[Trial[Architecture]],
        space: Space,
        *,
        n: int = 1,
        generator: Generator,
    ) -> list[Architecture]:
        """`n` that promise most, each taking for granted that those before it do as expected."""
        known, pool, _ = self.pool(task, space)
        at, values = outcomes(known, trials)
        seen = known.numbers([trial.choice for trial in trials])
        left = pool[~torch.isin(pool, seen)]
        trusted = known.mean is not None and not (len(at) and self.feedback)
        if not len(at) or trusted:
            order = torch.randperm(len(left), generator=generator)
            if known.mean is not None:
                order = known.mean[left].argsort(descending=True, stable=True)
            return [known.architectures[i] for i in left[order[:n]].tolist()]
        chosen = self.shortlist(known, left, task, trials, space, n, generator)
        process = self.fit(known, at, values)
        within = [trial.value for trial in trials if trial.value is not None and space.has(trial.choice)]
        pending = known.numbers([trial.choice for trial in trials if trial.pending])
        both = torch.cat([pending, chosen])
        offered = process.candidates(known.features[both], prior_mean=None if known.mean is None else known.mean[both])
        believed = offered.moments()[0][: len(pending)].tolist()
        for i in range(len(pending)):
            offered = offered.believe(i)
        free = torch.zeros(len(both)).index_fill(0, torch.arange(len(pending)), -math.inf)
        found = propose(
            offered,
            n,
            best=max([*within, *believed], default=float(values.min())),
            log_feasible=free,
            exploration=self.exploration,
        )
        return [known.architectures[i] for i in both[found].tolist()]

    def shortlist(
        self,
        known: Known,
        left: Tensor,
        task: TaskDescription,
        trials: Sequence[Trial[Architecture]],
        space: Space,
        n: int,
        generator: Generator,
    ) -> Tensor:
        """The candidates' numbers, by what they choose."""
        half = self.drawn // 2 if known.mean is not None else 0
        found = [left[torch.randperm(len(left), generator=generator)[: self.drawn - half]]]
        if known.mean is not None:
            found.append(left[known.mean[left].topk(min(half, len(left))).indices])
        best = sorted((trial for trial in trials if space.has(trial.choice)), key=worth, reverse=True)[:NEAR]
        near = [other for trial in best for other in space.neighbours(trial.choice)]
        if self.improve is not None:
            near += self.improve.propose(task, trials, space, n=max(n, IMPROVED), generator=generator)
        found.append(known.numbers(near))
        chosen = torch.cat(found).unique()
        chosen = chosen[~torch.isin(chosen, known.numbers([trial.choice for trial in trials]))]
        # in an order that does not hang on what was asked before: of two that promise the same, the first is tried
        ordered = sorted(chosen.tolist(), key=lambda i: known.architectures[i].choices)
        return torch.tensor(ordered, dtype=torch.int64)

    def incumbent(
        self, task: TaskDescription, trials: Sequence[Trial[Architecture]], space: Space
    ) -> Trial[Architecture] | None:
        """The trial whose value, less most of its luck, is best."""
        known, _, _ = self.pool(task, space)
        at, values = outcomes(known, trials)
        if not self.feedback or len(at) < 3:
            return super().incumbent(task, trials, space)
        mean = None if known.mean is None else known.mean[at]
        expected, _ = self.fit(known, at, values).posterior(known.features[at], prior_mean=mean)
        worth_of = (LUCK * expected + (1 - LUCK) * values).tolist()
        succeeded = [trial for trial in trials if trial.value is not None]
        return succeeded[max(range(len(at)), key=lambda i: (worth_of[i], float(values[i])))]

    def fit(self, known: Known, at: Tensor, values: Tensor, *, ranks: bool = False) -> GaussianProcess:
        """The process given the values of some architectures, or their ranks."""
        assert self._pool is not None
        reference, weight = self._pool[2], 1.0
        if self.prior is not None and known.mean is not None and known.std is not None and self.guarded:
            scored = NormalScores.of(values.double())(values.double()) if ranks else values
            weight = prior_weight(known.mean[at], known.std[at], scored, initial=float(self.prior.trust))
        return GaussianProcess.fit(
            known.features[at],
            values,
            prior_mean=None if known.mean is None else known.mean[at],
            prior_weight=weight,
            reference=(known.features[reference], None if known.mean is None else known.mean[reference]),
            ranks=ranks,
        )

    def pool(self, task: TaskDescription, space: Space) -> tuple[Known, Tensor, Tensor]:
        """What is known, and the numbers of what is always among the candidates and of what sets the scale.

        All members of a listed space, and of another one as many as are drawn, always the same, with what it has of the
        portfolio and, where there is some, the neighbours of the best of them all.
        """
        if self._pool is not None:
            known = self._pool[0]
            same = known.task is task.embedding or (
                known.task is not None and task.embedding is not None and torch.equal(known.task, task.embedding)
            )
            if known.space is space and same:
                return self._pool
        drawer = Generator().manual_seed(0)
        known = Known(space, self.prior, task.embedding)
        drawn, _ = candidates(space, n=self.drawn, generator=drawer)
        named = (Architecture(space.id, architecture.choices) for architecture in self.portfolio)
        earlier = [architecture for architecture in named if space.has(architecture)]
        both = known.numbers([*drawn, *earlier])  # at once, which is faster than one after the other
        reference = both[: len(drawn)][torch.randperm(len(drawn), generator=drawer)[:REFERENCE]]
        members: Tensor = both.unique()
        if earlier and known.mean is not None:
            best = members[known.mean[members].topk(min(NEAR, len(members))).indices]
            near = [other for i in best.tolist() for other in known.space.neighbours(known.architectures[i])]
            members = torch.cat([members, known.numbers(near)]).unique()
        self._pool = known, members, reference
        return self._pool


def outcomes(known: Known, trials: Sequence[Trial[Architecture]]) -> tuple[Tensor, Tensor]:
    """Numbers `(t,)` and values `(t,)` float64 of the trials that succeeded."""
    done = [(trial.choice, trial.value) for trial in trials if trial.value is not None]
    return known.numbers([choice for choice, _ in done]), torch.tensor([v for _, v in done], dtype=torch.float64)
