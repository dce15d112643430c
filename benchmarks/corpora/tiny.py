"""Our corpus: 64 networks of Tiny on each of some twenty small tasks, twice.

    python benchmarks/corpora/tiny.py --list                 the tasks, and which are finished
    python benchmarks/corpora/tiny.py --all --jobs 1         all that are not
    python benchmarks/corpora/tiny.py --only omniglot        those whose name has this in it
    python benchmarks/corpora/tiny.py --all --hours 2        begins no task after two hours
    python benchmarks/corpora/tiny.py --report               into benchmarks/results/corpus.json
    python benchmarks/corpora/tiny.py --rate                 networks trained a minute, ours against a plain loop
    python benchmarks/corpora/tiny.py --smoke                tiny, into a temporary folder

A unit is one task, and four kinds of networks, each of at most MOST_MADDS multiply-adds and MOST_CONVOLUTIONS
convolutions in cells. All tasks of the same dimension share COMMON ones, uniform in Tiny, and the plain cell that is
built by hand (two convolutions and a shortcut) in all widths and depths within those limits, which are too few of Tiny
to be drawn. A task has OWN uniform ones of its own, and NEAR that differ from a plain one in at most three choices.

Each is trained from two seeds with the schedule of a search, which moves half of the inputs about, and once for a
quarter of the steps, a complete schedule too. Rows go to a checkpoint as they come, and a run goes on from there; a
finished task is a file of priors/tiny_corpus, which also says how it was made, in tasks.json.
"""

import argparse
import csv
import hashlib
import io
import json
import math
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from scipy.stats import kendalltau
from scipy.stats import t as student
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

HERE = Path(__file__).parent
if str(HERE.parent) not in sys.path:  # run as a script, its own folder is the first on the path
    sys.path.insert(0, str(HERE.parent))

from result import Result, commit, versions  # noqa: E402

from corpora.tasks import RECIPES, generator_of, load, parts  # noqa: E402
from quickstudy.errors import DivergedError  # noqa: E402
from quickstudy.nas.architecture import Architecture, Value  # noqa: E402
from quickstudy.nas.build import build, count  # noqa: E402
from quickstudy.nas.proxies import PROXIES  # noqa: E402
from quickstudy.nas.space import Space, draw  # noqa: E402
from quickstudy.nas.standardise import standardised  # noqa: E402
from quickstudy.nas.tiny import DEPTHS, Tiny, cell_of  # noqa: E402
from quickstudy.nas.train import Schedule, answer, train  # noqa: E402

HOME = HERE.parents[1] / "src" / "quickstudy" / "priors" / "tiny_corpus"
CHECKPOINTS = HERE.parent / "checkpoints" / "corpus"
COMMON, NEAR, OWN = 20, 12, 20
PLAIN: Mapping[str, Value] = {
    "0-1": "conv3", "0-2": "none", "1-2": "none", "0-3": "skip_connect", "1-3": "conv3", "2-3": "none",
    "stages": 2, "stem": "stride2", "down": "stride", "head": "mean",
}  # fmt: skip
"""Two convolutions and a shortcut; without width and depth."""
MOST_CHANGES = 3
"""Between a network that is near a plain one and that one."""
SEEDS = (0, 1)
MOST_MADDS, MOST_CONVOLUTIONS = 1_000_000, 18
WIDEST = (3, 16, 16)
"""The common pictures' networks keep to the limits on inputs as large as these; so do those of series of 100 steps."""
STEPS, BATCH = 600, 32
QUARTER = 4
PROXY_BATCH = 32
MEASURED = tuple(name for name in PROXIES if name not in ("parameters", "multiply_adds"))
COSTS = ("parameters", "multiply_adds", "peak_memory")
COLUMNS = ("architecture", "seed", "validation", "test", "quarter_validation", "seconds", *COSTS, *MEASURED)
"""Of a file. What does not depend on the seed, and the quarter's accuracy, is in the rows of seed 0 only."""

RIGHT, TAU = "right on the test set %", "Kendall's tau"
SPEED, RATIO = "networks trained a minute", "speed ratio to the plain loop"
DESCRIPTION = (
    "Networks of Tiny on small tasks, each trained from two seeds; 24 of the 64 of a task are built by hand or near to "
    "that, the others are drawn. Kendall's tau is between what is named, of the "
    "first seed, and the test accuracy of the second; that of another seed's test accuracy is the most that a "
    "predictor can be expected to reach. Networks trained a minute are counted in seconds of one core's time."
)
RANKINGS = {
    "another seed": "test",
    "validation accuracy": "validation",
    "a quarter of the steps": "quarter_validation",
    **{proxy.replace("_", " "): proxy for proxy in (*COSTS, *MEASURED)},
}


@dataclass(frozen=True)
class Size:
    """How much is done on a task."""

    common: int = COMMON
    plain: int | None = None
    """None: all that keep to the limits."""
    near: int = NEAR
    own: int = OWN
    steps: int = STEPS


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="all tasks that are not finished")
    parser.add_argument("--only", metavar="PATTERN", help="tasks whose name has this in it")
    parser.add_argument("--jobs", type=int, default=1, help="processes of one thread")
    parser.add_argument("--hours", type=float, default=math.inf, help="begin no task after that")
    parser.add_argument("--list", action="store_true", help="tasks, and which are finished")
    parser.add_argument("--report", action="store_true", help="write results/corpus.json from the finished tasks")
    parser.add_argument("--rate", action="store_true", help="add networks trained a minute to results/corpus.json")
    parser.add_argument("--smoke", action="store_true", help="tiny, into a temporary folder")
    options = parser.parse_args(arguments)
    names = [name for name in RECIPES if options.only is None or options.only in name]
    if options.list:
        for name in names:
            print(f"{name:24} {'finished' if (HOME / f'{name}.csv').exists() else ''}")
    elif options.smoke:
        with tempfile.TemporaryDirectory() as folder:
            chosen = [name for name in ("cylinder-bell-funnel", "control-charts") if name in names] or names[:1]
            make(chosen, Size(1, 1, 1, 1, steps=8), Path(folder) / "corpus", Path(folder) / "checkpoints", jobs=1)
            report(Path(folder) / "corpus", Path(folder))
    elif options.all or options.only:
        unfinished = [name for name in names if not (HOME / f"{name}.csv").exists()]
        make(unfinished, Size(), HOME, CHECKPOINTS, jobs=options.jobs, hours=options.hours)
    if options.report:
        report(HOME, HERE.parent / "results")
    if options.rate:
        rate(HERE.parent / "results")
    if not any((options.all, options.only, options.list, options.report, options.rate, options.smoke)):
        parser.print_help()


def make(
    names: Sequence[str], size: Size, home: Path, checkpoints: Path, *, jobs: int = 1, hours: float = math.inf
) -> None:
    """Trains all networks on these tasks, and writes a file a task."""
    home.mkdir(parents=True, exist_ok=True)
    checkpoints.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 3600 * hours
    if jobs == 1:
        for name in names:
            if time.monotonic() < end:
                finish(name, measure(name, size, checkpoints), home)
        return
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        running = {pool.submit(measure, name, size, checkpoints, end - time.monotonic()): name for name in names}
        for future in as_completed(running):
            if (facts := future.result()) is not None:
                finish(running[future], facts, home)


def measure(name: str, size: Size, checkpoints: Path, seconds: float = math.inf) -> dict[str, Any] | None:
    """All rows of a task, and how they were made; rows that the checkpoint has are not measured again."""
    if seconds <= 0:
        return None
    torch.set_num_threads(1)
    started = time.perf_counter()
    task, class_names = load(name)
    learn, choose, test = parts(name, task)
    space = Tiny(shape=tuple(learn[0].shape[1:]), n_classes=len(class_names))
    schedule = Schedule.for_inputs(space.shape, steps=size.steps, batch_size=BATCH)
    made = hashlib.sha256(json.dumps([vars(size), asdict(schedule)]).encode()).hexdigest()[:8]
    path = checkpoints / f"{name}-{made}.csv"  # rows of another schedule are none of these
    rows = read(path) if path.exists() else []
    done = {(row["architecture"], row["seed"]) for row in rows}
    chosen = architectures(space, name, size)
    for i, architecture in enumerate(chosen):
        for seed in SEEDS:
            if (text_of(architecture), str(seed)) in done:
                continue
            row = run(space, architecture, seed, schedule, (learn, choose, test), name)
            write(path, [*rows, row])
            rows.append(row)
        if (i + 1) % 10 == 0 or i + 1 == len(chosen):
            seconds_so_far = time.perf_counter() - started
            print(f"{time.strftime('%H:%M:%S')} {name} {i + 1}/{len(chosen)}, {range_of(rows)}, {seconds_so_far:.0f} s")
            sys.stdout.flush()
    order = {text_of(architecture): i for i, architecture in enumerate(chosen)}
    rows.sort(key=lambda row: (order[row["architecture"]], row["seed"]))
    return {
        "rows": rows,
        "space": space.id,
        "digest": space.digest,
        "shape": list(space.shape),
        "classes": list(class_names),
        "n_train": len(learn[0]),
        "n_validation": len(choose[0]),
        "n_test": len(test[0]),
        "schedule": asdict(schedule),
        "seeds": list(SEEDS),
        "common": len(shared(space, size)),
        "seconds": round(sum(float(row["seconds"]) for row in rows), 1),
        "versions": versions("torch", "numpy"),
        "commit": commit(),
    }


def run(
    space: Tiny,
    architecture: Architecture,
    seed: int,
    schedule: Schedule,
    data: Sequence[tuple[Tensor, Tensor]],
    name: str,
) -> dict[str, str]:
    """The row of one training."""
    (x, y), (x_choose, y_choose), (x_test, y_test) = data
    row = dict.fromkeys(COLUMNS, "") | {"architecture": text_of(architecture), "seed": str(seed)}
    generator = generator_of(name, text_of(architecture), seed)
    network = build(space, architecture, generator=generator)
    whole = standardised(network, x)
    if seed == 0:
        row |= {cost: str(value) for cost, value in asdict(count(space, architecture)).items()}
        rows = torch.randperm(len(x), generator=generator_of(name, "proxies"))[:PROXY_BATCH]
        batch = whole[0](x[rows]), y[rows]
        row |= {proxy: f"{PROXIES[proxy](network, batch):.5g}" for proxy in MEASURED}
    start = time.perf_counter()
    try:
        train(whole, x, y, schedule, generator=generator)
        row["seconds"] = f"{time.perf_counter() - start:.3f}"
        row["validation"] = f"{accuracy(whole, x_choose, y_choose):.4f}"
        row["test"] = f"{accuracy(whole, x_test, y_test):.4f}"
        if seed == 0:
            generator = generator_of(name, text_of(architecture), "quarter")
            short = standardised(build(space, architecture, generator=generator), x)
            train(short, x, y, replace(schedule, steps=schedule.steps // QUARTER), generator=generator)
            row["quarter_validation"] = f"{accuracy(short, x_choose, y_choose):.4f}"
    except DivergedError:
        row["seconds"] = f"{time.perf_counter() - start:.3f}"
    return row


def range_of(rows: Sequence[dict[str, str]]) -> str:
    """The test accuracies so far, in words."""
    found = [float(row["test"]) for row in rows if row["test"]]
    if not found:
        return "all failed"
    return f"test {min(found):.2f} to {max(found):.2f}, median {statistics.median(found):.2f}"


def accuracy(network: nn.Module, x: Tensor, y: Tensor) -> float:
    """The part of examples whose most probable class is theirs."""
    return float((answer(network, x).argmax(1) == y).float().mean())


def architectures(space: Tiny, name: str, size: Size) -> list[Architecture]:
    """Those that are trained on a task: common ones first, no two the same."""
    found = dict.fromkeys(shared(space, size))
    for more, most in ((near(space, name), size.near), (sampled(space, name), size.own)):
        enough = len(found) + most
        while len(found) < enough:
            found[next(more)] = None
    return list(found)


def shared(space: Tiny, size: Size) -> list[Architecture]:
    """Those of all tasks with inputs of as many dimensions: uniform ones, then plain ones."""
    common = Tiny(shape=WIDEST if space.dimensions == 2 else (12, 100), n_classes=10)
    plain = [architecture for architecture in plain_networks(common) if allowed(common, architecture)]
    return list(dict.fromkeys([*islice(sampled(common, "common", space.name), size.common), *plain[: size.plain]]))


def plain_networks(space: Space) -> list[Architecture]:
    """The plain cell in every width and depth that the space has."""
    of = [{**PLAIN, "width": width, "depth": depth} for width in space.choices["width"] for depth in DEPTHS]
    members = [Architecture(space.id, tuple((name, values[name]) for name in space.choices)) for values in of]
    return [architecture for architecture in members if space.has(architecture)]


def near(space: Tiny, name: str) -> Iterator[Architecture]:
    """Members within the limits that are up to MOST_CHANGES changes from a plain one, without end."""
    generator = generator_of("near", name)
    plain = [architecture for architecture in plain_networks(space) if allowed(space, architecture)]

    while True:
        architecture = plain[draw(len(plain), generator)]
        for _ in range(1 + draw(MOST_CHANGES, generator)):
            architecture = space.mutate(architecture, generator=generator)
        if allowed(space, architecture):
            yield architecture


def sampled(space: Tiny, *words: str) -> Iterator[Architecture]:
    """Members within the limits, without end."""
    generator = generator_of("architectures", *words)
    while True:
        architecture = space.sample(generator=generator)
        if allowed(space, architecture):
            yield architecture


def allowed(space: Tiny, architecture: Architecture) -> bool:
    """Whether it keeps to the limits."""
    return convolutions(architecture) <= MOST_CONVOLUTIONS and count(space, architecture).multiply_adds <= MOST_MADDS


def convolutions(architecture: Architecture) -> int:
    """Convolutional operations in all its cells."""
    values = architecture.values
    each = sum("conv" in operation for operation in cell_of(architecture))
    return int(values["depth"]) * int(values["stages"]) * each


def text_of(architecture: Architecture) -> str:
    """Its canonical text without the space's name."""
    return str(architecture).partition(" ")[2]


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a file."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: Sequence[dict[str, str]]) -> None:
    """A file of rows, replaced as a whole."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    put(path, text.getvalue())


def put(path: Path, text: str) -> None:
    """A text as a file, complete at any moment."""
    partial = path.with_suffix(path.suffix + ".tmp")
    partial.write_text(text, "utf-8")
    partial.replace(path)


def finish(name: str, facts: dict[str, Any] | None, home: Path) -> None:
    """Writes a finished task and how it was made."""
    if facts is None:
        return
    write(home / f"{name}.csv", facts.pop("rows"))
    path = home / "tasks.json"
    known = json.loads(path.read_text("utf-8")) if path.exists() else {}
    lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in {**known, name: facts}.items())
    put(path, f"{{\n{lines}\n}}\n")


def report(home: Path, folder: Path) -> None:
    """Accuracies, and how well cheaper or other figures rank the networks, a row a task."""
    tasks: dict[str, dict[str, Any]] = json.loads((home / "tasks.json").read_text("utf-8"))
    result = Result("corpus", description=DESCRIPTION, settings={"seeds": list(SEEDS)}, folder=folder)
    means: dict[str, list[float]] = {}
    for name, facts in tasks.items():
        rows = read(home / f"{name}.csv")
        first, second = ([row for row in rows if row["seed"] == str(seed)] for seed in SEEDS)
        setting, done = f"{kind(name, facts)}, {name}", [100 * float(row["test"]) for row in rows if row["test"]]
        found = {"worst": min(done), "median": statistics.median(done), "best": max(done)}
        for which, value in found.items():
            result.add(
                f"{which} network",
                setting,
                RIGHT,
                round(value, 2),
                n=len(done),
                tests=facts["n_test"],
                failed=len(rows) - len(done),
            )
        pairs = [(a, b) for a, b in zip(first, second, strict=True) if a["test"] and b["test"]]
        for method, column in RANKINGS.items():
            compared = [(float(a[column]), float(b["test"])) for a, b in pairs if a[column]]
            value, n = tau(compared), len(compared)
            result.add(method, setting, TAU, value, ci95=interval(value, n), n=n)
            means.setdefault(method, []).append(value)
    for method, values in means.items():
        mean = round(statistics.mean(values), 4)
        result.add(method, "all, mean of tasks", TAU, mean, ci95=half_interval(values), n=len(values))
        print(f"{method:24} {statistics.mean(values):.3f}")


def kind(name: str, facts: dict[str, Any]) -> str:
    """What the inputs of a task are."""
    if len(facts["shape"]) == 2:
        return "series"
    head = name.partition("-")[0]
    return head if head in ("glyphs", "omniglot", "cifar") else "digits and clothes"


def tau(pairs: Sequence[tuple[float, float]]) -> float:
    """Kendall's tau-b, 0 where one side does not vary."""
    value = float(kendalltau(*zip(*pairs)).statistic)
    return 0.0 if math.isnan(value) else round(value, 4)


def interval(value: float, n: int) -> float | None:
    """Half the 95 % interval of a tau of so many, by Fieller, Hartley and Pearson's normal approximation."""
    if n <= 4 or abs(value) >= 1:
        return None
    return round(1.96 * math.sqrt(0.437 / (n - 4)) * (1 - value**2), 4)


def half_interval(values: Sequence[float]) -> float | None:
    """Half the 95 % interval of a mean, by Student's t; None of a single value."""
    if len(values) < 2:
        return None
    error = statistics.stdev(values) / math.sqrt(len(values))
    return round(float(student.ppf(0.975, len(values) - 1)) * error, 4)


def rate(folder: Path, *, networks: int = 8, repeats: int = 3, steps: int = 240) -> None:
    """Networks trained a minute of one core, by our loop and by a plain one.

    They take turns on each network, and of several times the shortest counts, which other work disturbs least.
    """
    torch.set_num_threads(1)
    name = "fashion"
    task, class_names = load(name)
    x, y = parts(name, task)[0]
    space = Tiny(shape=tuple(x.shape[1:]), n_classes=len(class_names))
    loops = {"quickstudy": ours, "plain loop": plain}
    spent: dict[str, list[float]] = {method: [] for method in loops}
    for architecture in islice(sampled(space, "rate"), networks):
        times: dict[str, list[float]] = {method: [] for method in loops}
        for _ in range(repeats):
            for method, loop in loops.items():
                start = time.process_time()
                network = build(space, architecture, generator=generator_of("rate", text_of(architecture)))
                loop(standardised(network, x), x, y, Schedule(steps=steps, batch_size=BATCH))
                times[method].append(time.process_time() - start)
        for method, found in times.items():
            spent[method].append(min(found))
        print({method: round(values[-1], 2) for method, values in spent.items()}, flush=True)
    result = Result("corpus", description=DESCRIPTION, settings={"seeds": list(SEEDS)}, folder=folder)
    more: dict[str, Any] = {"steps": steps, "batch_size": BATCH, "task": name, "repeats": repeats}
    for method, values in spent.items():
        result.add(method, "one core", SPEED, round(60 / statistics.mean(values), 2), n=networks, **more)
    ratios = [b / a for a, b in zip(spent["quickstudy"], spent["plain loop"])]
    mean, half = round(statistics.mean(ratios), 3), half_interval(ratios)
    result.add("quickstudy", "one core", RATIO, mean, ci95=half, n=networks, **more)


def ours(network: nn.Sequential, x: Tensor, y: Tensor, schedule: Schedule) -> None:
    """The loop of the library."""
    train(network, x, y, schedule, generator=generator_of("ours"))


def plain(network: nn.Sequential, x: Tensor, y: Tensor, schedule: Schedule) -> None:
    """The loop of tutorials: a DataLoader, SGD as it comes, torch's own one-cycle rate, the loss read at every step."""
    network = network.to(memory_format=torch.contiguous_format).train()  # type: ignore[call-overload]
    loader = DataLoader(TensorDataset(x, y), schedule.batch_size, shuffle=True, generator=generator_of("plain"))
    optimizer = torch.optim.SGD(
        network.parameters(), schedule.lr, schedule.momentum, weight_decay=schedule.weight_decay, nesterov=True
    )
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, schedule.lr, total_steps=schedule.steps, pct_start=schedule.warm_up, cycle_momentum=False
    )
    criterion, step, total = nn.CrossEntropyLoss(), 0, 0.0
    while step < schedule.steps:
        for inputs, labels in loader:
            optimizer.zero_grad()
            loss = criterion(network(inputs), labels)
            loss.backward()
            optimizer.step()
            cycle.step()
            total += loss.item()
            step += 1
            if step == schedule.steps:
                break


if __name__ == "__main__":
    main()
