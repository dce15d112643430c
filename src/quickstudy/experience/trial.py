"""One choice that was tried on a task, and its outcome."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import Tensor

C = TypeVar("C")


@dataclass(frozen=True)
class TaskDescription:
    """What is known of a task before anything was tried on it."""

    name: str
    embedding: Tensor | None = None  # (d,)
    """What an encoder of its support set makes of it; None where there is no support set at hand."""
    encoder: str | None = None
    """The digest of that encoder, without which the embedding of one task says nothing beside that of another."""


@dataclass(frozen=True)
class Trial(Generic[C]):
    """A choice and its outcome."""

    choice: C
    value: float | None
    """What is to be as large as possible; None where the trial failed."""
    seconds: float = 0.0
    """What it took."""
    pending: bool = False
    """Whether its outcome is not known, for it is still under way or was not worth one; then it has no value either."""
