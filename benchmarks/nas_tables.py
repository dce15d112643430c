"""Search in NAS-Bench-201 and NAS-Bench-Graph, each data set in turn as the new task and the others as what is known.

    python benchmarks/nas_tables.py --list                                    the units, and which have rows
    python benchmarks/nas_tables.py                                           all units of nasbench201 without rows
    python benchmarks/nas_tables.py --which nasbenchgraph --methods random forest
    python benchmarks/nas_tables.py --methods forest --again                  replaces its rows
    python benchmarks/nas_tables.py --keep FOLDER                             goes on where it was stopped
    python benchmarks/nas_tables.py --smoke                                   tiny, into a temporary folder

A unit is one method on one target, over all repetitions. In a repetition every method sees the same prior: so many
random members of each other data set, with the outcomes of the repetition's run. The objective, the report, regret and
rank are defined in quickstudy.nas.tables. Repetitions are paired: the value of each is kept in its row (`values`), and
the generator of a proposal is seeded by repetition and trial, so that methods that begin at random begin alike. Rows of
`mean` are over all targets, repetition by repetition.

What a search would return is asked of the method (`Proposer.incumbent`). Bayesian search chooses by its model rather
than by the best value; of it there are rows of both, "regret" and "regret of the best value".
`random_forest_smoothed` has the same right.

`rank_transfer` after one trial is the best fixed architecture: the best of all that are known, by mean rank.
`random_halving` spends its budget on two fidelities: of 16 random members that were trained for 12 epochs the best is
trained for 200, so that a trial costs 1.96. `aon_alone` proposes what AON's walks end on, without a process of the
task's own, and `bayesian_search_with_aon` has them among its candidates. What AEN and AON learned is kept in
benchmarks/checkpoints/nas_tables, so that methods and runs share it.

`largest` goes by the number of parameters, which many members share: those are in random order.

A method is one entry in METHODS, but for `largest`, which knows the new task's table.
"""

import argparse
import hashlib
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import torch
from result import HERE, Result
from safetensors.torch import load_model, save_model
from scipy.stats import t as student
from torch import Generator, nn

from quickstudy.experience.proposer import Proposer
from quickstudy.experience.trial import TaskDescription, Trial
from quickstudy.nas.aen import Prior, learn
from quickstudy.nas.aon import AON, AONSearch
from quickstudy.nas.aon_training import learn_to_improve
from quickstudy.nas.architecture import Architecture
from quickstudy.nas.baselines.bananas import Bananas
from quickstudy.nas.baselines.evolution import Evolution
from quickstudy.nas.baselines.forest import Forest
from quickstudy.nas.baselines.graph_ensemble import GraphEnsemble
from quickstudy.nas.baselines.in_order import InOrder
from quickstudy.nas.baselines.local_search import LocalSearch
from quickstudy.nas.baselines.random_search import RandomSearch
from quickstudy.nas.baselines.rank_transfer import RankTransfer
from quickstudy.nas.baselines.tree_parzen import TreeParzen
from quickstudy.nas.bayesian_search import BayesianSearch
from quickstudy.nas.calibration import calibrate, strangers
from quickstudy.nas.search_prior import ITERATIONS, WALKS
from quickstudy.nas.source import Source
from quickstudy.nas.space import Space
from quickstudy.nas.tables import BRIEF_EPOCHS, EPOCHS, RUNS, Table, nasbench201, nasbenchgraph, seeded

Search = Proposer[Architecture, Space]
Which = Literal["nasbench201", "nasbenchgraph"]

PRIORS = HERE / "checkpoints" / "nas_tables"
Module = TypeVar("Module", bound=nn.Module)
_LEARNED: dict[str, nn.Module] = {}
"""What was learned from each source, because several methods have the same one."""


def prior_of(source: Source) -> Prior:
    """What AEN learns from the other data sets, calibrated by leaving each of them out."""

    def train(prior: Prior) -> None:
        generator = Generator().manual_seed(0)
        learn(prior, source.rows)
        calibrate(prior, source.rows, strangers(prior, source.rows, generator=generator), generator=generator)

    return learned(lambda: Prior(source.space), key_of(source), train)


def aon_search_of(source: Source) -> AONSearch:
    """What AON learns there, from AENs to which one of those data sets is new."""
    prior = prior_of(source)

    def train(aon: AON) -> None:
        generator = Generator().manual_seed(0)
        others = strangers(prior, source.rows, generator=generator)
        learn_to_improve(aon, prior, source.rows, others, iterations=ITERATIONS, walks=WALKS, generator=generator)

    def make() -> AON:
        torch.manual_seed(0)
        return AON(source.space)

    return AONSearch(learned(make, f"{key_of(source)}-aon-{ITERATIONS}-{WALKS}", train), prior)


def key_of(source: Source) -> str:
    """A digest of what there is to learn from."""
    digest = hashlib.sha256(f"calibrated {source.space.id}".encode())
    for rows in source.rows.values():
        digest.update(rows.values.numpy().tobytes() + "".join(map(str, rows.architectures)).encode())
    return digest.hexdigest()[:20]


def learned(make: Callable[[], Module], key: str, train: Callable[[Module], None]) -> Module:
    """A module as it was trained before, or trained now and kept."""
    if key not in _LEARNED:
        module, path = make(), PRIORS / f"{key}.safetensors"
        if path.exists():
            load_model(module, path)
        else:
            train(module)
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(f".{os.getpid()}.tmp")
            save_model(module, str(partial))
            partial.replace(path)
        _LEARNED[key] = module.eval()
    return cast("Module", _LEARNED[key])


METHODS: dict[str, Callable[[Source], Search]] = {
    "random": lambda source: RandomSearch(),
    "local_search": lambda source: LocalSearch(),
    "evolution": lambda source: Evolution(),
    "optuna_tpe": lambda source: TreeParzen(),
    "bananas": lambda source: Bananas(),
    "graph_network_without_transfer": lambda source: GraphEnsemble(),
    "random_halving": lambda source: RandomSearch(),
    "rank_transfer": RankTransfer,
    "random_forest": Forest,
    "random_forest_smoothed": lambda source: Forest(source, smoothed=True),
    "rank_transfer_whole_table": RankTransfer,
    "bayesian_search": lambda source: BayesianSearch(prior_of(source)),
    "bayesian_search_with_aon": lambda source: BayesianSearch(prior_of(source), improve=aon_search_of(source)),
    "aon_alone": aon_search_of,
    "bayesian_search_without_guard": lambda source: BayesianSearch(prior_of(source), guarded=False),
    "bayesian_search_without_feedback": lambda source: BayesianSearch(prior_of(source), feedback=False),
    "bayesian_search_without_aen": lambda source: BayesianSearch(None),
}
"""Made anew for each repetition, from what is known of the other data sets."""
WHOLE_TABLE = {"rank_transfer_whole_table"}
"""Methods to which every member is known on the other data sets."""
LARGEST = "largest"
"""The method that goes by the number of parameters, those with as many in random order."""
HALVING = {"random_halving"}
"""Methods whose proposals are first trained for a few epochs; the best of `HALVED` is trained to the end."""
HALVED = 16


IN_VIEW = (
    "What is the same for all (width, members, epochs, pooling, exploration) was chosen with figures of these targets "
    "in view, on few repetitions, which flatters ours a little."
)


@dataclass(frozen=True)
class Benchmark:
    """How a table is searched."""

    table: Callable[[], Table]
    description: str
    metrics: tuple[str, ...]
    """The first is what counts."""
    marks: tuple[int, ...]
    """Trained members at which the incumbent is judged; the last ends the search."""
    prior: int
    """Members known of each other data set."""


BENCHMARKS: dict[Which, Benchmark] = {
    "nasbench201": Benchmark(
        nasbench201,
        "Regret of the incumbent, in points of accuracy, against trained architectures. The objective is the "
        "validation accuracy of one training run of 200 epochs, the report the mean of the architecture's other runs. "
        "Each data set in turn is new, and 200 random architectures are known of each other one.",
        ("regret",),
        (1, 5, 10, 25, 50, 100),
        200,
    ),
    "nasbenchgraph": Benchmark(
        nasbenchgraph,
        "Rank of the incumbent by test accuracy among 26,206, and its regret in points, against trained architectures. "
        "The objective is the validation accuracy. Each data set in turn is new, and 300 random architectures are "
        "known of each other one.",
        ("rank", "regret"),
        (10, 25, 50),
        300,
    ),
}


@dataclass(frozen=True)
class Found:
    """What a search led to."""

    chosen: list[int]
    """The row that the method would return, at each mark."""
    best: list[int]
    """The row of the best value, at each mark; the earlier of two that are equal."""
    seconds: float
    """A proposal, by the processor's clock."""
    ready: float = 0.0
    """Seconds before the first."""


def search(method: Search, table: Table, target: str, *, marks: Sequence[int], seed: int, halved: int = 1) -> Found:
    """One repetition: of `halved` proposals the one that is best when trained briefly is trained to the end."""
    objective, space = table.tasks[target].objective(seed).tolist(), table.space
    brief = table.tasks[target].brief
    task = TaskDescription(target)
    seen: list[Trial[Architecture]] = []
    chosen: list[int] = []
    best: list[int] = []
    seconds, spent = 0.0, 0.0
    cost = 1.0 if halved == 1 or brief is None else 1 + halved * BRIEF_EPOCHS / EPOCHS
    while spent + cost <= marks[-1] + 1e-9 or not seen:
        start = time.process_time()
        generator = seeded("search", target, seed, len(seen))
        offered = method.propose(task, tuple(seen), space, n=halved, generator=generator)
        seconds += time.process_time() - start
        rows = [table.index[choice] for choice in offered]
        row = rows[0] if brief is None else max(rows, key=lambda i: float(brief[i]))
        choice = table.architectures[row]
        if any(choice == trial.choice for trial in seen):
            raise AssertionError(f"{type(method).__name__} proposed {choice} again.")
        for mark in marks[len(best) :]:  # that this trial would go beyond
            if seen and spent + cost > mark + 1e-9:
                note(method, task, seen, table, chosen, best)
        seen.append(Trial(choice, objective[row]))
        spent += cost
    while len(best) < len(marks):
        note(method, task, seen, table, chosen, best)
    return Found(chosen, best, seconds / len(seen))


def by_size(table: Table, target: str, seed: int) -> Search:
    """The largest members first."""
    sizes = table.tasks[target].parameters
    assert sizes is not None
    order = torch.randperm(len(sizes), generator=seeded("largest", target, seed))
    order = order[sizes[order].argsort(descending=True, stable=True)]
    return InOrder([table.architectures[i] for i in order.tolist()])


def note(
    method: Search,
    task: TaskDescription,
    seen: Sequence[Trial[Architecture]],
    table: Table,
    chosen: list[int],
    best: list[int],
) -> None:
    """Writes down what the method would return, and what has the best value."""
    returned = method.incumbent(task, tuple(seen), table.space)
    assert returned is not None
    chosen.append(table.index[returned.choice])
    best.append(table.index[max(seen, key=lambda trial: trial.value or 0.0).choice])


def repetition(name: str, target: str, benchmark: Benchmark, table: Table, seed: int, kept: Path | None) -> Found:
    """A repetition of a unit; where it is kept, it is run once."""
    path = None if kept is None else kept / f"{name}-{target}-{seed}.json"
    if path is not None and path.exists():
        return Found(**json.loads(path.read_text("utf-8")))
    source = table.source(target, rows=None if name in WHOLE_TABLE else benchmark.prior, seed=seed)
    start = time.perf_counter()
    torch.manual_seed(seed)
    method = by_size(table, target, seed) if name == LARGEST else METHODS[name](source)
    ready = time.perf_counter() - start
    halved = HALVED if name in HALVING else 1
    found = search(method, table, target, marks=benchmark.marks, seed=seed, halved=halved)
    found = replace(found, ready=ready)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.tmp")
        partial.write_text(json.dumps(asdict(found)), "utf-8")
        partial.replace(path)
    return found


def run_unit(
    name: str, target: str, benchmark: Benchmark, table: Table, seeds: int, result: Result, kept: Path | None = None
) -> None:
    """A method on a target: its rows are written together, when it is done."""
    values: dict[tuple[str, int], list[float]] = {}
    seconds = []
    for seed in range(seeds):
        found = repetition(name, target, benchmark, table, seed, kept)
        seconds.append((found.seconds, found.ready))
        models = name.startswith("bayesian_search")
        for metric in benchmark.metrics:
            judged = getattr(table.tasks[target], metric)(seed)
            for i, mark in enumerate(benchmark.marks):
                values.setdefault((metric, mark), []).append(judged[found.chosen[i]].item())
                if models:
                    values.setdefault((f"{metric} of the best value", mark), []).append(judged[found.best[i]].item())
    proposal, ready = (statistics.fmean(each) for each in zip(*seconds))
    for (metric, mark), each in values.items():
        add(result, name, f"{target}, {trials_of(mark)}", metric, each, seconds=proposal, preparation=round(ready, 3))
    for metric in dict.fromkeys(metric for metric, _ in values):
        text = ", ".join(f"{statistics.fmean(values[metric, mark]):.3g} at {mark}" for mark in benchmark.marks)
        print(f"{name} on {target}: {metric} {text}; {proposal * 1000:.1f} ms a proposal", flush=True)


def add_means(name: str, benchmark: Benchmark, table: Table, result: Result) -> None:
    """The means over targets, where all of them have rows of as many repetitions."""
    known = {(row["setting"], row["metric"]): row["values"] for row in result.rows if row["method"] == name}
    for metric in dict.fromkeys(metric for _, metric in known):
        for mark in benchmark.marks:
            each = [known.get((f"{target}, {trials_of(mark)}", metric), []) for target in table.tasks]
            if all(each) and len({len(values) for values in each}) == 1:
                add(result, name, f"mean, {trials_of(mark)}", metric, [statistics.fmean(v) for v in zip(*each)])


def add(
    result: Result,
    name: str,
    setting: str,
    metric: str,
    values: list[float],
    *,
    seconds: float | None = None,
    preparation: float | None = None,
) -> None:
    """A row: the mean over repetitions, its 95 % interval by Student's distribution, and the repetitions."""
    n = len(values)
    half = student.ppf(0.975, n - 1) * statistics.stdev(values) / math.sqrt(n) if n > 1 else None
    more: dict[str, Any] = {"values": [round(value, 4) for value in values]}
    if preparation is not None:
        more["preparation"] = preparation
    value = round(statistics.fmean(values), 5)
    half = None if half is None else round(float(half), 5)
    result.add(name, setting, metric, value, ci95=half, n=n, seconds=seconds, **more)


def limits(table: Table, metric: str) -> dict[str, float]:
    """Where every search ends that tries all members, since its one objective misleads it: the mean over runs."""
    found = {}
    for name, task in table.tasks.items():
        values = [getattr(task, metric)(seed)[task.objective(seed).argmax()].item() for seed in range(RUNS)]
        found[name] = round(statistics.fmean(values), 3)
    return found


def trials_of(mark: int) -> str:
    return "1 trial" if mark == 1 else f"{mark} trials"


def is_done(name: str, target: str, benchmark: Benchmark, seeds: int, result: Result) -> bool:
    """Whether the unit has rows of as many repetitions."""
    setting = f"{target}, {trials_of(benchmark.marks[-1])}"
    return any(r["method"] == name and r["setting"] == setting and r["n"] >= seeds for r in result.rows)


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--which", choices=BENCHMARKS, default="nasbench201")
    parser.add_argument(
        "--methods", nargs="+", choices=[*METHODS, LARGEST], default=[*METHODS, LARGEST], metavar="METHOD"
    )
    parser.add_argument("--targets", nargs="+", metavar="TARGET", help="data sets; all where it is not given")
    parser.add_argument("--seeds", type=int, default=20, help="repetitions")
    parser.add_argument("--keep", type=Path, help="folder in which each repetition is kept, to go on from or to share")
    parser.add_argument("--first", type=int, default=0, help="with --keep: only repetitions from this one, and no rows")
    parser.add_argument("--again", action="store_true", help="also units that have rows")
    parser.add_argument("--list", action="store_true", help="the units, and whether they have rows")
    parser.add_argument("--smoke", action="store_true", help="two repetitions, into a temporary folder")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of the results")
    arguments = parser.parse_args(given)
    if arguments.smoke:
        arguments.seeds, arguments.out = 2, Path(tempfile.mkdtemp(prefix="nas_tables-"))
    torch.set_num_threads(1)
    benchmark = BENCHMARKS[arguments.which]
    table = benchmark.table()
    if unknown := set(arguments.targets or ()) - set(table.tasks):
        parser.error(f"{', '.join(sorted(unknown))} is not among {', '.join(table.tasks)}.")
    result = Result(
        arguments.which,
        description=f"{benchmark.description} {IN_VIEW}",
        settings={
            "prior": f"{benchmark.prior} architectures a data set",
            "trials": benchmark.marks[-1],
            f"{benchmark.metrics[0]} of the best objective of all members": limits(table, benchmark.metrics[0]),
        },
        packages=("scikit-learn", "optuna"),
        folder=arguments.out,
    )
    units = [(name, target) for name in arguments.methods for target in arguments.targets or table.tasks]
    units = [(name, target) for name, target in units if name not in HALVING or table.tasks[target].brief is not None]
    for name, target in units:
        done = is_done(name, target, benchmark, arguments.seeds, result)
        if arguments.list:
            print(f"{name} on {target}: {'has rows' if done else 'none yet'}")
        elif arguments.first:
            for seed in range(arguments.first, arguments.seeds):
                repetition(name, target, benchmark, table, seed, arguments.keep)
        elif not done or arguments.again:
            run_unit(name, target, benchmark, table, arguments.seeds, result, arguments.keep)
            add_means(name, benchmark, table, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
