"""Multi-layer perceptron."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from quickstudy.nets.sizes import check_sizes


class MLP(nn.Module):
    """Linear layers with ReLU between them.

    Args:
        inputs: Size of an input; inputs of any shape are flattened.
        outputs: Size of an output.
        hidden: Sizes of the hidden layers; none makes it a linear map.

    Raises:
        ShapeError: Where a size is below 1.

    Example:
        >>> import torch
        >>> from quickstudy import MLP
        >>> MLP(1, 1, hidden=(40, 40))(torch.rand(10, 1)).shape
        torch.Size([10, 1])
    """

    def __init__(self, inputs: int, outputs: int, *, hidden: Sequence[int] = (40, 40)) -> None:
        super().__init__()
        check_sizes("MLP", inputs=inputs, outputs=outputs, **{f"hidden[{i}]": size for i, size in enumerate(hidden)})
        sizes = [inputs, *hidden, outputs]
        layers: list[nn.Module] = []
        for i, (a, b) in enumerate(pairwise(sizes)):
            layers += [nn.Linear(a, b)] if i == len(hidden) else [nn.Linear(a, b), nn.ReLU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """`(n, *input)` to `(n, outputs)`."""
        out: Tensor = self.layers(x.flatten(1))
        return out
