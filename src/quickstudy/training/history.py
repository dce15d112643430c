"""How a meta-training run has gone."""

import math
from dataclasses import dataclass, field
from typing import Any

from quickstudy.training.evaluate import Evaluation

WINDOW = 50


@dataclass(frozen=True)
class Validation:
    """One validation of a run."""

    step: int
    seconds: float
    """Of training until then, validations not counted."""
    metric: str
    mean: float
    ci95: float

    @property
    def score(self) -> float:
        """The mean, signed so that more is better."""
        return self.mean if self.metric == "accuracy %" else -self.mean


@dataclass
class History:
    """A run so far."""

    step: int = 0
    """Outer steps done."""
    seconds: float = 0.0
    """Spent in them."""
    losses: list[float] = field(default_factory=list)
    """The mean loss of each `WINDOW` steps that are complete."""
    validations: list[Validation] = field(default_factory=list)
    best: Validation | None = None
    """The best of them, whose weights the learner has in the end."""
    lr: list[float] = field(default_factory=list)
    """Outer rates of the groups of parameters, before a schedule lowers them."""
    clip: float | None = None
    """Largest norm of the outer gradient."""
    changes: list[str] = field(default_factory=list)
    """What was changed when it was resumed, such as "lr was [0.1] until step 120"."""
    _window: list[float] = field(default_factory=list)

    def is_over(self, steps: int, seconds: float) -> bool:
        """Whether a run of so many steps and seconds is done."""
        return self.step >= steps or self.seconds >= seconds

    def add_step(self, loss: float, seconds: float) -> None:
        self.step += 1
        self.seconds += seconds
        self._window.append(loss)
        if len(self._window) == WINDOW:
            self.losses.append(sum(self._window) / WINDOW)
            self._window.clear()

    def add_validation(self, found: Evaluation) -> bool:
        """Records a validation, and says whether it is the best."""
        return self._note(Validation(self.step, self.seconds, found.metric, found.mean, found.ci95))

    def _note(self, validation: Validation) -> bool:
        self.validations.append(validation)
        if self.best is None or math.isnan(self.best.score) or validation.score > self.best.score:
            self.best = validation
            return True
        return False

    @property
    def recent_loss(self) -> float:
        """The mean loss of the last steps, at most `WINDOW`."""
        if self._window:
            return sum(self._window) / len(self._window)
        return self.losses[-1] if self.losses else math.nan

    def to_settings(self) -> dict[str, Any]:
        """Plain values, for a checkpoint or a report."""
        return {
            "step": self.step,
            "seconds": self.seconds,
            "losses": list(self.losses),
            "window": list(self._window),
            "validations": [vars(v) for v in self.validations],
            "changes": list(self.changes),
        }

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> "History":
        """The run that gave these."""
        found = cls(settings["step"], settings["seconds"], settings["losses"], _window=settings["window"])
        found.changes = settings.get("changes", [])
        for values in settings["validations"]:
            found._note(Validation(**values))
        return found


@dataclass(frozen=True)
class Progress:
    """What a watcher of a run sees after a step."""

    history: History
    steps: int
    """Outer steps of the whole run."""
    limit: float
    """Seconds of the whole run; infinite where there is no limit."""

    @property
    def fraction(self) -> float:
        """Of the run that is done, in [0, 1]."""
        return min(1.0, max(self.history.step / self.steps, self.history.seconds / self.limit))

    @property
    def rate(self) -> float:
        """Outer steps a second."""
        return self.history.step / max(self.history.seconds, 1e-9)

    @property
    def seconds_left(self) -> float:
        """Of training, validations not counted."""
        by_steps = (self.steps - self.history.step) / max(self.rate, 1e-9)
        return max(0.0, min(by_steps, self.limit - self.history.seconds))
