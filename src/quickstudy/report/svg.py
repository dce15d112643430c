"""The pieces of a plot: SVG as strings, with class names and no colours."""

from collections.abc import Sequence
from html import escape

WIDTH = 340.0
"""Of a plot, in pixels: that of a column on a page of two, and of a telephone."""


def svg(height: float, parts: Sequence[str], label: str, width: float = WIDTH) -> str:
    """A picture, and what it shows for those who cannot see it; it is passed over where that is empty."""
    spoken = f'role="img" aria-label="{escape(label)}"' if label else 'aria-hidden="true"'
    size = f'width="{px(width)}" height="{px(height)}" viewBox="0 0 {px(width)} {px(height)}"'
    return f"<svg {size} {spoken}>{''.join(parts)}</svg>"


def segment(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A straight line."""
    return f'<line x1="{px(x1)}" y1="{px(y1)}" x2="{px(x2)}" y2="{px(y2)}" class="{kind}"/>'


def text(x: float, y: float, words: str, kind: str, anchor: str = "middle") -> str:
    """Words at a point."""
    return f'<text x="{px(x)}" y="{px(y)}" text-anchor="{anchor}" class="{kind}">{escape(words)}</text>'


def path(points: Sequence[tuple[float, float]]) -> str:
    """The data of a path through points."""
    return "M" + "L".join(f"{px(x)},{px(y)}" for x, y in points)


def px(value: float) -> str:
    """Pixels, to a tenth."""
    return f"{value:.1f}".removesuffix(".0")


def number(value: float, unit: str = "") -> str:
    """A number with its unit."""
    return f"{value:,g}" + (f" {unit}" if unit else "")
