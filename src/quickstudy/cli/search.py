"""`quickstudy search`."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from quickstudy.cli.options import a_seed, an_amount, memory, milliseconds
from quickstudy.cli.terminal import bar, console, note, out_console, prepare, tell
from quickstudy.nas.build import Limits
from quickstudy.nas.hunt import SEARCHED, Budget, Progress
from quickstudy.search_data import NETWORK, ONNX, REPORT, TABLE, search_data
from quickstudy.tasks.load_task import load_task
from quickstudy.tasks.named import NAMED

SOURCES = ", ".join(known.form for known in NAMED.values())


def search(
    data: Annotated[
        str,
        typer.Argument(
            help="A folder with a subfolder of pictures for each class; an npz with x (n, channels, *size) and y (n,); "
            f"a CSV with a row a series; or one of {SOURCES}."
        ),
    ],
    max_params: Annotated[str | None, typer.Option(help="Parameters at most, such as 20k.", callback=an_amount)] = None,
    max_latency: Annotated[
        str | None,
        typer.Option(help="Time of a prediction at most, such as 2ms, on one thread.", callback=milliseconds),
    ] = None,
    max_memory: Annotated[
        str | None, typer.Option(help="Bytes of activations at most, such as 64k.", callback=memory)
    ] = None,
    max_madds: Annotated[
        str | None, typer.Option(help="Multiply-adds of a prediction at most, such as 5M.", callback=an_amount)
    ] = None,
    seconds: Annotated[
        float, typer.Option(help="From the start to the trained network; the export takes a few more.", min=1)
    ] = 60.0,
    trials: Annotated[int | None, typer.Option(help="Architectures to try at most.", min=1)] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that train side by side; by default one a core, at most 4.", min=1)
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("out"),
    storage: Annotated[
        str | None,
        typer.Option(help="Where trials are kept: a file or a URL (postgresql://...). By default in --out."),
    ] = None,
    size: Annotated[int | None, typer.Option(help="Side of pictures from a folder, in pixels.", min=4)] = None,
    test: Annotated[
        float, typer.Option(help="Share of the data that the result is tested on.", min=0.01, max=0.9)
    ] = 0.2,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave unreadable pictures out.")] = False,
    seed: Annotated[int, typer.Option(help="Of everything random.", callback=a_seed)] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier result.")] = False,
) -> None:
    """Find and train the best small network for your data, within hard limits.

    Tries architectures with short trainings, trains the two best to the end, and tests one of them on data that was
    set aside. Writes the network (safetensors and ONNX), a report, and a table of all that was tried. A search that is
    interrupted goes on with the same command; several may share a --storage.

    Examples:

    `quickstudy search digits --max-params 5k --seconds 30`

    `quickstudy search my_pictures/ --max-latency 2ms --max-memory 64k --out small/`

    `quickstudy search sensors.csv --storage postgresql://lab/searches --seconds 600`
    """
    prepare(out, REPORT, ONNX, TABLE, force=force)
    # Typer's callbacks have made numbers of the texts.
    limits = Limits(max_params, max_memory, max_madds, max_latency)  # type: ignore[arg-type]
    with bar(f"reading {data}") as update:
        task = load_task(
            data,
            test=test,
            seed=seed,
            size=size,
            skip_bad=skip_bad,
            on_progress=lambda done, total: update(done, total, ""),
        )
    n, shape = task.task.support.n, "x".join(map(str, task.shape))
    console.print(f"{n:,} examples of {shape} to learn from, {len(task.class_names)} classes; limits: {limits}")
    budget = Budget(seconds=seconds, trials=trials, workers=workers or min(4, os.cpu_count() or 1))
    with bar("searching") as update:

        def watch(seen: Progress) -> None:
            best = "" if seen.best is None else f", best {seen.best:.1f} % on validation"
            done = seen.trials / trials if trials and seen.stage == "searching" else 0.0
            part = max(min(seen.seconds / seconds, 1.0), done * SEARCHED)
            update(int(1000 * part), 1000, f"{seen.stage}: {seen.trials} tried{best}")

        found = search_data(
            task,
            out=out,
            budget=budget,
            limits=limits,
            storage=storage,
            seed=seed,
            on_progress=watch,
            on_stage=lambda stage: update(1000, 1000, stage),
        )
    result = found.result
    rows = Table(show_header=False, box=None)
    rows.add_row("expected accuracy", f"{result.expected}, on the validation set that it was chosen by")
    if result.test is not None:
        rows.add_row("[bold]test accuracy[/]", f"[bold]{result.test}[/]")
    rows.add_row("parameters", f"{result.cost.parameters:,}")
    rows.add_row("multiply-adds", f"{result.cost.multiply_adds:,}")
    rows.add_row("activations", f"{result.cost.peak_memory:,} bytes")
    rows.add_row("latency", f"{result.latency:.3g} ms on one thread of this machine")
    rows.add_row("tried", f"{len(result.tried)} architectures in {result.seconds:.0f} s")
    out_console.print(rows)
    where = {name: escape(str(out / name)) for name in (NETWORK, ONNX, TABLE, REPORT)}
    for warning in found.report.warnings:
        note(warning)
    tell(f"the network: {where[NETWORK]} and {where[ONNX]}; all that was tried: {where[TABLE]}")
    tell(f"the report: [bold]{where[REPORT]}[/] ({found.seconds:.0f} s)")
