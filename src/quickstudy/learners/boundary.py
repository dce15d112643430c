"""What a learner says to options and inputs that it cannot take, in place of what PyTorch says."""

import functools
import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from quickstudy.errors import ShapeError, TaskError, is_out_of_memory
from quickstudy.nets.choices import check_choices
from quickstudy.tasks.task import Task, check_labels

Method = Callable[..., Any]
PLAIN = str | int | float | None


def refusing_init(init: Method) -> Method:
    """`init`, which refuses an option that is none of its choices, and a number of steps below zero.

    The learner's `options` are then those of its own class, defaults among them, that are plain values, and its
    `functions` the names of those that are functions, and were given.
    """
    signature = inspect.signature(init)

    @functools.wraps(init)
    def checked(self: Any, *arguments: Any, **options: Any) -> None:
        name = type(self).__name__
        check_choices(name, init, options)
        for option, value in options.items():
            if option.endswith("steps") and isinstance(value, int) and value < 0:
                raise ShapeError(f"{option} is {value}, but for {name} it is at least 0.")
        init(self, *arguments, **options)
        given = signature.bind(self, *arguments, **options)
        given.apply_defaults()
        self.options = {name: value for name, value in given.arguments.items() if isinstance(value, PLAIN)}
        self.functions = tuple(
            name
            for name, parameter in signature.parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY
            and callable(value := given.arguments[name])
            and value is not parameter.default
        )

    return checked


def refusing_adapt(adapt: Method) -> Method:
    """`adapt`, whose errors over inputs, and those of the predictor that it returns, are one sentence each."""

    @functools.wraps(adapt)
    def checked(self: nn.Module, task: Task, **options: Any) -> Callable[[Tensor], Distribution]:
        check_finite("support inputs", task.support.x, task.support.mask)
        check_finite("support targets", task.support.y, task.support.mask)
        task = task.cleared()
        with plainly(self, task.support.x):
            predictor: Callable[[Tensor], Distribution] = adapt(self, task, **options)
        expected = task.support.x.shape

        def predict(x: Tensor) -> Distribution:
            check_like_support(x, expected)
            check_finite("queries", x)
            with plainly(self, x):
                return predictor(x)

        return predict

    return checked


def refusing_loss(loss: Method) -> Method:
    """`loss`, whose errors over inputs and labels are one sentence each."""

    @functools.wraps(loss)
    def checked(self: nn.Module, tasks: Task, **options: Any) -> Tensor:
        if tasks.n_way is not None:
            check_labels("query", tasks.query, tasks.n_way)
        tasks = tasks.cleared()
        with plainly(self, tasks.support.x):
            found: Tensor = loss(self, tasks, **options)
        return found

    return checked


def check_finite(name: str, x: Tensor, mask: Tensor | None = None) -> None:
    """Raises TaskError where real examples `(b, n, *input)` hold NaN or infinity, unless on a GPU, which would wait."""
    if x.device.type != "cpu" or not x.is_floating_point():
        return
    bad = ~x.isfinite().flatten(2).all(-1) if x.dim() > 2 else ~x.isfinite()
    if mask is not None:
        bad &= mask
    if n := int(bad.sum()):
        raise TaskError(f"{n} of {bad.numel()} {name} hold NaN or infinity. Remove or impute them.")


def check_like_support(x: Tensor, support: torch.Size) -> None:
    """Raises ShapeError where queries are not those of the tasks that a predictor was adapted to."""
    if x.shape[:1] + x.shape[2:] != support[:1] + support[2:] or x.dim() < 2:
        raise ShapeError(
            f"queries are {tuple(x.shape)}, and the support set was {tuple(support)}: they differ in the number of "
            "examples only, (tasks, examples, *input). A single task is a batch of one: x[None]."
        )


@contextmanager
def plainly(learner: nn.Module, x: Tensor) -> Iterator[None]:
    """Within it, an error of PyTorch that inputs `(b, n, *input)` are to blame for is a ShapeError about them."""
    try:
        yield
    except NotImplementedError:
        raise
    except (RuntimeError, ValueError, IndexError) as error:
        if is_out_of_memory(error) or (told := blame(learner, x, error)) is None:
            raise
        raise ShapeError(told) from error


def blame(learner: nn.Module, x: Tensor, error: Exception) -> str | None:
    """What is wrong with inputs that a learner stumbled over; None where it is something else."""
    name = type(learner).__name__
    ours = next((p for p in learner.parameters() if p.is_floating_point()), None)
    dtype = torch.get_default_dtype() if ours is None else ours.dtype
    why = " ".join(str(error).split())
    if x.dtype == torch.uint8:
        return f"inputs are {x.dtype}, and this {name} computes in {dtype}. Give pictures as x.float() / 255."
    if not x.is_floating_point() and re.search(r"type|Float|Double", why):
        return f"inputs are {x.dtype}, and this {name} computes in {dtype}. Give inputs as x.to({dtype})."
    if ours is not None and x.is_floating_point() and x.dtype != dtype and not torch.is_autocast_enabled(x.device.type):
        return f"inputs are {x.dtype}, and this {name} computes in {dtype}. Give inputs as x.to({dtype})."
    if ours is not None and x.device != ours.device:
        return f"inputs are on {x.device}, and this {name} is on {ours.device}. Move it: learner.to({str(x.device)!r})."
    if re.search(r"shape|size|channel|dimension", why) is None:
        return None
    return (
        f"inputs are {tuple(x.shape[2:])}, and this {name} cannot take them: {why[:300].rstrip('.')}. "
        "Give inputs of the size that its network was built for."
    )
