"""What training takes on this machine."""

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Generator

from quickstudy.nas.architecture import Architecture
from quickstudy.nas.build import Cost, count
from quickstudy.nas.limited import Limited
from quickstudy.nas.tiny import Tiny
from quickstudy.nas.train import Schedule
from quickstudy.nas.trainer import Outcome, Trainer

PROBE = 5
"""Steps that are trained to find the pace."""


@dataclass
class Pace:
    """Seconds of a training step as a line in multiply-adds, from the trainings so far."""

    madds: list[float] = field(default_factory=list)
    seconds_a_step: list[float] = field(default_factory=list)

    @classmethod
    def probe(
        cls, trainer: Trainer, within: Limited, schedule: Schedule, *, seed: int, seconds: float = math.inf
    ) -> "Pace":
        """From a few steps of two members, the second as large as the seconds allow; the first of all is to warm up."""
        found, generator = cls(), Generator().manual_seed(seed)
        few = replace(schedule, steps=PROBE)
        drawn = sorted((within.sample(generator=generator) for _ in range(8)), key=lambda a: madds(trainer.space, a))
        least, *larger = drawn
        trainer(least, replace(schedule, steps=1), seed=seed)
        outcome = trainer(least, few, seed=seed)
        found.add(count(trainer.space, least), outcome)
        most = seconds / outcome.seconds * madds(trainer.space, least) if outcome.seconds else math.inf
        for architecture in [each for each in larger if madds(trainer.space, each) <= most][-1:]:
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


def madds(space: Tiny, architecture: Architecture) -> int:
    """Multiply-adds of a member."""
    return count(space, architecture).multiply_adds
