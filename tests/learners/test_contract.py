"""Every learner of this project keeps the contract: a new one is one more entry."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy import MAML, MLP, Conv4, Learner, PrototypicalNetwork, Reptile, ResNet12
from quickstudy.learners.anil import ANIL
from quickstudy.learners.fine_tune import FineTune
from quickstudy.learners.from_scratch import FromScratch
from quickstudy.learners.maml_plus_plus import MAMLPlusPlus
from quickstudy.learners.matching_network import MatchingNetwork
from quickstudy.learners.meta_sgd import MetaSGD
from quickstudy.learners.nearest_neighbour import NearestNeighbour
from quickstudy.learners.relation_network import RelationNetwork
from quickstudy.nets.conv4 import Block, FirstBlock
from quickstudy.nets.relation_module import relation_nets
from quickstudy.testing.learners import (
    N_CLASSES,
    N_WAY,
    Case,
    LearnerContract,
    curve_tasks,
    picture_tasks,
    vector_tasks,
)

WIDTH = 4


class Stranger(nn.Module):
    """A network as users write them: torch's own batch normalisation, of vectors."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(F.elu(self.norm(self.first(x))))
        return out


class Remembering(nn.Module):
    """A network with buffers of its own: it subtracts a running mean, and counts its calls."""

    mean: Tensor
    calls: Tensor

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.last = nn.Linear(6, outputs)
        self.register_buffer("mean", torch.full((6,), 0.5))
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("latest", None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        out: Tensor = self.last(x - self.mean)
        if self.training:
            self.latest = x.detach()[0]
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        return out


def convolutions() -> nn.Module:
    """Half of a Conv4, with a block of each kind."""
    first, later = FirstBlock(1, WIDTH, strided=False), Block(WIDTH, WIDTH, strided=False)
    return nn.Sequential(first, later, nn.Flatten(), nn.Linear(16 * WIDTH, N_WAY))


def classifiers(name: str, make: Callable[[nn.Module], Learner]) -> list[Case]:
    """A learner of networks that have an output a class."""
    return [
        Case(f"{name}, mlp", lambda: make(MLP(6, N_WAY, hidden=(5,))), vector_tasks),
        Case(f"{name}, batch norm 1d", lambda: make(Stranger(N_WAY)), vector_tasks),
        Case(f"{name}, buffers", lambda: make(Remembering(N_WAY)), vector_tasks),
        Case(f"{name}, convolutions", lambda: make(convolutions()), picture_tasks),
        Case(f"{name}, regression", lambda: make(MLP(1, 1, hidden=(5,))), curve_tasks),
    ]


def embedders(name: str, make: Callable[[nn.Module], Learner], *, ordered: bool = False) -> list[Case]:
    """A learner of networks that embed, in four dimensions."""
    return [
        Case(f"{name}, mlp", lambda: make(MLP(6, WIDTH, hidden=(5,))), vector_tasks, ordered=ordered),
        Case(f"{name}, batch norm 1d", lambda: make(Stranger(WIDTH)), vector_tasks, ordered=ordered),
        Case(f"{name}, buffers", lambda: make(Remembering(WIDTH)), vector_tasks, ordered=ordered),
        Case(f"{name}, conv4", lambda: make(Conv4(1, WIDTH)), picture_tasks, ordered=ordered),
    ]


def from_scratch(make: Callable[[], nn.Module]) -> Callable[[], Learner]:
    return lambda: FromScratch(make, steps=3)


def of_batch_norm(kind: Callable[..., Learner]) -> Learner:
    return kind(convolutions(), steps=2, statistics="transductive")


CASES = [
    *classifiers("maml", lambda net: MAML(net, lr=0.1, steps=2)),
    *classifiers("maml in a loop", lambda net: MAML(net, lr=0.1, steps=2, batching="loop"))[2:4],
    *classifiers("first-order maml", lambda net: MAML(net, lr=0.1, steps=2, order=1))[1:3],
    *classifiers("maml in little memory", lambda net: MAML(net, lr=0.1, steps=2, low_memory=True))[1:2],
    *classifiers("maml of a part", lambda net: MAML(net, lr=0.1, adapts=lambda name: name.startswith("last")))[1:2],
    Case("anil, mlp", lambda: ANIL(MLP(6, 5, hidden=(5,)), nn.Linear(5, N_WAY), steps=2), vector_tasks),
    Case("anil, batch norm 1d", lambda: ANIL(Stranger(WIDTH), nn.Linear(WIDTH, N_WAY), steps=2), vector_tasks),
    Case("anil, buffers", lambda: ANIL(Remembering(6), Remembering(N_WAY), steps=2), vector_tasks),
    Case("anil, conv4", lambda: ANIL(Conv4(1, WIDTH), nn.Linear(WIDTH, N_WAY), steps=2), picture_tasks),
    Case("anil, regression", lambda: ANIL(MLP(1, 5, hidden=(5,)), nn.Linear(5, 1), steps=2), curve_tasks),
    *classifiers("meta-sgd", lambda net: MetaSGD(net)),
    *classifiers("maml++", lambda net: MAMLPlusPlus(net, steps=2)),
    *classifiers("maml++, running", lambda net: MAMLPlusPlus(net, steps=2, statistics="running"))[1:2],
    *classifiers("reptile", lambda net: Reptile(net, lr=0.1, steps=2)),
    *classifiers("reptile of a part", lambda net: Reptile(net, steps=2, moves=lambda name: name.startswith("last")))[
        1:2
    ],
    *embedders("prototypical network", PrototypicalNetwork),
    *embedders("prototypical network, cosine", lambda net: PrototypicalNetwork(net, distance="cosine"))[:2],
    Case("prototypes drawn together", lambda: PrototypicalNetwork(Stranger(4), pull=1.0), vector_tasks, compares=True),
    Case("prototypical network, resnet12", lambda: PrototypicalNetwork(ResNet12(1, (2, 3))), picture_tasks),
    *embedders("matching network", MatchingNetwork),
    *embedders(
        "matching network in context",
        lambda net: MatchingNetwork(net, context_steps=2, n_features=WIDTH),
        ordered=True,
    ),
    Case("relation network", lambda: RelationNetwork(*relation_nets(1, WIDTH, size=16)), picture_tasks),
    *embedders("fine-tuned head", lambda net: FineTune(net, n_features=WIDTH, n_classes=N_CLASSES, steps=5)),
    *embedders(
        "fine-tuned cosine head",
        lambda net: FineTune(net, n_features=WIDTH, n_classes=N_CLASSES, steps=5, classifier="cosine"),
    )[:2],
    *embedders(
        "fine-tuned body",
        lambda net: FineTune(net, n_features=WIDTH, n_classes=N_CLASSES, steps=5, body_steps=3),
    )[1:],
    Case("from scratch, mlp", from_scratch(lambda: MLP(6, N_WAY, hidden=(5,))), vector_tasks),
    Case("from scratch, batch norm 1d", from_scratch(lambda: Stranger(N_WAY)), vector_tasks),
    Case("from scratch, buffers", from_scratch(lambda: Remembering(N_WAY)), vector_tasks),
    Case("from scratch, convolutions", from_scratch(convolutions), picture_tasks),
    Case("from scratch, regression", from_scratch(lambda: MLP(1, 1, hidden=(5,))), curve_tasks),
    Case("nearest neighbour", NearestNeighbour, picture_tasks),
    Case("three nearest neighbours", lambda: NearestNeighbour(k=3), vector_tasks),
    Case("nearest neighbour, regression", NearestNeighbour, curve_tasks),
    *(
        Case(f"transductive {name}", partial(of_batch_norm, kind), picture_tasks, transductive=True)
        for name, kind in (("maml", MAML), ("meta-sgd", MetaSGD), ("maml++", MAMLPlusPlus), ("reptile", Reptile))
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
class TestEveryLearner(LearnerContract):
    pass
