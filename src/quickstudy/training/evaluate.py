"""How well a learner adapts to tasks that it has not seen."""

import logging
import math
import time
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from quickstudy.errors import DivergedError, TaskError
from quickstudy.learners.boundary import check_finite
from quickstudy.learners.learner import Learner
from quickstudy.tasks.episodes import Mixture
from quickstudy.tasks.task import Examples, Task, TaskSource

logger = logging.getLogger(__name__)

NOISE = 0x9E3779B97F4A7C15  # far from any seed that a person would choose


@dataclass(frozen=True)
class Evaluation:
    """A mean over tasks, with its 95 % interval."""

    metric: str
    """"accuracy %", or "mean squared error" for regression."""
    values: Tensor
    """The metric of each task, `(tasks,)` float64 on the CPU."""
    seconds: float
    """Wall-clock time of adapting and predicting, sampling included."""

    @property
    def mean(self) -> float:
        return float(self.values.mean())

    @property
    def ci95(self) -> float:
        """Half the width of the 95 % interval of the mean over tasks: 1.96 standard errors; infinite for one task."""
        if len(self.values) < 2:
            return math.inf
        return 1.96 * float(self.values.std()) / math.sqrt(len(self.values))

    @property
    def n(self) -> int:
        """Number of tasks."""
        return len(self.values)

    @property
    def score(self) -> float:
        """The mean, signed so that more is better."""
        return self.mean if self.metric == "accuracy %" else -self.mean

    def __str__(self) -> str:
        digits = 2 if self.metric == "accuracy %" else 3
        return f"{self.mean:.{digits}f} ± {self.ci95:.{digits}f} {self.metric} ({self.n} tasks)"


def evaluate(
    learner: Learner, source: TaskSource, *, tasks: int = 600, batch: int = 8, seed: int = 1, device: str | None = None
) -> Evaluation:
    """Adapts `learner` to each of many tasks and judges it on their query sets.

    A task of classification to which an answer is not a number, because adapting diverged, counts as answered wrongly,
    and the log says how many there are.

    Args:
        learner: What is evaluated, in evaluation mode; its mode is restored.
        source: Where the tasks come from.
        tasks: How many; published comparisons take at least 600.
        batch: Tasks at a time; of a `Mixture` one, since it draws a whole batch from one member. Another number draws
            other tasks from the same seed.
        seed: Of the tasks, which are the same for every learner, and of the learner's own noise.
        device: Where the tasks go, such as that of a learner without parameters; by default where the learner is.

    Raises:
        TaskError: Where there are no tasks, or inputs or targets hold NaN or infinity, or some tasks are regressions
            and others are not.
        DivergedError: Where answers in a regression are not finite.

    Example:
        >>> import torch
        >>> from quickstudy import MLP, Episodes, LabelledSet, PrototypicalNetwork, evaluate
        >>> data = LabelledSet(torch.eye(4).repeat(10, 2), torch.arange(40) % 4, ("ant", "bee", "cat", "dog"))
        >>> evaluate(PrototypicalNetwork(MLP(8, 16)), Episodes(data, n_way=3, n_query=5), tasks=20).n
        20
    """
    if tasks < 1 or batch < 1:
        raise TaskError(f"{tasks} tasks, {batch} at a time, cannot be evaluated on: take at least 1.")
    batch = 1 if isinstance(source, Mixture) else batch
    generator = Generator().manual_seed(seed)
    # Noise has a generator of its own, so that a learner that draws much meets the same tasks as one that draws none.
    noise = Generator().manual_seed((seed + NOISE) % 2**63)
    where = device or next((p.device for p in learner.parameters()), torch.device("cpu"))
    training = learner.training
    learner.eval()
    values: list[Tensor] = []
    start = time.perf_counter()
    metrics = dict[str, None]()
    try:
        with torch.no_grad():
            for done in range(0, tasks, batch):
                # Whole batches are drawn and the surplus dropped, so that `tasks` does not change the first ones.
                drawn = source.sample(batch, generator=generator)[: tasks - done].to(where)
                values.append(judge(learner, drawn, noise).double().cpu())
                metrics["mean squared error" if drawn.n_way is None else "accuracy %"] = None
    finally:
        learner.train(training)
    if len(metrics) > 1:
        raise TaskError(f"these tasks have no one metric: {' and '.join(metrics)}. Evaluate each kind by itself.")
    (metric,) = metrics
    found = torch.cat(values)
    if n := int((lost := ~found.isfinite()).sum()):
        said = f"adapting to {n} of {tasks} tasks diverged: not all answers to them are finite"
        remedy = "Lower the inner rate (lr), or take fewer inner steps."
        if metric != "accuracy %":
            raise DivergedError(f"{said}, so that they have no {metric}. {remedy}")
        logger.warning("%s, and they count as answered wrongly. %s", said, remedy)
        found[lost] = 0.0
    return Evaluation(metric, found, time.perf_counter() - start)


def judge(learner: Learner, tasks: Task, generator: Generator | None = None) -> Tensor:
    """Per cent of the queries classified rightly, or mean squared error, a task, `(b,)`; an answer that is not finite
    makes that of its task so.
    """
    check_finite("query targets", tasks.query.y, tasks.query.mask)
    if tasks.query.mask is not None:  # each by itself: queries that help one another are not helped by what is no query
        return torch.cat([judge(learner, real_queries(tasks[i : i + 1]), generator) for i in range(len(tasks))])
    if not tasks.query.n:
        return torch.zeros(len(tasks), dtype=torch.float64)
    predicted = learner.adapt(tasks, generator=generator)(tasks.query.x)
    if tasks.n_way is None:
        right = (predicted.mean - tasks.query.y).square().mean(-1)
    else:
        best = predicted.logits.max(-1)  # type: ignore[attr-defined]
        right = (100.0 * (best.indices == tasks.query.y)).masked_fill(best.values.isnan(), math.nan)
    return right.double().mean(1)  # double throughout, so that all right is 100 and not 100.000003


def real_queries(task: Task) -> Task:
    """A single task without the queries that are masked out."""
    query, real = task.query, task.query.real()[0]
    return replace(task, query=Examples(query.x[:, real], query.y[:, real]))
