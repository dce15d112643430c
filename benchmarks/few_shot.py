"""Few-shot accuracy: every learner with the same minutes of meta-training, and long runs on Omniglot.

    python benchmarks/few_shot.py --list                      the units, and how far each is
    python benchmarks/few_shot.py                             the next unit of equal_time that has no rows yet
    python benchmarks/few_shot.py --all --jobs 2 --hours 3    all of them, two side by side; none begins after 3 hours
    python benchmarks/few_shot.py --all --only 'glyphs*/maml*'    those whose name matches
    python benchmarks/few_shot.py --which omniglot --jobs 2   two long runs side by side, one thread each
    python benchmarks/few_shot.py --only glyphs-5-way-1-shot/maml/ --minutes 2 --try lr=0.1 outer.tasks=8
                                                              validation alone, with other settings; writes nothing
    python benchmarks/few_shot.py --smoke                     all units, tiny and of noise, into a temporary folder

`equal_time` is 15 minutes of meta-training on one thread for every learner in every setting, by the processor's clock
so that other work on the machine costs no learner anything, and writes results/few_shot_equal_time.json. `omniglot` is
long runs on the tasks of the papers, and writes results/omniglot.json; there `--minutes` is what a unit gets in all,
over which its outer rate is annealed, and a call goes on with each unit for `--slice` minutes. A unit is one
meta-training; it goes on from its checkpoint when it was interrupted, and its rows are written when it, or its slice,
ends. Test tasks are looked at only then: what is tuned was tuned on validation tasks.
"""

import argparse
import fnmatch
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

import torch
from result import HERE, Result
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor, nn
from torch.distributions import Categorical

from quickstudy import Episodes, Evaluation, LabelledSet, Learner, Progress, Recipe, evaluate, meta_train
from quickstudy.learners.catalogue import LEARNERS
from quickstudy.learners.learner import Predictor, query_loss
from quickstudy.tasks.cifar_fs import cifar_fs
from quickstudy.tasks.glyphs import glyphs
from quickstudy.tasks.omniglot import omniglot
from quickstudy.tasks.task import Task
from quickstudy.training.checkpoint import CHECKPOINT, read_checkpoint
from quickstudy.training.history import History

ACCURACY, VALIDATION = "accuracy %", "validation accuracy %"
QUERIES = 15
"""Query examples a class, of validation and test tasks."""
ENDLESS = 10**9
"""Outer steps: the clock ends a run."""
MARKS = (0.1, 0.2, 0.5)
"""Parts of the time at which the curve has rows of its own; the last validation is the row without a time."""

Part = Literal["train", "validation", "test"]
Which = Literal["equal_time", "omniglot"]


@dataclass(frozen=True)
class Setting:
    """What tasks look like."""

    data: str
    n_way: int
    n_shot: int
    n_query: int = QUERIES
    """A class, of the tasks to be judged on."""

    def __str__(self) -> str:
        return f"{self.n_way}-way {self.n_shot}-shot"


@dataclass(frozen=True)
class Training:
    """How a learner is meta-trained."""

    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the learner."""
    tasks: int = 4
    """An outer step."""
    n_way: int | None = None
    """Of the training tasks; None: of the setting."""
    n_query: int = 5
    """A class, of the training tasks. Fewer than at test makes a task cheaper, and more of them fit into the time."""
    lr: float | None = 1e-3
    """Outer rate; it is annealed to zero by a cosine."""
    clip: float | None = 10.0
    """Largest norm of the outer gradient."""
    examples: int | None = None
    """A class in the support set of training tasks; None: as many as the setting has."""

    def __str__(self) -> str:
        options = ", ".join(f"{name} {value}" for name, value in self.options.items())
        way = "" if self.n_way is None else f"{self.n_way}-way, "
        support = "" if self.examples is None else f"{self.examples} support and "
        tasks = "1 task" if self.tasks == 1 else f"{self.tasks} tasks"
        text = f"{way}{tasks} a step, {support}{self.n_query} queries a class, outer rate {self.lr}, cosine"
        return f"{options}; {text}" if options else text


# What each learner is trained with. Where a paper's setting is for weeks of GPU steps, it is made cheaper a step.
GRADIENT = Training({"lr": 0.1, "steps": 1}, tasks=4, n_query=5)
TRAINING: dict[str, Training] = {
    # One step, as the paper on Omniglot; five steps see a third of the tasks in the time. Its rate of 0.4 is for
    # transductive normalisation: after 90 seconds on Glyphs' validation tasks 84 % against 90 % of a rate of 0.1.
    "maml": GRADIENT,
    "fomaml": GRADIENT,
    "meta_sgd": Training(tasks=4, n_query=5),  # one step, of rates that begin in the paper's range
    "maml_plus_plus": Training({"lr": 0.1, "steps": 3, "multi_step": 0.1}, tasks=4, n_query=5),
    # a step costs what a step of a prototypical network does, so that five inner steps are cheap
    "anil": Training({"lr": 0.1, "steps": 5}, tasks=4, n_query=5),
    # solves a task from support and query together; the outer rate is the paper's, annealed
    "reptile": Training({"lr": 0.1, "steps": 5, "adapt_steps": 10}, tasks=4, n_query=5, lr=1.0, clip=None),
    # more classes than at test, as the paper advises; one task a step, of 120 pictures
    # (Glyphs' validation tasks after 90 seconds: 96.9 % of an outer rate of 0.002, 97.5 % of 0.005)
    "prototypical_network": Training(tasks=1, n_way=20, n_query=5, lr=3e-3),
    "matching_network": Training({"temperature": 0.1}, tasks=1, n_way=20, n_query=5, lr=3e-3),
    "relation_network": Training(tasks=4, n_query=5),
    # a batch of 128 pictures of 32 classes, of all the training classes
    "fine_tune": Training(tasks=1, n_way=32, n_query=3, examples=1, lr=2e-3),
}
BY_SETTING: dict[tuple[str, str], dict[str, Any]] = {}
"""Changes for a learner (first) in settings that match a pattern (second): `{("maml", "cifar*"): {"lr": 1e-3}}`."""

SETTINGS = [
    Setting("glyphs", 5, 1),
    Setting("omniglot", 5, 1),
    Setting("cifar_fs", 5, 1),
    Setting("cifar_fs", 5, 5),
    Setting("omniglot", 20, 1),
]
SHAPES = {"omniglot": (1, 28, 28), "glyphs": (1, 28, 28), "cifar_fs": (3, 32, 32)}

SNELL = "Snell et al., Prototypical Networks, 2017 (Euclidean distance, 60-way training)"
FINN = "Finn et al., Model-Agnostic Meta-Learning, 2017 (transductive)"
ANTONIOU = "Antoniou et al., How to train your MAML, 2019 (transductive)"
PUBLISHED = [
    ("prototypical_network", "5-way 1-shot", 98.8, SNELL),
    ("prototypical_network", "5-way 5-shot", 99.7, SNELL),
    ("prototypical_network", "20-way 1-shot", 96.0, SNELL),
    ("prototypical_network", "20-way 5-shot", 98.9, SNELL),
    ("maml", "5-way 1-shot, transductive", 98.7, FINN),
    ("maml_plus_plus", "5-way 1-shot, transductive", 99.4, ANTONIOU),
]


@dataclass(frozen=True)
class Unit:
    """One meta-training, and what it is evaluated on."""

    name: str
    method: str
    """Of its rows, a name in `LEARNERS`."""
    settings: tuple[Setting, ...]
    """The first is also what the best weights are chosen on."""
    training: Training | None
    """None where there is nothing to train."""
    seed: int
    labels: tuple[str, ...]
    """What the settings are called in the rows."""
    net_options: Mapping[str, Any] = field(default_factory=dict)
    together: int = 0
    """So many weights, the best on validation tasks, are also judged as one learner."""


def equal_time(seeds: Sequence[int]) -> Iterator[Unit]:
    """Every learner in every setting."""
    for seed in seeds:
        for setting in SETTINGS:
            label = f"{setting.data.replace('_', '-')}, {setting}"
            for learner in LEARNERS:
                training = training_of(learner, label)
                if training is None and seed != seeds[0]:
                    continue
                name = f"{setting.data}-{setting.n_way}-way-{setting.n_shot}-shot/{learner}/{seed}"
                yield Unit(name, learner, (setting,), training, seed, (label,))


def training_of(learner: str, label: str) -> Training | None:
    """Of a learner in a setting."""
    if not LEARNERS[learner].trained:
        return None
    training = TRAINING[learner]
    for (name, pattern), changes in BY_SETTING.items():
        if name == learner and fnmatch.fnmatch(label, pattern):
            training = replace(training, **changes)
    return training


def long_runs(seeds: Sequence[int]) -> Iterator[Unit]:
    """On the tasks of the papers, with fewer of them a step; each mode of normalisation for itself."""
    # Pooling where MAML's paper has strides on Omniglot, and half as many feature maps: about as much arithmetic a task
    # as its network, and it teaches more (validation tasks after six minutes, transductive: MAML 93.4 % of 64 maps
    # strided, 94.7 % of 32 strided, 96.2 % of 32 pooled; MAML++ 96.1 % of 64 pooled, 97.7 % of 32).
    narrow = {"width": 32}
    # One step to train and three to answer, as the paper, whose rate of 0.4 is for transductive normalisation. Its 32
    # tasks a step are for sixty thousand steps (validation tasks after 24 seconds: 66.8 % with 32, 72.8 % with 8).
    maml = Training({"lr": 0.4, "steps": 1, "adapt_steps": 3}, tasks=8, n_query=1, lr=3e-3)
    # One step too, for it sees more tasks in the time, and its rates are learned (validation tasks after six minutes,
    # 32 maps: 97.7 % of one step, 96.9 % of two). Its published figure is of the five best weights together.
    plus = Training({"lr": 0.4, "steps": 1}, tasks=8, n_query=1, lr=2e-3)
    for seed in seeds:
        for shots in (1, 5):
            settings = tuple(Setting("omniglot", way, shots) for way in (20, 5))
            name = f"{shots}-shot/prototypical_network/{seed}"
            training = Training(tasks=1, n_way=60, n_query=5, lr=2e-3)
            yield Unit(name, "prototypical_network", settings, training, seed, tuple(map(str, settings)))
        for method, training in (("maml", maml), ("maml_plus_plus", plus)):
            for statistics in ("transductive", "support"):
                alone = statistics == "support"
                # transductive statistics are of so many queries: one a class in training and at test, as in the papers
                setting = Setting("omniglot", 5, 1) if alone else Setting("omniglot", 5, 1, n_query=1)
                name = f"5-way-1-shot-{'in' if alone else 'trans'}ductive/{method}/{seed}"
                label = str(setting) if alone else f"{setting}, transductive"
                options = {**training.options, "statistics": statistics} | ({"lr": 0.1} if alone else {})
                own = replace(training, options=options)
                if alone:  # nothing bounds the queries of a training task then, and more of them say more of it
                    own = replace(own, tasks=4, n_query=5)
                wide = method == "maml_plus_plus" and not alone  # with 32 it learns no more after 50 minutes
                together = 5 if wide else 0
                yield Unit(name, method, (setting,), own, seed, (label,), {} if wide else narrow, together)


UNITS: dict[Which, Callable[[Sequence[int]], Iterator[Unit]]] = {"equal_time": equal_time, "omniglot": long_runs}
FILES: dict[Which, str] = {"equal_time": "few_shot_equal_time", "omniglot": "omniglot"}


@dataclass(frozen=True)
class Scale:
    """How much of everything: the real thing, or a rehearsal."""

    minutes: float
    """Of meta-training a unit, in all."""
    slice: float
    """Minutes of it in one call."""
    width: int = 64
    test_tasks: int = 600
    validation_tasks: int = 100
    checkpoint_seconds: float = 30.0
    noise: bool = False
    """Small pictures of noise instead of the data."""

    def validation(self, setting: Setting) -> int:
        """Validation tasks: half as many of four times the queries, six times as many of one a class."""
        return self.validation_tasks // (2 if setting.n_way > 5 else 1) * (6 if setting.n_query == 1 else 1)

    def shape(self, data: str) -> tuple[int, int, int]:
        channels, side, _ = SHAPES[data]
        return (channels, 16, 16) if self.noise else (channels, side, side)

    def data(self, name: str, part: Part) -> LabelledSet:
        """A part of a data set."""
        return noise(self.shape(name)) if self.noise else load(name, part)


def rehearsal(minutes: float, minutes_a_call: float) -> Scale:
    """Everything, in a second a unit."""
    return Scale(minutes, minutes_a_call, width=4, test_tasks=4, validation_tasks=4, checkpoint_seconds=0.0, noise=True)


@cache
def load(name: str, part: Part) -> LabelledSet:
    """A part of a data set that is there, or downloaded."""
    return omniglot(part) if name == "omniglot" else glyphs(part) if name == "glyphs" else cifar_fs(part)


def noise(shape: tuple[int, int, int]) -> LabelledSet:
    """Twenty-four classes of twenty pictures."""
    x = torch.randint(256, (24 * 20, *shape), dtype=torch.uint8, generator=Generator().manual_seed(0))
    return LabelledSet(x, torch.arange(24).repeat_interleave(20), tuple(f"class {i}" for i in range(24)))


# A unit, in a process of its own


class Pause(Exception):
    """The slice is over."""


def run_unit(unit: Unit, scale: Scale, folder: Path) -> list[dict[str, Any]]:
    """Trains, or goes on training, and evaluates. Returns rows, as arguments of `Result.add`."""
    torch.manual_seed(unit.seed)
    learner = build(unit, scale)
    history = None if unit.training is None else train(unit, unit.training, learner, scale, folder)
    rows = []
    for setting, label in zip(unit.settings, unit.labels):
        source = episodes(scale.data(setting.data, "test"), setting)
        found = evaluate(learner, source, tasks=scale.test_tasks)
        print(f"{unit.name}: {label}: {found}", flush=True)
        rows.append(row(unit, label, found, history, scale))
        if history is not None and unit.together and len(kept(unit, folder, history)) == unit.together:
            found = evaluate(together(unit, scale, folder, history), source, tasks=scale.test_tasks)
            print(f"{unit.name}: {label}, {unit.together} weights: {found}", flush=True)
            method = f"{unit.method}, best {unit.together} weights together"
            rows.append(row(unit, label, found, history, scale) | {"method": method})
    if history is not None:
        rows += curve(unit, history, scale)
    return rows


def build(unit: Unit, scale: Scale) -> Learner:
    """The learner, freshly initialised."""
    setting = unit.settings[0]
    options: dict[str, Any] = {} if unit.training is None else dict(unit.training.options)
    if unit.method == "fine_tune":
        options["n_classes"] = scale.data(setting.data, "train").n_classes
    net_options = {"width": scale.width, **unit.net_options}
    return Recipe(unit.method, "conv4", scale.shape(setting.data), setting.n_way, options, net_options).build()


def episodes(data: LabelledSet, setting: Setting) -> Episodes:
    """Validation and test tasks."""
    return Episodes(data, n_way=setting.n_way, n_shot=setting.n_shot, n_query=setting.n_query)


def train(unit: Unit, training: Training, learner: Learner, scale: Scale, folder: Path) -> History:
    """Meta-trains from where the checkpoint is to the end, or to the end of the slice."""
    setting = unit.settings[0]
    data = scale.data(setting.data, "train")
    source = Episodes(
        data,
        n_way=min(training.n_way or setting.n_way, data.n_classes),
        n_shot=training.examples or setting.n_shot,
        n_query=training.n_query,
    )
    validation = episodes(scale.data(setting.data, "validation"), setting)
    try:
        return meta_train(
            learner,
            source,
            steps=ENDLESS,
            seconds=60 * scale.minutes,
            tasks_per_step=training.tasks,
            lr=training.lr,
            schedule="cosine",
            clip=training.clip,
            validation=validation,
            validation_tasks=scale.validation(setting),
            seed=unit.seed,
            out=folder,
            resume=True,
            checkpoint_seconds=scale.checkpoint_seconds,
            clock=time.process_time,
            settings={"training": str(training), "n_way": setting.n_way, "network": dict(unit.net_options)},
            on_progress=watch(unit, scale, learner, folder),
        )
    except Pause:
        state = read_checkpoint(folder, {})
        learner.load_state_dict(state["best"] or state["learner"])
        learner.eval()
        return History.from_settings(state["history"])


class Together(Learner):
    """Answers with the mean of its members' probabilities."""

    def __init__(self, members: Sequence[Learner]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def adapt(self, task: Task, *, generator: Generator | None = None) -> Predictor:
        predictors = [cast("Learner", member).adapt(task, generator=generator) for member in self.members]
        return lambda x: Categorical(torch.stack([cast("Categorical", p(x)).probs for p in predictors]).mean(0))

    def loss(self, tasks: Task, *, generator: Generator | None = None) -> Tensor:
        return query_loss(self.adapt(tasks, generator=generator), tasks)


def together(unit: Unit, scale: Scale, folder: Path, history: History) -> Together:
    """The weights that were best on validation tasks, as one learner."""
    members = []
    for path in kept(unit, folder, history):
        member = build(unit, scale)
        member.load_state_dict(load_file(path))
        members.append(member)
    return Together(members)


def kept(unit: Unit, folder: Path, history: History) -> list[Path]:
    """The files of the best weights, as far as there are any."""
    best = sorted(history.validations, key=lambda v: (v.score, v.step))[-unit.together :]
    paths = (folder / f"weights-{validation.step}.safetensors" for validation in best)
    return [path for path in paths if path.exists()]


def keep(unit: Unit, learner: Learner, folder: Path, history: History) -> None:
    """Writes the weights that were validated last, and removes those that are no longer among the best."""
    save_file(learner.state_dict(), folder / f"weights-{history.step}.safetensors")
    for path in set(folder.glob("weights-*.safetensors")) - set(kept(unit, folder, history)):
        path.unlink()


def watch(unit: Unit, scale: Scale, learner: Learner, folder: Path) -> Callable[[Progress], None]:
    """Prints validations, keeps their weights where several are judged together, and pauses at the end of the slice."""
    begun: float | None = None
    printed = -1

    def on_progress(progress: Progress) -> None:
        nonlocal begun, printed
        history = progress.history
        begun = history.seconds if begun is None else begun
        if history.validations and history.validations[-1].step != printed:
            last = history.validations[-1]
            printed = last.step
            at = f"{last.seconds / 60:.1f} minutes, step {last.step}, loss {history.recent_loss:.3f}"
            print(f"{unit.name}: {at}, validation {last.mean:.2f} ± {last.ci95:.2f}", flush=True)
            if unit.together and last.step == history.step:
                keep(unit, learner, folder, history)
        if history.seconds - begun > 60 * scale.slice and progress.fraction < 1:
            raise Pause

    return on_progress


def row(unit: Unit, label: str, found: Evaluation, history: History | None, scale: Scale) -> dict[str, Any]:
    """The accuracy on test tasks."""
    values: dict[str, Any] = {"method": unit.method, "setting": label, "metric": ACCURACY, "value": found.mean}
    values |= {"ci95": found.ci95, "n": found.n, "seed": unit.seed, "complete": True}
    if history is not None:
        values |= {
            "seconds": history.seconds,
            "iterations": history.step,
            "training": trained_as(unit),
            "complete": history.seconds >= 60 * scale.minutes,
            "minutes": scale.minutes,
        }
    return values


def trained_as(unit: Unit) -> str | None:
    """The settings of a training, and what is different about the network."""
    net = "".join(f"; {name} {value}" for name, value in unit.net_options.items())
    return None if unit.training is None else f"{unit.training}{net}"


def curve(unit: Unit, history: History, scale: Scale) -> Iterator[dict[str, Any]]:
    """Accuracy on validation tasks as training goes on: all of it in one row, and rows of some moments."""
    points = [[round(v.seconds, 1), v.step, round(v.mean, 3)] for v in history.validations]
    common = {
        "method": unit.method,
        "setting": unit.labels[0],
        "seed": unit.seed,
        "n": scale.validation(unit.settings[0]),
    }
    if history.best is not None:
        best = {"value": history.best.mean, "ci95": history.best.ci95, "seconds": history.best.seconds}
        yield {**common, "metric": VALIDATION, **best, "curve": points}
    for mark in MARKS:
        minutes = mark * scale.minutes
        # Validations come every twentieth of the time, as soon as a step is over.
        at = next((v for v in history.validations if v.seconds >= 59.9 * minutes), None)
        if at is not None and at.seconds <= 60 * (minutes + scale.minutes / 20):
            metric = f"{VALIDATION} after {minutes:g} minutes"
            yield {**common, "metric": metric, "value": at.mean, "ci95": at.ci95, "seconds": at.seconds}


# All units


def is_done(unit: Unit, result: Result, minutes: float) -> bool:
    """Whether all rows are there, of this training and of at least as many minutes."""
    own = [r for r in result.rows if r["method"] == unit.method and r.get("seed") == unit.seed]
    own = [r for r in own if r["metric"] == ACCURACY and r["complete"] and r.get("minutes", minutes) >= minutes]
    own = [r for r in own if r.get("training") == trained_as(unit)]
    return set(unit.labels) <= {r["setting"] for r in own}


def open_result(which: Which, scale: Scale, folder: Path) -> Result:
    """The file."""
    common = {
        "network": f"Conv4, {scale.width} feature maps",
        "test": f"{scale.test_tasks} tasks of {QUERIES} queries a class, the same ones for all learners",
        "validation": f"{scale.validation_tasks} tasks (20-way: half); the best weights on them are evaluated",
        "threads a unit": torch.get_num_threads(),
        "training settings": "of each learner in its rows; the table TRAINING in benchmarks/few_shot.py",
    }
    if which == "equal_time":
        return Result(
            FILES[which],
            description=(
                f"Accuracy on unseen classes after {scale.minutes:g} minutes of meta-training on one thread, by the "
                "processor's clock, for every learner with the same network, but for the relation network, which keeps "
                "maps instead of features: it pools twice instead of four times, and has a network that compares them. "
                "Validation is not counted. Predictions "
                "are inductive: each query is answered alone. The curve is on validation tasks, with an outer rate "
                "that is annealed to zero at the end of the time."
            ),
            settings={**common, "minutes of meta-training": scale.minutes},
            folder=folder,
        )
    return Result(
        FILES[which],
        description=(
            "Long runs on Omniglot: the random split, with rotations as classes. Inductive unless the setting says "
            "transductive, where batch normalisation sees the whole query set, in meta-training and at test, as in the "
            "published figures of MAML and MAML++; that set is of one query a class then. "
            "A row's `iterations` and `minutes` say how long it was trained, and "
            "`complete` whether its outer rate has come down to zero."
        ),
        settings={
            **common,
            "test": f"{scale.test_tasks} tasks of {QUERIES} queries a class, transductive of one; the same ones for "
            "all learners of a setting",
            "validation": f"{scale.validation_tasks} tasks (20-way: half; one query a class: six times as many); the "
            "best weights on them are evaluated",
            "other networks": "a row's training says them",
        },
        folder=folder,
    )


def add_published(result: Result) -> None:
    """The figures that the long runs are to reach."""
    for method, setting, value, source in PUBLISHED:
        if not result.has(method, setting, ACCURACY, source=source):
            result.add(method, setting, ACCURACY, value, source=source)


def list_units(units: Sequence[Unit], result: Result, minutes: float, checkpoints: Path) -> None:
    """A line a unit."""
    for unit in units:
        state = "done" if is_done(unit, result, minutes) else "-"
        if state == "-" and (folder_of(unit, checkpoints) / CHECKPOINT).exists():
            history = History.from_settings(read_checkpoint(folder_of(unit, checkpoints), {})["history"])
            state = f"{history.seconds / 60:.1f} of {minutes:g} minutes"
        print(f"{unit.name:60} {state}")


def folder_of(unit: Unit, checkpoints: Path) -> Path:
    return checkpoints / unit.name.replace("/", "_")


def run_all(units: Sequence[Unit], result: Result, arguments: argparse.Namespace, checkpoints: Path) -> int:
    """Runs units in processes of their own, `jobs` at a time, and writes their rows as each ends."""
    waiting, failed = list(units), 0
    running: dict[subprocess.Popen[bytes], Unit] = {}
    begun = time.monotonic()
    while waiting or running:
        if waiting and time.monotonic() - begun > 3600 * arguments.hours:
            print(f"{len(waiting)} unit(s) left for another time.", flush=True)
            waiting.clear()
        while waiting and len(running) < arguments.jobs:
            unit = waiting.pop(0)
            folder = folder_of(unit, checkpoints)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "rows.json").unlink(missing_ok=True)
            running[start(unit, arguments, checkpoints)] = unit
        if not running:
            break
        finished = next_to_end(running)
        unit = running.pop(finished)
        rows = folder_of(unit, checkpoints) / "rows.json"
        if finished.returncode or not rows.exists():
            failed += 1
            print(f"{unit.name}: failed with exit code {finished.returncode}.", file=sys.stderr, flush=True)
            continue
        for values in json.loads(rows.read_text("utf-8")):
            result.add(**values)
    return 1 if failed else 0


def start(unit: Unit, arguments: argparse.Namespace, checkpoints: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, str(Path(__file__)), "--which", arguments.which, "--unit", unit.name]
    command += ["--minutes", str(arguments.minutes), "--slice", str(arguments.slice)]
    command += ["--threads", str(arguments.threads), "--checkpoints", str(checkpoints)]
    command += ["--seeds", *map(str, arguments.seeds)] + (["--smoke"] if arguments.smoke else [])
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": str(arguments.threads)})


def follow(parent: int) -> None:
    """Ends this process once that which began it has ended, however it did: two would write one checkpoint."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def try_out(unit: Unit, scale: Scale, changes: Sequence[str]) -> None:
    """Trains with other settings, and looks at validation tasks alone."""
    training = unit.training
    assert training is not None
    for change in changes:
        name, _, text = change.partition("=")
        value: Any = json.loads(text) if text[:1] in '0123456789.-[{"tfn' else text
        if name.startswith("outer."):
            training = replace(training, **{name.removeprefix("outer."): value})
        elif name.startswith("net."):
            unit = replace(unit, net_options={**unit.net_options, name.removeprefix("net."): value})
        else:
            training = replace(training, options={**training.options, name: value})
    unit = replace(unit, training=training)
    torch.manual_seed(unit.seed)
    what = f"{unit.name}: {trained_as(unit)}"
    print(what, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        history = train(unit, training, build(unit, scale), scale, Path(folder))
    print(f"{what}: {history.step} steps, best {history.best}, last {history.validations[-1]}", flush=True)


def next_to_end(running: Mapping["subprocess.Popen[bytes]", Unit]) -> "subprocess.Popen[bytes]":
    """Waits for one of the processes."""
    while True:
        for process in running:
            try:
                process.wait(timeout=0.5)
                return process
            except subprocess.TimeoutExpired:
                continue


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--which", choices=UNITS, default="equal_time", help="(%(default)s)")
    parser.add_argument("--list", action="store_true", help="show the units instead of running them")
    parser.add_argument("--all", action="store_true", help="every unit that is not done, not only the next")
    parser.add_argument("--hours", type=float, default=math.inf, help="begin no unit later than that (no limit)")
    parser.add_argument(
        "--only", metavar="PATTERN", help="units whose name matches, as in 'omniglot*/maml/*', or holds it"
    )
    parser.add_argument("--minutes", type=float, help="of meta-training a unit in all (15; omniglot: 120)")
    parser.add_argument("--slice", type=float, default=25.0, help="minutes of it in one call (%(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="(0)")
    parser.add_argument("--jobs", type=int, default=1, help="units side by side (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of torch, a unit (%(default)s)")
    parser.add_argument("--out", type=Path, help="folder of the result file (benchmarks/results)")
    parser.add_argument("--checkpoints", type=Path, help="folder of the checkpoints (benchmarks/checkpoints)")
    parser.add_argument(
        "--try",
        dest="changes",
        nargs="*",
        metavar="NAME=VALUE",
        help="options of the learner, outer.lr, outer.tasks, ..., net.width, ...: train so, validate, write nothing",
    )
    parser.add_argument("--smoke", action="store_true", help="tiny, of noise, into a temporary folder")
    parser.add_argument("--unit", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    if arguments.minutes is None:
        arguments.minutes = 0.005 if arguments.smoke else 15.0 if arguments.which == "equal_time" else 120.0
    scale = Scale(arguments.minutes, arguments.slice)
    if arguments.smoke:
        scale = rehearsal(arguments.minutes, arguments.slice)
        if arguments.checkpoints is None:
            arguments.checkpoints = Path(tempfile.mkdtemp(prefix="few_shot-"))
        arguments.out = arguments.out or arguments.checkpoints
    checkpoints = arguments.checkpoints or HERE / "checkpoints" / FILES[arguments.which]
    units = list(UNITS[arguments.which](arguments.seeds))
    if arguments.unit:
        threading.Thread(target=follow, args=(os.getppid(),), daemon=True).start()
        unit = next(unit for unit in units if unit.name == arguments.unit)
        rows = run_unit(unit, scale, folder_of(unit, checkpoints))
        (folder_of(unit, checkpoints) / "rows.json").write_text(json.dumps(rows), "utf-8")
        return 0
    if arguments.only:
        units = [unit for unit in units if fnmatch.fnmatch(unit.name, f"*{arguments.only}*")]
    if arguments.changes is not None:
        for unit in units:
            if unit.training is not None:
                try_out(unit, scale, arguments.changes)
        return 0
    result = open_result(arguments.which, scale, arguments.out or HERE / "results")
    if arguments.list:
        list_units(units, result, arguments.minutes, checkpoints)
        return 0
    if arguments.which == "omniglot":
        add_published(result)
    units = [unit for unit in units if not is_done(unit, result, arguments.minutes)]
    if not (arguments.all or arguments.smoke):
        units = units[: arguments.jobs]
    print(f"{len(units)} unit(s) to run, {arguments.jobs} at a time.", flush=True)
    return run_all(units, result, arguments, checkpoints)


if __name__ == "__main__":
    sys.exit(main())
