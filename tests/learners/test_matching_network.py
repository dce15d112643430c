"""Matching networks compute what their paper says."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from quickstudy import Task
from quickstudy.errors import ShapeError
from quickstudy.learners.matching_network import MatchingNetwork
from quickstudy.testing.learners import answers, curve_tasks, vector_tasks


def tasks_of(n_shot: int = 1) -> Task:
    return vector_tasks(n_shot).sample(3, generator=torch.Generator().manual_seed(0))


def in_context() -> MatchingNetwork:
    torch.manual_seed(0)
    return MatchingNetwork(nn.Identity(), context_steps=2, n_features=6)


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_with_one_shot_it_is_the_softmax_of_cosines(temperature: float) -> None:
    tasks = tasks_of()
    found = answers(MatchingNetwork(nn.Identity(), temperature=temperature), tasks)
    for i in range(len(tasks)):
        ordered = tasks.support.x[i][tasks.support.y[i].argsort()]
        cosines = torch.cosine_similarity(tasks.query.x[i][:, None], ordered[None], dim=-1)
        torch.testing.assert_close(found[i], (cosines / temperature).softmax(-1))


def test_with_more_shots_a_class_gets_the_attention_of_all_its_examples() -> None:
    tasks = tasks_of(3)
    found = answers(MatchingNetwork(nn.Identity(), temperature=1.0), tasks)
    for i in range(len(tasks)):
        cosines = torch.cosine_similarity(tasks.query.x[i][:, None], tasks.support.x[i][None], dim=-1)
        attention = cosines.softmax(-1)
        expected = torch.stack([attention[:, tasks.support.y[i] == c].sum(-1) for c in range(3)], -1)
        torch.testing.assert_close(found[i], expected)


def test_the_loss_is_the_cross_entropy_of_its_own_predictions() -> None:
    tasks = tasks_of(2)
    for learner in (MatchingNetwork(nn.Identity()), in_context()):
        expected = -learner.adapt(tasks)(tasks.query.x).log_prob(tasks.query.y).mean(1)
        torch.testing.assert_close(learner.loss(tasks), expected)


def test_a_class_without_examples_gets_no_probability_and_a_finite_loss() -> None:
    tasks = tasks_of(2)
    masked = replace(tasks, support=replace(tasks.support, mask=tasks.support.y != 1))
    learner = MatchingNetwork(nn.Identity())
    assert float(answers(learner, masked)[..., 1].max()) == 0
    assert bool(learner.loss(masked).isfinite().all())


def test_in_context_the_order_of_the_support_set_matters_as_its_documentation_says() -> None:
    tasks = tasks_of(2)
    turned = replace(tasks, support=tasks.support.map(lambda value: value.flip(1)))
    # Turned round, the two directions of the recurrent network change places, and they have different weights.
    assert not torch.allclose(answers(in_context(), turned), answers(in_context(), tasks), atol=1e-6)


def test_context_needs_the_size_of_an_embedding() -> None:
    with pytest.raises(ShapeError, match="n_features"):
        MatchingNetwork(nn.Identity(), context_steps=5)


def test_a_regression_is_refused() -> None:
    with pytest.raises(ShapeError, match="regression"):
        MatchingNetwork(nn.Identity()).adapt(curve_tasks(1).sample(2, generator=torch.Generator()))
