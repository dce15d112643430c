"""How the pictures of a folder are read, by what they are like."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Literal, NamedTuple

import numpy as np

from quickstudy.errors import DataError
from quickstudy.tasks.image_folder import pictures_below
from quickstudy.tasks.pictures import (
    PictureEncoder,
    border_of,
    eight_bits,
    least_white,
    pillow,
    readable_formats,
)

LARGEST = 32
"""The side of a picture, in pixels, that is chosen at most."""
SMALLEST = 8
"""And at least."""
DRAWN = 28
"""The side of grey pictures for meta-training, as in the field's data sets of characters."""
_LOOKED_AT = 200  # pictures whose size and colour are looked at
_COLOURED = 24  # levels of 255 by which the channels of a pixel differ where a picture has colour
_BLANK = 24  # levels of 255 by which a pixel of plain paper differs from the border's median, at most


class Look(NamedTuple):
    """What a picture is like."""

    longer: int
    """Its longer side, in pixels."""
    colour: bool
    """Whether it has some."""
    paper: bool
    """Whether most of it is as bright as its border, as a drawing is."""
    deep: float | None
    """Its largest level, where that is a whole number of more than 8 bits."""


def encoder_for(folder: Path | str, *, size: int | None = None) -> PictureEncoder:
    """For a search: all of each picture, on a square, its levels as they are.

    Of up to 200 pictures, evenly over the folder: if one has colour, all are read in RGB, else in grey; if they are of
    16 bits, white is the least of 255, 1023, 4095, 16383 and 65535 that none exceeds. The side is the
    median of their longer sides, at least 8 and at most 32 pixels. Pictures that are not square are padded with the
    colour of their border.

    Args:
        folder: With a subfolder a class.
        size: The side, in pixels, instead of the one chosen.

    Raises:
        DataError: Where `size` is no side of a picture.
    """
    if size is not None and size < 4:
        raise DataError(f"size={size} leaves nothing to see: pictures are at least 4 pixels wide and high.")
    seen = look(Path(folder))
    side = int(median(one.longer for one in seen)) if seen else LARGEST
    colour = any(one.colour for one in seen)
    return PictureEncoder(
        size=min(max(side, SMALLEST), LARGEST) if size is None else size,
        channels=3 if colour else 1,
        ink=False,
        white=white_of(seen),
    )


def encoder_for_classes(
    folder: Path | str,
    *,
    size: int | None = None,
    colour: bool | None = None,
    resize: Literal["pad", "crop", "squash"] = "pad",
    ink: bool | None = None,
) -> PictureEncoder:
    """For meta-training: in RGB where one of up to 200 pictures has colour, else in grey.

    Grey pictures are read as ink on paper where most of them are mostly paper, as drawings are, else with their levels.

    Args:
        folder: With a subfolder a class.
        size: The side, in pixels; by default 32 in colour and 28 in grey.
        colour: Whether there is colour, instead of looking.
        resize: As of `PictureEncoder`.
        ink: Whether grey pictures are ink on paper, instead of looking; where it is, and nothing is said of colour,
            pictures are read in grey.
    """
    seen = look(Path(folder))
    if colour is None:
        colour = not ink and any(one.colour for one in seen)
    ink = 2 * sum(one.paper for one in seen) >= len(seen) if ink is None else ink
    side, ink = (LARGEST if colour else DRAWN) if size is None else size, ink and not colour
    return PictureEncoder(
        size=side, channels=3 if colour else 1, resize=resize, ink=ink, white=None if ink else white_of(seen)
    )


def white_of(seen: Sequence[Look]) -> int | None:
    """The level that is white in all of them, where some have more than 8 bits."""
    deep = [one.deep for one in seen if one.deep is not None]
    return least_white(max(deep)) if deep else None


def look(folder: Path) -> list[Look]:
    """What up to 200 pictures are like, evenly over a folder."""
    files = pictures_below(folder)
    files = files[:: max(1, -(-len(files) // _LOOKED_AT))]
    return [seen for seen in map(look_at, files) if seen is not None]


def look_at(file: Path) -> Look | None:
    """What a picture is like; None where it cannot be read."""
    try:
        with warnings.catch_warnings(action="ignore"), pillow().open(file, formats=readable_formats()) as image:
            longer = max(image.size)
            grey = image.mode in ("1", "L", "LA", "I", "F") or image.mode.startswith("I;")
            deep = float(np.asarray(image).max()) if image.mode.startswith("I") else None
            image.draft(None, (64, 64))
            whole = eight_bits(image, "RGB", fitting=True)
            small = np.asarray(whole.resize((32, 32)), dtype=np.int16)
            levels = np.asarray(whole.convert("L").resize((32, 32)), dtype=np.int16)
    except Exception:  # what is wrong with it is said where it is read
        return None
    paper = np.abs(levels - np.median(border_of(levels))) <= _BLANK
    colour = not grey and (np.ptp(small, axis=2) > _COLOURED).mean() > 0.005
    return Look(longer, bool(colour), bool(paper.mean() >= 0.5), deep)
