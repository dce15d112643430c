"""Writes benchmarks/results/NAME.json, row by row as they are measured."""

import json
import math
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
KEY = ("method", "setting", "metric", "seed", "source")
"""What tells rows apart."""


class Result:
    """The rows of one benchmark, of this run and of earlier ones.

    Rows are read again before each is added, and the file is replaced as a whole: it is complete at any moment, and
    two units of a benchmark may run side by side.

    Args:
        name: Of the benchmark, and of its file.
        description: What was measured, in a sentence or two.
        settings: What all its rows have in common.
        packages: Further packages whose versions matter, besides torch and numpy.
        folder: Where the file lies.

    Raises:
        ValueError: Where the file holds rows of other settings.
    """

    def __init__(
        self,
        name: str,
        *,
        description: str = "",
        settings: dict[str, Any] | None = None,
        packages: tuple[str, ...] = (),
        folder: Path = HERE / "results",
    ) -> None:
        self.path = folder / f"{name}.json"
        earlier = self._read()
        known: dict[str, Any] = earlier.get("settings", {})
        settings = json.loads(json.dumps(settings or {}))  # as they will be read again
        for key in known.keys() & settings.keys() if earlier.get("rows") else ():
            if known[key] != settings[key]:
                raise ValueError(
                    f"{self.path.name} holds rows measured with {key} = {known[key]!r}; this run has "
                    f"{settings[key]!r}. Move the file elsewhere, or write to another folder."
                )
        self.header: dict[str, Any] = {
            "benchmark": name,
            "description": description,
            "commit": commit(),
            "date": datetime.now(UTC).date().isoformat(),
            "machine": machine(),
            "versions": versions("torch", "numpy", *packages),
            "settings": {**known, **settings},
        }

    @property
    def rows(self) -> list[dict[str, Any]]:
        """All rows so far."""
        rows: list[dict[str, Any]] = self._read().get("rows", [])
        return rows

    def has(
        self, method: str, setting: str, metric: str, *, seed: int | None = None, source: str | None = None
    ) -> bool:
        """Whether there is such a row."""
        return (method, setting, metric, seed, source) in map(key_of, self.rows)

    def add(
        self,
        method: str,
        setting: str,
        metric: str,
        value: float | None,
        *,
        ci95: float | None = None,
        n: int | None = None,
        seconds: float | None = None,
        seed: int | None = None,
        source: str | None = None,
        **more: Any,
    ) -> None:
        """Writes a row, in place of the one with the same method, setting, metric, seed and source.

        Args:
            method: `quickstudy`, or the name of a method.
            setting: A short phrase: "5-way 1-shot".
            metric: The quantity with its unit: "accuracy %".
            value: None where it could not be measured.
            ci95: Half the width of its 95 % interval.
            n: Over how many tasks or repetitions.
            seconds: What it took.
            seed: Of the training, where there are several.
            source: Of a published figure.
            more: Further facts of this row.
        """
        row = {"method": method, "setting": setting, "metric": metric, "value": finite(value), "ci95": finite(ci95)}
        row |= {"n": n, "seconds": None if seconds is None else round(seconds, 3), "seed": seed, "source": source}
        if value is not None and row["value"] is None:
            row["why"] = NOT_FINITE
        row |= more if source is not None else {"commit": self.header["commit"], "cpu": cpu(), **more}
        for optional in ("seed", "source"):
            if row[optional] is None:
                del row[optional]
        rows = self.rows
        places = [i for i, other in enumerate(rows) if key_of(other) == key_of(row)]
        if places:
            rows[places[0]] = row
        else:
            rows.append(row)
        self._write({**self.header, "rows": rows})

    def _read(self) -> dict[str, Any]:
        if not self.path.exists():
            return {}
        content: dict[str, Any] = json.loads(self.path.read_text("utf-8"))
        return content

    def _write(self, content: dict[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        rows = ",\n  ".join(json.dumps(row, ensure_ascii=False) for row in content["rows"])  # a line each, for diffs
        head = json.dumps({**content, "rows": []}, ensure_ascii=False, indent=1)
        partial = self.path.with_suffix(f".{os.getpid()}.tmp")
        partial.write_text(head.removesuffix("[]\n}") + f"[\n  {rows}\n ]\n}}\n", "utf-8")
        partial.replace(self.path)


def key_of(row: dict[str, Any]) -> tuple[Any, ...]:
    """What tells a row from others."""
    return tuple(row.get(name) for name in KEY)


NOT_FINITE = "not finite"
"""Why a row that was measured has no value."""


def finite(value: float | None) -> float | None:
    """The number, or None for what JSON has no word for."""
    return None if value is None or not math.isfinite(value) else float(value)


def commit() -> str:
    """The commit of the working tree; with a plus where tracked files of the package differ from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(HERE), *arguments], capture_output=True, text=True, check=True).stdout

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "../src")
        return git("rev-parse", "--short", "HEAD").strip() + ("+" if changed.strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def machine() -> dict[str, str | int]:
    """Processor, cores, memory and operating system: nothing that names this machine."""
    found: dict[str, str | int] = {"cpu": cpu(), "cores": cores()}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found["memory"] = f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GiB"
    found["os"] = f"{platform.system()} {platform.machine()}"
    try:
        import torch

        if torch.cuda.is_available():
            found["gpu"] = torch.cuda.get_device_name()
    except ImportError:
        pass
    return found


def cpu() -> str:
    """The processor's model."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def versions(*packages: str) -> dict[str, str]:
    """Of Python and of the packages that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
