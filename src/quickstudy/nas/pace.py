"""What training, and predicting, takes on this machine."""

from dataclasses import dataclass, field

import torch
from torch import Generator

from quickstudy.errors import NothingFitsError
from quickstudy.nas.architecture import Architecture
from quickstudy.nas.build import Cost, count
from quickstudy.nas.limited import Limited
from quickstudy.nas.tiny import Tiny, cell_of
from quickstudy.nas.train import Schedule
from quickstudy.nas.trainer import Outcome, Trainer

PROBE = 5
"""Steps that are trained to find the pace."""
PROBED = 16
"""Networks whose latency is measured to predict the others'."""


@dataclass
class Pace:
    """Seconds of a training step as a line in multiply-adds, from the trainings so far."""

    madds: list[float] = field(default_factory=list)
    seconds_a_step: list[float] = field(default_factory=list)

    @classmethod
    def probe(cls, trainer: Trainer, within: Limited, schedule: Schedule, *, seed: int) -> "Pace":
        """From a few steps of two members; the first of all is for warming up."""
        found, generator = cls(), Generator().manual_seed(seed)
        few = Schedule(steps=PROBE, batch_size=schedule.batch_size)
        drawn = sorted((within.sample(generator=generator) for _ in range(8)), key=lambda a: madds(trainer.space, a))
        trainer(drawn[0], Schedule(steps=1, batch_size=schedule.batch_size), seed=seed)
        for architecture in (drawn[0], drawn[-1]):
            found.add(count(trainer.space, architecture), trainer(architecture, few, seed=seed))
        return found

    def add(self, cost: Cost, outcome: Outcome) -> None:
        """One more training; one that failed tells nothing."""
        if outcome.steps:
            self.madds.append(float(cost.multiply_adds))
            self.seconds_a_step.append(outcome.seconds / outcome.steps)

    def seconds(self, cost: Cost, steps: int) -> float:
        """What a training will take."""
        x, y = torch.tensor(self.madds).double(), torch.tensor(self.seconds_a_step).double()
        if not len(y):
            return 0.0
        slope = float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum().clamp_min(1.0))
        slope = max(0.0, slope)
        base = max(float(y.mean() - slope * x.mean()), float(y.min()) / 2)
        return steps * (base + slope * cost.multiply_adds)


def fewest_madds(space: Tiny, within: Limited) -> Architecture:
    """The cheapest start."""
    return min(within.starts, key=lambda a: madds(space, a))


def madds(space: Tiny, architecture: Architecture) -> int:
    """Multiply-adds of a member."""
    return count(space, architecture).multiply_adds


@dataclass(frozen=True)
class Latency:
    """Milliseconds of a prediction: a line in the number of operations and in multiply-adds."""

    space: Tiny
    weights: torch.Tensor  # (3,): of a constant, operations, and millions of multiply-adds

    @classmethod
    def probe(cls, trainer: Trainer, within: Limited, *, limit: float, seed: int) -> "Latency":
        """From members that are measured, the cheapest among them.

        Raises:
            NothingFitsError: Where every one of them takes longer than the limit.
        """
        generator = Generator().manual_seed(seed)
        cheapest = fewest_madds(trainer.space, within)
        probed = [cheapest, *(within.sample(generator=generator) for _ in range(PROBED - 1))]
        found = torch.tensor([trainer.latency(architecture) for architecture in probed]).double()
        if float(found.min()) > limit:
            raise NothingFitsError(
                f"no network keeps to {limit:g} ms, the limit less what the clock may err: of {PROBED} that were "
                f"measured on this machine, among them the one with the fewest multiply-adds, the fastest takes "
                f"{float(found.min()):.2g} ms. Raise the limit."
            )
        x = torch.tensor([inputs(trainer.space, architecture) for architecture in probed]).double()
        x, one = x / found[:, None], torch.ones_like(found)  # errors are in proportion to what is measured
        return cls(trainer.space, torch.linalg.solve(x.mT @ x + 1e-6 * torch.eye(3).double(), x.mT @ one))

    def within(self, space: Limited, limit: float) -> Limited:
        """The members of which no more than a limit is expected."""
        quick = [start for start in space.starts if self(start) <= limit]
        cheapest = fewest_madds(self.space, space)  # it was measured, whatever is expected of it
        return Limited(space, lambda a: a == cheapest or self(a) <= limit, quick or [cheapest])

    def __call__(self, architecture: Architecture) -> float:
        """What is expected of a member."""
        return float(torch.tensor(inputs(self.space, architecture)).double() @ self.weights)


def inputs(space: Tiny, architecture: Architecture) -> tuple[float, float, float]:
    """A constant, the number of operations, and millions of multiply-adds."""
    values = architecture.values
    cells = int(values["depth"]) * int(values["stages"])
    operations = cells * sum(operation != "none" for operation in cell_of(architecture)) + int(values["stages"])
    return 1.0, float(operations), madds(space, architecture) / 1e6
