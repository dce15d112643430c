"""The learners and networks by name, for whoever has only a name: saved priors and the command line."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from quickstudy.errors import ShapeError
from quickstudy.learners.anil import ANIL
from quickstudy.learners.fine_tune import FineTune
from quickstudy.learners.from_scratch import FromScratch
from quickstudy.learners.learner import Learner
from quickstudy.learners.maml import MAML
from quickstudy.learners.maml_plus_plus import MAMLPlusPlus
from quickstudy.learners.matching_network import MatchingNetwork
from quickstudy.learners.meta_sgd import MetaSGD
from quickstudy.learners.nearest_neighbour import NearestNeighbour
from quickstudy.learners.prototypical_network import PrototypicalNetwork
from quickstudy.learners.relation_network import RelationNetwork
from quickstudy.learners.reptile import Reptile
from quickstudy.nets.conv4 import Conv4
from quickstudy.nets.relation_module import relation_nets
from quickstudy.nets.resnet12 import ResNet12

Options = Mapping[str, Any]
"""Keyword arguments in plain JSON values."""

NETS: dict[str, Callable[..., nn.Module]] = {"conv4": Conv4, "resnet12": ResNet12}
"""Networks that embed a picture, made from `channels` and options of their own."""


@dataclass(frozen=True)
class Recipe:
    """How a learner is constructed, in plain values.

    Example:
        >>> from quickstudy import Recipe
        >>> type(Recipe("maml", "conv4", shape=(1, 28, 28), n_way=5).build()).__name__
        'MAML'
    """

    learner: str
    """A name in `LEARNERS`."""
    net: str | None
    """A name in `NETS`; None for the user's own network, which is given again on loading."""
    shape: tuple[int, ...]
    """Of one input, such as (1, 28, 28)."""
    n_way: int
    """Classes of a task in meta-training: the most that a network with one output a class can tell apart."""
    options: Options = field(default_factory=dict)
    """Of the learner."""
    net_options: Options = field(default_factory=dict)
    """Of the network."""

    def build(self, net: nn.Module | None = None) -> Learner:
        """The learner, freshly initialised from torch's global random state.

        Args:
            net: The user's own network: whole where the learner ends in one output a class, else an embedding.

        Raises:
            ShapeError: Where a name is unknown, or a network is needed and not given.
        """
        if self.learner not in LEARNERS:
            raise ShapeError(f"there is no learner {self.learner!r}; there are {', '.join(LEARNERS)}.")
        entry = LEARNERS[self.learner]
        options = {**entry.options, **self.options}
        return entry.wrap(net, **options) if net is not None and entry.wrap else entry.build(self, options)

    def body(self) -> nn.Module:
        """The network that embeds an input."""
        if self.net is None:
            raise ShapeError("this prior was trained with a network of your own: load(path, net=...).")
        if self.net not in NETS:
            raise ShapeError(f"there is no network {self.net!r}; there are {', '.join(NETS)}.")
        return NETS[self.net](channels=self.shape[0], **self.net_options)

    def classifier(self) -> nn.Module:
        """The same with a linear layer of one output a class."""
        body = self.body()
        return nn.Sequential(body, nn.Linear(n_features(body, self.shape), self.n_way))

    def to_settings(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "shape": list(self.shape)}

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "Recipe":
        """The recipe that `to_settings` wrote."""
        return cls(**{**settings, "shape": tuple(settings["shape"])})


@dataclass(frozen=True)
class Entry:
    """What is known of a learner by name."""

    summary: str
    """A line of help."""
    build: Callable[[Recipe, Options], Learner]
    """Makes it with a network by name."""
    wrap: Callable[..., Learner] | None
    """Makes it of a network; None where it needs more than one, or none."""
    options: Options = field(default_factory=dict)
    """What it is constructed with unless told otherwise."""
    trained: bool = True
    """Whether there is anything to meta-train."""


def n_features(body: nn.Module, shape: tuple[int, ...]) -> int:
    """Features that `body` makes of one input of this shape."""
    training = body.training
    with torch.no_grad():
        features = body.eval()(torch.zeros(1, *shape)).flatten(1).shape[1]
    body.train(training)
    return int(features)


def _embedding(wrap: Callable[..., Learner], summary: str, **options: Any) -> Entry:
    return Entry(summary, lambda recipe, given: wrap(recipe.body(), **given), wrap, options)


def _classifier(wrap: Callable[..., Learner], summary: str, **options: Any) -> Entry:
    return Entry(summary, lambda recipe, given: wrap(recipe.classifier(), **given), wrap, options)


def _anil(recipe: Recipe, options: Options) -> Learner:
    body = recipe.body()
    return ANIL(body, nn.Linear(n_features(body, recipe.shape), recipe.n_way), **options)


def _relation_network(recipe: Recipe, options: Options) -> Learner:
    width = recipe.net_options.get("width", 64)
    return RelationNetwork(*relation_nets(recipe.shape[0], width, size=recipe.shape[-1]), **options)


def _fine_tune(recipe: Recipe, options: Options) -> Learner:
    body = recipe.body()
    return FineTune(body, n_features=n_features(body, recipe.shape), **options)


def _from_scratch(recipe: Recipe, options: Options) -> Learner:
    return FromScratch(recipe.classifier, **options)


LEARNERS: dict[str, Entry] = {
    "maml": _classifier(MAML, "an initialisation that a few gradient steps adapt"),
    "fomaml": _classifier(MAML, "the same with first-order meta-gradients", order=1),
    "reptile": _classifier(Reptile, "an initialisation that moves towards each task's solution"),
    "anil": Entry("MAML in which only the last layer adapts", _anil, None),
    "meta_sgd": _classifier(MetaSGD, "MAML with a learned rate for every weight"),
    "maml_plus_plus": _classifier(MAMLPlusPlus, "MAML with a loss at every step and learned rates"),
    "prototypical_network": _embedding(PrototypicalNetwork, "distance to the mean embedding of each class"),
    "matching_network": _embedding(MatchingNetwork, "attention over the support set by cosine"),
    "relation_network": Entry("a learned comparison with each class", _relation_network, None),
    "fine_tune": Entry("a body trained on all classes, then a new last layer for each task", _fine_tune, None),
    "from_scratch": Entry("a new network for every task", _from_scratch, None, trained=False),
    "nearest_neighbour": Entry(
        "the label of the nearest picture", lambda _, o: NearestNeighbour(**o), None, trained=False
    ),
}
"""In the order of the documentation."""
