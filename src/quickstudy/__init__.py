"""quickstudy learns from tasks already solved, so that the next one takes seconds."""

from quickstudy.tasks.episodes import Episodes, LabelledSet, Mixture
from quickstudy.tasks.task import Examples, Task, TaskSource

__all__ = ["Episodes", "Examples", "LabelledSet", "Mixture", "Task", "TaskSource"]
__version__ = "0.1.0"
