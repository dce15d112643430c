"""`quickstudy demo`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from quickstudy.cli.options import a_seed, above_0
from quickstudy.cli.terminal import bar, console, note, prepared, show, status, tell, watching
from quickstudy.demo import LIMITS, SEARCH, add_search, run_demo
from quickstudy.nas.budget import Budget
from quickstudy.nas.workers import cores
from quickstudy.report import DemoReport, Score
from quickstudy.tasks.catalogue import load_splits


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("demo"),
    seconds: Annotated[float, typer.Option(help="Time for meta-training.", min=1, callback=above_0)] = 60.0,
    search_seconds: Annotated[
        float,
        typer.Option(
            help="Time for the second act, a search for a network; 0 leaves it out.",
            min=0,
            callback=lambda value: above_0(value) if value else value,
        ),
    ] = 30.0,
    tasks: Annotated[
        int, typer.Option(help="Test tasks of each kind; training from scratch, which is slow, gets fewer.", min=2)
    ] = 600,
    seed: Annotated[int, typer.Option(help="Of everything random.", callback=a_seed)] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier report.")] = False,
) -> None:
    """Meta-train a learner before your eyes, and see it learn characters of alphabets it has never seen.

    Then, as the second act, watch a search find a network for handwritten digits that keeps to a limit on its
    parameters and its memory. Takes about three minutes on two cores, offline, and writes `report.html`.

    Example: `quickstudy demo --seconds 30 --search-seconds 20`
    """
    with prepared(out, "report.html", "prior", SEARCH, force=force), bar("drawing glyphs") as update:
        splits = load_splits("glyphs", n_way=20, on_progress=update)
    with watching("meta-training on 20-way tasks") as watch, status() as say:
        report = run_demo(
            splits,
            out=out,
            seconds=seconds,
            tasks=tasks,
            seed=seed,
            on_training=watch,
            on_stage=say,
            on_score=show_score,
        )
    live = report.headline[0]
    tell(
        f"\nAfter {report.seconds:.0f} seconds of meta-training: [bold]{live.mean:.1f} %[/] at {live.setting}, "
        "on alphabets it has never seen."
    )
    if search_seconds:
        console.print(f"[dim]second act: a network for handwritten digits, with at most {LIMITS}[/]")
        budget = Budget(seconds=search_seconds, workers=min(4, cores()))
        with bar("searching") as update, status() as say:
            report = add_search(
                report,
                out=out,
                budget=budget,
                seed=seed,
                on_progress=lambda seen: show(seen, update),
                on_stage=say,
            )
        show_search(report)
    tell(f"The report: [bold]{escape(str(out / 'report.html'))}[/]")


def show_search(report: DemoReport) -> None:
    """What the second act has found, or why there is none."""
    found = report.search
    if found is None or found.test is None:
        note(report.search_skipped)
        return
    tell(
        f"After {found.seconds:.0f} seconds of search among networks that fit: [bold]{found.test.mean:.1f} %[/] of "
        f"{found.test.n} test digits, with {found.costs[0].found:,.0f} parameters."
    )


def show_score(score: Score) -> None:
    """One line of the demo's comparison."""
    each = "" if score.seconds is None else f"{1000 * score.seconds:6.1f} ms a task, "
    found = f"[bold]{score.mean:5.1f}[/] {score.interval()} %   {each}{score.n:,} tasks"
    console.print(f"  {score.setting:<15} {score.method:<40} {found}", soft_wrap=True)
