"""Prototypical networks compute what their paper says."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from quickstudy import PrototypicalNetwork, Task
from quickstudy.errors import ShapeError
from quickstudy.learners.prototypical_network import spread
from quickstudy.testing.learners import answers, curve_tasks, picture_tasks, vector_tasks


def tasks_of(n_shot: int = 2, b: int = 3) -> Task:
    return vector_tasks(n_shot).sample(b, generator=torch.Generator().manual_seed(0))


def naive_prototypes(tasks: Task, i: int) -> Tensor:
    return torch.stack([tasks.support.x[i][tasks.support.y[i] == c].mean(0) for c in range(3)])


def test_probabilities_are_the_softmax_of_minus_squared_distances_to_class_means() -> None:
    tasks = tasks_of()
    found = PrototypicalNetwork(nn.Identity()).adapt(tasks)(tasks.query.x)
    for i in range(len(tasks)):
        distances = torch.cdist(tasks.query.x[i], naive_prototypes(tasks, i)).square()
        torch.testing.assert_close(found.probs[i], (-distances).softmax(-1))  # type: ignore[attr-defined]


def test_the_loss_is_the_cross_entropy_of_its_own_predictions() -> None:
    tasks = tasks_of()
    learner = PrototypicalNetwork(nn.Identity())
    expected = -learner.adapt(tasks)(tasks.query.x).log_prob(tasks.query.y).mean(1)
    torch.testing.assert_close(learner.loss(tasks), expected)


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_distances_are_in_full_precision_also_under_autocast(distance) -> None:
    learner = PrototypicalNetwork(nn.Identity(), distance=distance)
    tasks = tasks_of()
    with torch.no_grad():
        expected = learner.adapt(tasks)(tasks.query.x).probs
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(learner.adapt(tasks)(tasks.query.x).probs, expected)


def test_the_cosine_variant_is_the_softmax_of_cosines_over_its_temperature() -> None:
    tasks = tasks_of()
    found = PrototypicalNetwork(nn.Identity(), distance="cosine").adapt(tasks)(tasks.query.x)
    for i in range(len(tasks)):
        cosines = torch.cosine_similarity(tasks.query.x[i][:, None], naive_prototypes(tasks, i)[None], dim=-1)
        torch.testing.assert_close(found.probs[i], (cosines / 0.1).softmax(-1))  # type: ignore[attr-defined]


def test_pull_is_zero_where_prototypes_of_a_class_coincide() -> None:
    prototypes = torch.rand(1, 3, 4).expand(2, 3, 4)
    classes = torch.tensor([[0, 1, 2], [0, 1, 2]])
    torch.testing.assert_close(spread(prototypes, classes), torch.zeros(2))


def test_pull_is_zero_where_no_class_is_met_twice() -> None:
    torch.testing.assert_close(spread(torch.rand(2, 3, 4), torch.arange(6).view(2, 3)), torch.zeros(2))


def test_pull_is_the_mean_squared_distance_to_the_mean_prototype_of_the_class() -> None:
    prototypes = torch.tensor([[[0.0, 0.0], [1.0, 1.0]], [[2.0, 0.0], [5.0, 5.0]]])
    # Class 7 is met at (0, 0) and (2, 0), each at distance one from the mean; the other two are met once.
    torch.testing.assert_close(spread(prototypes, torch.tensor([[7, 1], [7, 2]])), torch.tensor([0.5, 0.5]))


def test_pull_draws_prototypes_of_a_class_together() -> None:
    prototypes = torch.tensor([[[0.0, 0.0]], [[2.0, 0.0]]], requires_grad=True)
    spread(prototypes, torch.tensor([[7], [7]])).sum().backward()
    assert prototypes.grad is not None
    moved = prototypes.detach() - 0.1 * prototypes.grad
    assert 0 < moved[0, 0, 0] < moved[1, 0, 0] < 2


def test_pull_adds_its_weight_times_the_spread_to_the_loss() -> None:
    tasks = tasks_of(b=8)
    plain, pulled = PrototypicalNetwork(nn.Identity()), PrototypicalNetwork(nn.Identity(), pull=0.3)
    prototypes = torch.stack([naive_prototypes(tasks, i) for i in range(8)])
    torch.testing.assert_close(pulled.loss(tasks), plain.loss(tasks) + 0.3 * spread(prototypes, tasks.classes))


def test_pull_refuses_tasks_that_do_not_say_which_classes_they_are_of() -> None:
    with pytest.raises(ShapeError, match=r"Task\.classes is None"):
        PrototypicalNetwork(nn.Identity(), pull=1.0).loss(replace(tasks_of(), classes=None))


def test_feature_maps_are_taken_as_vectors() -> None:
    tasks = picture_tasks(1).sample(2, generator=torch.Generator().manual_seed(0))
    maps, vectors = PrototypicalNetwork(nn.Identity()), PrototypicalNetwork(nn.Flatten())
    torch.testing.assert_close(
        maps.adapt(tasks)(tasks.query.x).probs,  # type: ignore[attr-defined]
        vectors.adapt(tasks)(tasks.query.x).probs,  # type: ignore[attr-defined]
    )


def test_a_regression_is_refused() -> None:
    with pytest.raises(ShapeError, match="regression"):
        PrototypicalNetwork(nn.Identity()).adapt(curve_tasks(1).sample(2, generator=torch.Generator()))


def test_a_class_without_examples_gets_no_probability_and_a_finite_loss() -> None:
    tasks = tasks_of()
    masked = replace(tasks, support=replace(tasks.support, mask=tasks.support.y != 1))
    for distance in ("euclidean", "cosine"):
        learner = PrototypicalNetwork(nn.Identity(), distance=distance)
        assert float(answers(learner, masked)[..., 1].max()) == 0
        assert bool(learner.loss(masked).isfinite().all())
