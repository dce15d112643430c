"""What a task is: examples to learn from, and examples to be judged on."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Protocol, Self

import torch
from torch import Generator, Tensor

from quickstudy.errors import ShapeError


@dataclass(frozen=True)
class Examples:
    """A batch of labelled sets, one a task, homogeneous in size and shape.

    The leading axis `b` is always there: a single task is a batch of one.

    Raises:
        ShapeError: Where `y`, `mask` or `domain` do not begin with the `(b, n)` of `x`.
    """

    x: Tensor
    """Inputs, `(b, n, *input)`."""
    y: Tensor
    """int64 labels `(b, n)`, or targets `(b, n, out)`."""
    mask: Tensor | None = None
    """`(b, n)`, True where the example is real; None where all are."""
    domain: Tensor | None = None
    """`(b, n)` int64: the domain that each example comes from."""

    def __post_init__(self) -> None:
        for name in ("y", "mask", "domain"):
            value = getattr(self, name)
            if value is not None and value.shape[:2] != self.x.shape[:2]:
                raise ShapeError(
                    f"{name} is {tuple(value.shape)} and x is {tuple(self.x.shape)}; both begin with (tasks, examples). "
                    "A single task is a batch of one: x[None], y[None]."
                )

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """The same examples with `function` applied to every tensor."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return type(self)(**{name: None if value is None else function(value) for name, value in values.items()})

    @property
    def n(self) -> int:
        """Examples a task."""
        return self.x.shape[1]

    def weights(self) -> Tensor:
        """Each example's share of a mean over its task, `(b, n)`: zero where it is masked out."""
        mask = torch.ones(self.x.shape[:2], device=self.x.device) if self.mask is None else self.mask.float()
        return mask / mask.sum(1, keepdim=True).clamp_min(1)


@dataclass(frozen=True)
class Task:
    """A batch of tasks: `support` to learn from, `query` to be judged on.

    Example:
        >>> import torch
        >>> from quickstudy import Examples, Task
        >>> support = Examples(torch.rand(4, 10, 2), torch.randint(2, (4, 10)))
        >>> query = Examples(torch.rand(4, 30, 2), torch.randint(2, (4, 30)))
        >>> len(Task(support, query, n_way=2))
        4
    """

    support: Examples
    query: Examples
    n_way: int | None
    """Number of classes; None for regression."""
    unlabelled: Tensor | None = None
    """`(b, u, *input)`: more inputs without labels, for semi-supervised learners."""

    def __len__(self) -> int:
        return self.support.x.shape[0]

    def __getitem__(self, index: slice) -> "Task":
        """Some of the tasks, as a batch: `tasks[2:3]` is the third alone."""
        return self.map(lambda value: value[index])

    def map(self, function: Callable[[Tensor], Tensor]) -> "Task":
        """The same tasks with `function` applied to every tensor."""
        unlabelled = None if self.unlabelled is None else function(self.unlabelled)
        return Task(self.support.map(function), self.query.map(function), self.n_way, unlabelled)

    def to(self, device: torch.device | str) -> "Task":
        """The same tasks on another device."""
        return self.map(lambda value: value.to(device, non_blocking=True))

    @property
    def everything(self) -> Examples:
        """Support and query as one labelled set, for learners that train on both."""
        pairs = {
            field.name: (getattr(self.support, field.name), getattr(self.query, field.name))
            for field in fields(Examples)
        }
        if (self.support.mask is None) != (self.query.mask is None):
            masks = (e.weights() > 0 for e in (self.support, self.query))
            pairs["mask"] = tuple(masks)  # type: ignore[assignment]
        joined = {name: None if a is None or b is None else torch.cat([a, b], 1) for name, (a, b) in pairs.items()}
        return Examples(**joined)  # type: ignore[arg-type]


class TaskSource(Protocol):
    """Where tasks come from."""

    def sample(self, b: int, *, generator: Generator) -> Task:
        """Draws `b` tasks. The same seed of a CPU `generator` gives the same tasks on any machine."""
        ...
