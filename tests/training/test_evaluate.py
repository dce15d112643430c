import math

import pytest
import torch
from torch import nn
from torch.distributions import Categorical, Independent, Normal

from quickstudy import (
    MAML,
    MLP,
    Episodes,
    Examples,
    LabelledSet,
    Mixture,
    PrototypicalNetwork,
    Sinusoid,
    Task,
    evaluate,
)
from quickstudy.errors import DivergedError, ShapeError, TaskError
from quickstudy.learners.learner import Learner
from quickstudy.training.evaluate import Evaluation, judge

DATA = LabelledSet(
    torch.randn(40, 6, generator=torch.Generator().manual_seed(0)), torch.arange(5).repeat(8), tuple("abcde")
)
SOURCE = Episodes(DATA, n_way=3, n_query=4)


class Says(Learner):
    """Answers what its inputs say: class or value x."""

    def adapt(self, task, *, generator=None):
        if task.n_way is None:
            return lambda x: Independent(Normal(x, torch.ones_like(x)), 1)
        return lambda x: Categorical(logits=10 * torch.nn.functional.one_hot(x[..., 0].long(), task.n_way).float())

    def loss(self, tasks, *, generator=None):
        raise NotImplementedError


def task(x, y, n_way, mask=None):
    query = Examples(torch.tensor(x)[..., None].float(), torch.tensor(y), mask)
    return Task(Examples(query.x[:, :0], query.y[:, :0]), query, n_way)


def test_accuracy_is_the_per_cent_of_queries_named_rightly():
    tasks = task([[0, 1, 2, 0], [1, 1, 1, 1]], [[0, 1, 1, 1], [1, 1, 1, 1]], 3)
    assert judge(Says(), tasks).tolist() == [50, 100]


def test_masked_queries_do_not_count():
    mask = torch.tensor([[True, True, False, False]])
    assert judge(Says(), task([[0, 1, 2, 0]], [[0, 1, 1, 1]], 3, mask)).tolist() == [100]


def test_transductive_queries_are_answered_without_those_that_are_masked_out():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 9, 4, generator=generator), torch.arange(3).repeat(2, 3)
    support, mask = Examples(x[:, :3], y[:, :3]), torch.tensor([[True] * 4 + [False] * 2, [True] * 6])
    net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    learner = MAML(net, statistics="transductive").eval()
    found = []
    for filling in (0.0, 50.0):
        inputs = torch.where(mask[..., None], x[:, 3:], filling)
        found.append(judge(learner, Task(support, Examples(inputs, y[:, 3:], mask), 3)))
    alone = Task(Examples(x[:1, :3], y[:1, :3]), Examples(x[:1, 3:7], y[:1, 3:7]), 3)
    assert torch.equal(found[0], found[1])
    assert found[0][0] == judge(learner, alone)[0]


def test_a_task_without_real_queries_has_nothing_right():
    assert judge(Says(), task([[0, 1]], [[0, 1]], 3, torch.zeros(1, 2, dtype=torch.bool))).tolist() == [0]


def test_the_tasks_of_a_mixture_come_one_by_one_from_its_members():
    members = [Episodes(DATA, n_way=n, n_query=4) for n in (2, 3)]
    drawn = []

    class Watched(Mixture):
        def sample(self, b, *, generator):
            drawn.append(found := super().sample(b, generator=generator))
            return found

    assert evaluate(PrototypicalNetwork(MLP(6, 4)), Watched(members), tasks=12).n == 12
    assert [len(each) for each in drawn] == [1] * 12
    assert {each.n_way for each in drawn} == {2, 3}


def test_tasks_of_two_kinds_have_no_one_metric():
    class Both:
        def sample(self, b, *, generator):
            regression = bool(torch.rand((), generator=generator) < 0.5)
            return task([[0.0]], [[[0.0]]] if regression else [[0]], None if regression else 2)

    with pytest.raises(TaskError, match=r"no one metric: .*Evaluate each kind by itself"):
        evaluate(Says(), Both(), tasks=20, batch=1)


def test_regression_is_judged_by_its_mean_squared_error():
    tasks = task([[0, 1, 2]], [[[0.0], [3.0], [1.0]]], None)
    assert judge(Says(), tasks).tolist() == pytest.approx([5 / 3])


def diverging(inputs: int, outputs: int) -> MAML:
    """Three linear layers whose weights grow without bound as they adapt."""
    torch.manual_seed(0)
    sizes = (inputs, 8), (8, 8), (8, outputs)
    return MAML(torch.nn.Sequential(*(torch.nn.Linear(*size) for size in sizes)), lr=1e6, steps=5)


def test_tasks_whose_adaptation_diverged_count_as_answered_wrongly_and_the_log_says_how_many(caplog):
    assert evaluate(diverging(6, 3), SOURCE, tasks=12).values.tolist() == [0.0] * 12
    (said,) = caplog.messages
    assert said == (
        "adapting to 12 of 12 tasks diverged: not all answers to them are finite, and they count as answered wrongly. "
        "Lower the inner rate (lr), or take fewer inner steps."
    )


def test_a_task_that_diverges_leaves_the_others_as_they_are():
    class Sometimes(Says):
        def adapt(self, task, *, generator=None):
            predictor = super().adapt(task, generator=generator)

            def predict(x):
                logits = predictor(x).logits.clone()
                logits[0, 0] = math.nan
                return Categorical(logits=logits, validate_args=False)

            return predict

    x, y = [[0, 1], [0, 1], [2, 1]], [[0, 1], [0, 1], [2, 0]]
    assert judge(Sometimes(), task(x, y, 3)).nan_to_num(-1).tolist() == [-1, 100, 50]


def test_a_regression_that_diverges_has_no_error_to_tell_and_says_why():
    said = "adapting to 4 of 4 tasks diverged: .* so that they have no mean squared error. Lower the inner rate"
    with pytest.raises(DivergedError, match=said):
        evaluate(diverging(1, 1), Sinusoid(n_shot=5, n_query=5), tasks=4)


def test_the_interval_is_1_96_standard_errors():
    found = Evaluation("accuracy %", torch.tensor([60.0, 80.0, 100.0], dtype=torch.float64), 0.0)
    assert found.mean == 80
    assert found.ci95 == pytest.approx(1.96 * 20 / math.sqrt(3))
    assert str(found) == "80.00 ± 22.63 accuracy % (3 tasks)"


def test_one_task_has_no_interval():
    assert evaluate(PrototypicalNetwork(MLP(6, 4)), SOURCE, tasks=1).ci95 == math.inf


def test_no_tasks_are_refused():
    with pytest.raises(TaskError, match="0 tasks"):
        evaluate(PrototypicalNetwork(MLP(6, 4)), SOURCE, tasks=0)


def test_the_same_seed_gives_the_same_result_and_more_tasks_begin_with_the_same_ones():
    learner = PrototypicalNetwork(MLP(6, 4))
    one, same, more, other = (
        evaluate(learner, SOURCE, tasks=n, seed=seed).values for n, seed in ((10, 1), (10, 1), (13, 1), (10, 2))
    )
    assert len(more) == 13
    assert torch.equal(one, same)
    assert torch.equal(one, more[:10])
    assert not torch.equal(one, other)


class Noisy(Learner):
    """Answers at random, and remembers the tasks that it was shown."""

    def __init__(self, draws):
        super().__init__()
        self.draws, self.seen = draws, []

    def adapt(self, task, *, generator=None):
        self.seen.append(task)
        torch.rand(self.draws, generator=generator)
        return lambda x: Categorical(logits=torch.rand(*x.shape[:2], task.n_way, generator=generator))

    def loss(self, tasks, *, generator=None):
        raise NotImplementedError


def test_a_learner_that_draws_noise_meets_the_same_tasks_as_any_other():
    learners = [Noisy(draws) for draws in (0, 1, 17)]
    for learner in learners:
        evaluate(learner, SOURCE, tasks=12, batch=4, seed=-3)
    for tasks in zip(*(learner.seen for learner in learners)):
        assert all(torch.equal(task.query.x, tasks[0].query.x) for task in tasks)


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_restores_the_mode_and_leaves_weights_and_random_state_alone(training):
    learner = PrototypicalNetwork(torch.nn.Sequential(MLP(6, 4), torch.nn.Dropout(), torch.nn.BatchNorm1d(4)))
    learner.train(training)
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    random = torch.get_rng_state()
    evaluate(learner, SOURCE, tasks=9)
    assert learner.training is training
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in learner.state_dict().items())


def test_the_mode_is_restored_when_a_source_fails():
    learner = PrototypicalNetwork(MLP(1, 4)).train()
    with pytest.raises(ShapeError, match="this task is a regression"):
        evaluate(learner, Sinusoid(n_shot=5), tasks=2)
    assert learner.training
