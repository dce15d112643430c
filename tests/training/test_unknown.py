import torch
from torch.distributions import Categorical

from quickstudy import MLP, Episodes, LabelledSet, PrototypicalNetwork
from quickstudy.learners.learner import Learner
from quickstudy.training.unknown import Threshold, best_probabilities, calibrate, nearest, to_settings


def clusters(spread: float, classes: int = 8, each: int = 12) -> LabelledSet:
    """Classes far apart, in a space where distances are what they seem."""
    random = torch.Generator().manual_seed(0)
    y = torch.arange(classes).repeat_interleave(each)
    x = 3 * torch.eye(classes)[y] + spread * torch.randn(len(y), classes, generator=random)
    return LabelledSet(x, y, tuple(f"class {i}" for i in range(classes)))


def near() -> Learner:
    return PrototypicalNetwork(torch.nn.Flatten())


def test_a_threshold_keeps_about_95_per_cent_of_other_tasks_of_its_size():
    data = clusters(0.7, each=30)
    (threshold,) = calibrate(near(), data, n_ways=(3,), n_shots=(2,), tasks=200)
    random = torch.Generator().manual_seed(9)
    tasks = Episodes(data, n_way=4, n_shot=2, n_query=3).sample(200, generator=random)
    best, shown = best_probabilities(near(), tasks, random)
    kept = 100 * (best[shown] >= threshold.probability).double().mean()
    refused = 100 * (best[~shown] < threshold.probability).double().mean()
    assert threshold.kept == 95
    assert abs(kept - 95) < 2.5
    assert abs(refused - threshold.refused) < 10


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
    found = nearest(to_settings(known), 6, 4.0)
    assert (found.n_way, found.n_shot) == (5, 5)
    assert nearest([], 5, 1.0) is None
