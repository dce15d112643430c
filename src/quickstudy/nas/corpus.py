"""Our corpus: what became of members of Tiny on some twenty small tasks. It comes with quickstudy."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quickstudy.errors import DataError
from quickstudy.nas.architecture import Architecture
from quickstudy.nas.source import Rows
from quickstudy.nas.tiny import Tiny

HOME = Path(__file__).parents[1] / "priors" / "tiny_corpus"
LOGS = ("parameters", "multiply_adds", "peak_memory", "gradient_norm")
"""Proxies that are read as natural logarithms, `synflow` being one already."""
PROXIES = (*LOGS, "synflow", "jacov", "naswot")


@dataclass(frozen=True)
class Measured:
    """What became of some members of Tiny on one task."""

    name: str
    space: Tiny
    architectures: tuple[Architecture, ...]
    validation: Tensor  # (n, seeds) float64
    """Accuracy from 0 to 1 on the examples set aside to choose by; NaN where training diverged."""
    test: Tensor  # (n, seeds) float64
    """The same on the examples that only a report may look at."""
    brief: Tensor  # (n,) float64
    """Accuracy on the former after a complete training in a quarter of the steps; NaN where there is none."""
    seconds: Tensor  # (n, seeds) float64
    """Of training, on one core."""
    proxies: Tensor  # (n, 7) float64
    """By the names of PROXIES; those of LOGS as natural logarithms."""
    facts: Mapping[str, Any]
    """How the task was made: n_train, n_validation, n_test, classes, schedule, seeds, common, versions, commit."""

    @property
    def data(self) -> str:
        """The data set that the task is made from, the first word of its name."""
        return self.name.partition("-")[0]

    @property
    def n_common(self) -> int:
        """The first so many members are the same on all tasks with inputs of the same kind."""
        return int(self.facts["common"])

    def rows(self, proxies: Sequence[str] = (), *, task: Tensor | None = None) -> Rows:
        """What a prior learns from: mean validation accuracy over the seeds, 0 where all diverged.

        Args:
            proxies: Some of PROXIES; none are given along where it is empty.
            task: An embedding of the task.
        """
        chosen = self.proxies[:, [PROXIES.index(name) for name in proxies]] if proxies else None
        values = self.validation.nanmean(1).nan_to_num(0.0)
        return Rows(self.architectures, values, task=task, proxies=chosen, space=self.space, data=self.data)


def tiny_corpus(folder: Path = HOME) -> dict[str, Measured]:
    """All tasks of the corpus by name, pictures before series.

    Raises:
        DataError: Where a task was measured in another version of the space, or a file is damaged.

    Example:
        >>> from quickstudy.nas.corpus import tiny_corpus
        >>> task = tiny_corpus()["glyphs-greek"]
        >>> task.space.shape, len(task.architectures), task.test.shape
        ((1, 14, 14), 64, torch.Size([64, 2]))
    """
    tasks = json.loads((folder / "tasks.json").read_text("utf-8"))
    found = {name: read(folder / f"{name}.csv", facts) for name, facts in tasks.items()}
    return dict(sorted(found.items(), key=lambda item: item[1].space.dimensions == 1))


def read(path: Path, facts: Mapping[str, Any]) -> Measured:
    """The file of one task."""
    space = Tiny(shape=tuple(facts["shape"]), n_classes=len(facts["classes"]))
    if facts["digest"] != space.digest:
        raise DataError(
            f"{path.name} was measured in {facts['space']} of digest {facts['digest']}; this version's is "
            f"{space.digest}. Install the version of quickstudy that it came with, or measure it again."
        )
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        seeds = [[row for row in rows if row["seed"] == str(seed)] for seed in facts["seeds"]]
        if not rows or any(None in row.values() for row in rows):
            raise ValueError("it is cut off")
        if len({tuple(row["architecture"] for row in of) for of in seeds}) != 1:
            raise ValueError("its seeds have different architectures")
        proxies = torch.stack([column(seeds[0], name) for name in PROXIES], 1)
        proxies[:, : len(LOGS)] = proxies[:, : len(LOGS)].clamp_min(1e-12).log()
        return Measured(
            path.stem,
            space,
            tuple(space.parse(f"{space.id} {row['architecture']}") for row in seeds[0]),
            torch.stack([column(of, "validation") for of in seeds], 1),
            torch.stack([column(of, "test") for of in seeds], 1),
            column(seeds[0], "quarter_validation"),
            torch.stack([column(of, "seconds") for of in seeds], 1),
            proxies,
            facts,
        )
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{path} is not a file of the corpus ({error}). Install quickstudy again.") from error


def column(rows: Sequence[Mapping[str, str]], name: str) -> Tensor:
    """`(n,)` float64, NaN where a field is empty."""
    return torch.tensor([float(row[name]) if row[name] else math.nan for row in rows], dtype=torch.float64)
