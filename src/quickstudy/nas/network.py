"""Networks that a search found, saved with all that is needed to use them again."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from quickstudy.artefacts import Artefact, fill, read_artefact, require, write_artefact
from quickstudy.errors import ArchitectureError, DamagedArtefactError, ShapeError
from quickstudy.nas.architecture import Architecture
from quickstudy.nas.build import build
from quickstudy.nas.standardise import standardised
from quickstudy.nas.tiny import Tiny

KIND = "network"


@dataclass(frozen=True)
class Network:
    """A trained member of Tiny."""

    space: Tiny
    architecture: Architecture
    module: nn.Sequential
    """`(n, *shape)` float32 to logits `(n, classes)`. It standardises its inputs itself."""
    class_names: tuple[str, ...]
    """In the order of the logits."""
    inputs: Mapping[str, Any] = field(default_factory=dict)
    """How an input is made of what a user has, in plain values."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Accuracies, settings and versions, in plain values."""


def save_network(path: Path | str, network: Network) -> None:
    """Saves a network as a folder with `prior.json` and `weights.safetensors`.

    Raises:
        ShapeError: Where there are more or fewer names than classes.

    Example:
        >>> import tempfile
        >>> from quickstudy import Network, save_network
        >>> from quickstudy.nas.build import build
        >>> from quickstudy.nas.tiny import Tiny
        >>> space = Tiny(shape=(1, 8, 8), n_classes=2)
        >>> a = space.architecture(("none", "none", "none", "conv3", "none", "none", 4, 1, 1, "stride1", "avg", "mean"))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_network(folder, Network(space, a, build(space, a), ("cat", "dog")))
    """
    if len(network.class_names) != network.space.n_classes:
        raise ShapeError(f"{len(network.class_names)} names were given for {network.space.n_classes} classes.")
    settings = {
        "architecture": str(network.architecture),
        "shape": list(network.space.shape),
        "class_names": list(network.class_names),
        "inputs": dict(network.inputs),
        "training": dict(network.training),
    }
    write_artefact(Path(path), Artefact(KIND, settings, network.module.state_dict()))


def load_network(path: Path | str) -> Network:
    """Loads a network, in evaluation mode, on the CPU.

    Raises:
        ArtefactError: Where it is damaged, foreign or newer; nothing is changed then.
        DataNotFoundError: Where the folder holds none.

    Example:
        >>> import tempfile, torch
        >>> from quickstudy import Network, load_network, save_network
        >>> from quickstudy.nas.build import build
        >>> from quickstudy.nas.standardise import standardised
        >>> from quickstudy.nas.tiny import Tiny
        >>> space = Tiny(shape=(1, 8, 8), n_classes=2)
        >>> a = space.sample(generator=torch.Generator().manual_seed(0))
        >>> module = standardised(build(space, a), torch.rand(5, 1, 8, 8))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_network(folder, Network(space, a, module, ("cat", "dog")))
        ...     load_network(folder).class_names
        ('cat', 'dog')
    """
    folder = Path(path)
    artefact = read_artefact(folder, KIND)

    def read(settings: Mapping[str, Any]) -> tuple[Tiny, tuple[str, ...], str, dict[str, Any], dict[str, Any]]:
        names = tuple(map(str, settings["class_names"]))
        space = Tiny(shape=tuple(map(int, settings["shape"])), n_classes=len(names))
        return space, names, settings["architecture"], dict(settings["inputs"]), dict(settings["training"])

    space, names, text, inputs, training = require(artefact.settings, folder, read)
    try:
        architecture = space.parse(text)
        module = standardised(build(space, architecture), torch.zeros(2, *space.shape))
    except ArchitectureError as error:
        raise DamagedArtefactError(f"{folder} lacks or misstates a setting: {error}") from None
    fill(module, artefact.tensors, folder)
    return Network(space, architecture, module.eval(), names, inputs, training)
