"""What a search has tried, and where it is."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from quickstudy.experience.entries import Entry
from quickstudy.nas.architecture import Architecture
from quickstudy.nas.budget import Budget
from quickstudy.nas.build import Cost
from quickstudy.training.proportion import Share

RIGHT, LATENCY, AT, WHY = "right", "latency ms", "at", "why"
"""Attributes of a trial: right answers and questions after each rung, milliseconds of a prediction, its end, and why a
longer training failed where a shorter one had not."""


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
    """Of a failure; with a value, that of the training which was to be the longest."""
    fits: bool = True
    """Whether it keeps to the limits; what was tried before the limits became narrower may not."""


@dataclass(frozen=True)
class Progress:
    """Where a search is."""

    stage: str
    trials: int
    best: float | None
    """Validation accuracy, in per cent."""
    seconds: float
    budget: Budget

    @classmethod
    def of(cls, stage: str, tried: Sequence[Tried], *, start: float, budget: Budget) -> "Progress":
        """Where a search is that began at a time of `time.perf_counter`."""
        best = max((one.value for one in tried if one.value is not None and one.fits), default=None)
        return cls(stage, len(tried), best, time.perf_counter() - start, budget)


def read(entry: Entry[Architecture], cost: Cost, *, fits: bool) -> Tried:
    """A trial as the study holds it."""
    shares = tuple(Share(right, n) for right, n in entry.attributes.get(RIGHT, ()))  # type: ignore[attr-defined]
    at, latency, why = number(entry, AT), number(entry, LATENCY), entry.why or entry.attributes.get(WHY)
    assert why is None or isinstance(why, str)
    return Tried(entry.choice, cost, shares, entry.value, entry.seconds, at, latency, why, fits)


def number(entry: Entry[Architecture], name: str) -> float:
    """An attribute of a trial, 0 where it was killed before it had one."""
    value = entry.attributes.get(name, 0.0)
    assert isinstance(value, int | float)
    return float(value)
