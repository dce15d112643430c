"""What one search tries, written down as it goes."""

import logging
import math
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from quickstudy.errors import StudyError
from quickstudy.experience.entries import FAILED, SECONDS, Entry, counted, entries
from quickstudy.experience.parameters import Parameters
from quickstudy.experience.proposer import Proposer
from quickstudy.experience.studies import GRACE, HEARTBEAT, connect, disconnect, open_study, plain_errors, quiet, where
from quickstudy.experience.trial import TaskDescription, Trial

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage

C = TypeVar("C")
S = TypeVar("S")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ticket(Generic[C]):
    """A choice that is this process's to try."""

    number: int
    """Of the trial."""
    choice: C
    attempt: int
    """1, and more where it was interrupted before."""


class Record(Generic[C]):
    """The trials of one task in one space, as an Optuna study that several processes may share and any may leave.

    A process that is killed loses nothing but its unfinished trials, which the next `next` gives out again. Proposals
    depend on the seed and on what was tried, not on who asks or when, so that a search which goes on after that is the
    search that it would have been.

    A record is a context: at its end, trials that are still open are interrupted, and connections closed.

    Args:
        study: As `open_study` gives it.
        parameters: Of its space.
        seed: Of all proposals.

    Example:
        >>> import torch
        >>> from quickstudy.experience.parameters import categorical
        >>> from quickstudy.experience.proposer import Proposer
        >>> from quickstudy.experience.record import Record
        >>> from quickstudy.experience.trial import TaskDescription
        >>> widths = (4, 8, 16)
        >>> class Smallest(Proposer):
        ...     def propose(self, task, trials, space, *, n=1, generator):
        ...         return [w for w in space if w not in [trial.choice for trial in trials]][:n]
        >>> choices = {"width": widths}
        >>> toy = categorical("toy/1", "4f2a", choices, encode=lambda w: {"width": w}, decode=lambda p: p["width"])
        >>> task = TaskDescription("digits")
        >>> with Record.open(None, task, toy) as record:
        ...     while (ticket := record.next(Smallest(), task, widths)) is not None:
        ...         if ticket.choice == 8:
        ...             record.fail(ticket.number, "the loss is not finite")
        ...         else:
        ...             record.finish(ticket.number, 1 / ticket.choice, seconds=2.0)
        ...     [(trial.choice, trial.value) for trial in record.trials()]
        [(4, 0.25), (8, None), (16, 0.0625)]
    """

    def __init__(self, study: "optuna.Study", parameters: Parameters[C], *, seed: int = 0) -> None:
        self.study, self.parameters, self.seed = study, parameters, seed
        self._base: BaseStorage = getattr(study._storage, "_backend", study._storage)
        self._where = where(self._base)
        self._open, self._reports = dict[int, "optuna.Trial"](), dict[int, dict[int, float]]()
        self._pulse = Pulse(self._base)
        self._disconnects = False

    @classmethod
    def open(
        cls,
        storage: "str | Path | BaseStorage | None",
        task: TaskDescription,
        parameters: Parameters[C],
        *,
        about: Mapping[str, object] | None = None,
        name: str | None = None,
        seed: int = 0,
        heartbeat: int = HEARTBEAT,
        grace: int = GRACE,
    ) -> Self:
        """The record of a task; it is made where there is none.

        Args:
            storage: As in `connect`.
            task: As in `open_study`.
            parameters: Of the space.
            about: As in `open_study`.
            name: As in `open_study`.
            seed: Of all proposals.
            heartbeat: As in `connect`.
            grace: As in `connect`.

        Raises:
            StudyError: As in `open_study`.
        """
        base = connect(storage, heartbeat=heartbeat, grace=grace)
        try:
            record = cls(open_study(base, task, parameters, about=about, name=name), parameters, seed=seed)
        except BaseException:
            if base is not storage:
                disconnect(base)
            raise
        record._disconnects = base is not storage
        return record

    def next(
        self,
        proposer: Proposer[C, S],
        task: TaskDescription,
        space: S,
        *,
        most: int | None = None,
        allowed: Callable[[C], bool] | None = None,
    ) -> Ticket[C] | None:
        """What to try next, first of all what was interrupted; None where nothing is left.

        To the proposer, trials that still run count as tried, without a value.

        Args:
            proposer: Chooses.
            task: What it is told of the task.
            space: What it chooses among.
            most: Trials of the study, of all processes and those before an interruption; no limit by default.
            allowed: Whether an interrupted choice may be tried again; all may by default.

        Raises:
            StudyError: Where the storage cannot be used.
        """
        from optuna.exceptions import UpdateFinishedTrialError

        from quickstudy.experience.sampler import NothingLeftError, ProposerSampler, give_up_gone, interrupt

        if most is not None:  # the sampler asks again, in its turn
            with plain_errors(self._where):
                give_up_gone(self.study)
            if len(counted(self.history())) >= most:
                return None
        began = list[int]()

        def begin(trial_id: int) -> None:
            began.append(trial_id)
            self._pulse.begin(trial_id)

        self.study.sampler = sampler = ProposerSampler(
            proposer, task, space, self.parameters, seed=self.seed, most=most, allowed=allowed, began=begin
        )
        with plain_errors(self._where), quiet():
            trial = None
            while trial is None:
                try:
                    trial = self.study.ask(dict(self.parameters.distributions))
                    began.pop()
                except UpdateFinishedTrialError:
                    _log.info("A trial took so long to choose that it was given up; another takes its place.")
                except NothingLeftError:
                    return None
                finally:
                    while began:
                        trial_id = began.pop()
                        self._pulse.end(trial_id)
                        interrupt(self.study, trial_id)
        self._open[trial.number], self._reports[trial.number] = trial, {}
        return Ticket(trial.number, self.parameters.decode(trial.params), sampler.attempt)

    def settle(self, key: str, value: object) -> object:
        """What all processes of a study keep to, a plain value: the one it has, or else this one.

        Where two make the study at the same moment, both have the later one's as soon as they ask again.
        """
        with plain_errors(self._where), quiet():
            if key not in self.study.user_attrs:
                self.study.set_user_attr(key, value)
            return self.study.user_attrs[key]

    def report(self, number: int, step: int, value: float) -> None:
        """Writes down a value on the way, at a fidelity that `step` counts."""
        from optuna.exceptions import UpdateFinishedTrialError

        trial = self._trial(number)
        self._reports[number][step] = value
        with plain_errors(self._where), quiet(), suppress(UpdateFinishedTrialError):  # given up: `_end` adds them
            trial.report(value, step)

    def finish(
        self, number: int, value: float, *, seconds: float = 0.0, attributes: Mapping[str, object] | None = None
    ) -> None:
        """Ends a trial with its value; one whose value is not finite has failed.

        Args:
            number: Of the ticket.
            value: The larger, the better.
            seconds: What it took.
            attributes: What else to write down, in plain values.
        """
        if not math.isfinite(value):
            self.fail(number, f"its value is {value}", seconds=seconds, attributes=attributes)
        else:
            self._end(number, "COMPLETE", float(value), {SECONDS: seconds, **(attributes or {})})

    def stop(self, number: int, *, seconds: float = 0.0, attributes: Mapping[str, object] | None = None) -> None:
        """Ends a trial early, for others promise more. It keeps its reports and has no value."""
        self._end(number, "PRUNED", None, {SECONDS: seconds, **(attributes or {})})

    def fail(
        self, number: int, why: str, *, seconds: float = 0.0, attributes: Mapping[str, object] | None = None
    ) -> None:
        """Ends a trial that has no value and will not be tried again."""
        self._end(number, "FAIL", None, {SECONDS: seconds, **(attributes or {}), FAILED: why})

    def interrupt(self, number: int) -> None:
        """Ends a trial that says nothing of its choice; `next` gives that out again, three times at most."""
        from quickstudy.experience.sampler import interrupt

        trial = self._trial(number)
        with plain_errors(self._where):
            interrupt(self.study, trial._trial_id)
        self._pulse.end(trial._trial_id)
        del self._open[number], self._reports[number]

    def trials(self) -> list[Trial[C]]:
        """All that ended, in order, failures too."""
        return [entry.trial for entry in counted(self.history()) if entry.state != "running"]

    def history(self) -> list[Entry[C]]:
        """All that the study holds of every trial, in order."""
        with plain_errors(self._where):
            return entries(self.study.get_trials(deepcopy=False), self.parameters)

    def close(self) -> None:
        """Interrupts what is still open, and closes the connections of a storage that `open` made."""
        from quickstudy.experience.sampler import interrupt

        with plain_errors(self._where):
            while self._open:
                number, trial = self._open.popitem()
                interrupt(self.study, trial._trial_id)
                _log.info("Trial %d is interrupted; it will be tried again.", number)
            self._pulse.stop()
            if self._disconnects:
                disconnect(self._base)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _trial(self, number: int) -> "optuna.Trial":
        if number not in self._open:
            raise StudyError(f"trial {number} is not open here; open are {sorted(self._open) or 'none'}.")
        return self._open[number]

    def _end(self, number: int, state: str, value: float | None, attributes: Mapping[str, object]) -> None:
        import optuna
        from optuna.exceptions import UpdateFinishedTrialError

        trial = self._trial(number)
        with plain_errors(self._where), quiet():
            try:
                for key, item in attributes.items():
                    trial.set_user_attr(key, item)
                self.study.tell(trial, value, state=optuna.trial.TrialState[state])
            except (UpdateFinishedTrialError, ValueError):
                if self.study.get_trials(deepcopy=False)[number].state == optuna.trial.TrialState.RUNNING:
                    raise
                _log.warning("Trial %d was silent for so long that it was given up; its outcome is added.", number)
                self.study.add_trial(
                    optuna.create_trial(
                        state=optuna.trial.TrialState[state],
                        value=value,
                        params=trial.params,
                        distributions=trial.distributions,
                        user_attrs=dict(attributes),
                        intermediate_values=self._reports[number],
                    )
                )
        self._pulse.end(trial._trial_id)
        del self._open[number], self._reports[number]


class Pulse:
    """Heartbeats of open trials, where their storage keeps them."""

    def __init__(self, storage: "BaseStorage") -> None:
        interval = getattr(storage, "get_heartbeat_interval", lambda: None)()
        self.storage: Any = storage
        self.interval: int | None = interval
        self._trials, self._over = set[int](), threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, trial_id: int) -> None:
        """Gives a trial its first heartbeat, and all that follow."""
        if self.interval is None:
            return
        self.storage.record_heartbeat(trial_id)
        self._trials.add(trial_id)
        if self._thread is None:
            self._over.clear()
            self._thread = threading.Thread(target=self._beat, name="quickstudy heartbeat", daemon=True)
            self._thread.start()

    def end(self, trial_id: int) -> None:
        """Lets a trial's heart stop."""
        self._trials.discard(trial_id)

    def stop(self) -> None:
        """Ends all."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _beat(self) -> None:
        while not self._over.wait(self.interval):
            for trial_id in list(self._trials):
                try:
                    self.storage.record_heartbeat(trial_id)
                except Exception as error:  # the next may get through
                    _log.warning("No heartbeat could be written: %s", error)
        self.storage.remove_session()
