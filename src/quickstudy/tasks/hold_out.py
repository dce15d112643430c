"""One task of a labelled set: most of it to learn from, the rest to be judged on."""

import torch
from torch import Generator, Tensor

from quickstudy.errors import ShapeError, TaskError, TooFewExamplesError
from quickstudy.tasks.episodes import LabelledSet, to_float
from quickstudy.tasks.task import Examples, Task

LEAST = 2
"""Examples of each class to learn from: one to train on, one to validate on. The test set has one more."""
_NAMED = 5  # classes that an error names


def hold_out(data: LabelledSet, *, test: float = 0.2, seed: int = 0) -> Task:
    """A labelled set as one task, whose query set is a stratified share of it.

    Of a class with $n$ examples, $n$ times `test` are held out, to the nearest example, but at least one, and so
    few that two remain. Which ones is random, the order of the set is kept.

    Args:
        data: The labelled set. Pictures in uint8 become floats in [0, 1].
        test: The share that is held out, between 0 and 1.
        seed: Decides which examples are held out; the same seed holds out the same ones on any machine.

    Returns:
        A batch of one task: support `(1, n, *input)` to learn from, query `(1, m, *input)` to be judged on.

    Raises:
        TaskError: Where `test` is no share.
        TooFewExamplesError: Where there is one class only, or a class has fewer than three examples.

    Example:
        >>> import torch
        >>> from quickstudy import LabelledSet
        >>> from quickstudy.tasks.hold_out import hold_out
        >>> data = LabelledSet(torch.rand(30, 1, 8, 8), torch.arange(30) % 3, ("ant", "bee", "cat"))
        >>> task = hold_out(data, test=0.2)
        >>> task.support.x.shape, task.query.x.shape, task.n_way
        (torch.Size([1, 24, 1, 8, 8]), torch.Size([1, 6, 1, 8, 8]), 3)
    """
    if not 0 < test < 1:
        raise TaskError(f"test={test} is no share of the examples: take one between 0 and 1, such as 0.2.")
    check_classes(data, LEAST + 1, "one each to train, to validate and to test on")
    generator = Generator().manual_seed(seed)
    held_out = torch.zeros(len(data.y), dtype=torch.bool)
    for label, count in enumerate(data.counts().tolist()):
        rows = (data.y == label).nonzero().flatten().cpu()
        n = min(max(1, round(test * count)), count - LEAST)
        held_out[rows[torch.randperm(count, generator=generator)[:n]]] = True
    held_out = held_out.to(data.y.device)
    return task_of(data, ~held_out, held_out)


def with_test_set(data: LabelledSet, test: LabelledSet) -> Task:
    """A labelled set to learn from and another one to be judged on, as one task.

    Args:
        data: The support set.
        test: The query set, with the same classes in the same order; some may have no examples here.

    Raises:
        ShapeError: Where classes or inputs of the two differ.
        TooFewExamplesError: Where there is one class only, a class has fewer than two examples to learn from, or there
            is nothing to be judged on.
    """
    if data.class_names != test.class_names or data.x.shape[1:] != test.x.shape[1:]:
        raise ShapeError(
            f"the test set has inputs of {tuple(test.x.shape[1:])} and {test.n_classes} classes, the training set "
            f"{tuple(data.x.shape[1:])} and {data.n_classes}: both have the same, in the same order."
        )
    if not len(test.y):
        raise TooFewExamplesError("the test set is empty. Add examples, or leave it out, and a share is held out.")
    check_classes(data, LEAST, "one to train and one to validate on")
    support, query = (Examples(to_float(part.x)[None], part.y[None]) for part in (data, test))
    return Task(support, query, data.n_classes)


def task_of(data: LabelledSet, support: Tensor, query: Tensor) -> Task:
    """One task of the rows that two masks `(n,)` choose."""
    a, b = (Examples(to_float(data.x[rows])[None], data.y[rows][None]) for rows in (support, query))
    return Task(a, b, data.n_classes)


def check_classes(data: LabelledSet, least: int, why: str) -> None:
    """Raises TooFewExamplesError where there is one class, or one with fewer than `least` examples."""
    if data.n_classes < 2:
        only = f", {data.class_names[0]!r}" if data.class_names else ""
        raise TooFewExamplesError(
            f"the data have {data.n_classes} class{only}: there is nothing to tell apart. Add examples of another one."
        )
    counts = data.counts().tolist()
    if poor := [(name, count) for name, count in zip(data.class_names, counts) if count < least]:
        named = ", ".join(f"{name!r} has {count}" for name, count in poor[:_NAMED])
        more = f", and {len(poor) - _NAMED} more classes have too few" if len(poor) > _NAMED else ""
        raise TooFewExamplesError(
            f"every class needs at least {least} examples, {why}; {named}{more}. Add some, or leave the class out."
        )
