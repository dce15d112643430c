"""Tasks by number, and training on one or on many of them."""

import time
from dataclasses import dataclass, replace

from torch import Generator

from quickstudy.errors import ShapeError
from quickstudy.nas.architecture import Architecture
from quickstudy.nas.tiny import Tiny
from quickstudy.nas.train import Schedule
from quickstudy.nas.trainer import OnOneTask, Outcome, Trainer, TrainingSet, digest, real
from quickstudy.tasks.task import Task, TaskSource
from quickstudy.training.proportion import Share

FURTHER, FRESH = 10**9, 2 * 10**9
"""From these numbers on, tasks are for comparing, and of the test classes."""
SPREAD = 0x9E3779B1
"""Between the tasks of one seed and those of the next; of a seed, torch's generator reads 32 bits."""


@dataclass(frozen=True)
class Numbered:
    """Tasks by number, the same whenever and wherever one asks."""

    source: TaskSource
    test: TaskSource
    """Where tasks from `FRESH` on come from."""
    seed: int

    @property
    def digest(self) -> str:
        """Of the first task of each kind, by which another source is known."""
        sets = [part for i in (0, FURTHER, FRESH) for part in (self[i].support, self[i].query)]
        return digest(*(tensor for part in sets for tensor in real(part)))

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
        """As every trainer.

        Raises:
            ShapeError: Where the task has inputs of another shape, or other classes, than the first had.
        """
        task = self.tasks[seed]
        (x, y), (queries, wanted) = real(task.support), real(task.query)
        if (shape := tuple(x.shape[1:])) != self.space.shape or task.n_way != self.space.n_classes:
            raise ShapeError(
                f"one architecture is for tasks of one kind: the first has {self.space.n_classes} classes of inputs "
                f"{self.space.shape}, another {task.n_way} of {shape}. Take a source with one way and one shape."
            )
        one = OnOneTask(self.space, TrainingSet(x, y, queries, wanted))
        return one(architecture, schedule, seed=seed, deadline=deadline, keep=keep)


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
        start, n = time.perf_counter(), max(1, schedule.steps // self.steps)
        first = schedule.steps  # the number of its first task: one of three times the steps begins beyond its last
        each = OnNumberedTask(self.space, self.tasks)
        schedule = replace(schedule, steps=min(schedule.steps, self.steps))
        right = answers = steps = done = 0
        failures = list[str]()
        for i in range(n):
            now = time.perf_counter()
            if deadline is not None and i and now + (now - start) / i > deadline:
                break
            done += 1
            outcome = each(architecture, schedule, seed=first + i)
            steps += outcome.steps
            if outcome.accuracy is None:
                failures.append(outcome.why or "")
                answers += len(real(self.tasks[first + i].query)[1])
            else:
                right, answers = right + outcome.accuracy.right, answers + outcome.accuracy.n
        seconds = time.perf_counter() - start
        if not steps:
            return Outcome(None, seconds, 0, f"on each of {len(failures)} tasks: {failures[-1]}")
        return Outcome(Share(right, answers), seconds, steps, complete=done == n)
