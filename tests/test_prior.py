import pickle

import pytest
import torch
from torch import nn

from quickstudy import MAML, Episodes, LabelledSet, Prior, Recipe, RelationNetwork, load, relation_nets, save
from quickstudy.cli.options import parse_settings
from quickstudy.errors import ArtefactError, DamagedArtefactError, DataNotFoundError, ShapeError
from quickstudy.learners.catalogue import LEARNERS, NETS
from quickstudy.priors import shipped, shipped_names
from quickstudy.priors.make import COMMANDS

SHAPE = (1, 28, 28)
TASK = Episodes(
    LabelledSet(torch.rand(12, *SHAPE, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3, tuple("abc")),
    n_way=3,
    n_query=2,
).sample(2, generator=torch.Generator().manual_seed(1))


def recipe(learner: str = "prototypical_network", **settings) -> Recipe:
    options = {"n_classes": 7} if learner == "fine_tune" else {}
    return Recipe(learner, "conv4", SHAPE, 3, options, {"width": 4} | settings)


def answers(learner):
    with torch.no_grad():
        return learner.adapt(TASK, generator=torch.Generator().manual_seed(0))(TASK.query.x).probs


@pytest.mark.parametrize("name", LEARNERS)
def test_every_learner_answers_the_same_after_it_was_saved_and_loaded(tmp_path, name):
    learner = recipe(name).build().eval()
    save(tmp_path, Prior(learner, recipe(name), {"size": 28}, {"n_shot": 1}))
    found = load(tmp_path)
    assert type(found.learner) is LEARNERS[name].kind
    assert not found.learner.training
    assert found.recipe == recipe(name)
    assert (found.encoder, found.training) == ({"size": 28}, {"n_shot": 1})
    assert torch.equal(answers(found.learner), answers(learner))


@pytest.mark.parametrize("name", LEARNERS)
def test_every_learner_can_be_sent_to_another_process(name):
    learner = recipe(name).build()
    learner.loss(TASK)  # which leaves nothing behind that could not be sent
    sent = pickle.loads(pickle.dumps(learner.eval()))
    assert torch.equal(answers(sent), answers(learner))
    assert torch.equal(sent.loss(TASK), learner.loss(TASK))


@pytest.mark.parametrize("net", NETS)
def test_every_network_by_name_can_be_built(net):
    assert sum(p.numel() for p in Recipe("prototypical_network", net, SHAPE, 3).build().parameters()) > 1000


class Tied(nn.Module):
    """A network that quickstudy did not write: it uses one weight twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(784, 784), nn.Linear(784, 784), nn.Linear(784, 3)
        self.second.weight = self.first.weight
        self.norm = nn.BatchNorm1d(784)

    def forward(self, x):
        return self.last(self.second(self.norm(self.first(x.flatten(1)).relu())))


@pytest.mark.parametrize("name", ["prototypical_network", "maml", "reptile", "anil", "fine_tune"])
def test_a_network_of_the_users_own_is_given_again_on_loading(tmp_path, name):
    own = Recipe(name, None, SHAPE, 3, recipe(name).options)
    learner = own.build(Tied()).eval()
    save(tmp_path, Prior(learner, own))
    found = load(tmp_path, net=Tied()).learner
    assert torch.equal(answers(found), answers(learner))
    net = found.body if name == "anil" else found.net
    assert net.first.weight is net.second.weight
    with pytest.raises(ShapeError, match="a network of your own: load"):
        load(tmp_path)
    with pytest.raises(DamagedArtefactError, match="do not fit"):
        load(tmp_path, net=nn.Sequential(nn.Flatten(), nn.Linear(784, 3)))


def test_a_learner_of_several_networks_says_that_one_is_not_enough():
    with pytest.raises(ShapeError, match="relation_network is not made of one network"):
        Recipe("relation_network", None, SHAPE, 3).build(Tied())


def test_a_learner_with_functions_is_constructed_again_on_loading(tmp_path):
    def make(lr=0.1, **functions):
        return MAML(Tied(), lr=lr, adapts=lambda name: name.startswith("last"), **functions)

    learner = make().eval()
    save(tmp_path, Prior(learner, Recipe("maml", None, SHAPE, 3)))
    assert torch.equal(answers(load(tmp_path, learner=make()).learner), answers(learner))
    told = r"was constructed with adapts, and this one with {}: construct it as it was, and load\(path, learner="
    with pytest.raises(ShapeError, match=told.format("none")):
        load(tmp_path, net=Tied())
    with pytest.raises(ShapeError, match=told.format("adapts, regulariser")):
        load(tmp_path, learner=make(regulariser=lambda phi: phi["last.bias"].sum()))
    with pytest.raises(ShapeError, match=r"a MAML with lr=0\.1, and the learner has lr=0\.4"):
        load(tmp_path, learner=make(lr=0.4))


def test_a_prior_from_before_functions_were_told_takes_a_learner_that_has_some(tmp_path, rewritten):
    def make():
        return MAML(Tied(), adapts=lambda name: name.startswith("last"))

    learner = make().eval()
    save(tmp_path, Prior(learner, Recipe("maml", None, SHAPE, 3)))
    with rewritten(tmp_path) as settings:
        del settings["functions"]
    assert torch.equal(answers(load(tmp_path, learner=make()).learner), answers(learner))
    with pytest.raises(ShapeError, match="Leave the network out"):
        load(tmp_path, learner=make(), net=Tied())


def test_damaged_settings_are_damage_for_a_learner_that_is_given_too(tmp_path, rewritten):
    save(tmp_path, Prior(recipe().build(), recipe()))
    with rewritten(tmp_path) as settings:
        settings["recipe"]["net"] = "conv9"
    with pytest.raises(DamagedArtefactError, match="lacks or misstates a setting"):
        load(tmp_path, learner=recipe().build())


def test_a_learner_of_several_networks_is_constructed_again_on_loading(tmp_path):
    learner, other = (RelationNetwork(*relation_nets(1, 4)).eval() for _ in range(2))
    save(tmp_path, Prior(learner, Recipe("relation_network", None, SHAPE, 3)))
    assert torch.equal(answers(load(tmp_path, learner=other).learner), answers(learner))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ({"recipe": {"learner": "maml"}}, "lacks or misstates a setting"),
        ({"recipe": None}, "lacks or misstates a setting"),
        ({"encoder": [1]}, "lacks or misstates a setting"),
        ({"recipe": recipe(width=5).to_settings()}, "do not fit its settings"),
        ({"recipe": recipe(width=-1).to_settings()}, "lacks or misstates a setting"),
    ],
)
def test_settings_that_do_not_fit_are_damage(tmp_path, rewritten, damage, told):
    save(tmp_path, Prior(recipe().build(), recipe()))
    with rewritten(tmp_path) as settings:
        settings |= damage
    with pytest.raises(ArtefactError, match=told) as error:
        load(tmp_path)
    assert "\n" not in str(error.value)


def test_a_folder_without_a_prior_says_so(tmp_path):
    with pytest.raises(DataNotFoundError, match="holds no prior"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"learner": "mamml"}, "there is no learner 'mamml'; there are maml, "),
        ({"net": "conv5"}, "there is no network 'conv5'; there are conv4, "),
        ({"options": {"stepps": 3}}, "maml has no option 'stepps'; it has lr, steps, "),
        ({"options": {"adapts": "all"}}, "maml has no option 'adapts'"),
        ({"options": {"steps": 1.5}}, "steps is 1.5, but for maml it is of type int"),
        ({"options": {"lr": "fast"}}, "lr is 'fast', but for maml it is of type float"),
        ({"options": {"order": 3}}, "order is 3, but for maml it is 1 or 2"),
        ({"options": {"low_memory": 1}}, "low_memory is 1, but for maml it is of type bool"),
        ({"net_options": {"depth": 4}}, "conv4 has no option 'depth'; it has width, downsample"),
        ({"net_options": {"channels": 3}}, "conv4 has no option 'channels'"),
        ({"learner": "fine_tune", "options": {"n_features": 3}}, "fine_tune has no option 'n_features'"),
    ],
)
def test_a_recipe_that_cannot_be_made_says_what_there_is(settings, told):
    with pytest.raises(ShapeError, match=told.replace(".", r"\.")):
        Recipe(**{"learner": "maml", "net": "conv4", "shape": SHAPE, "n_way": 3} | settings).build()


def test_whole_numbers_are_taken_for_real_ones():
    assert Recipe("maml", "conv4", SHAPE, 3, {"lr": 1}, {"width": 4}).build() is not None


@pytest.mark.parametrize("name", LEARNERS)
def test_the_catalogue_knows_which_learners_take_more_classes_than_they_were_built_for(name):
    """A task of three classes, for a network of two outputs."""
    learner = Recipe(name, "conv4", SHAPE, 2, recipe(name).options, {"width": 4}).build()
    if LEARNERS[name].any_way:
        assert answers(learner).shape == (2, 6, 3)
    else:
        with pytest.raises(ShapeError, match="a 3-way task needs 3"):
            answers(learner)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"options": {"steps": -1}}, "steps is -1, but for MAML it is at least 0"),
        ({"options": {"lr": 0}}, "lr is 0, but for maml it is above 0"),
        ({"options": {"lr": float("nan")}}, "lr is nan, but for maml it is a finite number"),
        ({"learner": "meta_sgd", "options": {"lr": "fast"}}, "lr is 'fast', but for meta_sgd it is of type float."),
        ({"learner": "fine_tune"}, "fine_tune needs n_classes: give it among the options"),
        ({"learner": "relation_network", "net": "resnet12"}, "paper's own conv4, .*; got resnet12"),
        ({"learner": "relation_network", "net_options": {"downsample": "stride"}}, "got conv4, downsample='stride'"),
        ({"learner": "relation_network", "net_options": {"width": "wide"}}, "width is 'wide'"),
    ],
)
def test_an_option_with_an_impossible_value_says_what_it_may_be(settings, told):
    with pytest.raises(ShapeError, match=told):
        Recipe(**{"learner": "maml", "net": "conv4", "shape": SHAPE, "n_way": 3} | settings).build()


def test_one_rate_is_enough_for_meta_sgd():
    learner = Recipe("meta_sgd", "conv4", SHAPE, 3, {"lr": 0.01}, {"width": 4}).build()
    rates = [value for name, value in learner.named_parameters() if not name.startswith("net.")]
    assert rates
    assert all((value == 0.01).all() for value in rates)


def test_a_matching_network_with_context_is_told_the_size_of_an_embedding():
    options = {"context_steps": 2}
    learner = Recipe("matching_network", "conv4", SHAPE, 3, options, {"width": 4}).build().eval()
    own = Recipe("matching_network", None, SHAPE, 3, options).build(nn.Sequential(nn.Flatten(), nn.Linear(784, 6)))
    assert answers(learner).shape == answers(own.eval()).shape == (2, 6, 3)


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (recipe("maml"), "the recipe makes a MAML, and the learner is a PrototypicalNetwork"),
        (recipe(width=5), r"of shape \(5.*and the learner has shape \(4"),
        (Recipe(**vars(recipe()) | {"options": {"distance": "cosine"}}), "with distance='cosine', and the learner has"),
    ],
)
def test_a_learner_is_not_saved_with_a_recipe_that_makes_another(tmp_path, other, told):
    with pytest.raises(ShapeError, match=told):
        save(tmp_path / "prior", Prior(recipe().build(), other))
    assert not (tmp_path / "prior").exists()


def test_saving_draws_no_random_numbers(tmp_path):
    learner, before = recipe().build(), torch.get_rng_state()
    save(tmp_path, Prior(learner, recipe()))
    assert torch.equal(before, torch.get_rng_state())


def test_a_learner_in_another_precision_than_its_recipe_makes_is_not_saved(tmp_path):
    made = recipe()
    with pytest.raises(ShapeError, match=r"in float32, and the learner has .* in float64"):
        save(tmp_path, Prior(made.build().double(), made))


def test_every_prior_that_is_shipped_has_a_command_that_made_it():
    assert shipped_names() == sorted(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_prior_that_is_shipped_is_small_and_of_the_command_that_made_it(name):
    assert sum(path.stat().st_size for path in shipped(name).iterdir()) <= 1e6
    prior, words = load(shipped(name)), COMMANDS[name].split()
    given = list(zip(words[::2], words[1::2], strict=True))
    said = dict(given)
    assert prior.recipe.learner == said["--learner"]
    own = parse_settings([value for option, value in given if option == "--set"])
    assert {**prior.recipe.options, **own} == prior.recipe.options
    assert dict(prior.recipe.net_options) == parse_settings([v for option, v in given if option == "--set-net"])
    for option, key in (("--n-query", "n_query"), ("--tasks-per-step", "tasks_per_step"), ("--clip", "clip")):
        assert prior.training[key] == float(said[option])
    assert prior.training["n_way"] == int(said.get("--n-way", 5))
    assert prior.training["lr"] == [float(said.get("--lr", 1e-3))]
    assert prior.training["seconds"] >= 60 * float(said["--minutes"])
    assert len(prior.training["class_names"]["train"]) == 2100  # which `evaluate` leaves out
    assert prior.training["unknown"]
