"""How a choice becomes the parameters of an Optuna trial, and back."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from quickstudy.errors import MissingExtraError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

C = TypeVar("C")
Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class Parameters(Generic[C]):
    """The parameters that stand for a choice of a space, one scalar each, so that every tool for Optuna can read them.

    Neither way checks limits: what was tried under others is experience too.
    """

    space: str
    """Name and version of the space, `name/version`."""
    digest: str
    """Of all that outcomes in the space depend on."""
    distributions: "Mapping[str, BaseDistribution]"
    """What each parameter may be."""
    encode: Callable[[C], Mapping[str, Scalar]]
    """The parameters of a choice."""
    decode: Callable[[Mapping[str, Scalar]], C]
    """The choice that parameters stand for."""


def categorical(
    space: str,
    digest: str,
    choices: Mapping[str, tuple[Scalar, ...]],
    *,
    encode: Callable[[C], Mapping[str, Scalar]],
    decode: Callable[[Mapping[str, Scalar]], C],
) -> Parameters[C]:
    """One categorical parameter for each of several choices.

    Args:
        space: Name and version of the space, `name/version`.
        digest: Of all that outcomes in the space depend on.
        choices: The values of each, by name and in order.
        encode: Gives a value for each name.
        decode: Its inverse.

    Raises:
        MissingExtraError: Where Optuna is not installed.

    Example:
        >>> from quickstudy.experience.parameters import categorical
        >>> names = {"operation": ("conv", "pool"), "width": (8, 16)}
        >>> found = categorical("toy/1", "4f2a", names, encode=dict, decode=lambda p: tuple(p.items()))
        >>> found.encode((("operation", "conv"), ("width", 16)))
        {'operation': 'conv', 'width': 16}
        >>> found.distributions["width"]
        CategoricalDistribution(choices=(8, 16))
    """
    try:
        from optuna.distributions import CategoricalDistribution
    except ImportError as error:
        raise MissingExtraError("Optuna is not installed: pip install 'quickstudy[nas]'.") from error
    return Parameters(
        space, digest, {name: CategoricalDistribution(values) for name, values in choices.items()}, encode, decode
    )
