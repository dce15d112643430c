"""Bayesian optimisation with an ensemble of networks."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Generator, Tensor

from quickstudy.experience.proposer import Proposer
from quickstudy.experience.trial import TaskDescription, Trial
from quickstudy.nas.architecture import Architecture
from quickstudy.nas.baselines.candidates import around_the_best, tried, unseen, worth
from quickstudy.nas.source import scaled_ranks
from quickstudy.nas.space import Space


class Bananas(Proposer[Architecture, Space]):
    r"""Fits small networks to the trials, and proposes by Thompson sampling among mutations of the best.

    Each candidate has a draw of its own, $\hat y_i \sim N(\mu_i, \sigma_i^2)$, with the mean and the standard deviation
    of what the networks predict of it; the largest draws are proposed. Where we depart from the paper: codes are
    one-hot, values are replaced by their ranks, which need no scale, and all networks are fitted anew for each
    proposal, so that nothing is remembered.

    Args:
        initial: Random members at the start.
        networks: In the ensemble.
        width: Of their two hidden layers.
        steps: Of Adam, on all trials.
        lr: Of Adam.
        parents: The best trials, which are mutated.
        children: Mutations of each, and as many random members in all.

    References:
        White et al., [BANANAS](https://arxiv.org/abs/1910.11858), 2021.
    """

    def __init__(
        self,
        *,
        initial: int = 5,
        networks: int = 5,
        width: int = 32,
        steps: int = 60,
        lr: float = 0.01,
        parents: int = 10,
        children: int = 10,
    ) -> None:
        self.initial, self.parents, self.children = initial, parents, children
        self.networks, self.width, self.steps, self.lr = networks, width, steps, lr

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
        if len(trials) < self.initial:
            return unseen(space, n, tried(trials), generator=generator)
        found = around_the_best(
            space,
            trials,
            parents=self.parents,
            children=self.children,
            drawn=max(n, self.children),
            generator=generator,
        )
        if not found:
            return []
        values = scaled_ranks(torch.tensor([worth(trial) for trial in trials])).float()
        predicted = self.predict(
            space.one_hot([trial.choice for trial in trials]), values - 0.5, space.one_hot(found), generator
        )
        spread, mean = torch.std_mean(predicted, 0)
        draws = mean + spread * torch.randn(len(found), generator=generator)
        return [found[i] for i in draws.argsort(descending=True, stable=True)[:n].tolist()]

    def predict(self, x: Tensor, y: Tensor, candidates: Tensor, generator: Generator) -> Tensor:
        """What each network makes of the candidates, `(networks, candidates)`, when fitted to `x` (t, d), `y` (t,)."""
        sizes = [x.shape[1], self.width, self.width, 1]
        weights = [
            torch.randn(self.networks, i, o, generator=generator).mul_((2 / i) ** 0.5) for i, o in pairwise(sizes)
        ]
        biases = [torch.zeros(self.networks, 1, o) for o in sizes[1:]]
        parameters = [parameter.requires_grad_() for parameter in (*weights, *biases)]

        def forward(h: Tensor) -> Tensor:
            h = h.expand(self.networks, *h.shape)
            for layer, (weight, bias) in enumerate(zip(weights, biases)):
                h = torch.baddbmm(bias, h.relu() if layer else h, weight)
            return h.squeeze(2)

        with torch.enable_grad():
            optimiser = torch.optim.Adam(parameters, self.lr)
            for _ in range(self.steps):
                optimiser.zero_grad()
                (forward(x) - y).square().mean(1).sum().backward()
                optimiser.step()
        with torch.no_grad():
            return forward(candidates)
