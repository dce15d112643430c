"""How members of a space are written down in studies."""

from quickstudy.experience.parameters import Parameters, categorical
from quickstudy.nas.architecture import Architecture
from quickstudy.nas.space import Space


def parameters_of(space: Space) -> Parameters[Architecture]:
    """One parameter for each choice of a space.

    Raises:
        MissingExtraError: Where Optuna is not installed.

    Example:
        >>> from quickstudy.nas.nasbench201 import NASBench201
        >>> from quickstudy.nas.parameters import parameters_of
        >>> space = NASBench201()
        >>> parameters, cell = parameters_of(space), space.architecture(["nor_conv_3x3"] * 6)
        >>> parameters.decode(parameters.encode(cell)) == cell
        True
    """
    return categorical(
        space.id,
        space.digest,
        space.choices,
        encode=lambda architecture: architecture.values,
        decode=lambda values: Architecture(space.id, tuple((name, values[name]) for name in space.choices)),  # type: ignore[misc]
    )
