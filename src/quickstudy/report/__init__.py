"""Reports: values in, one self-contained page out. Nothing is decided here."""

from quickstudy.report.html import render
from quickstudy.report.summary import (
    AdaptReport,
    DemoReport,
    Predictions,
    Score,
    SelfCheck,
    StepCurve,
    TaskShown,
    TrainingCurve,
)

__all__ = [
    "AdaptReport",
    "DemoReport",
    "Predictions",
    "Score",
    "SelfCheck",
    "StepCurve",
    "TaskShown",
    "TrainingCurve",
    "render",
]
