"""What a learner is constructed with is told in its docstring, once, and is what it may be."""

import inspect
import re
from typing import Literal

import pytest
import torch
from torch import nn

from quickstudy import MAML, Conv4, Examples, PrototypicalNetwork, Reptile, Task
from quickstudy.errors import ShapeError
from quickstudy.learners.catalogue import LEARNERS
from quickstudy.learners.maml_plus_plus import MAMLPlusPlus

KINDS = sorted({entry.kind for entry in LEARNERS.values()}, key=lambda kind: kind.__name__)


def own_arguments(kind: type) -> dict[str, str]:
    """What the section on arguments says of each."""
    section = re.search(r"^Args:\n(.*?)(?=^\S|\Z)", inspect.getdoc(kind) or "", re.DOTALL | re.MULTILINE)
    found = re.findall(r"^    (\w+): (.*?)(?=^    \w+: |\Z)", section[1] if section else "", re.DOTALL | re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_argument_is_explained_or_said_to_be_that_of_maml(kind):
    shared = re.search(r"^(`net`|`lr`).*?those\s+of\s+`MAML`", inspect.getdoc(kind) or "", re.DOTALL | re.MULTILINE)
    named = set(re.findall(r"`(\w+)`", shared[0])) - {"MAML"} if shared else set()
    explained = own_arguments(kind).keys()
    assert explained | named == inspect.signature(kind).parameters.keys()
    assert not explained & named
    assert named <= own_arguments(LEARNERS["maml"].kind).keys()


def test_nothing_is_explained_twice_in_the_same_words():
    names = ("maml", "meta_sgd", "reptile", "anil", "maml_plus_plus")
    told = [text for name in names for text in own_arguments(LEARNERS[name].kind).values()]
    assert len(told) == len(set(told))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: MAML(nn.Linear(6, 3), order=3), "order is 3, but for MAML it is 1 or 2."),
        (
            lambda: Reptile(nn.Linear(6, 3), statistics="transductve"),
            "statistics is 'transductve', but for Reptile it is 'support' or 'transductive'.",
        ),
        (
            lambda: PrototypicalNetwork(nn.Linear(6, 3), distance="cosin"),
            "distance is 'cosin', but for PrototypicalNetwork it is 'euclidean' or 'cosine'.",
        ),
        (lambda: MAML(nn.Linear(6, 3), steps=-1), "steps is -1, but for MAML it is at least 0."),
        (lambda: MAML(nn.Linear(6, 3), adapt_steps=-1), "adapt_steps is -1, but for MAML it is at least 0."),
        (lambda: MAMLPlusPlus(nn.Linear(6, 3), multi_step=5.0), "multi_step is 5.0, but it is the part"),
        (lambda: MAMLPlusPlus(nn.Linear(6, 3), steps=0, adapt_steps=2), "adapt_steps is 2, and without steps"),
        (lambda: Reptile(nn.Linear(6, 3), moves=lambda name: False), "moves holds for none"),
        (lambda: Conv4(downsample="strid"), "downsample is 'strid', but for Conv4 it is 'pool' or 'stride'."),
    ],
)
def test_an_option_that_is_none_of_its_choices_is_refused(make, told):
    with pytest.raises(ShapeError, match=re.escape(told)):
        make()


def test_so_it_is_in_a_learner_of_the_users_own():
    class Mine(PrototypicalNetwork):
        def __init__(self, *, weighting: Literal["even", "uneven"] = "even") -> None:
            super().__init__(nn.Linear(6, 3))

    assert Mine(weighting="uneven").distance == "euclidean"
    with pytest.raises(ShapeError, match="weighting is 'evn', but for Mine it is 'even' or 'uneven'"):
        Mine(weighting="evn")


def test_a_network_that_looks_words_up_is_told_from_one_of_another_type():
    learner = PrototypicalNetwork(nn.Sequential(nn.Embedding(5, 4), nn.Flatten()))
    words, labels = torch.tensor([[[0, 1], [2, 3]]]), torch.tensor([[0, 1]])
    assert learner.adapt(Task(Examples(words, labels), Examples(words, labels), 2))(words).probs.shape == (1, 2, 2)
    beyond = Task(Examples(words + 9, labels), Examples(words, labels), 2)
    with pytest.raises(IndexError):
        learner.adapt(beyond)
    with pytest.raises(ShapeError, match=r"inputs are torch\.int64, and this .* computes in torch\.float32"):
        PrototypicalNetwork(nn.Linear(2, 3)).adapt(beyond)
