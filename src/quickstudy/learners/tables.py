"""Meta-learned values beside a network's parameters, one entry for each of some parameters."""

from collections.abc import Mapping

from torch import Tensor, nn

from quickstudy.learners.inner_loop import Params


def table(values: Mapping[str, Tensor]) -> nn.ParameterDict:
    """Parameters named after those of a network; a dot, which such a name cannot hold, becomes a slash."""
    return nn.ParameterDict({key(name): nn.Parameter(value) for name, value in values.items()})


def entry(meta: Params, table: str, name: str) -> Tensor:
    """What the table of this name holds for a parameter, among all that a learner meta-learns."""
    return meta[f"{table}.{key(name)}"]


def key(name: str) -> str:
    """The name of a parameter's entry."""
    return name.replace(".", "/")
