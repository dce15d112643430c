"""The application: its commands, and what becomes of an error."""

import errno
import logging
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from quickstudy import __version__
from quickstudy.cli.adapt import adapt
from quickstudy.cli.data import data
from quickstudy.cli.demo import demo
from quickstudy.cli.evaluate import evaluate
from quickstudy.cli.learn_prior import learn_prior
from quickstudy.cli.search import search
from quickstudy.cli.terminal import fail, out_console
from quickstudy.cli.train import train
from quickstudy.errors import QuickstudyError, is_out_of_memory
from quickstudy.learners.catalogue import LEARNERS

STOPPED = 130

MORE: dict[Callable[..., None], str] = {
    train: "Learners:\n\n"
    + "\n".join(f"- `{name}`: {entry.summary}" for name, entry in LEARNERS.items() if entry.trained)
}
"""What follows the options in the help of a command."""

app = typer.Typer(
    help="Learns from tasks already solved, so that the next one takes seconds.\n\nBegin with: quickstudy demo",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
)
for command in (demo, search, learn_prior, train, evaluate, adapt, data):  # in the order of --help
    app.command(epilog=MORE.get(command))(command)


def main() -> None:
    """The entry point: runs a command, and turns what goes wrong into one sentence and a non-zero exit."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    try:
        # Typer turns Ctrl-C into the exit code 130, and older ones into Abort.
        if code := app(standalone_mode=False):
            raise KeyboardInterrupt if code == STOPPED else SystemExit(code)
    except (KeyboardInterrupt, typer.Abort):
        ways = {
            "train": "; `quickstudy train ... --resume` goes on from the last checkpoint: there is one a minute.",
            "search": "; the same command goes on.",
        }
        goes_on = ways.get("".join(sys.argv[1:2]), ".")
        fail(f"stopped. What was saved is intact{goes_on}", STOPPED)
    except QuickstudyError as error:
        fail(str(error), 1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        again = " and go on with --resume" if sys.argv[1:2] == ["train"] else " and try again"
        remedy = f" Make room{again}." if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None)) else ""
        fail(f"{where}{error.strerror or error}. What was saved before is intact.{remedy}", 1)
    except Exception as error:
        if is_out_of_memory(error):
            said = " ".join(str(error).split())[:200]
            remedy = (
                "Take fewer tasks a step or queries a class, or, for learners that adapt by gradient descent, "
                "--set memory_budget=..., in bytes. "
                if sys.argv[1:2] == ["train"]
                else ""
            )
            fail(f"memory is full ({said}). {remedy}What was saved before is intact.", 1)
        # Typer's own usage errors know how to show themselves, with the usage line.
        if not hasattr(error, "format_message"):
            raise
        error.show()  # type: ignore[attr-defined]
        sys.exit(2)


def version(show: bool) -> None:
    if show:
        out_console.print(f"quickstudy {__version__}")
        raise typer.Exit


@app.callback()
def options(
    show: Annotated[bool, typer.Option("--version", callback=version, is_eager=True, help="Show the version.")] = False,
) -> None:
    """Options before the command."""
