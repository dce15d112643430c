"""Saved priors: a folder with `prior.json` and `weights.safetensors`. Nothing is ever unpickled."""

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor, nn

from quickstudy.errors import (
    ArchitectureError,
    DamagedArtefactError,
    DataNotFoundError,
    ForeignArtefactError,
    NewerArtefactError,
)

FORMAT = 1
MANIFEST, WEIGHTS = "prior.json", "weights.safetensors"
WAITING = ".weights.{}.safetensors"
"""Weights that have not yet taken their place, by their checksum."""


ABANDONED = 3600.0
"""Seconds after which a file that was begun and not finished is nobody's any more."""


@dataclass(frozen=True)
class Artefact:
    """What a folder holds: plain values and tensors."""

    kind: str
    """What it is, such as "learner"."""
    settings: Mapping[str, Any]
    """Plain JSON values."""
    tensors: Mapping[str, Tensor]
    """By name, on the CPU."""


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all: a crash or a full disk leaves the previous one as it was.

    What a killed process had begun to write lies beside it, and goes with the first writing an hour later.
    """
    write_together({path: content})


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Writes files that belong together, each as `write_atomically` does.

    None takes its place before all are on the disk, so that a full disk leaves all the previous ones as they were.
    """
    begun: dict[Path, Path] = {}
    try:
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            forget_abandoned(path)
            handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
            begun[path] = Path(name)
            with os.fdopen(handle, "wb") as file, naming(path):
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            begun[path].chmod(0o644)
        for path, whole in begun.items():
            whole.replace(path)
    except BaseException:
        for left in begun.values():
            left.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """An error of the disk says of which file it is."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def forget_abandoned(path: Path) -> None:
    """Removes what killed processes had begun to write for a file, and nobody has finished since."""
    for begun in path.parent.glob(f".{path.name}.*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - begun.stat().st_mtime > ABANDONED:
                begun.unlink()


def write_artefact(folder: Path, artefact: Artefact) -> None:
    """Writes an artefact into a folder, which is made where it is missing.

    A crash at any moment leaves either the previous artefact or this one. Two files cannot take their places at once.
    So the weights wait under the name of their checksum until the manifest, which tells the checksum, is there; who
    reads in between finds them under that name.
    """
    # Cloned, because safetensors refuses tensors that share memory, as tied weights do.
    tensors = {name: value.detach().cpu().clone().contiguous() for name, value in artefact.tensors.items()}
    weights = tensors_to_bytes(tensors)
    checksum = hashlib.sha256(weights).hexdigest()
    settings = json.loads(json.dumps(artefact.settings, allow_nan=False))  # as they will be read: keys are texts
    manifest = {
        "quickstudy": FORMAT,
        "kind": artefact.kind,
        "settings": settings,
        "settings_sha256": digest(settings),
        "weights_sha256": checksum,
    }
    text = json.dumps(manifest, indent=2, allow_nan=False) + "\n"  # in ASCII: names of folders may be no Unicode
    waiting = folder / WAITING.format(checksum)
    needed = waiting.exists()  # by the previous artefact, of the same weights, whose writing was cut off
    try:
        write_atomically(waiting, weights)
        write_atomically(folder / MANIFEST, text.encode())
    except BaseException:
        if not needed:
            waiting.unlink(missing_ok=True)
        raise
    settle(folder)
    waiting.replace(folder / WEIGHTS)
    for left in folder.glob(WAITING.format("*")):
        left.unlink(missing_ok=True)


def digest(settings: Mapping[str, Any]) -> str:
    """SHA-256 of plain JSON values, however they are laid out in a file."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def settle(folder: Path) -> None:
    """Has the names in a folder on the disk, where the system can do that."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read_artefact(folder: Path, kind: str) -> Artefact:
    """Reads an artefact and checks it.

    Raises:
        DataNotFoundError: Where the folder has no prior.
        ForeignArtefactError: Where quickstudy did not write it, or it is of another kind.
        NewerArtefactError: Where a later format wrote it.
        DamagedArtefactError: Where a file is incomplete, altered or missing.
    """
    if not (folder / MANIFEST).is_file():
        raise DataNotFoundError(
            f"{folder} holds no prior: there is no {MANIFEST} in it. Name the folder given as --out."
        )
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
    except ValueError as error:
        raise DamagedArtefactError(
            f"{folder / MANIFEST} is not readable JSON ({error}). Save the prior again."
        ) from None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("quickstudy"), int):
        raise ForeignArtefactError(f"{folder / MANIFEST} was not written by quickstudy: it has no format number.")
    if manifest["quickstudy"] > FORMAT:
        raise NewerArtefactError(
            f"{folder} has format {manifest['quickstudy']}; this version reads up to {FORMAT}. Upgrade quickstudy."
        )
    if manifest.get("kind") != kind:
        raise ForeignArtefactError(f"{folder} holds a {manifest.get('kind')!r}; a {kind!r} was asked for.")
    settings = manifest.get("settings")
    if not isinstance(settings, dict):
        raise DamagedArtefactError(f"{folder / MANIFEST} has no settings. Copy the folder again.")
    if manifest.get("settings_sha256", told := digest(settings)) != told:  # which format 1 did not have at first
        raise DamagedArtefactError(
            f"the settings in {folder / MANIFEST} do not match their checksum. Copy the folder again, or train again."
        )
    weights = folder / WEIGHTS
    content = weights.read_bytes() if weights.is_file() else b""
    expected = manifest.get("weights_sha256")
    if hashlib.sha256(content).hexdigest() != expected and (waiting := folder / WAITING.format(expected)).is_file():
        content = waiting.read_bytes()
    if hashlib.sha256(content).hexdigest() != expected:
        state = f"{len(content)} bytes that do not match their checksum" if content else "missing"
        raise DamagedArtefactError(f"{weights} is {state}. Copy the folder again, or train again.")
    try:
        tensors = tensors_from_bytes(content)
    except SafetensorError as error:
        raise DamagedArtefactError(f"{weights} is not a safetensors file ({error}).") from None
    return Artefact(kind, settings, tensors)


def fill(module: nn.Module, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Gives a module its weights; those that do not fit are a damaged artefact."""
    try:
        module.load_state_dict(dict(tensors))
    except RuntimeError as error:
        why = " ".join(str(error).split())[:300]
        raise DamagedArtefactError(f"the weights in {folder} do not fit its settings: {why}") from None


def require(settings: Mapping[str, Any], folder: Path, read: Callable[[Mapping[str, Any]], Any]) -> Any:
    """`read(settings)`, where a missing or impossible value is a damaged artefact."""
    try:
        return read(settings)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError, ArchitectureError) as error:
        raise DamagedArtefactError(f"{folder / MANIFEST} lacks or misstates a setting: {error!r}.") from None
