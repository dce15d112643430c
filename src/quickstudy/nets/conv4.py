"""The four-block convolutional network of the few-shot literature."""

from collections.abc import Callable
from itertools import product
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.errors import ShapeError
from quickstudy.nets.batch_norm import BatchNorm, Moments, at_least_float32, moments_among, without_autocast
from quickstudy.nets.choices import check_choices
from quickstudy.nets.pooled_product import pooled_product
from quickstudy.nets.sizes import check_sizes

FEW_CHANNELS = 3


class Block(nn.Module):
    """3x3 convolution, batch normalisation, ReLU, and a halving of the picture by 2x2 max-pooling or by stride.

    Normalisation is a scale and a shift of each channel, and so is monotone, like ReLU. Pooling therefore comes before
    both, of channels turned by the sign of their scale: the same result, on a quarter of the values.
    """

    def __init__(self, channels: int, width: int, *, strided: bool) -> None:
        super().__init__()
        # A bias would be undone by the normalisation that follows.
        self.conv = nn.Conv2d(channels, width, 3, stride=2 if strided else 1, padding=1, bias=False)
        self.norm = BatchNorm(width)
        self.strided = strided
        nn.init.xavier_uniform_(self.conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        """`(n, channels, h, w)` to `(n, width, h // 2, w // 2)`, or half of h and w rounded up where strided."""
        sign = self._sign()
        y, moments, n = self.convolve(x, sign)
        scale, shift = self.norm.scale_and_shift(self.norm.choose(moments, n))
        scale, shift = (sign * scale).to(y.dtype), shift.to(y.dtype)
        return F.relu(torch.addcmul(shift[:, None, None], y, scale[:, None, None]))

    def convolve(self, x: Tensor, sign: Tensor) -> tuple[Tensor, Callable[[Tensor | None], Moments], int]:
        """The pooled convolution with channels turned by `sign`, its moments without both, and its values a channel."""
        y = F.conv2d(x, self.conv.weight * sign[:, None, None, None], stride=self.conv.stride, padding=1)

        def moments(share: Tensor | None) -> Moments:
            mean, var = moments_among(y, share)
            return Moments(sign * mean, var)

        return self.pool(y), moments, y.numel() // y.shape[1]

    def pool(self, y: Tensor) -> Tensor:
        """2x2 max-pooling, where it is not the stride that halves."""
        return y if self.strided else F.max_pool2d(y, 2)

    def _sign(self) -> Tensor:
        """-1 for channels that normalisation turns round, and 1 for the others, `(width,)`."""
        gamma = self.conv.weight.new_ones(len(self.conv.weight)) if self.norm.weight is None else self.norm.weight
        return torch.where(gamma.detach() < 0, -1.0, 1.0).to(gamma.dtype)


class FirstBlock(Block):
    r"""The same function of a picture of few channels, by a shorter way.

    The convolution is a matrix product with patches, $y = P w$, and so are the moments of its output, for which the
    mean $m$ and the covariance $C$ of the patches are enough, nine values a channel:

    $$\mu = m^\top w, \qquad \sigma^2 = w^\top C w$$

    They are known before the product is made, which therefore normalises, too.
    """

    def forward(self, x: Tensor) -> Tensor:
        """`(n, channels, h, w)` to `(n, width, h // 2, w // 2)`, or half of h and w rounded up where strided."""
        patches = self.patches(x)
        moments = self.norm.choose(lambda share: self.moments(patches, share), patches[..., 0].numel())
        scale, shift = self.norm.scale_and_shift(moments)
        kernels = torch.cat([scale[:, None] * self.conv.weight.flatten(1), shift[:, None]], 1).mT.to(x.dtype)
        return F.relu((patches @ kernels).permute(0, 3, 1, 2)) if self.strided else pooled_product(patches, kernels)

    def patches(self, x: Tensor) -> Tensor:
        """What the convolution meets at each position, and a one to add a shift by, `(n, h', w', 9 channels + 1)`."""
        (h, w), stride = x.shape[-2:], 2 if self.strided else 1
        x = F.pad(x, (1, 1, 1, 1))
        places = product(range(x.shape[1]), range(3), range(3))
        met = [x[:, channel, i : i + h : stride, j : j + w : stride] for channel, i, j in places]
        return torch.stack([*met, torch.ones_like(met[0])], -1)

    def moments(self, patches: Tensor, share: Tensor | None) -> Moments:
        """Those of the convolution, by the shares of the pictures or by equal ones."""
        n, h, w, _ = patches.shape
        values = at_least_float32(patches.flatten(0, 2)[:, :-1])  # (n h' w', 9 channels)
        kernels = at_least_float32(self.conv.weight.flatten(1))  # (width, 9 channels)
        each = None if share is None else (share / (h * w))[:, None].expand(n, h * w).reshape(-1, 1)
        mean = values.mean(0) if each is None else (each * values).sum(0)
        centred = values - mean
        with without_autocast(values):
            covariance = centred.mT @ centred / len(values) if each is None else centred.mT @ (each * centred)
            return Moments(kernels @ mean, ((kernels @ covariance) * kernels).sum(1))


class Conv4(nn.Module):
    """Four convolutional blocks that embed a picture.

    Args:
        channels: Input channels.
        width: Feature maps of every block: 64 in most papers, 32 in MAML on mini-ImageNet.
        downsample: "pool" halves by max-pooling, and flattens what remains (64 features at 28x28, 256 at 32x32);
            "stride" halves by stride, and averages over what remains, as MAML does on Omniglot.

    Raises:
        ShapeError: Where a size is below 1, or a picture is smaller than 16x16 or has other channels.

    Example:
        >>> import torch
        >>> from quickstudy import Conv4
        >>> Conv4(channels=1)(torch.rand(5, 1, 28, 28)).shape
        torch.Size([5, 64])

    References:
        Vinyals et al., [Matching Networks](https://arxiv.org/abs/1606.04080), 2016, section 4.1.
    """

    def __init__(self, channels: int = 1, width: int = 64, *, downsample: Literal["pool", "stride"] = "pool") -> None:
        super().__init__()
        check_sizes("Conv4", channels=channels, width=width)
        check_choices("Conv4", Conv4.__init__, {"downsample": downsample})
        self.channels, self.width, self.downsample = channels, width, downsample
        strided = downsample == "stride"
        first = FirstBlock if channels <= FEW_CHANNELS else Block
        later = (Block(width, width, strided=strided) for _ in range(3))
        self.blocks = nn.Sequential(first(channels, width, strided=strided), *later)

    def forward(self, x: Tensor) -> Tensor:
        """`(n, channels, h, w)` to `(n, features)`."""
        if x.shape[1] != self.channels or min(x.shape[-2:]) < 16:
            raise ShapeError(
                f"pictures are {tuple(x.shape[1:])}; this Conv4 takes ({self.channels}, h, w) with h and w at least 16."
            )
        x = self.blocks(x)
        return x.mean((-2, -1)) if self.downsample == "stride" else x.flatten(1)

    def n_features(self, size: int = 28) -> int:
        """Features that it makes of a square picture of this size."""
        return self.width if self.downsample == "stride" else self.width * (size // 16) ** 2


def conv4_classifier(n_way: int, *, channels: int = 1, width: int = 64, size: int = 28) -> nn.Sequential:
    """Conv4 and a linear layer with one output a class, for gradient learners.

    Example:
        >>> import torch
        >>> from quickstudy import conv4_classifier
        >>> conv4_classifier(5, width=8)(torch.rand(3, 1, 28, 28)).shape
        torch.Size([3, 5])
    """
    body = Conv4(channels, width)
    return nn.Sequential(body, nn.Linear(body.n_features(size), n_way))
