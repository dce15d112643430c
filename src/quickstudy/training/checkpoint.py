"""Checkpoints of meta-training: one file, written whole or not at all."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from quickstudy.artefacts import write_atomically
from quickstudy.errors import DamagedArtefactError, ForeignArtefactError

CHECKPOINT = "checkpoint.pt"


def write_checkpoint(folder: Path, settings: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Writes the state of a run, and the settings that it must be resumed with."""
    buffer = io.BytesIO()
    torch.save({"settings": dict(settings), "state": dict(state)}, buffer)
    write_atomically(folder / CHECKPOINT, buffer.getvalue())


def read_checkpoint(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The state of a run that had these settings.

    Raises:
        DamagedArtefactError: Where the file is incomplete.
        ForeignArtefactError: Where the run had other settings.
    """
    path = folder / CHECKPOINT
    try:
        saved = torch.load(path, weights_only=True, map_location="cpu")
        theirs, state = saved["settings"], saved["state"]
    except Exception as error:  # torch raises many kinds on a damaged file
        raise DamagedArtefactError(
            f"{path} is no checkpoint that can be read ({error}). Delete it to start anew."
        ) from None
    for name, ours in settings.items():
        if theirs.get(name) != ours:
            raise ForeignArtefactError(
                f"the run in {folder} had {name} = {theirs.get(name)!r}, not {ours!r}. "
                f"Resume it with its own {name}, or choose another folder."
            )
    return dict(state)
