"""What a task is: examples to learn from, and examples to be judged on."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, Self

import torch
from torch import Generator, Tensor

from quickstudy.errors import ShapeError


@dataclass(frozen=True)
class Examples:
    """A batch of labelled sets, one a task, homogeneous in size and shape.

    The leading axis `b` is always there: a single task is a batch of one.

    Raises:
        ShapeError: Where `y`, `mask` or `domain` do not begin with the `(b, n)` of `x`, or `mask` is not boolean.
    """

    x: Tensor
    """Inputs, `(b, n, *input)`."""
    y: Tensor
    """int64 labels `(b, n)`, or targets `(b, n, out)`."""
    mask: Tensor | None = None
    """`(b, n)`, True where the example is real; None where all are. Whatever else is there, learners take it for 0."""
    domain: Tensor | None = None
    """`(b, n)` int64: the domain that each example comes from."""

    def __post_init__(self) -> None:
        for name in ("y", "mask", "domain"):
            value = getattr(self, name)
            if value is not None and value.shape[:2] != self.x.shape[:2]:
                raise ShapeError(
                    f"{name} is {tuple(value.shape)} and x is {tuple(self.x.shape)}; both begin with (tasks, examples)."
                    " A single task is a batch of one: x[None], y[None]."
                )
        if self.mask is not None and self.mask.dtype != torch.bool:
            raise ShapeError(f"mask is {self.mask.dtype}; it is boolean, True where the example is real: mask.bool().")

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """The same examples with `function` applied to every tensor."""
        return type(self)(
            function(self.x),
            function(self.y),
            None if self.mask is None else function(self.mask),
            None if self.domain is None else function(self.domain),
        )

    @property
    def n(self) -> int:
        """Examples a task."""
        return self.x.shape[1]

    def weights(self) -> Tensor:
        """Each example's share of a mean over its task, `(b, n)`: zero where it is masked out."""
        real = self.real().to(self.x.dtype if self.x.is_floating_point() else torch.float)
        return real / real.sum(1, keepdim=True).clamp_min(1)

    def cleared(self) -> Self:
        """The same examples with zeros for inputs and labels that are masked out, whatever was there."""
        if self.mask is None:
            return self
        return replace(self, x=zeroed(self.x, self.mask), y=zeroed(self.y, self.mask))

    def real(self) -> Tensor:
        """The mask, all True where there is none, `(b, n)`."""
        return torch.ones(self.x.shape[:2], dtype=torch.bool, device=self.x.device) if self.mask is None else self.mask


@dataclass(frozen=True)
class Task:
    """A batch of tasks: `support` to learn from, `query` to be judged on.

    Raises:
        ShapeError: Where inputs of support and query differ in shape, labels of the support set are not int64 in
            `[0, n_way)`, or targets of a regression are not floats `(b, n, out)`. Queries may be of no class that was
            shown, except where a loss is taken, and labels on a GPU are not looked at, which would wait for it.

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
    classes: Tensor | None = None
    """`(b, n_way)` int64: which class of the data set each label stands for, where the source knows."""

    def __post_init__(self) -> None:
        a, b = self.support.x, self.query.x
        if a.shape[:1] + a.shape[2:] != b.shape[:1] + b.shape[2:]:
            raise ShapeError(
                f"support inputs are {tuple(a.shape)} and query inputs {tuple(b.shape)}; "
                "they differ in the number of examples only, (tasks, examples, *input)."
            )
        if self.n_way is not None:
            check_labels("support", self.support, self.n_way)
            return
        for name, examples in (("support", self.support), ("query", self.query)):
            y = examples.y
            if not y.is_floating_point() or y.dim() != 3 or y.shape[2:] != self.support.y.shape[2:]:
                raise ShapeError(
                    f"{name} targets are {y.dtype} {tuple(y.shape)}; a regression has floats (tasks, examples, out), "
                    "as many in support and query: a single target is y[..., None]. A classification has an n_way."
                )

    @classmethod
    def of(cls, x: Tensor, y: Tensor, *, n_way: int | None = None) -> "Task":
        """One task of labelled examples, `(n, *input)` and `(n,)`, without queries: what a learner adapts to.

        Args:
            x: Inputs.
            y: int64 labels from 0 on, or the targets of a regression, floats `(n, out)`.
            n_way: Number of classes; by default one more than the largest label. A regression has none.

        Example:
            >>> import torch
            >>> from quickstudy import PrototypicalNetwork, Task
            >>> task = Task.of(torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([0, 0, 1]))
            >>> predict = PrototypicalNetwork(torch.nn.Identity()).adapt(task)
            >>> predict(torch.tensor([[[0.2], [4.0]]])).probs.argmax(-1)
            tensor([[0, 1]])
        """
        if n_way is None and not y.is_floating_point():
            n_way = int(y.max()) + 1
        support = Examples(x[None], y[None])
        return cls(support, support.map(lambda value: value[:, :0]), n_way)

    def __len__(self) -> int:
        return self.support.x.shape[0]

    def __getitem__(self, index: slice) -> "Task":
        """Some of the tasks, as a batch: `tasks[2:3]` is the third alone."""
        return self.map(lambda value: value[index])

    def map(self, function: Callable[[Tensor], Tensor]) -> "Task":
        """The same tasks with `function` applied to every tensor."""
        return Task(
            self.support.map(function),
            self.query.map(function),
            self.n_way,
            None if self.unlabelled is None else function(self.unlabelled),
            None if self.classes is None else function(self.classes),
        )

    def cleared(self) -> "Task":
        """The same tasks with zeros for all that is masked out."""
        if self.support.mask is None and self.query.mask is None:
            return self
        return replace(self, support=self.support.cleared(), query=self.query.cleared())

    def to(self, device: torch.device | str) -> "Task":
        """The same tasks on another device."""
        return self.map(lambda value: value.to(device, non_blocking=True))

    @property
    def everything(self) -> Examples:
        """Support and query as one labelled set, for learners that train on both."""
        a, b = self.support, self.query
        masked, several = (a.mask is not None or b.mask is not None), (a.domain is not None and b.domain is not None)
        return Examples(
            torch.cat([a.x, b.x], 1),
            torch.cat([a.y, b.y], 1),
            torch.cat([a.real(), b.real()], 1) if masked else None,
            torch.cat([a.domain, b.domain], 1) if several else None,  # type: ignore[list-item]
        )


def zeroed(x: Tensor, mask: Tensor) -> Tensor:
    """`(b, n, ...)` with zeros where the mask `(b, n)` is False."""
    return x.masked_fill(~mask.view(*mask.shape, *(1,) * (x.dim() - 2)), 0)


def check_labels(name: str, examples: Examples, n_way: int) -> None:
    """Raises ShapeError where labels of real examples are not int64 in `[0, n_way)`."""
    y = examples.y
    if y.dtype != torch.int64 or y.dim() != 2:
        raise ShapeError(
            f"{name} labels are {y.dtype} {tuple(y.shape)}; a {n_way}-way task has int64 (tasks, examples), "
            "and regression has n_way=None."
        )
    if y.device.type != "cpu" or not y.numel():
        return
    strange = (y < 0) | (y >= n_way)
    if examples.mask is not None:
        strange &= examples.mask
    if bool(strange.any()):
        raise ShapeError(
            f"a {name} label is {int(y[strange][0])}; those of a {n_way}-way task lie in 0..{n_way - 1}. "
            "Number the classes of each task from 0."
        )


class TaskSource(Protocol):
    """Where tasks come from."""

    def sample(self, b: int, *, generator: Generator) -> Task:
        """Draws `b` tasks. The same seed of a CPU `generator` gives the same tasks on any machine."""
        ...
