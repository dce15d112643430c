"""Priors: meta-trained learners with all that is needed to use them again."""

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from quickstudy.artefacts import Artefact, fill, read_artefact, require, write_artefact
from quickstudy.errors import DamagedArtefactError, ShapeError
from quickstudy.learners.catalogue import LEARNERS, Recipe
from quickstudy.learners.learner import HOW, Learner
from quickstudy.priors import shipped, shipped_names

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

    Functions that the learner was constructed with, such as MAML's `adapts`, no file can hold: a learner that has some
    is saved, and constructed and given again on loading.

    Raises:
        ShapeError: Where the recipe makes another learner than this one, or one with other options in plain values.

    Example:
        >>> import tempfile
        >>> from quickstudy import Prior, Recipe, load, save
        >>> recipe = Recipe("prototypical_network", "conv4", shape=(1, 28, 28), n_way=5, net_options={"width": 8})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(folder, Prior(recipe.build(), recipe))
        ...     type(load(folder).learner).__name__
        'PrototypicalNetwork'
    """
    check_recipe(prior)
    settings: dict[str, Any] = {
        "recipe": prior.recipe.to_settings(),
        "functions": list(prior.learner.functions),
        "encoder": prior.encoder,
        "training": prior.training,
    }
    write_artefact(Path(path), Artefact(KIND, settings, prior.learner.state_dict()))


def check_recipe(prior: Prior) -> None:
    """Raises ShapeError where the recipe makes another learner, or weights of other shapes or types."""
    recipe, learner = prior.recipe, prior.learner
    if recipe.learner not in LEARNERS:
        raise ShapeError(f"there is no learner {recipe.learner!r}; there are {', '.join(LEARNERS)}.")
    kind = LEARNERS[recipe.learner].kind
    if type(learner) is not kind:
        raise ShapeError(
            f"the recipe makes a {kind.__name__}, and the learner is a {type(learner).__name__}: "
            "save it with the recipe that made it."
        )
    made = recipe.all_options
    for name in sorted(learner.options.keys() & made.keys() - {*HOW, "n_features"}):
        if learner.options[name] != made[name]:
            raise ShapeError(
                f"the recipe makes a {kind.__name__} with {name}={made[name]!r}, and the learner has "
                f"{name}={learner.options[name]!r}: save it with the recipe that made it."
            )
    if recipe.net is None:
        return  # the network is the user's own, and given again on loading
    with torch.random.fork_rng(devices=[]):  # making a learner draws weights, and saving must not
        expected = {name: shape_of(value) for name, value in recipe.build().state_dict().items()}
    found = {name: shape_of(value) for name, value in learner.state_dict().items()}
    if strange := sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)):
        name = strange[0]
        raise ShapeError(
            f"the recipe makes {name} of {expected.get(name)}, and the learner has {found.get(name)}: "
            "save it with the recipe that made it, options of the network included."
        )


def shape_of(value: Tensor) -> str:
    """Shape and type, in words."""
    return f"shape {tuple(value.shape)} in {str(value.dtype).removeprefix('torch.')}"


def provenance() -> dict[str, Any]:
    """Versions, the commit where this is a checkout, and the date, for `Prior.training`."""
    versions = {"quickstudy": version("quickstudy"), "torch": torch.__version__}
    return {"versions": versions, "commit": commit(), "date": datetime.now(UTC).date().isoformat()}


def commit() -> str | None:
    """The commit of the checkout that this file lies in; None where it was installed otherwise."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists() or not (root / "src" / "quickstudy").is_dir():
        return None  # a repository that an installed package happens to lie in is another one
    try:
        asked = ["git", "-C", str(root), "rev-parse", "HEAD"]
        return subprocess.run(asked, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def load(path: Path | str, *, net: nn.Module | None = None, learner: Learner | None = None) -> Prior:
    """Loads a prior, in evaluation mode.

    Args:
        path: The folder, or the name of a prior that comes with quickstudy, where there is no folder of that name.
        net: The network it was trained with, where that was the user's own.
        learner: Constructed as the one that was saved; it is given its weights. For those that have functions, or
            several networks of the user's own.

    Raises:
        ArtefactError: Where it is damaged, foreign or newer; nothing is changed then.
        DataNotFoundError: Where the folder holds no prior.
        ShapeError: Where it needs a network or functions of the user's own, or the learner given is constructed
            otherwise.

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
    if not folder.exists() and str(path) in shipped_names():
        folder = shipped(str(path))
    artefact = read_artefact(folder, KIND)
    recipe: Recipe = require(artefact.settings, folder, lambda settings: Recipe.from_settings(settings["recipe"]))
    if net is not None and learner is not None:
        raise ShapeError("a network and a learner were given: the learner has its own. Leave the network out.")
    given = learner
    functions: list[str] = require(artefact.settings, folder, lambda settings: list(settings.get("functions", ())))
    try:
        if learner is None and not functions:
            learner = require(artefact.settings, folder, lambda settings: recipe.build(net))
        elif recipe.net is not None:  # to see whether it can be made at all
            require(artefact.settings, folder, lambda settings: recipe.build())
    except ShapeError as error:
        if recipe.net is None:
            raise  # the network is the user's own
        raise DamagedArtefactError(f"{folder} lacks or misstates a setting: {error}") from None
    if given is not None:
        check_recipe(Prior(given, recipe))
    known = "functions" in artefact.settings  # which earlier versions did not say
    if learner is None or (known and sorted(learner.functions) != sorted(functions)):
        found = "none" if learner is None else ", ".join(learner.functions) or "none"
        raise ShapeError(
            f"the learner in {folder} was constructed with {', '.join(functions) or 'no functions'}, and this one with "
            f"{found}: construct it as it was, and load(path, learner=...)."
        )
    fill(learner, artefact.tensors, folder)
    encoder: dict[str, Any] = require(artefact.settings, folder, lambda settings: dict(settings.get("encoder", {})))
    training: dict[str, Any] = require(artefact.settings, folder, lambda settings: dict(settings.get("training", {})))
    return Prior(learner.eval(), recipe, encoder, training)
