import csv
import json
from dataclasses import replace

import pytest
import torch
from torch import Generator

from quickstudy.errors import NothingFitsError, OutcomeError, ShapeError, StudyError
from quickstudy.nas.across import (
    CANDIDATES,
    FRESH,
    FURTHER,
    LEAST,
    Comparison,
    Numbered,
    OnManyTasks,
    OnNumberedTask,
    save_across,
    search_across,
    worst,
    worst_interval,
)
from quickstudy.nas.baselines.random_search import RandomSearch
from quickstudy.nas.build import Limits
from quickstudy.nas.hunt import Budget
from quickstudy.nas.tiny import Tiny
from quickstudy.nas.train import Schedule
from quickstudy.nas.trainer import Outcome
from quickstudy.nas.workers import workers
from quickstudy.tasks.episodes import Episodes, LabelledSet, Mixture
from quickstudy.tasks.sinusoid import Sinusoid
from quickstudy.tasks.task import Examples, Task
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
        **{"budget": FEW, "limits": LIMITS, "proposer": RandomSearch(), "schedule": BRIEF, "tasks": 10} | options,
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
    assert {one.source.n for one in found.compared} == {10}
    assert found.best_mean.test.n == found.best_worst.test.n == found.neighbour.n == 10
    assert all(LIMITS.allows(one.cost) for one in found.compared)


def test_a_search_across_tasks_by_trials_repeats_exactly(found):
    a, b = found, run()
    assert [(one.architecture, one.value) for one in a.tried] == [(one.architecture, one.value) for one in b.tried]
    for one, other in zip(a.compared, b.compared):
        assert torch.equal(one.source.values, other.source.values)


def test_longer_trainings_are_trainings_on_more_tasks_that_the_shorter_ones_had_not(monkeypatch):
    seen = []

    def train(self, architecture, schedule, *, seed, deadline=None, keep=False):
        seen.append((schedule.steps, seed))
        return Outcome(Share(3, 4), 0.1, schedule.steps)

    monkeypatch.setattr(OnNumberedTask, "__call__", train)
    trainer = OnManyTasks(Tiny(shape=(1, 6, 6), n_classes=2), Numbered(source(), source(), 0), 4)
    short, longer = (trainer(None, Schedule(steps=steps), seed=9) for steps in (8, 24))
    assert (short.accuracy, short.steps) == (Share(6, 8), 8)
    assert (longer.accuracy, longer.steps) == (Share(18, 24), 24)
    assert {steps for steps, _ in seen} == {4}
    assert len({number for _, number in seen}) == 8


def test_every_architecture_has_the_same_tasks():
    tasks = Numbered(source(), source(seed=1), 3)
    assert torch.equal(tasks[7].support.x, tasks[7].support.x)
    assert not torch.equal(tasks[7].support.x, tasks[8].support.x)
    assert not torch.equal(tasks[FURTHER].support.x, tasks[FRESH].support.x)
    assert not torch.equal(tasks[7].support.x, replace(tasks, seed=4)[7].support.x)


def test_a_deadline_ends_a_training_between_two_tasks():
    space = Tiny(shape=(1, 6, 6), n_classes=2)
    trainer = OnManyTasks(space, Numbered(source(), source(), 0), 4)
    architecture = space.sample(generator=Generator().manual_seed(0))
    outcome = trainer(architecture, Schedule(steps=40), seed=0, deadline=0.0)
    assert outcome.steps == 4
    assert outcome.accuracy.n == 10


def test_a_task_on_which_training_diverges_has_no_right_answer(monkeypatch):
    sound = OnNumberedTask.__call__

    def train(self, architecture, schedule, *, seed, **options):
        if seed % 2:
            return Outcome(None, 0.0, 0, "the loss is nan")
        return Outcome(Share(10, 10), 0.1, 4)

    monkeypatch.setattr(OnNumberedTask, "__call__", train)
    space = Tiny(shape=(1, 6, 6), n_classes=2)
    trainer = OnManyTasks(space, Numbered(source(), source(), 0), 4)
    assert trainer(None, Schedule(steps=16), seed=0).accuracy == Share(20, 40)
    monkeypatch.setattr(OnNumberedTask, "__call__", sound)
    outcome = trainer(space.sample(generator=Generator().manual_seed(0)), Schedule(steps=16, lr=1e30), seed=0)
    assert outcome.accuracy is None
    assert "on each of 4 tasks: the loss is" in outcome.why


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


def test_masked_examples_are_not_learned_from_nor_asked():
    class Masked:
        def sample(self, b, *, generator):
            task = source().sample(b, generator=generator)
            mask = torch.ones(b, 10, dtype=torch.bool)
            mask[:, 8:] = False
            junk = torch.where(mask[:, :, None, None, None], task.query.x, torch.nan)
            return Task(task.support, Examples(junk, task.query.y, mask), task.n_way)

    space = Tiny(shape=(1, 6, 6), n_classes=2)
    architecture = space.sample(generator=Generator().manual_seed(0))
    assert OnNumberedTask(space, Numbered(Masked(), Masked(), 0))(architecture, BRIEF, seed=0).accuracy.n == 8


def test_a_search_across_tasks_goes_on_from_its_storage_and_refuses_another(found, tmp_path):
    run(budget=replace(FEW, trials=2), storage=tmp_path / "studies.db")
    rest = run(storage=tmp_path / "studies.db")
    assert [(a.architecture, a.value) for a in found.tried] == [(a.architecture, a.value) for a in rest.tried]
    with pytest.raises(StudyError, match="steps a task"):
        run(storage=tmp_path / "studies.db", schedule=Schedule(steps=5))


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


def test_two_processes_compare_as_one_does():
    result = run(budget=replace(FEW, trials=3, workers=2))
    one, each = result.compared[0], OnNumberedTask(result.space, Numbered(source(), source(), 0))
    shares = [each(one.architecture, BRIEF, seed=FURTHER + i).accuracy.percent for i in range(10)]
    assert one.source.values.tolist() == pytest.approx(shares)


def test_what_is_saved_says_the_same_as_the_result(found, tmp_path):
    save_across(tmp_path, found)
    saved = json.loads((tmp_path / "across.json").read_text())
    assert saved["best mean"] == str(found.best_mean.architecture)
    assert saved["compared"][0]["source mean %"] == pytest.approx(found.best_mean.source.mean)
    assert len(saved["compared"][0]["source accuracies %"]) == 10
    table = list(csv.DictReader((tmp_path / "across.csv").read_text().splitlines()))
    assert [row["architecture"] for row in table] == [str(one.architecture) for one in found.compared]
    (best,) = (row for row in table if "worst decile" in row["best"])
    assert float(best["test worst decile %"]) == pytest.approx(worst(found.best_worst.test.values), abs=1e-3)
    assert [row["test mean %"] == "" for row in table] == [one.test is None for one in found.compared]
