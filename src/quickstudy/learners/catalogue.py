"""The learners and networks by name, for whoever has only a name: saved priors and the command line."""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from torch import nn

from quickstudy.errors import ShapeError
from quickstudy.learners.anil import ANIL
from quickstudy.learners.boundary import PLAIN
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
from quickstudy.nets.choices import check_choices
from quickstudy.nets.conv4 import Conv4
from quickstudy.nets.relation_module import relation_nets
from quickstudy.nets.resnet12 import ResNet12

Options = Mapping[str, Any]
"""Keyword arguments in plain JSON values."""

NETS: dict[str, type[nn.Module]] = {"conv4": Conv4, "resnet12": ResNet12}
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

    @property
    def all_options(self) -> dict[str, Any]:
        """Of the learner, with those that it has unless told otherwise, as far as they are plain values."""
        entry = LEARNERS[self.learner]
        defaults = {name: each.default for name, each in inspect.signature(entry.kind).parameters.items()}
        plain = {name: value for name, value in defaults.items() if isinstance(value, PLAIN)}
        return {**plain, **entry.options, **self.options}

    @property
    def transductive(self) -> bool:
        """Whether what it says of a query depends on the others that are asked about."""
        return self.options.get("statistics") == "transductive"

    def build(self, net: nn.Module | None = None) -> Learner:
        """The learner, freshly initialised from torch's global random state.

        Args:
            net: The user's own network: whole where the learner ends in one output a class, else, and for `anil`, which
                adds its own last layer, an embedding.

        Raises:
            ShapeError: Where a name is unknown, an option does not exist or cannot have its value, or a network is
                needed and not given.
        """
        if self.learner not in LEARNERS:
            raise ShapeError(f"there is no learner {self.learner!r}; there are {', '.join(LEARNERS)}.")
        entry = LEARNERS[self.learner]
        check_options(self.learner, entry.kind, self.options)
        options = {**entry.options, **self.options}
        if net is None:
            return entry.build(self, options)
        if entry.wrap is None:
            raise ShapeError(
                f"{self.learner} is not made of one network: construct {entry.kind.__name__} yourself, and have its "
                "weights loaded with load(path, learner=...)."
            )
        return entry.wrap(self, net, options)

    def body(self) -> nn.Module:
        """The network that embeds an input."""
        if self.net is None:
            raise ShapeError("this prior was trained with a network of your own: load(path, net=...).")
        if self.net not in NETS:
            raise ShapeError(f"there is no network {self.net!r}; there are {', '.join(NETS)}.")
        check_options(self.net, NETS[self.net], self.net_options)
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
    kind: type[Learner]
    """Its class."""
    build: Callable[[Recipe, Options], Learner]
    """Makes it with a network by name."""
    wrap: Callable[[Recipe, nn.Module, Options], Learner] | None
    """Makes it of the user's own network; None where it needs more than one, or none."""
    options: Options = field(default_factory=dict)
    """What it is constructed with unless told otherwise."""
    trained: bool = True
    """Whether there is anything to meta-train."""
    any_way: bool = False
    """Whether it tells any number of classes apart, not only as many as in meta-training."""


def check_options(name: str, kind: type, options: Options) -> None:
    """Raises ShapeError where an option of a learner or network does not exist, or cannot have its value."""
    hints = get_type_hints(kind.__init__)  # type: ignore[misc]
    known = {option: hints[option] for option in inspect.signature(kind).parameters if _is_plain(hints[option])}
    for option, value in options.items():
        if option not in known or option in ("channels", "n_features"):  # those that the recipe itself gives
            names = ", ".join(name for name in known if name not in ("channels", "n_features", "n_classes"))
            raise ShapeError(f"{name} has no option {option!r}; it has {names or 'none'}.")
        check_choices(name, kind.__init__, {option: value})  # type: ignore[misc]
        if not _fits(value, known[option]):
            raise ShapeError(f"{option} is {value!r}, but for {name} it is {' or '.join(_types(known[option]))}.")
        if isinstance(value, int | float) and not math.isfinite(value):
            raise ShapeError(f"{option} is {value}, but for {name} it is a finite number.")
        if option in AT_LEAST and value is not None and value < AT_LEAST[option]:
            raise ShapeError(f"{option} is {value}, but for {name} it is at least {AT_LEAST[option]}.")
        if option in ABOVE_0 and value is not None and value <= 0:
            raise ShapeError(f"{option} is {value}, but for {name} it is above 0.")
    for option, parameter in inspect.signature(kind).parameters.items():
        needed = parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty
        if needed and option in known and option != "n_features" and option not in options:
            raise ShapeError(f"{name} needs {option}: give it among the options, such as options={{{option!r}: 64}}.")


AT_LEAST = {"k": 1, "n_classes": 1, "pull": 0}
"""The least that some options can be, whosesoever they are."""
ABOVE_0 = {"lr", "rates_lr", "body_lr", "temperature", "scale", "memory_budget"}
_PLAIN = (bool, int, float, str)


def _kinds(hint: Any) -> list[Any]:
    """Those of the types that a hint allows whose values can be written in a file."""
    return [kind for kind in get_args(hint) or [hint] if kind in (*_PLAIN, NoneType)]


def _is_plain(hint: Any) -> bool:
    """Whether there is a value, other than none, that can be written in a file."""
    return get_origin(hint) is Literal or any(kind in _PLAIN for kind in _kinds(hint))


def _types(hint: Any) -> list[str]:
    return ["none" if kind is NoneType else f"of type {kind.__name__}" for kind in _kinds(hint)]


def _fits(value: Any, hint: Any) -> bool:
    kinds = _kinds(hint)
    return get_origin(hint) is Literal or type(value) in kinds or (type(value) is int and float in kinds)


def n_features(body: nn.Module, shape: tuple[int, ...]) -> int:
    """Features that `body` makes of one input of this shape.

    Raises:
        ShapeError: Where it cannot take one.
    """
    training = body.training
    try:
        with torch.no_grad():
            return int(body.eval()(torch.zeros(1, *shape)).flatten(1).shape[1])
    except (RuntimeError, ValueError, IndexError) as error:
        why = " ".join(str(error).split())[:300].rstrip(".")
        raise ShapeError(f"{type(body).__name__} cannot take an input of {shape}: {why}.") from error
    finally:
        body.train(training)


def _embedding(
    make: Callable[[Recipe, nn.Module, Options], Learner], kind: type[Learner], summary: str, *, any_way: bool = True
) -> Entry:
    return Entry(summary, kind, lambda recipe, options: make(recipe, recipe.body(), options), make, any_way=any_way)


def _classifier(kind: type[Learner], summary: str, **options: Any) -> Entry:
    def wrap(recipe: Recipe, net: nn.Module, given: Options) -> Learner:
        learner: Learner = kind(net, **given)
        return learner

    return Entry(summary, kind, lambda recipe, given: wrap(recipe, recipe.classifier(), given), wrap, options)


def _prototypical_network(recipe: Recipe, net: nn.Module, options: Options) -> Learner:
    return PrototypicalNetwork(net, **options)


def _matching_network(recipe: Recipe, net: nn.Module, options: Options) -> Learner:
    size = n_features(net, recipe.shape) if options.get("context_steps") else None
    return MatchingNetwork(net, n_features=size, **options)


def _anil(recipe: Recipe, body: nn.Module, options: Options) -> Learner:
    return ANIL(body, nn.Linear(n_features(body, recipe.shape), recipe.n_way), **options)


def _relation_network(recipe: Recipe, options: Options) -> Learner:
    if recipe.net != "conv4" or recipe.net_options.keys() - {"width"}:
        given = "".join(f", {name}={value!r}" for name, value in recipe.net_options.items())
        raise ShapeError(
            f"relation_network is made of the paper's own conv4, of which only the width can be set; got {recipe.net}"
            f"{given}. Construct RelationNetwork yourself for another network."
        )
    check_options("conv4", Conv4, recipe.net_options)
    width = recipe.net_options.get("width", 64)
    return RelationNetwork(*relation_nets(recipe.shape[0], width, size=recipe.shape[-1]), **options)


def _fine_tune(recipe: Recipe, body: nn.Module, options: Options) -> Learner:
    return FineTune(body, n_features=n_features(body, recipe.shape), **options)


def _from_scratch(recipe: Recipe, options: Options) -> Learner:
    return FromScratch(recipe.classifier, **options)


LEARNERS: dict[str, Entry] = {
    "maml": _classifier(MAML, "an initialisation that a few gradient steps adapt"),
    "fomaml": _classifier(MAML, "the same with first-order meta-gradients", order=1),
    "reptile": _classifier(Reptile, "an initialisation that moves towards each task's solution"),
    "anil": _embedding(_anil, ANIL, "MAML in which only the last layer adapts", any_way=False),
    "meta_sgd": _classifier(MetaSGD, "MAML with a learned rate for every weight"),
    "maml_plus_plus": _classifier(MAMLPlusPlus, "MAML with a loss at every step and learned rates"),
    "prototypical_network": _embedding(
        _prototypical_network, PrototypicalNetwork, "distance to the mean embedding of each class"
    ),
    "matching_network": _embedding(_matching_network, MatchingNetwork, "attention over the support set by cosine"),
    "relation_network": Entry(
        "a learned comparison with each class", RelationNetwork, _relation_network, None, any_way=True
    ),
    "fine_tune": _embedding(_fine_tune, FineTune, "a body trained on all classes, then a new last layer for each task"),
    "from_scratch": Entry("a new network for every task", FromScratch, _from_scratch, None, trained=False),
    "nearest_neighbour": Entry(
        "the label of the nearest picture",
        NearestNeighbour,
        lambda _, options: NearestNeighbour(**options),
        None,
        trained=False,
        any_way=True,
    ),
}
"""In the order of the documentation."""
