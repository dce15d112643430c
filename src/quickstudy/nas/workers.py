"""Trainings side by side."""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from quickstudy.nas.trainer import Outcome, Trainer


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


def begin(trainer: Trainer) -> None:
    """What a process does first."""
    torch.set_num_threads(1)
    _TRAINER[:] = [trainer]


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
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(n, mp_context=context, initializer=begin, initargs=(trainer,)) as pool:
            try:
                yield Workers(pool, attempt, n)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    finally:
        torch.set_num_threads(threads)
