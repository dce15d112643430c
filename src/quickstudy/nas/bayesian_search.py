"""Bayesian optimisation over architectures, around what earlier tasks taught."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from quickstudy.experience.proposer import Proposer
from quickstudy.experience.trial import TaskDescription, Trial
from quickstudy.nas.aen import Prior
from quickstudy.nas.architecture import Architecture
from quickstudy.nas.baselines.candidates import candidates
from quickstudy.nas.space import Space
from quickstudy.surrogates.acquisition import propose
from quickstudy.surrogates.gaussian_process import GaussianProcess
from quickstudy.surrogates.guard import prior_weight


@dataclass(frozen=True)
class Known:
    """What is known of candidates before anything is tried."""

    place: dict[Architecture, int]
    features: Tensor  # (n, d)
    mean: Tensor | None  # (n,)
    std: Tensor | None  # (n,)


class BayesianSearch(Proposer[Architecture, Space]):
    r"""Expected improvement under a Gaussian process on AEN's features, around AEN's prediction.

    The first proposal is what the prior expects most of. From then on the process corrects the prior by what was
    found, and the prior's weight is the probability that it predicts better than a constant: where it mispredicts the
    first outcomes, the search goes on as if there were none.

    Args:
        prior: Learned from other tasks; None searches on one-hot codes around a constant.
        guarded: Whether the prior's weight may fall; else it is 1.
        feedback: Whether outcomes count; else architectures are proposed in the order of the prior.
        drawn: Candidates, where the space is too large to be listed.

    References:
        White et al., [BANANAS](https://arxiv.org/abs/1910.11858), 2021, for Bayesian optimisation with a neural
        predictor.
    """

    def __init__(
        self, prior: Prior | None = None, *, guarded: bool = True, feedback: bool = True, drawn: int = 2000
    ) -> None:
        self.prior, self.guarded, self.feedback, self.drawn = prior, guarded, feedback, drawn
        self._known: tuple[object, Known] | None = None

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
        known = self.known(task, space, generator)
        everything = list(known.place)
        open_ = torch.zeros(len(everything), dtype=torch.float64)
        open_[[known.place[trial.choice] for trial in trials if trial.choice in known.place]] = -torch.inf
        n = min(n, int(open_.isfinite().sum()))
        done = [(known.place[t.choice], t.value) for t in trials if t.value is not None and t.choice in known.place]
        if known.mean is not None and not (done and self.feedback):
            order = (known.mean + open_).argsort(descending=True, stable=True)[:n]
        elif not done:
            order = torch.randperm(len(everything), generator=generator)
            order = order[open_[order].isfinite()][:n]
        else:
            at, values = torch.tensor([i for i, _ in done]), torch.tensor([v for _, v in done], dtype=torch.float64)
            process = self.fit(known, at, values)
            order = propose(
                process.candidates(known.features, prior_mean=known.mean),
                n,
                best=float(values.max()),
                log_feasible=open_,
            )
        return [everything[i] for i in order.tolist()]

    def fit(self, known: Known, at: Tensor, values: Tensor) -> GaussianProcess:
        """The process given the values at some candidates."""
        weight = 1.0
        if known.mean is not None and known.std is not None and self.guarded:
            weight = prior_weight(known.mean[at], known.std[at], values)
        return GaussianProcess.fit(
            known.features[at],
            values,
            prior_mean=None if known.mean is None else known.mean[at],
            prior_weight=weight,
            reference=(known.features, known.mean),
        )

    def known(self, task: TaskDescription, space: Space, generator: Generator) -> Known:
        """Candidates, and what the prior makes of them; of a listed space, once."""
        everything, codes = candidates(space, n=self.drawn, generator=generator)
        if self._known is not None and self._known[0] is everything:
            return self._known[1]
        place = {architecture: i for i, architecture in enumerate(everything)}
        if self.prior is None:
            found = Known(place, codes.double(), None, None)
        else:
            with torch.no_grad():
                encoded = space.encode(everything)
                predicted = self.prior(encoded, task.embedding)
                features = self.prior.features(encoded).double()
            found = Known(place, features, predicted.mean.double(), predicted.stddev.double())
        self._known = (everything, found)
        return found
