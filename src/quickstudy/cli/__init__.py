"""The command line: parse, call, print. A file a command."""

from quickstudy.cli.app import main

__all__ = ["main"]
