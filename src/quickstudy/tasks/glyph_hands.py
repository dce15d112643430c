"""Hands: a skeleton, written many times as people would write it."""

import math

import torch
from torch import Generator, Tensor
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample, interpolate

CANVAS = 84
"""Pixels a side of the canvas that skeletons lie on; `SIDE` times three."""
SIDE = 28
"""Pixels a side of a picture."""
REACH = 12.0
"""Distances to the skeleton are kept up to this many pixels of the canvas."""

WARP = 0.02
"""Standard deviation of the elastic warp at each of its 5x5 knots, as a part of the canvas."""


def write(distances: Tensor, *, generator: Generator, warp: float = WARP) -> Tensor:
    r"""Writes each skeleton once, by a hand of its own.

    $$I(u) = 1 - s\big(d(A u + t + w(u)) - p / 2\big)$$

    where $d$ is the distance to the skeleton, $A$ rotates by up to 12 degrees, shears by up to 0.15 and scales
    each axis by $e^{\pm 0.15}$, $t$ shifts by up to 6 %, $w$ is a smooth field through 5x5 normal knots, and the
    pen $p$ is 3 to 7 pixels of the canvas wide with an edge $s$ of one pixel.

    Args:
        distances: Distances to the skeleton, `(n, CANVAS, CANVAS)` uint8, in sixteenths of a pixel.
        generator: Decides all the hands; on the CPU.
        warp: Standard deviation of a knot of $w$, as a part of the canvas.

    Returns:
        Pictures, `(n, 1, SIDE, SIDE)` uint8, ink 255 on 0.

    Example:
        >>> import torch
        >>> distances = torch.full((2, CANVAS, CANVAS), 255 , dtype=torch.uint8)
        >>> distances[:, :, 40:44] = 0
        >>> pictures = write(distances, generator=torch.Generator().manual_seed(0))
        >>> pictures.shape, bool((pictures[0] == pictures[1]).all())
        (torch.Size([2, 1, 28, 28]), False)
    """
    n = len(distances)

    def uniform(*shape: int) -> Tensor:
        return 2 * torch.rand(n, *shape, generator=generator) - 1

    angle, shear, scale, shift = uniform() * math.radians(12), uniform() * 0.15, uniform(2) * 0.15, uniform(2) * 0.12
    width = 5 + 2 * uniform()
    knots = torch.randn(n, 2, 5, 5, generator=generator) * (2 * warp)  # the canvas is [-1, 1]
    cos, sin = angle.cos(), angle.sin()
    turn = torch.stack([cos, -sin, sin, cos], 1).view(n, 2, 2)
    slant = torch.eye(2).repeat(n, 1, 1)
    slant[:, 0, 1] = shear
    linear = turn @ slant * scale.exp()[:, None, :]
    grid = affine_grid(torch.cat([linear, shift[:, :, None]], 2), [n, 1, 2 * SIDE, 2 * SIDE], align_corners=False)
    field = interpolate(knots, size=(2 * SIDE, 2 * SIDE), mode="bicubic", align_corners=True)
    where = grid + field.permute(0, 2, 3, 1)
    sampled = grid_sample(distances[:, None].float() / 16, where, padding_mode="border", align_corners=False)
    ink = (width.view(n, 1, 1, 1) / 2 + 0.5 - sampled).clamp(0, 1)
    return (avg_pool2d(ink, 2) * 255).round().to(torch.uint8)
