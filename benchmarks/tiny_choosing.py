"""By what a search might compare networks, where the examples to compare them by are few.

    python benchmarks/tiny_choosing.py                 all tasks without rows
    python benchmarks/tiny_choosing.py --only digits   some of them
    python benchmarks/tiny_choosing.py --list          the tasks, and which have rows
    python benchmarks/tiny_choosing.py --smoke         few steps of one task, into a temporary folder

A search sets a quarter of the examples aside, to choose by: some dozens to some hundreds. Here so many networks, drawn
within the limits of the live searches, are trained as a search trains them, for the steps of each of its rungs, and
judged on these examples in four ways. What they are worth is the test accuracy of another training, of the longest
rung's steps and another seed. The tasks are those of the corpus that live searches are not measured on. **Kendall's
tau** is between what is said and what they are worth; **points lost** is what the network that would be chosen is
worth less than the best one, on average over draws of half of the networks. Intervals are Student's, over tasks.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from result import HERE, Result
from scipy.stats import kendalltau
from tiny_search import LIVE, TEST, Live, corpus, interval
from torch import Generator, Tensor

from quickstudy.nas.search import judge, open_task
from quickstudy.nas.train import Schedule, answer, train
from quickstudy.nas.trainer import untrained

RUNGS, NETWORKS, DRAWS = (150, 450, 900), 16, 300
TAU, LOST = "Kendall's tau", "points lost"


def right(said: Tensor, y: Tensor) -> float:
    """The part of right answers."""
    return float((said.argmax(1) == y).double().mean())


def probability(said: Tensor, y: Tensor) -> float:
    """The mean probability of the right class."""
    return float(said.gather(1, y[:, None]).double().mean())


def log_likelihood(said: Tensor, y: Tensor) -> float:
    """The mean logarithm of that."""
    return float(said.gather(1, y[:, None]).double().clamp_min(1e-12).log().mean())


def brier(said: Tensor, y: Tensor) -> float:
    """Brier's score, the larger, the better."""
    return -float((said - F.one_hot(y, said.shape[1])).double().square().sum(1).mean())


CRITERIA: dict[str, Callable[[Tensor, Tensor], float]] = {
    "right answers": right,
    "mean probability of the right class": probability,
    "log-likelihood": log_likelihood,
    "Brier's score": brier,
}


def judged(live: Live, rungs: Sequence[int], networks: int) -> tuple[dict[tuple[str, int], list[float]], list[float]]:
    """What each criterion says of each network at each rung, and what the networks are worth, in per cent."""
    space, data = open_task(live.task, live.seed)
    within, generator = live.limits.within(space), Generator().manual_seed(live.seed)
    said: dict[tuple[str, int], list[float]] = {(name, steps): [] for steps in rungs for name in CRITERIA}
    worth = []
    for _ in range(networks):
        architecture = within.sample(generator=generator)
        for steps, seed in (*((steps, 0) for steps in rungs), (rungs[-1], 1)):
            network = untrained(space, architecture, data.x, seed=seed)
            plan = Schedule.for_inputs(space.shape, steps=steps)
            train(network, data.x, data.y, plan, generator=Generator().manual_seed(seed))
            if seed:
                test, _ = judge(network, live.task)
                assert test is not None
                worth.append(test.percent)
                continue
            answers = answer(network, data.x_validation)
            for name, criterion in CRITERIA.items():
                said[name, steps].append(criterion(answers, data.y_validation))
    return said, worth


def lost(said: Sequence[float], worth: Sequence[float], *, draws: int = DRAWS) -> float:
    """What is lost by choosing the best of half of the networks by what is said, on average over draws of them."""
    generator, found = Generator().manual_seed(0), []
    for _ in range(draws):
        some = torch.randperm(len(worth), generator=generator)[: len(worth) // 2].tolist()
        found.append(max(worth[i] for i in some) - worth[max(some, key=said.__getitem__)])
    return statistics.fmean(found)


def setting(steps: int, task: str) -> str:
    """Of a row."""
    return f"{task}, {steps} steps"


def means(result: Result, targets: Sequence[str], rungs: Sequence[int]) -> None:
    """Over all tasks, once all have rows; and by how much each criterion differs from counting right answers."""
    known = {(r["method"], r["setting"], r["metric"]): r["value"] for r in result.rows}
    counting = next(iter(CRITERIA))
    for steps in rungs:
        for metric in (TAU, LOST):
            if any((name, setting(steps, t), metric) not in known for name in CRITERIA for t in targets):
                return
            of = {name: [float(known[name, setting(steps, t), metric]) for t in targets] for name in CRITERIA}
            for name, values in of.items():
                mean = setting(steps, f"mean of {len(targets)} tasks")
                add(result, name, mean, metric, values)
                if name != counting:
                    beyond = [value - counted for value, counted in zip(values, of[counting])]
                    add(result, name, mean, f"{metric}, beyond right answers", beyond)


def add(result: Result, name: str, mean: str, metric: str, values: Sequence[float]) -> None:
    """A mean and its interval."""
    half = interval(values) or 0.0
    result.add(name, mean, metric, round(statistics.fmean(values), 4), ci95=round(half, 4), n=len(values))


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", metavar="TASK", help="tasks")
    parser.add_argument("--list", action="store_true", help="the tasks, and whether they have rows")
    parser.add_argument("--smoke", action="store_true", help="few steps of one task, elsewhere")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of the results")
    options = parser.parse_args(given)
    torch.set_num_threads(1)
    targets, networks = [target for target in corpus() if target not in LIVE], NETWORKS
    rungs: Sequence[int] = RUNGS
    if options.smoke:
        options.out, targets, rungs, networks = Path(tempfile.mkdtemp(prefix="tiny_choosing-")), ["digits"], (4, 8), 4
    if unknown := set(options.only or ()) - set(targets):
        parser.error(f"{', '.join(sorted(unknown))} is not among {', '.join(targets)}.")
    result = Result(
        "tiny_choosing",
        description="How well what a search sees of networks on the examples that it chooses by ranks them, on tasks "
        "of our corpus that live searches are not measured on.",
        settings={"networks": networks, "steps of the rungs": list(rungs)},
        packages=("scipy",),
        folder=options.out,
    )
    for target in options.only or targets:
        done = result.has(next(iter(CRITERIA)), target, f"{TEST} of the best")
        if options.list:
            print(f"{target}: {'has rows' if done else 'none yet'}")
            continue
        if done:
            continue
        said, worth = judged(Live.of(target, 0.0, 0), rungs, networks)
        for (name, steps), values in said.items():
            tau, points = float(kendalltau(values, worth).statistic), lost(values, worth)
            result.add(name, setting(steps, target), TAU, round(tau, 4), n=networks)
            result.add(name, setting(steps, target), LOST, round(points, 3), n=networks)
        result.add(next(iter(CRITERIA)), target, f"{TEST} of the best", round(max(worth), 3))
        print(f"{target}: worth {min(worth):.1f} to {max(worth):.1f} %", flush=True)
    if not options.list:
        means(result, targets, rungs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
