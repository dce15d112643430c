"""Whatever says what to try next."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, TypeVar

from torch import Generator

from quickstudy.experience.trial import TaskDescription, Trial

C = TypeVar("C")
S = TypeVar("S")


class Proposer(ABC, Generic[C, S]):
    """Proposes choices for a task from what was tried on it; architectures and hyperparameters alike.

    It is pure: the same task, trials and generator give the same proposals, and nothing is remembered between calls, so
    that a search which was interrupted goes on as if it had not been.
    """

    @abstractmethod
    def propose(
        self, task: TaskDescription, trials: Sequence[Trial[C]], space: S, *, n: int = 1, generator: Generator
    ) -> list[C]:
        """`n` choices of `space` that are not among `trials`, best first; fewer where the space has no more.

        Args:
            task: What is known of the task.
            trials: All that was tried on it, in that order, failures too.
            space: What may be chosen.
            n: To be tried side by side.
            generator: Of all randomness.
        """

    def incumbent(self, task: TaskDescription, trials: Sequence[Trial[C]], space: S) -> Trial[C] | None:
        """The trial that it would choose now, None where none has succeeded: that with the best value.

        The earlier of two that are equal. A proposer that has a model may choose another, because a value may have been
        luck.
        """
        done = [trial for trial in trials if trial.value is not None]
        return max(done, key=lambda trial: trial.value or 0.0, default=None)
