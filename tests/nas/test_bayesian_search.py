"""Bayesian search goes where the prior and the outcomes point."""

from collections.abc import Callable, Mapping
from itertools import count

import pytest
import torch
from torch import Generator

from quickstudy.experience.trial import TaskDescription, Trial
from quickstudy.nas.aen import Prior, learn
from quickstudy.nas.architecture import Architecture, Value
from quickstudy.nas.baselines.random_search import RandomSearch
from quickstudy.nas.bayesian_search import BayesianSearch
from quickstudy.nas.limited import Limited
from quickstudy.nas.nasbench201 import NASBench201
from quickstudy.nas.source import Rows

OPERATIONS = ("skip_connect", "nor_conv_1x1", "nor_conv_3x3")


class Small(NASBench201):
    """729 cells, all of whose operations matter."""

    name = "small"
    choices: Mapping[str, tuple[Value, ...]] = dict.fromkeys(NASBench201.choices, OPERATIONS)


SPACE, TASK = Small(), TaskDescription("toy")


def worth(a: Architecture) -> float:
    values = [v for _, v in a.choices]
    return values.count("nor_conv_3x3") + 0.5 * values.count("nor_conv_1x1") + 2 * (a["0-3"] == "skip_connect")


def search(
    method: BayesianSearch, n: int, value: Callable[[Architecture], float | None] = worth, batch: int = 1
) -> list[Trial[Architecture]]:
    trials: list[Trial[Architecture]] = []
    for seed in count():
        for choice in method.propose(TASK, trials, SPACE, n=batch, generator=Generator().manual_seed(seed)):
            trials.append(Trial(choice, value(choice)))
        if len(trials) >= n:
            return trials
    raise AssertionError


@pytest.fixture(scope="module")
def prior() -> Prior:
    torch.manual_seed(0)
    generator = Generator().manual_seed(0)
    cells = tuple(SPACE.sample(generator=generator) for _ in range(60))
    return learn(Prior(SPACE, members=1, width=16), {"a": Rows(cells, torch.tensor([*map(worth, cells)]))}, epochs=60)


def test_without_a_prior_it_finds_what_is_good_from_the_outcomes() -> None:
    assert max(trial.value or 0 for trial in search(BayesianSearch(), 30)) >= 6.5


def test_a_prior_of_a_like_task_finds_it_sooner(prior: Prior) -> None:
    assert max(trial.value or 0 for trial in search(BayesianSearch(prior), 5)) >= 6


def test_a_prior_that_is_wrong_loses_its_weight(prior: Prior) -> None:
    wrong = search(BayesianSearch(prior), 30, lambda a: -worth(a))
    assert max(trial.value or -9 for trial in wrong) >= -0.5


def test_nothing_is_proposed_twice_in_batches_or_after_failures(prior: Prior) -> None:
    trials = search(BayesianSearch(prior), 12, lambda a: None if a["0-1"] == "nor_conv_3x3" else worth(a), batch=4)
    assert len({trial.choice for trial in trials}) == 12


def test_it_is_pure(prior: Prior) -> None:
    method, trials = BayesianSearch(prior), search(BayesianSearch(prior), 4)
    once, again = (method.propose(TASK, trials, SPACE, n=3, generator=Generator().manual_seed(7)) for _ in range(2))
    assert (
        once == again == BayesianSearch(prior).propose(TASK, trials, SPACE, n=3, generator=Generator().manual_seed(7))
    )


def test_without_feedback_it_is_the_order_of_the_prior(prior: Prior) -> None:
    method = BayesianSearch(prior, feedback=False)
    ordered = method.propose(TASK, [], SPACE, n=3, generator=Generator())
    assert [trial.choice for trial in search(method, 3)] == ordered


def test_what_is_returned_is_not_what_was_merely_lucky(prior: Prior) -> None:
    trials = search(BayesianSearch(prior), 12)
    poor = SPACE.architecture(["skip_connect"] * 6)
    best = max(trial.value or 0 for trial in trials)
    lucky = Trial(poor, best + 0.1)
    returned = BayesianSearch(prior).incumbent(TASK, [*trials, lucky], SPACE)
    assert returned in trials
    assert returned.value == best
    assert BayesianSearch(prior, feedback=False).incumbent(TASK, [*trials, lucky], SPACE) == lucky


def test_what_another_offers_is_among_the_candidates(prior: Prior) -> None:
    alike = [SPACE.architecture([operation] * 6) for operation in OPERATIONS]
    trials = [Trial(cell, worth(cell)) for cell in alike]
    offered = SPACE.architecture([*OPERATIONS, *OPERATIONS])  # no neighbour of any

    class Offer(RandomSearch):
        def propose(self, *args: object, **kwargs: object) -> list[Architecture]:  # type: ignore[override]
            return [offered]

    for improve in (None, Offer()):
        method = BayesianSearch(prior, drawn=1, improve=improve)
        found = method.propose(TASK, trials, SPACE, n=50, generator=Generator().manual_seed(0))
        assert (offered in found) == (improve is not None)


def test_outcomes_count_in_a_space_too_large_to_be_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quickstudy.nas.baselines.candidates.LISTED", 10)
    trials = search(BayesianSearch(drawn=40), 30)
    assert len({trial.choice for trial in trials}) == 30
    assert max(trial.value or 0 for trial in trials) >= 6.5


def test_what_is_not_in_the_space_is_nothing_to_improve_on(prior: Prior, monkeypatch: pytest.MonkeyPatch) -> None:
    trials, best = search(BayesianSearch(prior), 8), []

    def propose(process: object, n: int, **options: float) -> torch.Tensor:
        best.append(options["best"])
        return torch.arange(n)

    monkeypatch.setattr("quickstudy.nas.bayesian_search.propose", propose)
    ordered = sorted((trial.choice for trial in trials), key=worth)
    for out in ([], ordered[1:], ordered):
        within = Limited(SPACE, lambda a, out=out: a not in out, [SPACE.architecture(["nor_conv_1x1"] * 6)])
        BayesianSearch(prior).propose(TASK, trials, within, generator=Generator().manual_seed(0))
    assert best == [worth(ordered[-1]), worth(ordered[0]), worth(ordered[0])]


def test_each_task_is_known_by_its_own_embedding() -> None:
    torch.manual_seed(0)
    method = BayesianSearch(Prior(SPACE, members=1, width=8, task=2))
    tasks = [TaskDescription(str(i), torch.randn(2, generator=Generator().manual_seed(i))) for i in range(2)]
    first, second, again = (method.pool(task, SPACE)[0].mean for task in (*tasks, tasks[0]))
    assert first is not None
    assert second is not None
    assert again is not None
    assert torch.equal(first, again)
    assert not torch.allclose(first, second)


def test_what_is_pending_is_believed_to_do_as_expected_and_not_to_have_failed(prior: Prior) -> None:
    method, trials = BayesianSearch(prior), search(BayesianSearch(prior), 6)

    def proposed(more: list[Trial[Architecture]], n: int = 1) -> list[Architecture]:
        return method.propose(TASK, [*trials, *more], SPACE, n=n, generator=Generator().manual_seed(3))

    first, second, third = proposed([], 3)
    pending = Trial(first, None, pending=True), Trial(second, None, pending=True)
    assert proposed([pending[0]], 2) == [second, third]
    assert proposed([*pending]) == [third]
