"""`quickstudy demo`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from quickstudy.cli.options import a_seed, above_0
from quickstudy.cli.terminal import bar, console, prepare, status, tell, watching
from quickstudy.demo import run_demo
from quickstudy.report import Score
from quickstudy.tasks.catalogue import load_splits


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("demo"),
    seconds: Annotated[float, typer.Option(help="Time for meta-training.", min=1, callback=above_0)] = 60.0,
    tasks: Annotated[int, typer.Option(help="Test tasks of each kind.", min=2)] = 600,
    seed: Annotated[int, typer.Option(help="Of everything random.", callback=a_seed)] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier report.")] = False,
) -> None:
    """Meta-train a learner before your eyes, and see it learn characters of alphabets it has never seen.

    Takes about three minutes on two cores, offline, and writes `report.html`.

    Example: `quickstudy demo --seconds 30`
    """
    prepare(out, "report.html", force=force)
    with bar("drawing glyphs") as update:
        splits = load_splits("glyphs", n_way=20, on_progress=lambda done, total: update(done, total, ""))
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
        f"on alphabets it has never seen.\nThe report: [bold]{escape(str(out / 'report.html'))}[/]"
    )


def show_score(score: Score) -> None:
    """One line of the demo's comparison."""
    each = "" if score.seconds is None else f"{1000 * score.seconds:6.1f} ms a task, "
    found = f"[bold]{score.mean:5.1f}[/] {score.interval()} %   {each}{score.n:,} tasks"
    console.print(f"  {score.setting:<15} {score.method:<40} {found}", soft_wrap=True)
