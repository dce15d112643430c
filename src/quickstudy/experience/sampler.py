"""A proposer as an Optuna sampler."""

import hashlib
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Generic, TypeVar, cast

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState
from torch import Generator

from quickstudy.errors import StudyError
from quickstudy.experience.entries import FAILED, counted, entries, has_chosen, interrupted
from quickstudy.experience.parameters import Parameters
from quickstudy.experience.process import is_gone, this_process
from quickstudy.experience.proposer import Proposer
from quickstudy.experience.trial import TaskDescription

C = TypeVar("C")
S = TypeVar("S")
PROCESS = "quickstudy:process"
"""The attribute of a trial that says where it runs."""
PATIENCE = 2.0
"""Seconds that others wait for a trial that neither chooses nor says where it runs, which it does first of all. Should
it be alive, it finds that it was given up, and is asked again."""
PAUSE = 0.02
"""Seconds between looks at what others do."""


class NothingLeftError(StudyError):
    """Nothing is left to be tried."""


class ProposerSampler(optuna.samplers.BaseSampler, Generic[C, S]):
    """Lets a proposer choose the parameters of an Optuna study's trials, in as many processes as there are.

    A trial's number is its place in a queue: a trial chooses once all those before it have chosen. So no two choose
    the same, whatever the storage, and no process holds a lock that it could take to its grave.

    A trial whose process is gone is failed, and the next trial makes its choice again: one of this machine at once, one
    of another machine when its heartbeat stops, where the storage keeps heartbeats. Interrupted trials do not count:
    the proposer never sees them, and its generator is seeded with the number of choices that do count. A search that
    was killed therefore goes on with the proposals that it would have made.

    It serves `study.ask(parameters.distributions)` and `study.optimize` alike.

    Args:
        proposer: Chooses.
        task: What is known of the task.
        space: What it chooses among.
        parameters: How its choices become parameters.
        seed: Of all randomness.
        most: Trials of the study, of all processes; as many as there are choices by default.
        allowed: Whether the choice of an interrupted trial may be made again; all may by default.
        began: Is called with the id of each trial before it chooses.

    References:
        Lamport, A New Solution of Dijkstra's Concurrent Programming Problem, 1974, for the queue.
    """

    def __init__(
        self,
        proposer: Proposer[C, S],
        task: TaskDescription,
        space: S,
        parameters: Parameters[C],
        *,
        seed: int = 0,
        most: int | None = None,
        allowed: Callable[[C], bool] | None = None,
        began: Callable[[int], None] | None = None,
    ) -> None:
        self.proposer, self.task, self.space, self.parameters = proposer, task, space, parameters
        self.seed, self.most, self.allowed, self.began = seed, most, allowed, began
        self.attempt = 1
        """How often the last choice has been made, with this time."""

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Says where the trial runs."""
        study._storage.set_trial_system_attr(trial._trial_id, PROCESS, cast(Any, this_process()))
        if self.began is not None:
            self.began(trial._trial_id)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All parameters: they are chosen together."""
        return dict(self.parameters.distributions)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The choice that waits to be made again, or else the proposer's.

        Raises:
            NothingLeftError: Where it proposes nothing, or there are as many trials as may be. The trial is failed
                then, as after every other error.
        """
        try:
            found = entries(wait_for_turn(study, trial.number, self.parameters), self.parameters)
            tried, self.attempt = counted(found), 1
            if self.most is not None and len(tried) >= self.most:
                raise NothingLeftError(f"{len(tried)} trials were made, and {self.most} are asked for.")
            if again := interrupted(found, self.allowed):
                self.attempt += sum(entry.key == again[0].key for entry in found)
                return dict(self.parameters.encode(again[0].choice))
            known = {entry.key for entry in tried}
            for choice in self.proposer.propose(
                self.task,
                [entry.trial for entry in tried],
                self.space,
                n=1,
                generator=generator_of(self.seed, len(known)),
            ):
                values = dict(self.parameters.encode(choice))
                if tuple(values[name] for name in self.parameters.distributions) not in known:
                    return values
            raise NothingLeftError(f"nothing of {self.parameters.space} is left to try after {len(known)} choices.")
        except BaseException:
            interrupt(study, trial._trial_id)
            raise

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Nothing is chosen by itself.

        Raises:
            StudyError: Always.
        """
        raise StudyError(f"{param_name} is none of the parameters of {self.parameters.space}; suggest those alone.")

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Tells a trial that failed from one that was interrupted."""
        if state == TrialState.FAIL and FAILED not in trial.user_attrs:
            study._storage.set_trial_user_attr(trial._trial_id, FAILED, "it was told to have failed")


def generator_of(seed: int, place: int) -> Generator:
    """The randomness of the proposal that follows `place` others."""
    digest = hashlib.sha256(f"{seed} {place}".encode()).digest()
    return Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def wait_for_turn(study: optuna.Study, number: int, parameters: Parameters[C]) -> list[FrozenTrial]:
    """The other trials, once all before `number` have chosen or are gone."""
    since, stale_after = time.monotonic(), 0.0
    while True:
        waited = time.monotonic() - since
        if waited >= stale_after:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                optuna.storages.fail_stale_trials(study)
            stale_after = waited + 1
        trials = [trial for trial in study.get_trials(deepcopy=False) if trial.number != number]
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        choosing = [trial for trial in running if trial.number < number and not has_chosen(trial, parameters)]
        dead = list(filter(has_gone, running))
        if waited > PATIENCE:
            dead += [trial for trial in choosing if PROCESS not in trial.system_attrs]
        if not choosing and not dead:
            return trials
        for trial in dead:
            interrupt(study, trial._trial_id)
        if not dead:
            time.sleep(PAUSE)


def has_gone(trial: FrozenTrial) -> bool:
    """Whether its process was one of this machine, and is no more."""
    return PROCESS in trial.system_attrs and is_gone(trial.system_attrs[PROCESS])


def give_up_gone(study: optuna.Study) -> None:
    """Interrupts the running trials whose process is no more."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if has_gone(trial):
            interrupt(study, trial._trial_id)


def interrupt(study: optuna.Study, trial_id: int) -> None:
    """Ends a trial that says nothing of its choice, unless it has ended."""
    with suppress(UpdateFinishedTrialError):
        study._storage.set_trial_state_values(trial_id, TrialState.FAIL)
