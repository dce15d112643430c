"""When to answer "none of these": a threshold learned from tasks in which some queries are of no class."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from quickstudy.learners.learner import Learner
from quickstudy.tasks.episodes import Episodes, LabelledSet
from quickstudy.tasks.task import Examples, Task


@dataclass(frozen=True)
class Threshold:
    """Below which probability of the best class a query is taken for none of the classes."""

    n_way: int
    """Classes of the tasks that it was calibrated on."""
    n_shot: int
    """Their support examples a class."""
    probability: float
    """The threshold."""
    kept: float
    """Share of queries of the classes that it was set to keep, in per cent: an aim, met on the tasks of calibration."""
    refused: float
    """Share of queries of other classes that it refused on the tasks of calibration, in per cent."""


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
            generator = Generator().manual_seed(seed)
            source = Episodes(data, n_way=n_way + 1, n_shot=n_shot, n_query=min(3, least - n_shot))
            shown, other = [], []
            for _ in range(0, tasks, 4):
                task = source.sample(4, generator=generator)
                best, known = best_probabilities(learner, task, generator)
                shown.append(best[known])
                other.append(best[~known])
            threshold = float(torch.cat(shown).quantile(1 - keep / 100))
            refused = 100 * float((torch.cat(other) < threshold).double().mean())
            found.append(Threshold(n_way, n_shot, threshold, keep, refused))
    return found


@torch.no_grad()
def best_probabilities(learner: Learner, task: Task, generator: Generator) -> tuple[Tensor, Tensor]:
    """The probability of each query's best class where the last class is not shown, and whether it was; `(b, q)`."""
    last = (task.n_way or 0) - 1
    rest = [(task.support.y[i] != last).nonzero().squeeze(1) for i in range(len(task))]
    index = torch.stack(rest)  # (b, n)
    x = torch.stack([own[i] for own, i in zip(task.support.x, index)])
    support = Examples(x, task.support.y.gather(1, index))
    smaller = Task(support, task.query, last)
    probabilities = learner.adapt(smaller, generator=generator)(task.query.x).probs  # type: ignore[attr-defined]
    return probabilities.amax(-1), task.query.y != last


def to_settings(thresholds: Sequence[Threshold]) -> list[dict[str, Any]]:
    """Plain JSON values."""
    return [asdict(threshold) for threshold in thresholds]


def nearest(thresholds: Sequence[Mapping[str, Any]], n_way: int, n_shot: float) -> Threshold | None:
    """The threshold of the tasks that are most like one of this size; None where there is none."""
    known = [Threshold(**values) for values in thresholds]
    return min(known, key=lambda t: (abs(t.n_way - n_way) / (t.n_way + n_way), abs(t.n_shot - n_shot)), default=None)
