"""Values of options: what they must be, and how they are written."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import typer

from quickstudy.errors import QuantityError
from quickstudy.quantities import read_amount, read_memory, read_milliseconds

Number = TypeVar("Number", int, float)


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
    return None if text is None else as_written(read_amount, text)


def memory(text: str | None) -> int | None:
    """`64k`, `64KiB` or `1M` as bytes."""
    return None if text is None else as_written(read_memory, text)


def milliseconds(text: str | None) -> float | None:
    """`2ms`, `500us` or `0.01s` as milliseconds."""
    return None if text is None else as_written(read_milliseconds, text)


def as_written(read: Callable[[str], Number], text: str) -> Number:
    """What a text says, refused as an option where it says nothing."""
    try:
        return read(text)
    except QuantityError as error:
        raise typer.BadParameter(str(error)) from None
