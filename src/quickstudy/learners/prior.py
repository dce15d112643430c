"""Priors: meta-trained learners with all that is needed to use them again."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from quickstudy.artefacts import Artefact, read_artefact, require, write_artefact
from quickstudy.errors import DamagedArtefactError
from quickstudy.learners.catalogue import Recipe
from quickstudy.learners.learner import Learner

KIND = "learner"


@dataclass(frozen=True)
class Prior:
    """A meta-trained learner, how it was made, and what it was made for."""

    learner: Learner
    recipe: Recipe
    encoder: Mapping[str, Any] = field(default_factory=dict)
    """How a user's data is turned into its inputs, in plain values."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """The source, the settings, the result on validation and the versions, in plain values."""


def save(path: Path | str, prior: Prior) -> None:
    """Saves a prior as a folder with `prior.json` and `weights.safetensors`.

    Example:
        >>> import tempfile
        >>> from quickstudy import Prior, Recipe, load, save
        >>> recipe = Recipe("prototypical_network", "conv4", shape=(1, 28, 28), n_way=5, net_options={"width": 8})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(folder, Prior(recipe.build(), recipe))
        ...     type(load(folder).learner).__name__
        'PrototypicalNetwork'
    """
    settings = {"recipe": prior.recipe.to_settings(), "encoder": prior.encoder, "training": prior.training}
    write_artefact(Path(path), Artefact(KIND, settings, prior.learner.state_dict()))


def load(path: Path | str, *, net: nn.Module | None = None) -> Prior:
    """Loads a prior, in evaluation mode, on the CPU.

    Args:
        path: The folder.
        net: The network it was trained with, where that was the user's own.

    Raises:
        ArtefactError: Where it is damaged, foreign or newer; nothing is changed then.
        DataNotFoundError: Where the folder holds no prior.
        ShapeError: Where it needs a network of the user's own.

    Example:
        >>> import tempfile
        >>> from quickstudy import MLP, Prior, Recipe, load, save
        >>> recipe = Recipe("maml", None, shape=(8,), n_way=5)  # None: the network is our own
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(folder, Prior(recipe.build(MLP(8, 5)), recipe))
        ...     load(folder, net=MLP(8, 5)).recipe.learner
        'maml'
    """
    folder = Path(path)
    artefact = read_artefact(folder, KIND)
    recipe: Recipe = require(artefact.settings, folder, lambda settings: Recipe.from_settings(settings["recipe"]))
    learner: Learner = require(artefact.settings, folder, lambda settings: recipe.build(net))
    try:
        learner.load_state_dict(dict(artefact.tensors))
    except RuntimeError as error:
        why = " ".join(str(error).split())[:300]
        raise DamagedArtefactError(f"the weights in {folder} do not fit its settings: {why}") from None
    encoder: dict[str, Any] = require(artefact.settings, folder, lambda settings: dict(settings.get("encoder", {})))
    training: dict[str, Any] = require(artefact.settings, folder, lambda settings: dict(settings.get("training", {})))
    return Prior(learner.eval(), recipe, encoder, training)
