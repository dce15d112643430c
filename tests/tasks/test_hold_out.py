import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quickstudy import LabelledSet
from quickstudy.errors import ShapeError, TaskError, TooFewExamplesError
from quickstudy.tasks.hold_out import hold_out, with_test_set

COUNTS = st.lists(st.integers(3, 40), min_size=2, max_size=6)
SHARES = st.floats(0.01, 0.99)


def labelled(counts, *, dtype=torch.float) -> LabelledSet:
    """Examples whose only value is their own place, so that each can be recognised; classes are mixed."""
    y = torch.cat([torch.full((n,), label) for label, n in enumerate(counts)])
    y = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(1))]
    x = torch.arange(len(y), dtype=dtype)[:, None, None]
    return LabelledSet(x, y, tuple(f"class {label}" for label in range(len(counts))))


@settings(max_examples=50, deadline=None)
@given(COUNTS, SHARES, st.integers(0, 5))
def test_support_and_query_are_a_partition_of_the_set(counts, share, seed):
    data = labelled(counts)
    task = hold_out(data, test=share, seed=seed)
    support, query = task.support.x[0, :, 0, 0].long(), task.query.x[0, :, 0, 0].long()
    assert sorted(torch.cat([support, query]).tolist()) == list(range(sum(counts)))
    assert torch.equal(task.support.y[0], data.y[support])
    assert torch.equal(task.query.y[0], data.y[query])


@settings(max_examples=50, deadline=None)
@given(COUNTS, SHARES, st.integers(0, 5))
def test_each_class_has_its_share_held_out_to_the_nearest_example_and_keeps_two(counts, share, seed):
    found = torch.bincount(hold_out(labelled(counts), test=share, seed=seed).query.y[0], minlength=len(counts))
    assert found.tolist() == [min(max(1, round(share * n)), n - 2) for n in counts]


@settings(max_examples=20, deadline=None)
@given(COUNTS, SHARES, st.integers(0, 5))
def test_the_same_seed_holds_out_the_same_examples(counts, share, seed):
    first, second = (hold_out(labelled(counts), test=share, seed=seed) for _ in range(2))
    assert torch.equal(first.query.x, second.query.x)
    assert torch.equal(first.support.y, second.support.y)


def test_another_seed_holds_out_others():
    data = labelled([50, 50])
    assert not torch.equal(hold_out(data, seed=0).query.x, hold_out(data, seed=1).query.x)


def test_it_does_not_touch_the_random_state_of_torch():
    before = torch.get_rng_state()
    hold_out(labelled([5, 5]))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_task_is_a_batch_of_one_and_levels_become_floats():
    task = hold_out(labelled([5, 5], dtype=torch.uint8))
    assert len(task) == 1
    assert task.n_way == 2
    assert task.support.x.dtype == torch.float
    assert float(task.everything.x.max()) == pytest.approx(9 / 255)


@pytest.mark.parametrize("share", [0, 1, -0.2, 20, float("nan")])
def test_what_is_no_share_is_refused(share):
    with pytest.raises(TaskError, match="is no share of the examples: take one between 0 and 1"):
        hold_out(labelled([5, 5]), test=share)


def test_classes_with_two_examples_are_named_with_the_remedy():
    with pytest.raises(
        TooFewExamplesError, match=r"at least 3 examples.*'class 1' has 2, 'class 2' has 0\. Add some, or leave"
    ):
        hold_out(labelled([5, 2, 0]))


def test_of_many_poor_classes_the_first_five_are_named():
    with pytest.raises(TooFewExamplesError, match="'class 4' has 1, and 3 more classes have too few"):
        hold_out(labelled([1] * 8))


def test_one_class_leaves_nothing_to_tell_apart():
    with pytest.raises(TooFewExamplesError, match="1 class, 'class 0': there is nothing to tell apart"):
        hold_out(labelled([9]))
    with pytest.raises(TooFewExamplesError, match="0 class"):
        hold_out(LabelledSet(torch.zeros(0, 1, 4), torch.zeros(0).long(), ()))


def test_a_test_set_of_its_own_stays_as_it_is():
    data, test = labelled([4, 2]), labelled([3, 0])
    task = with_test_set(data, test)
    assert torch.equal(task.support.x[0], data.x)
    assert torch.equal(task.query.y[0], test.y)


def test_a_test_set_of_other_inputs_or_classes_is_refused():
    data = labelled([4, 4])
    with pytest.raises(ShapeError, match="both have the same"):
        with_test_set(data, LabelledSet(torch.zeros(2, 1, 9), torch.arange(2), data.class_names))
    with pytest.raises(ShapeError, match="3 classes, the training set"):
        with_test_set(data, labelled([4, 4, 4]))


def test_an_empty_test_set_and_a_class_with_one_example_to_learn_from_are_refused():
    with pytest.raises(TooFewExamplesError, match="the test set is empty"):
        with_test_set(labelled([4, 4]), labelled([0, 0]))
    with pytest.raises(
        TooFewExamplesError, match="at least 2 examples, one to train and one to validate on; 'class 1' has 1"
    ):
        with_test_set(labelled([4, 1]), labelled([1, 1]))
