"""Graph networks that learn from the target's own trials alone."""

from collections.abc import Sequence

import torch
from torch import Generator

from quickstudy.experience.proposer import Proposer
from quickstudy.experience.trial import TaskDescription, Trial
from quickstudy.nas.aen import Prior, learn
from quickstudy.nas.architecture import Architecture
from quickstudy.nas.baselines.candidates import around_the_best, tried, unseen
from quickstudy.nas.source import Rows
from quickstudy.nas.space import Space, draw


class GraphEnsemble(Proposer[Architecture, Space]):
    r"""Fits some AENs to the trials and proposes by Thompson sampling among mutations of the best: no transfer.

    It is BANANAS with graph networks in place of codes. They are fitted anew whenever the trials have grown by a
    fourth, to those that there were then, so that the fit depends on the trials alone.

    Args:
        initial: Random members at the start.
        networks: In the ensemble.
        epochs: Of each fit.
        parents: The best trials, which are mutated.
        children: Mutations of each, and ten times as many random members in all.

    References:
        Wen et al., [Neural Predictor for Neural Architecture Search](https://arxiv.org/abs/1912.00848), 2020.
    """

    def __init__(
        self, *, initial: int = 5, networks: int = 3, epochs: int = 60, parents: int = 10, children: int = 10
    ) -> None:
        self.initial, self.networks, self.epochs = initial, networks, epochs
        self.parents, self.children = parents, children
        self._fitted: tuple[tuple[Trial[Architecture], ...], Prior] | None = None

    def propose(
        self,
        task: TaskDescription,
        trials: Sequence[Trial[Architecture]],
        space: Space,
        *,
        n: int = 1,
        generator: Generator,
    ) -> list[Architecture]:
        """The `n` largest draws."""
        if sum(trial.value is not None for trial in trials[: self.initial]) < 2 or len(trials) < self.initial:
            return unseen(space, n, tried(trials), generator=generator)
        found = around_the_best(
            space,
            trials,
            parents=self.parents,
            children=self.children,
            drawn=max(n, 10 * self.children),
            generator=generator,
        )
        if not found:
            return []
        with torch.no_grad():
            said = self.fit(trials, space)(space.encode(found))
        draws = said.mean + said.stddev * torch.randn(len(found), generator=generator)
        return [found[i] for i in draws.argsort(descending=True, stable=True)[:n].tolist()]

    def fit(self, trials: Sequence[Trial[Architecture]], space: Space) -> Prior:
        """Networks fitted to the first so many trials."""
        many = self.initial
        while many * 5 // 4 + 1 <= len(trials):
            many = many * 5 // 4 + 1
        known = tuple(trials[:many])
        if self._fitted is None or self._fitted[0] != known:
            done = [trial for trial in known if trial.value is not None]
            values = torch.tensor([trial.value for trial in done], dtype=torch.float64)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(draw(2**31, Generator().manual_seed(many)))
                prior = Prior(space, members=self.networks)
                with torch.enable_grad():
                    learn(prior, {"trials": Rows(tuple(t.choice for t in done), values)}, epochs=self.epochs)
            self._fitted = known, prior
        return self._fitted[1]
