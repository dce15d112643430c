"""What a learner is constructed with is told in its docstring, and what several share is told once."""

import inspect
import re

import pytest

from quickstudy.learners.catalogue import LEARNERS

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
