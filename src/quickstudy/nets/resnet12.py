"""ResNet-12, the larger network of the few-shot literature."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.errors import ShapeError
from quickstudy.nets.batch_norm import BatchNorm
from quickstudy.nets.sizes import check_sizes


class ResidualBlock(nn.Module):
    """Three 3x3 convolutions beside a 1x1 one, added, and a halving of the picture by 2x2 max-pooling."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(width if i else channels, width, 3, padding=1, bias=False) for i in range(3)
        )
        self.norms = nn.ModuleList(BatchNorm(width) for _ in range(3))
        self.shortcut, self.shortcut_norm = nn.Conv2d(channels, width, 1, bias=False), BatchNorm(width)
        for conv in (*self.convs, self.shortcut):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="leaky_relu")

    def forward(self, x: Tensor) -> Tensor:
        """`(n, channels, h, w)` to `(n, width, h // 2, w // 2)`."""
        z = x
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms)):
            z = norm(conv(z))
            z = F.leaky_relu(z, 0.1) if i < 2 else z
        # Pooling before the leaky ReLU, which is monotone: the same result on a quarter of the values.
        return F.leaky_relu(F.max_pool2d(z + self.shortcut_norm(self.shortcut(x)), 2), 0.1)


class ResNet12(nn.Module):
    """Four residual blocks of three convolutions each, and the average over what remains of the picture.

    Without DropBlock, which the papers that use it add to this network.

    Args:
        channels: Input channels.
        widths: Feature maps of each block: (64, 160, 320, 640) is that of Lee et al., (64, 128, 256, 512) that of
            Oreshkin et al.

    Raises:
        ShapeError: Where a size is below 1, or a picture is smaller than 16x16 or has other channels.

    Example:
        >>> import torch
        >>> from quickstudy.nets.resnet12 import ResNet12
        >>> ResNet12(widths=(8, 16, 32, 64))(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 64])

    References:
        Oreshkin et al., [TADAM](https://arxiv.org/abs/1805.10123), 2018; Lee et al.,
        [Meta-Learning with Differentiable Convex Optimization](https://arxiv.org/abs/1904.03758), 2019.
    """

    def __init__(self, channels: int = 3, widths: Sequence[int] = (64, 160, 320, 640)) -> None:
        super().__init__()
        check_sizes(
            "ResNet12", channels=channels, blocks=len(widths), **{f"widths[{i}]": w for i, w in enumerate(widths)}
        )
        self.channels, self.widths = channels, tuple(widths)
        self.blocks = nn.Sequential(
            *(ResidualBlock(before, width) for before, width in zip((channels, *widths), widths))
        )

    def forward(self, x: Tensor) -> Tensor:
        """`(n, channels, h, w)` to `(n, widths[-1])`."""
        smallest = 2 ** len(self.widths)
        if x.shape[1] != self.channels or min(x.shape[-2:]) < smallest:
            raise ShapeError(
                f"pictures are {tuple(x.shape[1:])}; this ResNet12 takes ({self.channels}, h, w) "
                f"with h and w at least {smallest}."
            )
        z: Tensor = self.blocks(x)
        return z.mean((-2, -1))

    def n_features(self, size: int = 84) -> int:
        """Features that it makes of a square picture of this size, which are the same for any."""
        return self.widths[-1]
