import logging
from dataclasses import replace

import optuna
import pytest
import torch

from quickstudy.errors import StudyError
from quickstudy.experience.record import Record
from quickstudy.experience.trial import TaskDescription
from quickstudy.nas.baselines.random_search import RandomSearch
from quickstudy.nas.budget import Budget
from quickstudy.nas.build import count
from quickstudy.nas.nasbench201 import NASBench201
from quickstudy.nas.own_studies import check_studies, learn_from_studies, order, read_studies
from quickstudy.nas.parameters import parameters_of
from quickstudy.nas.search import search
from quickstudy.nas.search_prior import learn_search_prior
from quickstudy.nas.source import Rows
from quickstudy.nas.tiny import Tiny
from quickstudy.nets.task_encoder import TaskEncoder
from quickstudy.tasks.task import Examples, Task

SMALL = Tiny(shape=(1, 8, 8), n_classes=2)


def toy(n: int = 24) -> Task:
    """Pictures whose brightest row tells the class."""
    y = torch.arange(2 * n) % 3
    x = 0.3 * torch.rand(2 * n, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    x[torch.arange(2 * n), 0, 2 * y] += 1
    return Task(Examples(x[None, :n], y[None, :n]), Examples(x[None, n:], y[None, n:]), 3)


def write(storage, name, space=SMALL, *, trials=12, sign=1.0, about=None, embedding=None, encoder=None):
    """A study in which the more multiply-adds a network takes the better, or the worse, it is."""
    known = {"shape": list(space.shape), "classes": space.n_classes} if about is None else about
    task, within = TaskDescription(name, embedding, encoder), space
    with Record.open(storage, task, parameters_of(space), about=known) as record:
        for _ in range(trials):
            ticket = record.next(RandomSearch(), task, within)
            record.finish(ticket.number, sign * float(count(space, ticket.choice).multiply_adds) ** 0.3)


@pytest.fixture(scope="module")
def shipped():
    """A prior, with an encoder, that takes the small for the good."""
    generator = torch.Generator().manual_seed(0)
    drawn = tuple(SMALL.sample(generator=generator) for _ in range(20))
    values = torch.tensor([-float(count(SMALL, a).multiply_adds) for a in drawn])
    rows = Rows(drawn, values.double(), task=torch.zeros(12), space=SMALL)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = TaskEncoder(12)
    return learn_search_prior({"one": rows}, encoder=encoder, members=1, epochs=30, iterations=0)


def test_what_a_search_tried_is_read_back(tmp_path):
    file = tmp_path / "studies.db"
    budget = Budget(seconds=None, trials=6, steps=3)
    result = search(toy(), budget=budget, proposer=RandomSearch(), storage=file, name="rows")
    own = read_studies([file])
    (rows,) = own.rows.values()
    assert set(own.rows) == {"rows"}
    assert rows.space.shape == (1, 6, 6)
    assert dict(zip(rows.architectures, rows.values.tolist())) == {
        one.architecture: one.value for one in result.tried if one.value is not None
    }


def test_what_is_learned_holds_for_a_task_that_was_left_out(tmp_path, shipped):
    file = tmp_path / "studies.db"
    for name, space in (("a", SMALL), ("b", Tiny(shape=(3, 10, 10), n_classes=4))):
        write(file, name, space, trials=20)
    own = read_studies([str(file)])
    checks = check_studies(own, shipped=shipped, corpus=False, epochs=40)
    assert [one.n for one in checks] == [20, 20]
    assert all(one.learned > 0.5 > one.shipped for one in checks)
    assert [one.task for one in checks] == ["a", "b"]
    assert check_studies(own, shipped=shipped, corpus=False, epochs=40) == checks


def test_data_of_the_corpus_are_no_check_of_what_is_learned_from_it(tmp_path, shipped):
    for name in ("a", "mnist:even"):
        write(tmp_path / "studies.db", name)
    own, known = read_studies([tmp_path / "studies.db"]), replace(shipped, training={"tasks": {"mnist": 80}})
    assert [one.study for one in check_studies(own, shipped=known, epochs=1)] == ["a"]
    assert len(check_studies(own, shipped=known, corpus=False, epochs=1)) == 2


def test_a_storage_that_is_named_twice_is_read_once(tmp_path, monkeypatch):
    write(tmp_path / "studies.db", "a")
    monkeypatch.chdir(tmp_path)
    own = read_studies([tmp_path / "studies.db", "studies.db", "./studies.db"])
    assert set(own.rows) == {"a"}


def test_a_learned_prior_knows_what_the_studies_say(tmp_path, shipped):
    write(tmp_path / "studies.db", "a", trials=20, embedding=torch.ones(12), encoder=shipped.encoder.digest)
    own, said = read_studies([tmp_path / "studies.db"]), []
    prior = learn_from_studies(
        own, shipped=shipped, corpus=False, epochs=40, on_progress=lambda stage, *_: said.append(stage)
    )
    assert order(prior, own.rows["a"]) > 0.6 > order(shipped, own.rows["a"])
    assert prior.encoder is shipped.encoder
    assert prior.training["tasks"] == {"a": 20}
    assert set(said) == {"AEN"}


def test_the_corpus_is_learned_from_too_where_it_is_asked_for(tmp_path, shipped):
    write(tmp_path / "studies.db", "a")
    known = {"tasks": {"glyphs-greek": 80, "mnist": 80}}  # of the corpus
    prior = learn_from_studies(
        read_studies([tmp_path / "studies.db"]), shipped=replace(shipped, training=known), epochs=1
    )
    assert prior.training["tasks"].keys() == {"a", "corpus: glyphs-greek", "corpus: mnist"}
    assert prior.encoder is None  # the embeddings of the corpus are unknown to this prior
    told = replace(shipped, training={**known, "embeddings": {"glyphs-greek": [0.0] * 12}})
    assert learn_from_studies(read_studies([tmp_path / "studies.db"]), shipped=told, epochs=1).encoder is not None


def test_a_task_that_the_shipped_prior_was_kept_from_is_kept_from_what_it_is_compared_with(tmp_path, shipped):
    write(tmp_path / "studies.db", "a")
    known = replace(shipped, training={"tasks": {"mnist": 80, "fashion": 80}})
    prior = learn_from_studies(read_studies([tmp_path / "studies.db"]), shipped=known, epochs=1)
    assert prior.training["tasks"].keys() == {"a", "corpus: mnist", "corpus: fashion"}


def test_series_and_pictures_are_learned_from_together(tmp_path, shipped):
    write(tmp_path / "studies.db", "pictures")
    write(tmp_path / "studies.db", "series", Tiny(shape=(1, 40), n_classes=3))
    own = read_studies([tmp_path / "studies.db"])
    assert {rows.space.id for rows in own.rows.values()} == {"tiny/1", "tiny1d/1"}
    assert not own.skipped
    learn_from_studies(own, shipped=shipped, corpus=False, epochs=1)


def test_studies_of_one_name_are_numbered_and_left_out_together(tmp_path, shipped):
    for file in ("one.db", "two.db"):
        write(tmp_path / file, "a")
    own = read_studies([tmp_path / "one.db", tmp_path / "two.db"])
    assert set(own.rows) == {"a", "a (2)"}
    assert own.trials == 24
    assert check_studies(own, shipped=shipped, corpus=False, epochs=1) == ()


def test_studies_that_are_of_no_use_are_named_with_the_reason(tmp_path):
    file = tmp_path / "studies.db"
    write(file, "good")
    write(file, "short", trials=2)
    write(file, "silent", about={})
    other = NASBench201()
    task = TaskDescription("cells")
    with Record.open(file, task, parameters_of(other)) as record:
        record.finish(record.next(RandomSearch(), task, other).number, 1.0)
    optuna.logging.set_verbosity(logging.ERROR)
    optuna.create_study(storage=f"sqlite:///{file}", study_name="another's")
    own = read_studies([file])
    assert set(own.rows) == {"good"}
    assert "2 finished trials" in own.skipped["short"]
    assert "shape" in own.skipped["silent"]
    assert "not one of quickstudy's" in own.skipped["another's"]
    (cells,) = (why for name, why in own.skipped.items() if name.startswith("cells"))
    assert cells == f"it is of the space {other.id}, not tiny/1 or tiny1d/1"


def test_a_storage_with_nothing_to_learn_from_is_one_sentence(tmp_path):
    with pytest.raises(StudyError, match="no such file"):
        read_studies([tmp_path / "none.db"])
    optuna.logging.set_verbosity(logging.ERROR)
    for name, said in (("empty.db", "there is no study. Name"), ("foreign.db", "'another' is skipped, for it is not")):
        optuna.create_study(storage=f"sqlite:///{tmp_path / name}", study_name="another")
        if name == "empty.db":
            optuna.delete_study(storage=f"sqlite:///{tmp_path / name}", study_name="another")
        with pytest.raises(StudyError, match=said):
            read_studies([tmp_path / name])


def test_an_embedding_by_another_encoder_counts_as_none(tmp_path, shipped):
    other = TaskEncoder(12)
    assert other.digest != shipped.encoder.digest
    embeddings = {"its.db": shipped.encoder.digest, "another.db": other.digest, "unknown.db": None}
    learned = {}
    for file, encoder in {**embeddings, "none.db": None}.items():
        embedding = None if file == "none.db" else torch.ones(12)
        write(tmp_path / file, "a", embedding=embedding, encoder=encoder)
        own = read_studies([tmp_path / file])
        prior = learn_from_studies(own, shipped=shipped, corpus=False, epochs=2)
        learned[file] = torch.cat([value.flatten() for value in prior.aen.state_dict().values()])
    assert torch.equal(learned["another.db"], learned["none.db"])
    assert torch.equal(learned["unknown.db"], learned["none.db"])
    assert not torch.equal(learned["its.db"], learned["none.db"])


def test_a_search_writes_down_whose_embedding_of_its_task_it_is(tmp_path, shipped):
    budget = Budget(seconds=None, trials=5, steps=2)
    search(toy(), budget=budget, prior=shipped, storage=tmp_path / "studies.db", name="rows")
    (rows,) = read_studies([tmp_path / "studies.db"]).rows.values()
    assert rows.encoder == shipped.encoder.digest
    assert torch.allclose(rows.task, shipped.describe(toy(), "rows").embedding)


def test_where_all_are_equally_good_there_is_no_order_to_agree_with(tmp_path, shipped):
    write(tmp_path / "studies.db", "a")
    (rows,) = read_studies([tmp_path / "studies.db"]).rows.values()
    assert order(shipped, replace(rows, values=torch.ones(12).double())) == 0
