"""Priors that come with quickstudy. Each folder holds one, and the script that made it."""

import json
from pathlib import Path

_FOLDER = Path(__file__).parent


def shipped_names() -> list[str]:
    """The names of the learners that come with quickstudy."""
    kinds = {path.parent.name: json.loads(path.read_text("utf-8"))["kind"] for path in _FOLDER.glob("*/prior.json")}
    return sorted(name for name, kind in kinds.items() if kind == "learner")


def shipped(name: str) -> Path:
    """The folder of one of them."""
    return _FOLDER / name
