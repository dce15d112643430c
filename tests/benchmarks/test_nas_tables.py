import json
import sys
from pathlib import Path

import pytest
import torch

from quickstudy.nas.nasbench201 import NASBench201
from quickstudy.nas.tables import Table, TableTask, seeded

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def nas_tables():
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import nas_tables

        yield nas_tables
        for name in ("nas_tables", "result"):
            del sys.modules[name]
    torch.set_num_threads(threads)


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
    methods = [name for name in nas_tables.METHODS if name.startswith(("random", "rank"))]
    assert nas_tables.main(["--out", str(tmp_path), "--seeds", "2", "--methods", *methods]) == 0
    rows = rows_of(tmp_path)
    settings = [f"{target}, {mark}" for target in ("a", "b", "mean") for mark in ("1 trial", "6 trials")]
    assert set(rows) == {(m, s, metric) for m in methods for s in settings for metric in ("regret", "rank")}
    for row in rows.values():
        assert row["n"] == len(row["values"]) == 2
        assert row["value"] == pytest.approx(sum(row["values"]) / 2, abs=1e-3)
    each = [rows["random", f"{target}, 6 trials", "regret"]["value"] for target in ("a", "b", "mean")]
    assert each[2] == pytest.approx((each[0] + each[1]) / 2, abs=1e-4)


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


def test_the_incumbent_is_the_best_objective_so_far(nas_tables, tiny):
    table = tiny.table()
    found = nas_tables.search(nas_tables.RandomSearch(), table, "a", trials=6, seed=1)
    values = table.tasks["a"].objective(1)[found.incumbents].tolist()
    assert values == sorted(values)
    assert len(found.incumbents) == 6
    assert found.incumbents == nas_tables.search(nas_tables.RandomSearch(), table, "a", trials=6, seed=1).incumbents
