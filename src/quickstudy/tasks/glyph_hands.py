"""Hands: a skeleton, written many times as people would write it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Hands:
    """How each of `n` pictures is written."""

    place: Tensor
    """Rotation, shear, scale and shift, `(n, 2, 3)`: from the picture to the skeleton, both on [-1, 1]."""
    warp: Tensor
    """Displacements at 5x5 knots, `(n, 2, 5, 5)`."""
    pen: Tensor
    """Width of the pen, `(n,)`, in pixels of the canvas."""

    @classmethod
    def join(cls, several: Sequence["Hands"]) -> "Hands":
        return cls(*(torch.cat([getattr(hands, field) for hands in several]) for field in ("place", "warp", "pen")))


def draw_hands(n: int, *, generator: Generator, warp: float = WARP) -> Hands:
    r"""Draws `n` hands.

    They rotate by up to 12 degrees, shear by up to 0.15, scale each axis by $e^{\pm 0.15}$, shift by up to 6 %, warp
    by normal displacements, and hold a pen of 3 to 7 pixels of the canvas, 1 to 2.3 of the picture.

    Args:
        n: Number of hands.
        generator: On the CPU.
        warp: Standard deviation of a displacement, as a part of the canvas.
    """

    def uniform(*shape: int) -> Tensor:
        return 2 * torch.rand(n, *shape, generator=generator) - 1

    angle, shear, scale = uniform() * math.radians(12), uniform() * 0.15, (uniform(2) * 0.15).exp()
    shift = uniform(2) * (2 * 0.06)  # the canvas is [-1, 1], two wide
    pen = 5 + 2 * uniform()
    knots = torch.randn(n, 2, 5, 5, generator=generator) * (2 * warp)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(n, 2, 2)
    slant = torch.eye(2).repeat(n, 1, 1)
    slant[:, 0, 1] = shear
    return Hands(torch.cat([turn @ slant * scale[:, None, :], shift[:, :, None]], 2), knots, pen)


def write(distances: Tensor, hands: Hands) -> Tensor:
    r"""Writes each skeleton once, by a hand of its own.

    $$I(u) = s\big(p / 2 - d(A u + t + w(u))\big)$$

    where $d$ is the distance to the skeleton, $A$ and $t$ the hand's place, $w$ the smooth field through the knots
    of its warp, $p$ its pen, and $s$ an edge of one pixel of the canvas. Twice the picture's resolution is averaged
    down.

    Args:
        distances: Distances to the skeleton, `(n, CANVAS, CANVAS)` uint8, in sixteenths of a pixel.
        hands: As many.

    Returns:
        Pictures, `(n, 1, SIDE, SIDE)` uint8, ink 255 on 0.

    Example:
        >>> import torch
        >>> distances = torch.full((2, CANVAS, CANVAS), 192, dtype=torch.uint8)
        >>> distances[:, :, 42] = 0
        >>> pictures = write(distances, draw_hands(2, generator=torch.Generator().manual_seed(0)))
        >>> pictures.shape, pictures[0].equal(pictures[1])
        (torch.Size([2, 1, 28, 28]), False)
    """
    grid = affine_grid(hands.place, [len(distances), 1, 2 * SIDE, 2 * SIDE], align_corners=False)
    warp = interpolate(hands.warp, size=(2 * SIDE, 2 * SIDE), mode="bicubic", align_corners=True)
    where = grid + warp.permute(0, 2, 3, 1)
    distance = grid_sample(distances[:, None].float() / 16, where, padding_mode="border", align_corners=False)
    ink = (hands.pen.view(-1, 1, 1, 1) / 2 + 0.5 - distance).clamp(0, 1)
    return (avg_pool2d(ink, 2) * 255).round().to(torch.uint8)
