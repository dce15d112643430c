import pytest
import torch
from torch.distributions import Categorical

from quickstudy import MLP, Episodes, Examples, LabelledSet, PrototypicalNetwork, Task
from quickstudy.learners.familiarity import familiarity
from quickstudy.learners.learner import Learner
from quickstudy.training.unknown import (
    Threshold,
    calibrate,
    even_shots,
    nearest,
    to_settings,
    with_strangers,
    without_the_last,
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
    (threshold,) = calibrate(near(), data, n_ways=(3,), n_shots=(2,), queries=1800)
    tasks = Episodes(data, n_way=6, n_shot=2, n_query=3)
    shown, other = with_strangers(
        lambda task, generator: threshold.scores(near(), task, generator=generator),
        tasks,
        strangers=3,
        tasks=200,
        seed=9,
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


@pytest.mark.parametrize("strangers", [1, 2])
def test_classes_that_are_left_out_are_asked_about_and_not_shown(strangers):
    shown = 5 - strangers
    task = Episodes(clusters(0.3), n_way=5, n_shot=2, n_query=3).sample(3, generator=torch.Generator().manual_seed(0))
    smaller = without_the_last(task, strangers)
    assert smaller.n_way == shown
    assert (smaller.support.y < shown).all()
    assert smaller.support.n == 2 * shown
    assert torch.equal(smaller.query.x, task.query.x)
    for i in range(3):
        rows = {tuple(row.tolist()) for row in task.support.x[i][task.support.y[i] < shown]}
        assert {tuple(row.tolist()) for row in smaller.support.x[i]} == rows


def test_it_refuses_more_than_chance_where_classes_are_far_apart():
    (threshold,) = calibrate(near(), clusters(0.3), n_ways=(3,), n_shots=(5,), queries=360)
    assert threshold.refused > 50  # of a learner that cannot tell, it would be 5


def test_a_learner_that_is_always_as_sure_refuses_nothing():
    class Sure(Learner):
        def adapt(self, task, *, generator=None):
            return lambda x: Categorical(logits=torch.zeros(*x.shape[:2], task.n_way))

        def loss(self, tasks, *, generator=None):
            raise NotImplementedError

    (threshold,) = calibrate(Sure(), clusters(0.3), n_ways=(3,), n_shots=(1,), queries=72)
    assert threshold.refused == 0


def test_sizes_that_the_data_cannot_do_are_left_out():
    found = calibrate(near(), clusters(0.3, classes=4, each=3), n_ways=(2, 3, 4, 10), n_shots=(1, 2, 3), queries=36)
    assert [(t.n_way, t.n_shot) for t in found] == [(2, 1), (3, 1), (2, 2), (3, 2)]


def test_calibrating_leaves_the_learner_alone_and_follows_its_seed():
    learner = PrototypicalNetwork(MLP(8, 4)).eval()
    before = [p.clone() for p in learner.parameters()]
    assert calibrate(learner, clusters(0.3), queries=36) == calibrate(learner, clusters(0.3), queries=36)
    assert all(torch.equal(a, b) for a, b in zip(before, learner.parameters()))


def test_a_task_takes_the_threshold_of_the_tasks_most_like_it():
    known = [Threshold(n, k, 0.5, 95.0, 50.0) for n in (2, 5, 20) for k in (1, 5)]
    assert [Threshold.from_settings(values) for values in to_settings(known)] == known
    found = nearest(to_settings(known), 6, 4.0)
    assert (found.n_way, found.n_shot) == (5, 5)
    assert nearest([], 5, 1.0) is None


@pytest.mark.parametrize(("shots", "expected"), [(1, 1), (2, 1), (3, 5), (4, 5), (20, 5)])
def test_how_unlike_two_sizes_are_is_their_ratio_also_for_priors_with_two_of_them(shots, expected):
    known = to_settings([Threshold(n, k, 0.5, 95.0, 50.0) for n in (2, 3, 5, 10, 20) for k in (1, 5)])
    assert nearest(known, 5, shots).n_shot == expected
    assert [nearest(known, n, shots).n_way for n in (4, 7, 8, 14, 15, 400)] == [5, 5, 10, 10, 20, 20]


def test_the_usual_numbers_of_shots_have_thresholds_of_their_own():
    found = calibrate(near(), clusters(0.3, each=14), n_ways=(2, 5), queries=36)
    assert [(t.n_way, t.n_shot) for t in found] == [(n, k) for k in (1, 2, 3, 5, 10) for n in (2, 5)]


def test_more_shots_make_classes_more_familiar_and_refuse_more():
    found = calibrate(near(), clusters(0.7, each=30), n_ways=(4,))
    assert [t.value for t in found] == sorted(t.value for t in found)
    assert [t.refused for t in found] == sorted(t.refused for t in found)


def test_an_uneven_task_takes_the_threshold_of_shots_with_as_noisy_means():
    torch.manual_seed(0)
    counts = torch.tensor([1, 5, 5, 5, 5])
    noise = torch.stack([torch.randn(20000, n).mean(1).square().mean() for n in counts.tolist()]).mean()
    assert abs(noise * even_shots(counts) - 1) < 0.02


def test_of_an_uneven_task_about_95_per_cent_are_kept():
    data, counts = clusters(0.7, each=40), torch.tensor([1, 5, 5, 5])
    threshold = nearest(to_settings(calibrate(near(), data, n_ways=(4,), queries=1800)), 4, even_shots(counts))
    tasks = Episodes(data, n_way=4, n_shot=5, n_query=5).sample(200, generator=torch.Generator().manual_seed(3))
    kept = []
    for x, y, query in zip(tasks.support.x, tasks.support.y, tasks.query.x):
        rows = torch.cat([(y == label).nonzero().flatten()[:n] for label, n in enumerate(counts.tolist())])
        task = Task(Examples(x[rows][None], y[rows][None]), Examples(query[None, :0], y[None, :0]), 4)
        kept.append(threshold.scores(near(), task)(query[None]) >= threshold.value)
    assert abs(100 * torch.cat(kept).double().mean() - 95) < 2.5


def test_thresholds_of_earlier_versions_are_read_as_what_they_were_of():
    earlier = {"n_way": 3, "n_shot": 1, "probability": 0.7, "kept": 95.0, "refused": 40.0}
    found = nearest([earlier], 3, 1.0)
    assert (found.value, found.score) == (0.7, "probability")
    task = Episodes(clusters(0.3), n_way=3, n_query=3).sample(2, generator=torch.Generator().manual_seed(0))
    best = near().adapt(task)(task.query.x).probs.amax(-1)
    assert torch.equal(found.scores(near(), task)(task.query.x), best)
