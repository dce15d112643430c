"""How well AEN orders architectures of a task it has not seen, against how many of them were trained there.

    python benchmarks/aen.py --list                 the units, and how many repetitions each has
    python benchmarks/aen.py                        all units, repetition by repetition
    python benchmarks/aen.py --only corpus          units whose name begins so
    python benchmarks/aen.py --smoke                tiny, into a temporary folder

A unit is a method in one setting; its rows are the means over the targets of a table, and ± over repetitions. In each
repetition 10, 30, 100 or 300 random architectures of the target are trained, and Kendall's tau is between what is
predicted of 3,000 others (of all others in our corpus) and what they reach by the report, over all of them and over the
best fifth by the report. Reports, objectives and the prior of other data sets are those of nas_tables.py.

Coverage is how often the value of one training run, or its normal score before any was trained, lies in the predicted
90 % interval.

- `aen_with_transfer` is AEN trained on other data sets, and a Gaussian process on its features around its prediction,
  fitted to the target's architectures. Values count by their ranks here, because some of what is drawn at random fails;
  Bayesian search, most of whose trials do well, takes values as they are.
- `aen_without_transfer` is AEN trained on the target's architectures alone.
- `gaussian_process_on_codes` has neither.
- `random_forest` is trained on the other data sets' one-hot codes.
- `parameters` counts. Multiply-adds order the cells of NAS-Bench-201 as parameters do, and NAS-Bench-Graph has none.

In our corpus the other tasks are those of the other three folds of four, none of the same data set. There
`aen_with_task`, `aen_with_costs` and `aen_with_both` know the embedding of the task and the logarithms of parameters,
multiply-adds and peak memory; `aen_with_proxies` and `aen_with_task_and_proxies` know synflow, jacov, NASWOT and the
norm of the gradient too, of networks that were built and looked at with a batch; `ceiling` is what one training seed
says of the other.
"""

import argparse
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from nas_tables import BENCHMARKS, Which, prior_of
from result import HERE, Result
from scipy.stats import kendalltau
from scipy.stats import t as student
from tiny_search import Listed
from torch import Tensor
from torch.distributions import Normal

from quickstudy.experience.trial import TaskDescription
from quickstudy.nas.aen import Prior, learn
from quickstudy.nas.architecture import Architecture
from quickstudy.nas.baselines.forest import Forest
from quickstudy.nas.bayesian_search import BayesianSearch
from quickstudy.nas.calibration import calibrate, strangers
from quickstudy.nas.corpus import PROXIES, Measured, tiny_corpus
from quickstudy.nas.facts import log_costs
from quickstudy.nas.source import Rows, Source, normal_scores, parted
from quickstudy.nas.space import Space
from quickstudy.nas.tables import Table, seeded
from quickstudy.nets.task_encoder import TaskEncoder, contrast
from quickstudy.surrogates.gaussian_process import GaussianProcess
from quickstudy.surrogates.scores import NormalScores

JUDGED = 3000
"""Members of a table that are ordered."""
SHARE = 0.9
"""Of values that are to lie in the predicted interval."""
FOLDS = 4
Trained = Sequence[int]
Ask = Callable[[int], Iterator[Mapping[str, float]]]
"""A repetition of a unit."""


@dataclass(frozen=True)
class Question:
    """Architectures to be ordered, by what is known of others."""

    space: Space
    source: Source
    """The other tasks."""
    known: Rows
    """Those that were trained on the target."""
    others: tuple[Architecture, ...]
    parameters: Tensor | None  # (others,)
    task: Tensor | None = None
    """The target's embedding."""


@dataclass(frozen=True)
class Answer:
    """What is predicted of them."""

    order: Tensor  # (others,): the larger the better
    bounds: tuple[Tensor, Tensor] | None = None
    """Between which the value of one training run lies with 90 %; None where a method says nothing of it."""
    of_scores: bool = False
    """Whether bounds are of the value's normal score among the others': what is known before any value is."""


def by_parameters(asked: Question) -> Answer | None:
    return None if asked.parameters is None else Answer(asked.parameters)


def by_forest(asked: Question) -> Answer:
    forest = Forest(asked.source).forest
    return Answer(torch.from_numpy(forest.predict(asked.space.one_hot(asked.others).numpy())))


def by_codes(asked: Question) -> Answer:
    process = GaussianProcess.fit(asked.space.one_hot(asked.known.architectures), asked.known.values)
    candidates = process.candidates(asked.space.one_hot(asked.others))
    return Answer(candidates.moments()[0], candidates.interval(SHARE))


def by_own_aen(asked: Question) -> Answer:
    prior = learn(Prior(asked.space), {"target": asked.known}, epochs=120)
    with torch.no_grad():
        said = prior(asked.space.encode(asked.others))
    low, high = map(NormalScores.of(asked.known.values.double()).back, around(said))
    return Answer(said.mean, (low, high))


def around(said: Normal) -> tuple[Tensor, Tensor]:
    """The middle 90 % of a normal distribution."""
    return said.icdf(torch.tensor((1 - SHARE) / 2)).double(), said.icdf(torch.tensor((1 + SHARE) / 2)).double()


def by_transfer(asked: Question, prior: Prior) -> Answer:
    search = BayesianSearch(prior, drawn=500)
    known, *_ = search.pool(TaskDescription("target", asked.task), asked.space)
    others = known.numbers(asked.others)
    assert known.mean is not None
    assert known.std is not None
    if not len(asked.known):
        return Answer(known.mean[others], around(Normal(known.mean[others], known.std[others])), of_scores=True)
    process = search.fit(known, known.numbers(asked.known.architectures), asked.known.values, ranks=True)
    candidates = process.candidates(known.features[others], prior_mean=known.mean[others])
    return Answer(candidates.moments()[0], candidates.interval(SHARE))


Method = Callable[[Question], Answer | None]
BEFORE, AFTER = (0,), (10, 30, 100, 300)
"""Trained architectures of the target."""
METHODS: dict[str, tuple[Method, Trained]] = {
    "parameters": (by_parameters, BEFORE),
    "random_forest": (by_forest, BEFORE),
    "gaussian_process_on_codes": (by_codes, AFTER),
    "aen_without_transfer": (by_own_aen, AFTER),
    "aen_with_transfer": (lambda asked: by_transfer(asked, prior_of(asked.source)), BEFORE + AFTER),
}


def tau(a: Tensor, b: Tensor) -> float:
    """Kendall's, 0 where all are alike."""
    found = float(kendalltau(a.numpy(), b.numpy())[0])
    return found if math.isfinite(found) else 0.0


def judge(answer: Answer, reached: Tensor, run: Tensor) -> dict[str, float]:
    """By what the others reach `(others,)`, and by the value of one run of each."""
    best = reached.argsort(descending=True)[: max(2, len(reached) // 5)]
    found = {
        "kendall tau": tau(answer.order, reached),
        "kendall tau, top 20 %": tau(answer.order[best], reached[best]),
    }
    if answer.bounds is not None:
        low, high = answer.bounds
        came = normal_scores(run) if answer.of_scores else run
        found["coverage of the 90 % interval %"] = 100 * float(((low <= came) & (came <= high)).double().mean())
    return found


@cache
def table_of(which: Which) -> Table:
    return BENCHMARKS[which].table()


def ask_table(which: Which, name: str, trained: int, seed: int, *, judged: int) -> Iterator[dict[str, float]]:
    """The marks of a method on each target of a table."""
    table = table_of(which)
    for target, task in table.tasks.items():
        drawn = torch.randperm(len(table.architectures), generator=seeded("aen", target, seed)).tolist()
        own, others = drawn[:trained], drawn[max(AFTER) :][:judged]
        objective = task.objective(seed)
        asked = Question(
            table.space,
            table.source(target, rows=BENCHMARKS[which].prior, seed=seed),
            Rows(tuple(table.architectures[i] for i in own), objective[own]),
            tuple(table.architectures[i] for i in others),
            None if task.parameters is None else task.parameters[others],
        )
        torch.manual_seed(seed)
        answer = METHODS[name][0](asked)
        if answer is not None:
            yield judge(answer, task.report(seed)[others], objective[others])


@dataclass(frozen=True)
class Variant:
    """What AEN knows of a task of our corpus besides graphs."""

    task: bool = False
    proxies: int = 0
    """How many: the logarithms of three costs, or all of `PROXIES`, which need the network and a batch."""


COSTS = 3
VARIANTS = {
    "aen_with_transfer": Variant(),
    "aen_with_task": Variant(task=True),
    "aen_with_costs": Variant(proxies=COSTS),
    "aen_with_proxies": Variant(proxies=len(PROXIES)),
    "aen_with_both": Variant(task=True, proxies=COSTS),
    "aen_with_task_and_proxies": Variant(task=True, proxies=len(PROXIES)),
}
CORPUS: dict[str, Trained] = {
    "ceiling": (0,),
    "parameters": (0,),
    "multiply_adds": (0,),
    "random_forest": (0,),
    "gaussian_process_on_codes": (10, 30),
    "aen_without_transfer": (10, 30),
    **dict.fromkeys(VARIANTS, (0, 10, 30)),
}


@cache
def corpus() -> dict[str, Measured]:
    return tiny_corpus()


@cache
def folds(seed: int) -> tuple[tuple[str, ...], ...]:
    """The tasks, in four parts; all tasks of a data set are in one."""
    names = list(corpus())
    mixed = [names[i] for i in torch.randperm(len(names), generator=seeded("folds", seed)).tolist()]
    return parted({name: corpus()[name].data for name in mixed}, FOLDS)


@cache
def embeddings(seed: int, fold: int) -> dict[str, Tensor]:
    """Of all tasks, by an encoder that was trained on those of the other folds."""
    from corpora import tasks

    sets = {name: tasks.load(name)[0].support for name in corpus()}
    others = [name for name in corpus() if name not in folds(seed)[fold]]
    torch.manual_seed(seed)
    generator = seeded("encoder", seed, fold)
    encoder = contrast(TaskEncoder(), [(sets[name].x[0], sets[name].y[0]) for name in others], generator=generator)
    with torch.no_grad():
        return {n: encoder(one.x, one.y, generator=seeded("embedding", n))[0] for n, one in sets.items()}


def measured_proxies(space: Space, architectures: Sequence[Architecture]) -> Tensor:
    """All of `PROXIES` of networks that a task of the corpus has measured, `(b, 7)`."""
    whole = space.space if isinstance(space, Listed) else space
    one = next(each for each in corpus().values() if each.space is whole)
    place = {architecture: i for i, architecture in enumerate(one.architectures)}
    return one.proxies[[place[architecture] for architecture in architectures]]


@cache
def corpus_prior(seed: int, fold: int, variant: Variant) -> Prior:
    """What AEN learns from the other folds."""
    known = embeddings(seed, fold) if variant.task else {}
    others = {n: one.rows(task=known.get(n)) for n, one in corpus().items() if n not in folds(seed)[fold]}
    options = {"task": len(next(iter(known.values()))) if variant.task else 0, "proxies": variant.proxies}
    torch.manual_seed(seed)
    facts = {0: None, COSTS: log_costs}.get(variant.proxies, measured_proxies)
    prior = Prior(next(iter(corpus().values())).space, members=3, facts=facts, **options)
    training: dict[str, Any] = {"epochs": 40, "jitter": 0.3, "generator": seeded("jitter", seed, fold)}
    learn(prior, others, **training)
    return calibrate(prior, others, strangers(prior, others, **training), generator=training["generator"])


def ask_corpus(name: str, trained: int, seed: int) -> Iterator[dict[str, float]]:
    """The marks of a method on each task of our corpus."""
    for fold, names in enumerate(folds(seed)):
        for target in names:
            one = corpus()[target]
            reached, validation = one.test.nanmean(1).nan_to_num(), one.rows().values
            drawn = torch.randperm(len(one.architectures), generator=seeded("aen", target, seed))
            own, others = drawn[:trained], drawn[max(CORPUS["aen_with_transfer"]) :]
            if name == "ceiling":
                yield judge(Answer(one.test[others, 0].nan_to_num()), one.test[others, 1].nan_to_num(), reached)
                continue
            if name in ("parameters", "multiply_adds"):
                yield judge(Answer(one.proxies[others, PROXIES.index(name)]), reached[others], validation[others])
                continue
            rest = {n: other.rows() for n, other in corpus().items() if n not in names}
            variant = VARIANTS.get(name)
            listed = variant is not None and variant.proxies == len(PROXIES)
            asked = Question(
                Listed(one.space, one.architectures) if listed else one.space,
                Source(one.space, rest),
                Rows(tuple(one.architectures[i] for i in own.tolist()), validation[own], space=one.space),
                tuple(one.architectures[i] for i in others.tolist()),
                None,
                embeddings(seed, fold)[target] if variant is not None and variant.task else None,
            )
            torch.manual_seed(seed)
            if variant is None:
                answer = METHODS[name][0](asked)
                assert answer is not None
            else:
                answer = by_transfer(asked, corpus_prior(seed, fold, variant))
            yield judge(answer, reached[others], validation[others])


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="", help="units whose name begins so: nasbench201, aen_with_transfer")
    parser.add_argument("--methods", nargs="+", choices=sorted({*METHODS, *CORPUS}), metavar="METHOD")
    parser.add_argument("--repetitions", type=int, default=10)
    parser.add_argument("--list", action="store_true", help="the units, and their repetitions so far")
    parser.add_argument("--smoke", action="store_true", help="two repetitions, few members, into a temporary folder")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of the results")
    arguments = parser.parse_args(given)
    judged = JUDGED
    if arguments.smoke:
        arguments.repetitions, arguments.out, judged = 2, Path(tempfile.mkdtemp(prefix="aen-")), 100
    torch.set_num_threads(1)
    result = Result(
        "aen",
        description="How predicted and reached accuracy of architectures agree on a data set that is new, against the "
        "number of architectures that were trained on it: Kendall's tau over all and over the best fifth, and how "
        "often the value of a training run lies in the predicted 90 % interval. Means over the data sets of a table.",
        settings={"judged": f"{judged} members of a table"},
        packages=("scipy", "scikit-learn"),
        folder=arguments.out,
    )
    units: list[tuple[str, str, Ask]] = []
    for which in BENCHMARKS:
        for name, (_, counts) in METHODS.items():
            for trained in counts:
                ask: Ask = partial(ask_table, which, name, trained, judged=judged)
                units.append((name, f"{which}, {trained} trained", ask))
    for name, counts in CORPUS.items():
        units += [(name, f"corpus, {trained} trained", partial(ask_corpus, name, trained)) for trained in counts]
    for name, setting, ask in units:
        wanted = name.startswith(arguments.only) or setting.startswith(arguments.only)
        if wanted and (arguments.methods is None or name in arguments.methods):
            unit(result, name, setting, arguments, ask)
    return 0


def unit(
    result: Result,
    name: str,
    setting: str,
    arguments: argparse.Namespace,
    ask: Ask,
) -> None:
    """Its repetitions that are not there yet, each written down when it is done."""
    rows = {row["metric"]: row for row in result.rows if (row["method"], row["setting"]) == (name, setting)}
    values: dict[str, list[float]] = {metric: list(row["values"]) for metric, row in rows.items()}
    done = min((len(each) for each in values.values()), default=0)
    if arguments.list:
        print(f"{name} in {setting}: {done} repetitions")
        return
    for seed in range(done, arguments.repetitions):
        start = time.perf_counter()
        marks = list(ask(seed))
        if not marks:
            return
        for metric in marks[0]:
            values.setdefault(metric, []).append(statistics.fmean(mark[metric] for mark in marks))
        seconds = time.perf_counter() - start
        for metric, each in values.items():
            n = len(each)
            half = float(student.ppf(0.975, n - 1)) * statistics.stdev(each) / math.sqrt(n) if n > 1 else None
            rounded = [round(value, 4) for value in each]
            mean = statistics.fmean(each)
            result.add(name, setting, metric, mean, ci95=half, n=n, seconds=seconds, values=rounded)
    text = ", ".join(f"{metric} {statistics.fmean(each):.3f}" for metric, each in values.items())
    if done < arguments.repetitions:
        print(f"{name} in {setting}: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
