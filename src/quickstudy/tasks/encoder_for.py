"""How the pictures of a folder are read, by what they are like."""

import warnings
from pathlib import Path
from statistics import median
from typing import Literal

import numpy as np

from quickstudy.errors import DataError
from quickstudy.tasks.pictures import SUFFIXES, PictureEncoder, pillow, readable_formats

LARGEST = 32
"""The side of a picture, in pixels, that is chosen at most."""
SMALLEST = 8
"""And at least."""
DRAWN = 28
"""The side of grey pictures for meta-training, as in the field's data sets of characters."""
_LOOKED_AT = 200  # pictures whose size and colour are looked at
_COLOURED = 24  # levels of 255 by which the channels of a pixel differ where a picture has colour


def encoder_for(folder: Path | str, *, size: int | None = None) -> PictureEncoder:
    """For a search: all of each picture, on a square, its levels as they are.

    Of up to 200 pictures, evenly over the folder: if one has colour, all are read in RGB, else in grey. The side is the
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
    side = int(median(longer for longer, _ in seen)) if seen else LARGEST
    colour = any(coloured for _, coloured in seen)
    return PictureEncoder(
        size=min(max(side, SMALLEST), LARGEST) if size is None else size, channels=3 if colour else 1, ink=False
    )


def encoder_for_classes(
    folder: Path | str,
    *,
    size: int | None = None,
    colour: bool | None = None,
    resize: Literal["pad", "crop", "squash"] = "pad",
) -> PictureEncoder:
    """For meta-training: in RGB where one of up to 200 pictures has colour, else as grey ink on paper.

    Args:
        folder: With a subfolder a class.
        size: The side, in pixels; by default 32 in colour and 28 in grey.
        colour: Whether there is colour, instead of looking.
        resize: As of `PictureEncoder`.
    """
    if colour is None:
        colour = any(coloured for _, coloured in look(Path(folder)))
    side = (LARGEST if colour else DRAWN) if size is None else size
    return PictureEncoder(size=side, channels=3 if colour else 1, resize=resize, ink=not colour)


def look(folder: Path) -> list[tuple[int, bool]]:
    """Of up to 200 pictures, evenly over a folder, the longer side and whether it has colour."""
    files = pictures_below(folder)
    files = files[:: max(1, -(-len(files) // _LOOKED_AT))]
    return [seen for seen in map(look_at, files) if seen is not None]


def pictures_below(folder: Path) -> list[Path]:
    """The picture files of a folder at any depth, but no hidden ones."""
    return sorted(
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") or part == "__MACOSX" for part in file.relative_to(folder).parts)
    )


def look_at(file: Path) -> tuple[int, bool] | None:
    """The longer side of a picture and whether it has colour; None where it cannot be read."""
    try:
        with warnings.catch_warnings(action="ignore"), pillow().open(file, formats=readable_formats()) as image:
            longer = max(image.size)
            if image.mode in ("1", "L", "LA", "I", "F") or image.mode.startswith("I;"):
                return longer, False
            image.draft("RGB", (64, 64))
            small = np.asarray(image.convert("RGB").resize((32, 32)), dtype=np.int16)
    except Exception:  # what is wrong with it is said where it is read
        return None
    return longer, bool((np.ptp(small, axis=2) > _COLOURED).mean() > 0.005)
