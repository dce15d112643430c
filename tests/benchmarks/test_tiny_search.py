"""Searches among measured networks keep to them, and their figures mean what they say."""

import json
from dataclasses import replace

import pytest
import torch
from torch import Generator

from quickstudy.experience.trial import TaskDescription, Trial
from quickstudy.nas.build import Limits, count
from quickstudy.nas.corpus import Measured
from quickstudy.nas.source import Rows
from quickstudy.nas.tables import seeded
from quickstudy.nas.tiny import Tiny
from quickstudy.tasks.task import Examples, Task

TASK = TaskDescription("toy")


@pytest.fixture(scope="module")
def tiny_search(script):
    return script("tiny_search")


def toy(name, shape, seed=0):
    """A task on which wide networks are better."""
    space, generator = Tiny(shape=shape, n_classes=3), Generator().manual_seed(seed)
    members = tuple(dict.fromkeys(space.sample(generator=generator) for _ in range(30)))
    width = torch.tensor([float(a["width"]) for a in members]).double()[:, None] / 40
    accuracy = width + 0.01 * torch.randn(len(members), 2, generator=seeded(name)).double()
    return Measured(
        name, space, members, accuracy, accuracy.flip(1), accuracy[:, 0], accuracy, width.expand(-1, 7), {"common": 10}
    )


@pytest.fixture
def small(tiny_search, monkeypatch):
    """Six tasks, without embeddings, and AENs that learn for a moment."""
    shapes = {"a": (1, 8, 8), "b": (1, 8, 8), "c": (3, 8, 8), "d": (1, 8, 8), "e": (1, 20), "f": (1, 30)}
    tasks = {name: toy(name, shape) for name, shape in shapes.items()}
    monkeypatch.setattr(tiny_search, "corpus", lambda: tasks)
    monkeypatch.setattr(tiny_search, "MARKS", (1, 3, 12))
    monkeypatch.setattr(tiny_search, "MEMBERS", 2)
    monkeypatch.setattr(tiny_search, "EPOCHS", 60)
    monkeypatch.setattr(tiny_search, "ITERATIONS", 0)
    tiny_search.folds.cache_clear()
    yield tasks
    tiny_search.folds.cache_clear()


def test_the_other_folds_hold_neither_the_task_nor_its_fold(tiny_search, small):
    assert sorted(name for part in tiny_search.folds() for name in part) == sorted(small)
    for part in tiny_search.folds():
        for name in part:
            assert not set(part) & set(tiny_search.sources(name))
    of_e, of_f = (next(part for part in tiny_search.folds() if name in part) for name in "ef")
    assert of_e != of_f


def test_measured_networks_are_a_space_of_which_bayesian_search_sees_all(tiny_search, small):
    one = small["a"]
    space = tiny_search.Listed(one.space, one.architectures)
    generator = Generator().manual_seed(0)
    assert {space.sample(generator=generator) for _ in range(500)} == set(one.architectures)
    assert set(space.neighbours(one.architectures[0])) <= set(one.architectures[1:])
    _, pool, _ = tiny_search.BayesianSearch(None, drawn=tiny_search.DRAWN).pool(TASK, space)
    assert len(pool) == len(one.architectures)


def test_parzen_goes_for_the_width_that_was_best_and_never_twice(tiny_search, small):
    one = small["a"]
    space = tiny_search.Listed(one.space, one.architectures)
    search, trials = tiny_search.Parzen(["width"], tiny_search.measured, initial=6), []
    for i in range(len(one.architectures)):
        (choice,) = search.propose(TASK, trials, space, generator=seeded(i))
        trials.append(Trial(choice, float(choice["width"])))
    assert {trial.choice for trial in trials} == set(one.architectures)
    assert search.propose(TASK, trials, space, generator=seeded(0)) == []
    widths = [trial.value for trial in trials]
    assert sum(widths[6:12]) > sum(widths[-6:])


def test_regret_falls_with_trials_and_a_search_that_knows_begins_better(tiny_search, small):
    first = {}
    for name in ("random", "evolution", "best_fixed_architecture", "bayesian_search_without_aen"):
        found = tiny_search.run_table(name, "a", 4)[tiny_search.REGRET]
        assert len(found) == (2 if name == "best_fixed_architecture" else 4)
        assert all(0 <= each[2] <= each[0] + 3 for each in found)
        first[name] = sum(each[0] for each in found) / len(found)
    assert first["best_fixed_architecture"] < first["random"]


def test_best_fixed_is_in_common_and_the_nearest_stands_in_between_pictures_and_series(tiny_search, small):
    for name in ("a", "e"):
        found = tiny_search.best_fixed(name)
        assert set(found) == set(small[name].architectures[:10])
        assert found[0]["width"] >= 16


def test_shuffled_outcomes_are_the_same_ones_elsewhere(tiny_search, small, monkeypatch):
    seen = []
    monkeypatch.setattr(tiny_search, "learn_search_prior", lambda rows, **options: seen.append(rows))
    for shuffled in (False, True):
        tiny_search.learn_prior(small, tiny_search.Variant(task=False, shuffled=shuffled))
    plain, mixed = seen
    for name in small:
        assert not torch.equal(plain[name].values, mixed[name].values)
        assert torch.equal(plain[name].values.sort().values, mixed[name].values.sort().values)
        assert isinstance(mixed[name], Rows)


def test_units_are_kept_and_measured_again_when_the_corpus_has_grown(tiny_search, small, monkeypatch, tmp_path):
    monkeypatch.setattr(tiny_search, "PRIORS", tmp_path / "checkpoints")
    call = ["--out", str(tmp_path), "--repetitions", "2", "--only", "bayesian_search_without_aen", "random"]
    assert tiny_search.main(call) == 0
    rows = {(r["method"], r["setting"], r["metric"]): r for r in read(tmp_path)["rows"]}
    row = rows["random", "measured networks, 12 trials", "regret"]
    bare = rows["bayesian_search_without_aen", "measured networks, 12 trials", "regret"]
    beyond = rows["random", "measured networks, 12 trials", "regret beyond that without AEN"]
    assert row["n"] == len(small)
    assert row["value"] == pytest.approx(sum(row["tasks"].values()) / len(small), abs=1e-3)
    assert beyond["value"] == pytest.approx(row["value"] - bare["value"], abs=1e-3)
    monkeypatch.setattr(tiny_search, "run_table", lambda *_: pytest.fail("measured twice"))
    assert tiny_search.main(call) == 0
    grown = {**small, "g": replace(toy("g", (1, 8, 8)), name="g")}
    monkeypatch.setattr(tiny_search, "corpus", lambda: grown)
    tiny_search.folds.cache_clear()
    tiny_search.renew(tmp_path / "tiny_search.json")
    assert read(tmp_path)["rows"] == []


def test_live_searches_keep_to_the_limits_and_to_the_seconds(tiny_search):
    pytest.importorskip("optuna")
    y = torch.arange(60) % 3
    x = torch.rand(60, 1, 8, 8, generator=Generator().manual_seed(0)) + y.view(-1, 1, 1, 1)
    task = Task(Examples(x[None, :45], y[None, :45]), Examples(x[None, 45:], y[None, 45:]), n_way=3)
    space, limits = Tiny(shape=(1, 8, 8), n_classes=3), Limits(max_params=6000, max_memory=3000)
    live = tiny_search.Live("toy", task, space, limits, 2.0, 0)
    plain = tiny_search.plain_networks(limits.within(space))
    assert plain
    assert all(limits.allows(count(space, a)) for a in plain)
    for ended in (
        tiny_search.by_search(live, proposer=tiny_search.Parzen(["width", "depth"], tiny_search.plain_networks)),
        tiny_search.by_training(live, plain[0]),
    ):
        assert ended.violated == 0
        assert ended.percent > 40
        assert ended.trials >= 1
        assert ended.seconds < 12
    assert limits.allows(count(space, tiny_search.largest_within(live)))


def read(folder):
    return json.loads((folder / "tiny_search.json").read_text())
