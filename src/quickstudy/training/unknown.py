"""When to answer "none of these": a threshold learned from tasks in which some queries are of no class."""

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
    n_shots: Sequence[int] = (1, 5),
    tasks: int = 100,
    seed: int = 2,
) -> list[Threshold]:
    """Thresholds for tasks of several sizes, from tasks in which one more class is asked about than was shown.

    Args:
        learner: Meta-trained, in evaluation mode.
        data: Classes that it was not trained on, but not those of the test either.
        keep: Share of the queries of shown classes that a threshold keeps, in per cent.
        n_ways: Numbers of classes; those that the data or the learner cannot do are left out.
        n_shots: Numbers of support examples a class.
        tasks: Number of tasks of each size.
        seed: Of the tasks.

    Returns:
        One a size; none where the data have fewer than three classes, since two are shown and one is not.
    """
    found, least = [], int(data.counts().min())
    for n_shot in n_shots:
        for n_way in n_ways:
            if n_way >= data.n_classes or n_shot >= least:
                continue
            shown, other = with_strangers(
                lambda task, generator: familiarity(learner, task, generator=generator),
                Episodes(data, n_way=n_way + 1, n_shot=n_shot, n_query=min(3, least - n_shot)),
                tasks=tasks,
                seed=seed,
            )
            value = float(shown.quantile(1 - keep / 100))
            refused = 100 * float((other < value).double().mean())
            found.append(Threshold(n_way, n_shot, value, keep, refused))
    return found


@torch.no_grad()
def with_strangers(
    scores: Callable[[Task, Generator], Callable[[Tensor], Tensor]], source: Episodes, *, tasks: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Scores of queries in tasks of which the last class is not shown.

    Args:
        scores: Gives for a batch of tasks a function of queries to scores, `(b, q)`.
        source: Of tasks with one class more than is shown.
        tasks: How many, in whole batches of four.
        seed: Of the tasks.

    Returns:
        Those of the queries of the classes shown, and those of the others.
    """
    generator, shown, other = Generator().manual_seed(seed), [], []
    for _ in range(0, tasks, 4):
        task = source.sample(4, generator=generator)
        found, known = scores(without_the_last_class(task), generator)(task.query.x), task.query.y != source.n_way - 1
        shown.append(found[known])
        other.append(found[~known])
    return torch.cat(shown), torch.cat(other)


def without_the_last_class(task: Task) -> Task:
    """The same tasks, with support examples of all classes but the last; queries stay as they are."""
    last = (task.n_way or 0) - 1
    index = torch.stack([(y != last).nonzero().squeeze(1) for y in task.support.y])  # (b, n)
    x = torch.stack([own[i] for own, i in zip(task.support.x, index)])
    return Task(Examples(x, task.support.y.gather(1, index)), task.query, last)


def to_settings(thresholds: Sequence[Threshold]) -> list[dict[str, Any]]:
    """Plain JSON values."""
    return [asdict(threshold) for threshold in thresholds]


def nearest(thresholds: Sequence[Mapping[str, Any]], n_way: int, n_shot: float) -> Threshold | None:
    """The threshold of the tasks that are most like one of this size; None where there is none."""
    known = [Threshold.from_settings(values) for values in thresholds]
    return min(known, key=lambda t: (abs(t.n_way - n_way) / (t.n_way + n_way), abs(t.n_shot - n_shot)), default=None)
