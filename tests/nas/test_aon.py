"""AON learns to improve architectures, within limits, and from feedback."""

from collections.abc import Mapping, Sequence
from itertools import product

import pytest
import torch
from torch import Generator, Tensor

from quickstudy.errors import ShapeError
from quickstudy.experience.trial import TaskDescription, Trial
from quickstudy.nas.aen import Prior, learn
from quickstudy.nas.aon import AON, AONSearch, Feedback, improve, outcomes
from quickstudy.nas.aon_training import draw_walks, learn_to_improve, lessons, loss
from quickstudy.nas.architecture import Architecture, Value
from quickstudy.nas.calibration import Stranger, strangers
from quickstudy.nas.landscape import Landscape
from quickstudy.nas.limited import Limited
from quickstudy.nas.nasbench201 import NASBench201
from quickstudy.nas.source import Rows
from quickstudy.nas.space import Space

OPERATIONS = ("skip_connect", "nor_conv_1x1", "nor_conv_3x3")


class Small(NASBench201):
    """729 cells, all of whose operations matter."""

    name = "small"
    choices: Mapping[str, tuple[Value, ...]] = dict.fromkeys(NASBench201.choices, OPERATIONS)


SPACE, TASK = Small(), TaskDescription("new")


def worth(a: Architecture, taste: int) -> float:
    """Convolutions are worth something everywhere, and each task has its own taste for skips, which no graph tells."""
    signs = torch.randint(2, (6,), generator=Generator().manual_seed(taste)).tolist()
    weights = {"nor_conv_3x3": 1.0, "nor_conv_1x1": 0.5}
    return float(sum(weights.get(str(v), 4 * sign - 1) for (_, v), sign in zip(a.choices, signs)))


def rows(taste: int, n: int = 60) -> Rows:
    generator = Generator().manual_seed(taste)
    members = tuple({SPACE.sample(generator=generator): None for _ in range(n)})
    return Rows(members, torch.tensor([worth(a, taste) for a in members]))


def threes(a: Architecture) -> int:
    """3x3 convolutions."""
    return sum(v == OPERATIONS[2] for _, v in a.choices)


def cost(space: Space, architectures: Sequence[Architecture]) -> Tensor:
    """The same as a fact."""
    return torch.tensor([[float(threes(a))] for a in architectures])


EXPERIENCE = {f"task {i}": rows(i) for i in range(6)}


@pytest.fixture(scope="module")
def prior() -> Prior:
    torch.manual_seed(0)
    return learn(Prior(SPACE, members=2, width=16), EXPERIENCE, epochs=25)


@pytest.fixture(scope="module")
def others(prior: Prior) -> list[Stranger]:
    return strangers(prior, EXPERIENCE, folds=2, epochs=25, generator=Generator().manual_seed(0))


@pytest.fixture(scope="module")
def aon(prior: Prior, others: list[Stranger]) -> AON:
    torch.manual_seed(0)
    generator = Generator().manual_seed(0)
    return learn_to_improve(AON(SPACE), prior, EXPERIENCE, others, costs=cost, iterations=50, generator=generator)


def some_trials(taste: int, n: int, seed: int = 0) -> list[Trial[Architecture]]:
    generator = Generator().manual_seed(seed)
    members = {SPACE.sample(generator=generator): None for _ in range(n)}
    return [Trial(a, worth(a, taste)) for a in members]


def test_on_a_task_that_is_new_it_beats_mutation_and_its_untrained_self_from_the_same_starts(
    aon: AON, prior: Prior
) -> None:
    torch.manual_seed(0)
    methods = {"trained": aon, "untrained": AON(SPACE)}
    reached = dict.fromkeys((*methods, "mutation"), 0.0)
    for taste, seed in product(range(100, 106), range(2)):
        trials = some_trials(taste, 12, seed)
        for name, method in methods.items():
            (found,) = AONSearch(method, prior).propose(TASK, trials, SPACE, generator=Generator().manual_seed(seed))
            reached[name] += worth(found, taste) / 12
        best = max(trials, key=lambda trial: trial.value or 0)
        mutant = SPACE.mutate(best.choice, generator=Generator().manual_seed(seed))
        reached["mutation"] += worth(mutant, taste) / 12
    assert reached["trained"] > reached["untrained"] + 0.3
    assert reached["trained"] > reached["mutation"] + 0.3


def test_where_all_that_was_drawn_is_too_slow_by_now_nothing_is_improved(aon: AON, prior: Prior) -> None:
    empty, members = SPACE.architecture([OPERATIONS[0]] * 6), set[Architecture]()
    space = Limited(SPACE, lambda a: a not in members, [empty])
    land = Landscape(prior, space)
    members.update(land.architectures)
    assert improve(aon, land, [], 3, generator=Generator().manual_seed(0)) == []


def test_untrained_it_climbs_what_aen_predicts(prior: Prior) -> None:
    torch.manual_seed(0)
    land, method = Landscape(prior, SPACE), AON(SPACE)
    start = land.numbers([SPACE.sample(generator=Generator().manual_seed(i)) for i in range(8)])
    *_, last = method.walk(land, start, greedy=torch.ones(8, dtype=torch.bool), generator=Generator())
    end = last.near.gather(1, last.log_probability.argmax(1, keepdim=True))[:, 0]
    assert (land.mean[end] >= land.mean[start]).all()
    assert (land.mean[end] > land.mean[start]).sum() >= 6


def test_the_same_generator_gives_the_same_proposals_whatever_was_asked_before(aon: AON, prior: Prior) -> None:
    def propose(method: AONSearch) -> list[Architecture]:
        return method.propose(TASK, some_trials(0, 5), SPACE, n=4, generator=Generator().manual_seed(3))

    method = AONSearch(aon, prior)
    method.propose(TASK, some_trials(0, 9), SPACE, n=2, generator=Generator().manual_seed(1))
    assert propose(method) == propose(AONSearch(aon, prior))


def test_nothing_is_proposed_twice_in_batches_after_failures_or_when_little_is_left(aon: AON, prior: Prior) -> None:
    space = Limited(SPACE, lambda a: threes(a) == 0, [SPACE.architecture([OPERATIONS[0]] * 6)])
    method, trials = AONSearch(aon, prior), list[Trial[Architecture]]()
    for seed in range(6):
        found = method.propose(TASK, trials, space, n=8, generator=Generator().manual_seed(seed))
        trials += [Trial(a, worth(a, 0) if "skip" in str(a["0-1"]) else None) for a in found]
    assert len(trials) == len({trial.choice for trial in trials}) == 48


def test_limits_are_kept_though_what_was_tried_breaks_them(aon: AON, prior: Prior) -> None:
    space = Limited(SPACE, lambda a: threes(a) <= 1, [SPACE.architecture([OPERATIONS[0]] * 6)])
    for seed in range(5):
        found = AONSearch(aon, prior).propose(
            TASK, some_trials(0, 6, seed), space, n=10, generator=Generator().manual_seed(seed)
        )
        assert len(found) == 10
        assert all(space.has(a) for a in found)


def test_where_cost_weighs_proposals_are_cheaper(aon: AON, prior: Prior) -> None:
    def mean_cost(weight: float) -> float:
        method = AONSearch(aon, prior, costs=cost, weights=torch.tensor([weight]))
        found = [
            a
            for taste in range(3)
            for a in method.propose(TASK, some_trials(taste, 8), SPACE, n=4, generator=Generator().manual_seed(taste))
        ]
        return float(cost(SPACE, found).mean())

    heavy, light, none = map(mean_cost, (2.0, 0.2, 0.0))
    assert heavy <= light <= none
    assert heavy < none


def test_failures_only_and_no_trials_at_all_are_feedback_too(aon: AON, prior: Prior) -> None:
    failed = [Trial(trial.choice, None) for trial in some_trials(0, 3)]
    for trials in ([], failed, [*failed, *some_trials(0, 1, 5)]):
        assert len(improve(aon, Landscape(prior, SPACE), trials, 3, generator=Generator().manual_seed(0))) == 3


def test_a_failure_is_the_worst_and_what_is_pending_is_like_what_aen_takes_for_as_good(prior: Prior) -> None:
    landscape, trials = Landscape(prior, SPACE), some_trials(0, 8)
    at, values = outcomes(landscape, trials)
    assert values.tolist() == [trial.value for trial in trials]
    trials[2], trials[5] = Trial(trials[2].choice, None), Trial(trials[5].choice, None, pending=True)
    again, found = outcomes(landscape, trials)
    assert torch.equal(at, again)
    rest = [i for i in range(len(trials)) if i != 5]
    assert float(found[2]) == float(values[[i for i in rest if i != 2]].min()) - 1
    nearest = min(rest, key=lambda i: float((landscape.mean[at[i]] - landscape.mean[at[5]]).abs()))
    assert float(found[5]) == float(found[nearest])
    pending = [Trial(trial.choice, None, pending=True) for trial in trials]
    assert outcomes(landscape, pending)[1].tolist() == [0] * len(trials)


def test_what_is_pending_is_not_offered(aon: AON, prior: Prior) -> None:
    pending = [Trial(trial.choice, None, pending=True) for trial in some_trials(0, 4)]
    for trials in (pending, [*pending, *some_trials(0, 4, 1)]):
        found = improve(aon, Landscape(prior, SPACE), trials, 5, generator=Generator().manual_seed(0))
        assert len(found) == 5
        assert not {trial.choice for trial in trials} & set(found)


def test_steps_go_to_neighbours_with_probabilities_that_sum_to_one(aon: AON, prior: Prior) -> None:
    land = Landscape(prior, SPACE)
    start = land.numbers([trial.choice for trial in some_trials(0, 4)])
    for step in aon.walk(land, start, generator=Generator().manual_seed(0)):
        torch.testing.assert_close(step.log_probability.exp().sum(1), torch.ones(4))
        assert (step.near[step.log_probability.isfinite()] >= 0).all()


def test_the_unit_of_outcomes_does_not_matter(prior: Prior) -> None:
    land, values = Landscape(prior, SPACE), torch.rand(1, 6, dtype=torch.float64)
    at = land.numbers([trial.choice for trial in some_trials(0, 6)])[None]
    once, again = (Feedback.of(land, at, v) for v in (values, 1e3 * values - 7))
    torch.testing.assert_close(once.score, again.score)
    torch.testing.assert_close(once.trust, again.trust)


def test_a_landscape_says_the_same_in_any_order(prior: Prior) -> None:
    trials = [trial.choice for trial in some_trials(0, 10)]
    one, other = Landscape(prior, SPACE, costs=cost), Landscape(prior, SPACE, costs=cost)
    here, there = one.numbers(trials), other.numbers(trials[::-1]).flip(0)
    for name in ("mean", "std", "features", "costs"):
        torch.testing.assert_close(getattr(one, name)[here], getattr(other, name)[there])
    near, neighbours = one.around(here[:1])[0].tolist(), {str(a) for a in SPACE.neighbours(trials[0])}
    assert {str(one.architectures[i]) for i in near} == neighbours | {str(trials[0])}


def test_only_what_is_considered_is_looked_at(aon: AON, prior: Prior) -> None:
    land = Landscape(prior, SPACE)
    start = land.numbers([trial.choice for trial in some_trials(0, 4)])
    (step,) = aon.walk(land, start, steps=1, considered=5, generator=Generator().manual_seed(0))
    assert ((step.near >= 0).sum(1) <= 5 + 6).all()
    assert land.around(start).shape == step.near.shape
    assert (land.around(start)[step.near >= 0] == step.near[step.near >= 0]).all()


def test_a_lesson_knows_real_outcomes_where_there_are_some_and_its_teacher_agrees(
    prior: Prior, others: list[Stranger]
) -> None:
    parts = lessons(prior, EXPERIENCE, others)
    lesson = parts[0][0]
    unseen = [trial.choice for trial in some_trials(0, 40, 9)]
    at = lesson.landscape.numbers(unseen)
    truth = torch.tensor([worth(a, 0) for a in unseen])
    assert torch.corrcoef(torch.stack([lesson.landscape.outcome[at], truth]))[0, 1] > 0.8
    assert lesson.landscape.outcome[lesson.rows].argmax() == EXPERIENCE["task 0"].values.argmax()


def test_the_loss_falls_along_its_gradient(prior: Prior, others: list[Stranger]) -> None:
    torch.manual_seed(0)
    method, ((lesson, *_), *_) = AON(SPACE), lessons(prior, EXPERIENCE, others)

    def now() -> Tensor:
        given = draw_walks(lesson, 8, Generator().manual_seed(0))
        steps = method.walk(
            lesson.landscape,
            given.start,
            feedback=given.feedback,
            weights=given.weights,
            steps=1,
            generator=Generator(),
        )
        return loss(lesson, given, steps)

    before = now()
    before.backward()
    with torch.no_grad():
        for parameter in method.parameters():
            if parameter.grad is not None:
                parameter.sub_(1e-3 * parameter.grad)
    assert now() < before


def test_too_little_experience_is_named(prior: Prior, others: list[Stranger]) -> None:
    with pytest.raises(ShapeError, match="Give two"):
        learn_to_improve(AON(SPACE), prior, {"one": rows(0)}, others, generator=Generator())
    with pytest.raises(ShapeError, match="lonely has fewer than four"):
        learn_to_improve(AON(SPACE), prior, {"one": rows(0), "lonely": rows(1, 2)}, others, generator=Generator())
