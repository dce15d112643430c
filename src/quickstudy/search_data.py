"""The user's data in, a small trained network out, with all that is needed to use and to judge it."""

import csv
import io
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from quickstudy.artefacts import WEIGHTS, write_atomically
from quickstudy.experience.proposer import Proposer
from quickstudy.learners.nearest_neighbour import NearestNeighbour
from quickstudy.learners.prior import provenance
from quickstudy.nas.architecture import Architecture
from quickstudy.nas.budget import ETA, RUNGS, Budget
from quickstudy.nas.build import Limits
from quickstudy.nas.drawing import draw
from quickstudy.nas.export import OPSET, export_onnx
from quickstudy.nas.network import Network, save_network
from quickstudy.nas.search import SearchResult, search
from quickstudy.nas.search_prior import SearchPrior
from quickstudy.nas.space import Space
from quickstudy.nas.trainer import real
from quickstudy.nas.tried import Progress
from quickstudy.report import Attempt, Cost, Score, SearchReport, one_of_each, render
from quickstudy.tasks.load_task import NamedTask
from quickstudy.tasks.task import Examples, Task
from quickstudy.training.proportion import Share

NETWORK, ONNX, TABLE, REPORT, STUDIES = "network", "model.onnx", "architectures.csv", "report.html", "studies.db"
"""What a folder of results holds."""
FEW = 100
"""Validation examples below which the report warns."""
LOOK_ALIKE, MOST = 3, 6
"""Mistakes of a kind before the report warns of it, and warnings at most."""
COMPARED = 1000
"""Examples on which the export is compared with torch, at most."""
USED = 0.9
"""The part of its seconds that a search has used to which more would be of use."""
DIVIDED: Mapping[object, str] = {255: " / 255"}
"""What is done to inputs, by their levels."""
QUERIES = 200
"""Test examples whose nearest neighbours are sought together."""


@dataclass(frozen=True)
class Found:
    """What was found, and what the report says of it."""

    result: SearchResult
    report: SearchReport
    seconds: float
    """With the export and the report."""


def search_data(
    data: NamedTask,
    *,
    out: Path,
    budget: Budget | None = None,
    limits: Limits | None = None,
    prior: SearchPrior | None = None,
    proposer: Proposer[Architecture, Space] | None = None,
    storage: str | Path | None = None,
    name: str | None = None,
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
        prior: As in `search`.
        proposer: As in `search`.
        storage: Where trials are kept; a file in `out` by default.
        name: Of the task there; that of the data by default.
        seed: Of all randomness.
        on_progress: Is called when a trial has ended.
        on_stage: Is told what is being done after the search.

    Raises:
        QuickstudyError: As `search` and `export_onnx` do.
    """
    start, say, budget = time.perf_counter(), on_stage or (lambda stage: None), budget or Budget()
    out.mkdir(parents=True, exist_ok=True)
    result = search(
        data.task,
        budget=budget,
        limits=limits or Limits(),
        prior=prior,
        proposer=proposer,
        storage=out / STUDIES if storage is None else storage,
        name=data.name if name is None else name,
        seed=seed,
        on_progress=on_progress,
    )
    short = budget.seconds is None or time.perf_counter() - start > USED * budget.seconds
    say("saving the network")
    training = {
        "data": data.name,
        "validation": str(result.expected) + (f", before the last {result.further:,} steps" if result.further else ""),
        "test": str(result.test),
        **result.settings,
        **provenance(),
    }
    network = Network(result.space, result.architecture, result.network, data.class_names, data.inputs, training)
    save_network(out / NETWORK, network)
    write_atomically(out / TABLE, table(result).encode())
    say(f"exporting to ONNX, operator set {OPSET}, and comparing")
    some = real(data.task.support)[0][:COMPARED]
    export_onnx(result.network, result.space.shape, out / ONNX, data.class_names, inputs=data.inputs, examples=some)
    say("writing the report")
    report = summary(data, result, out, warnings(data, result, score := nearest_neighbour(data.task), short), score)
    write_atomically(out / REPORT, render(report).encode())
    return Found(result, report, time.perf_counter() - start)


def summary(
    data: NamedTask, result: SearchResult, out: Path, warned: tuple[str, ...], neighbour: Score | None
) -> SearchReport:
    """What the report says."""
    limits, cost = result.limits, result.cost
    tried, reached = [one for one in result.tried if one.fits], result.reached
    chosen = [one.architecture for one in tried].index(result.architecture)
    labels = torch.bincount(real(data.task.support)[1], minlength=len(data.class_names)).tolist()
    files = {f"{NETWORK}/{WEIGHTS}": out / NETWORK / WEIGHTS, ONNX: out / ONNX, TABLE: out / TABLE}
    return SearchReport(
        data=data.name,
        class_names=data.class_names,
        shape=result.space.shape,
        counts=tuple(labels),
        seconds=result.seconds,
        architecture=str(result.architecture),
        drawing=draw(result.space.graph(result.architecture), shape=result.space.shape),
        costs=(
            Cost("parameters", cost.parameters, limits.max_params),
            Cost("multiply-adds", cost.multiply_adds, limits.max_madds),
            Cost("peak memory", cost.peak_memory, limits.max_memory, "bytes"),
            Cost("latency", result.latency, limits.max_latency, "ms"),
        ),
        test=None if result.test is None else scored("found by the search", "test", result.test),
        expected=scored("found by the search", "validation", result.expected),
        went_on=result.further > 0,
        baselines=() if neighbour is None else (neighbour,),
        attempts=tuple(
            Attempt(
                i,
                result.ended if one.architecture in result.final else one.at,
                reached.get(one.architecture),
                one.cost.parameters,
                one.latency,
                1.0 if one.architecture in result.final else ETA ** (len(one.accuracies) - RUNGS - 1),
            )
            for i, one in enumerate(tried)
        ),
        chosen=chosen,
        too_slow=result.too_slow,
        confusion=result.confusion,
        examples=one_of_each(*real(data.task.support), result.space.n_classes),
        known=f"The search began with {result.settings['began with']}.",
        warnings=warned,
        files={name: path.stat().st_size for name, path in files.items()},
        python=with_torch(out, data),
        onnx=with_onnx(out, data),
        settings={
            **result.settings,
            "limits": str(limits),
            "ONNX": f"operator set {OPSET}",
            "versions": f"torch {torch.__version__}, Python {platform.python_version()}",
            "date": datetime.now(UTC).date().isoformat(),
        },
    )


def with_torch(out: Path, data: NamedTask) -> str:
    """Five lines of Python that use the network, from what the user has to the names of classes."""
    if "encoder" in data.inputs:
        made = 'x = quickstudy.PictureEncoder.from_settings(found.inputs["encoder"]).read("new.png")[None] / 255'
    else:
        made = f"x = torch.as_tensor(x).float(){DIVIDED.get(data.inputs.get('levels'), '')}  # {an_input(data)}"
    return (
        "import quickstudy, torch\n"
        f"found = quickstudy.load_network({(out / NETWORK).as_posix()!r})\n"
        f"{made}\n"
        f"probabilities = found.module(x).softmax(1)  # (n, {len(data.class_names)})\n"
        "names = [found.class_names[i] for i in probabilities.argmax(1)]"
    )


def with_onnx(out: Path, data: NamedTask) -> str:
    """As many that use the export without torch, and name the classes; pictures take one more, to be read."""
    more, made = "", f"x.astype(numpy.float32){DIVIDED.get(data.inputs.get('levels'), '')}"
    encoder = data.inputs.get("encoder")
    if isinstance(encoder, Mapping) and encoder.get("white") is None:
        channels, *size = data.shape
        mode, axes = ("RGB", ".transpose(2, 0, 1)[None]") if channels == 3 else ("L", "[None, None]")
        more = (
            f'x = numpy.asarray(PIL.Image.open("new.png").convert("{mode}").resize({tuple(size)}, 2)){axes} / 255'
            "  # a square, opaque, upright one of 8 bits\n"
        )
        made = "x.astype(numpy.float32)"
    return (
        f"import json, numpy, onnxruntime{', PIL.Image' if more else ''}\n"
        f"session = onnxruntime.InferenceSession({(out / ONNX).as_posix()!r})\n"
        f'{more}(logits,) = session.run(["logits"], {{"input": {made}}})  # {an_input(data)}\n'
        'names = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])\n'
        "answers = [names[i] for i in logits.argmax(1)]"
    )


def an_input(data: NamedTask) -> str:
    """What the network takes, in a comment."""
    scale = ", levels of 0 to 255" if data.inputs.get("levels") in DIVIDED and "encoder" not in data.inputs else ""
    made = ", read as `inputs` in the metadata says" if "encoder" in data.inputs else ""
    return f"x: (n, {', '.join(map(str, data.shape))}){made}{scale}"


def scored(method: str, setting: str, share: Share) -> Score:
    """A share as the report shows it."""
    return Score(method, setting, share.percent, None, share.n, None, share.low, share.high)


def nearest_neighbour(task: Task) -> Score | None:
    """How well the most similar example of the support set names those of the query set, which needs no network."""
    x, y = real(task.query)
    if not len(y):
        return None
    support, query = (Examples(*(each[None] for each in real(part))) for part in (task.support, task.query))
    predictor = NearestNeighbour().adapt(Task(support, query, task.n_way))
    answers = [predictor(part[None]).probs.argmax(-1)[0] for part in x.split(QUERIES)]  # type: ignore[attr-defined]
    return scored("nearest neighbour", "test", Share(int((torch.cat(answers) == y).sum()), len(y)))


def warnings(data: NamedTask, result: SearchResult, neighbour: Score | None, short: bool) -> tuple[str, ...]:
    """What a reader should know before the numbers are believed; `short`: whether the search has used its seconds."""
    found = []
    if result.cut is not None:
        found.append(f"The final training had only {result.cut}, for the seconds were over. Give the search more.")
    if (slow := too_slow(result.latency, result.limits)) is not None:
        found.append(slow)
    if result.expected.n < FEW:
        found.append(f"The choice was made by {result.expected.n} validation examples: small differences are noise.")
    if result.test is not None and neighbour is not None and neighbour.mean > result.test.percent:
        found.append(
            f"Nearest neighbour is better on the test set, {neighbour.mean:.1f} % against {result.test.percent:.1f} %: "
            f"give the search {'more seconds or ' if short else ''}wider limits, or use nearest neighbour."
        )
    if result.confusion is not None:
        mistakes = result.confusion - torch.diag(result.confusion.diagonal())
        for a, b in (mistakes >= LOOK_ALIKE).nonzero().tolist():
            of = int(result.confusion[a].sum())
            if mistakes[a, b] >= 0.2 * of:
                names = data.class_names
                found.append(
                    f"{int(mistakes[a, b])} of {of} test examples of {names[a]!r} were taken for {names[b]!r}."
                )
    return tuple(found[:MOST])


def too_slow(latency: float, limits: Limits) -> str | None:
    """What to say of a result that was measured beyond the limit of latency; None of one that keeps to it."""
    if limits.max_latency is None or latency <= limits.max_latency:
        return None
    return (
        f"Measured once more, a prediction takes {latency:.3g} ms, and the limit is {limits.max_latency:g} ms: what "
        "was tried was faster when it was measured. Search again on a quiet machine, or with a wider limit."
    )


def table(result: SearchResult) -> str:
    """All architectures that were tried as a table, a row each, in that order."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    costs = ("parameters", "multiply_adds", "peak_memory")
    accuracies = ("accuracy %", "expected after the last rung %", "accuracy in the end %")
    writer.writerow(["architecture", *costs, "latency ms", "in limits", *accuracies, "trainings", "seconds", "failure"])
    final = result.final
    for one in result.tried:
        numbers = [getattr(one.cost, cost) for cost in costs]
        last = one.accuracies[-1].percent if one.accuracies else None
        values = ["" if value is None else f"{value:.2f}" for value in (last, one.value, final.get(one.architecture))]
        kept = "yes" if one.fits else "no"
        measured = [f"{one.latency:.4g}", kept, *values, len(one.accuracies), f"{one.seconds:.2f}", one.why or ""]
        writer.writerow([one.architecture, *numbers, *measured])
    return text.getvalue()
