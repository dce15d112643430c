"""`quickstudy search`."""

import math
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from quickstudy.cli.across import Kind, search_many
from quickstudy.cli.options import a_seed, an_amount, memory, milliseconds
from quickstudy.cli.priors import from_prior
from quickstudy.cli.terminal import TOO_SLOW, bar, console, note, out_console, prepared, show, tell
from quickstudy.nas.across_files import CSV, JSON
from quickstudy.nas.budget import Budget
from quickstudy.nas.build import Limits
from quickstudy.nas.search import SearchResult
from quickstudy.nas.workers import cores
from quickstudy.quantities import plural
from quickstudy.search_data import NETWORK, ONNX, REPORT, TABLE, search_data, too_slow
from quickstudy.tasks.catalogue import SOURCES as TASK_SOURCES
from quickstudy.tasks.load_task import load_task
from quickstudy.tasks.named import NAMED

SOURCES = ", ".join(known.form for known in NAMED.values())


def search(
    data: Annotated[
        str | None,
        typer.Argument(
            help="A folder with a subfolder of pictures for each class; an npz with x (n, channels, *size) and y (n,); "
            f"a CSV with a row a series; or one of {SOURCES}. With --across there is none."
        ),
    ] = None,
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
        float,
        typer.Option(help="From when the data are read to the trained network; the export takes a few more.", min=1),
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
    name: Annotated[
        str | None,
        typer.Option(help="Of the task in a --storage that holds others, too; that of the data by default."),
    ] = None,
    prior: Annotated[
        str | None,
        typer.Option(
            help="Folder of a prior, as `learn-prior` makes it; none for a search without; by default the one that "
            "comes with quickstudy."
        ),
    ] = None,
    across: Annotated[
        str | None,
        typer.Option(
            help="Instead of DATA: one architecture for many small tasks, drawn from a folder of classes or from "
            f"{', '.join(TASK_SOURCES)}."
        ),
    ] = None,
    n_way: Annotated[int | None, typer.Option(help="Classes a task of --across, 5 by default.", min=2)] = None,
    n_shot: Annotated[
        int | None, typer.Option(help="Support examples a class of --across, 5 by default.", min=1)
    ] = None,
    n_query: Annotated[
        int | None, typer.Option(help="Query examples a class of --across, 15 or as many as there are.", min=1)
    ] = None,
    tasks: Annotated[
        int | None, typer.Option(help="Tasks that --across compares on, and tests on, at most; 100 by default.", min=5)
    ] = None,
    colour: Annotated[
        bool | None,
        typer.Option("--colour/--grey", help="Read the pictures of --across so; by default in colour where one is."),
    ] = None,
    ink: Annotated[
        bool | None,
        typer.Option(
            "--ink/--levels",
            help="Read grey pictures of --across as ink on paper, or keep their levels; by default as ink where most "
            "of them is paper.",
        ),
    ] = None,
    size: Annotated[int | None, typer.Option(help="Side of pictures from a folder, in pixels.", min=4)] = None,
    test: Annotated[
        float | None,
        typer.Option(
            help="Share of the data that the result is tested on, 0.2 by default, where they have no test set.",
            min=0.01,
            max=0.9,
        ),
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave unreadable pictures out.")] = False,
    seed: Annotated[int, typer.Option(help="Of everything random.", callback=a_seed)] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier result.")] = False,
) -> None:
    """Find and train the best small network for your data, within hard limits.

    Tries architectures with short trainings, trains the two best to the end, and tests one of them on data that was
    set aside. Writes the network (safetensors and ONNX), a report, and a table of all that was tried. A search that is
    interrupted goes on with the same command; several may share a --storage. Parameters, memory and multiply-adds are
    counted; latency is measured, and should the result be slower than its limit in the end, the exit code is 3.

    Examples:

    `quickstudy search digits --max-params 5k --seconds 30`

    `quickstudy search my_pictures/ --max-latency 2ms --max-memory 64k --out small/`

    `quickstudy search sensors.csv --storage postgresql://lab/searches --seconds 600`

    `quickstudy search --across omniglot --n-way 5 --n-shot 5 --max-params 20k --seconds 300`
    """
    # Typer's callbacks have made numbers of the texts.
    limits = Limits(max_params, max_memory, max_madds, max_latency)  # type: ignore[arg-type]
    if math.isinf(seconds) and trials is None:
        raise typer.BadParameter("--seconds inf never ends without --trials. Say how many.")
    until = None if math.isinf(seconds) else seconds
    budget = Budget(seconds=until, trials=trials, workers=workers or min(4, cores()))
    if across is not None:
        if data is not None:
            raise typer.BadParameter(f"--across {across} takes its tasks from there; leave out {data}, or --across.")
        if test is not None:
            raise typer.BadParameter(
                "--test is for data; the tasks of --across have queries of their own. Leave it out."
            )
        kind = Kind(across, n_way or 5, n_shot or 5, n_query, size, colour, ink, skip_bad)
        folder = None if across in TASK_SOURCES else Path(across)
        with prepared(out, JSON, CSV, force=force, source=folder):
            search_many(
                kind,
                tasks=tasks or 100,
                budget=budget,
                limits=limits,
                prior=prior,
                out=out,
                storage=storage,
                name=name,
                seed=seed,
            )
        return
    if data is None:
        raise typer.BadParameter("there is no data to search for. Give DATA, or --across and a source of tasks.")
    if colour is not None or ink is not None or n_way or n_shot or n_query or tasks:
        raise typer.BadParameter(
            "--n-way, --n-shot, --n-query, --tasks, --colour and --ink are for --across. Leave them out."
        )
    folder = None if data.partition(":")[0] in NAMED else Path(data)
    cut_off = (out / TABLE).exists() and not (out / REPORT).exists()  # which is written last: the same command goes on
    with prepared(out, REPORT, *([] if cut_off else [ONNX]), force=force, source=folder):
        with bar(f"reading {escape(data)}") as update:
            task = load_task(
                data,
                test=0.2 if test is None else test,
                seed=seed,
                size=size,
                skip_bad=skip_bad,
                on_progress=update,
            )
        n, shape = task.task.support.n, "x".join(map(str, task.shape))
        console.print(f"{n:,} examples of {shape} to learn from, {len(task.class_names)} classes; limits: {limits}")
        known, proposer = from_prior(prior)
        with bar("searching") as update:
            found = search_data(
                task,
                out=out,
                budget=budget,
                limits=limits,
                prior=known,
                proposer=proposer,
                storage=storage,
                name=name,
                seed=seed,
                on_progress=lambda seen: show(seen, update),
                on_stage=lambda stage: update(1000, 1000, stage),
            )
    result = found.result
    rows = Table(show_header=False, box=None)
    before = ", before it went on with these examples too" if result.further else ""
    rows.add_row("expected accuracy", f"{result.expected}, on the validation set that it was chosen by{before}")
    if result.test is not None:
        rows.add_row("[bold]test accuracy[/]", f"[bold]{result.test}[/]")
    rows.add_row("parameters", f"{result.cost.parameters:,}")
    rows.add_row("multiply-adds", f"{result.cost.multiply_adds:,}")
    rows.add_row("activations", f"{result.cost.peak_memory:,} bytes")
    rows.add_row("latency", f"{result.latency:.3g} ms on one thread of this machine")
    rows.add_row("tried", tried(result))
    out_console.print(rows)
    where = {name: escape(str(out / name)) for name in (NETWORK, ONNX, TABLE, REPORT)}
    for warning in found.report.warnings:
        note(warning)
    tell(f"the network: {where[NETWORK]} and {where[ONNX]}; all that was tried: {where[TABLE]}")
    tell(f"the report: [bold]{where[REPORT]}[/] ({found.seconds:.0f} s)")
    if too_slow(result.latency, limits) is not None:
        raise typer.Exit(TOO_SLOW)


def tried(result: SearchResult) -> str:
    """What became of all architectures, in words."""
    within = [one for one in result.tried if one.fits]
    failed = sum(one.value is None for one in within)
    more = [f"{failed} failed"] * (failed > 0) + [f"{result.too_slow} more were too slow"] * (result.too_slow > 0)
    return ", ".join([plural(len(within) - failed, "architecture"), *more]) + f", in {result.seconds:.0f} s"
