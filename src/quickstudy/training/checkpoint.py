"""Checkpoints of meta-training: one safetensors file, written whole or not at all, from which nothing is unpickled."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor

from quickstudy.artefacts import write_atomically
from quickstudy.errors import DamagedArtefactError, ForeignArtefactError

CHECKPOINT = "checkpoint.safetensors"


def write_checkpoint(folder: Path, settings: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Writes the state of a run, and the settings that it must be resumed with.

    Args:
        folder: Where the file goes.
        settings: Plain JSON values.
        state: Dictionaries, lists, plain values and tensors, in one another.
    """
    tensors: dict[str, Tensor] = {}
    plain = json.dumps({"settings": dict(settings), "state": take_tensors(state, tensors)})
    body = hashlib.sha256(split_header(tensors_to_bytes(tensors))[1]).hexdigest()
    write_atomically(folder / CHECKPOINT, tensors_to_bytes(tensors, metadata={"plain": plain, "sha256": body}))


def read_checkpoint(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The state of a run that had these settings, and as "settings" all that it had.

    Raises:
        DamagedArtefactError: Where the file is incomplete or altered.
        ForeignArtefactError: Where the run had other settings.
    """
    path = folder / CHECKPOINT
    content = path.read_bytes()
    try:
        header, body = split_header(content)
        told = json.loads(header)["__metadata__"]
        if hashlib.sha256(body).hexdigest() != told["sha256"]:
            raise ValueError("it does not match its checksum")
        saved = json.loads(told["plain"])
        theirs, state = saved["settings"], put_tensors(saved["state"], tensors_from_bytes(content))
    except Exception as error:  # damaged bytes can be anything
        raise DamagedArtefactError(
            f"{path} is no checkpoint that can be read ({len(content)} bytes, {type(error).__name__}). "
            "Delete it to start anew."
        ) from None
    for name, ours in settings.items():
        if theirs.get(name) != json.loads(json.dumps(ours)):
            raise ForeignArtefactError(
                f"the run in {folder} had {name} = {theirs.get(name)!r}, not {ours!r}. "
                f"Resume it with its own {name}, or choose another folder."
            )
    return {**state, "settings": theirs}


def split_header(content: bytes) -> tuple[bytes, bytes]:
    """The header of a safetensors file, which is JSON, and the tensors that follow it."""
    end = 8 + int.from_bytes(content[:8], "little")
    return content[8:end], content[end:]


def take_tensors(value: Any, tensors: dict[str, Tensor]) -> Any:
    """`value` as JSON, its tensors put into `tensors` and named where they were."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().clone().contiguous()
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"items": [[key, take_tensors(entry, tensors)] for key, entry in value.items()]}
    return [take_tensors(entry, tensors) for entry in value] if isinstance(value, list | tuple) else value


def put_tensors(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What `take_tensors` was given, tuples as lists."""
    if isinstance(value, list):
        return [put_tensors(entry, tensors) for entry in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]]
    return {key: put_tensors(entry, tensors) for key, entry in value["items"]}
