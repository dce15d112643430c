"""What a prior makes of architectures, asked once."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from quickstudy.nas.aen import Prior
from quickstudy.nas.architecture import Architecture, Encoded
from quickstudy.nas.space import Space

CHUNK = 4096
"""Graphs that are encoded together."""
PARTS = 4
"""By size, of those."""


@dataclass
class Known:
    """Architectures by number, and what is known of them before anything is tried; those that are one network share it.

    It remembers what it was asked of, and says the same whatever it was asked before.

    Example:
        >>> from quickstudy.nas.known import Known
        >>> from quickstudy.nas.nasbench201 import NASBench201
        >>> space = NASBench201()
        >>> known = Known(space)
        >>> known.numbers([space.architecture(["none"] * 6), space.architecture(["skip_connect"] * 6)]).tolist()
        [0, 1]
        >>> known.features.shape, known.mean
        (torch.Size([2, 30]), None)
    """

    space: Space
    prior: Prior | None = None
    """None: architectures are known by their one-hot codes."""
    task: Tensor | None = None
    """The task's embedding."""
    architectures: list[Architecture] = field(default_factory=list)
    features: Tensor = field(default_factory=lambda: torch.zeros(0, 0))  # (n, d) float64
    mean: Tensor | None = None  # (n,) float64
    std: Tensor | None = None  # (n,) float64
    place: dict[Architecture, int] = field(default_factory=dict)

    def numbers(self, architectures: Sequence[Architecture]) -> Tensor:
        """Theirs, `(n,)`."""
        same = {a: self.space.canonical(a) for a in architectures if a not in self.place}
        new = list(dict.fromkeys(a for a in same.values() if a not in self.place))
        for start in range(0, len(new), CHUNK):
            self._add(new[start : start + CHUNK])
        self.place |= {a: self.place[one] for a, one in same.items()}
        return torch.tensor([self.place[a] for a in architectures], dtype=torch.int64)

    def _add(self, new: list[Architecture]) -> None:
        self.place |= {architecture: len(self.architectures) + i for i, architecture in enumerate(new)}
        first = not self.architectures
        self.architectures += new
        if self.prior is None:
            features = self.space.one_hot(new).double()
        else:
            with torch.no_grad():
                embedded = embed(self.prior, self.space.encode(new))
                said = self.prior.judge(embedded, self.task, self.prior.proxies(new, self.space))
            features, mean, std = embedded.double(), said.mean.double(), said.stddev.double()
            self.mean = mean if self.mean is None else torch.cat([self.mean, mean])
            self.std = std if self.std is None else torch.cat([self.std, std])
        self.features = features if first else torch.cat([self.features, features])


def embed(prior: Prior, encoded: Encoded) -> Tensor:
    """A prior's features of graphs, `(b, d)`; those of like size are looked at together, which spares padding."""
    by_size = encoded.mask.sum(1).argsort(stable=True).chunk(PARTS)
    found = torch.cat([prior.features(encoded[part].trimmed()) for part in by_size])
    return torch.empty_like(found).index_copy_(0, torch.cat(by_size), found)
