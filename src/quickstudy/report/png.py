"""Pictures inside a page."""

import base64
import struct
import zlib

from torch import Tensor

from quickstudy.errors import ShapeError


def png(picture: Tensor) -> bytes:
    """A picture as a PNG file: grey or RGB, 8 bits.

    Args:
        picture: uint8 `(channels, height, width)`, 1 or 3 channels.

    Raises:
        ShapeError: Where it is something else.

    Example:
        >>> import torch
        >>> from quickstudy.report.png import png
        >>> png(torch.zeros(1, 2, 2, dtype=torch.uint8))[:4]
        b'\\x89PNG'

    References:
        W3C, [Portable Network Graphics Specification](https://www.w3.org/TR/png/), 2003.
    """
    if picture.dim() != 3 or picture.shape[0] not in (1, 3) or not picture.numel():
        raise ShapeError(
            f"a picture is uint8 (channels, height, width) with 1 or 3 channels; got {tuple(picture.shape)}."
        )
    channels, height, width = picture.shape
    rows = picture.movedim(0, -1).reshape(height, -1).cpu().numpy()  # (height, width * channels)
    lines = b"".join(b"\0" + row.tobytes() for row in rows)  # filter 0: as it is
    header = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 3: 2}[channels], 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(lines, 9)) + _chunk(b"IEND", b"")
    )


def data_url(picture: Tensor) -> str:
    """The same as the address of an image that needs no file.

    Example:
        >>> import torch
        >>> from quickstudy.report.png import data_url
        >>> data_url(torch.zeros(1, 2, 2, dtype=torch.uint8))[:22]
        'data:image/png;base64,'
    """
    return "data:image/png;base64," + base64.b64encode(png(picture)).decode("ascii")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
