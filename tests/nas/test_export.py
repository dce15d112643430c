import json
import os

import onnx
import pytest
import torch
from torch import Generator, Tensor, nn

from quickstudy.errors import ExportError, ShapeError
from quickstudy.nas.build import Limits, build
from quickstudy.nas.export import OPSET, export_onnx, run
from quickstudy.nas.tiny import Tiny

PICTURES, SERIES = Tiny(shape=(3, 11, 9), n_classes=4), Tiny(shape=(2, 25), n_classes=4)
NAMES = ["ant", "bee", "cat", "dögg"]
CELL = ("conv3", "sep_conv3", "avg_pool3", "skip_connect", "none", "conv1")


def trained(space: Tiny, *rest: str | int) -> nn.Module:
    """A network whose running statistics are not those of initialisation."""
    generator = Generator().manual_seed(0)
    network = build(space, space.architecture((*CELL, *rest)), generator=generator)
    network(torch.randn(8, *space.shape, generator=generator) + 1)
    return network


@pytest.mark.parametrize(
    ("network", "space"),
    [
        (trained(PICTURES, 6, 1, 2, "pool2", "avg", "grid"), PICTURES),
        (trained(SERIES, 4, 1, 2, "stride2", "max", "max"), SERIES),
    ],
    ids=["pictures", "series"],
)
def test_an_exported_network_gives_the_logits_of_torch_for_any_batch(network, space, tmp_path, capfd, caplog):
    training = network.training
    path = export_onnx(network, space.shape, tmp_path / "new" / "net.onnx", NAMES, inputs={"levels": 255})
    assert network.training is training
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if record.levelname != "DEBUG"]
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [(one.domain, one.version) for one in model.opset_import] == [("", OPSET)]
    assert {one.key: json.loads(one.value) for one in model.metadata_props} == {
        "class_names": NAMES,
        "inputs": {"levels": 255},
    }
    assert b"quickstudy" not in path.read_bytes()
    assert b".py" not in path.read_bytes()
    assert [node.op_type for node in model.graph.node].count("BatchNormalization") == 1  # the head's
    x = torch.randn(7, *space.shape)
    torch.testing.assert_close(run(path.read_bytes(), [x])[0], network.eval()(x), rtol=1e-4, atol=1e-4)


SHAPES = ((1, 12, 12), (3, 9, 14), (2, 17), (1, 40), (1, 8, 21))


MEMBERS = 50 if "QUICKSTUDY_THOROUGH" in os.environ else 3
"""An export takes a second or two, and the suite is to take few minutes."""


@pytest.mark.parametrize("seed", range(MEMBERS))
def test_random_members_are_exported_and_answer_as_torch_does(seed, tmp_path):
    generator = Generator().manual_seed(seed)
    space = Tiny(shape=SHAPES[seed % len(SHAPES)], n_classes=2 + seed % 7)
    member = Limits(max_params=20_000).within(space).sample(generator=generator)
    network = build(space, member, generator=generator)
    network(torch.randn(16, *space.shape, generator=generator) + 1)  # statistics that are not the first ones
    path = export_onnx(network, space.shape, tmp_path / "net.onnx", [f"class {i}" for i in range(space.n_classes)])
    x = torch.randn(5, *space.shape, generator=generator)
    torch.testing.assert_close(run(path.read_bytes(), [x])[0], network.eval()(x), rtol=1e-4, atol=1e-4)


def test_an_export_that_computes_something_else_is_refused(tmp_path):
    class Biased(nn.Module):
        """Answers differently while it is traced."""

        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1).sum(1, keepdim=True) + int(torch.compiler.is_exporting())

    with pytest.raises(ExportError, match=r"differ by 1 from torch's.*was not written"):
        export_onnx(Biased(), (1, 2), tmp_path / "net.onnx", ["one"])
    assert not list(tmp_path.iterdir())


class OffWhereBright(nn.Module):
    """While it is traced, it answers differently to inputs whose sum is over 1,000, as no random one's is."""

    def forward(self, x: Tensor) -> Tensor:
        total = x.flatten(1).sum(1, keepdim=True)
        return total / 1000 + int(torch.compiler.is_exporting()) * (total - 1000).relu().sign()


def test_an_export_that_differs_on_real_examples_alone_is_refused(tmp_path):
    path, bright = tmp_path / "net.onnx", torch.full((300, 1, 2), 1000.0)
    export_onnx(OffWhereBright(), (1, 2), path, ["one"], examples=bright / 1000)
    with pytest.raises(ExportError, match="logits differ by 1 from torch's"):
        export_onnx(OffWhereBright(), (1, 2), tmp_path / "other.onnx", ["one"], examples=bright)
    assert not (tmp_path / "other.onnx").exists()


def test_weights_that_are_not_finite_are_refused(tmp_path):
    network = nn.Sequential(nn.Flatten(), nn.Linear(2, 1))
    nn.init.constant_(network[1].weight, float("nan"))
    with pytest.raises(ExportError, match="differ by nan"):
        export_onnx(network, (1, 2), tmp_path / "net.onnx", ["one"])


def test_a_network_that_torch_cannot_export_is_refused(tmp_path):
    class Chosen(nn.Module):
        """Reads a value to choose what to do."""

        def forward(self, x: Tensor) -> Tensor:
            return x.sum(1) if x.sum() > 0 else -x.sum(1)

    with pytest.raises(ExportError, match="cannot export Chosen"):
        export_onnx(Chosen(), (1, 2), tmp_path / "net.onnx", ["one", "two"])


def test_names_that_do_not_match_the_outputs_are_refused(tmp_path):
    with pytest.raises(ShapeError, match="3 class names"):
        export_onnx(trained(SERIES, 4, 1, 1, "pool4", "max", "mean"), SERIES.shape, tmp_path / "net.onnx", NAMES[:3])
