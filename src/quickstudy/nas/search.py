"""Architecture search on a task: the best small network within limits and seconds, trained."""

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import torch
from torch import Generator, Tensor, nn

from quickstudy.errors import DivergedError, ShapeError
from quickstudy.experience.front import front
from quickstudy.experience.proposer import Proposer
from quickstudy.experience.trial import TaskDescription
from quickstudy.nas.architecture import Architecture
from quickstudy.nas.bayesian_search import BayesianSearch
from quickstudy.nas.budget import ETA, FURTHER, RUNGS, Budget
from quickstudy.nas.build import Cost, Limits, count
from quickstudy.nas.hunt import fewer_errors, hunt, share
from quickstudy.nas.proxies import measure_latency
from quickstudy.nas.search_prior import SearchPrior, load_search_prior
from quickstudy.nas.space import Space
from quickstudy.nas.tiny import Tiny
from quickstudy.nas.train import SHARE, Schedule, answer, train
from quickstudy.nas.trainer import OnOneTask, Outcome, TrainingSet, real
from quickstudy.nas.tried import Progress, Tried
from quickstudy.nas.workers import one_thread
from quickstudy.tasks.task import Task, check_labels
from quickstudy.training.proportion import Share

OBJECTIVE = "validation accuracy %"
LARGEST = 1e30
"""Of an input: sums of many are finite."""
AGAIN = 3
"""Times that the latency of those that ended is measured once more where none keeps to its limit."""
WORTH = 0.5
"""The part of its last training's steps below which the chosen network does not go on."""
ASKED = 1000
"""Examples, at most, that a network is asked about before and after that."""
PRIOR = Path(__file__).parents[1] / "priors" / "tiny"


@dataclass(frozen=True)
class SearchResult:
    """A trained network, how good it is, and what else was tried."""

    space: Tiny
    architecture: Architecture
    network: nn.Sequential
    """In evaluation mode, `(n, *shape)` to logits `(n, classes)`. It standardises its inputs itself."""
    cost: Cost
    latency: float
    """Milliseconds of one prediction on one thread of this machine."""
    limits: Limits
    expected: Share
    """On the validation set, by which it was chosen: before it went on with those examples too."""
    further: int
    """Steps for which it then went on with all examples."""
    test: Share | None
    """On the query set, by which nothing was chosen; None where there is none."""
    confusion: Tensor | None
    """Of the query set, `(classes, classes)`: rows are true, columns answers."""
    tried: tuple[Tried, ...]
    finalists: tuple[tuple[Architecture, Share], ...]
    """Those that were trained to the end, the chosen one first."""
    too_slow: int
    """Networks that were measured and not tried, for a prediction takes longer than the limit."""
    seconds: float
    """Of searching, those before an interruption included."""
    ended: float
    """Of them, until the finalists were trained."""
    settings: Mapping[str, str] = field(default_factory=dict)
    cut: str | None = None
    """Where the seconds were over before the final training had all its steps: how many it had."""

    @property
    def final(self) -> dict[Architecture, float]:
        """The validation accuracy of the finalists, in per cent."""
        return {architecture: share.percent for architecture, share in self.finalists}

    @property
    def reached(self) -> dict[Architecture, float]:
        """What those that succeeded within the limits are expected to reach in the end, on validation, in per cent.

        Of finalists it is what they did reach. Of the others as many errors are left as of the finalists', whose last
        training was longer, geometrically.
        """
        values = {one.architecture: one.value for one in self.tried if one.value is not None and one.fits}
        gains = [(values[architecture], after) for architecture, after in self.final.items() if architecture in values]
        return {a: self.final.get(a, fewer_errors(value, gains)) for a, value in values.items()}

    def front(self, cost: str = "parameters") -> list[tuple[Architecture, float, float]]:
        """Architecture, cost and accuracy of those within the limits that nothing beats in both, the cheapest first.

        Accuracies are as in `reached`.

        Args:
            cost: `parameters`, `multiply_adds`, `peak_memory` or `latency`.
        """
        known, reached = [], self.reached
        for one in self.tried:
            price = one.latency if cost == "latency" else getattr(one.cost, cost)
            if one.architecture in reached:
                known.append((one.architecture, float(price), reached[one.architecture]))
        return front(known, cost=lambda one: one[1], value=lambda one: one[2])


@cache
def shipped_prior() -> SearchPrior:
    """What our corpus taught: the prior that comes with quickstudy."""
    return load_search_prior(PRIOR)


def search(
    task: Task,
    *,
    budget: Budget = Budget(),  # noqa: B008
    limits: Limits = Limits(),  # noqa: B008
    prior: SearchPrior | None = None,
    proposer: Proposer[Architecture, Space] | None = None,
    storage: str | Path | None = None,
    name: str = "task",
    schedule: Schedule | None = None,
    seed: int = 0,
    on_progress: Callable[[Progress], None] | None = None,
) -> SearchResult:
    r"""Finds the best network for a task within limits, and trains it.

    Proposals are trained on three quarters of the support set and judged on the rest. Training is by successive
    halving: a short training for every proposal, and one of three times as many steps where its accuracy is among the
    best third so far, of three or more, each with a complete schedule of its own. Those that stopped early count with
    as many of their errors as the others had left after going on. In the end the two best are trained for nine times as
    many steps, or more where there are seconds for it, and one of them is chosen on the validation set. It goes on, for
    one and a half times as many steps, with all of the support set, and is judged on the query set, which is looked at
    once.

    Args:
        task: A batch of one. Its support set is what is learned from, its query set what the result is tested on.
        budget: Seconds, trials, processes.
        limits: What the network may cost. No network that breaks one is trained; but latency is a measurement, and the
            result's is the least of the last ones, up to four (`SearchResult.latency`), which a busy machine may take
            beyond the limit.
        prior: What earlier tasks taught; None is the prior that comes with quickstudy. A proposer of your own is only
            told what it makes of the task.
        proposer: What to try, instead of Bayesian search around the prior: `BayesianSearch()` knows nothing.
        storage: Where trials are kept, a file of SQLite or a URL; a search of the same examples with the same seed goes
            on from there, and several may share it. None keeps them in memory.
        name: Of the task, in the storage.
        schedule: Batch, rates and moved inputs of each training; its steps follow from the budget. None is
            `Schedule.for_inputs`, which moves inputs by a pixel or step in 28; where their place says the class,
            `Schedule()` leaves them there.
        seed: Of all randomness. The clock decides how many trials there are: only searches by trials repeat exactly.
        on_progress: Is called when a trial has ended.

    Raises:
        NothingFitsError: Where no architecture keeps to the limits; the message says the smallest there is.
        TooFewExamplesError: Where a class has only one example.
        ShapeError: Where the task is not one of classification, or not a batch of one, or an input is not finite, or
            so large that sums are not.
        ArchitectureError: Where a proposer of your own gives what its space does not have.
        OutcomeError: Where no training succeeded, or where what is searched for cannot be sent to other processes.
        StudyError: Where the storage cannot be used, or holds another task by this name, or this one with another seed
            and so other validation examples.

    Example:
        >>> import torch
        >>> from quickstudy import Budget, Examples, Limits, Task, search
        >>> y = torch.arange(60) % 2
        >>> x = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0)) + y.view(-1, 1, 1, 1)
        >>> task = Task(Examples(x[None, :40], y[None, :40]), Examples(x[None, 40:], y[None, 40:]), n_way=2)
        >>> result = search(task, budget=Budget(seconds=None, trials=2, steps=5), limits=Limits(max_params=2000))
        >>> result.network(x).shape, result.test.n
        (torch.Size([60, 2]), 20)

    References:
        Li et al., [A System for Massively Parallel Hyperparameter Tuning](https://arxiv.org/abs/1810.05934), 2020. As
        in their asynchronous variant, a training that ends is compared with those that have ended; but one that was
        stopped is not taken up again.
    """
    start = time.perf_counter()
    space, data = open_task(task, seed)
    trainer, schedule = OnOneTask(space, data), schedule or Schedule.for_inputs(space.shape)
    known = "a proposer of your own"
    if isinstance(proposer, BayesianSearch) and proposer.prior is None:
        known = "nothing that earlier tasks taught"
    if proposer is None:
        prior = prior or shipped_prior()
        proposer = prior.proposer()
        tasks = prior.training.get("tasks")
        known = f"what {len(tasks)} earlier tasks taught" if tasks else "a prior of your own"
    hunted = hunt(
        trainer,
        task=TaskDescription(name) if prior is None else prior.describe(task, name),
        limits=limits,
        proposer=proposer,
        budget=budget,
        schedule=schedule,
        storage=storage,
        about={"objective": OBJECTIVE, "examples": len(data.y), "seed": seed, "digest of the examples": data.digest},
        seed=seed,
        start=start,
        on_progress=on_progress,
        keep=True,
    )
    networks = [trained(trainer, one, outcome, seed) for one, outcome in hunted.finalists]
    latencies = [measure_latency(network, space.shape) for network in networks]
    for _ in range(AGAIN):  # a busy moment makes networks slower, and none makes them faster
        if limits.max_latency is None or min(latencies) <= limits.max_latency:
            break
        latencies = [min(one, measure_latency(each, space.shape)) for one, each in zip(latencies, networks)]
    chosen = first_within(latencies, limits.max_latency)
    finalists = [hunted.finalists[chosen], *(one for i, one in enumerate(hunted.finalists) if i != chosen)]
    architecture, outcome = finalists[0]
    if on_progress is not None:
        on_progress(Progress.of("training the chosen one on all examples", hunted.tried, start=start, budget=budget))
    network, further = gone_on(
        networks[chosen],
        data,
        replace(schedule, steps=outcome.steps),
        seed=seed,
        step=outcome.seconds / outcome.steps,
        deadline=None if budget.seconds is None else start + budget.seconds,
        queries=task.query.x.shape[1],
    )
    test, confusion = judge(network, task)
    least = hunted.steps * ETA**RUNGS
    cut = None if outcome.steps >= least else f"{outcome.steps:,} of {least:,} steps"
    more = f", {further:,} more on all examples" if further else ""
    return SearchResult(
        space,
        architecture,
        network,
        count(space, architecture),
        latencies[chosen],
        limits,
        share(outcome),
        further,
        test,
        confusion,
        hunted.tried,
        tuple((one, share(of)) for one, of in finalists),
        hunted.too_slow,
        hunted.before + time.perf_counter() - start,
        hunted.ended,
        {
            "began with": known,
            "first rung": f"{hunted.steps} steps",
            "final training": (cut or f"{outcome.steps:,} steps") + more,
            "inputs": schedule.inputs,
            "seed": str(seed),
        },
        cut,
    )


def trained(trainer: OnOneTask, architecture: Architecture, outcome: Outcome, seed: int) -> nn.Sequential:
    """The network with the weights that training left."""
    network = trainer.network(architecture, seed=seed)
    network.load_state_dict(outcome.weights or {})
    return network.eval()


def gone_on(
    network: nn.Sequential,
    data: TrainingSet,
    schedule: Schedule,
    *,
    seed: int,
    step: float,
    deadline: float | None,
    queries: int = 0,
) -> tuple[nn.Sequential, int]:
    """The network that was chosen, trained further on all examples, those too by which it was chosen; and the steps.

    It stays as it is where the seconds are too few for that to be worth it, where the training diverges, or where it
    ends with fewer of these examples right than before: what normalisation remembers of a few small batches may be far
    from all of them. What other endings are worth is measured by `benchmarks/tiny_ending.py`.

    Args:
        network: In evaluation mode.
        data: Which it was trained on, and chosen by.
        schedule: Of the last training.
        seed: Of the order of the examples.
        step: Seconds that one takes.
        deadline: On the clock of `time.perf_counter`.
        queries: How many examples it is tested on by then.
    """
    some = torch.randperm(len(data.all[1]), generator=Generator().manual_seed(seed))[:ASKED]
    start = time.perf_counter()
    before = right_of(network, data, some)
    now = time.perf_counter()
    if deadline is not None:
        deadline -= (now - start) * (1 + queries / len(some))
    left = math.inf if deadline is None else deadline - now
    if SHARE * left < WORTH * schedule.steps * step:
        return network, 0
    further = copy.deepcopy(network)
    plan = replace(schedule, steps=int(FURTHER * schedule.steps))
    try:
        with one_thread():
            done = train(further, *data.all, plan, generator=Generator().manual_seed(seed), deadline=deadline)
    except DivergedError:
        return network, 0
    return (network, 0) if right_of(further, data, some) < before else (further, done.steps)


def right_of(network: nn.Module, data: TrainingSet, some: Tensor) -> int:
    """How many of some examples a network has right."""
    x, y = data.all
    return int((answer(network, x[some]).argmax(1) == y[some]).sum())


def first_within(latencies: Sequence[float], limit: float | None) -> int:
    """The first that keeps to the limit, now that it is trained; the fastest where none does."""
    kept = (i for i, latency in enumerate(latencies) if limit is None or latency <= limit)
    return next(kept, min(range(len(latencies)), key=latencies.__getitem__))


def open_task(task: Task, seed: int) -> tuple[Tiny, TrainingSet]:
    """The space of networks for a task, and its support set in two parts."""
    if len(task) != 1 or task.n_way is None:
        found = "of regression" if task.n_way is None else f"a batch of {len(task)}; take task[:1]"
        raise ShapeError(f"a search is for one task of classification, and this is {found}.")
    x, y = real(task.support)
    check_inputs(x)
    check_labels("query", task.query, task.n_way)
    if not bool(real(task.query)[0].isfinite().all()):
        raise ShapeError("an input of the query set is not finite. Leave such examples out, or fill the gaps.")
    return Tiny(shape=tuple(x.shape[1:]), n_classes=task.n_way), TrainingSet.of(x, y, n_classes=task.n_way, seed=seed)


def check_inputs(x: Tensor) -> None:
    """Raises ShapeError where inputs `(n, *input)` are not finite, too large, or all the same."""
    if not bool(x.isfinite().all()):
        raise ShapeError(
            "an input of the support set is not finite. Leave such examples out, or fill in what is missing."
        )
    if bool((x.abs() > LARGEST).any()):
        raise ShapeError(
            f"the inputs of the support set are as large as {float(x.abs().max()):.2g}, and their sums are not finite "
            "in float32. Divide them by a constant."
        )
    if bool((x == x[:1]).all()):
        raise ShapeError("all inputs of the support set are the same. Give inputs that tell classes apart.")


def judge(network: nn.Module, task: Task) -> tuple[Share | None, Tensor | None]:
    """How a network does on the query set, and what it takes for what; None where there are no queries."""
    x, y = real(task.query)
    if not len(y) or task.n_way is None:
        return None, None
    answers = answer(network, x).argmax(1)
    confusion = torch.zeros(task.n_way, task.n_way, dtype=torch.int64)
    confusion.index_put_((y, answers), torch.ones_like(y), accumulate=True)
    return Share(int((answers == y).sum()), len(y)), confusion
