"""AEN learns to rank architectures over tasks."""

from collections.abc import Sequence

import pytest
import torch
from scipy.stats import kendalltau
from torch import Generator

from quickstudy.errors import ArchitectureError, ShapeError
from quickstudy.nas.aen import AEN, Prior, expected, learn
from quickstudy.nas.architecture import Architecture
from quickstudy.nas.facts import log_costs
from quickstudy.nas.nasbench201 import NASBench201
from quickstudy.nas.source import Rows, normal_scores
from quickstudy.nas.space import Space
from quickstudy.nas.tiny import Tiny

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
        Prior(SPACE, members=1, width=16), {"a": convolutions(cells(80, 0)), "b": convolutions(cells(80, 1), 9)}
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


def edges(space: Space, architectures: Sequence[Architecture]) -> torch.Tensor:
    """A fact in a unit of its own: a hundred for each edge that is not empty."""
    return torch.tensor([[100.0 * sum(v != "none" for _, v in a.choices)] for a in architectures])


def test_proxies_and_tasks_are_learned_from_and_searched_with() -> None:
    """Outcomes rise with the edges on one task and fall with them on the other: the embedding tells which it is."""
    torch.manual_seed(0)
    up, down = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    members = cells(60, 0)
    many = edges(SPACE, members)[:, 0]
    prior = learn(
        Prior(SPACE, members=1, width=16, facts=edges, task=2, proxies=1),
        {"up": Rows(members, many, up), "down": Rows(members, -many, down, edges(SPACE, members))},
        epochs=100,
        lr=1e-2,
    )
    unseen = cells(100, 1)
    truth = edges(SPACE, unseen)[:, 0]
    assert kendalltau(expected(prior, unseen, up).mean, truth).statistic > 0.7
    assert kendalltau(expected(prior, unseen, down).mean, truth).statistic < -0.7
    given = expected(prior, unseen, up, proxies=edges(SPACE, unseen)).mean
    torch.testing.assert_close(given, expected(prior, unseen, up, space=SPACE).mean)


def test_the_unit_of_a_proxy_does_not_matter() -> None:
    def taught(scale: float) -> torch.Tensor:
        torch.manual_seed(0)
        rows = convolutions(members)
        known = Rows(members, rows.values, proxies=scale * edges(SPACE, members))
        prior = learn(Prior(SPACE, members=1, width=8, proxies=1), {"a": known}, epochs=5)
        return expected(prior, unseen, proxies=scale * edges(SPACE, unseen)).mean

    members, unseen = cells(20, 0), cells(5, 1)
    torch.testing.assert_close(taught(1.0), taught(1e3))


def test_noise_on_embeddings_comes_from_the_generator() -> None:
    def taught(seed: int) -> torch.Tensor:
        torch.manual_seed(0)
        known = Rows(members, convolutions(members).values, torch.ones(2))
        prior = Prior(SPACE, members=1, width=8, task=2)
        learn(prior, {"a": known}, epochs=3, jitter=0.5, generator=Generator().manual_seed(seed))
        return expected(prior, members, torch.ones(2)).mean

    members = cells(20, 0)
    assert torch.equal(taught(1), taught(1))
    assert not torch.equal(taught(1), taught(2))


def test_rows_of_a_space_of_their_own_are_encoded_in_it() -> None:
    """Members of Tiny have other sizes for other inputs."""
    torch.manual_seed(0)
    small, large = (Tiny(shape=(1, side, side), n_classes=3) for side in (8, 28))
    members = tuple(small.sample(generator=Generator().manual_seed(i)) for i in range(8))
    rows = Rows(members, log_costs(large, members)[:, 0], space=large)
    prior = learn(Prior(small, members=1, width=8, facts=log_costs, proxies=3), {"a": rows}, epochs=2)
    torch.testing.assert_close(prior.centre, log_costs(large, members).mean(0).float())
    here, there = (expected(prior, members, space=space).mean for space in (small, large))
    assert not torch.allclose(here, there)
    assert torch.equal(here, expected(prior, members).mean)


def test_costs_of_a_space_without_inputs_are_refused() -> None:
    with pytest.raises(ArchitectureError, match="nasbench201/1 does not say"):
        log_costs(SPACE, cells(1, 0))


def test_dropout_is_for_learning_and_follows_from_the_seed() -> None:
    some = cells(12, 0)
    rows = {"one": Rows(some, torch.arange(12.0).double())}
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        prior = Prior(SPACE, members=1, width=8, dropout=0.5)
        before = torch.get_rng_state()
        found.append(learn(prior, rows, epochs=3, generator=Generator().manual_seed(0)))
        assert torch.equal(torch.get_rng_state(), before)
        torch.rand(3)  # whatever else is drawn between the two
    first, second = (expected(one, some).mean for one in found)
    assert torch.equal(first, second)
    assert torch.equal(first, expected(found[0], some).mean)
    encoded = SPACE.encode(some)
    found[0].train()
    assert not torch.equal(found[0](encoded).mean, found[0](encoded).mean)
