"""Trainings side by side."""

import logging
import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from threading import Thread
from typing import Any

import torch

from quickstudy.errors import OutcomeError
from quickstudy.nas.trainer import Outcome, Trainer

KILLED = (
    "a process for training was killed, as systems that are short of memory do: search with fewer (--workers 1). Or it "
    'could not begin: a script that asks for several begins under `if __name__ == "__main__":`.'
)
_log = logging.getLogger(__name__)


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
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that began it
    torch.set_num_threads(1)
    _TRAINER[:] = [trainer]
    Thread(target=follow, daemon=True).start()


def follow() -> None:
    """Ends this process as soon as that which began it has ended, as by `kill -9`: nobody else would."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def attempt(*args: Any, **kwargs: Any) -> Outcome:
    """Trains in a process that `begin` began."""
    return _TRAINER[0](*args, **kwargs)


def ready() -> None:
    """What a process is asked first: it answers when it is up."""


def cores() -> int:
    """How many this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)
    return os.cpu_count() or 1 if allowed is None else len(allowed(0))


class Workers:
    """Where trainings are done: in processes once they are up, which takes seconds, and in this one until then.

    Where one of them is killed, its trainings end with `BrokenProcessPool`, and those that follow are done here.

    Args:
        trainer: Does them.
        executor: Of the processes; none where all is done here.
        n: Of processes.
    """

    def __init__(self, trainer: Trainer, executor: Executor | None = None, n: int = 1) -> None:
        self.trainer, self.executor, self._processes = trainer, executor, n
        self._waiting = [] if executor is None else [executor.submit(ready) for _ in range(n)]

    @property
    def n(self) -> int:
        """How many trainings can be under way side by side."""
        if self.executor is None or not all(future.done() for future in self._waiting):
            return 1
        if any(future.exception() is not None for future in self._waiting):
            self.lose()
            return 1
        return self._processes

    def submit(self, *args: Any, **kwargs: Any) -> "Future[Outcome]":
        """A training that is under way; the arguments are those of `Trainer`."""
        if self.n > 1 and self.executor is not None:
            try:
                return self.executor.submit(attempt, *args, **kwargs)
            except BrokenProcessPool:
                self.lose()
        return Here().submit(self.trainer, *args, **kwargs)

    def result(self, future: "Future[Outcome]", again: "Callable[[], Future[Outcome]]") -> Outcome:
        """What came of a training, which is done again where its process was killed."""
        try:
            return future.result()
        except BrokenProcessPool:
            self.lose()
            return again().result()

    def lose(self) -> None:
        """Does what follows in this process."""
        if self.executor is not None:
            _log.warning("What follows is trained in this process alone, for %s", KILLED)
        self.executor = None


@contextmanager
def workers(trainer: Trainer, n: int) -> Iterator[Workers]:
    """`n` processes of one thread each; with one, this process.

    Processes are started anew, as they must be on every system: a script that asks for several guards its own start
    with `if __name__ == "__main__":`.

    Raises:
        OutcomeError: Where the trainer cannot be sent to them.
    """
    with one_thread():
        if n == 1:
            yield Workers(trainer)
            return
        context, others = multiprocessing.get_context("spawn"), set(multiprocessing.active_children())
        pool = ProcessPoolExecutor(n, mp_context=context, initializer=begin, initargs=(trainer,))
        began = set[Any]()
        try:
            try:
                with held_back():
                    several = Workers(trainer, pool, n)
                began = set(multiprocessing.active_children()) - others
            except (pickle.PicklingError, AttributeError, TypeError) as error:
                raise OutcomeError(
                    f"what is searched for cannot be sent to {n} processes ({error}). Define what it is made of at the "
                    "top of a module, or search with one: Budget(workers=1)."
                ) from error
            yield several
        except BaseException:
            for process in began:  # what they train is for nobody, and Python would wait for it before it ends
                process.terminate()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # processes may still be starting, and end by themselves


@contextmanager
def held_back() -> Iterator[None]:
    """Within it Ctrl-C waits, and does not reach processes that begin, then or later, where the system can do that."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def one_thread() -> Iterator[None]:
    """Within it torch uses one, as each process of a search does."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
