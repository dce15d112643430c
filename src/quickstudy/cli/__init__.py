"""The command line: parse, call, print. A file a command."""

import sys

__all__ = ["main"]


def main() -> None:
    """The entry point: runs a command, or says what is not installed."""
    try:
        from quickstudy.cli.app import main as run
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        sys.exit(f"error the command line needs {error.name}: pip install 'quickstudy[cli]'.")
    run()
