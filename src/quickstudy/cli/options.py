"""Values of options: what they must be, and how they are written."""

import math
import re
from collections.abc import Mapping
from typing import Any, TypeVar

import typer

Unit = TypeVar("Unit", int, float)
THOUSANDS = {"": 1, "k": 1_000, "m": 1_000_000}
BYTES = {"": 1, "k": 1024, "m": 1024**2}
MILLISECONDS = {"": 1.0, "ms": 1.0, "us": 0.001, "µs": 0.001, "s": 1000.0}


def above_0(value: float | None) -> float | None:
    """Refuses 0, and what is no number, of an option that must be positive."""
    if value is not None and not 0 < value < math.inf:
        raise typer.BadParameter(f"{value} is not above 0.")
    return value


def a_seed(value: int) -> int:
    """Refuses numbers that cannot be seeds."""
    if not 0 <= value < 2**62:
        raise typer.BadParameter(f"{value} is no seed: take 0 or a positive whole number below 2**62.")
    return value


def parse_settings(settings: list[str] | None) -> dict[str, Any]:
    """`["lr=0.1", "statistics=transductive"]` as values by name."""
    values: dict[str, Any] = {}
    for setting in settings or []:
        name, separator, text = setting.partition("=")
        if not separator:
            raise typer.BadParameter(f"{setting!r} is not of the form name=value, such as lr=0.1.")
        values[name.strip().replace("-", "_")] = parse_value(text.strip())
    return values


def parse_value(text: str) -> Any:
    """`text` as a number, true, false or none where it is one."""
    named = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in named:
        return named[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def an_amount(text: str | None) -> int | None:
    """`20k` or `1.5M` as a number: 20,000 and 1,500,000."""
    return None if text is None else whole(text, THOUSANDS, "a number such as 20000, 20k or 1.5M")


def memory(text: str | None) -> int | None:
    """`64k`, `64KiB` or `1M` as bytes, 1,024 to the k, as memories are sold."""
    if text is None:
        return None
    return whole(re.sub("(?i)(?<=[km])i?b$|b$", "", text.strip()), BYTES, "bytes such as 65536, 64k or 1M")


def whole(text: str, units: Mapping[str, int], wanted: str) -> int:
    """A number and a unit as a whole number above 0."""
    value, unit = measure(text, units, wanted)
    if value * unit < 1:
        raise typer.BadParameter(f"{text!r} is not above 0; give {wanted}.")
    return int(value * unit)


def milliseconds(text: str | None) -> float | None:
    """`2ms`, `500us` or `0.01s` as milliseconds; a number alone is milliseconds too."""
    if text is None:
        return None
    value, unit = measure(text, MILLISECONDS, "a time such as 2ms, 500us or 0.01s")
    if value <= 0:
        raise typer.BadParameter(f"{text!r} is not above 0; give a time such as 2ms.")
    return value * unit


def measure(text: str, units: Mapping[str, Unit], wanted: str) -> tuple[float, Unit]:
    """A number and what its unit stands for."""
    found = re.fullmatch(r"\s*(\d{1,3}(?:[_,]\d{3})+(?:\.\d*)?|\d+\.?\d*|\.\d+)\s*([a-zµ]*)\s*", text.lower())
    if found is None or found[2] not in units:
        comma = " A comma stands between thousands, a point before decimals." if "," in text else ""
        raise typer.BadParameter(f"{text!r} is not {wanted}.{comma}")
    return float(re.sub("[_,]", "", found[1])), units[found[2]]
