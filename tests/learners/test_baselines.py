"""Nearest neighbour, training from scratch and fine-tuning are what their names say."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from quickstudy import MLP, Conv4, Episodes, Examples, LabelledSet, Task, evaluate
from quickstudy.errors import ShapeError, TaskError
from quickstudy.learners.fine_tune import FineTune
from quickstudy.learners.from_scratch import FromScratch
from quickstudy.learners.nearest_neighbour import NearestNeighbour
from quickstudy.testing.learners import (
    N_CLASSES,
    answers,
    curve_tasks,
    double,
    picture_tasks,
    seeded,
    vector_tasks,
)


def tasks_of(n_shot: int = 2, b: int = 3) -> Task:
    return vector_tasks(n_shot).sample(b, generator=torch.Generator().manual_seed(0))


def easy_tasks(n_shot: int) -> Episodes:
    """Classes so far apart that nobody should miss them."""
    y = torch.arange(N_CLASSES).repeat(8)
    noise = 0.1 * torch.randn(len(y), 6, generator=torch.Generator().manual_seed(0))
    return Episodes(LabelledSet(torch.eye(6)[y] * 3 + noise, y, tuple("abcdef")), n_way=3, n_shot=n_shot, n_query=3)


# Nearest neighbour


def test_the_nearest_neighbour_is_that_of_brute_force() -> None:
    tasks = picture_tasks(4).sample(3, generator=torch.Generator().manual_seed(0))
    found = answers(NearestNeighbour(), tasks).argmax(-1)
    for i in range(len(tasks)):
        for j in range(tasks.query.n):
            gaps = [(tasks.query.x[i, j] - x).square().sum().item() for x in tasks.support.x[i]]
            assert found[i, j] == tasks.support.y[i, gaps.index(min(gaps))]


def test_each_of_several_neighbours_has_a_vote_and_no_class_has_none() -> None:
    support = Examples(torch.tensor([[[0.0], [1.0], [2.0], [9.0]]]), torch.tensor([[0, 1, 1, 2]]))
    task = Task(support, Examples(torch.tensor([[[0.4]]]), torch.tensor([[1]])), 3)
    torch.testing.assert_close(answers(NearestNeighbour(k=3), task), torch.tensor([[[2 / 6, 3 / 6, 1 / 6]]]))


def test_more_neighbours_than_examples_are_all_of_them() -> None:
    tasks = tasks_of()
    torch.testing.assert_close(
        answers(NearestNeighbour(k=99), tasks), answers(NearestNeighbour(k=tasks.support.n), tasks)
    )


def test_masked_examples_are_nobodys_neighbours_even_where_too_few_are_left() -> None:
    support = Examples(torch.tensor([[[0.0], [5.0]]]), torch.tensor([[0, 1]]), mask=torch.tensor([[False, True]]))
    task = Task(support, Examples(torch.tensor([[[0.1]]]), torch.tensor([[0]])), 2)
    torch.testing.assert_close(answers(NearestNeighbour(k=2), task), torch.tensor([[[1 / 3, 2 / 3]]]))


def test_pictures_in_bytes_are_compared_as_numbers() -> None:
    x = torch.tensor([[[250], [3]]], dtype=torch.uint8)
    task = Task(Examples(x, torch.tensor([[0, 1]])), Examples(x + 2, torch.tensor([[0, 1]])), 2)
    assert answers(NearestNeighbour(), task).argmax(-1).tolist() == [[0, 1]]


def test_in_a_regression_neighbours_are_averaged() -> None:
    support = Examples(torch.tensor([[[0.0], [1.0], [7.0]]]), torch.tensor([[[2.0], [4.0], [9.0]]]))
    task = Task(support, Examples(torch.tensor([[[0.4]]]), torch.tensor([[[0.0]]])), None)
    torch.testing.assert_close(answers(NearestNeighbour(k=2), task), torch.tensor([[[3.0]]]))


# Training from scratch


def test_training_from_scratch_learns_its_support_set() -> None:
    learner = FromScratch(lambda: MLP(6, 3), lr=1e-2, steps=60)
    assert evaluate(learner, easy_tasks(3), tasks=8).mean > 95


def test_each_task_has_an_initialisation_of_its_own() -> None:
    tasks = tasks_of(b=1).map(lambda value: value.expand(2, *value.shape[1:]))
    found = answers(FromScratch(lambda: MLP(6, 3), steps=1), tasks)
    assert not torch.allclose(found[0], found[1])


def test_without_steps_it_is_the_initialisation_that_the_seed_gives() -> None:
    tasks, made = tasks_of(b=1), []

    def make() -> nn.Module:
        made.append(MLP(6, 3))
        return made[-1]

    found = answers(FromScratch(make, steps=0), tasks)
    torch.testing.assert_close(found[0], made[0](tasks.query.x[0]).softmax(-1))
    answers(FromScratch(make, steps=0), tasks)
    torch.testing.assert_close(list(made[0].parameters()), list(made[1].parameters()))


def test_its_steps_are_those_of_adam_on_the_mean_loss() -> None:
    tasks, start = tasks_of(b=1), MLP(6, 3)
    net = MLP(6, 3)
    net.load_state_dict(start.state_dict())

    def make() -> nn.Module:
        copy = MLP(6, 3)
        copy.load_state_dict(start.state_dict())
        return copy

    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(5):
        optimizer.zero_grad()
        F.cross_entropy(net(tasks.support.x[0]), tasks.support.y[0]).backward()
        optimizer.step()
    found = answers(FromScratch(make, lr=0.01, steps=5), tasks)
    torch.testing.assert_close(found[0], net(tasks.query.x[0]).softmax(-1).detach())


# Fine-tuning


def test_pretraining_classifies_the_classes_of_the_data_set() -> None:
    tasks = tasks_of()
    learner = FineTune(nn.Identity(), n_features=6, n_classes=N_CLASSES)
    examples = tasks.everything
    assert tasks.classes is not None
    expected = []
    for i in range(len(tasks)):
        labels = torch.stack([tasks.classes[i][y] for y in examples.y[i]])
        expected.append(F.cross_entropy(learner.classifier(examples.x[i]), labels))
    torch.testing.assert_close(learner.loss(tasks), torch.stack(expected))


def test_pretraining_lowers_its_loss() -> None:
    torch.manual_seed(0)
    learner, source = FineTune(MLP(6, 8), n_features=8, n_classes=N_CLASSES), easy_tasks(2)
    optimizer, generator, losses = learner.optimizer(0.01), seeded(), []
    for _ in range(60):
        optimizer.zero_grad()
        loss = learner.loss(source.sample(4, generator=generator)).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


def test_the_linear_head_is_the_minimum_of_the_regularised_loss() -> None:
    tasks = tasks_of().map(double)
    learner = FineTune(nn.Identity(), n_features=6, n_classes=2, steps=1000, weight_decay=0.1)
    weight, bias = (value.requires_grad_() for value in learner.fit_head(tasks.support.x, tasks.support, 3))
    logits = tasks.support.x @ weight.mT + bias[:, None]
    nll = F.cross_entropy(logits.flatten(0, 1), tasks.support.y.flatten(), reduction="sum") / tasks.support.n
    for gradient in torch.autograd.grad(nll + 0.05 * weight.square().sum(), (weight, bias)):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-6)


def test_the_cosine_head_begins_at_class_means_and_lowers_its_loss() -> None:
    tasks, losses = tasks_of(3), []
    for steps in (0, 5, 100):
        learner = FineTune(nn.Identity(), n_features=6, n_classes=2, classifier="cosine", steps=steps)
        weight, bias = learner.fit_head(tasks.support.x, tasks.support, 3)
        logits = learner.logits(tasks.support.x, weight, bias)
        losses.append(F.cross_entropy(logits.flatten(0, 1), tasks.support.y.flatten()).item())
        if steps == 0:
            directions = F.normalize(tasks.support.x[0], dim=-1)
            mean = directions[tasks.support.y[0] == 1].mean(0)
            torch.testing.assert_close(weight[0, 1], F.normalize(mean, dim=-1))
    assert losses == sorted(losses, reverse=True)


def test_the_size_of_features_does_not_upset_the_head() -> None:
    for scale in (1e-2, 1.0, 1e3):
        tasks = (
            easy_tasks(2)
            .sample(4, generator=seeded())
            .map(
                lambda v, scale=scale: v * scale if v.is_floating_point() else v  # type: ignore[misc]
            )
        )
        found = answers(FineTune(nn.Identity(), n_features=6, n_classes=2, weight_decay=0.0), tasks)
        assert bool((found.argmax(-1) == tasks.query.y).all())


@pytest.mark.parametrize("settings", [{}, {"classifier": "cosine"}, {"body_steps": 10}])
def test_a_fine_tuned_learner_learns_its_support_set(settings: dict[str, object]) -> None:
    torch.manual_seed(0)
    learner = FineTune(MLP(6, 8), n_features=8, n_classes=2, **settings)  # type: ignore[arg-type]
    assert evaluate(learner, easy_tasks(3), tasks=8).mean > 90


def test_tuning_the_body_leaves_the_pretrained_one_alone_and_changes_answers() -> None:
    torch.manual_seed(0)
    net = Conv4(1, 4)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    tasks = picture_tasks(2).sample(2, generator=seeded())
    frozen = answers(FineTune(net, n_features=4, n_classes=2), tasks)
    tuned = answers(FineTune(net, n_features=4, n_classes=2, body_steps=5), tasks)
    assert not torch.allclose(frozen, tuned)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_tasks_that_do_not_fit_are_refused() -> None:
    tasks = tasks_of()
    learner = FineTune(nn.Identity(), n_features=6, n_classes=N_CLASSES)
    with pytest.raises(TaskError, match=r"Task\.classes is None"):
        learner.loss(replace(tasks, classes=None))
    with pytest.raises(TaskError, match="n_classes=2"):
        FineTune(nn.Identity(), n_features=6, n_classes=2).loss(tasks)
    with pytest.raises(ShapeError, match="n_features=6"):
        FineTune(nn.Identity(), n_features=7, n_classes=2).adapt(tasks)
    with pytest.raises(ShapeError, match="regression"):
        learner.adapt(curve_tasks(1).sample(2, generator=seeded()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_have_neighbours(dtype):
    x = torch.tensor([[[0.0], [1.0]]], dtype=dtype)
    task = Task(Examples(x, torch.tensor([[0, 1]])), Examples(x, torch.tensor([[0, 1]])), 2)
    assert NearestNeighbour().adapt(task)(x).probs.argmax(-1).tolist() == [[0, 1]]
