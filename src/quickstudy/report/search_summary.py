"""What the report of a search says, as values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from quickstudy.errors import ShapeError
from quickstudy.report.summary import Score


@dataclass(frozen=True)
class Cost:
    """Something that the chosen network costs, and the limit that was asked for."""

    name: str
    """Such as "parameters", "peak memory"."""
    found: float
    limit: float | None = None
    """At most this much; None where none was asked for."""
    unit: str = ""
    """Such as "bytes", "ms"."""


@dataclass(frozen=True)
class Attempt:
    """A network that the search tried."""

    number: int
    """From 0, in the order in which they were begun."""
    seconds: float
    """From the beginning of the search to its outcome."""
    accuracy: float | None
    """On validation examples, in per cent; None where its training failed."""
    parameters: int
    latency: float | None = None
    """Milliseconds for one example; None where it was not measured."""
    share: float = 1.0
    """Of the training steps that a network gets in full."""


@dataclass(frozen=True)
class SearchReport:
    """What `quickstudy search` has found.

    Raises:
        ShapeError: Where classes, counts, confusions or examples do not belong together.
    """

    data: str
    """The data, by name."""
    class_names: tuple[str, ...]
    """One for each of the `k` labels."""
    shape: tuple[int, ...]
    """Of one input: (channels, height, width) or (channels, length)."""
    counts: tuple[int, ...]
    """Examples of each class that the search learned from."""
    seconds: float
    """Of the search, from its beginning to the trained network."""
    architecture: str
    """The chosen network, as canonical text."""
    drawing: str
    """The same as SVG, which the page contains as it is."""
    costs: tuple[Cost, ...]
    """Of the chosen network; the first is in the headline."""
    test: Score | None
    """On the test set, of which `n` examples were looked at once; None where there is none."""
    expected: Score | None = None
    """What validation led to expect, before the test set was looked at."""
    went_on: bool = False
    """Whether the network was trained further after that, with the validation examples too."""
    baselines: tuple[Score, ...] = ()
    """Other ways to get a network, on the same test set."""
    attempts: tuple[Attempt, ...] = ()
    """All that was tried."""
    chosen: int | None = None
    """The number of the attempt that was chosen."""
    too_slow: int = 0
    """Networks that were measured and not tried, for a prediction takes longer than the limit."""
    confusion: Tensor | None = None
    """`(k, k)` counts of test examples: row the truth, column the answer."""
    examples: Tensor | None = None
    """One of each class: uint8 pictures `(k, channels, height, width)`, or series `(k, channels, length)`."""
    known: str = ""
    """What the search knew of earlier tasks, a sentence."""
    warnings: tuple[str, ...] = ()
    """Few validation examples, classes that look alike; a sentence each."""
    files: Mapping[str, int] = field(default_factory=dict)
    """What was written beside the report, by name, with its size in bytes."""
    python: str = ""
    """How to use the network in torch, a few lines."""
    onnx: str = ""
    """How to use it without."""
    ink: bool = False
    """Whether grey pictures are white ink on black: a light page then shows them as dark ink on white."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """For the footer: seed, settings, versions, date."""

    def __post_init__(self) -> None:
        k = len(self.class_names)
        if len(self.counts) != k:
            raise ShapeError(f"{k} class names came with {len(self.counts)} counts: give one of each a class.")
        if self.confusion is not None and self.confusion.shape != (k, k):
            raise ShapeError(f"confusion is {tuple(self.confusion.shape)}; {k} classes make it ({k}, {k}).")
        if self.examples is not None and (self.examples.dim() not in (3, 4) or len(self.examples) != k):
            raise ShapeError(
                f"examples are {tuple(self.examples.shape)}; give one a class, pictures ({k}, channels, height, width) "
                f"or series ({k}, channels, length)."
            )
        if self.examples is not None and self.examples.dim() == 4 and self.examples.dtype != torch.uint8:
            raise ShapeError(f"pictures are {self.examples.dtype}; a report shows uint8 ones, levels of 255.")
        if self.chosen is not None and self.chosen not in [attempt.number for attempt in self.attempts]:
            raise ShapeError(f"attempt {self.chosen} was chosen, and is not among the {len(self.attempts)} attempts.")

    @property
    def failed(self) -> int:
        """Attempts whose training failed."""
        return sum(attempt.accuracy is None for attempt in self.attempts)

    @property
    def per_class(self) -> tuple[tuple[str, int, int], ...]:
        """Name, test examples that were named rightly, and test examples, of each class that has some."""
        if self.confusion is None:
            return ()
        found = zip(self.class_names, self.confusion.diagonal().tolist(), self.confusion.sum(1).tolist())
        return tuple((name, int(right), int(n)) for name, right, n in found if n)


def one_of_each(x: Tensor, y: Tensor, n_classes: int) -> Tensor:
    """The first example of each class as a report shows it, `(n_classes, ...)`.

    Pictures become uint8 of one channel or three: values within 0 and 1 are levels, others are stretched to their
    range; other numbers of channels become their mean. Series stay as they are.

    Args:
        x: Inputs `(n, channels, *size)`, uint8 or floats.
        y: Labels `(n,)`; each class has one at least.
        n_classes: Their number.

    Example:
        >>> import torch
        >>> from quickstudy.report.search_summary import one_of_each
        >>> one_of_each(torch.rand(6, 2, 8, 8), torch.tensor([0, 1, 1, 2, 0, 2]), 3).shape
        torch.Size([3, 1, 8, 8])
    """
    found = torch.stack([x[int((y == label).nonzero()[0])] for label in range(n_classes)]).cpu()
    if found.dim() == 3:
        return found.float()
    if found.shape[1] not in (1, 3):
        found = found.float().mean(1, keepdim=True).to(found.dtype)
    if found.dtype == torch.uint8:
        return found
    low, high = min(0.0, float(found.min())), max(1.0, float(found.max()))
    return ((found - low) / (high - low) * 255).round().byte()


def best_so_far(attempts: Sequence[Attempt]) -> list[tuple[float, float]]:
    """(seconds, accuracy) of each attempt that was better than all before it, in the order of time.

    Example:
        >>> from quickstudy.report.search_summary import Attempt, best_so_far
        >>> best_so_far([Attempt(0, 2.0, 80.0, 9), Attempt(1, 1.0, 70.0, 9), Attempt(2, 3.0, 75.0, 9)])
        [(1.0, 70.0), (2.0, 80.0)]
    """
    found: list[tuple[float, float]] = []
    for attempt in sorted(attempts, key=lambda attempt: attempt.seconds):
        if attempt.accuracy is not None and (not found or attempt.accuracy > found[-1][1]):
            found.append((attempt.seconds, attempt.accuracy))
    return found
