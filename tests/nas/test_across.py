from dataclasses import replace

import pytest
import torch
from torch import Generator

from quickstudy.errors import NothingFitsError, OutcomeError, ShapeError, StudyError
from quickstudy.nas.across import CANDIDATES, LEAST, Comparison, search_across, worst, worst_interval
from quickstudy.nas.baselines.random_search import RandomSearch
from quickstudy.nas.budget import Budget
from quickstudy.nas.build import Limits
from quickstudy.nas.many_tasks import FURTHER, Numbered, OnNumberedTask
from quickstudy.nas.tiny import Tiny
from quickstudy.nas.train import Schedule
from quickstudy.nas.trainer import Outcome
from quickstudy.nas.workers import Workers, workers
from quickstudy.tasks.episodes import Episodes, LabelledSet, Mixture
from quickstudy.tasks.sinusoid import Sinusoid
from quickstudy.training.proportion import Share

FEW = Budget(seconds=None, trials=4, steps=8)
BRIEF = Schedule(steps=4)
LIMITS = Limits(max_params=3000)


def rows(classes: int = 6, each: int = 12, size: int = 6, seed: int = 0) -> LabelledSet:
    """Pictures whose brightest row tells the class."""
    generator = Generator().manual_seed(seed)
    y = torch.arange(classes * each) % classes
    x = 0.3 * torch.rand(len(y), 1, size, size, generator=generator)
    x[torch.arange(len(y)), 0, y % size] += 1
    return LabelledSet(x, y, tuple("abcdefgh"[:classes]))


def source(**options) -> Episodes:
    return Episodes(rows(**options), n_way=2, n_shot=4, n_query=5)


def run(given=None, **options):
    return search_across(
        given or source(),
        **{"budget": FEW, "limits": LIMITS, "proposer": RandomSearch(), "schedule": BRIEF, "tasks": LEAST} | options,
    )


@pytest.fixture(scope="module")
def found():
    return run(test=source(seed=1))


def test_the_best_on_average_and_the_best_of_the_worst_are_the_best_of_those_that_were_compared(found):
    assert 1 <= len(found.compared) <= CANDIDATES
    assert found.best_mean.source.mean == max(one.source.mean for one in found.compared)
    assert worst(found.best_worst.source.values) == max(worst(one.source.values) for one in found.compared)
    assert {one.architecture for one in found.compared} <= {one.architecture for one in found.tried}
    assert len(found.tried) == 4


def test_only_the_chosen_are_tested_and_all_are_compared_on_as_many_tasks(found):
    chosen = {found.best_mean.architecture, found.best_worst.architecture}
    assert {one.architecture for one in found.compared if one.test is not None} == chosen
    assert {one.source.n for one in found.compared} == {LEAST}
    assert found.best_mean.test.n == found.best_worst.test.n == found.neighbour.n == LEAST
    assert all(LIMITS.allows(one.cost) for one in found.compared)


def test_a_search_across_tasks_by_trials_repeats_exactly(found):
    a, b = found, run()
    assert [(one.architecture, one.value) for one in a.tried] == [(one.architecture, one.value) for one in b.tried]
    for one, other in zip(a.compared, b.compared):
        assert torch.equal(one.source.values, other.source.values)


def test_a_search_across_tasks_moves_half_of_the_inputs_unless_told_otherwise(found, monkeypatch):
    assert found.settings["inputs"] == "as they are"
    monkeypatch.setattr("quickstudy.nas.across.STEPS", 3)
    own = run(schedule=None, budget=replace(FEW, trials=1))
    assert own.settings["inputs"] == "moved at random by 1 at most, with probability 0.5"
    assert own.settings["steps a task"] == 3


def test_where_every_training_fails_across_tasks_the_reason_is_told():
    with pytest.raises(OutcomeError, match="The last one failed: on each of 2 tasks"):
        run(schedule=Schedule(steps=4, lr=1e30))


def test_the_worst_decile_is_the_mean_of_the_worst_tenth_and_lies_in_its_interval():
    values = torch.rand(100, generator=Generator().manual_seed(0), dtype=torch.float64)
    assert worst(values) == pytest.approx(float(values.sort().values[:10].mean()))
    assert worst(values[:3]) == float(values[:3].min())
    low, high = worst_interval(values)
    assert low < worst(values) < high
    wider = worst_interval(values[:20])
    assert wider[1] - wider[0] > high - low


def test_tasks_of_different_kinds_and_of_regression_are_refused():
    mixed = Mixture([source(), Episodes(rows(), n_way=3, n_shot=4, n_query=5)])
    with pytest.raises(ShapeError, match="one way and one shape"):
        run(mixed)
    with pytest.raises(ShapeError, match="regression"):
        run(Sinusoid())
    with pytest.raises(NothingFitsError, match="fewest parameters"):
        run(limits=Limits(max_params=5))


def test_a_search_across_tasks_goes_on_from_its_storage_and_refuses_another(found, tmp_path):
    run(budget=replace(FEW, trials=2), storage=tmp_path / "studies.db")
    rest = run(storage=tmp_path / "studies.db")
    assert [(a.architecture, a.value) for a in found.tried] == [(a.architecture, a.value) for a in rest.tried]
    with pytest.raises(StudyError, match="steps a task"):
        run(storage=tmp_path / "studies.db", schedule=Schedule(steps=5))
    with pytest.raises(StudyError, match="seed 0, not 1"):
        run(storage=tmp_path / "studies.db", seed=1)
    with pytest.raises(StudyError, match="digest of the tasks"):
        run(source(seed=1), storage=tmp_path / "studies.db")


def test_a_comparison_ends_with_its_seconds_but_not_before_it_has_five_tasks(monkeypatch):
    monkeypatch.setattr(OnNumberedTask, "__call__", lambda self, a, schedule, *, seed: Outcome(Share(1, 2), 0.0, 4))
    each, told = OnNumberedTask(Tiny(shape=(1, 6, 6), n_classes=2), Numbered(source(), source(), 0)), []
    with workers(each, 1) as pool:
        comparison = Comparison(pool, BRIEF, 40, told.append)
        late = comparison.run("comparing", [None, None], 0, until=0.0)
        endless = comparison.run("testing", [None], 0, until=None)
    assert [one.n for one in late] == [LEAST, LEAST]
    assert [one.n for one in endless] == [40]
    assert told == ["comparing"] * LEAST + ["testing"] * 40


def test_two_processes_compare_as_one_does(monkeypatch):
    space, found = Tiny(shape=(1, 6, 6), n_classes=2), []
    member = space.sample(generator=Generator().manual_seed(0))
    for n in (1, 2):
        monkeypatch.setattr(Workers, "n", n)  # without waiting until they are up
        with workers(OnNumberedTask(space, Numbered(source(), source(), 0)), n) as pool:
            comparison = Comparison(pool, BRIEF, 5, lambda stage: None)
            found += comparison.run("comparing", [member], FURTHER, until=None)
    assert len(found[0].values) == 5
    assert found[0].values.tolist() == pytest.approx(found[1].values.tolist())


@pytest.mark.parametrize(("change", "said"), [(0.0, "are the same"), (1e35, "as large as")])
def test_inputs_that_nothing_can_be_learned_from_are_refused(change, said):
    given = rows()
    with pytest.raises(ShapeError, match=said):
        run(Episodes(LabelledSet(change * given.x, given.y, given.class_names), n_way=2, n_shot=4, n_query=5))
