"""AEN learns to rank architectures over tasks."""

import pytest
import torch
from scipy.stats import kendalltau
from torch import Generator

from quickstudy.errors import ShapeError
from quickstudy.nas.aen import AEN, Prior, expected, learn
from quickstudy.nas.architecture import Architecture
from quickstudy.nas.nasbench201 import NASBench201
from quickstudy.nas.source import Rows, normal_scores

SPACE = NASBench201()


def cells(n: int, seed: int) -> tuple[Architecture, ...]:
    generator = Generator().manual_seed(seed)
    return tuple(SPACE.sample(generator=generator) for _ in range(n))


def convolutions(architectures: tuple[Architecture, ...], scale: float = 1.0) -> Rows:
    """An outcome that a graph tells: the number of 3x3 convolutions that matter, and half as much for 1x1."""
    worth = {"nor_conv_3x3": 1.0, "nor_conv_1x1": 0.5}

    def value(a: Architecture) -> float:
        return scale * sum(worth.get(node.operation, 0) for node in SPACE.graph(a).nodes)

    return Rows(architectures, torch.tensor([*map(value, architectures)]))


def test_what_was_learned_on_two_tasks_ranks_architectures_that_were_not_seen() -> None:
    torch.manual_seed(0)
    prior = learn(
        Prior(SPACE, members=2, width=16), {"a": convolutions(cells(80, 0)), "b": convolutions(cells(80, 1), 9)}
    )
    unseen = convolutions(cells(100, 2))
    assert kendalltau(expected(prior, unseen.architectures).mean, unseen.values).statistic > 0.8


def test_learning_again_gives_the_same_prior() -> None:
    def once() -> torch.Tensor:
        torch.manual_seed(0)
        prior = learn(Prior(SPACE, members=1, width=8), {"a": convolutions(cells(20, 0))}, epochs=3)
        return expected(prior, cells(5, 1)).mean

    assert torch.equal(once(), once())


def test_scores_depend_on_ranks_alone_and_ties_share_theirs() -> None:
    values = torch.tensor([3.0, 1.0, 2.0, 2.0])
    torch.testing.assert_close(normal_scores(values), normal_scores(values.exp()))
    assert normal_scores(values)[2] == normal_scores(values)[3] == 0


def test_the_loss_prefers_the_right_order() -> None:
    torch.manual_seed(0)
    aen, encoded = AEN(len(SPACE.vocabulary), width=8), SPACE.encode(cells(10, 0))
    own = aen(encoded).mean.detach()
    assert aen.loss(encoded, own) < aen.loss(encoded, -own)


def test_a_task_or_proxies_that_it_was_not_made_for_are_named() -> None:
    aen, encoded = AEN(len(SPACE.vocabulary), task=4, width=8), SPACE.encode(cells(2, 0))
    assert aen(encoded, torch.rand(4)).mean.shape == (2,)
    with pytest.raises(ShapeError, match=r"task has the shape None, and this AEN was made for 4"):
        aen(encoded)
    with pytest.raises(ShapeError, match=r"proxies has the shape \(2, 3\), and this AEN was made for 0"):
        aen(encoded, torch.rand(4), torch.rand(2, 3))


def test_a_task_of_one_outcome_teaches_nothing_and_is_named() -> None:
    with pytest.raises(ShapeError, match="lonely"):
        learn(Prior(SPACE, members=1, width=8), {"lonely": convolutions(cells(1, 0))})


def test_the_prior_is_less_sure_than_its_members_where_they_disagree() -> None:
    torch.manual_seed(0)
    prior, encoded = Prior(SPACE, members=3, width=8), SPACE.encode(cells(5, 0))
    members = torch.stack([member(encoded).variance for member in prior.members]).mean(0)
    assert (prior(encoded).variance > members).all()
