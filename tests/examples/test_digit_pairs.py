import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from torch import Generator

from quickstudy import LabelledSet

pytest.importorskip("sklearn", reason="the example uses scikit-learn's digits")
SCRIPT = Path(__file__).parents[2] / "examples" / "digit_pairs.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("digit_pairs", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["digit_pairs"] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules["digit_pairs"]


def numbered(n: int = 40) -> torch.Tensor:
    """Pictures of two pixels: which digit, and which picture of it."""
    digit, picture = torch.meshgrid(torch.arange(10), torch.arange(n), indexing="ij")
    return torch.stack([digit, picture], -1).float()


def test_new_pairs_are_not_trained_on_and_new_digits_in_no_pair_that_is(example):
    for known, new in example.SPLITS.values():
        assert not set(known) & set(new)
    known, new = example.SPLITS["new pairs of new digits, 6 to 9"]
    assert not {d for pair in known for d in pair} & {d for pair in new for d in pair}


@pytest.mark.parametrize("ordered", [False, True])
def test_a_task_is_a_pair_and_no_picture_is_in_it_twice(example, ordered):
    source = example.Pairs(numbered(), [(2, 7), (1, 4)], n_shot=3, ordered=ordered)
    tasks = source.sample(200, generator=Generator().manual_seed(0))
    x, y = tasks.everything.x, tasks.everything.y
    assert x.shape == (200, 2 * 18, 2)
    assert torch.equal(tasks.support.y.sum(1), torch.full((200,), 3))
    larger_is_1 = 0
    for pictures, labels in zip(x, y):
        zero, one = (pictures[labels == k, 0].unique().tolist() for k in (0, 1))
        assert (min(zero[0], one[0]), max(zero[0], one[0])) in source.pairs
        assert len(zero) == len(one) == 1
        assert len(pictures.unique(dim=0)) == len(pictures)
        larger_is_1 += one > zero
    assert larger_is_1 == 200 if ordered else 60 < larger_is_1 < 140


def accuracies(example, iterations):
    return example.compare(
        example.load("digits"),
        "new pairs of known digits",
        ordered=False,
        n_shot=1,
        steps=1,
        iterations=iterations,
        seed=0,
    )


def test_the_same_seed_gives_the_same_figures(example):
    assert accuracies(example, 3) == accuracies(example, 3)


def test_meta_learning_helps_with_new_pairs(example):
    new = {name: on_new for name, (_, on_new) in accuracies(example, 150).items()}
    assert new["random weights"] + 2 < new["MAML"]
    assert new["zero"] + 1 < new["Meta-SGD"]


def test_mnist_is_that_of_the_library_in_as_many_pictures_of_each_digit(example, monkeypatch):
    y = torch.arange(10).repeat(3)
    data = LabelledSet(y.to(torch.uint8)[:, None, None, None].expand(-1, 1, 4, 4), y, tuple("0123456789"))
    monkeypatch.setattr(example, "load_named", {"mnist": (data, None)}.__getitem__)
    assert torch.equal(example.load("mnist"), torch.arange(10)[:, None, None].expand(10, 3, 16) / 255)


@pytest.mark.parametrize("n_shot", [0, 26])
def test_no_pictures_and_more_than_there_are_are_refused(example, n_shot):
    with pytest.raises(SystemExit, match=f"{n_shot} support pictures of each digit: take 1 to 25"):
        example.Pairs(numbered(40), [(0, 1)], n_shot, ordered=True)
