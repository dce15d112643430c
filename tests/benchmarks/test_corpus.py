import csv
import json
import os

import pytest
import torch

from quickstudy.nas.build import count
from quickstudy.nas.tiny import Tiny
from quickstudy.nas.train import Descent

FORMULAS = ("cylinder-bell-funnel", "control-charts", "two-patterns")
"""Tasks that need no data."""


@pytest.fixture(scope="module")
def corpus(script):
    return script("corpora.tiny")


@pytest.fixture
def size(corpus):
    return corpus.Size(common=1, plain=1, near=1, own=1, steps=4)


def names(corpus):
    return list(corpus.RECIPES) if os.environ.get("QUICKSTUDY_DATA") else list(FORMULAS)


def test_a_task_is_the_same_whenever_it_is_loaded(corpus):
    (first, labels), (second, again) = (corpus.load("two-patterns") for _ in range(2))
    assert torch.equal(first.support.x, second.support.x)
    assert torch.equal(first.query.y, second.query.y)
    assert labels == again == ("up up", "up down", "down up", "down down")


def test_every_task_has_300_examples_to_be_judged_on_and_all_classes_in_each_part(corpus):
    for name in names(corpus):
        task, class_names = corpus.load(name)
        assert len(task) == 1
        assert task.n_way == len(class_names)
        assert task.query.n >= 300, name
        recipe = corpus.RECIPES[name]
        for (x, y), each in zip(corpus.parts(name, task), (recipe.train, recipe.validation, None)):
            counts = y.bincount(minlength=task.n_way)
            assert len(x) == len(y)
            assert counts.min() > 0, name
            assert each is None or set(counts.tolist()) == {each}
        assert task.support.x.isfinite().all()


def test_the_parts_of_a_task_share_no_example(corpus):
    for name in FORMULAS:
        task, _ = corpus.load(name)
        rows = [tuple(row) for row in torch.cat([task.support.x[0], task.query.x[0]]).flatten(1).tolist()]
        assert len(set(rows)) == len(rows)


def test_no_character_of_the_few_shot_tests_is_in_a_task(corpus):
    if not os.environ.get("QUICKSTUDY_DATA"):
        pytest.skip("needs QUICKSTUDY_DATA")
    from corpora.tasks import characters

    from quickstudy.tasks.glyphs import TEST
    from quickstudy.tasks.omniglot import omniglot

    assert not set(characters("glyphs").groups) & set(TEST)
    tested = set(omniglot("test", protocol="alphabets", rotations=False).class_names)
    assert not set(characters("omniglot").class_names) & tested


def test_networks_keep_to_the_limits_and_tasks_share_the_first(corpus):
    size = corpus.Size(common=3, plain=2, near=2, own=4)
    found = []
    for shape, name in (((1, 14, 14), "fashion"), ((3, 16, 16), "cifar-kinds")):
        space = Tiny(shape=shape, n_classes=10)
        found.append(corpus.architectures(space, name, size))
        assert len(set(found[-1])) == 11
        assert all(count(space, a).multiply_adds <= corpus.MOST_MADDS for a in found[-1])
        assert all(corpus.convolutions(a) <= corpus.MOST_CONVOLUTIONS for a in found[-1])
    assert found[0][:5] == found[1][:5]
    assert not {architecture.values["width"] for architecture in found[0][3:5]} - {4}
    assert not set(found[0][5:]) & set(found[1][5:])


def test_the_smoke_run_makes_files_of_rows(corpus, size, tmp_path, capsys):
    corpus.make(["cylinder-bell-funnel"], size, tmp_path / "home", tmp_path / "checkpoints")
    assert "4/4" in capsys.readouterr().out
    with (tmp_path / "home" / "cylinder-bell-funnel.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == corpus.COLUMNS
    assert [row["seed"] for row in rows] == ["0", "1"] * 4
    assert all(0 <= float(row[part]) <= 1 for row in rows for part in ("validation", "test"))
    assert all(bool(row["synflow"]) == (row["seed"] == "0") == bool(row["quarter_validation"]) for row in rows)
    facts = json.loads((tmp_path / "home" / "tasks.json").read_text())["cylinder-bell-funnel"]
    space = Tiny(shape=facts["shape"], n_classes=len(facts["classes"]))
    assert facts["digest"] == space.digest
    for row in rows[::2]:
        architecture = space.parse(f"{space.id} {row['architecture']}")
        assert count(space, architecture).parameters == int(row["parameters"])


def test_a_run_that_was_cut_off_goes_on_where_it_stopped(corpus, size, tmp_path, monkeypatch):
    name = "two-patterns"
    corpus.make([name], size, tmp_path / "whole", tmp_path / "a")
    trainings, run = [], corpus.run

    def cut(*arguments):
        if len(trainings) == 5:
            raise KeyboardInterrupt
        trainings.append(arguments)
        return run(*arguments)

    monkeypatch.setattr(corpus, "run", cut)
    with pytest.raises(KeyboardInterrupt):
        corpus.make([name], size, tmp_path / "parts", tmp_path / "b")
    assert not (tmp_path / "parts" / f"{name}.csv").exists()
    trainings[:] = [None] * 6  # from now on none is cut
    corpus.make([name], size, tmp_path / "parts", tmp_path / "b")
    assert len(trainings) == 9

    def without_time(folder):
        return [{**row, "seconds": ""} for row in corpus.read(tmp_path / folder / f"{name}.csv")]

    assert without_time("whole") == without_time("parts")


def test_a_training_that_diverges_is_a_row_without_accuracy(corpus, size, tmp_path, monkeypatch):
    def train(*arguments, **options):
        raise corpus.DivergedError("the loss is nan at step 1.")

    monkeypatch.setattr(corpus, "train", train)
    corpus.make(["two-patterns"], size, tmp_path, tmp_path / "checkpoints")
    rows = corpus.read(tmp_path / "two-patterns.csv")
    assert {row["test"] for row in rows} == {""}
    assert all(row["seconds"] for row in rows)


def test_the_report_says_how_well_seeds_agree(corpus, size, tmp_path, capsys):
    corpus.make(["two-patterns", "control-charts"], size, tmp_path, tmp_path / "checkpoints")
    corpus.report(tmp_path, tmp_path / "results")
    rows = json.loads((tmp_path / "results" / "corpus.json").read_text())["rows"]
    taus = {row["setting"]: row for row in rows if row["metric"] == corpus.TAU and row["method"] == "another seed"}
    assert set(taus) == {"series, two-patterns", "series, control-charts", "all, mean of tasks"}
    assert all(-1 <= row["value"] <= 1 for row in taus.values())
    assert "another seed" in capsys.readouterr().out


def test_tau_of_the_same_order_is_one_and_its_interval_shrinks(corpus):
    assert corpus.tau([(1, 10), (2, 20), (3, 30)]) == 1
    assert corpus.tau([(1, 30), (2, 20), (3, 10)]) == -1
    assert corpus.tau([(1, 1), (1, 2), (1, 3)]) == 0
    assert corpus.interval(0.5, 400) < corpus.interval(0.5, 40)


def test_the_plain_loop_makes_as_many_steps(corpus, monkeypatch):
    steps = []
    for kind in (Descent, torch.optim.SGD):
        sound = kind.step
        monkeypatch.setattr(kind, "step", lambda self, *a, sound=sound: (steps.append(1), sound(self, *a))[1])
    network = torch.nn.Sequential(torch.nn.Linear(2, 2))
    for loop in (corpus.ours, corpus.plain):
        steps.clear()
        loop(network, torch.rand(20, 2), torch.arange(20) % 2, corpus.Schedule(steps=7, batch_size=8))
        assert len(steps) == 7


def test_the_rate_is_that_of_both_loops(corpus, tmp_path, monkeypatch):
    monkeypatch.setitem(corpus.RECIPES, "fashion", corpus.RECIPES["two-patterns"])
    corpus.rate(tmp_path, networks=2, repeats=1, steps=2)
    rows = json.loads((tmp_path / "corpus.json").read_text())["rows"]
    assert {row["method"] for row in rows if row["metric"] == corpus.SPEED} == {"quickstudy", "plain loop"}
    (ratio,) = [row for row in rows if row["metric"] == corpus.RATIO]
    assert ratio["value"] > 0


def test_what_is_shipped_is_complete(corpus):
    facts = json.loads((corpus.HOME / "tasks.json").read_text()) if corpus.HOME.exists() else {}
    assert sum(path.stat().st_size for path in corpus.HOME.glob("*")) < 2e6
    for name, fact in facts.items():
        rows = corpus.read(corpus.HOME / f"{name}.csv")
        assert len(rows) == 128
        space = Tiny(shape=fact["shape"], n_classes=len(fact["classes"]))
        assert fact["digest"] == space.digest, f"{name} was measured in another space"
        assert len({space.parse(f"{space.id} {row['architecture']}") for row in rows}) == 64
