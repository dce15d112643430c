"""What a prior makes of the architectures that a walk through a space comes by."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Generator, Tensor

from quickstudy.nas.aen import Facts, Prior
from quickstudy.nas.architecture import Architecture, Encoded
from quickstudy.nas.space import Space

Judge = Callable[[Sequence[Architecture], Encoded], Tensor]
"""What becomes of architectures, `(n,)`: a teacher's word."""
SAMPLE = 64
"""Members by which distances and costs are put in units, and from which walks begin; drawn by generators of their own,
so that they are the same for every search of a space."""
FINEST = 1e-4
"""To which numbers are rounded: what a graph's are must not depend on which others are looked at beside it."""
CHUNK = 1024
"""Graphs that are looked at together."""


class Landscape:
    """Architectures by number, each looked at once, and which of them differ in one choice.

    It remembers, and what it remembers depends on nothing but the prior, the space and the task: asked twice, it says
    the same. A **token** is a choice and one of its values, in the order of the space.

    Args:
        prior: AENs.
        space: Only its members get a number.
        task: The task's embedding.
        costs: Finds costs of architectures, `(n, c)`; they are standardised.
        judge: Finds outcomes, where a teacher knows them.

    Example:
        >>> import torch
        >>> from quickstudy.nas.aen import Prior
        >>> from quickstudy.nas.landscape import Landscape
        >>> from quickstudy.nas.nasbench201 import NASBench201
        >>> space = NASBench201()
        >>> land = Landscape(Prior(space, members=1, width=8), space)
        >>> (empty,) = land.numbers([space.architecture(["none"] * 6)]).tolist()
        >>> around = land.around(torch.tensor([empty]))
        >>> around.shape, land.architectures[around[0, 1]].choices[0]
        (torch.Size([1, 30]), ('0-1', 'skip_connect'))
    """

    def __init__(
        self,
        prior: Prior,
        space: Space,
        *,
        task: Tensor | None = None,
        costs: Facts | None = None,
        judge: Judge | None = None,
    ) -> None:
        self.prior, self.space, self.task, self._costs, self._judge = prior, space, task, costs, judge
        self.architectures: list[Architecture] = []
        self._pairs = [(c, v) for c, options in enumerate(space.choices.values()) for v in range(len(options))]
        self.choice = torch.tensor([c for c, _ in self._pairs])  # (tokens,)
        sizes = [len(options) for options in space.choices.values()]
        self._strides = [math.prod(sizes[c + 1 :]) for c in range(len(sizes))]
        self._first = torch.tensor([sum(sizes[:c]) for c in range(len(sizes))])
        self._places = [{value: v for v, value in enumerate(options)} for options in space.choices.values()]
        self._number: dict[int, int] = {}  # of each code; -1 where it is not a member
        self._member: list[bool] = []
        self._around: dict[int, np.ndarray] = {}
        self._known = 0
        self._columns: dict[str, Tensor] = {}
        sample = [space.sample(generator=Generator().manual_seed(i)) for i in range(SAMPLE)]
        self._centre, self._spread = torch.zeros(()), torch.ones(())
        at = self.sample = self.numbers(list(dict.fromkeys(sample)))
        """Numbers of some random members, without repetition."""
        if costs is not None:
            spread = self.costs[at].std(0, correction=min(1, len(at) - 1))  # of a single member, none
            self._centre, self._spread = self.costs[at].mean(0), spread.clamp_min(1e-6)
            self._columns["costs"] = (self._columns["costs"] - self._centre) / self._spread
        squared = torch.cdist(self.features[at], self.features[at]).square()
        self.distance = float(squared.sum() / max(1, len(at) * (len(at) - 1))) ** 0.5 or 1.0
        """The root mean squared distance between two members."""

    @property
    def tokens(self) -> int:
        """How many there are."""
        return len(self._pairs)

    @property
    def mean(self) -> Tensor:
        """What the prior expects of each architecture, `(n,)`."""
        return self._columns["mean"][: self._known]

    @property
    def std(self) -> Tensor:
        """How unsure it is, `(n,)`."""
        return self._columns["std"][: self._known]

    @property
    def features(self) -> Tensor:
        """The graph's embedding by the first AEN, `(n, d)`."""
        return self._columns["features"][: self._known]

    @property
    def costs(self) -> Tensor:
        """Standardised, `(n, c)`; no columns where there are none."""
        return self._columns["costs"][: self._known]

    @property
    def outcome(self) -> Tensor:
        """The judge's word, `(n,)`."""
        return self._columns["outcome"][: self._known]

    @property
    def places(self) -> Tensor:
        """The token of each choice's value, `(n, choices)`."""
        return self._columns["places"][: self._known].long()

    def numbers(self, architectures: Sequence[Architecture]) -> Tensor:
        """Theirs, `(n,)`, members or not: what was tried may lie outside the limits of today."""
        found = []
        for architecture in architectures:
            values = [places[value] for places, (_, value) in zip(self._places, architecture.choices, strict=True)]
            code = sum(v * stride for v, stride in zip(values, self._strides))
            if self._number.get(code, -1) < 0:
                self._add(code, architecture, self.space.has(architecture))
            found.append(self._number[code])
        self._look()
        return torch.tensor(found, dtype=torch.int64)

    def around(self, at: Tensor, only: Tensor | None = None) -> Tensor:
        """`(b,)` to `(b, tokens)`: the number of what has that value and all others alike; -1 where it is no member.

        Args:
            at: Where.
            only: `(b, tokens)`, True where a change is to be looked at; others are -1, as if they led nowhere.
        """
        if only is None:
            rows = [self._neighbours(number) for number in at.tolist()]
        else:
            rows = [self._some(number, mask) for number, mask in zip(at.tolist(), only.tolist(), strict=True)]
        self._look()
        return torch.from_numpy(np.stack(rows))

    def _neighbours(self, number: int) -> np.ndarray:
        if number not in self._around:
            self._around[number] = self._some(number, [True] * self.tokens)
        return self._around[number]

    def _some(self, number: int, mask: Sequence[bool]) -> np.ndarray:
        own = self.architectures[number]
        values = [places[value] for places, (_, value) in zip(self._places, own.choices)]
        code = sum(v * stride for v, stride in zip(values, self._strides))
        found = np.full(self.tokens, -1, np.int64)
        for i, (c, v) in enumerate(self._pairs):
            if mask[i] or v == values[c]:
                near = code + (v - values[c]) * self._strides[c]
                if near not in self._number:
                    self._visit(near, own, c, v)
                there = self._number[near]
                found[i] = there if there >= 0 and self._member[there] else -1
        return found

    def _visit(self, code: int, own: Architecture, c: int, v: int) -> None:
        name = own.choices[c][0]
        changed = (*own.choices[:c], (name, self.space.choices[name][v]), *own.choices[c + 1 :])
        other = Architecture(own.space, changed)
        if self.space.has(other):
            self._add(code, other, True)
        else:
            self._number[code] = -1

    def _add(self, code: int, architecture: Architecture, member: bool) -> None:
        self._number[code] = len(self.architectures)
        self._member.append(member)
        self.architectures.append(architecture)

    def _look(self) -> None:
        """Asks the prior about all that are new."""
        while self._known < len(self.architectures):
            new = self.architectures[self._known : self._known + CHUNK]
            with torch.no_grad():
                encoded = self.space.encode(new)
                features = self.prior.features(encoded)
                said = self.prior.judge(features, self.task, self.prior.proxies(new, self.space))
                costs = torch.zeros(len(new), 0) if self._costs is None else self._costs(self.space, new).float()
                places = [[p[value] for p, (_, value) in zip(self._places, a.choices)] for a in new]
                found = {
                    "mean": said.mean,
                    "std": said.stddev,
                    "features": features[:, : features.shape[1] // len(self.prior.members)],
                    "costs": (costs - self._centre) / self._spread,
                    "places": torch.tensor(places) + self._first,
                    "outcome": torch.full((len(new),), math.nan) if self._judge is None else self._judge(new, encoded),
                }
            for name, values in found.items():
                self._store(name, (values.double() / FINEST).round().mul(FINEST).float())
            self._known += len(new)

    def _store(self, name: str, values: Tensor) -> None:
        """Behind what is there, in twice the room where there is none left."""
        column, end = self._columns.get(name), self._known + len(values)
        if column is None or end > len(column):
            wider = torch.zeros(2 * end, *values.shape[1:])
            if column is not None:
                wider[: self._known] = column[: self._known]
            column = self._columns[name] = wider
        column[self._known : end] = values
