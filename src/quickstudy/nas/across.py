"""One architecture for many tasks: the best on average, and the best on the worst of them."""

import csv
import io
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from torch import Generator, Tensor

from quickstudy.artefacts import write_atomically
from quickstudy.errors import DivergedError, ShapeError
from quickstudy.experience.proposer import Proposer
from quickstudy.experience.trial import TaskDescription
from quickstudy.learners.nearest_neighbour import NearestNeighbour
from quickstudy.nas.architecture import Architecture
from quickstudy.nas.build import Cost, Limits, count
from quickstudy.nas.hunt import RUNGS, SEARCHED, WISHED, Budget, Progress, Tried, hunt, nothing_succeeded, share
from quickstudy.nas.search import shipped_prior
from quickstudy.nas.search_prior import SearchPrior
from quickstudy.nas.space import Space
from quickstudy.nas.tiny import Tiny
from quickstudy.nas.train import Schedule, answer, train
from quickstudy.nas.trainer import Outcome, Trainer, real, untrained
from quickstudy.nas.workers import Workers, workers
from quickstudy.tasks.task import Task, TaskSource
from quickstudy.training.evaluate import Evaluation
from quickstudy.training.evaluate import judge as judge_learner
from quickstudy.training.proportion import Share

OBJECTIVE = "mean accuracy % over tasks"
HUNTED, COMPARED = 0.75, 0.75
"""The part of the seconds that is a search's budget, which ends all trials earlier, and the part after which nothing
more is compared: the rest is for the test."""
FEW, MANY = 2, 16
"""Tasks of the shortest training, at least and at most, where the seconds decide; four where they do not."""
DESCRIBED = 8
"""Tasks by which a prior knows their distribution."""
CANDIDATES = 4
"""Architectures that are compared."""
LEAST = 5
"""Tasks of a comparison at least, however few the seconds."""
WORST = 0.1
"""The part of the tasks that a worst decile is made of."""
RESAMPLED = 2000
"""Resamplings of the tasks for an interval."""
FURTHER, FRESH = 10**9, 2 * 10**9
"""From these numbers on, tasks are for comparing, and of the test classes."""
SPREAD = 0x9E3779B1
"""Between the tasks of one seed and those of the next; of a seed, torch's generator reads 32 bits."""
JSON, CSV = "across.json", "across.csv"


@dataclass(frozen=True)
class Numbered:
    """Tasks by number, the same whenever and wherever one asks."""

    source: TaskSource
    test: TaskSource
    """Where tasks from `FRESH` on come from."""
    seed: int

    def __getitem__(self, number: int) -> Task:
        """One task, as a batch of one.

        Raises:
            ShapeError: Where it is not one of classification.
        """
        generator = Generator().manual_seed((self.seed * SPREAD + number) % 2**32)
        found = (self.test if number >= FRESH else self.source).sample(1, generator=generator)
        if found.n_way is None:
            raise ShapeError("a search is for tasks of classification, and these are of regression.")
        return found


@dataclass(frozen=True)
class OnNumberedTask(Trainer):
    """Trains from scratch on the support set of a task, and judges on its queries; the seed is the task's number."""

    space: Tiny
    tasks: Numbered

    def __call__(
        self,
        architecture: Architecture,
        schedule: Schedule,
        *,
        seed: int,
        deadline: float | None = None,
        keep: bool = False,
    ) -> Outcome:
        """As every trainer; no weights are kept.

        Raises:
            ShapeError: Where the task has inputs of another shape, or other classes, than the first had.
        """
        task = self.tasks[seed]
        x, y = real(task.support)
        queries, wanted = real(task.query)
        if (shape := tuple(x.shape[1:])) != self.space.shape or task.n_way != self.space.n_classes:
            raise ShapeError(
                f"one architecture is for tasks of one kind: the first has {self.space.n_classes} classes of inputs "
                f"{self.space.shape}, another {task.n_way} of {shape}. Take a source with one way and one shape."
            )
        network = untrained(self.space, architecture, x, seed=seed)
        try:
            done = train(network, x, y, schedule, generator=Generator().manual_seed(seed), deadline=deadline)
        except DivergedError as error:
            return Outcome(None, 0.0, 0, str(error))
        right = int((answer(network, queries).argmax(1) == wanted).sum())
        return Outcome(Share(right, len(wanted)), done.seconds, done.steps)


@dataclass(frozen=True)
class OnManyTasks(Trainer):
    """Trains from scratch on each of several tasks, and pools the answers.

    The number of tasks follows from the schedule's steps: a task takes a fixed number of them, so that a longer
    training is one on more tasks. Every architecture has the same tasks and, on each, the same seed, so that what is
    compared differs in nothing else; longer trainings have tasks that the shorter ones had not.

    A task on which a training diverges has no right answer. The training has failed where all of them have.
    """

    space: Tiny
    tasks: Numbered
    steps: int
    """Of a task."""

    def __call__(
        self,
        architecture: Architecture,
        schedule: Schedule,
        *,
        seed: int,
        deadline: float | None = None,
        keep: bool = False,
    ) -> Outcome:
        """As every trainer, but that the seed changes nothing, and a deadline ends it between two tasks."""
        start, n, each = (
            time.perf_counter(),
            max(1, schedule.steps // self.steps),
            OnNumberedTask(self.space, self.tasks),
        )
        schedule = replace(schedule, steps=min(schedule.steps, self.steps))
        right = answers = steps = 0
        failures = list[str]()
        for i in range(n):
            now = time.perf_counter()
            if deadline is not None and i and now + (now - start) / i > deadline:
                break
            outcome = each(architecture, schedule, seed=n + i)
            steps += outcome.steps
            if outcome.accuracy is None:
                failures.append(outcome.why or "")
                answers += len(real(self.tasks[n + i].query)[1])
            else:
                right, answers = right + outcome.accuracy.right, answers + outcome.accuracy.n
        seconds = time.perf_counter() - start
        if not steps:
            return Outcome(None, seconds, 0, f"on each of {len(failures)} tasks: {failures[-1]}")
        return Outcome(Share(right, answers), seconds, steps)


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
    settings: dict[str, str | int] = field(default_factory=dict)


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
    schedule: Schedule = Schedule(steps=50),  # noqa: B008
    tasks: int = 100,
    seed: int = 0,
    on_progress: Callable[[Progress], None] | None = None,
) -> AcrossResult:
    """Finds the architectures that do best, trained from scratch on each, over a distribution of tasks.

    Proposals are tried on a few tasks, and those among the best third so far on three times as many others. Then the
    four best are compared on further tasks of the source. Two of them, which may be one, are tested on fresh tasks of
    the test source: the one with the best mean, and the one with the best mean over its worst tenth of tasks.

    Args:
        source: Tasks of classification with one number of classes and one shape.
        test: Tasks of classes that the source does not have; the source itself by default.
        budget: Seconds, trials, processes; its steps, if given, are those of the shortest training, over all its tasks.
        limits: What the architectures may cost.
        prior: As in `search`; what it knows a task by is the mean over eight tasks.
        proposer: As in `search`.
        storage: As in `search`.
        name: Of the source, in the storage.
        schedule: Of a training on one task.
        tasks: Tasks that are compared on, and tested on, at most; with few seconds there are fewer, but five.
        seed: Of all randomness, and of the tasks.
        on_progress: Is called when a trial, or a round of the comparison or the test, has ended.

    Raises:
        NothingFitsError: Where no architecture keeps to the limits.
        ShapeError: Where tasks are of regression, or differ in shape or number of classes.
        OutcomeError: Where no training succeeded.
        StudyError: Where the storage cannot be used, or holds another source by this name.

    Example:
        >>> import torch
        >>> from quickstudy import Budget, Episodes, LabelledSet
        >>> from quickstudy.nas.across import search_across
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
    each = OnNumberedTask(Tiny(shape=tuple(x.shape[1:]), n_classes=first.n_way), numbered)
    trainer = OnManyTasks(each.space, numbered, schedule.steps)
    steps = budget.steps or schedule.steps * first_tasks(trainer, limits, budget, schedule, seed)
    seconds = budget.seconds
    described = TaskDescription(name)
    if proposer is None:
        prior = prior or shipped_prior()
        described, proposer = describe(prior, numbered, name), prior.proposer()
    hunted = hunt(
        trainer,
        task=described,
        limits=limits,
        proposer=proposer,
        budget=replace(budget, steps=steps, seconds=None if seconds is None else HUNTED * seconds),
        schedule=schedule,
        storage=storage,
        about={"objective": OBJECTIVE, "examples": len(y), "steps a task": schedule.steps},
        seed=seed,
        start=start,
        on_progress=on_progress,
        to_the_end=False,
    )
    candidates = best(hunted.tried, limits)
    values = [one.value for one in hunted.tried if one.value is not None]

    def tell(stage: str) -> None:
        if on_progress is not None:
            on_progress(Progress(stage, len(hunted.tried), max(values), time.perf_counter() - start, budget))

    with workers(each, budget.workers) as pool:
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
        each.space,
        limits,
        next(one for one in compared if one.architecture == chosen[0]),
        next(one for one in compared if one.architecture == chosen[-1]),
        tuple(compared),
        nearest_neighbour(numbered, n),
        hunted.tried,
        time.perf_counter() - start,
        {
            "source": name,
            "classes a task": each.space.n_classes,
            "support examples a task": len(y),
            "steps a task": schedule.steps,
            "tasks of the first rung": max(1, hunted.steps // schedule.steps),
            "tasks compared on": compared[0].source.n,
            "tasks tested on": n,
            "seed": seed,
        },
    )


def describe(prior: SearchPrior, tasks: Numbered, name: str) -> TaskDescription:
    """A distribution of tasks as the prior knows it: by the mean of the embeddings of some."""
    found = [prior.describe(tasks[i], name).embedding for i in range(DESCRIBED)]
    known = [embedding for embedding in found if embedding is not None]
    return TaskDescription(name, torch.stack(known).mean(0) if known else None)


def first_tasks(trainer: OnManyTasks, limits: Limits, budget: Budget, schedule: Schedule, seed: int) -> int:
    """Tasks of the shortest training: few enough that the search can try as many architectures as it should."""
    if budget.steps is not None or budget.seconds is None:
        return 2 * FEW
    within, generator = limits.within(trainer.space), Generator().manual_seed(seed)
    drawn = [within.sample(generator=generator) for _ in range(7)]
    ordered = sorted(drawn, key=lambda architecture: count(trainer.space, architecture).multiply_adds)
    trainer(ordered[0], replace(schedule, steps=1), seed=seed)  # warms up
    seconds = trainer(ordered[len(ordered) // 2], schedule, seed=seed).seconds
    wanted = SEARCHED * HUNTED * budget.seconds * budget.workers / (WISHED * RUNGS * seconds)
    return max(FEW, min(MANY, int(wanted)))


def best(tried: Sequence[Tried], limits: Limits) -> list[Tried]:
    """The trials that are compared: the best by their values that keep to the limits.

    Raises:
        OutcomeError: Where there is none.
    """
    most = math.inf if limits.max_latency is None else limits.max_latency
    fitting = [one for one in tried if one.value is not None and limits.allows(one.cost) and one.latency <= most]
    if not fitting:
        raise nothing_succeeded([one.why for one in tried])
    ordered = sorted(fitting, key=lambda one: -(one.value or 0.0))
    return list({one.architecture: one for one in reversed(ordered)}.values())[::-1][:CANDIDATES]


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
        start, a_round = time.perf_counter(), math.ceil(self.pool.n / len(architectures))
        shares: list[list[float]] = [[] for _ in architectures]
        while (done := len(shares[0])) < self.tasks:
            now = time.perf_counter()
            if until is not None and done >= LEAST and now + (now - start) * a_round / done > until:
                break
            numbers = range(first + done, first + min(done + a_round, self.tasks))
            futures = [[self.pool.submit(a, self.schedule, seed=i) for i in numbers] for a in architectures]
            for found, of in zip(shares, futures):
                found += [percent(future.result()) for future in of]
            self.tell(stage)
        seconds = (time.perf_counter() - start) / len(architectures)
        return [Evaluation("accuracy %", torch.tensor(found, dtype=torch.float64), seconds) for found in shares]


def percent(outcome: Outcome) -> float:
    """The accuracy on a task, 0 where training diverged: it answers nothing."""
    return 0.0 if outcome.accuracy is None else share(outcome).percent


def nearest_neighbour(tasks: Numbered, n: int) -> Evaluation:
    """How well the most similar support example names a query, on the tasks of the test."""
    start, learner = time.perf_counter(), NearestNeighbour()
    with torch.no_grad():
        found = [judge_learner(learner, tasks[FRESH + i]).double() for i in range(n)]
    return Evaluation("accuracy %", torch.cat(found), time.perf_counter() - start)


def figures(one: Compared) -> dict[str, float | int | str | None]:
    """An architecture with its costs and what became of it, as plain values."""
    found: dict[str, float | int | str | None] = {"architecture": str(one.architecture), **asdict(one.cost)}
    found["latency ms"] = round(one.latency, 4)
    for place, of in (("source", one.source), ("test", one.test)):
        low, high = (None, None) if of is None else worst_interval(of.values)
        found |= {
            f"{place} tasks": None if of is None else of.n,
            f"{place} mean %": None if of is None else of.mean,
            f"{place} mean ci95": None if of is None else of.ci95,
            f"{place} worst decile %": None if of is None else worst(of.values),
            f"{place} worst decile low": low,
            f"{place} worst decile high": high,
        }
    return found


def save_across(folder: Path, result: AcrossResult) -> None:
    """Writes `across.json`, with the accuracy on each task, and `across.csv`, a row for each that was compared."""
    best_mean, best_worst = result.best_mean.architecture, result.best_worst.architecture
    rows = []
    for one in result.compared:
        chosen = [name for name, of in (("mean", best_mean), ("worst decile", best_worst)) if of == one.architecture]
        rows.append({"best": " and ".join(chosen), **figures(one)})
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    written = {
        "best mean": str(best_mean),
        "best worst decile": str(best_worst),
        "compared": [
            {
                **row,
                "source accuracies %": one.source.values.tolist(),
                "test accuracies %": None if one.test is None else one.test.values.tolist(),
            }
            for row, one in zip(rows, result.compared)
        ],
        "nearest neighbour": {
            "test mean %": result.neighbour.mean,
            "test mean ci95": result.neighbour.ci95,
            "test worst decile %": worst(result.neighbour.values),
        },
        "limits": asdict(result.limits),
        "settings": {**result.settings, "shape": list(result.space.shape)},
        "seconds": round(result.seconds, 1),
        "tried": [
            {"architecture": str(one.architecture), "accuracy %": one.value, "failure": one.why} for one in result.tried
        ],
    }
    write_atomically(folder / JSON, (json.dumps(written, indent=1, ensure_ascii=False) + "\n").encode())
    write_atomically(folder / CSV, text.getvalue().encode())
