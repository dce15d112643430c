"""The user's data in, a small trained network out, with all that is needed to use and to judge it."""

import csv
import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from quickstudy import __version__
from quickstudy.artefacts import write_atomically
from quickstudy.experience.proposer import Proposer
from quickstudy.learners.prior import provenance
from quickstudy.nas.architecture import Architecture
from quickstudy.nas.build import Limits
from quickstudy.nas.export import OPSET, export_onnx
from quickstudy.nas.hunt import Budget, Progress
from quickstudy.nas.network import Network, save_network
from quickstudy.nas.search import SearchResult, search
from quickstudy.nas.space import Space
from quickstudy.tasks.load_task import NamedTask

NETWORK, ONNX, TABLE, REPORT, STUDIES = "network", "model.onnx", "architectures.csv", "report.html", "studies.db"
"""What a folder of results holds."""


@dataclass(frozen=True)
class Found:
    """A result and where it lies."""

    result: SearchResult
    folder: Path
    seconds: float
    """With the export and the report."""


def search_data(
    data: NamedTask,
    *,
    out: Path,
    budget: Budget | None = None,
    limits: Limits | None = None,
    proposer: Proposer[Architecture, Space] | None = None,
    storage: str | Path | None = None,
    seed: int = 0,
    on_progress: Callable[[Progress], None] | None = None,
    on_stage: Callable[[str], None] | None = None,
) -> Found:
    """Searches for a network for some data; writes it, its ONNX export, a table of all that was tried, and a report.

    Args:
        data: As `load_task` gives it.
        out: Folder for the results. A search that was interrupted goes on from the studies in it.
        budget: As in `search`.
        limits: As in `search`.
        proposer: As in `search`.
        storage: Where trials are kept; a file in `out` by default.
        seed: Of all randomness.
        on_progress: Is called when a trial has ended.
        on_stage: Is told what is being done after the search.

    Raises:
        QuickstudyError: As `search` and `export_onnx` do.
    """
    start, say = time.perf_counter(), on_stage or (lambda stage: None)
    out.mkdir(parents=True, exist_ok=True)
    result = search(
        data.task,
        budget=budget or Budget(),
        limits=limits or Limits(),
        proposer=proposer,
        storage=out / STUDIES if storage is None else storage,
        name=data.name,
        seed=seed,
        on_progress=on_progress,
    )
    say("saving the network")
    training = {
        "data": data.name,
        "validation": str(result.expected),
        "test": str(result.test),
        **result.settings,
        **provenance(__version__),
    }
    network = Network(result.space, result.architecture, result.network, data.class_names, data.inputs, training)
    save_network(out / NETWORK, network)
    write_atomically(out / TABLE, table(result).encode())
    say(f"exporting to ONNX, operator set {OPSET}, and comparing")
    export_onnx(result.network, result.space.shape, out / ONNX, data.class_names)
    return Found(result, out, time.perf_counter() - start)


def table(result: SearchResult) -> str:
    """All architectures that were tried as a table, a row each, in that order."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    costs = ("parameters", "multiply_adds", "peak_memory")
    writer.writerow(["architecture", *costs, "latency ms", "accuracy %", "trainings", "seconds", "failure"])
    for one in result.tried:
        value = "" if one.value is None else f"{one.value:.2f}"
        numbers = [getattr(one.cost, cost) for cost in costs]
        measured = [f"{one.latency:.4g}", value, len(one.accuracies), f"{one.seconds:.2f}", one.why or ""]
        writer.writerow([one.architecture, *numbers, *measured])
    return text.getvalue()
