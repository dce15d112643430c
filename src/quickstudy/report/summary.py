"""What a report says, as values. Nothing here is drawn or decided."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from quickstudy.errors import ShapeError
from quickstudy.training.history import Validation

if TYPE_CHECKING:
    from quickstudy.report.search_summary import SearchReport


@dataclass(frozen=True)
class Score:
    """How well a method does in a setting: a mean over tasks with its 95 % interval."""

    method: str
    """Such as "prototypical network, trained live"."""
    setting: str
    """Such as "5-way 1-shot"."""
    mean: float
    """Accuracy, in per cent."""
    ci95: float | None
    """Half the width of the 95 % interval, in per cent points; None where there is none, or where it has `low` and
    `high`."""
    n: int
    """Tasks that it is the mean of, or pictures that were left out."""
    seconds: float | None = None
    """Of adapting to one task and predicting its queries; None where it was not measured."""
    low: float | None = None
    """Lower end of the interval, in per cent, where it does not lie evenly about the mean, as that of a share does."""
    high: float | None = None
    """Upper end of it."""

    @property
    def ends(self) -> tuple[float, float] | None:
        """Both ends of the 95 % interval, in per cent; None where there is none."""
        if self.low is not None and self.high is not None:
            return self.low, self.high
        return None if self.ci95 is None else (self.mean - self.ci95, self.mean + self.ci95)

    def interval(self, digits: int = 1) -> str:
        """The 95 % interval in words, "" where there is none.

        Example:
            >>> from quickstudy.report import Score
            >>> Score("maml", "5-way 1-shot", 94.2, 0.4, n=600).interval()
            '± 0.4'
            >>> Score("maml", "pictures left out", 100.0, None, n=9, low=70.1, high=100.0).interval(0)
            '(70 to 100)'
        """
        if self.low is not None and self.high is not None:
            return f"({self.low:.{digits}f} to {self.high:.{digits}f})"
        return "" if self.ci95 is None else f"± {self.ci95:.{digits}f}"


@dataclass(frozen=True)
class TrainingCurve:
    """How validation accuracy rose in meta-training."""

    method: str
    """What was trained."""
    setting: str
    """Of the validation tasks, such as "5-way 1-shot"."""
    validations: tuple[Validation, ...]
    """In the order of steps."""
    chance: float | None = None
    """Accuracy of guessing, in per cent."""


@dataclass(frozen=True)
class StepCurve:
    """Accuracy against the number of gradient steps that a learner takes on a new task."""

    method: str
    """A gradient learner, such as "maml, shipped"."""
    setting: str
    """Such as "5-way 1-shot"."""
    points: tuple[tuple[int, float, float], ...]
    """Steps, mean accuracy in per cent, and half the width of its 95 % interval."""
    n: int
    """Tasks."""
    chance: float | None = None
    """Accuracy of guessing, in per cent."""


@dataclass(frozen=True)
class TaskShown:
    """One task, with a method's answers to it.

    Raises:
        ShapeError: Where pictures, labels and probabilities do not belong together.
    """

    method: str
    """Whose answers they are."""
    class_names: tuple[str, ...]
    """One for each of the `k` labels."""
    support: Tensor
    """uint8 `(n, channels, height, width)`."""
    support_labels: tuple[int, ...]
    """One for each support picture."""
    query: Tensor
    """uint8 `(q, channels, height, width)`."""
    query_labels: tuple[int, ...]
    """The truth, one for each query picture."""
    probabilities: Tensor
    """`(q, k)`."""

    def __post_init__(self) -> None:
        check_pictures("support", self.support, len(self.support_labels))
        check_pictures("query", self.query, len(self.query_labels))
        check_labels("support_labels", self.support_labels, len(self.class_names))
        check_labels("query_labels", self.query_labels, len(self.class_names))
        expected = (len(self.query_labels), len(self.class_names))
        if self.probabilities.shape != expected:
            raise ShapeError(
                f"probabilities are {tuple(self.probabilities.shape)}; {expected[0]} queries in {expected[1]} classes "
                f"have {expected}, one row a query."
            )

    @property
    def predicted(self) -> tuple[int, ...]:
        """The most probable label of each query picture."""
        return tuple(self.probabilities.argmax(1).tolist())

    @property
    def right(self) -> int:
        """Queries that were named rightly."""
        return sum(a == b for a, b in zip(self.predicted, self.query_labels))


@dataclass(frozen=True)
class DemoReport:
    """What `quickstudy demo` has shown."""

    learner: str
    """What was meta-trained, in prose: "a prototypical network"."""
    live: str
    """The method, among those of `scores`, that was meta-trained now; the headline quotes it."""
    seconds: float
    """Of meta-training."""
    trained_on: str
    """In prose: "1,987 characters of 14 alphabets"."""
    tested_on: str
    """In prose: "318 characters of six other alphabets"."""
    scores: tuple[Score, ...]
    """Each method in each setting; the first setting is the headline's."""
    chance: Mapping[str, float]
    """For each setting the accuracy of guessing, in per cent."""
    curve: TrainingCurve | None = None
    """How meta-training went."""
    task: TaskShown | None = None
    """One task of the test."""
    steps: StepCurve | None = None
    """What each gradient step brings."""
    shell: str = ""
    """A few lines for the command line that use the result."""
    python: str = ""
    """The same in Python."""
    search: "SearchReport | None" = None
    """The second act: a network that was searched for."""
    search_page: str = ""
    """Where the report of that search lies, from where this one lies."""
    search_shell: str = ""
    """A line for the command line that searches for a network for other data."""
    search_skipped: str = ""
    """Why there is no second act, a sentence."""
    ink: bool = True
    """Whether grey pictures are white ink on black: a light page then shows them as dark ink on white."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """For the footer: seed, settings, versions, date."""

    @property
    def headline(self) -> tuple[Score, ...]:
        """The scores of the method trained live, one a setting."""
        return tuple(score for score in self.scores if score.method == self.live)


@dataclass(frozen=True)
class SelfCheck:
    """What leaving labelled pictures out has shown."""

    scores: tuple[Score, ...]
    """Each method that was tried; `n` counts pictures."""
    used: str
    """The method, among those of `scores`, that made the predictions."""
    why: str
    """Why that one, a sentence."""
    expected: Score
    """Of choosing a method by some of the pictures, and judging it by others: what to expect of new ones. The method
    used has a better score, since the same pictures chose it."""
    confusion: Tensor | None = None
    """`(k, k)` counts of left-out pictures with the method used: row the truth, column the answer."""


@dataclass(frozen=True)
class Predictions:
    """Answers to the pictures without labels.

    Raises:
        ShapeError: Where files, pictures, labels and probabilities do not belong together.
    """

    files: tuple[str, ...]
    """Names to show, relative to the folder that was given."""
    pictures: Tensor
    """uint8 `(m, channels, height, width)`."""
    labels: tuple[int | None, ...]
    """An index into the report's class names; None for "none of these"."""
    probabilities: Tensor
    """`(m,)`, of the answer, as in the CSV; NaN for "none of these", which has none."""
    closest: tuple[int | None, ...] | None = None
    """The next best class of each picture, or, of "none of these", the best; shown where the answer is uncertain."""

    def __post_init__(self) -> None:
        m = len(self.files)
        check_pictures("pictures", self.pictures, m)
        others = (len(self.labels), *self.probabilities.shape, m if self.closest is None else len(self.closest))
        if others != (m, m, m):
            raise ShapeError(
                f"{m} files came with {len(self.labels)} labels and probabilities {tuple(self.probabilities.shape)}: "
                "give one of each a file."
            )

    @property
    def order(self) -> tuple[int, ...]:
        """None of these first, then the least certain."""
        probabilities = self.probabilities.tolist()
        return tuple(sorted(range(len(self.files)), key=lambda i: (self.labels[i] is not None, probabilities[i])))


@dataclass(frozen=True)
class AdaptReport:
    """What `quickstudy adapt` has done with somebody's own pictures."""

    prior: str
    """The prior that was adapted, by name."""
    folder: str
    """Where the labelled pictures come from, by name."""
    class_names: tuple[str, ...]
    """One for each of the `k` labels."""
    support: Tensor
    """The labelled pictures as the prior sees them, uint8 `(n, channels, height, width)`."""
    support_labels: tuple[int, ...]
    """One for each of them."""
    method: str
    """What made the predictions."""
    seconds: float
    """From the first file read to the last answer."""
    check: SelfCheck | None = None
    """None where there was one picture a class, which leaves nothing to check with."""
    predictions: Predictions | None = None
    """None where there was nothing to predict."""
    warnings: tuple[str, ...] = ()
    """Files that were skipped, classes that look alike, few pictures; a sentence each."""
    csv: str = "predictions.csv"
    """The file beside the report that lists every prediction."""
    at_most: int = 200
    """Predictions that are shown with their pictures."""
    ink: bool = True
    """Whether grey pictures are white ink on black: a light page then shows them as dark ink on white."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """For the footer: seed, settings, versions, date."""

    def __post_init__(self) -> None:
        k = len(self.class_names)
        check_pictures("support", self.support, len(self.support_labels))
        check_labels("support_labels", self.support_labels, k)
        if self.predictions is not None:
            check_labels("predictions.labels", self.predictions.labels, k)
            check_labels("predictions.closest", self.predictions.closest or (), k)
        if self.check is not None and self.check.confusion is not None and self.check.confusion.shape != (k, k):
            raise ShapeError(f"confusion is {tuple(self.check.confusion.shape)}; {k} classes make it ({k}, {k}).")

    @property
    def counts(self) -> tuple[int, ...]:
        """Predictions of each class."""
        labels = () if self.predictions is None else self.predictions.labels
        return tuple(sum(label == k for label in labels) for k in range(len(self.class_names)))

    @property
    def unknown(self) -> int:
        """Predictions that are "none of these"."""
        return 0 if self.predictions is None else sum(label is None for label in self.predictions.labels)


def confused_pairs(confusion: Tensor) -> list[tuple[int, int, int]]:
    """(truth, answer, count) of each mistake that was made, the most frequent first.

    Example:
        >>> import torch
        >>> from quickstudy.report.summary import confused_pairs
        >>> confused_pairs(torch.tensor([[4, 0, 1], [0, 5, 0], [2, 0, 3]]))
        [(2, 0, 2), (0, 2, 1)]
    """
    wrong = confusion - torch.diag(confusion.diagonal())
    pairs = [(int(a), int(b), int(wrong[a, b])) for a, b in wrong.nonzero().tolist()]
    return sorted(pairs, key=lambda pair: (-pair[2], pair[:2]))


def check_pictures(name: str, pictures: Tensor, n: int) -> None:
    """Raises a ShapeError where `pictures` are not `n` uint8 pictures of one or three channels."""
    good = pictures.dim() == 4 and pictures.dtype == torch.uint8 and len(pictures) == n
    if not good or pictures.shape[1] not in (1, 3):
        raise ShapeError(
            f"{name} are {pictures.dtype} {tuple(pictures.shape)}; "
            f"a report shows uint8 ({n}, channels, height, width) with 1 or 3 channels."
        )


def check_labels(name: str, labels: tuple[int | None, ...], k: int) -> None:
    """Raises a ShapeError where a label has no class name."""
    if strange := [label for label in labels if label is not None and not 0 <= label < k]:
        raise ShapeError(f"{name} hold {strange[0]}; with {k} class names they lie in 0..{k - 1}.")


def short_name(file: str) -> str:
    """The last part of a path.

    Example:
        >>> from quickstudy.report.summary import short_name
        >>> short_name("photos/2024/cat.jpg")
        'cat.jpg'
    """
    return PurePath(file).name or file
