"""The figures of AEN are made repetition by repetition, and mean what they say."""

import json
from pathlib import Path

import pytest
import torch
from torch import Generator

from quickstudy.nas.nasbench201 import NASBench201
from quickstudy.nas.tables import Table, TableTask, seeded

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def aen(script):
    return script("aen")


@pytest.fixture
def toy(aen, monkeypatch):
    """Two data sets in which convolutions count, and few of whose cells are ordered."""
    import nas_tables

    space = NASBench201()
    generator = Generator().manual_seed(0)
    cells = tuple(dict.fromkeys(space.sample(generator=generator) for _ in range(460)))
    good = space.one_hot(cells)[:, 3::5].sum(1).double()[:, None]

    def task(name):
        runs = good + 0.1 * torch.randn(len(cells), 3, generator=seeded(name))
        return TableTask(name, runs.double(), parameters=good[:, 0])

    table = Table(space, cells, {name: task(name) for name in ("a", "b")})
    benchmark = nas_tables.Benchmark(lambda: table, "Toy.", ("regret",), (1, 6), 40)
    monkeypatch.setattr(aen, "BENCHMARKS", {"toy": benchmark})
    monkeypatch.setattr(aen, "CORPUS", {})
    monkeypatch.setattr(aen, "AFTER", (10, 30))
    monkeypatch.setattr(aen, "METHODS", {name: (m, counts[:2]) for name, (m, counts) in aen.METHODS.items()})
    aen.table_of.cache_clear()
    return table


def rows_of(folder):
    rows = json.loads((folder / "aen.json").read_text())["rows"]
    return {(row["method"], row["setting"], row["metric"]): row for row in rows}


def test_what_is_ordered_right_has_a_tau_of_one_and_what_is_ordered_backwards_of_minus_one(aen):
    reached = torch.randn(200, generator=Generator().manual_seed(0)).double()
    right, wrong, flat = (aen.judge(aen.Answer(order), reached, reached) for order in
                          (reached.exp(), -reached, torch.zeros(200)))  # fmt: skip
    assert right == {"kendall tau": pytest.approx(1), "kendall tau, top 20 %": pytest.approx(1)}
    assert wrong == {"kendall tau": pytest.approx(-1), "kendall tau, top 20 %": pytest.approx(-1)}
    assert flat["kendall tau"] == 0


def test_an_honest_interval_of_90_percent_covers_90_of_100(aen):
    mean, noise = torch.randn(2, 5000, generator=Generator().manual_seed(0)).double()
    marks = aen.judge(aen.Answer(mean, (mean - 1.645, mean + 1.645)), mean, mean + noise)
    assert marks["coverage of the 90 % interval %"] == pytest.approx(90, abs=2)


def test_repetitions_go_on_where_they_stopped(aen, toy, tmp_path, capsys):
    call = ["--out", str(tmp_path), "--only", "gaussian_process"]
    assert aen.main([*call, "--repetitions", "1"]) == 0
    first = rows_of(tmp_path)
    assert aen.main([*call, "--repetitions", "3"]) == 0
    again = rows_of(tmp_path)
    assert first.keys() == again.keys()
    assert {setting for _, setting, _ in again} == {"toy, 10 trained", "toy, 30 trained"}
    for key, row in again.items():
        assert row["n"] == len(row["values"]) == 3
        assert row["values"][:1] == first[key]["values"]
    capsys.readouterr()
    assert aen.main([*call, "--repetitions", "3"]) == 0
    assert capsys.readouterr().out == ""


def test_more_architectures_are_ordered_better_and_those_without_training_too(aen, toy, tmp_path, capsys):
    for only in ("gaussian_process", "parameters", "random_forest"):
        assert aen.main(["--out", str(tmp_path), "--repetitions", "2", "--only", only]) == 0
    tau = {key[:2]: row["value"] for key, row in rows_of(tmp_path).items() if key[2] == "kendall tau"}
    few, many = (tau["gaussian_process_on_codes", f"toy, {n} trained"] for n in (10, 30))
    assert few < many
    assert tau["parameters", "toy, 0 trained"] > 0.8
    assert tau["random_forest", "toy, 0 trained"] > 0.3


def test_what_is_listed_is_not_run(aen, toy, tmp_path, capsys):
    assert aen.main(["--out", str(tmp_path), "--list"]) == 0
    assert "aen_with_transfer in toy, 0 trained: 0 repetitions" in capsys.readouterr().out
    assert not (tmp_path / "aen.json").exists()
