"""The meta-gradient is exact for the layers and functions of torch."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from quickstudy import MAML, Examples, Task
from quickstudy.nets.second_derivatives import BATCHED, Defined
from quickstudy.testing.learners import vector_tasks

VECTOR, SERIES, PICTURE = (12,), (2, 6), (2, 5, 5)


class Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Words(nn.Module):
    """Passes three words of four features on."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x.unflatten(1, (3, 4)))
        return out


ACTIVATIONS = [
    lambda: nn.CELU(),
    lambda: nn.ELU(),
    lambda: nn.GELU(),
    lambda: nn.GELU("tanh"),
    lambda: nn.GLU(),
    lambda: nn.Hardswish(),
    lambda: nn.LeakyReLU(),
    lambda: nn.LogSigmoid(),
    lambda: nn.LogSoftmax(1),
    lambda: nn.Mish(),
    lambda: nn.PReLU(),
    lambda: nn.PReLU(12),
    lambda: nn.ReLU6(),
    lambda: nn.SELU(),
    lambda: nn.Sigmoid(),
    lambda: nn.SiLU(),
    lambda: nn.Softmax(1),
    lambda: nn.Softplus(),
    lambda: nn.Softshrink(0.1),
    lambda: nn.Softsign(),
    lambda: nn.Tanhshrink(),
]
ON_VECTORS: dict[str, Callable[[], nn.Module]] = {
    **{str(make()): make for make in ACTIVATIONS},
    "LayerNorm": lambda: nn.LayerNorm(12),
    "LayerNorm without bias": lambda: nn.LayerNorm(12, bias=False),
    "RMSNorm": lambda: nn.RMSNorm(12),
    "orthogonal": lambda: nn.utils.parametrizations.orthogonal(nn.Linear(12, 12)),
    "a transformer": lambda: Words(nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)),
    "norm first": lambda: Words(nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True, norm_first=True)),
    "cosine similarity": lambda: Words(Function(lambda x: F.cosine_similarity(x, x.flip(1), dim=2))),
    "cumsum": lambda: Function(lambda x: x.cumsum(1)),
    "einsum": lambda: Words(Function(lambda x: torch.einsum("bij,bkj->bik", x, x))),
    "fft": lambda: Function(lambda x: torch.fft.rfft(x).abs()),
    "logsumexp": lambda: Words(Function(lambda x: x.logsumexp(2))),
    "normalize": lambda: Function(lambda x: F.normalize(x, dim=1)),
    "prod": lambda: Words(Function(lambda x: x.prod(2))),
    "solve": lambda: Function(
        lambda x: torch.linalg.solve(x[:, :9].unflatten(1, (3, 3)) + 2 * torch.eye(3).to(x), x[:, 9:])
    ),
    "std": lambda: Function(lambda x: x / x.std(1, keepdim=True)),
    "topk": lambda: Function(lambda x: x.topk(4, 1).values),
}
ON_SERIES: dict[str, Callable[[], nn.Module]] = {
    "Conv1d": lambda: nn.Conv1d(4, 4, 3, stride=2),
    "InstanceNorm1d": lambda: nn.InstanceNorm1d(4, affine=True),
}
ON_PICTURES: dict[str, Callable[[], nn.Module]] = {
    "AdaptiveAvgPool2d": lambda: nn.AdaptiveAvgPool2d(2),
    "AdaptiveMaxPool2d": lambda: nn.AdaptiveMaxPool2d(2),
    "AvgPool2d": lambda: nn.AvgPool2d(2),
    "BatchNorm2d": lambda: nn.BatchNorm2d(4),
    "a depthwise convolution": lambda: nn.Conv2d(4, 4, 3, groups=4),
    "a dilated convolution": lambda: nn.Conv2d(4, 4, 2, dilation=2),
    "a reflecting convolution": lambda: nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
    "ConvTranspose2d": lambda: nn.ConvTranspose2d(4, 4, 3, stride=2),
    "GroupNorm": lambda: nn.GroupNorm(2, 4),
    "InstanceNorm2d": lambda: nn.InstanceNorm2d(4, affine=True),
    "LayerNorm of pictures": lambda: nn.LayerNorm([4, 5, 5]),
    "LocalResponseNorm": lambda: nn.LocalResponseNorm(2),
    "LPPool2d": lambda: nn.LPPool2d(2, 2),
    "MaxPool2d": lambda: nn.MaxPool2d(2),
    "PixelShuffle": lambda: nn.PixelShuffle(2),
    "Unfold": lambda: nn.Unfold(3),
    "bicubic": lambda: nn.Upsample(scale_factor=2, mode="bicubic"),
    "bilinear": lambda: nn.Upsample(scale_factor=2, mode="bilinear"),
}
CASES = [
    *((name, lambda: nn.Linear(12, 12), layer, VECTOR) for name, layer in ON_VECTORS.items()),
    *((name, lambda: nn.Conv1d(2, 4, 3, padding=1), layer, SERIES) for name, layer in ON_SERIES.items()),
    *((name, lambda: nn.Conv2d(2, 4, 3, padding=1), layer, PICTURE) for name, layer in ON_PICTURES.items()),
]


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # vmap's, of fused attention in the query half
@pytest.mark.parametrize(("first", "layer", "shape"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_the_meta_gradient_is_exact(
    first: Callable[[], nn.Module], layer: Callable[[], nn.Module], shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    support, query = torch.randn(2, 2, 4, *shape, dtype=torch.float64)
    labels = torch.tensor([[0, 1, 2, 0], [2, 1, 0, 1]])
    tasks = Task(Examples(support, labels), Examples(query, labels), 3)
    body = nn.Sequential(first(), nn.Tanh(), layer(), nn.Flatten()).double()
    net = nn.Sequential(body, nn.Linear(body(support[0]).shape[1], 3).double())
    direction = [torch.randn_like(parameter) for parameter in net.parameters()]
    found = []
    for batching in ("vmap", "loop"):
        maml = MAML(net, lr=0.3, steps=2, batching=batching)  # type: ignore[arg-type]
        gradients = torch.autograd.grad(maml.loss(tasks).sum(), list(maml.net.parameters()))
        assert maml.inner.loops == (batching == "loop")
        found.append(sum(float((g * d).sum()) for g, d in zip(gradients, direction)))
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            for parameter, step in zip(maml.net.parameters(), direction):
                parameter += sign * 1e-6 * step
            values.append(float(maml.loss(tasks).sum()))
            for parameter, step in zip(maml.net.parameters(), direction):
                parameter -= sign * 1e-6 * step
    assert found == pytest.approx([(values[0] - values[1]) / 2e-6] * 2, rel=1e-5, abs=1e-7)


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.last = nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5)), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(checkpoint(self.body, x, use_reentrant=False))
        return out


def test_a_network_that_recomputes_its_activations_is_taken_in_a_loop() -> None:
    tasks = vector_tasks(2).sample(2, generator=torch.Generator().manual_seed(0))
    maml = MAML(Checkpointed(), lr=0.3, steps=2)
    maml.loss(tasks).sum().backward()
    assert maml.inner.loops


@pytest.mark.parametrize(
    "normalise",
    [
        lambda x, gain: F.layer_norm(x, (6,), gain, gain),
        lambda x, gain: torch.instance_norm(x[None], gain[:4], gain[:4], None, None, True, 0.1, 1e-5, False),
        lambda x, gain: F.batch_norm(x, None, None, gain, training=True),
        lambda x, gain: F.batch_norm(x, gain, gain.square() + 1, gain, gain),
    ],
    ids=["layer", "instance", "batch", "running"],
)
def test_definitions_give_what_torch_gives_in_its_precision(normalise: Callable[[Tensor, Tensor], Tensor]) -> None:
    x, gain = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0))[0], torch.arange(1.0, 7.0)
    for precision in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            expected = normalise(x.to(precision), gain)
            with Defined(BATCHED):
                found = normalise(x.to(precision), gain)
        close = {} if precision == torch.float32 else {"rtol": 0.0, "atol": 0.1}
        torch.testing.assert_close(found, expected, **close)
