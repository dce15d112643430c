"""What is known of a member of Tiny without building it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from quickstudy.errors import ArchitectureError
from quickstudy.nas.architecture import Architecture
from quickstudy.nas.build import count
from quickstudy.nas.limited import Limited
from quickstudy.nas.space import Space
from quickstudy.nas.tiny import Tiny


def log_costs(space: Space, architectures: Sequence[Architecture]) -> Tensor:
    """Natural logarithms of parameters, multiply-adds and peak memory, `(b, 3)`: proxies, and costs to be weighed.

    Raises:
        ArchitectureError: Where the space is not Tiny, or a part of it, and does not say the shape of its inputs.

    Example:
        >>> import torch
        >>> from quickstudy.nas.facts import log_costs
        >>> from quickstudy.nas.tiny import Tiny
        >>> space = Tiny(shape=(1, 28, 28), n_classes=10)
        >>> member = space.sample(generator=torch.Generator().manual_seed(0))
        >>> log_costs(space, [member]).shape
        torch.Size([1, 3])
    """
    tiny = space.space if isinstance(space, Limited) else space
    if not isinstance(tiny, Tiny):
        raise ArchitectureError(
            f"costs are counted for members of Tiny; {space.id} does not say the shape of its inputs."
        )
    costs = [count(tiny, architecture) for architecture in architectures]
    return torch.tensor([(c.parameters, c.multiply_adds, c.peak_memory) for c in costs]).reshape(-1, 3).double().log()
