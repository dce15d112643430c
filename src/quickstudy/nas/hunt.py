"""A search under way: proposals, short trainings, longer ones for the best, and the record of it all."""

import hashlib
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from torch import Generator

from quickstudy.errors import ArchitectureError, OutcomeError
from quickstudy.experience.entries import Entry, counted
from quickstudy.experience.proposer import Proposer
from quickstudy.experience.record import Record
from quickstudy.experience.trial import TaskDescription
from quickstudy.nas.architecture import Architecture
from quickstudy.nas.budget import BEGUN, ETA, FURTHER, LATEST, RUNGS, SEARCHED, Budget
from quickstudy.nas.build import Cost, Limits, count
from quickstudy.nas.latency import Latency, QuickEnough
from quickstudy.nas.limited import Limited
from quickstudy.nas.pace import Pace
from quickstudy.nas.parameters import parameters_of
from quickstudy.nas.space import Space
from quickstudy.nas.train import SHARE, Schedule
from quickstudy.nas.trainer import Outcome, Trainer
from quickstudy.nas.tried import AT, LATENCY, RIGHT, WHY, Progress, Tried, number, read
from quickstudy.nas.workers import Workers, workers
from quickstudy.training.proportion import Share

STEPS, FEWEST, MOST = 100, 50, 1000
"""Of the first rung, where there is no clock, and at least and at most where there is one."""
FINALISTS = 2
"""Architectures that are trained to the end."""
SMALLEST = 0.5
"""Points that are added to errors whose ratio is taken."""
LONGER = 0.1
"""Seconds of measuring the latency of what may be trained to the end."""
CUT = "no time left: give the search more seconds"
"""Why a training that was not complete has failed."""
PROBED = 0.05
"""The part of the seconds in which the pace is found."""
DRAWN = 32
"""Members from which the typical cost is learned."""
ENDED = ("finished", "failed", "stopped")
FIRST_RUNG = "steps of the first rung"
"""The attribute of a study."""


@dataclass(frozen=True)
class Hunted:
    """What a search led to."""

    best: tuple[Tried, ...]
    """Some that succeeded and keep to the limits, the best by their values first."""
    finalists: tuple[tuple[Architecture, Outcome], ...]
    """What was trained to the end, the best by its validation accuracy first."""
    tried: tuple[Tried, ...]
    too_slow: int
    """Networks that were measured, and not trained, for a prediction takes longer than the limit."""
    before: float
    """Seconds of searching before an interruption."""
    ended: float
    """Seconds of searching, those included, until the last training had ended."""
    steps: int
    """Of the shortest training."""


def hunt(
    trainer: Trainer,
    *,
    task: TaskDescription,
    limits: Limits,
    proposer: Proposer[Architecture, Space],
    budget: Budget,
    schedule: Schedule,
    storage: str | Path | None,
    about: Mapping[str, object],
    seed: int,
    start: float,
    on_progress: Callable[[Progress], None] | None,
    keep: bool = False,
    best: int = FINALISTS,
    to_the_end: bool = True,
) -> Hunted:
    """Searches with a trainer, and trains the best to the end, unless that is left to others.

    Arguments are those of `search`; `about` is that of `open_study`, and `start` is when the budget began. `best` says
    how many are chosen in the end.
    """
    space, latency = trainer.space, Latency(trainer, limits.max_latency)
    within = latency.within(limits.within(space), seed=seed)
    each = {name: value for name, value in asdict(schedule).items() if name != "steps"}
    about = {"shape": list(space.shape), "classes": space.n_classes, "schedule": each, **about}
    with (
        Record.open(storage, task, parameters_of(space), about=about, seed=seed) as record,
        workers(trainer, budget.processes) as pool,
    ):
        found = Hunt(
            trainer=trainer,
            latency=latency,
            within=within,
            proposer=proposer,
            task=task,
            record=record,
            budget=budget,
            limits=limits,
            schedule=schedule,
            seed=seed,
            start=start,
            on_progress=on_progress or (lambda progress: None),
        )
        found.run(pool)
        chosen = found.finalists(best)
        finalists = found.end_on(chosen, pool, keep=keep) if to_the_end else []
        tried, slow = tuple(found.tried()), len(latency.too_slow)
        ended = found.before + time.perf_counter() - start
        return Hunted(tuple(chosen), tuple(finalists), tried, slow, found.before, ended, found.steps)


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
    latency: Latency
    within: Limited
    proposer: Proposer[Architecture, Space]
    task: TaskDescription
    record: Record[Architecture]
    budget: Budget
    limits: Limits
    schedule: Schedule
    seed: int
    start: float
    on_progress: Callable[[Progress], None]

    def __post_init__(self) -> None:
        self.succeeded = any(entry.state == "finished" for entry in self.fitting())
        """Whether there is something to end on: the first training may take all the seconds."""
        self.spoilt = dict[Architecture, str]()
        """Why last trainings failed."""
        self.pace = Pace()
        if self.budget.seconds is not None:
            seconds = PROBED * self.left()
            self.pace = Pace.probe(self.trainer, self.within, self.schedule, seed=self.seed, seconds=seconds)
        self.steps = self.shortest()
        self.steps = self.settled()
        self.before = max((number(entry, AT) for entry in self.record.history()), default=0.0)
        if self.limits.max_latency is not None:
            self.proposer = QuickEnough(self.proposer, self.latency, until=self.is_too_late)

    def settled(self) -> int:
        """Steps of the first rung: those of the study, once it has any, for trainings of one length are compared."""
        found = self.record.settle(FIRST_RUNG, self.steps)
        assert isinstance(found, int)
        return found

    def shortest(self) -> int:
        """Steps of the first rung: as many as the budget's seconds allow."""
        if self.budget.steps is not None or self.budget.seconds is None:
            return self.budget.steps or STEPS
        generator = Generator().manual_seed(self.seed)
        drawn = [self.within.sample(generator=generator) for _ in range(DRAWN)]
        step = statistics.fmean(self.pace.seconds(self.cost(one), 1) for one in drawn)
        if not step:  # the first few steps diverged: what follows will say so
            return STEPS
        return max(FEWEST, min(MOST, int(self.budget.first_training / step)))

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
        self.on_progress(Progress.of(stage, self.tried(), start=self.start, budget=self.budget))

    def counted(self) -> list[Entry[Architecture]]:
        """The trials of every process, those before an interruption too, without what was interrupted."""
        return counted(self.record.history())

    def fitting(self) -> list[Entry[Architecture]]:
        """Those of them that keep to the limits, which may be others than they were tried under."""
        return [entry for entry in self.counted() if self.fits(entry)]

    def fits(self, entry: Entry[Architecture]) -> bool:
        """Whether a trial keeps to the limits."""
        most = self.limits.max_latency
        quick = most is None or number(entry, LATENCY) <= most
        return quick and self.limits.allows(self.cost(entry.choice))

    def tried(self) -> list[Tried]:
        """All that has ended, in every process and before an interruption; what failed in the end has failed."""
        ended = [entry for entry in self.counted() if entry.state in ENDED]
        found = [read(entry, self.cost(entry.choice), fits=self.fits(entry)) for entry in ended]
        for i, one in enumerate(found):
            if one.architecture in self.spoilt:
                found[i] = replace(one, value=None, why=self.spoilt[one.architecture])
        return found

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
                try:
                    outcome = future.result()
                except BrokenProcessPool:  # one was killed, and none of them says of which training
                    pool.lose()
                    self.record.interrupt(trial.number)
                    continue
                later = self.go_on(trial, outcome)
                if later is not None:
                    running[self.submit(pool, later)] = later
            self.tell("searching")

    def begin(self) -> Running | None:
        """The next trial; None where the budget allows no other, or the space has none."""
        self.steps = self.settled()  # of two processes that made the study together, the later has the say
        if self.is_over():
            return None
        most = self.budget.trials
        ticket = self.record.next(self.proposer, self.task, self.within, most=most, allowed=self.may_be_tried)
        if ticket is None:
            return None
        if not (self.trainer.space.has(ticket.choice) and self.limits.allows(self.cost(ticket.choice))):
            self.record.interrupt(ticket.number)
            raise ArchitectureError(
                f"the proposer gave {ticket.choice}, which is no member of {self.trainer.space.id} within the limits, "
                f"{self.limits}. It is to propose what the space that it is given has: see `space.has`."
            )
        return Running(ticket.number, ticket.choice, self.latency(ticket.choice))

    def is_over(self) -> bool:
        """Whether no other trial begins."""
        return self.left(SEARCHED if self.succeeded else BEGUN) <= 0

    def is_too_late(self) -> bool:
        """Whether no other proposal is worth measuring."""
        return self.left(LATEST if self.succeeded else BEGUN) <= 0

    def may_be_tried(self, architecture: Architecture) -> bool:
        """Whether a member keeps to all limits, by measurement."""
        return self.within.has(architecture) and self.latency.quick(self.latency(architecture))

    def known(self, latency: float) -> dict[str, float]:
        """What is written down of a trial that ends now, whatever came of it."""
        return {LATENCY: latency, AT: self.before + time.perf_counter() - self.start}

    def submit(self, pool: Workers, trial: Running) -> "Future[Outcome]":
        """Begins the next training of a trial."""
        schedule = replace(self.schedule, steps=self.steps * ETA ** len(trial.accuracies))
        part = LATEST if self.succeeded else 1.0
        deadline = None if self.budget.seconds is None else self.start + part * self.budget.seconds
        return pool.submit(trial.architecture, schedule, seed=seed_of(self.seed, trial.architecture), deadline=deadline)

    def go_on(self, trial: Running, outcome: Outcome) -> Running | None:
        """Writes down a training, and ends the trial unless it is among the best third so far, of three or more."""
        if outcome.accuracy is None and not trial.accuracies:
            self.record.fail(trial.number, outcome.why or "", attributes=self.known(trial.latency))
            return None
        first_of_all = not trial.accuracies and not self.succeeded  # cut short, it is better than nothing
        if outcome.accuracy is None or not (outcome.complete or first_of_all):
            self.end(trial, outcome.why)
            return None
        self.pace.add(self.cost(trial.architecture), outcome)
        self.succeeded = True
        trial = replace(
            trial, accuracies=(*trial.accuracies, outcome.accuracy), seconds=trial.seconds + outcome.seconds
        )
        rung = len(trial.accuracies)
        self.record.report(trial.number, rung, outcome.accuracy.percent)
        values = [entry.reports[rung] for entry in self.fitting() if rung in entry.reports]
        better = sum(value > outcome.accuracy.percent for value in values)
        takes = self.pace.seconds(self.cost(trial.architecture), self.steps * ETA**rung)
        if rung < RUNGS and better < len(values) // ETA and takes < self.left(LATEST):
            return trial
        self.end(trial)
        return None

    def end(self, trial: Running, why: str | None = None) -> None:
        """Writes down what came of those of a trial's trainings that count; where there is none, it has failed.

        One whose longer training diverged, `why` says how, would not have what others gain by going on.
        """
        known, rung = self.known(trial.latency), len(trial.accuracies)
        if not rung:
            self.record.fail(trial.number, CUT, attributes=known)
            return
        reached = trial.accuracies[-1].percent
        self.record.finish(
            trial.number,
            self.extrapolated(reached, rung) if why is None else reached,
            seconds=trial.seconds,
            attributes={RIGHT: [[each.right, each.n] for each in trial.accuracies], WHY: why, **known},
        )

    def extrapolated(self, percent: float, rung: int) -> float:
        """The accuracy after the last rung: of the errors as many are left as of those that went on, geometrically."""
        reports = [entry.reports for entry in self.fitting()]
        return fewer_errors(percent, [(each[rung], each[RUNGS]) for each in reports if RUNGS in each and rung in each])

    def best(self) -> list[Tried]:
        """The trials that succeeded and keep to the limits, which may be others than they were tried under.

        Raises:
            OutcomeError: Where there is none.
        """
        tried = self.tried()
        fitting = [one for one in tried if one.value is not None and one.fits]
        if not fitting:
            if any(one.value is not None for one in tried):
                raise OutcomeError(
                    f"{len(tried)} architectures were tried, and none keeps to the limits, {self.limits}. Give "
                    "more trials or seconds, or the limits that they were tried under."
                )
            elsewhere = sum(entry.state == "running" for entry in self.counted())
            raise nothing_succeeded([one.why for one in tried], elsewhere)
        found = dict[Architecture, Tried]()
        for one in sorted(fitting, key=lambda one: -(one.value or 0.0)):
            found.setdefault(self.trainer.space.canonical(one.architecture), one)  # the same network once
        return list(found.values())

    def finalists(self, n: int) -> list[Tried]:
        """The best whose latency, measured once more and longer, keeps to the limit; the fastest if none does."""
        best, most = self.best(), self.limits.max_latency
        if most is None:
            return best[:n]
        again = list[Tried]()
        for one in best:
            again.append(replace(one, latency=self.trainer.latency(one.architecture, seconds=LONGER)))
            if len(found := [each for each in again if each.latency <= most]) == n:
                break
        return found or [min(again, key=lambda each: each.latency)]

    def end_on(self, best: Sequence[Tried], pool: Workers, *, keep: bool) -> list[tuple[Architecture, Outcome]]:
        """What came of the last trainings that succeeded, the best by its validation accuracy first.

        Where none did, the next best is trained, until one does.

        Raises:
            OutcomeError: Where none is left.
        """
        while True:
            self.tell("training the best")
            outcomes = self.train_to_the_end(best, pool, keep=keep)
            trained = [(one.architecture, of) for one, of in zip(best, outcomes) if of.accuracy is not None]
            failed = [(one, of.why or "") for one, of in zip(best, outcomes) if of.accuracy is None]
            self.spoilt |= {one.architecture: f"in its last training, {why}" for one, why in failed}
            if trained:
                return sorted(trained, key=lambda one: -share(one[1]).right)
            best = self.finalists(1)

    def train_to_the_end(self, best: Sequence[Tried], pool: Workers, *, keep: bool) -> list[Outcome]:
        """What came of a last training of each.

        Each has as much of the seconds, and some are left in which the one that is chosen goes on.
        """
        n = pool.n

        def begin(i: int) -> "Future[Outcome]":
            each = self.left() / ((len(best) - i if n == 1 else 1) + FURTHER)
            steps, deadline = self.last(best[i], each)
            plan = replace(self.schedule, steps=steps)
            return pool.submit(best[i].architecture, plan, seed=self.seed, deadline=deadline, keep=keep)

        futures = [begin(i) for i in range(len(best))]
        return [pool.result(future, partial(begin, i)) for i, future in enumerate(futures)]

    def last(self, one: Tried, seconds: float) -> tuple[int, float | None]:
        """Steps of a last training, and when it ends, finished or not.

        One rung more than the last one's, where trials say when to stop, and else up to two, as many as the seconds
        allow. Where there are none even for as many steps as those by which the architecture earned its place, it has
        these, in as many seconds as its trainings took.
        """
        least, earned = self.steps * ETA**RUNGS, self.steps * ETA ** (len(one.accuracies) - 1)
        if math.isinf(seconds):
            return least, None
        if SHARE * seconds < self.pace.seconds(one.cost, earned):
            return earned, time.perf_counter() + max(seconds, one.seconds)
        return least * ETA, time.perf_counter() + seconds


def fewer_errors(percent: float, others: Sequence[tuple[float, float]]) -> float:
    """An accuracy after a longer training: of the errors as many are left as of others', before and after."""
    left = [math.log((100 - after + SMALLEST) / (100 - before + SMALLEST)) for before, after in others]
    return 100 - (100 - percent) * math.exp(min(0.0, statistics.fmean(left))) if left else percent


def nothing_succeeded(reasons: Sequence[str | None], elsewhere: int = 0) -> OutcomeError:
    """What to raise where no training did, given why they failed, and how many other processes are at."""
    told = [reason for reason in reasons if reason]
    if told:
        why = f"The last one failed: {told[-1]}"
    elif elsewhere:
        why = f"Other processes that share the study are training {elsewhere} of its networks: wait for them."
    else:
        why = "Give more seconds, or wider limits."
    return OutcomeError(f"no training succeeded in the time given. {why}")


def seed_of(seed: int, architecture: Architecture) -> int:
    """The seed of an architecture's trainings: the same whenever, and after whatever interruption, it is tried."""
    return int.from_bytes(hashlib.sha256(f"{seed} {architecture}".encode()).digest()[:4], "big")
