"""Labelled sets, and the n-way k-shot tasks that are drawn from them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from quickstudy.errors import ShapeError, TaskError, TooFewExamplesError
from quickstudy.tasks.task import Examples, Task, TaskSource


@dataclass(frozen=True)
class LabelledSet:
    """A labelled data set in the memory of one device.

    Example:
        >>> import torch
        >>> from quickstudy import LabelledSet
        >>> LabelledSet(torch.rand(6, 8), torch.tensor([0, 0, 1, 1, 2, 2]), ("ant", "bee", "cat")).n_classes
        3
    """

    x: Tensor
    """`(n, *input)`; pictures are uint8 `(n, channels, height, width)`, which a sampler turns into floats in [0, 1]."""
    y: Tensor
    """`(n,)` int64: an index into `class_names`."""
    class_names: tuple[str, ...]
    groups: tuple[str, ...] | None = None
    """For each class the group that it belongs to (an alphabet, a superclass), where there is one."""

    def __post_init__(self) -> None:
        for name, value in (("x", self.x), ("y", self.y)):
            if not isinstance(value, Tensor):
                raise ShapeError(f"{name} is a {type(value).__name__}, not a tensor. Give torch.as_tensor({name}).")
        if self.y.dtype != torch.int64:
            raise ShapeError(
                f"y is {self.y.dtype}; labels are int64. Give y.long() where these are numbers of classes."
            )
        if self.y.shape != self.x.shape[:1]:
            raise ShapeError(f"y is {tuple(self.y.shape)} and x is {tuple(self.x.shape)}: one label an example, (n,).")
        if len(self.y) and not 0 <= int(self.y.min()) <= int(self.y.max()) < len(self.class_names):
            raise ShapeError(
                f"labels run from {int(self.y.min())} to {int(self.y.max())}; "
                f"with {len(self.class_names)} class names they must lie in 0..{len(self.class_names) - 1}."
            )

    @property
    def n_classes(self) -> int:
        return len(self.class_names)

    def counts(self) -> Tensor:
        """Examples of each class, `(n_classes,)`."""
        return torch.bincount(self.y, minlength=self.n_classes)

    def select(self, classes: Sequence[int] | Tensor) -> "LabelledSet":
        """The set of some of its classes, renumbered in the order given."""
        chosen = torch.as_tensor(classes, dtype=torch.int64, device=self.y.device)
        renumber = torch.full((self.n_classes,), -1, dtype=torch.int64, device=self.y.device)
        renumber[chosen] = torch.arange(len(chosen), device=self.y.device)
        y = renumber[self.y]
        kept = y >= 0
        names = tuple(self.class_names[i] for i in chosen.tolist())
        groups = None if self.groups is None else tuple(self.groups[i] for i in chosen.tolist())
        return LabelledSet(self.x[kept], y[kept], names, groups)

    def to(self, device: torch.device | str) -> "LabelledSet":
        return replace(self, x=self.x.to(device), y=self.y.to(device))

    def with_rotations(self) -> "LabelledSet":
        """Four times the classes: each picture turned by 0, 90, 180 and 270 degrees (Santoro et al., 2016)."""
        x = torch.cat([torch.rot90(self.x, turns, (-2, -1)) for turns in range(4)])
        y = torch.cat([self.y + turns * self.n_classes for turns in range(4)])
        names = tuple(f"{name} @{90 * turns}" for turns in range(4) for name in self.class_names)
        return LabelledSet(x, y, names, None if self.groups is None else self.groups * 4)


def to_float(x: Tensor) -> Tensor:
    """Pictures as floats in [0, 1]; anything else as it is."""
    return x.float() / 255 if x.dtype == torch.uint8 else x


class Episodes:
    """Draws n-way k-shot tasks from a labelled set that stays on its device.

    A whole batch of tasks is a handful of tensor operations. Classes are drawn uniformly and without
    replacement, then examples of each; which class gets which label, and the order of the support and
    query sets, are random.

    Args:
        data: The labelled set.
        n_way: Classes a task.
        n_shot: Support examples a class.
        n_query: Query examples a class.
        encode: Applied to the drawn inputs, `(b, n, *input)`; by default uint8 becomes float in [0, 1].

    Raises:
        TooFewExamplesError: Where `data` has fewer than `n_way` classes, or a class fewer than
            `n_shot + n_query` examples.
        TaskError: Where `n_way` is below 2 or a number of examples below 1.

    Example:
        >>> import torch
        >>> from quickstudy import Episodes, LabelledSet
        >>> data = LabelledSet(torch.rand(40, 8), torch.arange(40) % 4, ("ant", "bee", "cat", "dog"))
        >>> tasks = Episodes(data, n_way=3, n_shot=1, n_query=5).sample(16, generator=torch.Generator().manual_seed(0))
        >>> tasks.support.x.shape, tasks.query.x.shape
        (torch.Size([16, 3, 8]), torch.Size([16, 15, 8]))
    """

    def __init__(
        self,
        data: LabelledSet,
        *,
        n_way: int = 5,
        n_shot: int = 1,
        n_query: int = 15,
        encode: Callable[[Tensor], Tensor] = to_float,
    ) -> None:
        if n_way < 2 or n_shot < 1 or n_query < 1:
            raise TaskError(
                f"{n_way}-way {n_shot}-shot with {n_query} queries is no task: "
                "take at least 2 classes, 1 support and 1 query example of each."
            )
        if data.n_classes < n_way:
            raise TooFewExamplesError(
                f"{n_way}-way tasks need {n_way} classes; the data has {data.n_classes}. Lower n_way or add classes."
            )
        counts = data.counts()
        if int(counts.min()) < n_shot + n_query:
            poorest, fewest = data.class_names[int(counts.argmin())], int(counts.min())
            queries = "1 query" if n_query == 1 else f"{n_query} queries"
            remedy = "Lower n_query, or leave the class out." if fewest > n_shot else "Add some to it, or remove it."
            raise TooFewExamplesError(
                f"{n_way}-way {n_shot}-shot with {queries} needs {n_shot + n_query} examples a class; "
                f"{poorest!r} has {fewest}. {remedy}"
            )
        if data.x.is_floating_point() and not bool(data.x.isfinite().all()):
            bad = int((~data.x.isfinite().flatten(1).all(1)).sum())
            raise TaskError(f"{bad} of {len(data.x)} examples hold NaN or infinity. Remove or impute them.")
        self.data, self.n_way, self.n_shot, self.n_query, self.encode = data, n_way, n_shot, n_query, encode
        self._rows = data.y.argsort(stable=True)  # the rows of class c begin at _first[c]
        self._first = (counts.cumsum(0) - counts).cpu()
        self._counts = counts.cpu()

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the classes that `Task.classes` counts."""
        return self.data.class_names

    def sample(self, b: int, *, generator: Generator) -> Task:
        """Draws `b` tasks; `generator` lives on the CPU, so that a seed means the same tasks on any device."""
        if b < 1:
            raise TaskError(f"a batch of {b} tasks is none: draw at least one.")
        per_class = self.n_shot + self.n_query
        classes = torch.rand(b, self.data.n_classes, generator=generator).topk(self.n_way).indices  # (b, k)
        counts = self._counts[classes]
        draws = torch.rand(b, self.n_way, int(counts.max()), generator=generator)
        draws.masked_fill_(torch.arange(draws.shape[-1]) >= counts[..., None], -1)
        chosen = self._first[classes][..., None] + draws.topk(per_class).indices  # (b, k, n_shot + n_query)
        labels = torch.arange(self.n_way)[None, :, None].expand_as(chosen)
        support = self._examples(chosen[..., : self.n_shot], labels[..., : self.n_shot], generator)
        query = self._examples(chosen[..., self.n_shot :], labels[..., self.n_shot :], generator)
        return Task(support, query, self.n_way, classes=classes.to(self.data.x.device))

    def _examples(self, rows: Tensor, labels: Tensor, generator: Generator) -> Examples:
        rows, labels = rows.flatten(1), labels.flatten(1)
        order = torch.rand(rows.shape, generator=generator).argsort(1)
        device = self.data.x.device
        rows, labels = rows.gather(1, order).to(device), labels.gather(1, order).to(device)
        return Examples(self.encode(self.data.x[self._rows[rows]]), labels)


class Mixture:
    """Draws each batch of tasks from one of several sources.

    Tasks say which classes they are of where all members count the same ones, that is, have the same `class_names`, as
    `Episodes` of one data set do. Otherwise `Task.classes` is None, since each member counts its own from 0.

    Args:
        sources: The members.
        weights: How often each is drawn, relative to the others; equally often by default.

    Raises:
        TaskError: Where there are no sources, or the weights do not fit them.

    Example:
        >>> import torch
        >>> from quickstudy import Episodes, LabelledSet, Mixture
        >>> data = LabelledSet(torch.rand(40, 8), torch.arange(40) % 4, ("ant", "bee", "cat", "dog"))
        >>> source = Mixture([Episodes(data, n_way=2, n_query=5), Episodes(data, n_way=3, n_query=5)])
        >>> source.sample(16, generator=torch.Generator()).n_way in (2, 3)
        True
    """

    def __init__(self, sources: Sequence[TaskSource], *, weights: Sequence[float] | None = None) -> None:
        if not sources:
            raise TaskError("a mixture of no sources has no tasks: give at least one.")
        if weights is not None and not (
            len(weights) == len(sources) and min(weights) >= 0 and 0 < math.fsum(weights) < math.inf
        ):
            raise TaskError(f"{len(sources)} sources need as many weights, finite, none negative; got {weights}.")
        self.sources = tuple(sources)
        self._weights = torch.ones(len(sources)) if weights is None else torch.tensor(weights, dtype=torch.float)
        names = [getattr(source, "class_names", None) for source in sources]
        self.class_names: tuple[str, ...] | None = names[0] if all(each == names[0] for each in names) else None
        self._count_alike = self.class_names is not None or len(sources) == 1

    def sample(self, b: int, *, generator: Generator) -> Task:
        """Draws `b` tasks from one member."""
        member = int(torch.multinomial(self._weights, 1, generator=generator))
        task = self.sources[member].sample(b, generator=generator)
        return task if self._count_alike else replace(task, classes=None)
