import zlib

import pytest
import torch
from torch import Generator

from quickstudy.errors import NothingFitsError
from quickstudy.experience.proposer import Proposer
from quickstudy.experience.trial import TaskDescription, Trial
from quickstudy.nas.baselines.random_search import RandomSearch
from quickstudy.nas.build import Limits
from quickstudy.nas.latency import MARGIN, PROBED, Latency, QuickEnough, inputs, line
from quickstudy.nas.limited import Limited
from quickstudy.nas.search import shipped_prior
from quickstudy.nas.tiny import Tiny, cell_of
from quickstudy.nas.trainer import Trainer
from quickstudy.tasks.task import Examples, Task

TASK = TaskDescription("a task")
SPACE = Tiny(shape=(1, 12, 12), n_classes=3)


class Clock(Trainer):
    """Takes 1 ms for each convolution of the cell, which is no line in what is expected by, and half of one besides."""

    space = SPACE

    def __init__(self):
        self.asked = []

    def latency(self, architecture, *, seconds=0.02):
        self.asked.append(architecture)
        return 0.5 + sum("conv" in operation for operation in cell_of(architecture))

    def __call__(self, *args, **options):
        raise NotImplementedError


def members(n, seed=0):
    generator = Generator().manual_seed(seed)
    return [SPACE.sample(generator=generator) for _ in range(n)]


def opened(limit):
    clock = Clock()
    latency = Latency(clock, limit)
    return clock, latency, latency.within(Limits().within(SPACE), seed=0)


def test_a_latency_that_is_a_line_is_found_exactly():
    few, others = members(60), members(40, seed=1)
    weights = torch.tensor([0.2, 0.01, 0.02, 0.03, 0.1, 0.05, 0.4], dtype=torch.float64)
    x, x_others = (torch.tensor([inputs(SPACE, a) for a in some], dtype=torch.float64) for some in (few, others))
    assert x_others @ line(x, x @ weights) == pytest.approx((x_others @ weights).tolist(), rel=0.1)


def test_what_is_expected_is_corrected_by_what_is_measured():
    _, latency, within = opened(2.6 / MARGIN)
    more, others = members(200, seed=1), members(200, seed=2)

    def error():
        return sum(abs(latency.expected(a) / latency.trainer.latency(a) - 1) for a in others) / len(others)

    before = error()
    for architecture in more:
        latency(architecture)
    assert error() < before
    assert [latency.expected(a) for a in more] == [latency.trainer.latency(a) for a in more]
    assert not any(within.has(a) for a in more if latency(a) > 2.6)
    believed = [within.has(a) for a in others]
    for architecture in members(50, seed=3):
        latency(architecture)
    assert [within.has(a) for a in others] == believed  # a search goes by members that stay members


def test_nothing_is_measured_twice_and_nothing_at_all_without_a_limit():
    clock, latency, _ = opened(None)
    assert clock.asked == []
    for architecture in members(3) * 2:
        latency(architecture)
    assert len(clock.asked) == 3
    assert latency.too_slow == []


def test_a_limit_that_no_network_keeps_says_what_the_fastest_takes():
    with pytest.raises(NothingFitsError, match=r"keeps to 0.36 ms.* the fastest takes 0.5 ms"):
        opened(0.4)
    assert opened(0.5 / MARGIN)[2].starts


@pytest.mark.parametrize("limit", [0.6, 2.6])
def test_proposals_are_measured_before_they_are_trials(limit):
    clock, latency, within = opened(limit / MARGIN)
    proposer, trials = QuickEnough(RandomSearch(), latency), []
    for i in range(10):
        generator = Generator().manual_seed(i)
        (found,) = proposer.propose(TASK, trials, within, generator=generator)
        trials.append(Trial(found, 0.0))
    assert all(clock.latency(trial.choice) <= limit for trial in trials)
    assert len({trial.choice for trial in trials}) == 10
    assert len(proposer.propose(TASK, trials, within, n=3, generator=generator)) == 3


class InOrder(Proposer):
    """Proposes what it was given, and keeps what it was told."""

    def __init__(self, members):
        self.members, self.told = members, []

    def propose(self, task, trials, space, *, n=1, generator):
        self.told.append([trial.choice for trial in trials])
        return [a for a in self.members if a not in self.told[-1]][:n]


def test_what_is_too_slow_is_told_as_tried_and_more_is_asked_for_at_a_time():
    _, latency, within = opened(1.6 / MARGIN)
    slow = [a for a in members(100, seed=3) if latency.trainer.latency(a) > 1.6][:7]
    quick = next(a for a in members(100, seed=4) if latency.trainer.latency(a) <= 1.6)
    latency(quick)
    inner = InOrder([*slow, quick])
    assert QuickEnough(inner, latency).propose(TASK, [], within, generator=Generator()) == [quick]
    known = len(inner.told[0])
    assert [len(told) - known for told in inner.told] == [0, 1, 3, 7]
    assert known <= PROBED


@pytest.mark.parametrize("times", [1.05, 1.6])
def test_within_any_limit_that_some_network_keeps_to_what_was_learned_finds_one_that_does(times):
    class Line(Clock):
        """Nearly a line, so that most of what is expected is right."""

        def latency(self, architecture, *, seconds=0.02):
            self.asked.append(architecture)
            weights = (0.05, 0.01, 0.01, 0.01, 0.01, 0.05, 0.1)
            noise = zlib.crc32(str(architecture).encode()) % 7 / 70
            return (1 + noise) * sum(w * x for w, x in zip(weights, inputs(SPACE, architecture)))

    y = torch.arange(30) % 3
    task = Task(Examples(torch.rand(1, 30, 1, 12, 12), y[None]), Examples(torch.rand(1, 3, 1, 12, 12), y[None, :3]), 3)
    prior, clock, trials = shipped_prior(), Line(), []
    fastest = min(clock.latency(start) for start in Limits().within(SPACE).starts)
    latency = Latency(clock, times * fastest / MARGIN)
    within = latency.within(Limits().within(SPACE), seed=0)
    proposer, description = QuickEnough(prior.proposer(), latency), prior.describe(task, "rows")
    for i in range(4):
        found = proposer.propose(description, trials, within, generator=Generator().manual_seed(i))
        trials += [Trial(one, 50.0 + i) for one in found]
    assert trials
    assert all(clock.latency(trial.choice) <= times * fastest for trial in trials)
    assert len(trials) == 4 or times == 1.05


def test_where_all_that_is_proposed_is_too_slow_what_was_measured_and_is_not_takes_its_place():
    _, latency, within = opened(1.6 / MARGIN)
    slow = [a for a in members(100, seed=3) if latency.trainer.latency(a) > 1.6][:7]
    proposer = QuickEnough(InOrder(slow), latency)
    found = proposer.propose(TASK, [], within, n=2, generator=Generator())
    assert found == [one for one in within.starts if one in latency.measured][:2]
    known = [Trial(one, 1.0) for one in latency.measured]
    assert proposer.propose(TASK, known, within, generator=Generator()) == []


def test_a_start_that_turned_out_too_slow_is_drawn_from_no_more():
    bad = set()
    whole = Limits().within(SPACE)
    first, second, *_ = whole.starts
    limited = Limited(SPACE, lambda a: a in {first, second} - bad, [first, second])
    bad.add(second)
    assert {limited.sample(generator=Generator().manual_seed(i)) for i in range(8)} == {first}


def test_where_time_is_up_nothing_is_proposed():
    clock, latency, within = opened(2.6)
    proposer = QuickEnough(RandomSearch(), latency, until=lambda: True)
    measured = len(clock.asked)
    assert proposer.propose(TASK, [], within, generator=Generator()) == []
    assert len(clock.asked) == measured
