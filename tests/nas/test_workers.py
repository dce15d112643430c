import multiprocessing
import os
import signal
import time
import warnings
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import pytest

from quickstudy.errors import OutcomeError
from quickstudy.nas.budget import PROCESSES, Budget
from quickstudy.nas.trainer import Outcome, Trainer
from quickstudy.nas.workers import Here, Workers, begin, cores, ready, workers


@dataclass(frozen=True)
class Where(Trainer):
    """Says in which process it is; told to, it dies like one that the system kills."""

    space: None = None

    def __call__(self, architecture, schedule, *, seed, deadline=None, keep=False):
        if architecture == "deadly":
            os.kill(os.getpid(), signal.SIGKILL)
        if architecture == "interrupted":  # as all processes of a terminal are
            os.kill(os.getpid(), signal.SIGINT)
        if architecture == "long":
            time.sleep(60)
        return Outcome(None, 0.0, os.getpid())


class Late(Here):
    """Its processes are not up."""

    def submit(self, fn, /, *args, **kwargs):
        return Future()


def test_trainings_are_done_here_until_the_processes_are_up():
    pool = Workers(Where(), Late(), 2)
    assert pool.n == 1
    assert pool.submit(None, None, seed=0).result().steps == os.getpid()
    pool._waiting[0].set_result(None)
    assert pool.n == 1
    pool._waiting[1].set_result(None)
    assert pool.n == 2
    assert not pool.submit(None, None, seed=0).done()


def test_where_a_process_is_killed_the_next_training_is_done_here(caplog):
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=begin, initargs=(Where(),)) as executor:
        pool = Workers(Where(), executor, 2)
        for future in pool._waiting:
            future.result()
        with pytest.raises(BrokenProcessPool):
            pool.submit("deadly", None, seed=0).result()
        assert pool.submit(None, None, seed=0).result().steps == os.getpid()
        assert pool.n == 1
    assert "--workers 1" in caplog.text


def test_ctrl_c_reaches_no_process_and_what_is_under_way_ends_where_a_search_is_stopped():
    pids = []

    def search():
        with workers(Where(), 2) as pool:
            for future in pool._waiting:
                future.result()
            interrupted = pool.submit("interrupted", None, seed=0)
            assert interrupted.exception() is None
            assert interrupted.result().steps != os.getpid()
            pool.submit("long", None, seed=0)
            pids.extend(pool.executor._processes)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        search()
    assert ended(pids)


def test_what_cannot_be_sent_to_processes_is_told_in_one_sentence():
    with pytest.raises(OutcomeError, match=r"cannot be sent to 2 processes .*lambda"), workers(Where(lambda: 0), 2):
        pass


def test_leaving_does_not_wait_for_processes_that_are_still_starting():
    start = time.perf_counter()
    with workers(Where(), 2) as pool:
        assert pool.submit(None, None, seed=0).result().steps == os.getpid()
        waiting = pool._waiting
    assert time.perf_counter() - start < 1
    assert not any(future.done() and not future.cancelled() for future in waiting)


def hold_two(told):
    """Has two processes, says which, and waits."""
    with workers(Where(), 2) as pool:
        for future in pool._waiting:
            future.result()
        told.send(list(pool.executor._processes))
        time.sleep(60)


def is_alive(pid):
    """Whether there is such a process; one that has ended may wait for its parent to be told."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


def ended(pids):
    """Whether all have ended in ten seconds; those that have not are killed."""
    deadline = time.monotonic() + 10
    while any(map(is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    left = [pid for pid in pids if is_alive(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return not left


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")
def test_processes_end_with_a_search_that_is_killed():
    hears, tells = multiprocessing.Pipe(duplex=False)
    search = multiprocessing.get_context("fork").Process(target=hold_two, args=(tells,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads, which do nothing here
        search.start()
    assert hears.poll(120)
    pids = hears.recv()
    assert len(pids) == 2
    assert all(map(is_alive, pids))
    search.kill()
    search.join()
    assert ended(pids)


def test_a_result_whose_process_was_killed_is_found_again_here():
    pool, lost = Workers(Where()), Future()
    lost.set_exception(BrokenProcessPool())
    assert pool.result(lost, lambda: pool.submit(None, None, seed=0)).steps == os.getpid()


def test_processes_are_started_where_the_seconds_are_worth_it():
    assert Budget(seconds=PROCESSES, workers=2).processes == 2
    assert Budget(seconds=PROCESSES - 1, workers=2).processes == 1
    assert Budget(seconds=None, trials=3, workers=2).processes == 2
    assert 1 <= cores() <= os.cpu_count()
    assert ready() is None
