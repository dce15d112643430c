"""Which characters become Glyphs, and the skeleton of each, as the DejaVu faces draw it."""

import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quickstudy.errors import MissingExtraError
from quickstudy.tasks.glyph_hands import CANVAS, REACH

FACES = (
    "DejaVuSans",
    "DejaVuSerif",
    "DejaVuSansMono",
    "DejaVuSerif-Italic",
    "DejaVuSans-Oblique",
    "DejaVuSansMono-Oblique",
    "DejaVuSans-Bold",
    "DejaVuSerif-Bold",
    "DejaVuSansMono-Bold",
    "DejaVuSerif-BoldItalic",
    "DejaVuSans-BoldOblique",
    "DejaVuSansMono-BoldOblique",
)
"""The twelve faces, those whose skeletons differ most first."""

SCRIPTS = {
    "latin": "LATIN",
    "greek": "GREEK",
    "cyrillic": "CYRILLIC",
    "coptic": "COPTIC",
    "old italic": "OLD ITALIC",
    "ogham": "OGHAM",
    "lisu": "LISU",
    "georgian": "GEORGIAN",
    "armenian": "ARMENIAN",
    "hebrew": "HEBREW",
    "lao": "LAO",
    "tifinagh": "TIFINAGH",
    "nko": "NKO",
    "arabic": "ARABIC",
    "canadian syllabics": "CANADIAN SYLLABICS",
}
"""Alphabets, each by the word that its characters' Unicode names hold."""

SYMBOLS = {
    "letterlike symbols": (range(0x2100, 0x2150), range(0x1D400, 0x1D800)),
    "number forms": (range(0x2150, 0x2190),),
    "arrows": (range(0x2190, 0x2200), range(0x27F0, 0x2800), range(0x2900, 0x2980), range(0x2B00, 0x2B60)),
    "mathematical operators": (range(0x2200, 0x2300), range(0x27C0, 0x27F0), range(0x2980, 0x2B00)),
    "technical symbols": (range(0x2300, 0x2400),),
    "geometric shapes": (range(0x25A0, 0x2600),),
    "miscellaneous symbols": (range(0x2600, 0x2630), range(0x2638, 0x26C0)),  # without the trigrams
    "dingbats": (range(0x2700, 0x27C0),),
    "currency": (range(0x20A0, 0x20D0),),
    "modifier letters": (range(0x02B0, 0x0300), range(0xA700, 0xA722)),
    "digits and punctuation": (range(0x21, 0x41), range(0x5B, 0x61), range(0x7B, 0xC0), range(0x2010, 0x2070)),
}
"""Families of symbols, each by its Unicode blocks."""

LIKENESS = 3.1
"""Two characters are look-alikes where no stroke of either is further than about this from the other's, in pixels."""

_EM = 128  # pixels: the size that glyphs are drawn at
_BOX = round(CANVAS * 20 / 28)  # the longer side of a glyph, as Omniglot and MNIST have it
_FILLED = (
    0.16  # a stroke whose half width exceeds this part of the box is a filled shape; its skeleton is not a drawing
)
_SHORTEST = _BOX // 3  # pixels of skeleton: below, it is a dot


@dataclass(frozen=True)
class Character:
    """A character, and the faces that have it."""

    codepoint: int
    alphabet: str
    faces: tuple[str, ...]

    @property
    def name(self) -> str:
        """As `greek/α GREEK SMALL LETTER ALPHA`."""
        return f"{self.alphabet}/{chr(self.codepoint)} {unicodedata.name(chr(self.codepoint))}"


def alphabet_of(codepoint: int) -> str | None:
    """The alphabet or family of symbols that a character belongs to; None where it is left out.

    Controls, spaces and combining marks are left out, and so are families that are all dots, bars or boxes
    (Braille, hexagrams, box drawing, dominoes, playing cards).

    Example:
        >>> alphabet_of(ord("ж")), alphabet_of(ord("→")), alphabet_of(0x301)
        ('cyrillic', 'arrows', None)
    """
    character = chr(codepoint)
    name = unicodedata.name(character, "")
    if not name or unicodedata.category(character)[0] in "CMZ":
        return None
    for symbols, blocks in SYMBOLS.items():
        if any(codepoint in block for block in blocks):
            return symbols
    return next((script for script, word in SCRIPTS.items() if name.startswith(word)), None)


def find_characters() -> list[Character]:
    """The characters of all alphabets that at least two faces have, by alphabet and code point.

    Raises:
        MissingExtraError: Where matplotlib or fontTools is not installed.
    """
    try:
        from fontTools.ttLib import TTFont
    except ImportError as error:
        raise missing_extra(error) from error
    faces: dict[int, list[str]] = {}
    for face, path in face_paths().items():
        with TTFont(path, lazy=True) as font:
            for codepoint, glyph in font.getBestCmap().items():
                if glyph != ".notdef":
                    faces.setdefault(codepoint, []).append(face)
    order = {alphabet: i for i, alphabet in enumerate([*SCRIPTS, *SYMBOLS])}
    characters = [
        Character(codepoint, alphabet, tuple(having))
        for codepoint, having in faces.items()
        if len(having) >= 2 and (alphabet := alphabet_of(codepoint)) is not None
    ]
    return sorted(characters, key=lambda character: (order[character.alphabet], character.codepoint))


def face_paths() -> dict[str, Path]:
    """The font file of each face.

    Raises:
        MissingExtraError: Where matplotlib is not installed.
    """
    try:
        from matplotlib import get_data_path
    except ImportError as error:
        raise missing_extra(error) from error
    folder = Path(get_data_path()) / "fonts" / "ttf"
    return {face: folder / f"{face}.ttf" for face in FACES}


def missing_extra(error: ImportError) -> MissingExtraError:
    """The error for a drawing library that is not installed."""
    return MissingExtraError(
        f"Glyphs are drawn with matplotlib's fonts, Pillow and scikit-image, and {error.name} is not installed: "
        "pip install 'quickstudy[glyphs]'. Once drawn they are cached and need none of them."
    )


def skeleton_drawer() -> Callable[[int, str], Tensor | None]:
    """A function that draws a character's skeleton: how far each point of the canvas is from it.

    It maps a code point and a face to `(CANVAS, CANVAS)` uint8, distances in sixteenths of a pixel up to `REACH`;
    or to None, where the glyph is blank, a dot, or a filled shape.

    Raises:
        MissingExtraError: Where a drawing library is not installed.
    """
    try:
        import numpy as np
        from PIL import Image, ImageFont
        from scipy.ndimage import distance_transform_edt
        from skimage.morphology import skeletonize
    except ImportError as error:
        raise missing_extra(error) from error
    basic = ImageFont.Layout.BASIC  # the other, Raqm, is not installed everywhere
    fonts: Mapping[str, Any] = {
        face: ImageFont.truetype(str(path), _EM, layout_engine=basic) for face, path in face_paths().items()
    }

    def draw(codepoint: int, face: str) -> Tensor | None:
        mask = fonts[face].getmask(chr(codepoint), mode="L")
        if not all(mask.size):
            return None
        picture = Image.frombytes("L", mask.size, bytes(mask))
        if (inked := picture.getbbox()) is None:
            return None
        picture = picture.crop(inked)
        scale = _BOX / max(picture.size)
        width, height = (max(1, round(side * scale)) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR)
        top, left = (CANVAS - height) // 2, (CANVAS - width) // 2
        ink = np.zeros((CANVAS, CANVAS), bool)
        ink[top : top + height, left : left + width] = np.asarray(picture) > 127
        skeleton = skeletonize(ink)
        if skeleton.sum() < _SHORTEST or distance_transform_edt(ink).max() > _FILLED * _BOX:
            return None
        distance = np.minimum(distance_transform_edt(~skeleton), REACH)
        return torch.from_numpy((distance * 16).round().astype(np.uint8))

    return draw


def distinct(distances: Tensor, *, likeness: float = LIKENESS) -> list[int]:
    """The first of each kind: indices of the drawings that look like none before them.

    What separates two drawings is a soft Hausdorff distance: the fourth-power mean, over the strokes of one, of
    the distance to the other, the larger of both directions. A mean would miss an accent, a maximum would see
    every stray pixel.

    Args:
        distances: Distances to the skeleton, `(n, CANVAS, CANVAS)` uint8 in sixteenths of a pixel.
        likeness: Drawings no further apart than this look alike, in pixels of the canvas.
    """
    small = torch.nn.functional.avg_pool2d(distances[:, None].float() / 16, 3).flatten(1)  # (n, 28 * 28)
    strokes = (small < 2.0).float()
    gaps = strokes / strokes.sum(1, keepdim=True).clamp_min(1) @ small.pow(4).T  # (n, n)
    alike = torch.maximum(gaps, gaps.T) <= likeness**4
    kept: list[int] = []
    hidden = torch.zeros(len(distances), dtype=torch.bool)
    for i in range(len(distances)):
        if not hidden[i]:
            kept.append(i)
            hidden |= alike[i]
    return kept
