"""Numbers with units, as people write them: 20k parameters, 64k of memory, 2ms."""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import TypeVar

from quickstudy.errors import QuantityError

Unit = TypeVar("Unit", int, float)
THOUSANDS = {"": 1, "k": 1_000, "m": 1_000_000}
BYTES = {"": 1, "k": 1024, "m": 1024**2}
MILLISECONDS = {"": 1.0, "ms": 1.0, "us": 0.001, "\u00b5s": 0.001, "\u03bcs": 0.001, "s": 1000.0}


def read_amount(text: str) -> int:
    """`20k` or `1.5M` as a number.

    Raises:
        QuantityError: Where it is none above 0; so do the others.

    Example:
        >>> from quickstudy.quantities import read_amount, read_memory, read_milliseconds
        >>> read_amount("20k"), read_memory("64k"), read_milliseconds("500us")
        (20000, 65536, 0.5)
    """
    return whole(text, THOUSANDS, "a number such as 20000, 20k or 1.5M")


def read_memory(text: str) -> int:
    """`64k`, `64KiB` or `1M` as bytes, 1,024 to the k, as memories are sold."""
    return whole(re.sub("(?i)(?<=[km])i?b$|b$", "", text.strip()), BYTES, "bytes such as 65536, 64k or 1M")


def read_milliseconds(text: str) -> float:
    """`2ms`, `500us` or `0.01s` as milliseconds; a number alone is milliseconds too."""
    value, unit = measure(text, MILLISECONDS, "a time such as 2ms, 500us or 0.01s")
    if value <= 0:
        raise QuantityError(f"{text!r} is not above 0; give a time such as 2ms.")
    return float(value) * unit


def whole(text: str, units: Mapping[str, int], wanted: str) -> int:
    """A number and a unit as a whole number above 0."""
    value, unit = measure(text, units, wanted)
    if value * unit < 1:
        raise QuantityError(f"{text!r} is not above 0; give {wanted}.")
    return int(value * unit)


def measure(text: str, units: Mapping[str, Unit], wanted: str) -> tuple[Decimal, Unit]:
    """A number and what its unit stands for."""
    found = re.fullmatch(
        r"\s*(\d{1,3}(?:[_,]\d{3})+(?:\.\d*)?|\d+\.?\d*|\.\d+)\s*([a-z\u00b5\u03bc]*)\s*", text.lower()
    )
    if found is None or found[2] not in units:
        comma = " A comma stands between thousands, a point before decimals." if "," in text else ""
        raise QuantityError(f"{text!r} is not {wanted}.{comma}")
    return Decimal(re.sub("[_,]", "", found[1])), units[found[2]]


def plural(n: int, one: str, many: str = "") -> str:
    """A number with its noun.

    Example:
        >>> from quickstudy.quantities import plural
        >>> plural(1, "picture"), plural(1200, "picture"), plural(2, "class", "classes")
        ('1 picture', '1,200 pictures', '2 classes')
    """
    return f"{n:,} {one if n == 1 else many or one + 's'}"
