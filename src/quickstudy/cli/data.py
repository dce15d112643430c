"""`quickstudy data`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from quickstudy.cli.terminal import bar, note, out_console
from quickstudy.errors import TooFewExamplesError
from quickstudy.tasks.catalogue import SOURCES, load_splits
from quickstudy.tasks.encoder_for import encoder_for_classes
from quickstudy.tasks.image_folder import image_folder
from quickstudy.tasks.split import split_classes


def data(
    name: Annotated[str | None, typer.Argument(help="A data set to load, or a folder to look at.")] = None,
    n_way: Annotated[int, typer.Option(help="Classes a task, which every part of a folder must have.", min=2)] = 5,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave unreadable pictures out.")] = False,
) -> None:
    """List the data sets, or load one and say what is in it.

    Examples: `quickstudy data`, `quickstudy data omniglot`, `quickstudy data my_classes/`
    """
    if name is None:
        table = Table("data set", "what it is", box=None)
        for known, source in SOURCES.items():
            table.add_row(f"[bold]{known}[/]", source.summary)
        out_console.print(table)
        out_console.print("\nAnd any folder that has a subfolder of pictures for each class.")
        return
    with bar(f"loading {escape(name)}") as update:
        if name in SOURCES or not Path(name).is_dir():
            found = load_splits(name, n_way=n_way, on_progress=update)
            parts = {"train": found.train, "validation": found.validation, "test": found.test}
        else:
            whole = image_folder(name, encoder=encoder_for_classes(name), skip_bad=skip_bad, on_progress=update)
            try:
                parts = split_classes(whole, n_way=n_way)._asdict()
            except TooFewExamplesError as error:
                parts = {"all": whole}
                note(f"these are too few to meta-train on: {error}")
    table = Table("part", "classes", "groups", "examples", "shape", box=None)
    for part, held in parts.items():
        groups = "" if held.groups is None else str(len(set(held.groups)))
        shape = "x".join(map(str, held.x.shape[1:]))
        table.add_row(part, str(held.n_classes), groups, str(len(held.x)), shape)
    out_console.print(table)
