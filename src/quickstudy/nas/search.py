"""Architecture search on a task: the best small network within limits and seconds, trained."""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Generator, Tensor, nn

from quickstudy.errors import OutcomeError, ShapeError
from quickstudy.experience.entries import Entry
from quickstudy.experience.parameters import Parameters, categorical
from quickstudy.experience.proposer import Proposer
from quickstudy.experience.record import Record
from quickstudy.experience.trial import TaskDescription
from quickstudy.nas.architecture import Architecture
from quickstudy.nas.bayesian_search import BayesianSearch
from quickstudy.nas.build import Cost, Limits, count
from quickstudy.nas.limited import Limited
from quickstudy.nas.pace import Latency, Pace
from quickstudy.nas.proxies import measure_latency
from quickstudy.nas.space import Space
from quickstudy.nas.tiny import Tiny
from quickstudy.nas.train import Schedule, answer
from quickstudy.nas.trainer import Outcome, Trainer, TrainingSet, Workers, workers
from quickstudy.tasks.episodes import to_float
from quickstudy.tasks.task import Task
from quickstudy.training.proportion import Share

ETA = 3
"""One in so many architectures goes on to the next rung, which has so many times the steps."""
RUNGS = 2
"""Rungs of a search; final training is one more."""
STEPS = 100
"""Of the first rung, give or take a factor of two as the budget asks."""
WISHED = 20
"""Architectures that the search should be able to try."""
FINALISTS = 2
"""Architectures that are trained to the end."""
SEARCHED, LATEST = 0.55, 0.7
"""The parts of the seconds after which no trial begins, and by which every trial has ended."""
MARGIN = 0.9
"""The part of a limit of latency that a network may take when it is tried: the clock is noisy."""
DRAWN = 32
"""Members from which the typical cost is learned."""
OBJECTIVE = "validation accuracy %"
ENDED = ("finished", "failed", "stopped")
RIGHT, LATENCY, AT = "right", "latency ms", "at"
"""Attributes of a trial: right answers and questions after each rung, milliseconds of a prediction, its end."""


@dataclass(frozen=True)
class Budget:
    """What a search may take.

    Raises:
        OutcomeError: Where it never ends, or is nothing.
    """

    seconds: float | None = 60.0
    """From the call to the trained network; None where `trials` says when to stop."""
    trials: int | None = None
    """Architectures that are tried at most."""
    workers: int = 1
    """Processes that train side by side, of one thread each."""
    steps: int | None = None
    """Of the shortest training; None lets the seconds decide."""

    def __post_init__(self) -> None:
        if self.seconds is None and self.trials is None:
            raise OutcomeError("a budget without seconds and without trials never ends. Give one of them.")
        for name, value in vars(self).items():
            if value is not None and not value > 0:
                raise OutcomeError(f"a budget with {name}={value} is none. Give more than 0.")


@dataclass(frozen=True)
class Tried:
    """An architecture that was tried."""

    architecture: Architecture
    cost: Cost
    accuracies: tuple[Share, ...]
    """On the validation set, after each rung that it reached; none where its training failed."""
    value: float | None
    """Per cent on the validation set, as it is expected after the last rung."""
    seconds: float
    """Of its trainings."""
    at: float
    """Seconds of searching until it ended, those before an interruption included."""
    latency: float
    """Milliseconds of one prediction on one thread of this machine, before training."""
    why: str | None = None
    """Of a failure."""


@dataclass(frozen=True)
class Progress:
    """Where a search is."""

    stage: str
    trials: int
    best: float | None
    """Validation accuracy, in per cent."""
    seconds: float
    budget: Budget


@dataclass(frozen=True)
class SearchResult:
    """A trained network, how good it is, and what else was tried."""

    space: Tiny
    architecture: Architecture
    network: nn.Sequential
    """In evaluation mode, `(n, *shape)` to logits `(n, classes)`. It standardises its inputs itself."""
    cost: Cost
    latency: float
    """Milliseconds of one prediction on one thread of this machine."""
    limits: Limits
    expected: Share
    """On the validation set, by which it was chosen."""
    test: Share | None
    """On the query set, by which nothing was chosen; None where there is none."""
    confusion: Tensor | None
    """Of the query set, `(classes, classes)`: rows are true, columns answers."""
    tried: tuple[Tried, ...]
    finalists: tuple[tuple[Architecture, Share], ...]
    """Those that were trained to the end, the chosen one first."""
    seconds: float
    settings: Mapping[str, str] = field(default_factory=dict)

    def front(self, cost: str = "parameters") -> list[tuple[Architecture, float, float]]:
        """Architecture, cost and accuracy of those that nothing beats in both, the cheapest first.

        Args:
            cost: `parameters`, `multiply_adds`, `peak_memory` or `latency`.
        """
        final = {architecture: share.percent for architecture, share in self.finalists}
        known = []
        for one in self.tried:
            price = one.latency if cost == "latency" else getattr(one.cost, cost)
            if one.value is not None:
                known.append((one.architecture, float(price), final.get(one.architecture, one.value)))
        found: list[tuple[Architecture, float, float]] = []
        for architecture, price, value in sorted(known, key=lambda item: (item[1], -item[2])):
            if not found or value > found[-1][2]:
                found.append((architecture, price, value))
        return found


def default_proposer() -> Proposer[Architecture, Space]:
    """Bayesian search."""
    return BayesianSearch(None, drawn=256)


def search(
    task: Task,
    *,
    budget: Budget = Budget(),
    limits: Limits = Limits(),  # noqa: B008
    proposer: Proposer[Architecture, Space] | None = None,
    storage: str | Path | None = None,
    name: str = "task",
    schedule: Schedule = Schedule(),  # noqa: B008
    seed: int = 0,
    on_progress: Callable[[Progress], None] | None = None,
) -> SearchResult:
    r"""Finds the best network for a task within limits, and trains it.

    Proposals are trained on three quarters of the support set and judged on the rest. Training is by successive
    halving: a short training for every proposal, and one of three times as many steps where its accuracy is among the
    best third so far, each with a complete schedule of its own. Those that stopped early count with what the others
    gained by going on. In the end the two best are trained for nine times as many steps; one of them is chosen on the
    validation set, and judged on the query set, which is looked at once.

    Args:
        task: A batch of one. Its support set is what is learned from, its query set what the result is tested on.
        budget: Seconds, trials, processes.
        limits: What the network may cost. No network that breaks one is trained.
        proposer: What to try; None is Bayesian search around the shipped prior.
        storage: Where trials are kept, a file of SQLite or a URL; a search that was interrupted goes on from there, and
            several may share it. None keeps them in memory.
        name: Of the task, in the storage.
        schedule: Batch and rates of each training; its steps follow from the budget.
        seed: Of all randomness. The clock decides how many trials there are: only searches by trials repeat exactly.
        on_progress: Is called when a trial has ended.

    Raises:
        NothingFitsError: Where no architecture keeps to the limits; the message says the smallest there is.
        TooFewExamplesError: Where a class has only one example.
        ShapeError: Where the task is not one of classification, or not a batch of one, or an input is not finite.
        OutcomeError: Where no training succeeded.
        StudyError: Where the storage cannot be used, or holds another task by this name.

    Example:
        >>> import torch
        >>> from quickstudy import Examples, Task
        >>> from quickstudy.nas.search import Budget, search
        >>> y = torch.arange(60) % 2
        >>> x = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0)) + y.view(-1, 1, 1, 1)
        >>> task = Task(Examples(x[None, :40], y[None, :40]), Examples(x[None, 40:], y[None, 40:]), n_way=2)
        >>> result = search(task, budget=Budget(seconds=None, trials=2, steps=20))
        >>> result.network(x).shape, result.test.n
        (torch.Size([60, 2]), 20)

    References:
        Li et al., [A System for Massively Parallel Hyperparameter Tuning](https://arxiv.org/abs/1810.05934), 2020. As
        in their asynchronous variant, a training that ends is compared with those that have ended; but one that was
        stopped is not taken up again.
    """
    start = time.perf_counter()
    space, data = open_task(task, seed)
    trainer, within, latency = Trainer(space, data), limits.within(space), None
    if limits.max_latency is not None:
        latency = Latency.probe(trainer, within, limit=MARGIN * limits.max_latency, seed=seed)
        within = latency.within(within, MARGIN * limits.max_latency)
    about = {"shape": list(space.shape), "classes": space.n_classes, "objective": OBJECTIVE, "examples": len(data.y)}
    described = TaskDescription(name)
    with (
        Record.open(storage, described, parameters_of(space), about=about, seed=seed) as record,
        workers(trainer, budget.workers) as pool,
    ):
        hunt = Hunt(
            trainer=trainer,
            within=within,
            proposer=default_proposer() if proposer is None else proposer,
            task=described,
            record=record,
            budget=budget,
            schedule=schedule,
            max_latency=limits.max_latency,
            seed=seed,
            start=start,
            on_progress=on_progress or (lambda progress: None),
        )
        hunt.run(pool)
        finalists = hunt.train_best(pool)
        tried = tuple(hunt.tried())
    architecture, outcome = finalists[0]
    network = trainer.network(architecture, seed=seed)
    network.load_state_dict(outcome.weights or {})
    network.eval()
    test, confusion = judge(network, task)
    return SearchResult(
        space,
        architecture,
        network,
        count(space, architecture),
        measure_latency(network, space.shape),
        limits,
        share(outcome),
        test,
        confusion,
        tried,
        tuple((each, share(done)) for each, done in finalists),
        time.perf_counter() - start,
        {"first rung": f"{hunt.steps} steps", "final training": f"{outcome.steps} steps", "seed": str(seed)},
    )


def open_task(task: Task, seed: int) -> tuple[Tiny, TrainingSet]:
    """The space of networks for a task, and its support set in two parts."""
    if len(task) != 1 or task.n_way is None:
        found = "of regression" if task.n_way is None else f"a batch of {len(task)}; take task[:1]"
        raise ShapeError(f"a search is for one task of classification, and this is {found}.")
    x, y = to_float(task.support.x[0]), task.support.y[0]
    if task.support.mask is not None:
        x, y = x[task.support.mask[0]], y[task.support.mask[0]]
    if not bool(x.isfinite().all()):
        raise ShapeError(
            "an input of the support set is not finite. Leave such examples out, or fill in what is missing."
        )
    return Tiny(shape=tuple(x.shape[1:]), n_classes=task.n_way), TrainingSet.of(x, y, n_classes=task.n_way, seed=seed)


def parameters_of(space: Space) -> Parameters[Architecture]:
    """How members of a space are written down in a study: one parameter a choice."""
    return categorical(
        space.id,
        space.digest,
        space.choices,
        encode=lambda architecture: architecture.values,
        decode=lambda values: Architecture(space.id, tuple((name, values[name]) for name in space.choices)),  # type: ignore[misc]
    )


def judge(network: nn.Module, task: Task) -> tuple[Share | None, Tensor | None]:
    """How a network does on the query set, and what it takes for what; None where there are no queries."""
    x, y = to_float(task.query.x[0]), task.query.y[0]
    if task.query.mask is not None:
        x, y = x[task.query.mask[0]], y[task.query.mask[0]]
    if not len(y) or task.n_way is None:
        return None, None
    answers = answer(network, x).argmax(1)
    confusion = torch.zeros(task.n_way, task.n_way, dtype=torch.int64)
    confusion.index_put_((y, answers), torch.ones_like(y), accumulate=True)
    return Share(int((answers == y).sum()), len(y)), confusion


def share(outcome: Outcome) -> Share:
    """The accuracy of a training that succeeded."""
    assert outcome.accuracy is not None
    return outcome.accuracy


@dataclass(frozen=True)
class Running:
    """A trial whose training is under way."""

    number: int
    architecture: Architecture
    latency: float
    accuracies: tuple[Share, ...] = ()
    seconds: float = 0.0


@dataclass
class Hunt:
    """A search that is under way."""

    trainer: Trainer
    within: Limited
    proposer: Proposer[Architecture, Space]
    task: TaskDescription
    record: Record[Architecture]
    budget: Budget
    schedule: Schedule
    max_latency: float | None
    seed: int
    start: float
    on_progress: Callable[[Progress], None]

    def __post_init__(self) -> None:
        self.pace = Pace.probe(self.trainer, self.within, self.schedule, seed=self.seed)
        self.steps = self.shortest()
        self.before = max((number(entry, AT) for entry in self.record.history()), default=0.0)

    def shortest(self) -> int:
        """Steps of the first rung: few enough that the search can try as many architectures as it should."""
        if self.budget.steps is not None or self.budget.seconds is None:
            return self.budget.steps or STEPS
        generator = Generator().manual_seed(self.seed)
        drawn = [self.within.sample(generator=generator) for _ in range(DRAWN)]
        step = statistics.fmean(self.pace.seconds(self.cost(one), 1) for one in drawn)
        seconds = SEARCHED * self.budget.seconds * self.budget.workers
        return max(STEPS // 2, min(2 * STEPS, int(seconds / (WISHED * RUNGS * step))))

    def cost(self, architecture: Architecture) -> Cost:
        """What a member costs."""
        return count(self.trainer.space, architecture)

    def left(self, part: float = 1.0) -> float:
        """Seconds of a part of the budget that are left."""
        if self.budget.seconds is None:
            return math.inf
        return self.start + part * self.budget.seconds - time.perf_counter()

    def tell(self, stage: str) -> None:
        """Says where the search is."""
        tried = self.tried()
        best = max((one.value for one in tried if one.value is not None), default=None)
        self.on_progress(Progress(stage, len(tried), best, time.perf_counter() - self.start, self.budget))

    def tried(self) -> list[Tried]:
        """All that has ended, in every process and before an interruption."""
        return [read(entry, self.cost(entry.choice)) for entry in self.record.history() if entry.state in ENDED]

    def run(self, pool: Workers) -> None:
        """Tries architectures until what the budget has for that is spent."""
        running: dict[Future[Outcome], Running] = {}
        while True:
            while len(running) < pool.n and (trial := self.begin()) is not None:
                running[self.submit(pool, trial)] = trial
            if not running:
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                trial = running.pop(future)
                later = self.go_on(trial, future.result())
                if later is not None:
                    running[self.submit(pool, later)] = later
            self.tell("searching")

    def begin(self) -> Running | None:
        """The next trial; None where the budget allows no other, or the space has none."""
        while self.left(SEARCHED) > 0:
            if self.budget.trials is not None and len(self.record.history()) >= self.budget.trials:
                return None
            ticket = self.record.next(self.proposer, self.task, self.within, allowed=self.within.has)
            if ticket is None:
                return None
            latency = self.trainer.latency(ticket.choice)
            if self.max_latency is None or latency <= MARGIN * self.max_latency:
                return Running(ticket.number, ticket.choice, latency)
            self.record.fail(
                ticket.number,
                f"a prediction takes {latency:.3g} ms, and the limit is {self.max_latency:g} ms, {1 - MARGIN:.0%} of "
                "which is kept for the clock's noise",
                attributes=self.known(latency),
            )
        return None

    def known(self, latency: float) -> dict[str, float]:
        """What is written down of a trial that ends now, whatever came of it."""
        return {LATENCY: latency, AT: self.before + time.perf_counter() - self.start}

    def submit(self, pool: Workers, trial: Running) -> "Future[Outcome]":
        """Begins the next training of a trial."""
        schedule = replace(self.schedule, steps=self.steps * ETA ** len(trial.accuracies))
        deadline = None if self.budget.seconds is None else self.start + LATEST * self.budget.seconds
        return pool.submit(trial.architecture, schedule, seed=self.seed + trial.number, deadline=deadline)

    def go_on(self, trial: Running, outcome: Outcome) -> Running | None:
        """Writes down a training, and ends the trial unless it is among the best third so far."""
        self.pace.add(self.cost(trial.architecture), outcome)
        known = self.known(trial.latency)
        if outcome.accuracy is None:
            self.record.fail(trial.number, outcome.why or "", attributes=known)
            return None
        trial = replace(
            trial, accuracies=(*trial.accuracies, outcome.accuracy), seconds=trial.seconds + outcome.seconds
        )
        rung = len(trial.accuracies)
        self.record.report(trial.number, rung, outcome.accuracy.percent)
        values = [entry.reports[rung] for entry in self.record.history() if rung in entry.reports]
        better = sum(value > outcome.accuracy.percent for value in values)
        takes = self.pace.seconds(self.cost(trial.architecture), self.steps * ETA**rung)
        if rung < RUNGS and better < max(1, len(values) // ETA) and takes < self.left(LATEST):
            return trial
        self.record.finish(
            trial.number,
            outcome.accuracy.percent + self.gain(rung),
            seconds=trial.seconds,
            attributes={RIGHT: [[each.right, each.n] for each in trial.accuracies], **known},
        )
        return None

    def gain(self, rung: int) -> float:
        """Points of accuracy that going on from a rung to the last one has brought on average."""
        reports = [entry.reports for entry in self.record.history()]
        gains = [each[RUNGS] - each[rung] for each in reports if RUNGS in each and rung in each]
        return statistics.fmean(gains) if gains else 0.0

    def train_best(self, pool: Workers) -> list[tuple[Architecture, Outcome]]:
        """The best ones, trained to the end, with their weights; the best by its validation accuracy first."""
        values = {entry.choice: entry.value for entry in self.record.history() if entry.value is not None}
        best = [a for a in sorted(values, key=lambda a: -(values[a] or 0)) if self.within.has(a)][:FINALISTS]
        if not best:
            raise OutcomeError(self.nothing())
        self.tell("training the best")
        futures = []
        for i, architecture in enumerate(best):
            each = self.left() / max(1, len(best) - i if pool.n == 1 else 1)
            deadline = None if self.budget.seconds is None else time.perf_counter() + each
            schedule = replace(self.schedule, steps=self.steps * ETA**RUNGS)
            futures.append(pool.submit(architecture, schedule, seed=self.seed, deadline=deadline, keep=True))
        trained = [(a, f.result()) for a, f in zip(best, futures) if f.result().accuracy is not None]
        if not trained:
            raise OutcomeError(self.nothing())
        return sorted(trained, key=lambda found: -share(found[1]).right)

    def nothing(self) -> str:
        """Why there is no result."""
        reasons = [entry.why for entry in self.record.history() if entry.why]
        why = f" The last one failed: {reasons[-1]}" if reasons else ""
        return f"no training succeeded in the time given. Give more seconds, or wider limits.{why}"


def read(entry: Entry[Architecture], cost: Cost) -> Tried:
    """A trial as the study holds it."""
    shares = tuple(Share(right, n) for right, n in entry.attributes.get(RIGHT, ()))  # type: ignore[attr-defined]
    at, latency = number(entry, AT), number(entry, LATENCY)
    return Tried(entry.choice, cost, shares, entry.value, entry.seconds, at, latency, entry.why)


def number(entry: Entry[Architecture], name: str) -> float:
    """An attribute of a trial, 0 where it was killed before it had one."""
    value = entry.attributes.get(name, 0.0)
    assert isinstance(value, int | float)
    return float(value)
