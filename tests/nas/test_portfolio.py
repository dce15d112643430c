"""A portfolio holds what none beats at no higher cost, and a search begins with it."""

import torch
from torch import Generator

from quickstudy.experience.trial import TaskDescription
from quickstudy.nas.aen import Prior, learn
from quickstudy.nas.architecture import Architecture
from quickstudy.nas.bayesian_search import BayesianSearch
from quickstudy.nas.build import Limits, count
from quickstudy.nas.facts import log_costs
from quickstudy.nas.portfolio import best, portfolio
from quickstudy.nas.source import Rows
from quickstudy.nas.tiny import Tiny

SPACE = Tiny(shape=(1, 8, 8), n_classes=3)
RARE = SPACE.architecture(("conv1", "none", "none", "none", "conv1", "none", 4, 1, 1, "pool4", "avg", "mean"))


def rows(space: Tiny, seed: int = 0) -> Rows:
    """What costs less is better."""
    generator = Generator().manual_seed(seed)
    drawn = (*(space.sample(generator=generator) for _ in range(40)), Architecture(space.id, RARE.choices))
    return Rows(drawn, -log_costs(space, drawn)[:, 1], space=space)


def test_what_is_kept_is_beaten_by_none_and_beats_all_else() -> None:
    generator = Generator().manual_seed(0)
    values, costs = (torch.randint(5, shape, generator=generator).double() for shape in ((60,), (60, 2)))
    kept = best(values, costs).tolist()

    def beats(i: int, j: int) -> bool:
        pair = [(-float(values[k]), *costs[k].tolist()) for k in (i, j)]
        return pair[0] != pair[1] and all(a <= b for a, b in zip(*pair))

    assert 1 < len(kept) < 60
    for j in range(60):
        assert (j in kept) == (not any(beats(i, j) for i in range(60)))
        assert j in kept or any(beats(i, j) for i in kept)


def test_each_task_gives_its_own_and_none_is_there_twice() -> None:
    one, two = rows(SPACE), rows(Tiny(shape=(3, 9, 9), n_classes=2), seed=1)
    found = portfolio({"one": one, "two": two}, log_costs, SPACE)
    assert len(set(found)) == len(found)
    assert RARE in found
    assert set(found) == set(portfolio({"one": one}, log_costs, SPACE)) | set(portfolio({"two": two}, log_costs, SPACE))


def test_a_search_begins_near_what_is_too_rare_to_be_drawn_whatever_the_inputs() -> None:
    torch.manual_seed(0)
    prior = learn(Prior(SPACE, members=1, width=16, facts=log_costs, proxies=3), {"one": rows(SPACE)}, epochs=150)
    series, known = Tiny(shape=(1, 30), n_classes=2), portfolio({"one": rows(SPACE)}, log_costs, SPACE)
    without, within = (
        BayesianSearch(prior, drawn=16, portfolio=of).propose(
            TaskDescription("new"), [], series, generator=Generator().manual_seed(0)
        )[0]
        for of in ((), known)
    )
    rare = Architecture(series.id, RARE.choices)
    near = {series.canonical(one) for one in (rare, *series.neighbours(rare))}
    assert without not in near
    assert within in near
    assert count(series, within).multiply_adds < count(series, without).multiply_adds


def test_what_a_limit_forbids_is_no_candidate() -> None:
    limits = Limits(max_params=count(SPACE, RARE).parameters - 1)
    within = limits.within(SPACE)
    method = BayesianSearch(None, drawn=16, portfolio=[RARE])
    found = method.propose(TaskDescription("new"), [], within, n=17, generator=Generator().manual_seed(0))
    assert all(limits.allows(count(SPACE, one)) for one in found)
