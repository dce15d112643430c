"""Reports: values in, one self-contained page out. Nothing is decided here."""

from quickstudy.report.html import render
from quickstudy.report.search_summary import Attempt, Cost, SearchReport, one_of_each
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
    "Attempt",
    "Cost",
    "DemoReport",
    "Predictions",
    "Score",
    "SearchReport",
    "SelfCheck",
    "StepCurve",
    "TaskShown",
    "TrainingCurve",
    "one_of_each",
    "render",
]
