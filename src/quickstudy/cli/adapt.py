"""`quickstudy adapt`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from quickstudy.adapt_folder import adapt_folder
from quickstudy.cli.options import a_seed
from quickstudy.cli.priors import find_prior
from quickstudy.cli.terminal import console, note, out_console, prepared, tell


def adapt(
    prior: Annotated[str, typer.Argument(help="Folder of a prior, or the name of a shipped one.")],
    folder: Annotated[Path, typer.Argument(help="A few labelled pictures, a subfolder a class.")],
    predict: Annotated[Path | None, typer.Option(help="A folder of pictures to name, or one picture.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for predictions.csv and report.html.")] = Path("out"),
    unknown: Annotated[bool, typer.Option("--unknown", help="Answer 'none of these' where it is.")] = False,
    check: Annotated[bool, typer.Option(help="Leave pictures out to compare with simpler methods.")] = True,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave unreadable pictures out.")] = False,
    seed: Annotated[int, typer.Option(help="Of what is left out.", callback=a_seed)] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier result.")] = False,
) -> None:
    """Learn your own classes from a few pictures each, and name the others.

    With two or more pictures a class it checks itself by leaving pictures out, against nearest neighbour and training
    from scratch, and uses what won.

    Examples:

    `quickstudy adapt glyphs_prototypical_network my_classes/ --predict unlabelled/ --out out/`

    `quickstudy adapt runs/mine my_classes/ --predict unlabelled/ --unknown --out out/`
    """
    found = find_prior(prior)
    with (
        prepared(out, "report.html", "predictions.csv", force=force, source=folder),
        console.status("reading pictures") as line,
    ):
        report, answers = adapt_folder(
            found,
            folder,
            name=Path(prior).resolve().name,
            predict=predict,
            out=out,
            unknown=unknown,
            check=check,
            skip_bad=skip_bad,
            seed=seed,
            on_stage=line.update,
        )
    if predict is None:
        (out / "predictions.csv").unlink(missing_ok=True)  # of an earlier report, which --force replaced
    for warning in report.warnings:
        note(warning)
    if report.check is not None:
        table = Table("method", "left-out pictures named rightly (95 % interval)", box=None)
        for score in report.check.scores:
            used = " [bold](used)[/]" if score.method == report.check.used else ""
            table.add_row(f"{score.method}{used}", f"{score.mean:.0f} % {score.interval(0)} of {score.n}")
        out_console.print(table)
        expected = report.check.expected
        tell(
            f"accuracy to expect: {expected.mean:.0f} % {expected.interval(0)}; the figure of the method used is on "
            "the pictures that chose it, so a little flattering"
        )
    table_at, report_at = escape(str(out / "predictions.csv")), escape(str(out / "report.html"))
    named = "" if answers is None else f"{len(answers.files)} pictures named in {table_at}; "
    tell(f"{named}the report: [bold]{report_at}[/] ({report.seconds:.1f} s)")
