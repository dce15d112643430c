import json
import re
from dataclasses import replace

import pytest
import torch
from torch import Generator

from quickstudy.errors import DamagedArtefactError, ShapeError
from quickstudy.experience.trial import TaskDescription, Trial
from quickstudy.nas.aen import expected
from quickstudy.nas.build import Limits, count
from quickstudy.nas.corpus import tiny_corpus
from quickstudy.nas.limited import Limited
from quickstudy.nas.search import first_within, shipped_prior
from quickstudy.nas.search_prior import learn_search_prior, load_search_prior, save_search_prior
from quickstudy.nas.source import Rows
from quickstudy.nas.tiny import Tiny
from quickstudy.nets.task_encoder import TaskEncoder
from quickstudy.tasks.task import Examples, Task

SPACES = {"small": Tiny(shape=(1, 8, 8), n_classes=2), "coloured": Tiny(shape=(3, 9, 9), n_classes=4)}


def toy_task(space: Tiny) -> Task:
    generator = Generator().manual_seed(1)
    y = torch.arange(20)[None] % space.n_classes
    x = torch.rand(1, 20, *space.shape, generator=generator)
    return Task(Examples(x, y), Examples(x, y), space.n_classes)


def experience(encoder: TaskEncoder | None = None) -> dict[str, Rows]:
    """On every task the more multiply-adds, the better."""
    found = {}
    for i, (name, space) in enumerate(SPACES.items()):
        generator = Generator().manual_seed(i)
        drawn = tuple(space.sample(generator=generator) for _ in range(24))
        values = torch.tensor([float(count(space, a).multiply_adds) for a in drawn]).double().log()
        task = None if encoder is None else encoder(toy_task(space).support.x, toy_task(space).support.y)[0].detach()
        found[name] = Rows(drawn, values, task=task, space=space)
    return found


@pytest.fixture(scope="module")
def prior():
    encoder = TaskEncoder(12)
    return learn_search_prior(experience(encoder), encoder=encoder, members=2, width=8, epochs=40, iterations=2)


def test_what_was_learned_holds_for_inputs_of_another_size(prior):
    space, generator = Tiny(shape=(2, 12, 12), n_classes=3), Generator().manual_seed(9)
    drawn = [space.sample(generator=generator) for _ in range(40)]
    task = prior.describe(toy_task(space), "new")
    said = expected(prior.aen, drawn, task.embedding, space=space).mean
    cost = torch.tensor([float(count(space, a).multiply_adds) for a in drawn])
    assert torch.corrcoef(torch.stack([said, cost.log()]))[0, 1] > 0.7


def test_proposals_keep_to_limits_and_are_new(prior):
    space, limits = SPACES["small"], Limits(max_params=2000)
    within, task = limits.within(space), prior.describe(toy_task(space), "new")
    proposer, trials = prior.proposer(drawn=16), []
    for i in range(4):
        (found,) = proposer.propose(task, trials, within, generator=Generator().manual_seed(i))
        assert limits.allows(count(space, found))
        assert found not in [trial.choice for trial in trials]
        trials.append(Trial(found, float(i)))


def test_a_saved_prior_comes_back_as_it_was(prior, tmp_path):
    save_search_prior(tmp_path, prior)
    back = load_search_prior(tmp_path)
    space = SPACES["coloured"]
    drawn = [space.sample(generator=Generator().manual_seed(i)) for i in range(5)]
    task, again = (one.describe(toy_task(space), "new") for one in (prior, back))
    assert torch.equal(task.embedding, again.embedding)
    assert torch.equal(
        expected(prior.aen, drawn, task.embedding, space=space).mean,
        expected(back.aen, drawn, task.embedding, space=space).mean,
    )
    assert back.training == prior.training
    assert back.portfolio == prior.portfolio != ()
    ((first,), (second,)) = (
        one.proposer(drawn=16).propose(task, [Trial(drawn[0], 1.0)], space, generator=Generator().manual_seed(3))
        for one in (prior, back)
    )
    assert first == second


def test_the_shipped_prior_knows_what_was_good_in_the_corpus_that_is_shipped():
    prior, corpus = shipped_prior(), tiny_corpus()
    assert prior.training["tasks"] == {name: len(corpus[name].architectures) for name in prior.training["tasks"]}
    known = {architecture for name in prior.training["tasks"] for architecture in corpus[name].architectures}
    assert known > set(prior.portfolio) != set()


def test_a_prior_of_another_space_or_with_other_weights_is_refused(prior, tmp_path):
    save_search_prior(tmp_path, prior)
    path = tmp_path / "prior.json"
    sound = json.loads(path.read_text())
    del sound["settings_sha256"]  # as once there was none
    changes = (
        ({"space": "tiny/9"}, "tiny/9"),
        ({"width": 16}, "do not fit"),
        ({"encoder": 5}, "misstates a setting"),
        ({"training": {"tasks": 5}}, "misstates a setting"),
    )
    for change, said in changes:
        path.write_text(json.dumps({**sound, "settings": {**sound["settings"], **change}}))
        with pytest.raises(DamagedArtefactError, match=said):
            load_search_prior(tmp_path)


def test_an_encoder_needs_embeddings_of_its_size():
    with pytest.raises(ShapeError, match="small has no embedding of 12"):
        learn_search_prior(experience(), encoder=TaskEncoder(12))


def test_the_shipped_prior_proposes_within_limits_that_are_within_limits():
    limits = Limits(max_params=5_000)
    inner = limits.within(Tiny(shape=(1, 8, 8), n_classes=10))
    few = [inner.sample(generator=Generator().manual_seed(i)) for i in range(2)]
    within = Limited(inner, lambda a: a["width"] == few[0]["width"] or a in few, few)  # as a limit on latency is
    assert isinstance(within.space, Tiny)
    drawn = [within.space.sample(generator=Generator().manual_seed(i)) for i in range(50)]
    assert [a for a in drawn if within.has(a)] == [
        a for a in drawn if a["width"] == few[0]["width"] and limits.allows(count(within.space, a))
    ]
    task = TaskDescription("new", torch.zeros(12))
    trials = [Trial(few[0], 0.5), Trial(few[1], 0.6)]
    for seen in ([], trials):
        (found,) = shipped_prior().proposer(drawn=20).propose(task, seen, within, generator=Generator().manual_seed(0))
        assert within.has(found)


def test_of_the_finalists_the_best_within_the_latency_is_delivered_and_else_the_fastest():
    assert first_within([3.0, 1.0], None) == 0
    assert first_within([3.0, 1.0], 2.0) == 1
    assert first_within([3.0, 1.0], 3.0) == 0
    assert first_within([3.0, 1.0], 0.5) == 1


def test_of_one_data_set_alone_aon_has_nothing_to_learn(prior):
    rows = {name: replace(each, data="one") for name, each in experience().items()}
    found = learn_search_prior(rows, members=1, width=8, epochs=2, iterations=2)
    assert found.aon is None


@pytest.mark.parametrize("text", ["x", "tiny/1 0-1=conv1", "width=5"])
def test_a_portfolio_that_no_search_can_use_is_damage(prior, tmp_path, rewritten, text):
    save_search_prior(tmp_path, prior)
    with rewritten(tmp_path) as settings:
        known = settings["portfolio"]
        known[0] = re.sub("width=[0-9]+", text, known[0]) if text.startswith("width") else text
    with pytest.raises(DamagedArtefactError, match="lacks or misstates a setting"):
        load_search_prior(tmp_path)


def test_a_proposal_depends_on_what_was_tried_and_not_on_what_was_asked(prior):
    space = SPACES["small"]
    task, within = prior.describe(toy_task(space), "new"), Limits(max_params=3000).within(space)
    asked, trials = prior.proposer(drawn=32), []
    for i in range(8):
        fresh = prior.proposer(drawn=32)
        (one,), (other,) = (
            each.propose(task, tuple(trials), within, generator=Generator().manual_seed(i)) for each in (asked, fresh)
        )
        assert one == other == space.canonical(one)
        trials.append(Trial(one, float(i % 3)))
    assert len({space.graph(trial.choice) for trial in trials}) == 8
