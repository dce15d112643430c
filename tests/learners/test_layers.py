"""The meta-gradient is exact for the layers and functions of torch: batched, it is what a loop over tasks gives."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy import MAML, Examples, Task

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
    *(nn.CELU(), nn.ELU(), nn.GELU(), nn.GELU("tanh"), nn.GLU(), nn.Hardswish(), nn.LeakyReLU(), nn.LogSigmoid()),
    *(nn.LogSoftmax(1), nn.Mish(), nn.PReLU(), nn.PReLU(12), nn.ReLU6(), nn.SELU(), nn.Sigmoid(), nn.SiLU()),
    *(nn.Softmax(1), nn.Softplus(), nn.Softshrink(0.1), nn.Softsign(), nn.Tanhshrink()),
]
ON_VECTORS: dict[str, nn.Module] = {
    **{str(layer): layer for layer in ACTIVATIONS},
    "LayerNorm": nn.LayerNorm(12),
    "LayerNorm without bias": nn.LayerNorm(12, bias=False),
    "RMSNorm": nn.RMSNorm(12),
    "orthogonal": nn.utils.parametrizations.orthogonal(nn.Linear(12, 12)),
    "a transformer": Words(nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)),
    "norm first": Words(nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True, norm_first=True)),
    "cosine similarity": Words(Function(lambda x: F.cosine_similarity(x, x.flip(1), dim=2))),
    "cumsum": Function(lambda x: x.cumsum(1)),
    "einsum": Words(Function(lambda x: torch.einsum("bij,bkj->bik", x, x))),
    "fft": Function(lambda x: torch.fft.rfft(x).abs()),
    "logsumexp": Words(Function(lambda x: x.logsumexp(2))),
    "normalize": Function(lambda x: F.normalize(x, dim=1)),
    "prod": Words(Function(lambda x: x.prod(2))),
    "solve": Function(lambda x: torch.linalg.solve(x[:, :9].unflatten(1, (3, 3)) + 2 * torch.eye(3).to(x), x[:, 9:])),
    "std": Function(lambda x: x / x.std(1, keepdim=True)),
    "topk": Function(lambda x: x.topk(4, 1).values),
}
ON_SERIES: dict[str, nn.Module] = {
    "Conv1d": nn.Conv1d(4, 4, 3, stride=2),
    "InstanceNorm1d": nn.InstanceNorm1d(4, affine=True),
}
ON_PICTURES: dict[str, nn.Module] = {
    "AdaptiveAvgPool2d": nn.AdaptiveAvgPool2d(2),
    "AdaptiveMaxPool2d": nn.AdaptiveMaxPool2d(2),
    "AvgPool2d": nn.AvgPool2d(2),
    "BatchNorm2d": nn.BatchNorm2d(4),
    "a depthwise convolution": nn.Conv2d(4, 4, 3, groups=4),
    "a dilated convolution": nn.Conv2d(4, 4, 2, dilation=2),
    "a reflecting convolution": nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
    "ConvTranspose2d": nn.ConvTranspose2d(4, 4, 3, stride=2),
    "GroupNorm": nn.GroupNorm(2, 4),
    "InstanceNorm2d": nn.InstanceNorm2d(4, affine=True),
    "LayerNorm of pictures": nn.LayerNorm([4, 5, 5]),
    "LocalResponseNorm": nn.LocalResponseNorm(2),
    "LPPool2d": nn.LPPool2d(2, 2),
    "MaxPool2d": nn.MaxPool2d(2),
    "PixelShuffle": nn.PixelShuffle(2),
    "Unfold": nn.Unfold(3),
    "bicubic": nn.Upsample(scale_factor=2, mode="bicubic"),
    "bilinear": nn.Upsample(scale_factor=2, mode="bilinear"),
}
CASES = [
    *((name, nn.Linear(12, 12), layer, VECTOR) for name, layer in ON_VECTORS.items()),
    *((name, nn.Conv1d(2, 4, 3, padding=1), layer, SERIES) for name, layer in ON_SERIES.items()),
    *((name, nn.Conv2d(2, 4, 3, padding=1), layer, PICTURE) for name, layer in ON_PICTURES.items()),
]


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # vmap's, of fused attention in the query half
@pytest.mark.parametrize(("first", "layer", "shape"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_the_meta_gradient_is_exact(first: nn.Module, layer: nn.Module, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    support, query = torch.randn(2, 2, 4, *shape, dtype=torch.float64)
    labels = torch.tensor([[0, 1, 2, 0], [2, 1, 0, 1]])
    tasks = Task(Examples(support, labels), Examples(query, labels), 3)
    body = nn.Sequential(first, nn.Tanh(), layer, nn.Flatten()).double()
    net = nn.Sequential(body, nn.Linear(body(support[0]).shape[1], 3).double())
    found = []
    for batching in ("vmap", "loop"):
        maml = MAML(net, lr=0.3, steps=2, batching=batching)  # type: ignore[arg-type]
        maml.zero_grad()
        maml.loss(tasks).sum().backward()
        assert maml.inner.loops == (batching == "loop")
        found.append([parameter.grad.clone() for parameter in maml.parameters() if parameter.grad is not None])
    assert len(found[0]) == len(list(net.parameters()))
    for batched, looped in zip(*found):
        torch.testing.assert_close(batched, looped, rtol=1e-9, atol=1e-12)
