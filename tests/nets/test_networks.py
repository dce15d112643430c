"""The networks are those of their papers."""

import copy
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy import MLP, Conv4, conv4_classifier
from quickstudy.errors import ShapeError
from quickstudy.nets.context import AttentionLSTM, BidirectionalLSTM
from quickstudy.nets.conv4 import FirstBlock
from quickstudy.nets.relation_module import RelationModule
from quickstudy.nets.resnet12 import ResNet12


def n_parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def test_conv4_is_convolution_normalisation_relu_and_pooling_four_times() -> None:
    net, x = Conv4(2, 4), torch.randn(3, 2, 21, 16)
    z = x
    for block in net.blocks:
        conv = block.conv.weight
        z = F.max_pool2d(F.relu(F.batch_norm(F.conv2d(z, conv, padding=1), None, None, training=True)), 2)
    torch.testing.assert_close(net(x), z.flatten(1))


@pytest.mark.parametrize("size", [16, 28, 32, 84])
@pytest.mark.parametrize("downsample", ["pool", "stride"])
def test_conv4_has_the_features_that_it_says(size: int, downsample: str) -> None:
    net = Conv4(1, 4, downsample=downsample)  # type: ignore[arg-type]
    assert net(torch.rand(2, 1, size, size)).shape == (2, net.n_features(size))


def test_a_conv4_classifier_has_an_output_a_class() -> None:
    assert conv4_classifier(5, width=4, size=32)(torch.rand(2, 1, 32, 32)).shape == (2, 5)


@pytest.mark.parametrize("net", [Conv4(3, 4), ResNet12(3, (2, 2, 2, 2))])
def test_pictures_that_do_not_fit_are_refused(net: nn.Module) -> None:
    for shape in ((2, 1, 28, 28), (2, 3, 15, 28)):
        with pytest.raises(ShapeError, match="at least 16"):
            net(torch.rand(shape))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Conv4(1, 0), "width is 0"),
        (lambda: Conv4(0, 4), "channels is 0"),
        (lambda: ResNet12(1, (4, 0)), r"widths\[1\] is 0"),
        (lambda: ResNet12(1, ()), "blocks is 0"),
        (lambda: MLP(0, 2), "inputs is 0"),
        (lambda: MLP(2, 2, hidden=(4, -1)), r"hidden\[1\] is -1"),
        (lambda: RelationModule(4, 4, hidden=0), "hidden is 0"),
    ],
)
def test_networks_without_width_are_refused(make: Callable[[], nn.Module], said: str) -> None:
    with pytest.raises(ShapeError, match=f"{said}, but for .* it is at least 1"):
        make()


def test_resnet12_has_the_size_of_the_published_one() -> None:
    # Three 3x3 convolutions and a 1x1 a block, and a scale and a shift a channel for each of the four.
    widths, expected = (3, 64, 160, 320, 640), 0
    for before, width in pairwise(widths):
        expected += 9 * before * width + 2 * 9 * width * width + before * width + 4 * 2 * width
    with torch.device("meta"):
        assert n_parameters(ResNet12()) == expected == 12_424_320


def test_resnet12_is_the_published_blocks() -> None:
    net, x = ResNet12(1, (4, 6, 8, 10)).eval(), torch.randn(2, 1, 19, 16)
    z = x
    for block in net.blocks:
        shortcut = block.shortcut_norm(block.shortcut(z))
        for i in range(3):
            z = block.norms[i](block.convs[i](z))
            z = F.leaky_relu(z + shortcut if i == 2 else z, 0.1)
        z = F.max_pool2d(z, 2)
    torch.testing.assert_close(net(x), z.mean((-2, -1)))
    assert net(x).shape == (2, net.n_features(16))


def test_an_mlp_without_hidden_layers_is_linear() -> None:
    net, (a, b) = MLP(4, 2, hidden=()), torch.rand(2, 3, 4)
    torch.testing.assert_close(net(a) + net(b), net(a + b) + net(torch.zeros(3, 4)))


def test_an_mlp_flattens_its_inputs() -> None:
    assert MLP(12, 2)(torch.rand(5, 3, 2, 2)).shape == (5, 2)


def test_relations_are_those_of_concatenated_maps() -> None:
    net = RelationModule(4, 5).eval()
    classes, queries = torch.rand(2, 3, 4, 5, 5), torch.rand(2, 6, 4, 5, 5)
    pairs = torch.cat(
        [classes[:, None].expand(2, 6, 3, 4, 5, 5), queries[:, :, None].expand(2, 6, 3, 4, 5, 5)], 3
    ).flatten(0, 2)
    first = torch.cat([net.of_class.weight, net.of_query.weight], 1)
    z = F.max_pool2d(F.relu(net.norms[0](F.conv2d(pairs, first, padding=1))), 2)
    z = F.max_pool2d(F.relu(net.norms[1](net.second(z))), 2)
    expected = net.out(F.relu(net.hidden(z.flatten(1)))).view(2, 6, 3)
    torch.testing.assert_close(net(classes, queries), expected)


def test_support_in_context_is_that_of_torchs_bidirectional_lstm() -> None:
    torch.manual_seed(0)
    net, z = BidirectionalLSTM(4), torch.rand(2, 5, 4)
    theirs = nn.LSTM(4, 4, bidirectional=True, batch_first=True)
    state = {}
    for suffix, cell in (("", net.forwards), ("_reverse", net.backwards)):
        state |= {f"{name}_l0{suffix}": value for name, value in cell.state_dict().items()}
    theirs.load_state_dict(state)
    there, back = theirs(z)[0].split(4, -1)
    torch.testing.assert_close(net(z, torch.ones(2, 5, dtype=torch.bool)), there + back + z)


def test_queries_attend_to_the_support_set_in_any_order() -> None:
    torch.manual_seed(0)
    net, z, support = AttentionLSTM(4, steps=3), torch.rand(2, 6, 4), torch.rand(2, 5, 4)
    real = torch.ones(2, 5, dtype=torch.bool)
    order = torch.tensor([4, 2, 0, 1, 3])
    found: Tensor = net(z, support, real)
    torch.testing.assert_close(net(z, support[:, order], real), found)
    torch.testing.assert_close(net(z[:, :1], support, real), found[:, :1])


@pytest.mark.parametrize("net", [Conv4(1, 4), ResNet12(1, (2, 2, 3, 4))], ids=["conv4", "resnet12"])
def test_networks_may_be_copied_and_restored(net: nn.Module) -> None:
    x, twin = torch.rand(2, 1, 16, 16), copy.deepcopy(net)
    for p in twin.parameters():
        nn.init.normal_(p)
    twin.load_state_dict(net.state_dict())
    torch.testing.assert_close(twin.eval()(x), net.eval()(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_moments_of_the_first_block_are_exact_in_mixed_precision(dtype: torch.dtype) -> None:
    block = FirstBlock(1, 8, strided=False)
    faint = 0.05 * (torch.rand(20, 1, 16, 16, generator=torch.Generator().manual_seed(0)) < 0.2)
    exact = block.moments(block.patches(faint), None)
    with torch.autocast("cpu", dtype):
        assert block(faint).dtype == dtype
        for found, expected in zip(block.moments(block.patches(faint), None), exact):
            torch.testing.assert_close(found, expected)


def test_conv4_works_in_half_precision_throughout() -> None:
    net = Conv4(1, 4)
    x = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    expected = net(x)
    torch.testing.assert_close(net.bfloat16()(x.bfloat16()).float(), expected, rtol=0.1, atol=0.1)
