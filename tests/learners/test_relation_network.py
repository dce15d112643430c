"""Relation networks compute what their paper says."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy import Task
from quickstudy.errors import ShapeError
from quickstudy.learners.relation_network import RelationNetwork
from quickstudy.nets.relation_module import relation_nets
from quickstudy.testing.learners import answers, picture_tasks


class MinusDistance(nn.Module):
    """A relation without parameters."""

    def forward(self, classes: Tensor, queries: Tensor) -> Tensor:
        return 1 - torch.cdist(queries.flatten(2), classes.flatten(2))


def tasks_of(n_shot: int = 2) -> Task:
    return picture_tasks(n_shot).sample(2, generator=torch.Generator().manual_seed(0))


def scores_of(tasks: Task) -> Tensor:
    scores = []
    for i in range(len(tasks)):
        means = torch.stack([tasks.support.x[i][tasks.support.y[i] == c].mean(0) for c in range(3)])
        scores.append((1 - torch.cdist(tasks.query.x[i].flatten(1), means.flatten(1))).sigmoid())
    return torch.stack(scores)


def test_the_loss_is_the_squared_error_of_sigmoid_scores() -> None:
    tasks = tasks_of()
    expected = (scores_of(tasks) - F.one_hot(tasks.query.y, 3)).square().sum(-1).mean(1)
    torch.testing.assert_close(RelationNetwork(nn.Identity(), MinusDistance()).loss(tasks), expected)


def test_probabilities_are_the_normalised_scores() -> None:
    tasks = tasks_of()
    scores = scores_of(tasks)
    torch.testing.assert_close(
        answers(RelationNetwork(nn.Identity(), MinusDistance()), tasks), scores / scores.sum(-1, keepdim=True)
    )


def test_a_larger_picture_is_taken() -> None:
    net, relation = relation_nets(3, 4, size=32)
    support, query = net(torch.rand(10, 3, 32, 32)), net(torch.rand(6, 3, 32, 32))
    assert relation(support.view(2, 5, 4, 8, 8), query.view(2, 3, 4, 8, 8)).shape == (2, 3, 5)


def test_a_picture_too_small_to_compare_is_refused() -> None:
    with pytest.raises(ShapeError, match="3x3"):
        relation_nets(1, 4, size=12)


def test_a_class_without_examples_gets_no_probability_and_is_compared_with_no_query() -> None:
    tasks = tasks_of()
    masked = replace(tasks, support=replace(tasks.support, mask=tasks.support.y != 1))
    learner = RelationNetwork(nn.Identity(), MinusDistance())
    assert float(answers(learner, masked)[..., 1].max()) == 0
    gaps = (scores_of(tasks) - F.one_hot(tasks.query.y, 3)).square()
    torch.testing.assert_close(learner.loss(masked), gaps[..., [0, 2]].sum(-1).mean(1))
