"""What the options of a network or a learner may be."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args, get_origin

from quickstudy.errors import ShapeError


def check_choices(name: str, make: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Raises ShapeError where an option is none of the values that its annotation, a `Literal`, lists.

    Example:
        >>> from quickstudy import Conv4
        >>> Conv4(downsample="strides")
        Traceback (most recent call last):
        ...
        quickstudy.errors.ShapeError: downsample is 'strides', but for Conv4 it is 'pool' or 'stride'.
    """
    for option, value in options.items():
        hint = make.__annotations__.get(option)
        if get_origin(hint) is Literal and value not in get_args(hint):
            choices = " or ".join(map(repr, get_args(hint)))
            raise ShapeError(f"{option} is {value!r}, but for {name} it is {choices}.")
