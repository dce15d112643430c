"""Any picture file as a tensor of one size."""

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Self

import numpy as np
import torch
from torch import Tensor

from quickstudy.errors import DamagedArtefactError, DataError, MissingExtraError, UnreadablePictureError

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = {
    ".png": "PNG",
    ".apng": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jfif": "JPEG",
    ".mpo": "MPO",  # some telephones write it and call it .jpg
    ".jp2": "JPEG2000",
    ".webp": "WEBP",
    ".avif": "AVIF",
    ".heic": "HEIF",  # which Pillow reads where a plug-in has taught it to
    ".heif": "HEIF",
    ".gif": "GIF",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".pbm": "PPM",
    ".pgm": "PPM",
    ".ppm": "PPM",
    ".pnm": "PPM",
    ".tga": "TGA",
    ".ico": "ICO",
}
"""The files that are taken for pictures. Formats that start another program (EPS) are not among them."""

WHITES = tuple(2**bits - 1 for bits in (8, 10, 12, 14, 16))
"""What the whitest level of whole numbers may be: cameras of 10 to 14 bits write files of 16."""
_LEAST_CONTRAST = 16  # levels of 255: what differs by less from the paper stays faint


@dataclass(frozen=True)
class PictureEncoder:
    """Reads a picture of any size and mode as uint8 `(channels, size, size)`.

    In this order: of an animation the first frame; turned upright as its EXIF data say; 16-bit and floating
    levels to 8 bits, by `white`; transparency laid over white; grey (luminance) or RGB; resized by `resize` with an
    antialiasing filter; and, where it is `ink`, brought to white ink on black.

    Raises:
        DataError: Where a setting has no meaning.

    Example:
        >>> from PIL import Image
        >>> from quickstudy.tasks.pictures import PictureEncoder
        >>> sheet = Image.new("RGB", (80, 40), "white")
        >>> sheet.paste("navy", (30, 10, 50, 30))
        >>> picture = PictureEncoder(size=8).encode(sheet)
        >>> picture.shape, picture.dtype, int(picture[0, 0, 0]), int(picture.max())
        (torch.Size([1, 8, 8]), torch.uint8, 0, 255)
    """

    size: int = 28
    """Height and width, in pixels."""
    channels: int = 1
    """1 for grey, 3 for RGB."""
    resize: Literal["pad", "crop", "squash"] = "pad"
    """How a picture that is not square becomes so. `pad`: all of it is kept, and the rest filled with the colour
    of its border. `crop`: its centre is kept. `squash`: all of it is kept, and its proportions are not."""
    ink: bool = True
    """Whether grey pictures are ink on paper, as a prior of white glyphs on black expects. The median of the
    picture's outermost pixels is the paper's level. Ink is what is darker than bright paper (128 and above), or
    brighter than dark paper; paper becomes 0 and the strongest ink 255, so dark ink on white and white ink on
    black read alike. A picture whose levels differ from the paper by less than 16 is not stretched further than
    by 255/16. Colour pictures are left as they are."""

    white: int | None = None
    """The level of 16-bit pictures that is white: one for a data set, whose dark pictures then stay darker than its
    bright ones. Without it, 65535; for `ink`, which is stretched anyway, the least of 255, 1023, 4095, 16383 and 65535
    that a picture does not exceed."""

    def __post_init__(self) -> None:
        if self.white is not None and (type(self.white) is not int or self.white < 1):
            raise DataError(f"white is {self.white!r}; it is a level above 0.")
        if type(self.size) is not int or not 1 <= self.size <= 1024:
            raise DataError(f"size is {self.size!r}; a picture's side is 1 to 1024 pixels.")
        if self.channels not in (1, 3):
            raise DataError(f"channels is {self.channels!r}; pictures have 1 (grey) or 3 (RGB).")
        if self.resize not in ("pad", "crop", "squash"):
            raise DataError(f"resize is {self.resize!r}; choose 'pad', 'crop' or 'squash'.")

    def read(self, source: Path | str | BinaryIO, *, name: str | None = None) -> Tensor:
        """The picture in a file, uint8 `(channels, size, size)`.

        Args:
            source: Its path, or a file open for reading bytes.
            name: What an error calls it; by default its path.

        Raises:
            UnreadablePictureError: Where it is empty, cut off, of no format that Pillow reads here, or so large that it
                can hardly be honest: twice Pillow's `MAX_IMAGE_PIXELS`, which are 179 million pixels.
            MissingExtraError: Where Pillow is not installed.
        """
        called = name or str(source if isinstance(source, Path | str) else getattr(source, "name", "the picture"))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with pillow().open(source, formats=readable_formats()) as image:
                    image.draft(None, (4 * self.size, 4 * self.size))  # JPEG decodes large pictures at a fraction
                    return self.encode(image)
        except MissingExtraError:
            raise
        except Exception as error:  # a decoder that meets damaged bytes raises anything
            raise UnreadablePictureError(f"{called} cannot be read as a picture: {_reason(source, error)}.") from error

    def encode(self, image: "Image.Image") -> Tensor:
        """The same for a picture that Pillow has opened."""
        from PIL import ImageOps

        image = ImageOps.exif_transpose(image)
        image = eight_bits(image, "L" if self.channels == 1 else "RGB", white=self.white, fitting=self.ink)
        border = border_of(np.asarray(image))  # (channels,) or ()
        paper = np.atleast_1d(np.median(border, axis=0))
        square = self._square(image, tuple(int(level) for level in paper))
        levels = np.array(square, dtype=np.uint8).reshape(self.size, self.size, self.channels)
        if self.ink and self.channels == 1:
            levels = _white_on_black(levels, float(paper[0]))
        return torch.from_numpy(np.ascontiguousarray(levels.transpose(2, 0, 1)))

    def _square(self, image: "Image.Image", paper: tuple[int, ...]) -> "Image.Image":
        from PIL import ImageOps

        side, smooth = (self.size, self.size), pillow().Resampling.BILINEAR
        if self.resize == "squash":
            return image.resize(side, smooth)
        if self.resize == "crop":
            return ImageOps.fit(image, side, smooth)
        colour = paper[0] if self.channels == 1 else paper
        scale = self.size / max(image.size)
        small = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), smooth)
        canvas: Image.Image = pillow().new(image.mode, side, colour)
        canvas.paste(small, ((self.size - small.width) // 2, (self.size - small.height) // 2))
        return canvas

    def to_settings(self) -> dict[str, Any]:
        """The encoder as plain JSON values, to be saved with a prior."""
        return asdict(self)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """The encoder that `to_settings` described.

        Raises:
            DamagedArtefactError: Where the settings are not an encoder's.
        """
        unknown = sorted(set(settings) - {field.name for field in fields(cls)})
        try:
            if unknown:
                raise DataError(f"unknown settings {unknown}")
            return cls(**settings)
        except DataError as error:
            raise DamagedArtefactError(
                f"the prior's picture encoder {dict(settings)} is not one ({error}); save the prior again."
            ) from error


def pillow() -> Any:
    """The module `PIL.Image`.

    Raises:
        MissingExtraError: Where Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError("pictures need Pillow: pip install 'quickstudy[images]'.") from error
    return Image


def readable_formats() -> list[str]:
    """Those of `SUFFIXES` that Pillow reads here; a file of another is refused, whatever it is called."""
    pillow().init()
    return sorted(set(SUFFIXES.values()) & set(pillow().OPEN))


def _reason(source: Path | str | BinaryIO, error: Exception) -> str:
    from PIL import UnidentifiedImageError

    path = Path(source) if isinstance(source, Path | str) else None
    if path is not None and path.is_file() and path.stat().st_size == 0:
        return "it is empty (0 bytes)"
    if isinstance(error, UnidentifiedImageError):
        return "its content is of no format that Pillow reads here: save it as PNG or JPEG"
    if isinstance(error, pillow().DecompressionBombError):
        return f"it has more than {2 * pillow().MAX_IMAGE_PIXELS:,} pixels: save a smaller one"
    return str(error).rstrip(".") or type(error).__name__


def least_white(level: float) -> int | None:
    """The least of `WHITES` that a level does not exceed, if there is one."""
    return next((white for white in WHITES if level <= white), None)


def eight_bits(image: "Image.Image", mode: str, *, white: int | None = None, fitting: bool = False) -> "Image.Image":
    """The picture over white, as 8-bit grey or RGB; `white` is as `PictureEncoder` has it, `fitting` the least."""
    if image.mode.startswith(("I", "F")):
        levels = np.asarray(image, dtype=np.float64)
        if not np.isfinite(levels).all():
            raise DataError("it holds NaN or infinity")
        most = float(levels.max())
        if image.mode.startswith("F") and most <= 1:
            top = 1.0
        elif white is not None:
            top = white
        elif fitting:
            top = least_white(most) or most
        else:
            top = max(most, 65535 if image.mode.startswith("I;16") or most > 255 else 255)
        image = pillow().fromarray((levels.clip(0, top) * (255 / top)).round().astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = pillow().alpha_composite(pillow().new("RGBA", image.size, "white"), image)
    return image.convert(mode)


def border_of(levels: np.ndarray) -> np.ndarray:
    """The outermost pixels, `(pixels,)` or `(pixels, channels)`."""
    return np.concatenate([levels[0], levels[-1], levels[:, 0], levels[:, -1]])


def _white_on_black(levels: np.ndarray, paper: float) -> np.ndarray:
    ink = (paper - levels if paper >= 128 else levels - paper).clip(0)
    return (ink * (255 / max(float(ink.max()), _LEAST_CONTRAST))).round().astype(np.uint8)
