"""What a prediction takes on this machine, and searches within a limit of that."""

from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

from quickstudy.errors import NothingFitsError
from quickstudy.experience.proposer import Proposer
from quickstudy.experience.trial import TaskDescription, Trial
from quickstudy.nas.architecture import Architecture
from quickstudy.nas.build import plan
from quickstudy.nas.limited import Limited
from quickstudy.nas.pace import madds
from quickstudy.nas.space import Space
from quickstudy.nas.tiny import Tiny, cell_of
from quickstudy.nas.trainer import Trainer

PROBED = 16
"""Networks that are measured before anything is expected of the others."""
MARGIN = 0.9
"""The part of a limit that a network may take when it is tried: the clock is noisy."""
RIDGE = 0.01
"""Of the line by which latencies are expected."""
AT_ONCE = 32
"""Proposals that are asked for together, at most, where one after the other was too slow."""


class Latency:
    """Milliseconds of a prediction: measured, or expected from all that was measured so far, and who keeps to a limit.

    What is expected is a line in what a network does: calls of convolutions and normalisations, of ReLU and sums, of
    pooling, stages, the size of its feature maps and multiply-adds.

    Args:
        trainer: Measures.
        limit: In milliseconds; None is none.
    """

    def __init__(self, trainer: Trainer, limit: float | None = None) -> None:
        self.trainer, self.limit = trainer, limit
        self.measured = dict[Architecture, float]()
        self._believed = dict[Architecture, bool]()
        self._weights: Tensor | None = None

    def __call__(self, architecture: Architecture) -> float:
        """That of a member, which is measured once."""
        if architecture not in self.measured:
            self.measured[architecture], self._weights = self.trainer.latency(architecture), None
        return self.measured[architecture]

    def expected(self, architecture: Architecture) -> float:
        """That of a member, without measuring; some must have been."""
        if architecture in self.measured:
            return self.measured[architecture]
        if self._weights is None:
            x = torch.tensor([inputs(self.trainer.space, one) for one in self.measured], dtype=torch.float64)
            self._weights = line(x, torch.tensor(list(self.measured.values()), dtype=torch.float64))
        return float(torch.tensor(inputs(self.trainer.space, architecture), dtype=torch.float64) @ self._weights)

    def quick(self, milliseconds: float) -> bool:
        """Whether that much is within the limit, less what the clock may err."""
        return self.limit is None or milliseconds <= MARGIN * self.limit

    def keeps(self, architecture: Architecture) -> bool:
        """Whether a member is within the limit: as measured, else as expected when first asked, for a search goes by
        members that stay members.
        """
        if architecture in self.measured:
            return self.quick(self.measured[architecture])
        if architecture not in self._believed:
            self._believed[architecture] = self.quick(self.expected(architecture))
        return self._believed[architecture]

    @property
    def too_slow(self) -> list[Architecture]:
        """What was measured and is not within the limit."""
        return [one for one, found in self.measured.items() if not self.quick(found)]

    def within(self, space: Limited, *, seed: int) -> Limited:
        """The members that are expected to keep to the limit; those that were measured and do are its first starts.

        Raises:
            NothingFitsError: Where none of the first ones that are measured does, the cheapest among them.
        """
        if self.limit is None:
            return space
        generator, whole = Generator().manual_seed(seed), self.trainer.space
        cheapest = min(space.starts, key=lambda a: madds(whole, a))
        for one in (cheapest, *(space.sample(generator=generator) for _ in range(PROBED - 1))):
            self(one)
        kept = sorted((one for one in self.measured if self.quick(self(one))), key=self.measured.__getitem__)
        if not kept:
            raise NothingFitsError(
                f"no network keeps to {MARGIN * self.limit:g} ms, the limit less what the clock may err: of {PROBED} "
                "that were measured on this machine, among them the one with the fewest multiply-adds, the fastest "
                f"takes {min(self.measured.values()):.2g} ms. Raise the limit."
            )
        quick = [start for start in space.starts if start not in kept and self.keeps(start)]
        return Limited(space, self.keeps, [*kept, *quick])


class QuickEnough(Proposer[Architecture, Space]):
    """Proposes what another proposer does, once a measurement has shown that it keeps to the limit of latency.

    What does not is no trial, for its outcome is not known; to the other it is one that is pending. Where all that the
    other proposes is too slow, those starts of the space take its place that were measured and are not.

    Args:
        proposer: The other.
        latency: Measures.
        until: Whether time is up; then there is no proposal.
    """

    def __init__(
        self, proposer: Proposer[Architecture, Space], latency: Latency, until: Callable[[], bool] = lambda: False
    ) -> None:
        self.proposer, self.latency, self.until = proposer, latency, until

    def propose(
        self,
        task: TaskDescription,
        trials: Sequence[Trial[Architecture]],
        space: Space,
        *,
        n: int = 1,
        generator: Generator,
    ) -> list[Architecture]:
        """`n` that are within the limit, fewer where time is up or nothing is left."""
        found, asked, known = list[Architecture](), n, {trial.choice for trial in trials}
        slow = [one for one in self.latency.too_slow if one not in known]
        measured = [one for one in getattr(space, "starts", ()) if one in self.latency.measured]
        while len(found) < n and not self.until():
            pending = [Trial[Architecture](one, None, pending=True) for one in (*slow, *found)]
            proposed = self.proposer.propose(task, [*trials, *pending], space, n=asked, generator=generator)
            if not proposed:
                left = [one for one in measured if one not in {*known, *found, *slow}]
                return found + left[: n - len(found)]
            for one in proposed:
                if len(found) == n or self.until():
                    break
                quick = space.has(one) and self.latency.quick(self.latency(one))
                (found if quick else slow).append(one)
            asked = min(AT_ONCE, 2 * asked)
        return found

    def incumbent(
        self, task: TaskDescription, trials: Sequence[Trial[Architecture]], space: Space
    ) -> Trial[Architecture] | None:
        """That of the other."""
        return self.proposer.incumbent(task, trials, space)


def inputs(space: Tiny, architecture: Architecture) -> tuple[float, ...]:
    """What a latency is expected by: a constant, and six things that take time."""
    stages, depth = space.stages(architecture), int(architecture.values["depth"])
    steps, _ = plan(cell_of(architecture))
    kinds = Counter(step.kind for step in steps)
    cells = depth * len(stages)
    maps = depth * sum(stage.width * stage.positions for stage in stages)
    return (
        1.0,
        float(cells * (2 * kinds["conv1"] + 2 * kinds["conv3"] + kinds["depthwise"])),
        float(cells * (kinds["relu"] + kinds["add"])),
        float(cells * kinds["avg_pool3"]),
        float(len(stages) - 1),
        len(steps) * maps / 1e5,
        madds(space, architecture) / 1e6,
    )


def line(x: Tensor, y: Tensor) -> Tensor:
    """Weights `(d,)` of inputs `(n, d)` by which outcomes `(n,)` are expected, with errors in proportion to them."""
    scale = x.abs().mean(0).clamp_min(1e-9)
    z = x / scale / y[:, None]
    ridge = RIDGE * z.square().sum(0).mean() * torch.eye(x.shape[1], dtype=x.dtype)
    weights: Tensor = torch.linalg.solve(z.mT @ z + ridge, z.mT @ torch.ones_like(y)) / scale
    return weights
