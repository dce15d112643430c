"""Search in Tiny, on tasks of our corpus: among networks that were measured, and live with a clock.

    python benchmarks/tiny_search.py --list                            the units, and which have rows
    python benchmarks/tiny_search.py --part table                      all units of the corpus without rows
    python benchmarks/tiny_search.py --part live --seconds 20          searches that train
    python benchmarks/tiny_search.py --part live --only quickstudy     some methods
    python benchmarks/tiny_search.py --part proposals                  what a proposal takes
    python benchmarks/tiny_search.py --smoke                           tiny, into a temporary folder

The first two parts deal the data sets of the corpus to four folds, and learn what is known when a task is searched from
the tasks of the other folds, none of which is of the same data set.

**table.** A method searches the networks that were measured on a task, and no others. The objective is the validation
accuracy of one seed, the report the test accuracy of the other, and regret is what the network that a method would
return is behind the best one by the report, in points. A unit is a method on a task. Methods that draw search 20 times,
and those that draw nothing twice, each seed being the objective once. Rows are means over tasks; the interval is
Student's over tasks, of the means over repetitions. Rows that follow from the corpus, live ones too, are of one state
of it: once it has changed they are taken out, and measured again.

Few measured networks differ in one choice only. So the neighbours of a network are the nearest ones, Optuna's answer is
taken for the nearest one that is left, and AON, which goes from neighbour to neighbour, has no part in this.

- `best_fixed_architecture` is rank transfer: it goes by the mean rank on the other tasks, among the networks that all
  tasks have in common; between pictures and series nothing is common, and the nearest network's rank stands in.
- `largest_that_fits` goes by multiply-adds.
- `random_forest` is trained on the other tasks' one-hot codes, `random_forest_with_costs` also on the logarithms of
  parameters, multiply-adds and peak memory.
- `bayesian_search` is ours: around AEN, which is told costs and the embedding of the task. `shuffled_prior` has an AEN
  that learned from the other tasks with their outcomes exchanged at random, so that it knows nothing.

**live.** Every method has the same seconds of one core, and the same limits. Seconds are the processor's: clocks are
set to them, so that other work on the machine takes none. Those that search do so with `quickstudy.search`, that is
with the same halving and final trainings, and set a quarter of the examples aside to choose by; the others train one
network on all examples, for all of the seconds. A search moves half of its inputs about at random; the single networks
are trained without that, as by a plain loop, and with it (`moved`). A search ends when its final trainings have had
their steps, which may be before its seconds are over: the more so, the smaller its networks. The rows "seconds used"
say it.

The rows of single tasks and seeds make means over tasks, with Student's interval over tasks, of the means over seeds.
`--targets all` are all tasks of the corpus. AEN's passes and dropout, and the settings that all searches share, how
inputs are moved, how long trainings are and how a search ends, were chosen on those that are not in the list that is
the default, so that means over all of them flatter; that a trial goes on only once three have been compared was chosen
with all of them in view. Optuna draws three networks at random before
its estimator begins, as a search with few seconds tries less than ten, its own default. "Within the expected interval"
is how often the test accuracy lies in the interval that a search expects by its validation set.

`quickstudy_without_prior` knows no AEN, and therefore no AON; `quickstudy_without_bayesian_optimisation` takes AON's
proposals as they come, without a surrogate of the task. `quickstudy_without_feedback` trains what the prior would try
first as the single networks are trained, with moved inputs.

**proposals.** Milliseconds of one proposal of a search with the prior that comes with quickstudy, within the limits of
the live searches: of the first, which embeds the members that are always candidates, and of those after so many trials,
whose values are made up.
"""

import argparse
import hashlib
import json
import math
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from corpora.prior import MEMBERS, embedded
from corpora.tasks import load
from corpora.tiny import Size, architectures, plain_networks
from nas_tables import trials_of
from result import HERE, Result, cpu
from scipy.stats import t as student
from torch import Generator, Tensor

from quickstudy.experience.proposer import Proposer
from quickstudy.experience.trial import TaskDescription, Trial
from quickstudy.nas.architecture import Architecture, Value
from quickstudy.nas.baselines.bananas import Bananas
from quickstudy.nas.baselines.evolution import Evolution
from quickstudy.nas.baselines.forest import Forest
from quickstudy.nas.baselines.graph_ensemble import GraphEnsemble
from quickstudy.nas.baselines.in_order import InOrder
from quickstudy.nas.baselines.local_search import LocalSearch
from quickstudy.nas.baselines.random_search import RandomSearch
from quickstudy.nas.bayesian_search import BayesianSearch
from quickstudy.nas.budget import Budget
from quickstudy.nas.build import Limits, count
from quickstudy.nas.corpus import HOME, PROXIES, Measured, tiny_corpus
from quickstudy.nas.facts import log_costs
from quickstudy.nas.limited import Limited
from quickstudy.nas.search import judge, open_task, search, shipped_prior
from quickstudy.nas.search_prior import (
    DROPOUT,
    ITERATIONS,
    PASSES,
    STEPS,
    SearchPrior,
    learn_search_prior,
    load_search_prior,
    save_search_prior,
)
from quickstudy.nas.source import Source, parted
from quickstudy.nas.space import Space, draw
from quickstudy.nas.tables import seeded
from quickstudy.nas.tiny import Tiny
from quickstudy.nas.train import Schedule, train
from quickstudy.nas.trainer import untrained
from quickstudy.tasks.task import Task

Search = Proposer[Architecture, Space]

FOLDS = 4
EPOCHS: int | None = None
"""Of AEN; None: those of the prior that comes with quickstudy."""
MARKS = (1, 2, 3, 5, 10, 20)
REPETITIONS = 20
NEAREST = 8
"""Measured networks that count as neighbours."""
DRAWN = 1000
"""Draws in which Bayesian search comes by all of the measured networks."""
SEEDS = 2
"""Of the corpus, of which one is the objective and the other the report."""
PRIORS = HERE / "checkpoints" / "tiny_search"
REGRET, TEST = "regret", "test accuracy %"
AHEAD = "points that quickstudy is ahead"
"""In test accuracy, the mean over tasks of the means over seeds."""
WITHIN = "within the expected interval %"
"""How often the test accuracy is where the search expected it."""
COUNTED = {"seconds used": "seconds", "networks tried": "trials", "networks beyond a limit": "violated"}
"""What means of live searches tell besides, and its key in a row; the last is a sum."""
ORDERED = ("width", "depth", "stages")
"""Choices whose values have an order."""


class Listed(Limited):
    """Some members of a space, and nothing between them."""

    def __init__(self, space: Space, members: Sequence[Architecture]) -> None:
        super().__init__(space, frozenset(members).__contains__, members)
        self._near: dict[Architecture, list[Architecture]] = {}

    def canonical(self, architecture: Architecture) -> Architecture:
        """Itself: what was measured under two names is there twice."""
        return architecture

    def sample(self, *, generator: Generator) -> Architecture:
        """One of them, uniformly."""
        return self.starts[draw(len(self.starts), generator)]

    def neighbours(self, architecture: Architecture) -> Iterator[Architecture]:
        """The nearest ones."""
        if architecture not in self._near:
            others = [other for other in self.starts if other != architecture]
            others.sort(key=lambda other: distance(self.choices, architecture.values, other.values))
            self._near[architecture] = others[:NEAREST]
        return iter(self._near[architecture])


def distance(choices: Mapping[str, Sequence[Value]], one: Mapping[str, Value], other: Mapping[str, Value]) -> float:
    """Over these choices: 1 for each that differs, less where values are in order and near."""
    total = 0.0
    for name, options in choices.items():
        if one[name] != other[name]:
            apart = abs(options.index(one[name]) - options.index(other[name])) / (len(options) - 1)
            total += apart if name in ORDERED else 1.0
    return total


class Parzen(Search):
    """Optuna's tree-structured Parzen estimator over some choices: the nearest of the members that are left to it.

    Args:
        names: Of the choices.
        members: Finds those that may be proposed.
        initial: Trials before it is asked, Optuna's default.
    """

    def __init__(
        self, names: Sequence[str], members: Callable[[Space], Sequence[Architecture]], *, initial: int = 10
    ) -> None:
        self.names, self.members, self.initial = names, members, initial

    def propose(
        self,
        task: TaskDescription,
        trials: Sequence[Trial[Architecture]],
        space: Space,
        *,
        n: int = 1,
        generator: Generator,
    ) -> list[Architecture]:
        """One."""
        seen = {trial.choice for trial in trials}
        left = [a for a in self.members(space) if a not in seen]
        if not left or len(trials) < self.initial:
            return [left[draw(len(left), generator)]] if left else []
        choices = {name: space.choices[name] for name in self.names}
        wanted = self.ask(choices, trials, draw(2**31, generator))
        apart = [distance(choices, wanted, a.values) for a in left]
        nearest = [a for a, far in zip(left, apart) if far <= min(apart) + 1e-9]
        return [nearest[draw(len(nearest), generator)]]

    def ask(
        self, choices: Mapping[str, Sequence[Value]], trials: Sequence[Trial[Architecture]], seed: int
    ) -> Mapping[str, Value]:
        """The values that the sampler would try."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        distributions: dict[str, optuna.distributions.BaseDistribution] = {
            name: optuna.distributions.CategoricalDistribution(tuple(options)) for name, options in choices.items()
        }
        sampler = optuna.samplers.TPESampler(n_startup_trials=self.initial, seed=seed)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        study.add_trials(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState.FAIL if trial.value is None else optuna.trial.TrialState.COMPLETE,
                value=trial.value,
                params={name: trial.choice[name] for name in choices},
                distributions=distributions,
            )
            for trial in trials
        )
        return study.ask(distributions).params


FOLDER = [HOME]
"""Of the corpus."""


@cache
def corpus() -> dict[str, Measured]:
    """The tasks."""
    return tiny_corpus(FOLDER[0])


def digest() -> str:
    """Of the corpus: of all outcomes."""
    found = hashlib.sha256()
    for name, one in sorted(corpus().items()):
        found.update(name.encode() + "".join(map(str, one.architectures)).encode())
        found.update(one.validation.numpy().tobytes() + one.test.numpy().tobytes())
    return found.hexdigest()[:12]


@cache
def folds() -> tuple[tuple[str, ...], ...]:
    """The tasks in four parts of about the same size; all tasks of a data set are in one."""
    return parted({name: one.data for name, one in corpus().items()}, FOLDS)


def sources(target: str) -> dict[str, Measured]:
    """The tasks of the other folds."""
    own = next(part for part in folds() if target in part)
    return {name: one for name, one in corpus().items() if name not in own}


@dataclass(frozen=True)
class Variant:
    """What AEN learns from."""

    task: bool = True
    """Whether it is told embeddings."""
    shuffled: bool = False
    """Whether the outcomes of each task are exchanged at random; AON learns nothing then."""


COMPLETE, BLIND, SHUFFLED = Variant(), Variant(task=False), Variant(shuffled=True)


_PRIORS: dict[str, SearchPrior] = {}


def prior_of(target: str, variant: Variant = COMPLETE) -> SearchPrior:
    """What the other folds taught."""
    known = sources(target)
    text = json.dumps([digest(), list(known), vars(variant), MEMBERS, EPOCHS, PASSES, STEPS, DROPOUT])
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    if key not in _PRIORS:
        path = PRIORS / key
        if not path.exists():
            start = time.process_time()
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(prefix=f"{key}.", suffix=".tmp", dir=path.parent))
            save_search_prior(partial, learn_prior(known, variant))
            try:
                partial.rename(path)
            except OSError:  # another process was first
                shutil.rmtree(partial)
            print(f"a prior of {len(known)} tasks, {variant}: {time.process_time() - start:.0f} s", flush=True)
        _PRIORS[key] = load_search_prior(path)
    return _PRIORS[key]


def learn_prior(known: Mapping[str, Measured], variant: Variant) -> SearchPrior:
    """From what became of members of Tiny on these tasks."""
    encoder, embeddings = embedded(list(known), learn_from=list(known)) if variant.task else (None, {})
    experience = {name: one.rows(task=embeddings.get(name)) for name, one in known.items()}
    if variant.shuffled:
        for name, rows in experience.items():
            order = torch.randperm(len(rows), generator=seeded("shuffled", name))
            experience[name] = replace(rows, values=rows.values[order])
    iterations = 0 if variant.shuffled else ITERATIONS
    return learn_search_prior(experience, encoder=encoder, members=MEMBERS, epochs=EPOCHS, iterations=iterations)


@cache
def data(name: str) -> Task:
    """The examples of a task."""
    return load(name)[0]


@dataclass(frozen=True)
class Method:
    """How a task is searched, among its measured networks."""

    make: Callable[[str], Search]
    """From the name of the task."""
    variant: Variant | None = None
    """Of the prior, by which the task is described."""
    draws: bool = True
    """Whether it draws anything."""


def ours(variant: Variant = COMPLETE, *, guarded: bool = True, feedback: bool = True) -> Method:
    """Bayesian search around what AEN says, without AON."""

    def make(target: str) -> Search:
        prior = replace(prior_of(target, variant), aon=None)
        return prior.proposer(drawn=DRAWN, guarded=guarded, feedback=feedback)

    return Method(make, variant, draws=False)


def best_fixed(target: str) -> list[Architecture]:
    """The networks in common with other tasks, by their mean rank there, the best first."""
    own = corpus()[target]
    common, ranks = own.architectures[: own.n_common], []
    for one in sources(target).values():
        rank, choices = one.rows().ranks, one.space.choices
        there = [(a.values, r) for a, r in zip(one.architectures[: one.n_common], rank.tolist())]
        ranks.append([min(there, key=lambda o: distance(choices, a.values, o[0]))[1] for a in common])
    means = [statistics.fmean(each) for each in zip(*ranks)]
    return [common[i] for i in sorted(range(len(common)), key=lambda i: -means[i])]


def largest(target: str) -> list[Architecture]:
    """The measured networks by multiply-adds."""
    own = corpus()[target]
    order = own.proxies[:, PROXIES.index("multiply_adds")].argsort(descending=True)
    return [own.architectures[i] for i in order.tolist()]


def by_costly_forest(target: str) -> list[Architecture]:
    """The measured networks as a forest on codes and costs orders them."""
    from sklearn.ensemble import RandomForestRegressor

    def inputs(one: Measured) -> np.ndarray:
        costs = log_costs(one.space, one.architectures)
        return torch.cat([one.space.one_hot(one.architectures).double(), costs], 1).numpy()

    known, own = sources(target).values(), corpus()[target]
    forest = RandomForestRegressor(200, random_state=0, n_jobs=1)
    forest.fit(np.concatenate([inputs(one) for one in known]), torch.cat([o.rows().ranks for o in known]).numpy())
    order = np.argsort(-forest.predict(inputs(own)), kind="stable").tolist()
    return [own.architectures[i] for i in order]


def by_forest(target: str) -> Search:
    """The library's forest, on codes."""
    space = corpus()[target].space
    return Forest(Source(space, {name: one.rows() for name, one in sources(target).items()}), drawn=DRAWN)


METHODS: dict[str, Method] = {
    "random": Method(lambda target: RandomSearch()),
    "local_search": Method(lambda target: LocalSearch()),
    "evolution": Method(lambda target: Evolution()),
    "bananas": Method(lambda target: Bananas()),
    "graph_network_without_transfer": Method(lambda target: GraphEnsemble()),
    "optuna_all_choices": Method(lambda target: Parzen(list(corpus()[target].space.choices), measured)),
    "optuna_width_and_depth": Method(lambda target: Parzen(["width", "depth"], measured)),
    "best_fixed_architecture": Method(lambda target: InOrder(best_fixed(target)), draws=False),
    "largest_that_fits": Method(lambda target: InOrder(largest(target)), draws=False),
    "random_forest": Method(by_forest, draws=False),
    "random_forest_with_costs": Method(lambda target: InOrder(by_costly_forest(target)), draws=False),
    "bayesian_search_without_aen": Method(lambda target: BayesianSearch(None, drawn=DRAWN)),
    "bayesian_search": ours(),
    "bayesian_search_without_task_embedding": ours(BLIND),
    "bayesian_search_without_feedback": ours(feedback=False),
    "bayesian_search_without_guard": ours(guarded=False),
    "shuffled_prior": ours(SHUFFLED),
    "shuffled_prior_without_guard": ours(SHUFFLED, guarded=False),
}
NOTHING_KNOWN = "bayesian_search_without_aen"


def measured(space: Space) -> Sequence[Architecture]:
    """The networks of a `Listed`."""
    assert isinstance(space, Listed)
    return space.starts


def run_table(name: str, target: str, repetitions: int) -> dict[str, list[list[float]]]:
    """Regret at each mark of each repetition: of what the method returns, and of the best value."""
    method, one = METHODS[name], corpus()[target]
    space, search_of = Listed(one.space, one.architectures), method.make(target)
    index = {architecture: i for i, architecture in enumerate(one.architectures)}
    task = TaskDescription(target)
    if method.variant is not None:
        task = prior_of(target, method.variant).describe(data(target), target)
    found: dict[str, list[list[float]]] = {REGRET: [], f"{REGRET} of the best value": []}
    for repetition in range(repetitions if method.draws else SEEDS):
        seed = repetition % SEEDS
        objective, report = one.validation[:, seed].tolist(), 100 * one.test[:, 1 - seed].nan_to_num()
        trials: list[Trial[Architecture]] = []
        rows: dict[str, list[float]] = {metric: [] for metric in found}
        for number in range(MARKS[-1]):
            generator = seeded("tiny search", target, repetition, number)
            (choice,) = search_of.propose(task, tuple(trials), space, generator=generator)
            if choice not in index or any(choice == trial.choice for trial in trials):
                raise AssertionError(f"{name} proposed {choice}.")
            value = objective[index[choice]]
            trials.append(Trial(choice, value if math.isfinite(value) else None))
            if number + 1 in MARKS:
                best = Proposer.incumbent(search_of, task, tuple(trials), space)
                returned = search_of.incumbent(task, tuple(trials), space)
                for metric, trial in zip(found, (returned, best)):
                    reached = 0.0 if trial is None else float(report[index[trial.choice]])
                    rows[metric].append(float(report.max()) - reached)
        for metric, row in rows.items():
            found[metric].append(row)
    if type(search_of).incumbent is Proposer.incumbent:
        del found[f"{REGRET} of the best value"]
    return found


def interval(values: Sequence[float]) -> float | None:
    """Half the width of Student's 95 % interval."""
    n = len(values)
    return float(student.ppf(0.975, n - 1)) * statistics.stdev(values) / math.sqrt(n) if n > 1 else None


def unit_of_table(result: Result, name: str, repetitions: int, cached: Path) -> None:
    """A method on all tasks: its rows are written together, when it is done; what tasks gave is kept on the way."""
    start, regrets = time.process_time(), dict[str, dict[str, list[float]]]()
    for target in corpus():
        path = cached / f"{name} {target} {repetitions}.json"
        if not path.exists():
            each = run_table(name, target, repetitions)
            means = {metric: [statistics.fmean(at) for at in zip(*rows)] for metric, rows in each.items()}
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(means), "utf-8")
        for metric, means_of in json.loads(path.read_text("utf-8")).items():
            regrets.setdefault(metric, {})[target] = means_of
    known = {(row["method"], row["setting"], row["metric"]): row.get("tasks") for row in result.rows}
    for metric, of_tasks in regrets.items():
        for i, mark in enumerate(MARKS):
            tasks = {target: round(values[i], 4) for target, values in of_tasks.items()}
            add(result, name, f"measured networks, {trials_of(mark)}", metric, tasks)
            bare = known.get((NOTHING_KNOWN, f"measured networks, {trials_of(mark)}", REGRET))
            if metric == REGRET and bare and name != NOTHING_KNOWN:
                worse = {target: round(tasks[target] - bare[target], 4) for target in tasks}
                add(result, name, f"measured networks, {trials_of(mark)}", f"{REGRET} beyond that without AEN", worse)
    regret = regrets[REGRET].values()
    text = ", ".join(f"{statistics.fmean(v[i] for v in regret):.2f} at {mark}" for i, mark in enumerate(MARKS))
    print(f"{name}: regret {text}; {time.process_time() - start:.0f} s", flush=True)


def add(result: Result, name: str, setting: str, metric: str, tasks: Mapping[str, float]) -> None:
    """A row: the mean over tasks, its interval, and the tasks."""
    values = list(tasks.values())
    half = interval(values)
    half = None if half is None else round(half, 4)
    result.add(name, setting, metric, round(statistics.fmean(values), 4), ci95=half, n=len(values), tasks=dict(tasks))


LIVE = ("glyphs-arabic", "cifar-vehicles", "fashion", "control-charts")
MAX_PARAMS = 20_000
UNIFORM = Size(common=20, plain=0, near=0, own=60)
"""A sample of the space: limits do not depend on which networks of it were measured."""


@dataclass(frozen=True)
class Live:
    """A search with a clock."""

    target: str
    task: Task
    space: Tiny
    limits: Limits
    seconds: float
    seed: int

    @classmethod
    def of(cls, target: str, seconds: float, seed: int) -> "Live":
        """Its limits are so many parameters, and the memory of the median member."""
        one = corpus()[target]
        members = architectures(one.space, target, UNIFORM)
        memory = statistics.median(count(one.space, a).peak_memory for a in members)
        return cls(target, data(target), one.space, Limits(MAX_PARAMS, max_memory=int(memory)), seconds, seed)


@dataclass(frozen=True)
class Ended:
    """What it led to."""

    architecture: Architecture
    percent: float
    trials: int
    violated: int
    """Networks that were trained though they break a limit."""
    seconds: float
    parameters: int
    expected: tuple[float, float] | None = None
    """The interval that the search expected the accuracy in."""


def by_search(live: Live, *, prior: SearchPrior | None = None, proposer: Search | None = None) -> Ended:
    """With `quickstudy.search`."""
    found = search(
        live.task,
        budget=Budget(seconds=live.seconds, workers=1),
        limits=live.limits,
        prior=prior,
        proposer=proposer,
        name=live.target,
        seed=live.seed,
    )
    assert found.test is not None
    trained = [one.architecture for one in found.tried if one.accuracies] + [a for a, _ in found.finalists]
    violated = sum(not live.limits.allows(count(live.space, a)) for a in trained)
    violated += sum(p.numel() for p in found.network.parameters()) > MAX_PARAMS
    own = found.cost.parameters
    expected = found.expected.low, found.expected.high
    return Ended(found.architecture, found.test.percent, len(found.tried), violated, found.seconds, own, expected)


def by_aon(live: Live) -> Ended:
    """With AON's proposals, and no surrogate of the task's own."""
    prior = prior_of(live.target, COMPLETE)
    return by_search(live, prior=prior, proposer=prior.aon_search())


def by_training(live: Live, architecture: Architecture, *, shift: int = 0) -> Ended:
    """One network, on all examples, for all of the seconds."""
    start = time.perf_counter()
    open_task(live.task, live.seed)
    x, y = live.task.support.x[0], live.task.support.y[0]
    for steps in (5, 40):  # the first is for warming up
        plan = Schedule(steps=steps, shift=shift)
        trial = train(fresh(live, architecture), x, y, plan, generator=Generator().manual_seed(0))
    network, left = fresh(live, architecture), start + live.seconds - time.perf_counter()
    plan = Schedule(steps=max(100, int(4 * left * trial.steps / trial.seconds)), shift=shift)
    deadline = start + live.seconds  # to which the plan, which is made too long, is cut
    train(network, x, y, plan, generator=Generator().manual_seed(live.seed), deadline=deadline)
    test, _ = judge(network, live.task)
    assert test is not None
    cost = count(live.space, architecture)
    violated = int(not live.limits.allows(cost))
    return Ended(architecture, test.percent, 1, violated, time.perf_counter() - start, cost.parameters)


def moves(live: Live) -> int:
    """By how much a search moves inputs."""
    return Schedule.for_inputs(live.space.shape).shift


def fresh(live: Live, architecture: Architecture) -> torch.nn.Sequential:
    """The network before training."""
    return untrained(live.space, architecture, live.task.support.x[0], seed=live.seed)


def best_fixed_within(live: Live) -> Architecture:
    """The best network in common that keeps to the limits."""
    return next(a for a in best_fixed(live.target) if live.limits.allows(count(live.space, a)))


def first_proposed(live: Live) -> Architecture:
    """What the prior would try first."""
    prior = prior_of(live.target, COMPLETE)
    task, within = prior.describe(live.task, live.target), live.limits.within(live.space)
    (first,) = prior.proposer().propose(task, [], within, generator=Generator().manual_seed(live.seed))
    return first


def largest_within(live: Live) -> Architecture:
    """Of 2000 members that keep to the limits, that with the most multiply-adds."""
    within, generator = live.limits.within(live.space), seeded("largest", live.target)
    drawn = [within.sample(generator=generator) for _ in range(2000)]
    return max(drawn, key=lambda a: count(live.space, a).multiply_adds)


LIVE_METHODS: dict[str, Callable[[Live], Ended]] = {
    "quickstudy": lambda live: by_search(live, prior=prior_of(live.target, COMPLETE)),
    "quickstudy_without_aon": lambda live: by_search(live, prior=replace(prior_of(live.target, COMPLETE), aon=None)),
    "quickstudy_without_task_embedding": lambda live: by_search(live, prior=prior_of(live.target, BLIND)),
    "quickstudy_without_bayesian_optimisation": by_aon,
    "quickstudy_without_feedback": lambda live: by_training(live, first_proposed(live), shift=moves(live)),
    "quickstudy_without_prior": lambda live: by_search(live, proposer=BayesianSearch(None, drawn=256)),
    "random_halving": lambda live: by_search(live, proposer=RandomSearch()),
    "optuna_width_and_depth": lambda live: by_search(
        live, proposer=Parzen(["width", "depth"], plain_networks, initial=3)
    ),
    "best_fixed_architecture": lambda live: by_training(live, best_fixed_within(live)),
    "best_fixed_architecture_moved": lambda live: by_training(live, best_fixed_within(live), shift=moves(live)),
    "largest_that_fits": lambda live: by_training(live, largest_within(live)),
    "largest_that_fits_moved": lambda live: by_training(live, largest_within(live), shift=moves(live)),
}
LEARNED = {
    "quickstudy": COMPLETE,
    "quickstudy_without_aon": COMPLETE,
    "quickstudy_without_task_embedding": BLIND,
    "quickstudy_without_bayesian_optimisation": COMPLETE,
    "quickstudy_without_feedback": COMPLETE,
}
"""The prior that a method searches with."""


def unit_of_live(result: Result, name: str, target: str, seconds: float, seed: int) -> None:
    """A method on a task, once."""
    import optuna  # noqa: F401 - a search would import it, on the clock

    live = Live.of(target, seconds, seed)
    if name in LEARNED:  # beforehand
        prior_of(target, LEARNED[name])
    cpu, start = time.process_time(), time.perf_counter()
    with patch.object(time, "perf_counter", time.process_time):
        ended = LIVE_METHODS[name](live)
    share = (time.process_time() - cpu) / (time.perf_counter() - start)
    more: dict[str, Any] = {
        "architecture": str(ended.architecture),
        "trials": ended.trials,
        "violated": ended.violated,
        "parameters": ended.parameters,
        "limits": {"max_params": live.limits.max_params, "max_memory": live.limits.max_memory},
        "core": round(share, 3),
        "expected": ended.expected and [round(each, 3) for each in ended.expected],
        "corpus": digest(),
    }
    setting = f"{target}, {seconds:g} s"
    result.add(name, setting, TEST, round(ended.percent, 3), seconds=ended.seconds, seed=seed, **more)
    print(
        f"{name} on {target}, seed {seed}: {ended.percent:.1f} %, {ended.trials} trials, {ended.violated} violated, "
        f"{ended.seconds:.1f} s, {share:.2f} of a core",
        flush=True,
    )


AFTER = (1, 5, 20)
"""Trials, after which proposals are timed."""


def unit_of_proposals(result: Result, targets: Sequence[str]) -> None:
    """The median and the longest over tasks of a proposal after no, few and many trials."""
    prior = shipped_prior()
    took: dict[str, list[float]] = {}
    for target in targets:
        live = Live.of(target, 0.0, 0)
        task, within = prior.describe(live.task, target), live.limits.within(live.space)
        method, trials = prior.proposer(), list[Trial[Architecture]]()
        for number in range(AFTER[-1] + 1):
            start = time.perf_counter()
            (choice,) = method.propose(task, tuple(trials), within, generator=seeded("proposals", target, number))
            if number in (0, *AFTER):
                setting = f"after {trials_of(number)}" if number else "the first of all"
                took.setdefault(setting, []).append(1000 * (time.perf_counter() - start))
            trials.append(Trial(choice, 60 + 30 * float(torch.rand((), generator=seeded("value", str(choice))))))
    for setting, each in took.items():
        for metric, value in (("milliseconds", statistics.median(each)), ("milliseconds, the longest", max(each))):
            result.add("a proposal", setting, metric, round(value, 1), n=len(each))
        print(f"{setting}: {statistics.median(each):.0f} ms, at most {max(each):.0f} ms", flush=True)


def means_of_live(result: Result, seconds: float, targets: Sequence[str], seeds: int) -> None:
    """The means over tasks of methods that have rows of all of them, all of this processor."""
    suffix = f", {seconds:g} s"
    settings = {target + suffix for target in targets}
    rows = [r for r in result.rows if r["metric"] == TEST and "seed" in r and r["setting"] in settings]
    rows = [row for row in rows if row["cpu"] == cpu()]  # another trains another number of networks in these seconds
    known = {n: {(row["setting"], row["seed"]): row for row in rows if row["method"] == n} for n in LIVE_METHODS}
    for name, own in known.items():
        wanted = [[own.get((target + suffix, seed)) for seed in range(seeds)] for target in targets]
        if not all(row for each in wanted for row in each):
            continue
        tasks = {t: statistics.fmean(row["value"] for row in each if row) for t, each in zip(targets, wanted)}
        each_row = [row for each in wanted for row in each if row]
        first = [[known["quickstudy"].get((target + suffix, seed)) for seed in range(seeds)] for target in targets]
        if name != "quickstudy" and all(row for each in first for row in each):
            ours = {t: statistics.fmean(row["value"] for row in each if row) for t, each in zip(targets, first)}
            ahead = {target: round(ours[target] - tasks[target], 4) for target in tasks}
            add(result, name, f"mean of {len(targets)} tasks{suffix}", AHEAD, ahead)
        add(result, name, f"mean of {len(targets)} tasks{suffix}", TEST, tasks)
        for metric, key in COUNTED.items():
            total = sum(row[key] for row in each_row)
            value = total if key == "violated" else round(total / len(each_row), 3)
            result.add(name, f"mean of {len(targets)} tasks{suffix}", metric, value, n=len(each_row))
        if all(row.get("expected") for row in each_row):
            within = [row["expected"][0] <= row["value"] <= row["expected"][1] for row in each_row]
            result.add(
                name, f"mean of {len(targets)} tasks{suffix}", WITHIN, 100 * statistics.fmean(within), n=len(within)
            )


def renew(path: Path) -> None:
    """Takes out what follows from another state of the corpus, table and live: it is measured again."""
    if not path.exists():
        return
    content = json.loads(path.read_text("utf-8"))
    if content["settings"].get("corpus") == digest():
        return
    content["rows"] = [row for row in content["rows"] if not of_corpus(row)]
    for name in ("corpus", "prior", "tasks", "folds", "repetitions", "regret of the best objective of all networks"):
        content["settings"].pop(name, None)
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1), "utf-8")


def of_corpus(row: Mapping[str, Any]) -> bool:
    """Whether a row depends on the corpus: measured networks, and live methods that learned from it."""
    taught = {*LEARNED, "best_fixed_architecture", "best_fixed_architecture_moved"}
    return row["setting"].startswith("measured networks") or row["method"] in taught or row["metric"] == AHEAD


def limit_of_all() -> float:
    """Where every search ends that tries all networks of a task, since its objective misleads it: mean regret."""
    found = []
    for one in corpus().values():
        for seed in range(SEEDS):
            report = 100 * one.test[:, 1 - seed].nan_to_num()
            best: Tensor = one.validation[:, seed].nan_to_num(nan=-1.0).argmax()
            found.append(float(report.max() - report[best]))
    return round(statistics.fmean(found), 3)


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--part", choices=("table", "live", "proposals"), default="table")
    parser.add_argument("--only", nargs="+", metavar="METHOD", help="methods")
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    parser.add_argument("--seconds", type=float, default=20.0, help="of a live search")
    parser.add_argument("--seeds", type=int, default=2, help="of a live search")
    parser.add_argument("--targets", nargs="+", default=list(LIVE), metavar="TASK", help="of live searches")
    parser.add_argument("--again", action="store_true", help="also units that have rows")
    parser.add_argument("--hours", type=float, default=math.inf, help="begin no unit later than that (no limit)")
    parser.add_argument("--list", action="store_true", help="the units, and whether they have rows")
    parser.add_argument("--smoke", action="store_true", help="two repetitions or short searches, elsewhere")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of the results")
    parser.add_argument("--corpus", type=Path, default=HOME, help="folder of the corpus, which may be growing")
    options = parser.parse_args(given)
    FOLDER[0] = options.corpus
    if options.targets == ["all"]:
        options.targets = list(corpus())
    if options.smoke:
        options.repetitions, options.seconds, options.seeds = 2, 4.0, 1
        options.out, options.targets = Path(tempfile.mkdtemp(prefix="tiny_search-")), options.targets[:1]
    torch.set_num_threads(1)
    every: list[str] = {"table": [*METHODS], "live": [*LIVE_METHODS], "proposals": []}[options.part]
    if unknown := set(options.only or ()) - set(every):
        parser.error(f"{', '.join(sorted(unknown))} is not among {', '.join(every)}.")
    names = options.only or every
    if not options.list:
        renew(options.out / "tiny_search.json")
    settings: dict[str, Any] = {
        "corpus": digest(),
        "prior": f"{MEMBERS} AENs, {PASSES} epochs or {STEPS} steps, dropout {DROPOUT}, on the tasks of the other "
        "folds",
        "live seconds": "of one core's processor time",
        "live limits": f"{MAX_PARAMS:,} parameters, and the median peak memory of 80 members drawn for the task",
    }
    if options.part == "table":
        settings |= {
            "tasks": list(corpus()),
            "folds": list(map(list, folds())),
            "repetitions": f"{options.repetitions}, of methods that draw nothing {SEEDS}",
            "regret of the best objective of all networks": limit_of_all(),
        }
    result = Result(
        "tiny_search",
        description="Search in Tiny on tasks of our corpus that the prior did not learn from. Among measured networks: "
        "regret of the network returned, in points of test accuracy of a training that the search did not see, against "
        "networks tried; means over tasks, intervals over tasks. Live: test accuracy after equal seconds of one core, "
        "under limits of parameters and memory.",
        settings=settings,
        packages=("scikit-learn", "optuna", "scipy"),
        folder=options.out,
    )
    units: list[tuple[str, Callable[[], None], bool]] = []
    begun = time.monotonic()
    if options.part == "proposals":
        call, done = (
            partial(unit_of_proposals, result, options.targets),
            result.has("a proposal", "the first of all", "milliseconds"),
        )
        units.append(("proposals", call, done))
    elif options.part == "table":
        kept = (PRIORS if not options.smoke else options.out) / digest()
        for name in names:
            done = result.has(name, f"measured networks, {trials_of(MARKS[-1])}", REGRET)
            units.append((name, partial(unit_of_table, result, name, options.repetitions, kept), done))
    else:
        for seed in range(options.seeds):
            for target in options.targets:
                for name in names:
                    done = result.has(name, f"{target}, {options.seconds:g} s", TEST, seed=seed)
                    text = f"{name} on {target}, seed {seed}"
                    call = partial(unit_of_live, result, name, target, options.seconds, seed)
                    units.append((text, call, done))
    for text, run, done in units:
        if options.list:
            print(f"{text}: {'has rows' if done else 'none yet'}")
        elif time.monotonic() > begun + 3600 * options.hours:
            break
        elif not done or options.again:
            run()
    if options.part == "live" and not options.list:
        means_of_live(result, options.seconds, options.targets, options.seeds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
