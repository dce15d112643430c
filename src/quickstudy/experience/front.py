"""What nothing beats at its cost."""

from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


def front(tried: Iterable[T], *, cost: Callable[[T], float], value: Callable[[T], float]) -> list[T]:
    """Those that no other one equals or beats in value at the same or a lower cost, from the cheapest to the dearest.

    Of those that are equal in both, it is the first.

    Args:
        tried: What was tried and did not fail.
        cost: The smaller, the better.
        value: The larger, the better.

    Example:
        >>> from quickstudy.experience.front import front
        >>> tried = [(900, 80.0), (100, 70.0), (500, 60.0)]  # parameters, accuracy
        >>> front(tried, cost=lambda one: one[0], value=lambda one: one[1])
        [(100, 70.0), (900, 80.0)]
    """
    found: list[T] = []
    for one in sorted(tried, key=lambda one: (cost(one), -value(one))):
        if not found or value(one) > value(found[-1]):
            found.append(one)
    return found
