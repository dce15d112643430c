"""What a study holds of each trial, and what of that counts."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Literal, TypeVar, cast

from quickstudy.experience.parameters import Parameters
from quickstudy.experience.trial import Trial

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

C = TypeVar("C")
State = Literal["running", "finished", "stopped", "failed", "interrupted"]
STATES: Mapping[str, State] = {
    "WAITING": "running",
    "RUNNING": "running",
    "COMPLETE": "finished",
    "PRUNED": "stopped",
    "FAIL": "failed",
}
"""Optuna's names, and ours."""
FAILED, SECONDS = "failed", "seconds"
"""Attributes of a trial: why it failed, which an interrupted one does not have, and what it took."""
ATTEMPTS = 3
"""How often a choice is tried whose trials are interrupted; then it counts as failed: it may be what kills them."""


@dataclass(frozen=True)
class Entry(Generic[C]):
    """All that a study holds of one trial."""

    number: int
    choice: C
    key: tuple[object, ...]
    """The values of its parameters: equal where choices are."""
    state: State
    """Stopped: given up early, for the others did better. Interrupted: its process is gone, so that it says nothing."""
    value: float | None
    seconds: float
    why: str | None
    """Why it failed."""
    reports: Mapping[int, float]
    """Values on the way, by step."""
    attributes: Mapping[str, object]
    """What else was written down."""

    @property
    def trial(self) -> Trial[C]:
        """What a proposer sees of it: no value unless it is finished."""
        return Trial(self.choice, self.value, self.seconds, pending=self.state == "running")


def entries(trials: "Iterable[FrozenTrial]", parameters: Parameters[C]) -> list[Entry[C]]:
    """Those trials that have chosen, in the order of their numbers."""
    found = list[Entry[C]]()
    for trial in sorted(trials, key=lambda trial: trial.number):
        if not has_chosen(trial, parameters):
            continue
        attributes = dict(trial.user_attrs)
        seconds, why = float(attributes.pop(SECONDS, 0.0)), attributes.pop(FAILED, None)
        state = STATES[trial.state.name]
        if state == "failed" and why is None:
            state = "interrupted"
        found.append(
            Entry(
                number=trial.number,
                choice=parameters.decode({name: trial.params[name] for name in parameters.distributions}),
                key=tuple(trial.params[name] for name in parameters.distributions),
                state=state,
                value=cast(float, trial.value) if state == "finished" else None,
                seconds=seconds,
                why=None if why is None else str(why),
                reports=dict(trial.intermediate_values),
                attributes=attributes,
            )
        )
    return found


def has_chosen(trial: "FrozenTrial", parameters: Parameters[C]) -> bool:
    """Whether all parameters of a trial are there."""
    return trial.params.keys() == parameters.distributions.keys()


def counted(found: Sequence[Entry[C]]) -> list[Entry[C]]:
    """All but interrupted ones; of a choice that was interrupted too often, the last, which counts as failed."""
    tried = {entry.key for entry in found if entry.state != "interrupted"}
    times, kept = Counter[tuple[object, ...]](), list[Entry[C]]()
    for entry in found:
        times[entry.key] += entry.state == "interrupted"
        if entry.state != "interrupted" or (entry.key not in tried and times[entry.key] == ATTEMPTS):
            kept.append(entry)
    return kept


def interrupted(found: Sequence[Entry[C]], allowed: Callable[[C], bool] | None = None) -> list[Entry[C]]:
    """One trial for each choice that waits to be tried again, the first first."""
    known, waiting = {entry.key for entry in counted(found)}, dict[tuple[object, ...], Entry[C]]()
    for entry in found:
        if entry.key not in known and (allowed is None or allowed(entry.choice)):
            waiting.setdefault(entry.key, entry)
    return list(waiting.values())
