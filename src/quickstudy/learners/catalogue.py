"""The learners and networks by name, for whoever has only a name: the command line and saved priors."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from quickstudy.errors import ShapeError
from quickstudy.learners.learner import Learner
from quickstudy.learners.maml import MAML
from quickstudy.learners.prototypical_network import PrototypicalNetwork
from quickstudy.learners.reptile import Reptile
from quickstudy.nets.conv4 import Conv4

Options = Mapping[str, Any]
"""Keyword arguments in plain JSON values."""

NETS: dict[str, Callable[..., nn.Module]] = {"conv4": Conv4}
"""Networks that embed a picture, made from `channels` and options of their own."""


@dataclass(frozen=True)
class Recipe:
    """How a learner is constructed, in plain values."""

    learner: str
    """A name in `LEARNERS`."""
    net: str | None
    """A name in `NETS`; None for the user's own network, which is given again on loading."""
    shape: tuple[int, ...]
    """Of one input, such as (1, 28, 28)."""
    n_way: int
    """Classes of the tasks in meta-training, which is the most that a learner with one output a class can tell."""
    options: Options = field(default_factory=dict)
    """Of the learner."""
    net_options: Options = field(default_factory=dict)
    """Of the network."""

    def build(self, net: nn.Module | None = None) -> Learner:
        """The learner, freshly initialised from torch's global random state.

        Args:
            net: The user's own network, whole: with a classifier for the gradient learners.

        Raises:
            ShapeError: Where a name is unknown, or a network is needed and not given.
        """
        if self.learner not in LEARNERS:
            raise ShapeError(f"there is no learner {self.learner!r}; there are {', '.join(LEARNERS)}.")
        entry = LEARNERS[self.learner]
        if net is not None:
            return entry.wrap(net, **self.options)
        if self.net not in NETS:
            known = ", ".join(NETS)
            raise ShapeError(
                "this prior was trained with a network of your own: load(path, net=...)."
                if self.net is None
                else f"there is no network {self.net!r}; there are {known}."
            )
        body = NETS[self.net](channels=self.shape[0], **self.net_options)
        return entry.build(body, self)

    def to_settings(self) -> dict[str, Any]:
        return {**asdict(self), "shape": list(self.shape)}

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "Recipe":
        return cls(**{**settings, "shape": tuple(settings["shape"])})


@dataclass(frozen=True)
class Entry:
    """What the command line knows about a learner."""

    summary: str
    """One line of help."""
    wrap: Callable[..., Learner]
    """Makes it of a whole network and options."""
    classifies: bool
    """Whether its network ends in one output a class, so that the number of classes is fixed in meta-training."""
    options: Options = field(default_factory=dict)
    """What it is constructed with unless told otherwise."""
    tasks_per_step: int = 4
    lr: float | None = None
    """Outer rate; None is the learner's own default."""

    def build(self, body: nn.Module, recipe: Recipe) -> Learner:
        """Makes it of a network that embeds a picture."""
        options = {**self.options, **recipe.options}
        if not self.classifies:
            return self.wrap(body, **options)
        return self.wrap(nn.Sequential(body, nn.Linear(n_features(body, recipe.shape), recipe.n_way)), **options)


def n_features(body: nn.Module, shape: tuple[int, ...]) -> int:
    """Features that `body` makes of one input of this shape."""
    training = body.training
    with torch.no_grad():
        features = body.eval()(torch.zeros(1, *shape)).shape[1]
    body.train(training)
    return int(features)


LEARNERS: dict[str, Entry] = {
    "prototypical_network": Entry("distance to the mean embedding of each class", PrototypicalNetwork, False),
    "maml": Entry("an initialisation that a few gradient steps adapt", MAML, True, {"lr": 0.4}),
    "reptile": Entry("an initialisation moved towards each task's solution", Reptile, True, {"lr": 0.1}),
}
"""In the order of the documentation."""
