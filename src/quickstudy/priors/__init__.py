"""Priors that come with quickstudy. Each folder holds one, and the script that made it."""

from pathlib import Path

_FOLDER = Path(__file__).parent


def shipped_names() -> list[str]:
    """The names of the priors that come with quickstudy."""
    return sorted(path.parent.name for path in _FOLDER.glob("*/prior.json"))


def shipped(name: str) -> Path:
    """The folder of one of them."""
    return _FOLDER / name
