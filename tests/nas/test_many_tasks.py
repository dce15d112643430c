from dataclasses import replace

import pytest
import torch
from torch import Generator

from quickstudy.errors import ShapeError
from quickstudy.nas.many_tasks import FRESH, FURTHER, Numbered, OnManyTasks, OnNumberedTask
from quickstudy.nas.tiny import Tiny
from quickstudy.nas.train import Schedule
from quickstudy.nas.trainer import Outcome
from quickstudy.tasks.episodes import Episodes, LabelledSet
from quickstudy.tasks.sinusoid import Sinusoid
from quickstudy.tasks.task import Examples, Task
from quickstudy.training.proportion import Share

SPACE = Tiny(shape=(1, 6, 6), n_classes=2)
MEMBER = SPACE.sample(generator=Generator().manual_seed(0))


def source(n_way: int = 2, seed: int = 0) -> Episodes:
    """Tasks of pictures in which nothing is to be seen."""
    x = torch.rand(72, 1, 6, 6, generator=Generator().manual_seed(seed))
    return Episodes(LabelledSet(x, torch.arange(72) % 6, tuple("abcdef")), n_way=n_way, n_shot=4, n_query=5)


def tasks(of=None, seed: int = 0) -> Numbered:
    return Numbered(of or source(), of or source(), seed)


def test_longer_trainings_are_trainings_on_more_tasks_that_the_shorter_ones_had_not(monkeypatch):
    seen = []

    def train(self, architecture, schedule, *, seed, deadline=None, keep=False):
        seen.append((schedule.steps, seed))
        return Outcome(Share(3, 4), 0.1, schedule.steps)

    monkeypatch.setattr(OnNumberedTask, "__call__", train)
    trainer = OnManyTasks(SPACE, tasks(), 4)
    short, longer = (trainer(None, Schedule(steps=steps), seed=9) for steps in (8, 24))
    assert (short.accuracy, short.steps) == (Share(6, 8), 8)
    assert (longer.accuracy, longer.steps) == (Share(18, 24), 24)
    assert {steps for steps, _ in seen} == {4}
    assert len({number for _, number in seen}) == 8
    seen.clear()
    for steps in (1, 3, 9):  # fewer than a task has, and more
        trainer(None, Schedule(steps=steps), seed=9)
    assert [steps for steps, _ in seen] == [1, 3, 4, 4]
    assert len({number for _, number in seen}) == 4


def test_every_architecture_has_the_same_tasks():
    numbered = Numbered(source(), source(seed=1), 3)
    assert torch.equal(numbered[7].support.x, numbered[7].support.x)
    assert not torch.equal(numbered[7].support.x, numbered[8].support.x)
    assert not torch.equal(numbered[FURTHER].support.x, numbered[FRESH].support.x)
    assert not torch.equal(numbered[7].support.x, replace(numbered, seed=4)[7].support.x)


def test_a_deadline_ends_a_training_between_two_tasks():
    trainer = OnManyTasks(SPACE, tasks(), 4)
    outcome = trainer(MEMBER, Schedule(steps=40), seed=0, deadline=0.0)
    assert outcome.steps == 4
    assert outcome.accuracy.n == 10


def test_a_task_on_which_training_diverges_has_no_right_answer(monkeypatch):
    sound = OnNumberedTask.__call__

    def train(self, architecture, schedule, *, seed, **options):
        if seed % 2:
            return Outcome(None, 0.0, 0, "the loss is nan")
        return Outcome(Share(10, 10), 0.1, 4)

    monkeypatch.setattr(OnNumberedTask, "__call__", train)
    trainer = OnManyTasks(SPACE, tasks(), 4)
    assert trainer(None, Schedule(steps=16), seed=0).accuracy == Share(20, 40)
    monkeypatch.setattr(OnNumberedTask, "__call__", sound)
    outcome = trainer(MEMBER, Schedule(steps=16, lr=1e30), seed=0)
    assert outcome.accuracy is None
    assert "on each of 4 tasks: the loss is" in outcome.why


def test_masked_examples_are_not_learned_from_nor_asked():
    class Masked:
        def sample(self, b, *, generator):
            task = source().sample(b, generator=generator)
            mask = torch.ones(b, 10, dtype=torch.bool)
            mask[:, 8:] = False
            junk = torch.where(mask[:, :, None, None, None], task.query.x, torch.nan)
            return Task(task.support, Examples(junk, task.query.y, mask), task.n_way)

    assert OnNumberedTask(SPACE, tasks(Masked()))(MEMBER, Schedule(steps=4), seed=0).accuracy.n == 8


def test_a_task_of_another_kind_and_one_of_regression_are_refused():
    with pytest.raises(ShapeError, match=r"2 classes of inputs .*another 3 of"):
        OnNumberedTask(SPACE, tasks(source(n_way=3)))(MEMBER, Schedule(steps=4), seed=0)
    with pytest.raises(ShapeError, match="regression"):
        tasks(Sinusoid())[0]
