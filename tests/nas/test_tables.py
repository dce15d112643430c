import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from quickstudy.errors import DataError, DataNotFoundError
from quickstudy.nas.nasbench201 import NASBench201
from quickstudy.nas.source import scaled_ranks
from quickstudy.nas.tables import Table, TableTask, nasbench201, nasbenchgraph, seeded

DATA = os.environ.get("QUICKSTUDY_DATA")
needs_data = pytest.mark.skipif(
    DATA is None or not (Path(DATA) / "nasbenchgraph/nasbenchgraph.npz").exists(),
    reason="needs nasbench201 and nasbenchgraph in the folder that QUICKSTUDY_DATA names",
)
NAN = float("nan")


@pytest.fixture(scope="module")
def cells():
    return nasbench201()


@pytest.fixture(scope="module")
def graphs():
    return nasbenchgraph()


def table() -> Table:
    space = NASBench201()
    members = tuple(space.sample(generator=seeded(i)) for i in range(6))
    tasks = {}
    for i, name in enumerate(("a", "b", "c")):
        tasks[name] = TableTask(name, torch.rand(6, 3, dtype=torch.float64, generator=seeded(name)) + i)
    return Table(space, members, tasks)


def test_one_run_is_searched_and_the_mean_of_the_others_is_reported():
    runs = torch.tensor([[1.0, 2.0, 6.0], [3.0, 5.0, NAN]], dtype=torch.float64)
    task = TableTask("toy", runs)
    assert task.objective(0).tolist() == [1, 3]
    assert task.report(0).tolist() == [4, 5]
    assert task.objective(1).tolist() == [2, 5]
    assert task.report(1).tolist() == [3.5, 3]
    assert torch.equal(task.objective(2), task.objective(0))


def test_regret_is_zero_and_rank_is_one_for_the_best_report_alone():
    task = TableTask("toy", torch.tensor([[9.0], [0.0], [0.0], [0.0]]), torch.tensor([1.0, 4.0, 3.0, 3.0]))
    assert task.regret(5).tolist() == [3, 0, 1, 1]
    assert task.rank(5).tolist() == [4, 1, 2, 2]


def test_a_source_leaves_out_its_target_and_is_the_same_for_the_same_seed():
    whole = table()
    source = whole.source("b", rows=3, seed=4)
    assert list(source.rows) == ["a", "c"]
    for name, rows in source.rows.items():
        again = whole.source("b", rows=3, seed=4).rows[name]
        assert rows.architectures == again.architectures
        assert len(set(rows.architectures)) == len(rows) == 3
        for architecture, value in zip(rows.architectures, rows.values):
            assert value == whole.tasks[name].objective(4)[whole.index[architecture]]
    assert source.rows["a"].architectures == whole.source("c", rows=3, seed=4).rows["a"].architectures
    others = [whole.source("b", rows=3, seed=seed).rows["a"].architectures for seed in range(5)]
    assert len(set(others)) > 1


def test_a_source_of_the_whole_table_has_every_member():
    whole = table()
    assert whole.source("a", rows=None, seed=0).rows["b"].architectures == whole.architectures


def test_ranks_are_between_zero_and_one_and_what_is_equal_shares_them():
    assert scaled_ranks(torch.tensor([5.0, 1.0, 2.0])).tolist() == [1, 0, 0.5]
    assert scaled_ranks(torch.tensor([2.0, 2.0, 2.0, 9.0])).tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 1])
    assert scaled_ranks(torch.tensor([7.0])).tolist() == [0]


@pytest.mark.parametrize("read", [nasbench201, nasbenchgraph])
def test_a_table_that_is_not_there_says_what_to_put_where(read, tmp_path, monkeypatch):
    monkeypatch.setenv("QUICKSTUDY_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path / "cache"))
    with pytest.raises(DataNotFoundError, match=rf"Put it at .*data/{read.__name__}/{read.__name__}.npz; its numbers"):
        read()


def test_a_table_without_an_array_names_it(tmp_path, monkeypatch):
    monkeypatch.setenv("QUICKSTUDY_DATA", str(tmp_path))
    (tmp_path / "nasbench201").mkdir()
    np.savez(tmp_path / "nasbench201/nasbench201.npz", arch=np.zeros((1, 6), np.int8))
    with pytest.raises(DataError, match="no array 'shb_cifar10_val_acc'; it has arch"):
        nasbench201()


@needs_data
@pytest.mark.data
def test_nasbench201_is_complete_and_its_best_cell_has_the_published_accuracy(cells):
    assert len(cells.index) == 15_625
    assert all(cells.space.parse(str(a)) == a for a in cells.architectures[::500])
    best = {name: task.runs.nanmean(1).max().item() for name, task in cells.tasks.items()}
    assert best == pytest.approx({"cifar10": 91.61, "cifar100": 73.49, "imagenet": 46.73}, abs=0.02)
    published = "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|"
    assert cells.space.to_published(cells.architectures[0]) == published


@needs_data
@pytest.mark.data
@pytest.mark.parametrize("seed", [0, 1])
def test_every_cell_has_an_objective_and_a_report(cells, seed):
    for task in cells.tasks.values():
        assert task.objective(seed).isfinite().all()
        assert task.report(seed).isfinite().all()


@needs_data
@pytest.mark.data
def test_nasbenchgraph_has_its_members_and_no_others(graphs):
    assert len(graphs.index) == 26_206
    assert list(graphs.tasks) == ["cora", "citeseer", "pubmed", "cs", "physics", "photo"]
    assert all(graphs.space.parse(str(a)) == a for a in graphs.architectures[::500])
    assert graphs.tasks["cora"].objective(0)[0] == pytest.approx(77.333, abs=1e-3)
    assert graphs.tasks["cora"].rank(0).min() == 1
    assert graphs.tasks["cora"].rank(0).max() <= 26_206


@needs_data
@pytest.mark.data
def test_tables_load_quickly():
    start = time.process_time()
    nasbench201()
    nasbenchgraph()
    assert time.process_time() - start < 4
