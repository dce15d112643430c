import pytest
import torch
from torch import Generator

from quickstudy.artefacts import Artefact, write_artefact
from quickstudy.errors import DamagedArtefactError, ForeignArtefactError, ShapeError
from quickstudy.nas.build import build
from quickstudy.nas.network import Network, load_network, save_network
from quickstudy.nas.standardise import standardised
from quickstudy.nas.tiny import Tiny

SPACES = [Tiny(shape=(1, 8, 8), n_classes=3), Tiny(shape=(2, 20), n_classes=3)]
NAMES = ("ant", "bee", "cat")


def made(space: Tiny) -> tuple[Network, torch.Tensor]:
    generator = Generator().manual_seed(0)
    architecture, x = space.sample(generator=generator), torch.rand(9, *space.shape, generator=generator)
    module = standardised(build(space, architecture, generator=generator), x)
    module.train()(x)  # so that running statistics are not those of a new network
    return Network(space, architecture, module.eval(), NAMES, {"kind": "arrays"}, {"seed": 3}), x


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_a_saved_network_comes_back_as_it_was(space, tmp_path):
    network, x = made(space)
    save_network(tmp_path, network)
    back = load_network(tmp_path)
    assert torch.equal(back.module(x), network.module(x))
    assert (back.architecture, back.class_names, back.inputs, back.training) == (
        network.architecture,
        NAMES,
        {"kind": "arrays"},
        {"seed": 3},
    )


def test_names_and_classes_agree(tmp_path):
    network, _ = made(SPACES[0])
    with pytest.raises(ShapeError, match="2 names were given for 3 classes"):
        save_network(tmp_path, Network(network.space, network.architecture, network.module, NAMES[:2]))


def test_what_is_no_network_or_damaged_is_named(tmp_path, rewritten):
    network, _ = made(SPACES[0])
    write_artefact(tmp_path / "learner", Artefact("learner", {}, {}))
    with pytest.raises(ForeignArtefactError, match="'network' was asked for"):
        load_network(tmp_path / "learner")
    save_network(tmp_path, network)
    with rewritten(tmp_path) as settings:
        settings["architecture"] = settings["architecture"].replace("tiny/1", "tiny/9")
    with pytest.raises(DamagedArtefactError, match="tiny/9"):
        load_network(tmp_path)
