"""One architecture for many tasks: the best on average, and the best on the worst of them."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from torch import Generator, Tensor

from quickstudy.experience.proposer import Proposer
from quickstudy.experience.trial import TaskDescription
from quickstudy.learners.nearest_neighbour import NearestNeighbour
from quickstudy.nas.architecture import Architecture
from quickstudy.nas.budget import Budget
from quickstudy.nas.build import Cost, Limits
from quickstudy.nas.hunt import hunt
from quickstudy.nas.many_tasks import FRESH, FURTHER, Numbered, OnManyTasks, OnNumberedTask
from quickstudy.nas.pace import madds
from quickstudy.nas.search import check_inputs, shipped_prior
from quickstudy.nas.search_prior import SearchPrior
from quickstudy.nas.space import Space
from quickstudy.nas.tiny import Tiny
from quickstudy.nas.train import Schedule
from quickstudy.nas.trainer import Outcome, real
from quickstudy.nas.tried import Progress, Tried
from quickstudy.nas.workers import Workers, workers
from quickstudy.tasks.task import TaskSource
from quickstudy.training.evaluate import Evaluation
from quickstudy.training.evaluate import judge as judge_learner

OBJECTIVE = "mean accuracy % over tasks"
COMPARED = 0.75
"""The part of the seconds after which nothing more is compared: the rest is for the test."""
FEW, MANY = 2, 16
"""Tasks of the shortest training, at least and at most, where the seconds decide; four where they do not."""
DESCRIBED = 8
"""Tasks by which a prior knows their distribution."""
STEPS = 50
"""Of a training on one task."""
CANDIDATES = 4
"""Architectures that are compared."""
LEAST = 5
"""Tasks of a comparison at least, however few the seconds."""
WORST = 0.1
"""The part of the tasks that a worst decile is made of."""
RESAMPLED = 2000
"""Resamplings of the tasks for an interval."""


@dataclass(frozen=True)
class Compared:
    """An architecture, and how it does on tasks that it was not found by."""

    architecture: Architecture
    cost: Cost
    latency: float
    """Milliseconds of one prediction on one thread of this machine."""
    source: Evaluation
    """On further tasks of the source, by which it was chosen or not."""
    test: Evaluation | None = None
    """On tasks of the test classes, by which nothing was chosen; None where it was not chosen."""


@dataclass(frozen=True)
class AcrossResult:
    """The architectures that serve many tasks best."""

    space: Tiny
    limits: Limits
    best_mean: Compared
    """The one with the best mean over tasks."""
    best_worst: Compared
    """The one with the best mean over its worst tenth of tasks; it may be the same."""
    compared: tuple[Compared, ...]
    """All that were, the best mean first."""
    neighbour: Evaluation
    """Nearest neighbour on the tasks of the test, which needs no network."""
    tried: tuple[Tried, ...]
    seconds: float
    settings: Mapping[str, str | int] = field(default_factory=dict)


def worst(values: Tensor, part: float = WORST) -> float:
    """The mean of the worst tenth of tasks, one at least.

    Args:
        values: `(tasks,)`.
        part: Of the tasks.

    Example:
        >>> import torch
        >>> from quickstudy.nas.across import worst
        >>> worst(torch.arange(30.0))
        1.0
    """
    return float(values.sort().values[: number_of_worst(len(values), part)].mean())


def number_of_worst(tasks: int, part: float = WORST) -> int:
    """How many tasks that are."""
    return max(1, math.ceil(part * tasks - 1e-9))


def worst_interval(values: Tensor, *, seed: int = 0) -> tuple[float, float]:
    """A 95 % interval of `worst`, by resampling the tasks with replacement.

    Of few tasks it is too narrow below: what is worse than the worst that was seen is in no resampling.

    References:
        Efron, [Bootstrap Methods](https://doi.org/10.1214/aos/1176344552), 1979.
    """
    n, generator = len(values), Generator().manual_seed(seed)
    drawn = values[torch.randint(n, (RESAMPLED, n), generator=generator)]  # (resampled, n)
    means = drawn.sort(1).values[:, : number_of_worst(n)].mean(1)
    low, high = means.quantile(torch.tensor([0.025, 0.975], dtype=means.dtype)).tolist()
    return low, high


def search_across(
    source: TaskSource,
    *,
    test: TaskSource | None = None,
    budget: Budget = Budget(),  # noqa: B008
    limits: Limits = Limits(),  # noqa: B008
    prior: SearchPrior | None = None,
    proposer: Proposer[Architecture, Space] | None = None,
    storage: str | Path | None = None,
    name: str = "tasks",
    schedule: Schedule | None = None,
    tasks: int = 100,
    seed: int = 0,
    on_progress: Callable[[Progress], None] | None = None,
) -> AcrossResult:
    """Finds the architectures that do best, trained from scratch on each, over a distribution of tasks.

    Proposals are tried on a few tasks, and those among the best third so far on three times as many others. Then the
    four with the best means are compared on further tasks of the source. Two of them, which may be one, are tested on
    fresh tasks of the test source: the one with the best mean, and the one with the best mean over its worst tenth of
    tasks.

    Args:
        source: Tasks of classification with one number of classes and one shape.
        test: Tasks of classes that the source does not have; the source itself by default.
        budget: Seconds, trials, processes; its steps, if given, are those of the shortest training, over all its tasks.
        limits: What the architectures may cost.
        prior: As in `search`; what it knows a task by is the mean over eight tasks.
        proposer: As in `search`.
        storage: As in `search`.
        name: Of the source, in the storage.
        schedule: Of a training on one task; None is `Schedule.for_inputs` with 50 steps, so that half of the
            inputs are moved, as by `search`.
        tasks: Tasks that are compared on, and tested on, at most; with few seconds there are fewer, but five.
        seed: Of all randomness, and of the tasks.
        on_progress: Is called when a trial, or a round of the comparison or the test, has ended.

    Raises:
        NothingFitsError: Where no architecture keeps to the limits.
        ShapeError: Where tasks are of regression, or differ in shape or number of classes.
        ArchitectureError: Where a proposer of your own gives what its space does not have.
        OutcomeError: Where no training succeeded, or where what is searched for cannot be sent to other processes.
        StudyError: Where the storage cannot be used, or holds another source by this name, or this one with another
            seed and so other tasks.

    Example:
        >>> import torch
        >>> from quickstudy import Budget, Episodes, LabelledSet, search_across
        >>> from quickstudy.nas.baselines.random_search import RandomSearch
        >>> from quickstudy.nas.train import Schedule
        >>> y = torch.arange(120) % 4
        >>> x = 0.3 * torch.rand(120, 1, 6, 6, generator=torch.Generator().manual_seed(0))
        >>> x[torch.arange(120), 0, y] += 1
        >>> source = Episodes(LabelledSet(x, y, ("ant", "bee", "cat", "dog")), n_way=2, n_shot=5, n_query=5)
        >>> few = Budget(seconds=None, trials=2, steps=10)
        >>> brief, proposer = Schedule(steps=5), RandomSearch()
        >>> found = search_across(source, budget=few, proposer=proposer, schedule=brief, tasks=10)
        >>> len(found.tried), found.best_mean.test.n
        (2, 10)
    """
    start = time.perf_counter()
    numbered = Numbered(source, source if test is None else test, seed)
    x, y = real((first := numbered[0]).support)
    assert first.n_way is not None
    check_inputs(x)
    each = OnNumberedTask(Tiny(shape=tuple(x.shape[1:]), n_classes=first.n_way), numbered)
    schedule = schedule or Schedule.for_inputs(each.space.shape, steps=STEPS)
    trainer = OnManyTasks(each.space, numbered, schedule.steps)
    seconds = budget.seconds
    steps = budget.steps or schedule.steps * first_tasks(trainer, limits, budget, schedule, seed)
    described = TaskDescription(name)
    if proposer is None:
        prior = prior or shipped_prior()
        described, proposer = describe(prior, numbered, name), prior.proposer()
    hunted = hunt(
        trainer,
        task=described,
        limits=limits,
        proposer=proposer,
        budget=replace(budget, steps=steps),
        schedule=schedule,
        storage=storage,
        about={
            "objective": OBJECTIVE,
            "examples": len(y),
            "steps a task": schedule.steps,
            "first task of a training": "its steps",
            "seed": seed,
            "digest of the tasks": numbered.digest,
        },
        seed=seed,
        start=start,
        on_progress=on_progress,
        best=CANDIDATES,
        to_the_end=False,
    )
    candidates = hunted.best

    def tell(stage: str) -> None:
        if on_progress is not None:
            on_progress(Progress.of(stage, hunted.tried, start=start, budget=budget))

    left = None if seconds is None else max(1.0, start + seconds - time.perf_counter())
    with workers(each, replace(budget, seconds=left).processes) as pool:
        comparison = Comparison(pool, schedule, tasks, tell)
        until = [None if seconds is None else start + part * seconds for part in (COMPARED, 1.0)]
        found = comparison.run("comparing", [one.architecture for one in candidates], FURTHER, until[0])
        compared = sorted(
            (Compared(one.architecture, one.cost, one.latency, of) for one, of in zip(candidates, found)),
            key=lambda one: -one.source.mean,
        )
        chosen = list(dict.fromkeys((compared[0].architecture, best_of_the_worst(compared).architecture)))
        tested = dict(zip(chosen, comparison.run("testing", chosen, FRESH, until[1])))
    compared = [replace(one, test=tested.get(one.architecture)) for one in compared]
    n = tested[chosen[0]].n
    return AcrossResult(
        space=each.space,
        limits=limits,
        best_mean=next(one for one in compared if one.architecture == chosen[0]),
        best_worst=next(one for one in compared if one.architecture == chosen[-1]),
        compared=tuple(compared),
        neighbour=nearest_neighbour(numbered, n),
        tried=hunted.tried,
        seconds=hunted.before + time.perf_counter() - start,
        settings={
            "source": name,
            "classes a task": each.space.n_classes,
            "support examples a task": len(y),
            "steps a task": schedule.steps,
            "inputs": schedule.inputs,
            "tasks of the first rung": max(1, hunted.steps // schedule.steps),
            "tasks compared on": compared[0].source.n,
            "tasks tested on": n,
            "seed": seed,
        },
    )


def describe(prior: SearchPrior, tasks: Numbered, name: str) -> TaskDescription:
    """A distribution of tasks as the prior knows it: by the mean of the embeddings of some."""
    found = [prior.describe(tasks[i], name) for i in range(DESCRIBED)]
    known = [each.embedding for each in found if each.embedding is not None]
    return TaskDescription(name, torch.stack(known).mean(0) if known else None, found[0].encoder)


def first_tasks(trainer: OnManyTasks, limits: Limits, budget: Budget, schedule: Schedule, seed: int) -> int:
    """Tasks of the shortest training: few enough that the search can try as many architectures as it should."""
    if budget.steps is not None or budget.seconds is None:
        return 2 * FEW
    within, generator = limits.within(trainer.space), Generator().manual_seed(seed)
    drawn = [within.sample(generator=generator) for _ in range(7)]
    ordered = sorted(drawn, key=lambda architecture: madds(trainer.space, architecture))
    trainer(ordered[0], replace(schedule, steps=1), seed=seed)  # warms up
    seconds = trainer(ordered[len(ordered) // 2], schedule, seed=seed).seconds
    return max(FEW, min(MANY, int(budget.first_training / seconds)))


def best_of_the_worst(compared: Sequence[Compared]) -> Compared:
    """The one with the best mean over its worst tenth of tasks; of two that are equal, the one with the better mean."""
    return max(compared, key=lambda one: (worst(one.source.values), one.source.mean))


@dataclass(frozen=True)
class Comparison:
    """Trains architectures on the same tasks."""

    pool: Workers
    schedule: Schedule
    tasks: int
    """At most."""
    tell: Callable[[str], None]

    def run(
        self, stage: str, architectures: Sequence[Architecture], first: int, until: float | None
    ) -> list[Evaluation]:
        """The accuracy of each on each task, which are the same for all, as many as can be had until then."""
        start = time.perf_counter()
        shares: list[list[float]] = [[] for _ in architectures]
        while (done := len(shares[0])) < self.tasks:
            now, a_round = time.perf_counter(), math.ceil(self.pool.n / len(architectures))
            if until is not None and done >= LEAST and now + (now - start) * a_round / done > until:
                break
            numbers = range(first + done, first + min(done + a_round, self.tasks))
            begin = [[partial(self.pool.submit, a, self.schedule, seed=i) for i in numbers] for a in architectures]
            futures = [[each() for each in of] for of in begin]
            for found, of, again in zip(shares, futures, begin):
                found += [percent(self.pool.result(*one)) for one in zip(of, again)]
            self.tell(stage)
        seconds = (time.perf_counter() - start) / len(architectures)
        return [Evaluation("accuracy %", torch.tensor(found, dtype=torch.float64), seconds) for found in shares]


def percent(outcome: Outcome) -> float:
    """The accuracy on a task, 0 where training diverged: it answers nothing."""
    return 0.0 if outcome.accuracy is None else outcome.accuracy.percent


def nearest_neighbour(tasks: Numbered, n: int) -> Evaluation:
    """How well the most similar support example names a query, on the tasks of the test."""
    start, learner = time.perf_counter(), NearestNeighbour()
    with torch.no_grad():
        found = [judge_learner(learner, tasks[FRESH + i]).double() for i in range(n)]
    return Evaluation("accuracy %", torch.cat(found), time.perf_counter() - start)
