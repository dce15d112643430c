"""From the values of a report to one self-contained page."""

from collections.abc import Callable, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from torch import Tensor

from quickstudy.errors import MissingExtraError
from quickstudy.quantities import plural
from quickstudy.report.plots import Bar, Dot, Point, bars, columns, dots, line
from quickstudy.report.png import data_url
from quickstudy.report.search_plots import curve, history, pareto
from quickstudy.report.search_summary import Attempt, SearchReport
from quickstudy.report.summary import (
    AdaptReport,
    DemoReport,
    Predictions,
    Score,
    StepCurve,
    TaskShown,
    TrainingCurve,
    confused_pairs,
    short_name,
)

if TYPE_CHECKING:
    from jinja2 import Environment

_SUPPORT_SHOWN, _SUPPORT_SHOWN_OF_MANY = 10, 3  # pictures a class, of up to a dozen classes and of more
_CLASSES_SHOWN = 60
_CLASSES_COUNTED = 12  # bars
_CONFUSION_SHOWN = 12  # classes; of more, only the mistakes are listed
_PAIRS_SHOWN = 12
_SHORT = 2  # letters of a class name that fits above a column
_EXAMPLES_SHOWN = 24  # classes


def render(report: DemoReport | AdaptReport | SearchReport) -> str:
    """A report as one HTML page, which asks for no other file: pictures, plots and style are inside it.

    Args:
        report: The values. File and class names may hold anything; they are escaped.

    Raises:
        MissingExtraError: Where Jinja2 is not installed.

    Example:
        >>> from quickstudy.report import DemoReport, Score, render
        >>> score = Score("maml, trained live", "5-way 1-shot", 94.2, 0.4, n=600)
        >>> page = render(DemoReport("MAML", score.method, 60.0, "1,900 characters", "300 others", (score,), {}))
        >>> "94.2" in page
        True
    """
    environment = _environment()
    if isinstance(report, DemoReport):
        return environment.get_template("demo.html").render(_demo(report))
    if isinstance(report, SearchReport):
        return environment.get_template("search.html").render(_search(report))
    return environment.get_template("adapt.html").render(_adapt(report))


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them.

    Example:
        >>> from quickstudy.report.html import duration
        >>> duration(0.0042), duration(2.34), duration(62.4), duration(200)
        ('4.2 ms', '2.3 s', '62 s', '3 min 20 s')
    """
    if seconds < 0.9995:
        return f"{seconds * 1000:.{1 if seconds < 0.00995 else 0}f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{round(seconds)} s" if seconds < 119.5 else f"{minutes} min {rest} s" if rest else f"{minutes} min"


def in_words(seconds: float) -> str:
    """The same for a headline.

    Example:
        >>> from quickstudy.report.html import in_words
        >>> in_words(61.4), in_words(120), in_words(200)
        ('61 seconds', '2 minutes', '3 minutes and 20 seconds')
    """
    minutes, rest = divmod(round(seconds), 60)
    if seconds < 119.5:
        return plural(max(1, round(seconds)), "second")
    return plural(minutes, "minute") + (f" and {plural(rest, 'second')}" if rest else "")


def _environment() -> "Environment":
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise MissingExtraError("reports need Jinja2: pip install 'quickstudy[report]'.") from error
    environment = Environment(
        loader=PackageLoader("quickstudy.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        duration=duration, in_words=in_words, picture=data_url, short_name=short_name, amount=amount
    )
    environment.globals.update(plural=plural)
    return environment


def _demo(report: DemoReport) -> dict[str, Any]:
    return {
        "report": report,
        "table": _table(report.scores),
        "dot_plots": [
            {"setting": setting, "svg": _dots(report.scores, setting, report.live, report.chance.get(setting))}
            for setting in _settings(report.scores)
        ],
        "curve_plot": report.curve and _curve(report.curve),
        "step_plot": report.steps and _steps(report.steps),
        "classes": report.task and _task(report.task),
        "act": report.search and _act(report.search),
    }


def _act(report: SearchReport) -> dict[str, Any]:
    """The second act: what the report of a search holds, and the limits and what nearest neighbour keeps in words."""
    limited = [
        f"{amount(cost.limit, cost.unit)}{' of' if cost.unit else ''} {cost.name}"
        for cost in report.costs
        if cost.limit is not None
    ]
    by_neighbour = next((score for score in report.baselines if score.method == "nearest neighbour"), None)
    return {
        **_search(report),
        "limits": " and ".join(limited),
        "neighbour": by_neighbour,
        "numbers": sum(report.counts) * prod(report.shape),
    }


def _adapt(report: AdaptReport) -> dict[str, Any]:
    found, check = report.predictions, report.check
    per_class = [report.support_labels.count(label) for label in range(len(report.class_names))]
    return {
        "report": report,
        "expected": check and check.expected,
        "each": _range(per_class),
        "table": check and _table(check.scores),
        "check_plot": check and check.scores and _dots(check.scores, check.scores[0].setting, check.used, None),
        "confusion": check and _confusion(check.confusion, report.class_names),
        "support": _by_class(report.support, report.support_labels, report.class_names)[:_CLASSES_SHOWN],
        "count_plot": found and found.files and _counts(report),
        "rest": sum(sorted(report.counts, reverse=True)[_CLASSES_COUNTED:]),
        "other_classes": max(0, len(report.class_names) - _CLASSES_COUNTED),
        "cards": _cards(found, report) if found else [],
        "m": len(found.files) if found else 0,
    }


def _search(report: SearchReport) -> dict[str, Any]:
    scores = [*([report.test] if report.test else []), *report.baselines]
    limited = [cost for cost in report.costs if cost.limit is not None]
    beyond = [cost.name for cost in limited if cost.limit is not None and cost.found > cost.limit]
    return {
        "report": report,
        "kind": "series" if len(report.shape) == 2 else "pictures",
        # Inside a page SVG needs no namespace, which would be the only address on it.
        "drawing": report.drawing.replace(' xmlns="http://www.w3.org/2000/svg"', ""),
        "kept": (f"It is beyond the limit of {' and '.join(beyond)}." if beyond else "It keeps to every limit.")
        if limited
        else "No limit was set.",
        "each": _range(report.counts),
        "classes": _examples(report),
        "ours": report.test.method if report.test else "",
        "dots": _dots(scores, scores[0].setting, report.test.method if report.test else "", None)
        if report.baselines
        else None,
        "table": _table(scores) if report.baselines else None,
        "history": history(report.attempts, chosen=report.chosen) if report.attempts else None,
        "partly": any(attempt.share < 1 for attempt in report.attempts),
        "fronts": _fronts(report),
        "confusion": _confusion(report.confusion, report.class_names),
        "class_plot": _per_class(report),
        "classes_tested": len(report.per_class),
        "shown": min(_CLASSES_COUNTED, len(report.per_class)),
    }


def _fronts(report: SearchReport) -> list[tuple[str, str]]:
    """Accuracy against what was limited or can be: parameters, and latency where it was measured."""
    limits = {cost.name: cost.limit for cost in report.costs}
    costs: list[tuple[str, str, Callable[[Attempt], float | None]]] = [
        ("parameters", "parameters", lambda attempt: attempt.parameters),
        ("latency", "milliseconds for one example", lambda attempt: attempt.latency),
    ]
    return [
        (name, pareto(report.attempts, cost, x_label=label, limit=limits.get(name), chosen=report.chosen))
        for name, label, cost in costs
        if any(cost(attempt) is not None and attempt.accuracy is not None for attempt in report.attempts)
    ]


def _examples(report: SearchReport) -> list[dict[str, Any]]:
    """The first classes, each with its name, its number of examples and one of them."""
    found = []
    for i, (name, count) in enumerate(zip(report.class_names[:_EXAMPLES_SHOWN], report.counts)):
        one = None if report.examples is None else report.examples[i]
        pictured = one is not None and one.dim() == 3
        found.append(
            {
                "name": name,
                "count": count,
                "picture": one if pictured else None,
                "curve": curve(one) if one is not None and not pictured else None,
            }
        )
    return found


def _per_class(report: SearchReport) -> str | None:
    """Right answers of each class, of many classes those that went worst."""
    found = report.per_class
    if len(found) > _CLASSES_COUNTED:
        found = tuple(sorted(found, key=lambda row: row[1] / row[2])[:_CLASSES_COUNTED])
    rows = [Bar(shortened(name), 100 * right / n, f"{right} of {n}") for name, right, n in found]
    return bars(rows, title="Test examples that were named rightly", high=100.0) if rows else None


def _range(counts: Sequence[int]) -> str:
    return str(counts[0]) if len(set(counts)) == 1 else f"{min(counts)} to {max(counts)}"


def shortened(name: str, letters: int = 32) -> str:
    """A name that fits beside a figure.

    Example:
        >>> from quickstudy.report.html import shortened
        >>> shortened("otter"), shortened("a very long name of a class", 12)
        ('otter', 'a very long…')
    """
    return name if len(name) <= letters else name[: letters - 1].rstrip() + "…"


def amount(value: float, unit: str = "") -> str:
    """A cost with its unit.

    Example:
        >>> from quickstudy.report.html import amount
        >>> amount(12345), amount(50176, "bytes"), amount(0.4213, "ms"), amount(2, "ms")
        ('12,345', '50,176 bytes', '0.421 ms', '2 ms')
    """
    figure = f"{value:,.0f}" if float(value).is_integer() else f"{value:,.3g}"
    return f"{figure} {unit}".rstrip()


def _settings(scores: Sequence[Score]) -> list[str]:
    return list(dict.fromkeys(score.setting for score in scores))


def _table(scores: Sequence[Score]) -> dict[str, Any]:
    """Rows of methods, columns of settings; `n` once where it is the same everywhere."""
    cells = {(score.method, score.setting): score for score in scores}
    settings = _settings(scores)
    methods = list(dict.fromkeys(score.method for score in scores))
    counts = {score.n for score in scores}
    return {
        "settings": settings,
        "rows": [{"method": m, "cells": [cells.get((m, setting)) for setting in settings]} for m in methods],
        "n": counts.pop() if len(counts) == 1 else None,
        "timed": any(score.seconds is not None for score in scores),
    }


def _dots(scores: Sequence[Score], setting: str, ours: str, chance: float | None) -> str:
    rows = [Dot(s.method, s.mean, strong=s.method == ours, ends=s.ends) for s in scores if s.setting == setting]
    return dots(rows, chance=chance, title=f"Accuracy, {setting}")


def _curve(curve: TrainingCurve) -> str:
    found = curve.validations
    points = [Point(v.seconds, v.mean, v.ci95) for v in found]
    best = max(range(len(found)), key=lambda i: found[i].score, default=None)
    rate = found[-1].step / max(found[-1].seconds, 1e-9) if found else 0.0
    return line(
        points,
        x_label="seconds of meta-training, and steps",
        low=_floor(points, curve.chance),
        chance=curve.chance,
        beneath=lambda seconds: f"{_round(seconds * rate):,}",
        marked=best,
        title=f"Validation accuracy, {curve.setting}",
    )


def _steps(curve: StepCurve) -> str:
    points = [Point(step, mean, ci95) for step, mean, ci95 in curve.points]
    return line(
        points,
        x_label="adaptation steps",
        low=_floor(points, curve.chance),
        chance=curve.chance,
        title=f"Accuracy, {curve.setting}",
    )


def _floor(points: Sequence[Point], chance: float | None) -> float:
    """The lower end of an axis of accuracies: a multiple of 20 below all that is drawn."""
    lowest = min([point.mean - point.ci95 for point in points] + ([] if chance is None else [chance]), default=0.0)
    return max(0.0, 20.0 * (lowest // 20.0) if lowest % 20 else lowest - 20.0)


def _round(value: float) -> int:
    """To two significant digits, for steps that are read off a rate."""
    return int(float(f"{value:.2g}"))


def _task(task: TaskShown) -> list[dict[str, Any]]:
    """For each class its support pictures and its queries, with what was answered."""
    groups = _by_class(task.support, task.support_labels, task.class_names)
    for i, (truth, answer) in enumerate(zip(task.query_labels, task.predicted)):
        probabilities = task.probabilities[i].tolist()
        groups[truth]["queries"].append(
            {
                "picture": task.query[i],
                "right": truth == answer,
                "number": answer + 1,
                "name": task.class_names[answer],
                "probability": 100 * probabilities[answer],
                "columns": columns(probabilities, chosen=answer, truth=truth, width=48.0),
            }
        )
    return groups


def _by_class(pictures: Tensor, labels: Sequence[int], names: Sequence[str]) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = []
    at_most = _SUPPORT_SHOWN if len(names) <= 12 else _SUPPORT_SHOWN_OF_MANY
    for k, name in enumerate(names):
        own = [i for i, label in enumerate(labels) if label == k]
        shown = [pictures[i] for i in own[:at_most]]
        groups.append({"number": k + 1, "name": name, "pictures": shown, "n": len(own), "queries": []})
    return groups


def _confusion(counts: Tensor | None, names: Sequence[str]) -> dict[str, Any] | None:
    if counts is None or not int(counts.sum()):
        return None
    shares = counts / counts.sum(1, keepdim=True).clamp_min(1)
    pairs = confused_pairs(counts)
    small = len(names) <= _CONFUSION_SHOWN
    return {
        "rows": [
            {
                "name": name,
                "cells": [
                    {"count": int(counts[a, b]), "shade": round(100 * float(shares[a, b])), "right": a == b}
                    for b in range(len(names))
                ],
            }
            for a, name in enumerate(names)
        ]
        if small
        else [],
        "pairs": [(names[a], names[b], n) for a, b, n in pairs[:_PAIRS_SHOWN]],
        "more": max(0, len(pairs) - _PAIRS_SHOWN),
        "n": int(counts.sum()),
        "short": all(len(name) <= _SHORT for name in names),
    }


def _counts(report: AdaptReport) -> str:
    rows = [Bar(name, count) for name, count in zip(report.class_names, report.counts)]
    if len(rows) > _CLASSES_COUNTED:
        rows = sorted(rows, key=lambda row: -row.value)[:_CLASSES_COUNTED]
    if report.unknown:
        rows.append(Bar("none of these", report.unknown))
    return bars(rows, title="Answers by class")


def _cards(found: Predictions, report: AdaptReport) -> list[dict[str, Any]]:
    """The first predictions, as many as are shown."""

    def name(label: int | None) -> str | None:
        return None if label is None else report.class_names[label]

    return [
        {
            "file": found.files[i],
            "picture": found.pictures[i],
            "label": name(found.labels[i]),
            "closest": None if found.closest is None else name(found.closest[i]),
            "probability": 100 * float(found.probabilities[i]),
        }
        for i in found.order[: report.at_most]
    ]
