"""Labels as the user wrote them, and as numbers."""

import re
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_NAMED = 5  # names that an error lists


def class_names(labels: Iterable[str]) -> tuple[str, ...]:
    """The classes, once each: numbers by size, and words after them by their letters.

    Example:
        >>> from quickstudy.tasks.labels import class_names
        >>> class_names(["10", "9", "-1", "9"]), class_names(["up", "down"])
        (('-1', '9', '10'), ('down', 'up'))
    """
    return tuple(sorted(set(labels), key=lambda label: (0, float(label), label) if is_number(label) else (1, 0, label)))


def numbered(labels: Sequence[str], names: Sequence[str]) -> Tensor:
    """The place of each label among the names, `(n,)` int64."""
    place = {name: i for i, name in enumerate(names)}
    return torch.tensor([place[label] for label in labels], dtype=torch.int64)


def is_number(text: str) -> bool:
    """Whether a text is a finite number.

    Example:
        >>> from quickstudy.tasks.labels import is_number
        >>> is_number("-1.5e3"), is_number("nan"), is_number("3,5")
        (True, False, False)
    """
    return _NUMBER.fullmatch(text) is not None


def listed(names: Iterable[object]) -> str:
    """The first few names, for an error.

    Example:
        >>> from quickstudy.tasks.labels import listed
        >>> listed("abcdefg"), listed([])
        ("'a', 'b', 'c', 'd', 'e' and 2 more", 'none')
    """
    found = [repr(name) for name in names]
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return (", ".join(found[:_NAMED]) or "none") + more
