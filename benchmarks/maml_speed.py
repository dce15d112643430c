"""Second-order MAML: seconds and memory of a meta-iteration, against other libraries and against the machine.

    python benchmarks/maml_speed.py                  everything, into results/maml_speed.json: 10 to 15 minutes
    python benchmarks/maml_speed.py --steps 5        one of its two parts, beside the other's rows
    python benchmarks/maml_speed.py --device cuda    the same on a GPU, into results/maml_speed_cuda.json
    python benchmarks/maml_speed.py --machine epyc   on another machine, beside this one's, into maml_speed_epyc.json
    python benchmarks/maml_speed.py --where          only where our time goes, by torch's profiler, into the same file
    python benchmarks/maml_speed.py --smoke          tiny, into a temporary folder: does everything run and agree?

A meta-iteration goes forward and backward to the gradients of all meta-parameters: Conv4 with 64 feature maps on 28x28
pictures, 5-way 1-shot with 15 queries a class, 16 tasks, 1 and 5 inner steps. All methods normalise by the statistics
of the set that they are asked about, so that they do the same work; before anything is timed, each one's loss and
meta-gradient must agree with ours. Then they take turns, A B C ... A B C ..., in one process; peak memory is taken in
a fresh process a method. Close everything else: the script refuses a busy machine unless told `--anyway`.
"""

import argparse
import gc
import importlib
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers.problem import Answer, MetaIteration, Problem, last_layer, layers
from result import HERE, Result, cores
from torch import Generator, Tensor
from torch.utils.flop_counter import FlopCounterMode

from quickstudy import Examples, Task

SECONDS, MEMORY, RATE = "seconds per meta-iteration", "peak memory MB", "matrix product, GFLOP per second"
SPEED, SHARE = "speed ratio to the best peer", "share of the floor's rate %"
PART = "part of the time of quickstudy %"
STEPS, LR = (1, 5), 0.1
TOLERANCE = {1: 1e-3, 5: 2e-2}
"""Largest relative error of the float32 meta-gradient: every step multiplies the rounding of the one before, and a
maximum that rounding decides the other way changes the gradient of its task. In float64 all agree to 1e-13."""
BUSY = 0.25
"""Processes waiting for a core, as a part of the cores, from which on a machine is busy."""


@dataclass(frozen=True)
class Size:
    """How large the problem is."""

    tasks: int = 16
    width: int = 64
    side: int = 28
    n_way: int = 5
    n_shot: int = 1
    n_query: int = 15


@dataclass(frozen=True)
class Method:
    """Something to time."""

    module: str
    """A file of peers/ with a function `prepare`."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of `prepare`."""
    peer: bool = True
    """Whether it is one of those that the best peer is chosen among."""

    def prepare(self, problem: Problem) -> MetaIteration:
        iteration: MetaIteration = importlib.import_module(f"peers.{self.module}").prepare(problem, **self.options)
        return iteration


METHODS = {
    "quickstudy": Method("quickstudy_maml", peer=False),
    "quickstudy, low memory": Method("quickstudy_maml", {"low_memory": True}, peer=False),
    "quickstudy, usual network": Method("quickstudy_maml", {"usual_network": True}, peer=False),
    "plain autograd loop": Method("plain_loop"),
    "torch.func vmap": Method("func_vmap"),
    "torchopt": Method("torchopt_maml"),
    "higher": Method("higher_maml"),
    "parallel-metalearn, vmap": Method("metalearn_maml"),
    "parallel-metalearn, sequential": Method("metalearn_maml", {"backend": "sequential"}),
    # what of our gain is the doing of quickstudy's Conv4, in torch's plain loop, and therefore no peer
    "plain autograd loop, our network": Method("plain_loop", {"our_network": True}, peer=False),
}


def make_problem(size: Size, steps: int, device: str) -> Problem:
    """Random pictures, whose arithmetic takes as long as any, and a network as torch initialises it."""
    generator = Generator().manual_seed(0)

    def examples(each: int) -> Examples:
        y = torch.arange(size.n_way).repeat(size.tasks, each)
        x = torch.rand(*y.shape, 1, size.side, size.side, generator=generator)
        return Examples(x.to(device), y.to(device))

    tasks = Task(examples(size.n_shot), examples(size.n_query), size.n_way)
    problem = Problem(tasks, size.width, (), LR, steps)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = torch.nn.Sequential(*layers(problem), last_layer(problem))
    return replace(problem, start=tuple(p.detach().to(device) for p in net.parameters()))


def floating_point_operations(size: Size, steps: int) -> float:
    """What the mathematics needs of convolutions and the last layer, from their shapes; a multiply-add counts as two.

    A convolution at `h x w` positions takes `h w 9 c_in c_out` multiply-adds a picture. Call that 1. The query half
    takes 3: forward, and back to its input and to its weights. A step of the support half takes 9: forward 1, back to
    input and weights 2; back through those two products, each to both of its factors, 4; and once more back through
    the forward pass, 2. The first layer's input needs no gradient: 2 and 4. Normalisation, pooling and losses are left
    out: they are limited by memory, not by arithmetic.
    """
    sides = [size.side >> i for i in range(4)]
    layers = [side * side * 9 * (size.width if i else 1) * size.width for i, side in enumerate(sides)]
    layers.append(size.width * (size.side >> 4) ** 2 * size.n_way)
    query = size.n_way * size.n_query * (3 * sum(layers) - layers[0])
    support = size.n_way * size.n_shot * (9 * sum(layers) - 5 * layers[0])
    return 2.0 * size.tasks * (query + steps * support)


def counted_operations(problem: Problem) -> float:
    """What torch counts in the plain loop: more than is needed, as it takes some gradients of the pictures, too."""
    with FlopCounterMode(display=False) as counter:
        METHODS["plain autograd loop"].prepare(problem)()
    return float(counter.get_total_flops())


def relative_error(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Of two gradients as vectors."""
    gap, norm = (
        math.sqrt(sum(float(g.double().square().sum()) for g in gradients))
        for gradients in ([a - b for a, b in zip(found, expected)], expected)
    )
    return gap / norm


def check(method: str, found: Answer, ours: Answer, steps: int) -> float:
    """The relative error of a method's meta-gradient, where it and the loss agree with ours.

    Raises:
        AssertionError: Where they do not.
    """
    error = relative_error(found.gradients, ours.gradients)
    losses = float(found.loss), float(ours.loss)
    if not (error < TOLERANCE[steps] and abs(losses[0] - losses[1]) < TOLERANCE[steps] * abs(losses[1])):
        raise AssertionError(
            f"{method} at {steps} step(s): loss {losses[0]:.6f} against our {losses[1]:.6f}, relative error of the "
            f"meta-gradient {error:.1e}; the tolerance is {TOLERANCE[steps]:.0e}. It does not do the same work."
        )
    return error


def copied(answer: Answer) -> Answer:
    """An answer that the next iteration does not overwrite."""
    return Answer(answer.loss.clone(), [g.clone() for g in answer.gradients])


def timed(work: Callable[[], object], device: str) -> float:
    """Seconds that it takes."""
    synchronise(device)
    start = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - start


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def matrix_product_rate(device: str, side: int) -> float:
    """Floating-point operations a second of a float32 matrix product, the best of three."""
    a, b = (torch.rand(side, side, device=device) for _ in range(2))
    gc.collect()
    return 2 * side**3 / min(timed(lambda: a @ b, device) for _ in range(3))


def median_interval(values: Sequence[float]) -> float:
    """Half the width of the bootstrapped 95 % interval of the median."""
    drawn = np.random.default_rng(0).choice(np.asarray(values), (4000, len(values)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return float(high - low) / 2


def ratio_interval(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The same of the ratio of two medians, rounds drawn in pairs."""
    rounds = np.random.default_rng(0).integers(len(ours), size=(4000, len(ours)))
    medians = (np.median(np.asarray(values)[rounds], axis=1) for values in (theirs, ours))
    low, high = np.quantile(np.divide(*medians), [0.025, 0.975])
    return float(high - low) / 2


# Memory


def resident(field_name: str) -> int:
    """Bytes of resident memory of this process: now ("VmRSS"), or at most so far ("VmHWM")."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text("utf-8").splitlines():
            if line.startswith(field_name):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def peak_memory(method: str, size: Size, steps: int, device: str) -> float:
    """MB of two meta-iterations, beyond what imports, data and the network take; to be run in a fresh process."""
    iterate = METHODS[method].prepare(make_problem(size, steps, device))
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        # The kernel hands the peak of a parent process on to its child, as ru_maxrss; VmHWM is the child's own.
        before = resident("VmHWM")
    for _ in range(2):
        iterate()
    after = torch.cuda.max_memory_allocated() if device == "cuda" else resident("VmHWM")
    return (after - before) / 1e6


def peak_memory_alone(method: str, steps: int, arguments: argparse.Namespace) -> float:
    """`peak_memory` in a process of its own."""
    command = [sys.executable, str(Path(__file__)), "--memory-of", method, "--memory-steps", str(steps)]
    command += ["--device", arguments.device, "--threads", str(arguments.threads)]
    command += ["--smoke"] if arguments.smoke else []
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


# The machine


def processor_seconds() -> tuple[float, float] | None:
    """Seconds that all cores have worked, and those of them for this process; None where the system does not say."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return None
    user, nice, system, _, _, irq, softirq, steal = map(int, stat.read_text("utf-8").split()[1:9])
    own = os.times()
    tick = os.sysconf("SC_CLK_TCK")
    return (user + nice + system + irq + softirq + steal) / tick, sum(own[:4])


def others_share(before: tuple[float, float] | None, after: tuple[float, float] | None, wall: float) -> float | None:
    """Per cent of the processors' time that went to other processes."""
    if before is None or after is None:
        return None
    everything, ours = after[0] - before[0], after[1] - before[1]
    return round(max(0.0, 100 * (everything - ours) / (wall * (os.cpu_count() or 1))), 1)


def is_idle(anyway: bool) -> bool:
    """Whether to go on; says so where the machine has other work."""
    load = os.getloadavg()[0]
    if load <= BUSY * cores():
        return True
    print(
        f"The machine is busy: its load over the last minute is {load:.2f}, and above {BUSY * cores():.2f} times mean "
        "nothing. " + ("Going on, as told." if anyway else "Wait until it is idle, or say --anyway."),
        file=sys.stderr,
    )
    return anyway


# The run


@dataclass
class Comparison:
    """What was measured at one number of inner steps."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    """Of each method in each round."""
    rates: list[float] = field(default_factory=list)
    """Floating-point operations a second of a matrix product, in each round."""
    errors: dict[str, float] = field(default_factory=dict)
    """Relative errors of the meta-gradients."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Methods that do not run, and why."""
    memory: dict[str, float] = field(default_factory=dict)
    """Peak memory in MB."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What else ran on the machine meanwhile."""


def compare(names: Sequence[str], size: Size, steps: int, arguments: argparse.Namespace) -> Comparison:
    """Checks all methods, times them in turns, and takes their peak memory."""
    problem = make_problem(size, steps, arguments.device)
    iterations: dict[str, MetaIteration] = {}
    made = Comparison()
    ours = copied(METHODS["quickstudy"].prepare(problem)())
    for name in names:
        try:
            iterate = METHODS[name].prepare(problem)
            found = iterate()
        except Exception as error:  # a peer may fail in any way
            made.left_out[name] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            print(f"{name} is left out at {plural(steps)}: {made.left_out[name]}", file=sys.stderr, flush=True)
            continue
        made.errors[name] = check(name, found, ours, steps)
        iterations[name] = iterate
    made.seconds = {name: [] for name in iterations}
    load, before, start = os.getloadavg()[0], processor_seconds(), time.perf_counter()
    for i in range(arguments.rounds):
        made.rates.append(matrix_product_rate(arguments.device, 256 if arguments.smoke else 2048))
        for name, iterate in iterations.items():
            gc.collect()
            made.seconds[name].append(timed(iterate, arguments.device))
        done = ", ".join(f"{name} {values[-1]:.3f}" for name, values in made.seconds.items())
        print(f"{plural(steps)}, round {i + 1} of {arguments.rounds}: {done}", flush=True)
    others = others_share(before, processor_seconds(), time.perf_counter() - start)
    if others is not None and others > 5:
        print(f"Other processes took {others} % of the processors meanwhile: the times mean little.", file=sys.stderr)
    made.facts = {"load before": round(load, 2), "other processes": "not known" if others is None else f"{others} %"}
    iterations.clear()
    gc.collect()
    made.memory = {name: peak_memory_alone(name, steps, arguments) for name in made.seconds}
    return made


KINDS = {
    "convolutions and matrix products": ("conv", "mm", "linear", "matmul"),
    "pooling, and putting values in places": ("pool", "index", "gather", "scatter", "take"),
    "copies, patches and zeros": ("copy", "clone", "cat", "stack", "im2col", "col2im", "fill", "zero", "contiguous"),
}
"""Operations of torch by a part of their names, the first that fits."""
OTHERS, OUTSIDE = "sums, products and all else", "outside of operations"


def kind_of(operation: str) -> str:
    """What an operation of torch does.

    Example:
        >>> kind_of("aten::mkldnn_convolution"), kind_of("aten::native_batch_norm")
        ('convolutions and matrix products', 'sums, products and all else')
    """
    name = operation.lower()
    return next((kind for kind, words in KINDS.items() if any(word in name for word in words)), OTHERS)


def parts_of_time(steps: int, size: Size) -> dict[str, float]:
    """Per cent of a meta-iteration of ours by what operations do, under torch's profiler, which takes time itself.

    Operations on several threads count once, in the thread that began them; so this is for the CPU alone.
    """
    iterate = METHODS["quickstudy"].prepare(make_problem(size, steps, "cpu"))
    iterate()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], acc_events=True) as profile:
        seconds = timed(lambda: [iterate() for _ in range(3)], "cpu")
    spent = dict.fromkeys([*KINDS, OTHERS], 0.0)
    for event in profile.key_averages():
        if "::" in event.key:
            spent[kind_of(event.key)] += event.self_cpu_time_total / 1e6
    shares = {kind: 100 * value / seconds for kind, value in spent.items()}
    return {**shares, OUTSIDE: max(0.0, 100 - sum(shares.values()))}


def plural(steps: int) -> str:
    return "1 step" if steps == 1 else f"{steps} steps"


def add_rows(result: Result, steps: int, made: Comparison, size: Size) -> None:
    """The rows of one number of steps."""
    setting, n, seconds = plural(steps), len(made.rates), made.seconds
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    floor = floating_point_operations(size, steps) / statistics.median(made.rates)
    best = min((name for name in medians if METHODS[name].peer), key=medians.__getitem__, default=None)
    for name, values in seconds.items():
        interval = median_interval(values)
        result.add(name, setting, SECONDS, medians[name], ci95=interval, n=n, seconds=sum(values), rounds=values)
    result.add("floor", setting, SECONDS, floor, n=n)
    for name, values in seconds.items():
        if best is not None:
            ratio = medians[best] / medians[name]
            result.add(name, setting, SPEED, ratio, ci95=ratio_interval(values, seconds[best]), n=n, best_peer=best)
        result.add(name, setting, SHARE, 100 * floor / medians[name], n=n)
    for name, value in made.memory.items():
        result.add(name, setting, MEMORY, value)
    rate = statistics.median(made.rates) / 1e9
    result.add("floor", setting, RATE, rate, ci95=median_interval(made.rates) / 1e9, n=n)


def add_parts(result: Result, steps: int, size: Size) -> None:
    """Where our time goes."""
    for kind, share in parts_of_time(steps, size).items():
        result.add(kind, plural(steps), PART, round(share, 1))
        print(f"{plural(steps)}: {kind} {share:.0f} %", flush=True)


def facts(made: Comparison, size: Size, steps: int, device: str) -> dict[str, Any]:
    """What is said of one number of steps beside its rows."""
    counted = counted_operations(make_problem(size, steps, device))
    return {
        "GFLOP a task, needed": round(floating_point_operations(size, steps) / size.tasks / 1e9, 3),
        "GFLOP a task, counted by torch in the plain loop": round(counted / size.tasks / 1e9, 3),
        "largest relative error of a meta-gradient": f"{max(made.errors.values(), default=0.0):.0e}",
        "left out": made.left_out or "none",
        **made.facts,
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--machine", metavar="NAME", help="of the file, beside that of another machine")
    parser.add_argument("--rounds", type=int, default=7, help="turns of every method (%(default)s)")
    parser.add_argument("--threads", type=int, default=cores(), help="of torch (%(default)s)")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="METHOD")
    parser.add_argument("--steps", nargs="+", type=int, choices=STEPS, default=list(STEPS), help="inner steps")
    parser.add_argument("--out", type=Path, help="folder of the result; benchmarks/results for a complete run")
    parser.add_argument("--where", action="store_true", help="only where our time goes")
    parser.add_argument("--anyway", action="store_true", help="run although the machine is busy")
    parser.add_argument("--smoke", action="store_true", help="tiny, to see that all of it runs")
    parser.add_argument("--memory-of", choices=METHODS, help=argparse.SUPPRESS)
    parser.add_argument("--memory-steps", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.smoke:
        arguments.rounds, arguments.threads = min(arguments.rounds, 2), 1
    torch.set_num_threads(arguments.threads)
    size = Size(tasks=2, width=4, side=16, n_query=2) if arguments.smoke else Size()
    if arguments.memory_of:
        print(json.dumps(peak_memory(arguments.memory_of, size, arguments.memory_steps, arguments.device)))
        return 0
    if not (arguments.smoke or is_idle(arguments.anyway)):
        return 1
    official = set(arguments.methods) == set(METHODS) and not arguments.smoke
    folder = arguments.out or (HERE / "results" if official else Path(tempfile.mkdtemp(prefix="maml_speed-")))
    result = open_result(arguments, size, folder)
    for steps in arguments.steps:
        if arguments.device == "cpu":
            add_parts(result, steps, size)
        if arguments.where:
            continue
        made = compare(arguments.methods, size, steps, arguments)
        result.header["settings"][plural(steps)] = facts(made, size, steps, arguments.device)
        add_rows(result, steps, made, size)
    for row in result.rows:
        if row["metric"] in (SECONDS, SPEED, MEMORY):
            print(f"{row['setting']}, {row['metric']}: {row['method']} {row['value']:.3f}")
    print(f"written: {result.path}")
    return 0


def open_result(arguments: argparse.Namespace, size: Size, folder: Path) -> Result:
    """The file: a new one for all numbers of steps, else the one that there is."""
    of = [] if arguments.device == "cpu" else [arguments.device]
    name = "_".join(["maml_speed", *of, *([arguments.machine] if arguments.machine else [])])
    if tuple(arguments.steps) == STEPS and not arguments.where:
        (folder / f"{name}.json").unlink(missing_ok=True)
    return Result(
        name,
        description=(
            "Second-order MAML, forward and backward to all meta-gradients: Conv4, 5-way 1-shot, 15 queries a class. "
            "Times are medians over rounds in which the methods take turns in one process; peak memory is beyond "
            "imports and data, in a process of its own. The floor is the floating-point work of convolutions and last "
            "layer over the rate of a matrix product in the same run. The peers' network is the usual one; *our "
            "network* has its first block as a matrix product on patches, whose moments come from the patches' "
            "covariance, and pools before ReLU, which is equal; it is not counted as a peer."
        ),
        settings={
            "tasks": size.tasks,
            "feature maps": size.width,
            "pictures": f"{size.side}x{size.side}, one channel, random",
            "classes, shots, queries a class": [size.n_way, size.n_shot, size.n_query],
            "batch normalisation": "by the batch (transductive), so that all do the same work",
            "inner rate": LR,
            "device": arguments.device,
            "threads": arguments.threads,
            "rounds": arguments.rounds,
        },
        packages=("torchopt", "higher", "parallel-metalearn"),
        folder=folder,
    )


if __name__ == "__main__":
    sys.exit(main())
