import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quickstudy import LabelledSet
from quickstudy.errors import TaskError, TooFewExamplesError
from quickstudy.tasks.split import split_classes


def classes(n: int, groups: tuple[str, ...] | None = None) -> LabelledSet:
    y = torch.arange(n).repeat_interleave(2)
    return LabelledSet(y[:, None], y, tuple(f"class {i}" for i in range(n)), groups)


def names(splits) -> list[set[str]]:
    return [set(part.class_names) for part in splits]


@settings(max_examples=40, deadline=None)
@given(st.integers(6, 60), st.integers(0, 1000))
def test_every_class_is_in_one_part_and_each_part_has_enough(n, seed):
    splits = split_classes(classes(n), n_way=2, seed=seed)
    assert sum(part.n_classes for part in splits) == n
    assert len(set.union(*names(splits))) == n
    assert min(part.n_classes for part in splits) >= 2


def test_examples_follow_their_classes():
    for part in split_classes(classes(20)):
        assert part.counts().tolist() == [2] * part.n_classes
        assert [f"class {int(x)}" for x in part.x[:, 0]] == [part.class_names[y] for y in part.y.tolist()]


def test_the_fractions_are_met_to_the_nearest_class():
    assert [part.n_classes for part in split_classes(classes(100), n_way=5)] == [70, 15, 15]


def test_the_same_seed_gives_the_same_split_and_another_another():
    first, same, other = (names(split_classes(classes(30), seed=seed)) for seed in (3, 3, 4))
    assert first == same != other


def test_each_part_has_n_way_classes_even_where_its_fraction_has_not():
    assert [part.n_classes for part in split_classes(classes(16), n_way=5)] == [6, 5, 5]


def test_a_part_of_fraction_zero_stays_empty():
    assert [part.n_classes for part in split_classes(classes(10), n_way=5, fractions=(0.5, 0.5, 0))] == [5, 5, 0]


def test_groups_stay_whole():
    data = classes(40, tuple(f"alphabet {i % 8}" for i in range(40)))
    splits = split_classes(data, n_way=5)
    held = [set(part.groups) for part in splits]
    assert sum(map(len, held)) == len(set.union(*held)) == 8
    assert [part.n_classes for part in splits] == [30, 5, 5]


def test_groups_can_be_split_when_asked():
    data = classes(20, ("one group",) * 20)
    with pytest.raises(TooFewExamplesError, match=r"1 group\(s\) of classes cannot be split .*by_group=False"):
        split_classes(data)
    assert [part.n_classes for part in split_classes(data, by_group=False)] == [14, 3, 3]


def test_too_few_classes_say_how_many_are_needed():
    message = "5-way tasks need 5 classes .*, 15 in all; the data has 9. Add 6 classes or lower n_way"
    with pytest.raises(TooFewExamplesError, match=message):
        split_classes(classes(9), n_way=5)


@pytest.mark.parametrize("fractions", [(0.5, 0.5, 0.5), (1.2, -0.1, -0.1), (0, 0.5, 0.5)])
def test_fractions_that_are_no_split_are_refused(fractions):
    with pytest.raises(TaskError, match="are no split"):
        split_classes(classes(30), fractions=fractions)
