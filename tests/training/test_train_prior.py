from dataclasses import replace

import pytest
import torch

from quickstudy import LabelledSet, PictureEncoder, Plan, load, load_splits, train_prior
from quickstudy.errors import ForeignArtefactError, OutputExistsError, ShapeError, TooFewExamplesError
from quickstudy.tasks.catalogue import Splits
from quickstudy.training.checkpoint import CHECKPOINT
from quickstudy.training.origin import is_as_trained, origin, trained_on, unseen

pytestmark = pytest.mark.usefixtures("few_queries")

PLAN = Plan(n_way=2, steps=2, validation_tasks=4)
SMALL = {"width": 4}


def part(seed: int, classes: int = 3, each: int = 4) -> LabelledSet:
    x = torch.rand(classes * each, 1, 16, 16, generator=torch.Generator().manual_seed(seed))
    return LabelledSet(x, torch.arange(classes * each) % classes, tuple("abcdefgh"[:classes]))


SPLITS = Splits(part(0), part(1), part(2), PictureEncoder(size=16))


def test_a_prior_that_is_trained_here_is_the_one_that_is_saved(tmp_path):
    prior = train_prior(SPLITS, net_options=SMALL, plan=PLAN, out=tmp_path)
    again = load(tmp_path)
    assert again.recipe == prior.recipe
    assert again.training == prior.training
    for name, value in prior.learner.state_dict().items():
        assert torch.equal(value, again.learner.state_dict()[name])


def test_nothing_is_written_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stages = []
    train_prior(SPLITS, net_options=SMALL, plan=PLAN, on_stage=stages.append)
    assert list(tmp_path.iterdir()) == []
    assert "3 classes to train on, 3 to validate on; cpu" in stages[0]
    assert stages[1].startswith("query examples a class: 3, for ")
    assert stages[2].startswith("2 steps in ")


def test_the_test_classes_are_not_looked_at():
    nothing = LabelledSet(torch.zeros(0, 1, 16, 16), torch.zeros(0, dtype=torch.int64), ())
    parts = Splits(SPLITS.train, SPLITS.validation, nothing, SPLITS.encoder)
    assert train_prior(parts, net_options=SMALL, plan=PLAN).training["steps"] == 2


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"plan": Plan(n_way=4)}, TooFewExamplesError, "4-way tasks need 4 classes"),
        ({"splits": replace(SPLITS, test=part(2, each=1))}, TooFewExamplesError, "for the test .* 'a' has 1. Add"),
        ({"net_options": {"width": -1}}, ShapeError, "width is -1"),
        ({"learner": "magic"}, ShapeError, "there is no learner 'magic'"),
    ],
)
def test_what_cannot_be_trained_leaves_no_folder(tmp_path, change, error, said):
    options = {"splits": SPLITS, "net_options": SMALL, "plan": PLAN, **change}
    with pytest.raises(error, match=said):
        train_prior(out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_training_goes_on_with_the_same_data_only(tmp_path):
    train_prior(SPLITS, net_options=SMALL, plan=PLAN, out=tmp_path)
    weights = (tmp_path / "weights.safetensors").read_bytes()
    for other in (
        Splits(part(3), SPLITS.validation, SPLITS.test, SPLITS.encoder),
        Splits(SPLITS.train, SPLITS.validation, part(4), SPLITS.encoder),
    ):
        with pytest.raises(ForeignArtefactError, match=r"had (train|test) data = '12 examples of 3 classes, sha256 "):
            train_prior(other, net_options=SMALL, plan=PLAN, out=tmp_path, resume=True)
    assert (tmp_path / "weights.safetensors").read_bytes() == weights
    assert train_prior(SPLITS, net_options=SMALL, plan=PLAN, out=tmp_path, resume=True).training["steps"] == 2


def test_a_prior_without_its_checkpoint_is_not_trained_anew_over_itself(tmp_path):
    train_prior(SPLITS, net_options=SMALL, plan=PLAN, out=tmp_path)
    (tmp_path / CHECKPOINT).unlink()
    weights = (tmp_path / "weights.safetensors").read_bytes()
    with pytest.raises(OutputExistsError, match="holds a prior, but no checkpoint to go on from"):
        train_prior(SPLITS, net_options=SMALL, plan=PLAN, out=tmp_path, resume=True)
    assert (tmp_path / "weights.safetensors").read_bytes() == weights


def test_a_plan_whose_validation_has_no_interval_is_refused():
    with pytest.raises(ShapeError, match="1 validation tasks have no interval"):
        Plan(validation_tasks=1)


def test_a_folder_that_holds_a_prior_is_left_as_it_is(tmp_path):
    (tmp_path / "prior.json").write_text("{}")
    with pytest.raises(OutputExistsError, match="holds a prior"):
        train_prior(SPLITS, net_options=SMALL, plan=PLAN, out=tmp_path)
    assert (tmp_path / "prior.json").read_text() == "{}"


def test_a_prior_finds_the_data_of_its_training_by_name():
    splits = Splits(*(part(i) for i in range(3)), PictureEncoder(size=16), "glyphs")
    told = origin(splits)
    assert told.keys() == {"source", "data", "class_names"}
    assert trained_on("prior", told) == "glyphs"
    assert is_as_trained("prior", told, splits)
    assert not is_as_trained("prior", told, Splits(part(5), part(1), part(2), PictureEncoder(size=16), "glyphs"))


def named(names: str) -> LabelledSet:
    return replace(part(0, classes=len(names)), class_names=tuple(names))


def test_classes_that_a_prior_knows_of_one_data_set_are_left_out_of_another_that_has_them():
    one = Splits(named("abc"), named("de"), named("fg"), PictureEncoder(size=16), "cifar-fs")
    data, seen = unseen("prior", origin(one), named("hbdf"), "test", "fc100")
    assert seen == ("b", "d")
    assert data.class_names == ("h", "f")


def test_parts_of_a_data_set_know_where_they_come_from(tmp_path):
    from PIL import Image

    for name in "abcdef":
        (tmp_path / "mine" / name).mkdir(parents=True)
        Image.new("L", (8, 8), "white").save(tmp_path / "mine" / name / "1.png")
    splits = load_splits(str(tmp_path / "mine"), n_way=2, encoder=PictureEncoder(size=8))
    assert (splits.name, splits.folder) == ("mine", tmp_path / "mine")
    told = origin(splits, tmp_path / "runs" / "prior")
    assert told["folder"] == "../../mine"
    assert trained_on(str(tmp_path / "runs" / "prior"), told) == str(tmp_path / "mine")


def test_a_run_goes_on_with_less_memory(tmp_path):
    def run(until, **options):
        plan = replace(PLAN, steps=until, schedule="constant")
        found = train_prior(SPLITS, "maml", options=options, net_options=SMALL, plan=plan, out=tmp_path, resume=True)
        return found.training["steps"]

    assert run(1) == 1
    assert run(2, low_memory=True) == 2
    with pytest.raises(ForeignArtefactError, match="options"):
        run(3, steps=3)
