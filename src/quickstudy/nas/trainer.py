"""Training the members of Tiny on one task, here or in processes beside this one."""

import multiprocessing
import tempfile
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor, nn

from quickstudy.errors import DivergedError, TooFewExamplesError
from quickstudy.nas.architecture import Architecture
from quickstudy.nas.build import build
from quickstudy.nas.proxies import measure_latency
from quickstudy.nas.standardise import standardised
from quickstudy.nas.tiny import Tiny
from quickstudy.nas.train import Schedule, answer, train
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


@dataclass(frozen=True)
class Trainer:
    """Trains members of a space on a task, one at a time."""

    space: Tiny
    data: TrainingSet

    def network(self, architecture: Architecture, *, seed: int) -> nn.Sequential:
        """Before training: it begins with the standardisation of the training examples."""
        generator = Generator().manual_seed(seed)
        return standardised(build(self.space, architecture, generator=generator), self.data.x)

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
            keep: Whether to return the weights.
        """
        network = self.network(architecture, seed=seed)
        try:
            done = train(
                network,
                self.data.x,
                self.data.y,
                schedule,
                generator=Generator().manual_seed(seed),
                deadline=deadline,
            )
        except DivergedError as error:
            return Outcome(None, 0.0, 0, str(error))
        right = int((answer(network, self.data.x_validation).argmax(1) == self.data.y_validation).sum())
        share = Share(right, len(self.data.y_validation))
        return Outcome(share, done.seconds, done.steps, weights=network.state_dict() if keep else None)

    def latency(self, architecture: Architecture, *, seconds: float = 0.02) -> float:
        """Milliseconds of one prediction on one thread of this machine."""
        return measure_latency(self.network(architecture, seed=0), self.space.shape, seconds=seconds)


class Here(Executor):
    """Does what is asked at once, in this process."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """What it gives is done when this returns."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


_TRAINER: list[Trainer] = []
"""Of a process that was started for it."""


def begin(path: str, shape: tuple[int, ...], n_classes: int) -> None:
    """What a process does first: it reads the examples."""
    torch.set_num_threads(1)
    data = TrainingSet(**load_file(path))
    _TRAINER[:] = [Trainer(Tiny(shape=shape, n_classes=n_classes), data)]


def attempt(*args: Any, **kwargs: Any) -> Outcome:
    """Trains in a process that `begin` began."""
    return _TRAINER[0](*args, **kwargs)


@dataclass(frozen=True)
class Workers:
    """Where trainings are done."""

    executor: Executor
    call: Any
    n: int

    def submit(self, *args: Any, **kwargs: Any) -> "Future[Outcome]":
        """A training that is under way; the arguments are those of `Trainer`."""
        return self.executor.submit(self.call, *args, **kwargs)


@contextmanager
def workers(trainer: Trainer, n: int) -> Iterator[Workers]:
    """`n` processes of one thread each; with one, this process.

    Processes are started anew, as they must be on every system: a script that asks for several guards its own start
    with `if __name__ == "__main__":`.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if n == 1:
            yield Workers(Here(), trainer, 1)
            return
        with tempfile.TemporaryDirectory(prefix="quickstudy-") as folder:
            path = Path(folder) / "data.safetensors"
            save_file({name: value.contiguous() for name, value in vars(trainer.data).items()}, path)
            space = trainer.space
            with ProcessPoolExecutor(
                n,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=begin,
                initargs=(str(path), space.shape, space.n_classes),
            ) as pool:
                try:
                    yield Workers(pool, attempt, n)
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
    finally:
        torch.set_num_threads(threads)
