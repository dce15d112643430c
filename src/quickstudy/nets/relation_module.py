"""The two networks of a relation network: one makes feature maps, the other compares them."""

import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.errors import ShapeError
from quickstudy.nets.batch_norm import BatchNorm
from quickstudy.nets.sizes import check_sizes


class FeatureMaps(nn.Module):
    """Four convolutional blocks of which only the first two halve the picture, so that maps remain to be compared.

    Args:
        channels: Input channels.
        width: Feature maps of every block.

    Example:
        >>> import torch
        >>> from quickstudy.nets.relation_module import FeatureMaps
        >>> FeatureMaps(1, 64)(torch.rand(5, 1, 28, 28)).shape
        torch.Size([5, 64, 7, 7])
    """

    def __init__(self, channels: int = 1, width: int = 64) -> None:
        super().__init__()
        check_sizes("FeatureMaps", channels=channels, width=width)
        self.convs = nn.ModuleList(
            nn.Conv2d(width if i else channels, width, 3, padding=1, bias=False) for i in range(4)
        )
        self.norms = nn.ModuleList(BatchNorm(width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """`(n, channels, h, w)` to `(n, width, h // 4, w // 4)`."""
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms)):
            x = norm(conv(x))
            x = F.relu(F.max_pool2d(x, 2) if i < 2 else x)
        return x


class RelationModule(nn.Module):
    r"""Compares the feature maps of a class with those of a query: two convolutional blocks, two linear layers.

    The first convolution of concatenated maps is the sum of one of each, $W * [c, f] = W_1 * c + W_2 * f$, so that
    it is taken once a class and once a query instead of once a pair.

    Args:
        width: Feature maps of what is compared, and of both blocks.
        size: Side of the feature maps, at least 4.
        hidden: Units between the two linear layers.

    Raises:
        ShapeError: Where the maps are smaller than 4x4, or a size is below 1.

    Example:
        >>> import torch
        >>> from quickstudy.nets.relation_module import RelationModule
        >>> RelationModule(8, 7)(torch.rand(2, 5, 8, 7, 7), torch.rand(2, 15, 8, 7, 7)).shape
        torch.Size([2, 15, 5])

    References:
        Sung et al., [Learning to Compare](https://arxiv.org/abs/1711.06025), 2018, figure 2.
    """

    def __init__(self, width: int, size: int, *, hidden: int = 8) -> None:
        super().__init__()
        check_sizes("RelationModule", width=width, hidden=hidden)
        if size < 4:
            raise ShapeError(f"feature maps are {size}x{size}; two halvings need at least 4x4. Take larger pictures.")
        self.of_class = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.of_query = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([BatchNorm(width), BatchNorm(width)])
        self.hidden, self.out = nn.Linear(width * (size // 4) ** 2, hidden), nn.Linear(hidden, 1)

    def forward(self, classes: Tensor, queries: Tensor) -> Tensor:
        """Maps `(b, k, c, h, w)` of the classes and `(b, q, c, h, w)` of the queries to logits `(b, q, k)`."""
        of_class = self.of_class(classes.flatten(0, 1)).unflatten(0, classes.shape[:2])
        of_query = self.of_query(queries.flatten(0, 1)).unflatten(0, queries.shape[:2])
        pairs = of_class[:, None] + of_query[:, :, None]  # (b, q, k, c, h, w)
        x = F.relu(F.max_pool2d(self.norms[0](pairs.flatten(0, 2)), 2))
        x = F.relu(F.max_pool2d(self.norms[1](self.second(x)), 2))
        logits: Tensor = self.out(F.relu(self.hidden(x.flatten(1))))
        return logits.view(pairs.shape[:3])


def relation_nets(channels: int = 1, width: int = 64, *, size: int = 28) -> tuple[FeatureMaps, RelationModule]:
    """Both networks for square pictures of this size, at least 16.

    Example:
        >>> from quickstudy import RelationNetwork, relation_nets
        >>> learner = RelationNetwork(*relation_nets(channels=1, width=8, size=16))
    """
    return FeatureMaps(channels, width), RelationModule(width, size // 4)
