import json
import shutil

import pytest
import torch

from quickstudy.errors import DataError
from quickstudy.nas.build import count
from quickstudy.nas.corpus import HOME, PROXIES, tiny_corpus


@pytest.fixture(scope="module")
def corpus():
    return tiny_corpus()


def test_every_shipped_task_is_read(corpus):
    assert set(corpus) == {path.stem for path in HOME.glob("*.csv")}
    for task in corpus.values():
        n = len(task.architectures)
        assert task.validation.shape == task.test.shape == task.seconds.shape == (n, 2)
        assert task.proxies.shape == (n, len(PROXIES))
        assert task.proxies.isfinite().all()
        assert 0 <= float(task.test.nan_to_num().min()) <= float(task.test.nan_to_num().max()) <= 1
        assert len(task.facts["classes"]) == task.space.n_classes


def test_costs_that_were_written_down_are_those_of_today(corpus):
    for task in corpus.values():
        for architecture, proxies in list(zip(task.architectures, task.proxies))[:10]:
            cost = count(task.space, architecture)
            expected = torch.tensor([cost.parameters, cost.multiply_adds, cost.peak_memory]).double().log()
            torch.testing.assert_close(proxies[:3], expected)


def test_tasks_with_inputs_of_the_same_kind_share_their_first_members(corpus):
    pictures = [task for task in corpus.values() if task.space.dimensions == 2]
    shared = {tuple(map(str, task.architectures[: task.n_common])) for task in pictures}
    assert len(shared) == 1


def test_rows_are_the_mean_of_the_seeds_in_the_space_of_the_task(corpus):
    task = next(iter(corpus.values()))
    rows = task.rows(("parameters", "naswot"), task=torch.ones(3))
    assert rows.space is task.space
    assert rows.proxies.shape == (len(rows), 2)
    torch.testing.assert_close(rows.values, task.validation.mean(1))
    assert task.rows().proxies is None


@pytest.fixture
def folder(tmp_path):
    name, facts = next(iter(json.loads((HOME / "tasks.json").read_text()).items()))
    shutil.copy(HOME / f"{name}.csv", tmp_path)
    return tmp_path, name, facts


def read(tmp_path, name, facts):
    (tmp_path / "tasks.json").write_text(json.dumps({name: facts}))
    return tiny_corpus(tmp_path)


def test_a_network_that_diverged_counts_as_zero(folder):
    tmp_path, name, _ = folder
    lines = (tmp_path / f"{name}.csv").read_text().splitlines()
    for i in (1, 2):
        fields = lines[i].split(",")
        fields[2] = fields[3] = fields[4] = ""
        lines[i] = ",".join(fields)
    (tmp_path / f"{name}.csv").write_text("\n".join(lines) + "\n")
    task = read(*folder)[name]
    assert task.validation[0].isnan().all()
    assert task.rows().values[0] == 0


def test_a_corpus_of_another_version_of_the_space_is_refused(folder):
    tmp_path, name, facts = folder
    with pytest.raises(DataError, match="of digest abc; this version's is"):
        read(tmp_path, name, {**facts, "digest": "abc"})


@pytest.mark.parametrize("damage", ["", "architecture,seed\n", "cut"])
def test_a_damaged_file_is_named(folder, damage):
    tmp_path, name, facts = folder
    path = tmp_path / f"{name}.csv"
    path.write_text(path.read_text()[:-400] if damage == "cut" else damage)
    with pytest.raises(DataError, match=f"{name}.csv is not a file of the corpus"):
        read(tmp_path, name, facts)
