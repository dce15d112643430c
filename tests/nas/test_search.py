import copy
import math
import time
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from math import prod
from types import SimpleNamespace

import pytest
import torch
from torch import Generator

from quickstudy.errors import (
    ArchitectureError,
    NothingFitsError,
    OutcomeError,
    QuantityError,
    ShapeError,
    StudyError,
    TooFewExamplesError,
)
from quickstudy.nas.baselines.random_search import RandomSearch
from quickstudy.nas.budget import ETA, FURTHER, RUNGS, Budget
from quickstudy.nas.build import Limits, count
from quickstudy.nas.hunt import SMALLEST, Hunt
from quickstudy.nas.pace import Pace, madds
from quickstudy.nas.search import gone_on, open_task, search
from quickstudy.nas.tiny import DOWNS, Tiny
from quickstudy.nas.train import Schedule, Trained, answer, train
from quickstudy.nas.trainer import OnOneTask, Outcome
from quickstudy.nas.workers import Workers, one_thread
from quickstudy.tasks.task import Examples, Task
from quickstudy.training.proportion import Share

FEW = Budget(seconds=None, trials=4, steps=2)
LIMITS = Limits(max_params=3000, max_memory=8000)


def toy(n: int = 60, n_way: int = 3, size: int = 6) -> Task:
    """Pictures whose brightest row tells the class, so that small networks learn them in a few steps."""
    generator = Generator().manual_seed(0)
    y = torch.arange(2 * n) % n_way
    x = 0.3 * torch.rand(2 * n, 1, size, size, generator=generator)
    x[torch.arange(2 * n), 0, 2 * y] += 1
    return Task(Examples(x[None, :n], y[None, :n]), Examples(x[None, n:], y[None, n:]), n_way)


def run(task: Task | None = None, **options):
    given = {"budget": FEW, "limits": LIMITS, "proposer": RandomSearch()} | options
    return search(task or toy(), **given)


@pytest.fixture(autouse=True)
def one_millisecond(request, monkeypatch):
    """Latency is measured, which takes time, only where a test is of it."""
    if "latency" not in request.node.name:
        monkeypatch.setattr(OnOneTask, "latency", lambda self, architecture, *, seconds=0.0: 1.0)
        monkeypatch.setattr("quickstudy.nas.search.measure_latency", lambda *args: 1.0)


def test_a_search_gives_a_trained_network_within_limits():
    result = run(budget=replace(FEW, steps=12))
    assert LIMITS.allows(result.cost)
    assert result.cost.parameters == sum(p.numel() for p in result.network.parameters())
    assert all(LIMITS.allows(one.cost) for one in result.tried)
    assert len(result.tried) == 4
    assert result.test is not None
    assert result.test.percent > 80
    query = toy().query
    right = int((answer(result.network, query.x[0]).argmax(1) == query.y[0]).sum())
    assert right == result.test.right == int(result.confusion.diagonal().sum())


def test_what_is_chosen_goes_on_with_all_examples():
    result, task = run(), toy()
    steps = FEW.steps * ETA**RUNGS
    assert result.settings["final training"] == f"{steps} steps, {int(FURTHER * steps)} more on all examples"
    space, data = open_task(task, 0)
    (x, y), trainer = data.all, OnOneTask(space, data)
    assert sorted(x.flatten(1).sum(1).tolist()) == sorted(task.support.x[0].flatten(1).sum(1).tolist())
    network = trainer.network(result.architecture, seed=0)
    with one_thread():
        train(network, data.x, data.y, Schedule(steps=steps, shift=1), generator=Generator().manual_seed(0))
        again = Schedule(steps=int(FURTHER * steps), shift=1)
        train(network, x, y, again, generator=Generator().manual_seed(0))
    found, expected = result.network.state_dict(), network.state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_inputs_are_moved_in_every_training_unless_the_schedule_says_otherwise(monkeypatch):
    sound, began = OnOneTask.__call__, []

    def train(self, architecture, schedule, **options):
        began.append(schedule)
        return sound(self, architecture, schedule, **options)

    monkeypatch.setattr(OnOneTask, "__call__", train)
    for schedule, shift in ((None, 1), (Schedule(), 0), (Schedule(shift=2), 2)):
        result = run(schedule=schedule)
        assert {each.shift for each in began} == {shift}
        told = f"moved at random by {shift} at most, with probability 0.5" if shift else "as they are"
        assert result.settings["inputs"] == told
        began.clear()


def test_a_study_is_of_one_schedule(tmp_path):
    run(storage=tmp_path / "studies.db")
    with pytest.raises(StudyError, match="made with the schedule"):
        run(schedule=Schedule(lr=0.1), storage=tmp_path / "studies.db")


def test_of_the_two_best_the_validation_set_chooses(monkeypatch):
    sound, began = OnOneTask.__call__, []

    def train(self, architecture, schedule, *, keep=False, **options):
        outcome = sound(self, architecture, schedule, keep=keep, **options)
        if not keep:
            return outcome
        began.append(architecture)
        return replace(outcome, accuracy=Share(10 if len(began) == better else 5, 15))

    monkeypatch.setattr(OnOneTask, "__call__", train)
    for better in (1, 2):
        began.clear()
        result = run()
        best = [one.architecture for one in sorted(result.tried, key=lambda one: -one.value)[:2]]
        assert began == best
        assert result.architecture == began[better - 1]
        assert [share.right for _, share in result.finalists] == [10, 5]
    began.clear()
    result = run(budget=replace(FEW, trials=1))
    assert began == [result.architecture]


def test_it_does_not_where_seconds_are_few_or_it_diverges():
    space, data = open_task(toy(), 0)
    network = OnOneTask(space, data).network(space.sample(generator=Generator().manual_seed(0)), seed=0).eval()
    before = copy.deepcopy(network.state_dict())

    def further(lr=0.2, *, step=1e-9, seconds=60.0):
        deadline = None if seconds is None else time.perf_counter() + seconds
        return gone_on(network, data, Schedule(steps=8, lr=lr), seed=0, step=step, deadline=deadline)

    assert [further()[1], further(seconds=None)[1]] == [8 * FURTHER] * 2
    assert further(step=13.0)[1] == 8 * FURTHER  # there would be time for half of them: they take less than they did
    assert further(step=14.0) == further(seconds=-1.0) == further(lr=1e30) == (network, 0)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not network.training
    assert not further()[0].training


def test_a_network_that_going_on_has_broken_is_not_delivered(monkeypatch):
    def breaking(network, x, y, schedule, **options):
        with torch.no_grad():
            list(network.parameters())[-1][:] = torch.tensor([1e3, 0, 0])  # one answer to everything
        return Trained(torch.zeros(schedule.steps), 1.0, complete=True)

    space, data = open_task(toy(), 0)
    network = OnOneTask(space, data).network(space.sample(generator=Generator().manual_seed(0)), seed=0)
    with one_thread():
        train(network, *data.all, Schedule(steps=60), generator=Generator().manual_seed(0))
    monkeypatch.setattr("quickstudy.nas.search.train", breaking)
    assert gone_on(network, data, Schedule(steps=8), seed=0, step=1e-9, deadline=None) == (network, 0)


def test_a_search_by_trials_repeats_exactly():
    a, b = run(), run()
    assert [one.architecture for one in a.tried] == [one.architecture for one in b.tried]
    assert [one.value for one in a.tried] == [one.value for one in b.tried]
    assert all(torch.equal(p, q) for p, q in zip(a.network.state_dict().values(), b.network.state_dict().values()))


def test_a_search_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path):
    whole = run()
    run(budget=replace(FEW, trials=2), storage=tmp_path / "studies.db")
    rest = run(storage=tmp_path / "studies.db")
    assert [(one.architecture, one.value) for one in whole.tried] == [
        (one.architecture, one.value) for one in rest.tried
    ]
    assert whole.expected == rest.expected


def test_a_search_that_goes_on_under_narrower_limits_ends_on_what_keeps_to_them(tmp_path):
    wide = run(limits=Limits(), storage=tmp_path / "studies.db")
    narrow = Limits(max_params=wide.cost.parameters - 1)
    rest = run(budget=replace(FEW, trials=1), limits=narrow, storage=tmp_path / "studies.db")
    assert [one.architecture for one in rest.tried] == [one.architecture for one in wide.tried]
    assert all(narrow.allows(count(rest.space, architecture)) for architecture, _ in rest.finalists)


def test_trials_that_were_spent_on_what_breaks_the_limits_of_today_are_named(tmp_path):
    wide = run(limits=Limits(), storage=tmp_path / "studies.db")
    least = min(one.cost.parameters for one in wide.tried)
    with pytest.raises(OutcomeError, match=r"4 architectures were tried, and none .* parameters"):
        run(limits=Limits(max_params=least - 1), storage=tmp_path / "studies.db")


def test_a_search_that_was_killed_in_the_middle_of_a_training_goes_on_as_if_it_had_not_been(tmp_path, monkeypatch):
    class KilledError(BaseException):
        pass

    def train(self, architecture, schedule, **options):
        if schedule.steps == FEW.steps * ETA:  # the second rung of a trial
            raise KilledError
        return sound(self, architecture, schedule, **options)

    many = replace(FEW, trials=9)
    sound, whole = OnOneTask.__call__, run(budget=many)
    monkeypatch.setattr(OnOneTask, "__call__", train)
    with pytest.raises(KilledError):
        run(budget=many, storage=tmp_path / "studies.db")
    monkeypatch.setattr(OnOneTask, "__call__", sound)
    rest = run(budget=many, storage=tmp_path / "studies.db")
    assert [(one.architecture, one.value, one.accuracies) for one in whole.tried] == [
        (one.architecture, one.value, one.accuracies) for one in rest.tried
    ]
    assert whole.expected == rest.expected


def test_a_search_that_goes_on_keeps_to_the_steps_that_it_began_with(tmp_path):
    run(budget=replace(FEW, trials=1), storage=tmp_path / "studies.db")
    rest = run(budget=replace(FEW, steps=9), storage=tmp_path / "studies.db")
    assert rest.settings["first rung"] == f"{FEW.steps} steps"


def test_what_breaks_the_limits_of_today_steers_no_search(tmp_path):
    wide = run(budget=FEW, limits=Limits(max_params=1500), storage=tmp_path / "studies.db")
    seen = []
    narrow = Limits(max_params=min(one.cost.parameters for one in wide.tried))
    budget = replace(FEW, trials=6)
    rest = run(budget=budget, limits=narrow, storage=tmp_path / "studies.db", on_progress=seen.append)
    fitting = [one for one in rest.tried if narrow.allows(one.cost)]
    assert [one for one in rest.tried if one.fits] == fitting
    assert len(rest.tried) == 6 > len(fitting)
    assert {architecture for architecture, *_ in rest.front()} <= {one.architecture for one in fitting}
    assert seen[-1].best == max(one.value for one in fitting if one.value is not None)


def other_labels() -> Task:
    task = toy()
    return replace(task, support=Examples(task.support.x, task.support.y.flip(1)))


def test_a_study_of_other_examples_or_of_another_seed_is_refused(tmp_path):
    run(storage=tmp_path / "studies.db", budget=replace(FEW, trials=1))
    for options, said in (
        ({"task": toy(size=8)}, r"was made with the shape \[1, 6, 6\], not \[1, 8, 8\]"),
        ({"task": other_labels()}, "was made with the digest of the examples"),
        ({"seed": 1}, "was made with the seed 0, not 1: .* Choose another storage"),
    ):
        with pytest.raises(StudyError, match=said):
            run(storage=tmp_path / "studies.db", **options)


def test_one_in_three_goes_on_to_the_next_rung_and_counts_as_it_did(monkeypatch):
    percents = iter([50, 60, 70, 80, 10, 20, 30, 40, 45])
    seen = []

    def train(self, architecture, schedule, *, seed, deadline=None, keep=False):
        seen.append(schedule.steps)
        if keep:
            return Outcome(
                Share(9, 10), 1.0, schedule.steps, weights=self.network(architecture, seed=seed).state_dict()
            )
        percent = next(percents) if schedule.steps == 4 else 95
        return Outcome(Share(percent, 100), 1.0, schedule.steps)

    monkeypatch.setattr(OnOneTask, "__call__", train)
    result = run(budget=Budget(seconds=None, trials=9, steps=4))
    rungs = [len(one.accuracies) for one in result.tried]
    assert rungs == [1, 1, 2, 2, 1, 1, 1, 1, 1]  # the third and the fourth were the best of their time
    left = prod((5 + 0.5) / (error + 0.5) for error in (30, 20)) ** (1 / 2)
    assert result.tried[-1].value == pytest.approx(100 - 55 * left)
    assert sorted(set(seen)) == [4, 4 * ETA, 4 * ETA**RUNGS]


class Slow:
    """A step takes more than half a second."""

    def add(self, cost, outcome):
        pass

    def seconds(self, cost, steps):
        return 0.6 * steps


def test_a_training_that_diverges_is_recorded_and_the_search_goes_on(monkeypatch):
    sound, calls = OnOneTask.__call__, []

    def train(self, architecture, schedule, **options):
        calls.append(architecture)
        if len(calls) == 1:
            schedule = replace(schedule, lr=1e30)
        return sound(self, architecture, schedule, **options)

    monkeypatch.setattr(OnOneTask, "__call__", train)
    result = run()
    assert result.tried[0].value is None
    assert "Lower the rate" in result.tried[0].why
    assert [one.why for one in result.tried[1:]] == [None] * 3


def test_where_a_longer_training_diverges_the_shorter_one_counts(monkeypatch):
    sound, began = OnOneTask.__call__, []

    def train(self, architecture, schedule, *, keep=False, **options):
        if schedule.steps < ETA * FEW.steps:
            return Outcome(Share(8 + len(began), 15), 0.1, schedule.steps)  # each better than the one before
        if schedule.steps == ETA * FEW.steps:
            began.append(architecture)
            if len(began) == 1:
                return Outcome(Share(15, 15), 0.1, schedule.steps)  # what others would gain by going on
            schedule = replace(schedule, lr=1e30)
        return sound(self, architecture, schedule, keep=keep, **options)

    monkeypatch.setattr(OnOneTask, "__call__", train)
    *_, first, second = run().tried  # the first two are compared with too few to go on
    assert (len(first.accuracies), first.value, first.why) == (2, 100.0, None)
    assert (len(second.accuracies), second.value) == (1, second.accuracies[0].percent)
    assert "the loss is" in second.why


class Careless(RandomSearch):
    """Proposes what it likes."""

    def propose(self, task, trials, space, **options):
        return super().propose(task, trials, Tiny(shape=(1, 6, 6), n_classes=3), **options)


def test_a_proposer_that_breaks_the_limits_is_told():
    with pytest.raises(ArchitectureError, match=r"the proposer gave .* no member of tiny/1 within the limits, .*has"):
        run(proposer=Careless(), budget=replace(FEW, trials=20, steps=1))


def test_where_a_last_training_diverges_the_next_best_takes_its_place(monkeypatch):
    sound, last, spoil = OnOneTask.__call__, [], [True, True, False]

    def train(self, architecture, schedule, *, keep=False, **options):
        if keep:
            last.append(architecture)
            schedule = replace(schedule, lr=1e30) if spoil[len(last) - 1] else schedule
        return sound(self, architecture, schedule, keep=keep, **options)

    monkeypatch.setattr(OnOneTask, "__call__", train)
    result = run()
    assert [one.architecture for one in result.tried if one.value is None] == [
        one.architecture for one in result.tried if one.architecture in last[:2]
    ]
    assert all("in its last training, the loss is" in one.why for one in result.tried if one.value is None)
    assert result.architecture == last[2]
    assert set(result.reached).isdisjoint(last[:2])
    last.clear()
    spoil[:] = [True, False]
    assert run().architecture == last[1]
    last.clear()
    spoil[:] = [True] * 4
    with pytest.raises(OutcomeError, match="The last one failed: in its last training, the loss is"):
        run()


def test_where_every_training_fails_the_reason_is_told():
    with pytest.raises(OutcomeError, match="The last one failed: the loss is"):
        run(schedule=Schedule(lr=1e30))


def test_limits_that_nothing_meets_are_named():
    with pytest.raises(NothingFitsError, match="fewest parameters"):
        run(limits=Limits(max_params=10))
    with pytest.raises(NothingFitsError, match="the fastest takes"):
        run(limits=Limits(max_latency=1e-6))


def test_no_network_is_slower_than_a_limit_of_latency():
    space, data = open_task(toy(), 0)
    trainer, generator = OnOneTask(space, data), Generator().manual_seed(0)
    some = [trainer.latency(space.sample(generator=generator)) for _ in range(9)]
    limit = 2 * min(some)
    result = run(limits=Limits(max_latency=limit))
    assert all(0 < one.latency <= limit for one in result.tried)
    assert max(some) > limit
    assert result.front("latency")


def test_what_is_too_slow_is_no_trial_and_is_told(monkeypatch, tmp_path):
    def latency(self, architecture, *, seconds=0.02):
        return 0.5 + sum("conv" in str(value) for _, value in architecture.choices)

    monkeypatch.setattr(OnOneTask, "latency", latency)
    monkeypatch.setattr("quickstudy.nas.search.measure_latency", lambda *args: 0.5)
    result = run(limits=Limits(max_latency=1.7), storage=tmp_path / "studies.db")
    assert len(result.tried) == 4
    assert all(one.value is not None and one.latency <= 1.5 for one in result.tried)
    assert result.too_slow > 0
    wide = run(limits=LIMITS, budget=replace(FEW, trials=6), storage=tmp_path / "studies.db")
    assert [one.why for one in wide.tried] == [None] * 6
    assert wide.too_slow == 0


def test_finalists_are_measured_again_and_the_next_takes_the_place_of_one_that_is_too_slow(monkeypatch):
    sound, began = OnOneTask.__call__, []

    def train(self, architecture, schedule, **options):
        if options.get("keep"):
            began.append(architecture)
        return sound(self, architecture, schedule, **options)

    monkeypatch.setattr(OnOneTask, "__call__", train)
    best = [one.architecture for one in sorted(run().tried, key=lambda one: -one.value)]
    began.clear()
    slow = best[0]
    monkeypatch.setattr(OnOneTask, "latency", lambda self, a, seconds=0.0: 3.0 if seconds and a == slow else 1.0)
    monkeypatch.setattr("quickstudy.nas.search.measure_latency", lambda *args: 1.0)
    result = run(limits=replace(LIMITS, max_latency=2.0))
    assert began == best[1:3]
    assert result.architecture in best[1:3]


def test_two_examples_a_class_are_enough_and_one_is_not():
    assert run(toy(n=6)).expected.n == 3
    with pytest.raises(TooFewExamplesError, match="class 0 has 1"):
        run(toy(n=3))


def test_of_two_finalists_none_is_the_other_by_another_name():
    class Twins(RandomSearch):
        def propose(self, task, trials, space, *, n=1, generator):
            return [space.architecture((*DEAD[len(trials)], 4, 1, 1, "stride2", DOWNS[len(trials)], "mean"))]

    one = ("conv1", "none", "none", "conv3", "none", "none")  # the first leads nowhere
    DEAD = [one, ("none", *one[1:]), ("none", "none", "none", "conv1", "none", "none")]
    result = run(budget=replace(FEW, trials=3), proposer=Twins())
    assert len(result.tried) == 3
    assert len({result.space.graph(architecture) for architecture, _ in result.finalists}) == 2


def test_inputs_in_any_precision_are_searched_with():
    task = toy(n=30)
    result = run(replace(task, support=Examples(task.support.x.double(), task.support.y)))
    assert result.expected == run(task).expected


def test_queries_that_cannot_be_judged_are_refused_before_the_search():
    task = toy(n=12)
    with pytest.raises(ShapeError, match="a query label is 3"):
        run(replace(task, query=Examples(task.query.x, task.query.y + 1)))
    with pytest.raises(ShapeError, match="an input of the query set is not finite"):
        run(replace(task, query=Examples(task.query.x * torch.inf, task.query.y)))


def test_inputs_that_are_all_the_same_are_refused():
    task = toy(n=12)
    same = Examples(torch.ones_like(task.support.x), task.support.y)
    with pytest.raises(ShapeError, match="all inputs of the support set are the same"):
        run(replace(task, support=same))


def test_where_even_the_first_steps_diverge_the_reason_is_told():
    with pytest.raises(OutcomeError, match="no training succeeded"):
        run(budget=Budget(seconds=30.0, trials=1), schedule=Schedule(lr=1e30))


def test_where_another_process_has_the_only_trial_that_is_told(monkeypatch, tmp_path):
    options = {"budget": replace(FEW, trials=1), "storage": tmp_path / "studies.db"}
    sound, told = OnOneTask.__call__, []

    def train(self, architecture, schedule, **given):
        if schedule.steps == FEW.steps and not told:
            told.append("")
            with pytest.raises(OutcomeError, match="that share the study are training 1 of its networks: wait"):
                run(**options)
        return sound(self, architecture, schedule, **given)

    monkeypatch.setattr(OnOneTask, "__call__", train)
    assert len(run(**options).tried) == 1
    assert told


def test_tasks_that_are_not_one_task_of_classification_are_refused():
    task = toy()
    two = task.map(lambda value: torch.cat([value, value]))
    with pytest.raises(ShapeError, match="a batch of 2"):
        run(two)
    y = task.support.y[..., None].float()
    with pytest.raises(ShapeError, match="regression"):
        run(Task(Examples(task.support.x, y), Examples(task.query.x, y), None))
    with pytest.raises(ShapeError, match=r"as large as 1e\+38, .* Divide them"):
        run(replace(task, support=Examples(task.support.x * 0 + 1e38, task.support.y)))
    with pytest.raises(ShapeError, match="not finite"):
        run(replace(task, support=Examples(task.support.x * torch.inf, task.support.y)))


def test_a_budget_that_never_ends_or_never_begins_is_refused():
    with pytest.raises(QuantityError, match="never ends"):
        Budget(seconds=None)
    with pytest.raises(QuantityError, match="seconds=inf never ends"):
        Budget(seconds=math.inf)
    with pytest.raises(QuantityError, match="workers=0"):
        Budget(workers=0)
    with pytest.raises(QuantityError, match="seconds='60' has a text"):
        Budget(seconds="60")  # type: ignore[arg-type]


def test_the_front_has_what_nothing_beats_in_both():
    result = run()
    front = result.front()
    assert [price for _, price, _ in front] == sorted(price for _, price, _ in front)
    assert [value for *_, value in front] == sorted({value for *_, value in front})
    assert all(count(result.space, architecture).parameters == price for architecture, price, _ in front)


def test_what_was_trained_for_less_is_expected_where_the_finalists_went():
    result = run()
    (best, _), *_ = result.finalists
    tried = [replace(one, value=50.0) for one in result.tried]
    half = replace(result, tried=tuple(tried), finalists=((best, Share(75, 100)),))
    left = (25 + SMALLEST) / (50 + SMALLEST)
    expected = {one.architecture: 100 - 50 * left for one in tried} | {best: 75.0}
    assert half.reached == pytest.approx(expected)
    worse = replace(half, finalists=((best, Share(20, 100)),))
    assert worse.reached == {one.architecture: 50.0 for one in tried} | {best: 20.0}


def test_a_final_training_has_at_least_the_steps_that_earned_its_place(monkeypatch):
    def train(self, architecture, schedule, *, seed, deadline=None, keep=False):
        late = keep and schedule.steps > 10 * ETA
        steps = 1 if late else schedule.steps
        weights = self.network(architecture, seed=seed).state_dict() if keep else None
        return Outcome(Share(steps, 1000), 1.0, steps, weights=weights, complete=not late)

    monkeypatch.setattr(OnOneTask, "__call__", train)
    monkeypatch.setattr("quickstudy.nas.hunt.Pace.probe", lambda *args, **options: Slow())
    result = run(budget=Budget(seconds=60, trials=4, steps=10))
    assert [len(one.accuracies) for one in result.tried] == [1, 1, 2, 2]
    assert result.expected == Share(10 * ETA, 1000)
    assert result.cut == "30 of 90 steps"
    assert result.settings["final training"] == "30 of 90 steps, 45 more on all examples"
    assert run().cut is None


def test_a_last_training_for_which_there_are_no_seconds_has_as_many_as_its_trials_took():
    hunt, start = object.__new__(Hunt), time.perf_counter()
    hunt.steps, hunt.pace = 10, Slow()
    one = SimpleNamespace(accuracies=(Share(9, 10),), cost=None, seconds=40.0)
    assert hunt.last(one, math.inf) == (10 * ETA**RUNGS, None)
    steps, deadline = hunt.last(one, 3.0)  # of ten steps of .6 seconds
    assert (steps, deadline - start) == (10, pytest.approx(40, abs=5))
    steps, deadline = hunt.last(one, 50.0)
    assert (steps, deadline - start) == (10 * ETA ** (RUNGS + 1), pytest.approx(50, abs=5))


def test_where_nothing_has_succeeded_a_training_that_was_cut_counts(monkeypatch):
    sound = OnOneTask.__call__

    def train(self, architecture, schedule, *, seed, deadline=None, keep=False):
        outcome = sound(self, architecture, schedule, seed=seed, keep=keep)
        return replace(outcome, complete=keep)

    monkeypatch.setattr(OnOneTask, "__call__", train)
    result = run()
    assert [one.value is None for one in result.tried] == [False, True, True, True]
    assert result.architecture == result.tried[0].architecture


def test_going_on_leaves_time_to_be_tested(monkeypatch):
    space, data = open_task(toy(), 0)
    network = OnOneTask(space, data).network(space.sample(generator=Generator().manual_seed(0)), seed=0).eval()
    clock, deadlines, sound = [0.0], [], answer

    def asked(network, x):
        clock[0] += len(x) / 10
        return sound(network, x)

    def train(network, x, y, schedule, *, deadline, **options):
        deadlines.append(deadline)
        return Trained(torch.zeros(schedule.steps), 1.0, complete=True)

    monkeypatch.setattr("quickstudy.nas.search.answer", asked)
    monkeypatch.setattr("quickstudy.nas.search.train", train)
    monkeypatch.setattr("quickstudy.nas.search.time", SimpleNamespace(perf_counter=lambda: clock[0]))
    gone_on(network, data, Schedule(steps=8), seed=0, step=1e-9, deadline=100.0, queries=300)
    assert deadlines == [pytest.approx(100 - 6 - 30)]  # 60 examples again, and 300 queries


def test_a_latency_that_a_busy_moment_spoilt_is_measured_again(monkeypatch):
    times = iter([9.0, 9.0, 9.0, 0.5, *[9.0] * 20])
    monkeypatch.setattr("quickstudy.nas.search.measure_latency", lambda *args: next(times))
    result = run(limits=replace(LIMITS, max_latency=1.5))
    assert result.latency == 0.5
    assert result.limits.max_latency == 1.5


def test_a_training_that_was_cut_is_no_outcome(monkeypatch):
    sound, began = OnOneTask.__call__, []

    def train(self, architecture, schedule, *, seed, deadline=None, keep=False):
        began.append(schedule.steps)
        outcome = sound(self, architecture, schedule, seed=seed, keep=keep)
        cut = (schedule.steps == FEW.steps and len(began) > 3) or schedule.steps == FEW.steps * ETA
        return replace(outcome, accuracy=Share(min(15, len(began)), 15), complete=keep or not cut)

    monkeypatch.setattr(OnOneTask, "__call__", train)
    *others, third, fourth = run().tried
    assert began[:5] == [FEW.steps] * 3 + [FEW.steps * ETA, FEW.steps]
    assert [len(one.accuracies) for one in (*others, third)] == [1, 1, 1]
    assert third.value == third.accuracies[0].percent
    assert fourth.value is None
    assert fourth.why.startswith("no time left")


def test_a_search_whose_process_is_killed_goes_on_in_this_one(monkeypatch):
    class Killed(Workers):
        def submit(self, *args, **options):
            if began or options.get("keep"):
                return super().submit(*args, **options)
            began.append(args)
            future = Future()
            future.set_exception(BrokenProcessPool())
            return future

    began = []
    monkeypatch.setattr("quickstudy.nas.workers.Workers", Killed)
    tried = run().tried
    assert [one.why for one in tried] == [None] * 4  # nobody knows which training it was: all are done again
    assert began[0][0] == tried[0].architecture


def test_two_processes_try_as_many_and_none_twice(monkeypatch):
    monkeypatch.setattr(Workers, "n", 2)  # without waiting until they are up
    result = run(budget=replace(FEW, workers=2))
    assert len({one.architecture for one in result.tried}) == 4


def test_seconds_are_kept():
    for seconds in (3.0, 12.0, 48.0):  # of which a busy machine may take many to begin at all
        try:
            result = run(budget=Budget(seconds=seconds, workers=1))
            break
        except OutcomeError:
            continue
    assert result.seconds < seconds + 5
    assert result.expected.n == 15


@pytest.mark.parametrize(
    ("passed", "succeeded", "over", "late"),
    [(20, True, False, False), (50, True, True, True), (50, False, False, False), (90, False, True, True)],
)
def test_trials_begin_for_longer_where_none_has_succeeded(passed, succeeded, over, late):
    hunt = object.__new__(Hunt)
    hunt.budget, hunt.start, hunt.succeeded = Budget(seconds=100.0), time.perf_counter() - passed, succeeded
    assert (hunt.is_over(), hunt.is_too_late()) == (over, late)


def test_the_pace_is_found_within_seconds():
    space = Tiny(shape=(1, 12, 12), n_classes=3)
    within, asked = Limits().within(space), []

    class Proportional:
        def __init__(self):
            self.space = space

        def __call__(self, architecture, schedule, *, seed):
            asked.append(madds(space, architecture))
            return Outcome(Share(1, 2), 1e-6 * asked[-1] * schedule.steps, schedule.steps)

    Pace.probe(Proportional(), within, Schedule(), seed=0)
    least, _, largest = asked
    asked.clear()
    Pace.probe(Proportional(), within, Schedule(), seed=0, seconds=5e-6 * largest / 2)
    assert asked[:2] == [least, least]
    assert all(one <= largest / 2 for one in asked)
    asked.clear()
    Pace.probe(Proportional(), within, Schedule(), seed=0, seconds=1e-9)
    assert asked == [least, least]
