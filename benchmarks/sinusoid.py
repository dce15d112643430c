"""Sinusoid regression: mean squared error on new waves after a few gradient steps on five points.

    python benchmarks/sinusoid.py              the next unit that has no rows yet
    python benchmarks/sinusoid.py --all        all units
    python benchmarks/sinusoid.py --only maml --seed 0

A unit is one training run of one method from one seed; the longest take 10 to 20 minutes on one thread. One that is
interrupted goes on from its checkpoint. The setting is that of Finn et al., 2017, section 5.1: a network 1-40-40-1 with
ReLU, one inner step of 0.01 on 10 points in meta-training, 25 tasks an outer step, Adam 0.001, 70000 outer steps. Their
table has five points at test; so do these rows.
"""

import argparse
import logging
import math
from collections.abc import Callable
from pathlib import Path

import torch
from result import HERE, Result

from quickstudy import MAML, MLP, Learner, Progress, Reptile, evaluate, meta_train
from quickstudy.errors import DivergedError
from quickstudy.learners.maml_plus_plus import MAMLPlusPlus
from quickstudy.learners.meta_sgd import MetaSGD
from quickstudy.tasks.sinusoid import Sinusoid

ITERATIONS, TASKS_PER_STEP, LR, INNER_LR, SEEDS = 70_000, 25, 1e-3, 0.01, (0, 1, 2)
TEST_STEPS = (0, 1, 5, 10)
TEST = Sinusoid(n_shot=5, n_query=100)
METRIC = "mean squared error"
PUBLISHED = {1: 0.67, 5: 0.38, 10: 0.35}
SOURCE = "Finn et al., Model-Agnostic Meta-Learning, 2017 (5-shot sinusoid)"


class Method:
    """How a method is trained, and what adapts at test."""

    def __init__(
        self,
        learner: Callable[[MLP], Learner],
        *,
        n_shot: int = 10,
        iterations: int = ITERATIONS,
        lr: float = LR,
        cosine: bool = False,
        clip: float | None = None,
        at_test: Callable[[MLP, Learner, int], Learner] | None = None,
    ) -> None:
        self.learner, self.iterations, self.lr, self.cosine, self.clip = learner, iterations, lr, cosine, clip
        self.source = Sinusoid(n_shot=n_shot, n_query=n_shot)
        self.at_test = at_test or (lambda net, trained, steps: MAML(net, lr=INNER_LR, steps=steps))


def more_steps(net: MLP, trained: Learner, steps: int) -> Learner:
    """Meta-SGD with the rates that it has learned, for another number of steps."""
    learner = MetaSGD(net, lr=INNER_LR, steps=steps)
    learner.load_state_dict(trained.state_dict())
    return learner


def adapt_steps(net: MLP, trained: Learner, steps: int) -> Learner:
    """MAML++ after some of its steps, or with the last one's rates repeated."""
    assert isinstance(trained, MAMLPlusPlus)
    trained.adapt_steps = steps
    return trained


METHODS = {
    "maml": Method(lambda net: MAML(net, lr=INNER_LR)),
    "maml, trained on 5 points": Method(lambda net: MAML(net, lr=INNER_LR), n_shot=5),
    "first-order maml": Method(lambda net: MAML(net, lr=INNER_LR, order=1)),
    "meta-sgd": Method(MetaSGD, at_test=more_steps),
    # five steps of rates that it learns, and that nothing bounds: a step too long is to have no more say than others
    # (clipped at 10 the loss was infinite after 244 steps)
    "maml++, 5 steps": Method(
        lambda net: MAMLPlusPlus(net, lr=INNER_LR, steps=5, per_step_norm=False),
        cosine=True,
        clip=1.0,
        at_test=adapt_steps,
    ),
    "reptile, 5 steps": Method(lambda net: Reptile(net, lr=INNER_LR, steps=5), lr=1.0, cosine=True),
    # all tasks as one: what a network learns that is asked before it has adapted
    "pretrained": Method(lambda net: MAML(net, steps=0), n_shot=10),
    "random initialisation": Method(lambda net: MAML(net, steps=0), iterations=0),
}


def train(name: str, seed: int, result: Result, checkpoints: Path) -> None:
    """One unit."""
    method = METHODS[name]
    torch.manual_seed(seed)
    net = MLP(1, 1, hidden=(40, 40))
    learner = method.learner(net)
    seconds = 0.0
    if method.iterations:
        history = meta_train(
            learner,
            method.source,
            steps=method.iterations,
            tasks_per_step=TASKS_PER_STEP,
            lr=method.lr,
            schedule="cosine" if method.cosine else "constant",
            clip=method.clip,
            seed=seed,
            out=checkpoints / f"{name.replace(',', '').replace(' ', '-')}-{seed}",
            resume=True,
            settings={"method": name, "inner rate": INNER_LR},
            on_progress=report(name, seed, method.iterations),
        )
        seconds = history.seconds
    for steps in TEST_STEPS:
        setting = after(steps)
        try:
            found = evaluate(method.at_test(net, learner, steps), TEST, tasks=600, batch=100)
        except DivergedError as error:
            print(f"{name}, seed {seed}, {setting}: {error}", flush=True)
            result.add(name, setting, METRIC, math.nan, n=600, seconds=seconds, seed=seed)
            continue
        print(f"{name}, seed {seed}, {setting}: {found}", flush=True)
        result.add(name, setting, METRIC, found.mean, ci95=found.ci95, n=found.n, seconds=seconds, seed=seed)


def after(steps: int) -> str:
    return "1 step" if steps == 1 else f"{steps} steps"


def report(name: str, seed: int, iterations: int) -> Callable[[Progress], None]:
    def on_progress(progress: Progress) -> None:
        history = progress.history
        if history.step % 5000 == 0 and history.losses:
            rate = history.step / max(history.seconds, 1e-9)
            at = f"{history.step}/{iterations}, loss {history.losses[-1]:.3f}, {rate:.0f}/s"
            print(f"{name}, seed {seed}: {at}", flush=True)

    return on_progress


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="every unit without rows, not only the next")
    parser.add_argument("--only", choices=METHODS, help="units of this method")
    parser.add_argument("--seed", type=int, choices=SEEDS, help="units of this seed")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch; more do not help so small a network")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    logging.basicConfig(level=logging.WARNING)
    result = Result(
        "sinusoid",
        description=(
            "Mean squared error on 600 new sine waves, after gradient steps on 5 points of each. Meta-trained on 10 "
            "points and one inner step where the method's name says nothing else; weights start as torch's do (in the "
            "published code, truncated normals of deviation 0.01)."
        ),
        settings={
            "network": "1-40-40-1, ReLU",
            "inner rate": INNER_LR,
            "outer": "Adam 0.001 (Reptile: SGD 1; both it and MAML++: cosine annealing; MAML++: clipped at 1)",
            "tasks an outer step": TASKS_PER_STEP,
            "outer steps": ITERATIONS,
            "test": "5 support points, 100 query points, 600 tasks, the same ones for all",
        },
    )
    for steps, value in PUBLISHED.items():
        if not result.has("maml", after(steps), METRIC, source=SOURCE):
            result.add("maml", after(steps), METRIC, value, source=SOURCE)
    units = [
        (name, seed)
        for seed in SEEDS
        for name in METHODS
        if arguments.only in (None, name)
        and arguments.seed in (None, seed)
        and not all(result.has(name, after(steps), METRIC, seed=seed) for steps in TEST_STEPS)
    ]
    if not units:
        print("sinusoid: every unit has its rows.")
    for name, seed in units if arguments.all else units[:1]:
        try:
            train(name, seed, result, HERE / "checkpoints" / "sinusoid")
        except DivergedError as error:
            print(f"{name}, seed {seed}: {error}", flush=True)
            for steps in TEST_STEPS:
                result.add(name, after(steps), METRIC, None, seed=seed, why="its training diverged")


if __name__ == "__main__":
    main()
