import pytest
import torch

from quickstudy import Episodes, LabelledSet
from quickstudy.errors import ShapeError, TaskError, TooFewExamplesError


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(counts: list[int]) -> LabelledSet:
    """A shuffled set whose x is (class, number of the example)."""
    y = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    x = torch.stack([y, torch.arange(len(y))], 1)
    order = torch.randperm(len(y), generator=seeded(9))
    return LabelledSet(x[order], y[order], tuple(f"class {i}" for i in range(len(counts))))


UNEVEN = [4, 9, 5, 7, 6, 4]


@pytest.fixture(scope="module")
def tasks():
    return Episodes(numbered(UNEVEN), n_way=3, n_shot=1, n_query=3).sample(4000, generator=seeded())


def test_a_batch_of_tasks_has_the_shapes_it_was_asked_for(tasks):
    assert tasks.support.x.shape == (4000, 3, 2)
    assert tasks.query.x.shape == (4000, 9, 2)
    assert tasks.support.y.dtype == torch.int64
    assert tasks.n_way == 3


def test_the_same_seed_gives_the_same_tasks():
    source = Episodes(numbered(UNEVEN), n_way=3, n_query=2)
    first, second, other = (source.sample(5, generator=seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first.support.x, second.support.x)
    assert torch.equal(first.query.y, second.query.y)
    assert not torch.equal(first.query.x, other.query.x)


def test_the_tasks_of_a_seed_are_these_on_any_machine():
    tasks = Episodes(numbered(UNEVEN), n_way=2, n_query=1).sample(2, generator=seeded())
    assert tasks.support.x[..., 1].tolist() == [[4, 34], [8, 21]]
    assert tasks.query.x[..., 1].tolist() == [[33, 10], [18, 7]]


def test_sampling_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    Episodes(numbered(UNEVEN), n_way=3, n_query=2).sample(5, generator=seeded())
    assert torch.equal(torch.get_rng_state(), before)


def test_within_a_task_a_label_stands_for_one_class_and_a_class_for_one_label(tasks):
    x, y = tasks.everything.x[..., 0], tasks.everything.y
    same_class, same_label = x[:, :, None] == x[:, None], y[:, :, None] == y[:, None]
    assert torch.equal(same_class, same_label)


def test_a_task_says_which_class_of_the_data_each_label_stands_for(tasks):
    assert torch.equal(tasks.classes.gather(1, tasks.query.y), tasks.query.x[..., 0])


def test_every_class_of_a_task_has_its_shots_and_queries(tasks):
    assert (torch.nn.functional.one_hot(tasks.support.y).sum(1) == 1).all()
    assert (torch.nn.functional.one_hot(tasks.query.y).sum(1) == 3).all()


def test_no_example_occurs_twice_in_a_task_so_support_and_query_are_disjoint(tasks):
    numbers = tasks.everything.x[..., 1].sort(1).values
    assert (numbers.diff(dim=1) > 0).all()


def test_classes_are_drawn_uniformly_however_many_examples_they_have(tasks):
    drawn = torch.bincount(tasks.support.x[..., 0].flatten(), minlength=6) / 4000
    torch.testing.assert_close(drawn, torch.full((6,), 0.5), atol=0.04, rtol=0)  # 5 standard errors


def test_every_example_of_a_class_is_drawn_equally_often(tasks):
    drawn = torch.bincount(tasks.support.x[..., 1].flatten()) / 4000
    expected = torch.cat([torch.full((n,), 0.5 / n) for n in UNEVEN])
    torch.testing.assert_close(drawn, expected, atol=0.03, rtol=0)


def test_every_class_gets_every_label_equally_often(tasks):
    together = torch.zeros(6, 3)
    classes, labels = tasks.support.x[..., 0].flatten(), tasks.support.y.flatten()
    together.index_put_((classes, labels), torch.tensor(1.0), accumulate=True)
    torch.testing.assert_close(together / 4000, torch.full((6, 3), 1 / 6), atol=0.03, rtol=0)


def test_the_order_of_support_and_query_sets_says_nothing_about_the_labels(tasks):
    for part in (tasks.support, tasks.query):
        share = torch.nn.functional.one_hot(part.y).float().mean(0)  # (n, k)
        torch.testing.assert_close(share, torch.full_like(share, 1 / 3), atol=0.04, rtol=0)


def test_the_data_may_need_every_example_they_have():
    tasks = Episodes(numbered([2, 2]), n_way=2, n_shot=1, n_query=1).sample(50, generator=seeded())
    assert (tasks.everything.x[..., 1].sort(1).values == torch.arange(4)).all()


def test_pictures_become_floats_between_0_and_1_and_other_inputs_stay_as_they_are():
    pictures = LabelledSet(torch.full((4, 1, 2, 2), 255, dtype=torch.uint8), torch.arange(4) % 2, ("a", "b"))
    x = Episodes(pictures, n_way=2, n_query=1).sample(3, generator=seeded()).query.x
    assert x.dtype == torch.float32
    assert (x == 1).all()
    assert Episodes(numbered([2, 2]), n_way=2, n_query=1).sample(1, generator=seeded()).query.x.dtype == torch.int64


def test_an_encoder_of_ones_own_sees_the_whole_batch():
    source = Episodes(numbered([2, 2]), n_way=2, n_query=1, encode=lambda x: x.float().mean(-1, keepdim=True))
    assert source.sample(3, generator=seeded()).query.x.shape == (3, 2, 1)


@pytest.mark.parametrize("setting", [{"n_way": 1}, {"n_shot": 0}, {"n_query": 0}])
def test_a_task_of_one_class_or_no_examples_is_refused(setting):
    with pytest.raises(TaskError, match="is no task: take at least 2 classes, 1 support and 1 query example"):
        Episodes(numbered([9, 9]), **{"n_way": 2, "n_shot": 1, "n_query": 1} | setting)


def test_too_few_classes_are_counted():
    with pytest.raises(TooFewExamplesError, match=r"5-way tasks need 5 classes; the data has 2\. Lower n_way"):
        Episodes(numbered([99, 99]))


def test_the_class_with_too_few_examples_is_named():
    with pytest.raises(TooFewExamplesError, match=r"needs 18 examples a class; 'class 1' has 12\. Lower n_query"):
        Episodes(numbered([20, 12, 20]), n_way=2, n_shot=3)


def test_a_class_that_has_no_example_left_to_ask_about_is_to_get_some_or_go():
    for shots, queries in ((3, "1 query"), (4, "2 queries")):
        said = rf"{queries} needs \d examples a class; 'class 1' has 3\. Add some to it, or remove it\."
        with pytest.raises(TooFewExamplesError, match=said):
            Episodes(numbered([20, 3, 20]), n_way=2, n_shot=shots, n_query=int(queries[0]))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_data_that_are_not_finite_are_refused_and_counted(bad):
    x = torch.rand(6, 3)
    x[2, 1] = x[4, 0] = bad
    with pytest.raises(TaskError, match=r"2 of 6 examples hold NaN or infinity\. Remove or impute"):
        Episodes(LabelledSet(x, torch.arange(6) % 2, ("a", "b")), n_way=2, n_query=1)


def test_a_labelled_set_has_one_label_an_example():
    with pytest.raises(ShapeError, match=r"y is \(3,\) and x is \(4, 2\): one label an example"):
        LabelledSet(torch.rand(4, 2), torch.arange(3), ("a", "b", "c"))


@pytest.mark.parametrize("kind", [torch.float32, torch.uint8, torch.bool])
def test_labels_are_whole_numbers_of_64_bits(kind):
    with pytest.raises(ShapeError, match=rf"y is {kind}; labels are int64\. Give y\.long\(\)"):
        LabelledSet(torch.rand(2, 2), torch.tensor([0, 1]).to(kind), ("a", "b"))


def test_a_labelled_set_is_made_of_tensors():
    x, y = torch.rand(2, 2), torch.tensor([0, 1])
    for name, made in (("x", (x.numpy(), y)), ("y", (x, [0, 1]))):
        with pytest.raises(ShapeError, match=rf"^{name} is a \w+, not a tensor\. Give torch\.as_tensor\({name}\)\.$"):
            LabelledSet(*made, ("a", "b"))


@pytest.mark.parametrize("y", [[0, 2], [-1, 0]])
def test_a_label_without_a_class_name_is_refused(y):
    with pytest.raises(ShapeError, match=r"with 2 class names they must lie in 0\.\.1"):
        LabelledSet(torch.rand(2, 2), torch.tensor(y), ("a", "b"))


def test_selected_classes_are_renumbered_in_the_order_given():
    data = numbered([2, 3, 4])
    some = data.select([2, 0])
    assert some.class_names == ("class 2", "class 0")
    assert some.counts().tolist() == [4, 2]
    assert torch.equal(some.x[:, 0], torch.tensor([2, 0])[some.y])


def test_selected_classes_keep_their_groups():
    data = LabelledSet(torch.rand(3, 2), torch.arange(3), ("a", "b", "c"), ("x", "y", "x"))
    assert data.select([2, 1]).groups == ("x", "y")


def test_rotations_are_new_classes_of_the_same_pictures():
    data = LabelledSet(torch.arange(8).reshape(2, 1, 2, 2), torch.tensor([0, 1]), ("a", "b"), ("x", "y"))
    turned = data.with_rotations()
    assert turned.class_names == ("a @0", "b @0", "a @90", "b @90", "a @180", "b @180", "a @270", "b @270")
    assert turned.groups == ("x", "y") * 4
    assert turned.counts().tolist() == [1] * 8
    for turns in range(4):
        torch.testing.assert_close(turned.x[turned.y == 2 * turns], torch.rot90(data.x[:1], turns, (-2, -1)))


def test_a_batch_of_no_tasks_is_refused():
    data = LabelledSet(torch.rand(8, 2), torch.arange(8) % 2, ("ant", "bee"))
    with pytest.raises(TaskError, match="a batch of 0 tasks is none: draw at least one"):
        Episodes(data, n_way=2, n_query=1).sample(0, generator=torch.Generator())
