"""`quickstudy data`."""

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from quickstudy.cli.terminal import bar, note, out_console
from quickstudy.errors import TooFewExamplesError
from quickstudy.tasks.catalogue import SOURCES, load_splits
from quickstudy.tasks.encoder_for import encoder_for_classes
from quickstudy.tasks.image_folder import image_folder


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

        def on_progress(done: int, total: int) -> None:
            update(done, total, "")

        try:
            splits = load_splits(name, n_way=n_way, skip_bad=skip_bad, on_progress=on_progress)
            parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
        except TooFewExamplesError as error:
            if name in SOURCES:
                raise
            whole = image_folder(name, encoder=encoder_for_classes(name), skip_bad=skip_bad, on_progress=on_progress)
            parts = {"all": whole}
            note(f"it serves `quickstudy adapt`, but not to meta-train on: {error}")
    table = Table("part", "classes", "groups", "examples", "shape", box=None)
    for part, found in parts.items():
        groups = "" if found.groups is None else str(len(set(found.groups)))
        shape = "x".join(map(str, found.x.shape[1:]))
        table.add_row(part, str(found.n_classes), groups, str(len(found.x)), shape)
    out_console.print(table)
