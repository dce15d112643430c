"""Training the members of Tiny, and judging them."""

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from quickstudy.errors import DivergedError, TooFewExamplesError
from quickstudy.nas.architecture import Architecture
from quickstudy.nas.build import build
from quickstudy.nas.proxies import measure_latency
from quickstudy.nas.standardise import standardised
from quickstudy.nas.tiny import Tiny
from quickstudy.nas.train import Schedule, answer, train
from quickstudy.tasks.episodes import to_float
from quickstudy.tasks.task import Examples
from quickstudy.training.proportion import Share


@dataclass(frozen=True)
class TrainingSet:
    """Examples to train on, and others to choose by."""

    x: Tensor  # (n, *input)
    y: Tensor  # (n,)
    x_validation: Tensor
    y_validation: Tensor

    @classmethod
    def of(cls, x: Tensor, y: Tensor, *, n_classes: int, part: float = 0.25, seed: int = 0) -> "TrainingSet":
        """Labelled examples, a part of each class set aside, at least one.

        Args:
            x: `(n, *input)`.
            y: `(n,)` int64.
            n_classes: How many there are.
            part: Of each class, for validation.
            seed: Decides which.

        Raises:
            TooFewExamplesError: Where a class has only one example.
        """
        generator, aside = Generator().manual_seed(seed), list[Tensor]()
        for label in range(n_classes):
            rows = (y == label).nonzero().flatten()
            if len(rows) < 2:
                raise TooFewExamplesError(
                    f"class {label} has {len(rows)} example(s) to learn from, and a search needs 2, one to train on "
                    "and one to choose by. Add examples, or leave the class out."
                )
            n = min(len(rows) - 1, max(1, round(part * len(rows))))
            aside.append(rows[torch.randperm(len(rows), generator=generator)[:n]])
        chosen = torch.zeros(len(y), dtype=torch.bool)
        chosen[torch.cat(aside)] = True
        return cls(x[~chosen], y[~chosen], x[chosen], y[chosen])

    @property
    def all(self) -> tuple[Tensor, Tensor]:
        """Inputs and labels of both."""
        return torch.cat([self.x, self.x_validation]), torch.cat([self.y, self.y_validation])

    @property
    def digest(self) -> str:
        """Of all examples, and of which are for what."""
        return digest(self.x, self.y, self.x_validation, self.y_validation)


@dataclass(frozen=True)
class Outcome:
    """What came of training one architecture."""

    accuracy: Share | None
    """On the validation set; None where the training failed."""
    seconds: float
    steps: int
    why: str | None = None
    """Of the failure."""
    weights: dict[str, Tensor] | None = None
    """Of the network, where they were asked for."""
    complete: bool = True
    """False where the deadline left time for less than was planned."""


class Trainer(ABC):
    """Trains members of a space and judges them, one at a time."""

    space: Tiny

    @abstractmethod
    def __call__(
        self,
        architecture: Architecture,
        schedule: Schedule,
        *,
        seed: int,
        deadline: float | None = None,
        keep: bool = False,
    ) -> Outcome:
        """Trains and judges; a training that diverges is an outcome, not an error.

        Args:
            architecture: A member.
            schedule: Complete by itself.
            seed: Of the first weights and the order of the examples.
            deadline: On the clock of `time.perf_counter`, which is that of all processes of a machine.
            keep: Whether to return the weights, where one network is trained.
        """

    def latency(self, architecture: Architecture, *, seconds: float = 0.02) -> float:
        """Milliseconds of one prediction on one thread of this machine, of the network as it would be delivered."""
        network = standardised(build(self.space, architecture), torch.zeros(2, *self.space.shape))
        return measure_latency(network, self.space.shape, seconds=seconds)


@dataclass(frozen=True)
class OnOneTask(Trainer):
    """Trains on the examples of one task, and judges on those that were set aside."""

    space: Tiny
    data: TrainingSet

    def network(self, architecture: Architecture, *, seed: int) -> nn.Sequential:
        """Before training: it begins with the standardisation of the training examples."""
        return untrained(self.space, architecture, self.data.x, seed=seed)

    def __call__(
        self,
        architecture: Architecture,
        schedule: Schedule,
        *,
        seed: int,
        deadline: float | None = None,
        keep: bool = False,
    ) -> Outcome:
        """As every trainer."""
        network, data = self.network(architecture, seed=seed), self.data
        generator = Generator().manual_seed(seed)
        try:
            done = train(network, data.x, data.y, schedule, generator=generator, deadline=deadline)
        except DivergedError as error:
            return Outcome(None, 0.0, 0, str(error))
        right = int((answer(network, data.x_validation).argmax(1) == data.y_validation).sum())
        share = Share(right, len(data.y_validation))
        weights = network.state_dict() if keep else None
        return Outcome(share, done.seconds, done.steps, weights=weights, complete=done.complete)


def digest(*tensors: Tensor) -> str:
    """Of values and shapes; equal where they are.

    Example:
        >>> import torch
        >>> from quickstudy.nas.trainer import digest
        >>> digest(torch.arange(6)) == digest(torch.arange(6)), digest(torch.arange(6)) == digest(torch.zeros(6))
        (True, False)
    """
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().numpy().data)
    return found.hexdigest()[:16]


def untrained(space: Tiny, architecture: Architecture, x: Tensor, *, seed: int) -> nn.Sequential:
    """A network before training, which standardises its inputs as these examples `(n, *shape)` need it."""
    return standardised(build(space, architecture, generator=Generator().manual_seed(seed)), x)


def real(examples: Examples) -> tuple[Tensor, Tensor]:
    """Inputs and labels of the only task of a batch, without what is masked, in float32, on the CPU, which trains."""
    x, y = to_float(examples.x[0]).float(), examples.y[0]
    if examples.mask is not None:
        x, y = x[examples.mask[0]], y[examples.mask[0]]
    return x.cpu(), y.cpu()
