"""What a search across tasks writes: every figure as JSON, and a table of what was compared as CSV."""

import csv
import io
import json
from dataclasses import asdict
from pathlib import Path

from quickstudy.artefacts import write_together
from quickstudy.nas.across import AcrossResult, Compared, worst, worst_interval

JSON, CSV = "across.json", "across.csv"


def figures(one: Compared) -> dict[str, float | int | str | None]:
    """An architecture with its costs and what became of it, as plain values."""
    found: dict[str, float | int | str | None] = {"architecture": str(one.architecture), **asdict(one.cost)}
    found["latency ms"] = round(one.latency, 4)
    for place, of in (("source", one.source), ("test", one.test)):
        low, high = (None, None) if of is None else worst_interval(of.values)
        found |= {
            f"{place} tasks": None if of is None else of.n,
            f"{place} mean %": None if of is None else of.mean,
            f"{place} mean ci95": None if of is None else of.ci95,
            f"{place} worst decile %": None if of is None else worst(of.values),
            f"{place} worst decile low": low,
            f"{place} worst decile high": high,
        }
    return found


def save_across(folder: Path, result: AcrossResult) -> None:
    """Writes `across.json`, with the accuracy on each task, and `across.csv`, a row for each that was compared."""
    best_mean, best_worst = result.best_mean.architecture, result.best_worst.architecture
    rows = []
    for one in result.compared:
        chosen = [name for name, of in (("mean", best_mean), ("worst decile", best_worst)) if of == one.architecture]
        rows.append({"best": " and ".join(chosen), **figures(one)})
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    written = {
        "best mean": str(best_mean),
        "best worst decile": str(best_worst),
        "compared": [
            {
                **row,
                "source accuracies %": one.source.values.tolist(),
                "test accuracies %": None if one.test is None else one.test.values.tolist(),
            }
            for row, one in zip(rows, result.compared)
        ],
        "nearest neighbour": {
            "test mean %": result.neighbour.mean,
            "test mean ci95": result.neighbour.ci95,
            "test worst decile %": worst(result.neighbour.values),
        },
        "limits": asdict(result.limits),
        "settings": {**result.settings, "shape": list(result.space.shape)},
        "seconds": round(result.seconds, 1),
        "tried": [
            {"architecture": str(one.architecture), "accuracy %": one.value, "failure": one.why} for one in result.tried
        ],
    }
    told = json.dumps(written, indent=1, ensure_ascii=False) + "\n"
    write_together({folder / JSON: told.encode(), folder / CSV: text.getvalue().encode()})
