import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from quickstudy.nas.nasbench201 import NASBench201
from quickstudy.nas.tables import Table, TableTask, seeded

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def nas_tables(script):
    return script("nas_tables")


@pytest.fixture
def tiny(nas_tables, monkeypatch):
    """Two data sets of random outcomes, and searches of six trials."""

    def table():
        from quickstudy.nas.baselines.candidates import members

        space = NASBench201()
        cells = members(space)[0]
        tasks = {n: TableTask(n, torch.rand(len(cells), 3, generator=seeded(n)).double()) for n in ("a", "b")}
        return Table(space, cells, tasks)

    benchmark = nas_tables.Benchmark(table, "Toy.", ("regret", "rank"), (1, 6), 10)
    monkeypatch.setitem(nas_tables.BENCHMARKS, "nasbench201", benchmark)
    return benchmark


def rows_of(folder):
    rows = json.loads((folder / "nasbench201.json").read_text())["rows"]
    return {(row["method"], row["setting"], row["metric"]): row for row in rows}


def test_every_method_writes_its_rows_and_their_mean_over_targets(nas_tables, tiny, tmp_path, capsys):
    methods = ["random", "rank_transfer", "rank_transfer_whole_table"]
    assert nas_tables.main(["--out", str(tmp_path), "--seeds", "2", "--methods", *methods]) == 0
    rows = rows_of(tmp_path)
    settings = [f"{target}, {mark}" for target in ("a", "b", "mean") for mark in ("1 trial", "6 trials")]
    assert set(rows) == {(m, s, metric) for m in methods for s in settings for metric in ("regret", "rank")}
    for row in rows.values():
        assert row["n"] == len(row["values"]) == 2
        assert row["value"] == pytest.approx(sum(row["values"]) / 2, abs=1e-3)
    each = [rows["random", f"{target}, 6 trials", "regret"]["value"] for target in ("a", "b", "mean")]
    assert each[2] == pytest.approx((each[0] + each[1]) / 2, abs=1e-4)


def test_what_a_model_returns_stands_beside_the_best_value(nas_tables, tiny, tmp_path, capsys):
    call = ["--out", str(tmp_path), "--seeds", "1", "--methods", "bayesian_search_without_aen", "random_halving"]
    assert nas_tables.main([*call, "--targets", "a"]) == 0
    metrics = {metric for method, _, metric in rows_of(tmp_path) if method != "random_halving"}
    assert metrics == {"regret", "regret of the best value", "rank", "rank of the best value"}
    assert {method for method, _, _ in rows_of(tmp_path)} == {
        "bayesian_search_without_aen"
    }  # nothing was trained briefly


def test_a_unit_that_has_rows_is_left_alone_and_more_repetitions_replace_them(nas_tables, tiny, tmp_path, capsys):
    call = ["--out", str(tmp_path), "--methods", "random"]
    assert nas_tables.main([*call, "--seeds", "2"]) == 0
    first = rows_of(tmp_path)
    capsys.readouterr()
    assert nas_tables.main([*call, "--seeds", "2"]) == 0
    assert capsys.readouterr().out == ""
    assert nas_tables.main([*call, "--seeds", "3"]) == 0
    again = rows_of(tmp_path)
    assert again.keys() == first.keys()
    assert all(again[key]["values"][:2] == first[key]["values"] for key in first if key[1][:4] != "mean")


def test_repetitions_that_are_kept_are_not_run_again(nas_tables, tiny, tmp_path, monkeypatch, capsys):
    kept, call = tmp_path / "kept", ["--methods", "random", "--targets", "a", "--keep", str(tmp_path / "kept")]
    assert nas_tables.main([*call, "--out", str(tmp_path / "apart"), "--seeds", "3", "--first", "1"]) == 0
    assert {path.stem for path in kept.iterdir()} == {"random-a-1", "random-a-2"}
    assert not (tmp_path / "apart").exists()
    assert nas_tables.main([*call, "--out", str(tmp_path / "one"), "--seeds", "3"]) == 0
    monkeypatch.setattr(nas_tables, "search", None)
    assert nas_tables.main([*call, "--out", str(tmp_path / "two"), "--seeds", "3"]) == 0
    one, two = rows_of(tmp_path / "one"), rows_of(tmp_path / "two")
    assert one.keys() == two.keys()
    assert all(one[key]["values"] == two[key]["values"] for key in one)


def test_the_incumbent_is_the_best_objective_so_far(nas_tables, tiny):
    table, marks = tiny.table(), range(1, 7)
    found, again = (nas_tables.search(nas_tables.RandomSearch(), table, "a", marks=marks, seed=1) for _ in range(2))
    values = table.tasks["a"].objective(1)[found.chosen].tolist()
    assert values == sorted(values)
    assert len(found.chosen) == 6
    assert found.chosen == found.best == again.chosen


def test_a_method_says_which_trial_it_would_return(nas_tables, tiny):
    class Worst(nas_tables.RandomSearch):
        def incumbent(self, task, trials, space):
            return min(trials, key=lambda trial: trial.value)

    table = tiny.table()
    found = nas_tables.search(Worst(), table, "a", marks=(1, 6), seed=0)
    objective = table.tasks["a"].objective(0)
    assert found.chosen[0] == found.best[0]
    assert objective[found.chosen[1]] < objective[found.best[1]]


def test_brief_trainings_are_part_of_what_is_spent(nas_tables, tiny):
    table = tiny.table()
    task = table.tasks["a"]
    table.tasks["a"] = replace(task, brief=task.report(0))
    spent = []

    class Counting(nas_tables.RandomSearch):
        def propose(self, *given, n, generator):
            spent.append(n)
            return super().propose(*given, n=n, generator=generator)

    found = nas_tables.search(Counting(), table, "a", marks=(1, 4, 10), seed=0, halved=16)
    assert spent == [16] * 5  # of 1.96 each, where 10 are allowed
    assert len(found.chosen) == 3
    drawn = task.regret(0)
    assert drawn[found.chosen[0]] < drawn.median()
