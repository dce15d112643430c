import torch
from torch.distributions import Categorical

from quickstudy import MLP, Episodes, LabelledSet, PrototypicalNetwork
from quickstudy.learners.familiarity import familiarity
from quickstudy.learners.learner import Learner
from quickstudy.training.unknown import (
    Threshold,
    calibrate,
    nearest,
    to_settings,
    with_strangers,
    without_the_last_class,
)


def clusters(spread: float, classes: int = 8, each: int = 12) -> LabelledSet:
    """Classes far apart, in a space where distances are what they seem."""
    random = torch.Generator().manual_seed(0)
    y = torch.arange(classes).repeat_interleave(each)
    x = 3 * torch.eye(classes)[y] + spread * torch.randn(len(y), classes, generator=random)
    return LabelledSet(x, y, tuple(f"class {i}" for i in range(classes)))


def near() -> Learner:
    return PrototypicalNetwork(torch.nn.Flatten())


def refused_at_95_kept(scores, data, n_way: int = 3, n_shot: int = 1) -> float:
    source = Episodes(data, n_way=n_way + 1, n_shot=n_shot, n_query=3)
    shown, other = with_strangers(scores, source, tasks=100, seed=5)
    return 100 * float((other < shown.quantile(0.05)).double().mean())


def test_a_threshold_keeps_about_95_per_cent_of_other_tasks_of_its_size():
    data = clusters(0.7, each=30)
    (threshold,) = calibrate(near(), data, n_ways=(3,), n_shots=(2,), tasks=200)
    tasks = Episodes(data, n_way=4, n_shot=2, n_query=3)
    shown, other = with_strangers(
        lambda task, generator: threshold.scores(near(), task, generator=generator), tasks, tasks=200, seed=9
    )
    assert threshold.kept == 95
    assert abs(100 * (shown >= threshold.value).double().mean() - 95) < 2.5
    assert abs(100 * (other < threshold.value).double().mean() - threshold.refused) < 10


def test_familiarity_tells_strangers_better_than_the_probability_of_the_best_class():
    data = clusters(0.7, each=30)
    by_probability = Threshold(3, 1, 0.0, 95.0, 0.0, "probability")
    old = refused_at_95_kept(lambda task, _: by_probability.scores(near(), task), data)
    new = refused_at_95_kept(lambda task, _: familiarity(near(), task), data)
    assert new > old + 15


def test_a_class_that_is_left_out_is_asked_about_and_not_shown():
    task = Episodes(clusters(0.3), n_way=4, n_shot=2, n_query=3).sample(3, generator=torch.Generator().manual_seed(0))
    smaller = without_the_last_class(task)
    assert smaller.n_way == 3
    assert (smaller.support.y < 3).all()
    assert smaller.support.n == 6
    assert torch.equal(smaller.query.x, task.query.x)
    for i in range(3):
        rows = {tuple(row.tolist()) for row in task.support.x[i][task.support.y[i] != 3]}
        assert {tuple(row.tolist()) for row in smaller.support.x[i]} == rows


def test_it_refuses_more_than_chance_where_classes_are_far_apart():
    (threshold,) = calibrate(near(), clusters(0.3), n_ways=(3,), n_shots=(5,), tasks=40)
    assert threshold.refused > 50  # of a learner that cannot tell, it would be 5


def test_a_learner_that_is_always_as_sure_refuses_nothing():
    class Sure(Learner):
        def adapt(self, task, *, generator=None):
            return lambda x: Categorical(logits=torch.zeros(*x.shape[:2], task.n_way))

        def loss(self, tasks, *, generator=None):
            raise NotImplementedError

    (threshold,) = calibrate(Sure(), clusters(0.3), n_ways=(3,), n_shots=(1,), tasks=8)
    assert threshold.refused == 0


def test_sizes_that_the_data_cannot_do_are_left_out():
    found = calibrate(near(), clusters(0.3, classes=4, each=3), n_ways=(2, 3, 4, 10), n_shots=(1, 2, 3), tasks=4)
    assert [(t.n_way, t.n_shot) for t in found] == [(2, 1), (3, 1), (2, 2), (3, 2)]


def test_calibrating_leaves_the_learner_alone_and_follows_its_seed():
    learner = PrototypicalNetwork(MLP(8, 4)).eval()
    before = [p.clone() for p in learner.parameters()]
    assert calibrate(learner, clusters(0.3), tasks=8) == calibrate(learner, clusters(0.3), tasks=8)
    assert all(torch.equal(a, b) for a, b in zip(before, learner.parameters()))


def test_a_task_takes_the_threshold_of_the_tasks_most_like_it():
    known = [Threshold(n, k, 0.5, 95.0, 50.0) for n in (2, 5, 20) for k in (1, 5)]
    assert [Threshold.from_settings(values) for values in to_settings(known)] == known
    found = nearest(to_settings(known), 6, 4.0)
    assert (found.n_way, found.n_shot) == (5, 5)
    assert nearest([], 5, 1.0) is None


def test_thresholds_of_earlier_versions_are_read_as_what_they_were_of():
    earlier = {"n_way": 3, "n_shot": 1, "probability": 0.7, "kept": 95.0, "refused": 40.0}
    found = nearest([earlier], 3, 1.0)
    assert (found.value, found.score) == (0.7, "probability")
    task = Episodes(clusters(0.3), n_way=3, n_query=3).sample(2, generator=torch.Generator().manual_seed(0))
    best = near().adapt(task)(task.query.x).probs.amax(-1)
    assert torch.equal(found.scores(near(), task)(task.query.x), best)
