"""What a search may take, and how it is spent."""

import math
from dataclasses import dataclass

from quickstudy.errors import QuantityError

ETA = 3
"""One in so many architectures goes on to the next rung, which has so many times the steps."""
RUNGS = 2
"""Rungs of a search; final training is one more."""
WISHED, USUAL = 4, 15.0
"""Architectures that a search should be able to try in so many seconds; in four times as many, twice as many. Few that
are trained for long beat many that are trained briefly: what learns fast is not what is best in the end."""
SEARCHED, LATEST, BEGUN = 0.25, 0.35, 0.75
"""The parts of the seconds after which no trial begins once one has succeeded, by which every trial has ended then, and
after which none begins where all have failed."""
FURTHER = 1.5
"""For so many times its last training's steps the chosen network goes on with all examples."""
PROCESSES = 15.0
"""The seconds of a search for which processes are worth starting: they are up after some of them."""


@dataclass(frozen=True)
class Budget:
    """What a search may take.

    Raises:
        QuantityError: Where it never ends, or is nothing.
    """

    seconds: float | None = 60.0
    """From the call to the trained network; None where `trials` says when to stop."""
    trials: int | None = None
    """Architectures that are tried at most."""
    workers: int = 1
    """Processes that train side by side, of one thread each; below 15 seconds it is this one alone."""
    steps: int | None = None
    """Of the shortest training; None lets the seconds decide. A search that goes on keeps to those it began with."""

    def __post_init__(self) -> None:
        if self.seconds is None and self.trials is None:
            raise QuantityError("a budget without seconds and without trials never ends. Give one of them.")
        for name, value in vars(self).items():
            if isinstance(value, str):
                raise QuantityError(f"a budget with {name}={value!r} has a text. Give a number.")
            if value is not None and math.isinf(value):
                raise QuantityError(f"a budget with {name}={value} never ends. Give None, and a number of trials.")
            if value is not None and not value > 0:
                raise QuantityError(f"a budget with {name}={value} is none. Give more than 0.")

    @property
    def processes(self) -> int:
        """As many as there are workers, where the seconds are worth starting them."""
        return self.workers if self.seconds is None or self.seconds >= PROCESSES else 1

    @property
    def first_training(self) -> float:
        """Seconds of a shortest training with which the search can try as many architectures as it should."""
        if self.seconds is None:
            return math.inf
        seconds = self.seconds * self.processes
        return SEARCHED * seconds / (RUNGS * WISHED * math.sqrt(seconds / USUAL))
