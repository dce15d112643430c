"""How far AENs err on a task that is new to them, found by leaving tasks out."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Generator
from torch.distributions import Normal

from quickstudy.nas.aen import Prior, expected, learn
from quickstudy.nas.source import Rows, normal_scores, parted
from quickstudy.nas.space import draw
from quickstudy.surrogates.guard import prior_weight

COVERED, QUANTILE = 0.9, 1.6449
"""The share of outcomes that is to lie within so many standard deviations."""
HEEDED = (0.0, 0.25, 0.5, 0.75, 1.0)
"""How far embeddings may be heeded."""
SHOWN, DRAWS = 10, 20
"""Outcomes of a task on which a prior is judged, and how often they are drawn."""


@dataclass(frozen=True)
class Stranger:
    """A prior of some tasks, and the tasks that it has not seen."""

    prior: Prior
    unseen: tuple[str, ...]


def strangers(
    prior: Prior,
    experience: Mapping[str, Rows],
    *,
    folds: int = 3,
    epochs: int | None = None,
    jitter: float = 0.0,
    generator: Generator,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Stranger]:
    """Priors of the same kind, of two AENs, each of which has learned from all parts of the experience but one.

    Args:
        prior: Whose sizes they have.
        experience: Of two data sets or more; of one there is nothing to leave out, and no stranger.
        folds: Parts at most; tasks of one data set are in the same part.
        epochs: As of `learn`.
        jitter: As of `learn`.
        generator: Of all randomness.
        on_progress: Called after each epoch with those done and all, over all parts.
    """
    parts = parted({name: rows.data or f"task {name}" for name, rows in experience.items()}, max(1, folds))
    found = list[Stranger]()
    if len(parts) < 2:
        return found
    for i, unseen in enumerate(parts):
        seen = {name: rows for name, rows in experience.items() if name not in unseen}

        def say(done: int, total: int, i: int = i) -> None:
            if on_progress is not None:
                on_progress(i * total + done, len(parts) * total)

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(draw(2**31, generator))
            other = learn(like(prior), seen, epochs=epochs, jitter=jitter, generator=generator, on_progress=say)
        found.append(Stranger(other, unseen))
    return found


def like(prior: Prior) -> Prior:
    """Another of the same sizes, but of two AENs."""
    one = next(prior.each())
    return Prior(
        prior.space,
        members=2,
        facts=prior.facts,
        task=one.task,
        proxies=one.proxies,
        width=one.graph.width,
        depth=len(one.graph.convolutions),
        dropout=one.dropout,
    )


def calibrate(
    prior: Prior, experience: Mapping[str, Rows], others: Sequence[Stranger], *, generator: Generator
) -> Prior:
    r"""Sets how far a prior heeds embeddings, how wide its predictions are, and how far it is trusted at first.

    That is done in place, and the prior returned. What strangers predict of tasks that they have not seen is compared
    with what became of them. The embedding $e$ of a task is taken for $\bar e + h (e - \bar e)$, where $\bar e$ is the
    mean over the tasks that were learned from and $h$ that of five parts, from none to all, with which the strangers'
    squared errors are smallest, on the mean over tasks. Strangers are told so too. The prior's standard deviations are
    taken times the factor at which 90 % of the strangers' intervals of 90 % hold,

    $$k = \frac{q_{0.9}\left(|y - \mu| / \sigma\right)}{1.645}$$

    every task counting as much as every other. And its trust, with which the guard of a search begins, is the mean
    probability that strangers predict ten outcomes of a task better than a constant does, as of two tasks more that
    say nothing:

    $$\pi = \frac{1 + \sum_t w_t}{2 + T}$$

    Args:
        prior: Learned from the experience.
        experience: Outcomes by task.
        others: As `strangers` gives them; with none, the prior stays as it is.
        generator: Of the outcomes on which trust is judged.
    """
    if others and prior.usual.numel():
        choose_heed(prior, experience, others)
    errors, weights, trusts = list[torch.Tensor](), list[torch.Tensor](), list[tuple[torch.Tensor, ...]]()
    for other in others:
        for name in other.unseen:
            said, scores = predicted(other, experience[name])
            errors.append((scores - said.mean).abs() / said.stddev)
            weights.append(torch.full_like(scores, 1 / len(scores)))
            trusts.append((said.mean, said.stddev, scores))
    if not errors:
        return prior
    factor = quantile(torch.cat(errors), torch.cat(weights), COVERED) / QUANTILE
    prior.inflation.fill_(factor)
    trusted = [trust(mean, factor * std, scores, generator) for mean, std, scores in trusts]
    prior.trust.fill_((1 + math.fsum(trusted)) / (2 + len(trusted)))
    return prior


def choose_heed(prior: Prior, experience: Mapping[str, Rows], others: Sequence[Stranger]) -> None:
    """Sets how far embeddings are heeded, of a prior and of strangers."""
    errors = list[float]()
    for part in HEEDED:
        for other in others:
            other.prior.heed.fill_(part)
        found = [predicted(other, experience[name]) for other in others for name in other.unseen]
        errors.append(math.fsum(float((scores - said.mean).square().mean()) for said, scores in found))
    best = HEEDED[errors.index(min(errors))]
    for one in (prior, *(other.prior for other in others)):
        one.heed.fill_(best)


def predicted(other: Stranger, rows: Rows) -> tuple[Normal, torch.Tensor]:
    """What a stranger says of the architectures of a task, and the scores that they had."""
    said = expected(other.prior, rows.architectures, rows.task, space=rows.space, proxies=rows.proxies)
    return said, normal_scores(rows.values)


def quantile(values: torch.Tensor, weights: torch.Tensor, share: float) -> float:
    """The least value up to which values have that share of all weight."""
    order = values.argsort()
    reached = weights[order].cumsum(0) / weights.sum()
    return float(values[order][int((reached < share - 1e-6).sum())])


def trust(mean: torch.Tensor, std: torch.Tensor, values: torch.Tensor, generator: Generator) -> float:
    """How probable it is that predictions are better than a constant, by some outcomes at a time, on the average."""
    total = 0.0
    for _ in range(DRAWS):
        some = torch.randperm(len(values), generator=generator)[:SHOWN]
        total += prior_weight(mean[some], std[some], values[some])
    return total / DRAWS
