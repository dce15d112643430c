import pytest
import torch

from quickstudy import Examples, Task
from quickstudy.errors import ShapeError


def examples(n: int, *, b: int = 3, masked: bool = False, domain: int | None = None) -> Examples:
    return Examples(
        torch.arange(b * n * 2.0).reshape(b, n, 2),
        torch.arange(b * n).reshape(b, n) % 2,
        torch.arange(b * n).reshape(b, n) % 3 > 0 if masked else None,
        None if domain is None else torch.full((b, n), domain),
    )


@pytest.mark.parametrize("field", ["y", "mask", "domain"])
def test_examples_of_unequal_number_are_refused_and_the_remedy_is_named(field):
    fields = {"y": torch.zeros(2, 5, dtype=torch.int64), field: torch.zeros(2, 4, dtype=torch.int64)}
    with pytest.raises(ShapeError, match=rf"{field} is \(2, 4\) and x is \(2, 5, 3\).*batch of one: x\[None\]"):
        Examples(torch.zeros(2, 5, 3), **fields)


def test_a_mask_of_numbers_is_refused_and_the_remedy_is_named():
    with pytest.raises(ShapeError, match=r"mask is torch\.float32.*mask\.bool\(\)"):
        Examples(torch.zeros(2, 5, 3), torch.zeros(2, 5), torch.ones(2, 5))


def test_regression_targets_may_have_an_axis_of_their_own():
    assert Examples(torch.zeros(2, 5, 3), torch.zeros(2, 5, 1)).n == 5


def test_the_weights_of_real_examples_sum_to_one_and_masked_ones_weigh_nothing():
    masked = examples(6, masked=True)
    torch.testing.assert_close(masked.weights().sum(1), torch.ones(3))
    assert (masked.weights()[~masked.mask] == 0).all()


def test_without_a_mask_all_examples_are_real():
    assert examples(4).real().all()


def test_a_task_without_any_real_example_has_no_weights_that_are_not_finite():
    nothing = Examples(torch.zeros(1, 3, 2), torch.zeros(1, 3), torch.zeros(1, 3, dtype=torch.bool))
    assert (nothing.weights() == 0).all()


def test_a_slice_of_tasks_is_a_batch_of_tasks():
    tasks = Task(examples(2, masked=True), examples(4, domain=1), 2, torch.rand(3, 5, 2))
    third = tasks[2:3]
    assert len(third) == 1
    assert third.n_way == 2
    torch.testing.assert_close(third.support.x, tasks.support.x[2:3])
    torch.testing.assert_close(third.query.domain, tasks.query.domain[2:3])
    torch.testing.assert_close(third.unlabelled, tasks.unlabelled[2:3])


def test_mapping_touches_every_tensor_and_invents_none():
    doubled = Task(examples(2), examples(4, masked=True), 2).map(lambda value: torch.cat([value, value]))
    assert len(doubled) == 6
    assert doubled.support.mask is None
    assert doubled.query.mask.shape == (6, 4)
    assert doubled.unlabelled is None


def test_everything_is_the_support_set_followed_by_the_query_set():
    task = Task(examples(2), examples(4), 2)
    torch.testing.assert_close(task.everything.x[:, :2], task.support.x)
    torch.testing.assert_close(task.everything.y[:, 2:], task.query.y)
    assert task.everything.mask is None


def test_everything_keeps_the_mask_of_one_side_alone():
    task = Task(examples(2, masked=True), examples(4), 2)
    torch.testing.assert_close(task.everything.mask[:, :2], task.support.mask)
    assert task.everything.mask[:, 2:].all()


def test_everything_keeps_domains_that_both_sides_have():
    everything = Task(examples(2, domain=0), examples(3, domain=1), 2).everything
    assert everything.domain[0].tolist() == [0, 0, 1, 1, 1]


def test_moving_to_the_device_it_is_on_changes_nothing():
    task = Task(examples(2), examples(3), 2)
    torch.testing.assert_close(task.to("cpu").query.x, task.query.x)


def labelled(*labels, mask=None, size=1):
    x = torch.zeros(1, len(labels), size)
    return Examples(x, torch.tensor([labels]), None if mask is None else torch.tensor([mask]))


@pytest.mark.parametrize(
    ("support", "query", "told"),
    [
        (labelled(0, 2), labelled(0, 1), r"a support label is 2; those of a 2-way task lie in 0\.\.1"),
        (labelled(-1, 1), labelled(0, 1), "a support label is -1"),
        (labelled(0.0, 1.0), labelled(0, 1), "support labels are torch.float32"),
        (labelled(False, True), labelled(0, 1), "support labels are torch.bool"),
        (labelled(0, 1), labelled(0, 1, size=3), r"support inputs are \(1, 2, 1\) and query inputs \(1, 2, 3\)"),
    ],
)
def test_a_task_that_does_not_fit_itself_says_where(support, query, told):
    with pytest.raises(ShapeError, match=told):
        Task(support, query, 2)


@pytest.mark.parametrize(
    ("support", "query", "told"),
    [
        (torch.zeros(1, 4), torch.zeros(1, 4, 1), r"support targets are torch\.float32 \(1, 4\).*y\[\.\.\., None\]"),
        (torch.zeros(1, 4, 1), torch.zeros(1, 4), r"query targets are torch\.float32 \(1, 4\)"),
        (torch.zeros(1, 4, 1), torch.zeros(1, 4, 2), r"query targets are torch\.float32 \(1, 4, 2\).*as many"),
        (torch.zeros(1, 4).long(), torch.zeros(1, 4).long(), r"torch\.int64.*A classification has an n_way"),
    ],
)
def test_targets_of_a_regression_are_floats_with_an_axis_of_their_own(support, query, told):
    x = torch.zeros(1, 4, 3)
    with pytest.raises(ShapeError, match=told):
        Task(Examples(x, support), Examples(x, query), None)


def test_what_is_masked_out_may_have_any_label():
    assert len(Task(labelled(0, 7, mask=[True, False]), labelled(1), 2)) == 1


def test_a_query_may_be_of_no_class_that_was_shown():
    assert len(Task(labelled(0, 1), labelled(2), 2)) == 1
