"""What strangers say of tasks that they have not seen tells how far a prior is to be believed."""

from dataclasses import replace

import pytest
import torch
from torch import Generator

from quickstudy.nas.aen import Prior, expected, learn
from quickstudy.nas.calibration import Stranger, calibrate, quantile, strangers
from quickstudy.nas.nasbench201 import NASBench201
from quickstudy.nas.source import Rows, normal_scores

SPACE = NASBench201()
WORTH = {"nor_conv_3x3": 1.0, "nor_conv_1x1": 0.7, "skip_connect": 0.4, "avg_pool_3x3": 0.2, "none": 0.0}


def rows(seed: int, *, noise: float = 0.0, n: int = 60) -> Rows:
    """More convolution is better on every task, up to noise."""
    generator = Generator().manual_seed(seed)
    members = tuple({SPACE.sample(generator=generator): None for _ in range(n)})
    worth = torch.tensor([sum(WORTH[str(v)] for _, v in a.choices) for a in members])
    return Rows(members, worth + noise * torch.randn(len(members), generator=generator))


ALIKE = {f"task {i}": rows(i, noise=0.5) for i in range(4)}
SHUFFLED = {
    name: replace(one, values=one.values[torch.randperm(len(one), generator=Generator().manual_seed(i))])
    for i, (name, one) in enumerate(ALIKE.items())
}


def learned(experience: dict[str, Rows]) -> tuple[Prior, list[Stranger]]:
    torch.manual_seed(0)
    prior = learn(Prior(SPACE, members=2, width=16), experience, epochs=40)
    return prior, strangers(prior, experience, folds=2, epochs=40, generator=Generator().manual_seed(0))


@pytest.fixture(scope="module")
def alike() -> tuple[Prior, list[Stranger]]:
    return learned(ALIKE)


def test_every_task_is_left_out_once(alike: tuple[Prior, list[Stranger]]) -> None:
    assert sorted(name for one in alike[1] for name in one.unseen) == sorted(ALIKE)
    prior = Prior(SPACE, members=1, width=8)
    generator = Generator().manual_seed(0)
    assert [one.unseen for one in strangers(prior, ALIKE, folds=9, epochs=1, generator=generator)] == [
        (name,) for name in ALIKE
    ]


def test_tasks_of_one_data_set_are_left_out_together() -> None:
    kin = {name: replace(one, data="same" if i < 3 else None) for i, (name, one) in enumerate(ALIKE.items())}
    prior = Prior(SPACE, members=1, width=8)
    unseen = [one.unseen for one in strangers(prior, kin, folds=3, epochs=1, generator=Generator().manual_seed(0))]
    assert unseen == [("task 0", "task 1", "task 2"), ("task 3",)]


def test_of_one_task_there_is_no_stranger_and_nothing_changes() -> None:
    prior, one = Prior(SPACE, members=1, width=8), {"only": rows(0)}
    others = strangers(prior, one, generator=Generator())
    assert not others
    calibrate(prior, one, others, generator=Generator())
    assert (float(prior.inflation), float(prior.trust)) == (1.0, 0.5)


def test_ninety_percent_of_a_new_tasks_outcomes_lie_in_the_interval(alike: tuple[Prior, list[Stranger]]) -> None:
    prior, others = alike
    calibrate(prior, ALIKE, others, generator=Generator().manual_seed(0))
    covered = []
    for seed in range(10, 16):
        new = rows(seed, noise=0.5)
        said = expected(prior, new.architectures)
        covered.append(((normal_scores(new.values) - said.mean).abs() < 1.645 * said.stddev).float().mean())
    assert 0.82 < float(torch.stack(covered).mean()) < 0.97


def test_what_transfers_is_trusted_and_what_is_shuffled_is_not(alike: tuple[Prior, list[Stranger]]) -> None:
    prior, others = alike
    shuffled, strange = learned(SHUFFLED)
    calibrate(prior, ALIKE, others, generator=Generator().manual_seed(0))
    calibrate(shuffled, SHUFFLED, strange, generator=Generator().manual_seed(0))
    assert float(prior.trust) > 0.7 > 0.5 > float(shuffled.trust)


def test_its_deviations_are_multiplied_and_its_means_stay(alike: tuple[Prior, list[Stranger]]) -> None:
    prior, some = alike[0], rows(20, n=5).architectures
    prior.inflation.fill_(1.0)
    before = expected(prior, some)
    prior.inflation.fill_(2.5)
    after = expected(prior, some)
    torch.testing.assert_close(after.mean, before.mean)
    torch.testing.assert_close(after.stddev, 2.5 * before.stddev)


def test_a_weighted_quantile_has_its_share_below() -> None:
    values, weights = torch.tensor([3.0, 1.0, 2.0, 4.0]), torch.tensor([1.0, 1.0, 1.0, 7.0])
    assert quantile(values, weights, 0.3) == 3.0
    assert quantile(values, weights, 0.31) == 4.0
    assert quantile(values, torch.ones(4), 0.5) == 2.0


def told(seeds: range, *, reversing: bool) -> dict[str, Rows]:
    """Tasks whose embedding is random but for its first number, at whose sign they may be the other way round."""
    found = {}
    for seed in seeds:
        sign = 1.0 if seed % 2 else -1.0
        noise = 2 * torch.randn(3, generator=Generator().manual_seed(seed))
        one = rows(seed, noise=0.3, n=30)
        found[f"task {seed}"] = replace(
            one,
            values=sign * one.values if reversing else one.values,
            task=torch.cat([torch.tensor([sign]), 0 * noise if reversing else noise]),
        )
    return found


@pytest.mark.parametrize("reversing", [True, False])
def test_an_embedding_is_heeded_where_it_helps_on_new_tasks(reversing: bool) -> None:
    torch.manual_seed(0)
    experience = told(range(6), reversing=reversing)
    prior = learn(Prior(SPACE, members=1, width=8, task=4), experience, epochs=20)
    others = strangers(prior, experience, folds=3, epochs=20, generator=Generator().manual_seed(0))
    calibrate(prior, experience, others, generator=Generator().manual_seed(0))
    if reversing:
        assert float(prior.heed) >= 0.75
    else:
        assert float(prior.heed) <= 0.25
    assert all(float(one.prior.heed) == float(prior.heed) for one in others)


def test_what_is_not_heeded_is_taken_for_the_usual_task() -> None:
    torch.manual_seed(0)
    experience = told(range(4), reversing=True)
    prior = learn(Prior(SPACE, members=2, width=8, task=4), experience, epochs=2)
    usual = torch.stack([one.task for one in experience.values() if one.task is not None]).mean(0)
    some, strange = rows(20, n=5).architectures, torch.full((4,), 3.0)
    complete, between = expected(prior, some, strange).mean, expected(prior, some, (usual + strange) / 2).mean
    prior.heed.fill_(0.5)
    torch.testing.assert_close(expected(prior, some, strange).mean, between)
    prior.heed.fill_(0.0)
    torch.testing.assert_close(expected(prior, some, strange).mean, expected(prior, some, usual).mean)
    assert not torch.allclose(complete, between)
