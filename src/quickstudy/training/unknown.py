"""When to answer "none of these": a threshold learned from tasks in which some queries are of no class."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Generator, Tensor

from quickstudy.learners.familiarity import familiarity
from quickstudy.learners.learner import Learner
from quickstudy.tasks.episodes import Episodes, LabelledSet
from quickstudy.tasks.task import Examples, Task


@dataclass(frozen=True)
class Threshold:
    """Below which familiarity a query is taken for none of the classes."""

    n_way: int
    """Classes of the tasks that it was calibrated on."""
    n_shot: int
    """Their support examples a class."""
    value: float
    """The threshold."""
    kept: float
    """Share of queries of the classes that it was set to keep, in per cent: an aim, met on the tasks of calibration."""
    refused: float
    """Share of queries of other classes that it refused on the tasks of calibration, in per cent."""
    score: Literal["familiarity", "probability"] = "familiarity"
    """Of what it is a threshold; priors of earlier versions have one of the probability of the best class."""

    def scores(self, learner: Learner, task: Task, *, generator: Generator | None = None) -> Callable[[Tensor], Tensor]:
        """What to compare with it: a function of queries `(b, q, *input)` to `(b, q)`."""
        if self.score == "familiarity":
            return familiarity(learner, task, generator=generator)
        predictor = learner.adapt(task, generator=generator)
        return lambda x: predictor(x).probs.amax(-1)  # type: ignore[attr-defined]

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "Threshold":
        """The threshold that `to_settings` wrote, or an earlier version, which called its value a probability."""
        values = dict(settings)
        if "probability" in values:
            values |= {"value": values.pop("probability"), "score": "probability"}
        return cls(**values)


def calibrate(
    learner: Learner,
    data: LabelledSet,
    *,
    keep: float = 95.0,
    n_ways: Sequence[int] = (2, 3, 5, 10, 20),
    n_shots: Sequence[int] = (1, 2, 3, 5, 10),
    queries: int = 500,
    seed: int = 2,
) -> list[Threshold]:
    """Thresholds for tasks of several sizes, from tasks in which more classes are asked about than were shown.

    As many others are asked about as are shown, or as many as the data have left.

    Args:
        learner: Meta-trained, in evaluation mode.
        data: Classes that it was not trained on, but not those of the test either.
        keep: Share of the queries of shown classes that a threshold keeps, in per cent.
        n_ways: Numbers of classes; those that the data or the learner cannot do are left out.
        n_shots: Numbers of support examples a class.
        queries: Of the classes shown, at least so many for each size. With 500 the share that is kept in other tasks
            of a size is `keep` to about one point, as a standard error.
        seed: Of the tasks.

    Returns:
        One a size; none where the data have fewer than three classes, since two are shown and one is not.
    """
    found, least = [], int(data.counts().min())
    for n_shot in n_shots:
        for n_way in n_ways:
            if n_way >= data.n_classes or n_shot >= least:
                continue
            n_query, strangers = min(3, least - n_shot), min(n_way, data.n_classes - n_way)
            shown, other = with_strangers(
                lambda task, generator: familiarity(learner, task, generator=generator),
                Episodes(data, n_way=n_way + strangers, n_shot=n_shot, n_query=n_query),
                strangers=strangers,
                tasks=math.ceil(queries / (n_way * n_query)),
                seed=seed,
            )
            value = float(shown.quantile(1 - keep / 100))
            refused = 100 * float((other < value).double().mean())
            found.append(Threshold(n_way, n_shot, value, keep, refused))
    return found


@torch.no_grad()
def with_strangers(
    scores: Callable[[Task, Generator], Callable[[Tensor], Tensor]],
    source: Episodes,
    *,
    strangers: int = 1,
    tasks: int,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """Scores of queries in tasks of which the last classes are not shown.

    Args:
        scores: Gives for a batch of tasks a function of queries to scores, `(b, q)`.
        source: Of tasks that have, beside the classes shown, those that are not.
        strangers: How many are not.
        tasks: How many, in whole batches of four.
        seed: Of the tasks.

    Returns:
        Those of the queries of the classes shown, and those of the others.
    """
    generator, shown, other = Generator().manual_seed(seed), [], []
    for _ in range(0, tasks, 4):
        task = without_the_last(source.sample(4, generator=generator), strangers)
        found, known = scores(task, generator)(task.query.x), task.query.y < (task.n_way or 0)
        shown.append(found[known])
        other.append(found[~known])
    return torch.cat(shown), torch.cat(other)


def without_the_last(task: Task, strangers: int = 1) -> Task:
    """The same tasks, with support examples of all classes but the last ones; queries stay as they are."""
    shown = (task.n_way or 0) - strangers
    index = torch.stack([(y < shown).nonzero().squeeze(1) for y in task.support.y])  # (b, n)
    x = torch.stack([own[i] for own, i in zip(task.support.x, index)])
    return Task(Examples(x, task.support.y.gather(1, index)), task.query, shown)


def to_settings(thresholds: Sequence[Threshold]) -> list[dict[str, Any]]:
    """Plain JSON values."""
    return [asdict(threshold) for threshold in thresholds]


def nearest(thresholds: Sequence[Mapping[str, Any]], n_way: int, n_shot: float) -> Threshold | None:
    """The threshold of the tasks that are most like one of this size, by ratio; None where there is none."""
    known = [Threshold.from_settings(values) for values in thresholds]
    return min(known, key=lambda t: abs(math.log(t.n_way / n_way)) + abs(math.log(t.n_shot / n_shot)), default=None)


def even_shots(counts: Tensor) -> float:
    r"""The shots of an even task whose class means are as noisy as those of an uneven one: the harmonic mean.

    A mean of $n_k$ examples has a noise of variance $\propto 1/n_k$. The threshold of the least $n_k$ would keep nearly
    all queries and let many strangers pass; that of the arithmetic mean would refuse too many of the poorer classes.

    Args:
        counts: Support examples of each class, `(k,)`.

    Example:
        >>> import torch
        >>> from quickstudy.training.unknown import even_shots
        >>> even_shots(torch.tensor([1, 2, 2])), even_shots(torch.tensor([5, 5]))
        (1.5, 5.0)
    """
    return len(counts) / float((1 / counts.double()).sum())
