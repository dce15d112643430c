import math

import pytest
import torch

from quickstudy import Episodes, Examples, LabelledSet, Mixture, Task
from quickstudy.errors import TaskError


class Constant:
    """Tasks whose every value is the same."""

    def __init__(self, value: float) -> None:
        self.value = value

    def sample(self, b: int, *, generator: torch.Generator) -> Task:
        examples = Examples(torch.full((b, 2, 1), float(self.value)), torch.full((b, 2, 1), float(self.value)))
        return Task(examples, examples, None)


def draws(mixture: Mixture, n: int = 400, seed: int = 0) -> list[float]:
    generator = torch.Generator().manual_seed(seed)
    return [mixture.sample(3, generator=generator).support.x.unique().item() for _ in range(n)]


def test_a_batch_comes_from_one_member_and_all_members_have_their_turn():
    assert set(draws(Mixture([Constant(0), Constant(1), Constant(2)]))) == {0, 1, 2}


def test_members_are_drawn_equally_often_unless_weighted():
    assert sum(draws(Mixture([Constant(0), Constant(1)]))) / 400 == pytest.approx(0.5, abs=0.1)
    assert sum(draws(Mixture([Constant(0), Constant(1)], weights=[1, 3]))) / 400 == pytest.approx(0.75, abs=0.1)


def test_a_member_of_weight_zero_is_never_drawn():
    assert set(draws(Mixture([Constant(0), Constant(1)], weights=[0, 5]))) == {1}


def test_the_same_seed_draws_the_same_members():
    mixture = Mixture([Constant(0), Constant(1)])
    assert draws(mixture, seed=3) == draws(mixture, seed=3) != draws(mixture, seed=4)


def test_a_mixture_of_nothing_is_refused():
    with pytest.raises(TaskError, match="a mixture of no sources has no tasks: give at least one"):
        Mixture([])


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0], [1.0, math.nan], [1.0, math.inf]])
def test_weights_must_fit_the_sources(weights):
    with pytest.raises(TaskError, match="2 sources need as many weights, finite, none negative"):
        Mixture([Constant(0), Constant(1)], weights=weights)


def test_tasks_say_which_classes_they_are_of_where_all_members_count_the_same_ones():
    def episodes(*names: str, n_way: int = 2) -> Episodes:
        return Episodes(LabelledSet(torch.rand(40, 8), torch.arange(40) % 4, names), n_way=n_way, n_query=5)

    def tells(*sources: object) -> bool:
        return Mixture(sources).sample(2, generator=torch.Generator()).classes is not None

    pets, tools = ("ant", "bee", "cat", "dog"), ("axe", "bow", "cup", "die")
    assert tells(episodes(*pets), episodes(*pets, n_way=3))
    assert tells(Mixture([episodes(*pets), episodes(*pets)]), episodes(*pets))
    assert not tells(episodes(*pets), episodes(*tools))
    assert not tells(Mixture([episodes(*pets), episodes(*tools)]), episodes(*pets))
    assert not tells(episodes(*pets), Constant(0))
