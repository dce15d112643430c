"""What a network that a search has chosen should do with the seconds that are left.

    python benchmarks/tiny_ending.py                  all tasks without rows
    python benchmarks/tiny_ending.py --list           the tasks, and which have rows
    python benchmarks/tiny_ending.py --smoke          few steps of one task, into a temporary folder

A search sets a quarter of the examples aside, to choose by. Its last training is 600 steps on the others, and then the
examples that were set aside have done their service. It may also train with inputs that are moved about at random, by
a pixel or so: half of them, all of them, or all or none as validation says. Here a network that it might have chosen,
the best by validation of twelve networks of the corpus within the limits of the live searches, ends in several ways,
and is tested after each. The tasks are those of the corpus that live searches are not measured on. The interval is
Student's, over tasks and seeds, of the difference to the network as it was chosen.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from result import HERE, Result
from tiny_search import LIVE, TEST, Live, corpus, digest, interval, moves
from torch import Generator, Tensor, nn

from quickstudy.nas.architecture import Architecture
from quickstudy.nas.build import count
from quickstudy.nas.search import judge, open_task
from quickstudy.nas.train import Schedule, answer, train
from quickstudy.nas.trainer import untrained

SEEDS, STEPS, OFFERED = 2, 600, 12
GAIN = "points gained on the network as it was chosen"
CHOSEN = "as it was chosen"
FURTHER = {
    "half as many steps, all examples, half the rate": (0.5, 0.5, True),
    "half as many steps, all examples, the same rate": (0.5, 1.0, True),
    "as many steps, all examples, half the rate": (1.0, 0.5, True),
    "as many steps, all examples, the same rate": (1.0, 1.0, True),
    "a quarter of the steps, all examples, half the rate": (0.25, 0.5, True),
    "a quarter of the steps, all examples, the same rate": (0.25, 1.0, True),
    "half as many steps, the same examples, half the rate": (0.5, 0.5, False),
}
"""Steps and rate of going on, as parts of the last training's, and whether all examples take part."""
ANEW = {
    "half as many steps from the beginning, all examples": 0.5,
    "as many steps from the beginning, all examples": 1.0,
    "twice as many steps from the beginning, all examples": 2.0,
}
HALF = "as many steps from the beginning, half of the inputs moved"
MOVED = "as many steps from the beginning, all inputs moved"
BETTER = "all inputs moved or none, the better on the validation set"
NAMES = (CHOSEN, *FURTHER, *ANEW, HALF, MOVED, BETTER)


def chosen(live: Live) -> Architecture:
    """Of so many networks of the corpus within the limits, the best by one seed's validation."""
    one = corpus()[live.target]
    order = torch.randperm(len(one.architectures), generator=Generator().manual_seed(live.seed)).tolist()
    allowed = [i for i in order if live.limits.allows(count(one.space, one.architectures[i]))]
    best: Architecture = one.architectures[
        max(allowed[:OFFERED], key=lambda i: float(one.validation[i, 0].nan_to_num()))
    ]
    return best


def endings(live: Live, steps: int) -> dict[str, float]:
    """Test accuracy in per cent of every way to end."""
    space, data = open_task(live.task, live.seed)
    architecture, schedule = chosen(live), Schedule(steps=steps)

    def network(weights: dict[str, Tensor] | None = None) -> nn.Sequential:
        found = untrained(space, architecture, data.x, seed=live.seed)
        found.load_state_dict(weights or found.state_dict())
        return found

    def ended(start: nn.Sequential, plan: Schedule, *, every: bool) -> float:
        x, y = data.all if every else (data.x, data.y)
        train(start, x, y, plan, generator=Generator().manual_seed(live.seed))
        test, _ = judge(start, live.task)
        assert test is not None
        return test.percent

    def validated(one: nn.Sequential) -> int:
        return int((answer(one, data.x_validation).argmax(1) == data.y_validation).sum())

    first = network()
    found = {CHOSEN: ended(first, schedule, every=False)}
    for name, (part, rate, every) in FURTHER.items():
        plan = replace(schedule, steps=round(part * steps), lr=rate * schedule.lr)
        found[name] = ended(network(first.state_dict()), plan, every=every)
    for name, part in ANEW.items():
        found[name] = ended(network(), replace(schedule, steps=round(part * steps)), every=True)
    shifted = replace(schedule, shift=moves(live))
    found[HALF] = ended(network(), shifted, every=False)
    found[MOVED] = ended(moved := network(), replace(shifted, moved=1.0), every=False)
    found[BETTER] = found[MOVED if validated(moved) > validated(first) else CHOSEN]
    return found


def means(result: Result, targets: Sequence[str]) -> None:
    """What each ending gains, over all tasks and seeds, once all have rows."""
    known = {(r["method"], r["setting"], r["seed"]): r["value"] for r in result.rows if r["metric"] == TEST}
    pairs = [(target, seed) for target in targets for seed in range(SEEDS)]
    if not all((name, *pair) in known for pair in pairs for name in NAMES):
        return
    for name in NAMES[1:]:
        gained = [known[name, *pair] - known[CHOSEN, *pair] for pair in pairs]
        half = interval(gained) or 0.0
        mean = f"mean of {len(targets)} tasks"
        result.add(name, mean, GAIN, round(statistics.fmean(gained), 3), ci95=round(half, 3), n=len(pairs))


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--list", action="store_true", help="the tasks, and whether they have rows")
    parser.add_argument("--smoke", action="store_true", help="few steps of one task, elsewhere")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of the results")
    options = parser.parse_args(given)
    torch.set_num_threads(1)
    targets, steps = [target for target in corpus() if target not in LIVE], STEPS
    if options.smoke:
        options.out, targets, steps = Path(tempfile.mkdtemp(prefix="tiny_ending-")), ["digits"], 8
    result = Result(
        "tiny_ending",
        description="What a network that a search has chosen should do with the seconds that are left: gains over the "
        "network as it was chosen, on tasks of our corpus that live searches are not measured on.",
        settings={"steps of the last training": steps, "corpus": digest(), "networks to choose from": OFFERED},
        packages=("scipy",),
        folder=options.out,
    )
    for seed in range(SEEDS):
        for target in targets:
            done = all(result.has(name, target, TEST, seed=seed) for name in NAMES)
            if options.list:
                print(f"{target}, seed {seed}: {'has rows' if done else 'none yet'}")
            elif not done:
                found = endings(Live.of(target, 0.0, seed), steps)
                for name, percent in found.items():
                    result.add(name, target, TEST, round(percent, 3), seed=seed)
                print(f"{target}, seed {seed}: " + ", ".join(f"{value:.1f}" for value in found.values()), flush=True)
    if not options.list:
        means(result, targets)
    return 0


if __name__ == "__main__":
    sys.exit(main())
