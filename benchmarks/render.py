"""Makes the tables of benchmarks/RESULTS.md and of the README from benchmarks/results/*.json.

    python benchmarks/render.py            writes them
    python benchmarks/render.py --check    writes nothing, and exits with 1 where one is out of date

A benchmark is one file: what was measured, when, on what, with which settings, and its rows. A row is one value of one
metric, of one method in one setting. Rows with a `source` are quoted from a paper and get tables of their own. In the
README, what stands between these lines is replaced by the tables of NAME, by those of one of its metrics, or by those
of settings that begin so:

    <!-- results: NAME -->     or     <!-- results: NAME, METRIC -->     or     <!-- results: NAME, METRIC, SETTING -->
    <!-- end results -->
"""

import argparse
import json
import math
import re
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

LOWER_IS_BETTER = ("second", "error", "loss", "regret", "memory", "bytes", "mib", "gib", "perplexity", "rank")
HIGHER_IS_BETTER = ("accuracy", "rate", "speed", "auc", "likelihood", "correlation", "score", "per second")
NOT_COMPETING = ("floor", "rank_transfer_whole_table")
"""Methods that are bounds or know what the others do not, and therefore are never the best."""
NOT_MEASURED = "not measured"
WIDEST = 8
"""Columns of a table; where there are more, those of `cifar10, 5 trials` and the like are shown apart by their head."""
FACTS = ("description", "date", "machine", "commit", "versions", "settings")
BLOCK = re.compile(
    r"(?P<head><!-- results: (?P<name>[^,]+?)(?:, (?P<metric>[^,]+?)(?:, (?P<setting>.+?))?)? -->\n)"
    r".*?(?P<end><!-- end results -->)",
    re.DOTALL,
)


class MalformedError(Exception):
    """A file of results that cannot be read as one."""


@dataclass(frozen=True)
class Row:
    """One value."""

    method: str
    setting: str
    metric: str
    value: float | None
    """None where it was not measured, or not finite."""
    ci95: float | None = None
    n: int | None = None
    seed: int | None = None
    source: str | None = None
    """Of a published figure; None where it was measured here."""
    why: str | None = None
    """Why there is no value, where one was measured."""
    cpu: str | None = None
    """The processor that measured it."""


@dataclass(frozen=True)
class Results:
    """One benchmark."""

    name: str
    facts: Mapping[str, Any]
    """Description, date, machine, versions, commit and settings, as far as the file has them."""
    rows: tuple[Row, ...]

    def metrics(self) -> list[str]:
        return unique(row.metric for row in self.rows)


def read(path: Path) -> Results:
    """Reads a file of results. Fields that are not known are left aside.

    Raises:
        MalformedError: Where it is not JSON, or a row lacks a field, or two rows are of the same thing.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise MalformedError(f"{path} is not JSON ({error}). Run its benchmark again, or restore the file.") from None
    if not isinstance(content, dict) or not isinstance(content.get("rows"), list):
        raise MalformedError(f'{path} has no list of "rows". Run its benchmark again, or move the file elsewhere.')
    rows = tuple(_row(path, i, row) for i, row in enumerate(content["rows"]))
    seen = set()
    for i, row in enumerate(rows):
        key = (row.method, row.setting, row.metric, row.seed, row.source)
        if key in seen:
            raise MalformedError(
                f"{path}: row {i} repeats {row.method!r}, {row.setting!r}, {row.metric!r}. "
                'Remove one of them, or tell them apart by "seed".'
            )
        seen.add(key)
    facts = {name: content[name] for name in FACTS if content.get(name) not in (None, "", {}, [])}
    return Results(path.stem, facts, rows)


def _row(path: Path, i: int, row: Any) -> Row:
    if not isinstance(row, dict):
        raise MalformedError(f"{path}: row {i} is {row!r}, not an object.")
    for name in ("method", "setting", "metric"):
        if not isinstance(row.get(name), str) or not row[name]:
            raise MalformedError(f'{path}: row {i} has "{name}": {row.get(name)!r}; it takes a short phrase.')
    for name in ("value", "ci95", "n", "seed"):
        value = row.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float, type(None))):
            raise MalformedError(f'{path}: row {i} has "{name}": {value!r}; it takes a number or null.')
    if "value" not in row:
        raise MalformedError(f'{path}: row {i} has no "value"; null says that it was not measured.')
    if not isinstance(row.get("source"), (str, type(None))):
        raise MalformedError(f'{path}: row {i} has "source": {row["source"]!r}; it takes a title or an address.')
    known: dict[str, Any] = {name: row.get(name) for name in Row.__dataclass_fields__}
    return Row(**{**known, "source": row.get("source") or None})


def section(results: Results) -> str:
    """A benchmark's part of RESULTS.md."""
    facts = dict(results.facts)
    description = facts.pop("description", None)
    lines = [f"## {results.name.replace('_', ' ').capitalize()}", ""]
    if description:
        lines += [str(description).strip(), ""]
    lines += [f"- {name}: {plain(value)}" for name, value in facts.items()]
    return "\n".join([*lines, "", *tables(results)]).rstrip() + "\n"


def tables(results: Results, metric: str | None = None, setting: str = "") -> list[str]:
    """The lines of all tables of a benchmark, or of those of one metric, or of settings that begin so."""
    if metric is not None and metric not in results.metrics():
        raise MalformedError(
            f"{results.name} has no metric {metric!r}. It has {', '.join(map(repr, results.metrics())) or 'none'}."
        )
    lines: list[str] = []
    for name in results.metrics() if metric is None else [metric]:
        rows = [row for row in results.rows if row.metric == name and row.setting.startswith(setting)]
        if not rows:
            raise MalformedError(f"{results.name} has no {name} in settings that begin with {setting!r}.")
        if measured := [row for row in rows if row.source is None]:
            for head, part in _parts(measured):
                lines += [f"**{name}**{head}", "", *_measured_table(part), ""]
            lines += _processors(measured)
        if published := [row for row in rows if row.source is not None]:
            lines += [f"**{name}**, published figures, not measured here", "", *_published_table(published), ""]
    return lines or ["*No rows yet.*", ""]


def _processors(rows: Sequence[Row]) -> list[str]:
    """Which settings, or else methods, each processor measured, where there were several: their times differ."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row.cpu is not None:
            found.setdefault(row.cpu, []).append(row)
    if len(found) < 2:
        return []
    settings = {cpu: unique(row.setting for row in own) for cpu, own in found.items()}
    methods = {
        cpu: [name.replace("_", " ") for name in unique(row.method for row in own)] for cpu, own in found.items()
    }
    alike = len(set(map(frozenset, settings.values()))) == 1
    each = [f"{cpu}: {'; '.join(names)}" for cpu, names in (methods if alike else settings).items()]
    return [f"Measured by {'. '.join(each)}.", ""]


def _parts(rows: Sequence[Row]) -> list[tuple[str, Sequence[Row]]]:
    """Tables that are not too wide, and what each adds to the title."""
    settings = unique(row.setting for row in rows)
    if len(settings) <= WIDEST or not all(", " in setting for setting in settings):
        return [("", rows)]
    parts: dict[str, list[Row]] = {}
    for row in rows:
        head, _, rest = row.setting.partition(", ")
        parts.setdefault(f", {head}", []).append(replace(row, setting=rest))
    return list(parts.items())


def _measured_table(rows: Sequence[Row]) -> list[str]:
    settings, methods = unique(row.setting for row in rows), unique(row.method for row in rows)
    cells = {(m, s): _Cell.of([r for r in rows if (r.method, r.setting) == (m, s)]) for m in methods for s in settings}
    competing = {s: [cells[m, s].value for m in methods if m not in NOT_COMPETING] for s in settings}
    best = {s: _best(values, rows[0].metric) for s, values in competing.items()}
    body = []
    for m in methods:
        texts = []
        for s in settings:
            text = cells[m, s].text or NOT_MEASURED
            competes = m not in NOT_COMPETING and sum(value is not None for value in competing[s]) > 1
            wins = competes and cells[m, s].value is not None and cells[m, s].value == best[s]
            texts.append(f"**{text}**" if wins else text)
        body.append([m.replace("_", " "), *texts])
    counts = sorted({row.n for row in rows if row.n is not None})
    notes = []
    if any(row.ci95 is not None for row in rows):
        over = f" over {' or '.join(f'{n:,}' for n in counts)}" if counts and len(counts) <= 3 else ""
        notes.append(f"± is the 95 % interval{over}.")
    if any(cell.seeds > 1 for cell in cells.values()):
        notes.append("Where a number of seeds is given, it is the mean over them and ± their standard deviation.")
    return [*grid(["method", *settings], body), *(["", " ".join(notes)] if notes else [])]


def _published_table(rows: Sequence[Row]) -> list[str]:
    settings = unique(row.setting for row in rows)
    body = []
    for method, source in unique((row.method, row.source or "") for row in rows):
        own = [row for row in rows if (row.method, row.source) == (method, source)]
        texts = [_Cell.of([row for row in own if row.setting == s]).text for s in settings]
        linked = f"<{source}>" if source.startswith(("http://", "https://")) else source
        body.append([method.replace("_", " "), *texts, linked])
    return grid(["method", *settings, "source"], body)


@dataclass(frozen=True)
class _Cell:
    value: float | None
    text: str
    seeds: int = 1

    @classmethod
    def of(cls, rows: Sequence[Row]) -> "_Cell":
        """What is shown of the rows of one method in one setting, which differ in their seeds."""
        if not rows:
            return cls(None, "")
        values = [row.value for row in rows if row.value is not None]
        if not values:
            return cls(None, next((row.why for row in rows if row.why), NOT_MEASURED))
        if not all(map(math.isfinite, values)):
            return cls(None, "not finite")
        metric, several = rows[0].metric, len(values) > 1
        value = statistics.fmean(values)
        spread = statistics.stdev(values) if several else next(row.ci95 for row in rows if row.value is not None)
        # A published figure has the digits that its paper gives.
        digits = None if rows[0].source is not None else decimals(value, metric)
        text = number(value, digits)
        if spread is not None:
            text += f" ± {number(spread, digits)}"
        return cls(value, text + (f" ({len(values)} seeds)" if several else ""), len(values))


def _best(values: Iterable[float | None], metric: str) -> float | None:
    direction = better(metric)
    known = [value for value in values if value is not None]
    return None if direction is None or not known else max(known) if direction == "higher" else min(known)


def better(metric: str) -> str | None:
    """Which of two values of a metric is the better one: "higher", "lower", or None where its name does not say."""
    name = metric.lower()
    if name.endswith("per second"):
        return "higher"
    if any(word in name for word in LOWER_IS_BETTER):
        return "lower"
    return "higher" if any(word in name for word in HIGHER_IS_BETTER) else None


def decimals(value: float, metric: str) -> int:
    """Two for percentages; else as many as show three significant digits, at most six."""
    if "%" in metric:
        return 2
    return 3 if value == 0 else min(6, max(0, 2 - math.floor(math.log10(abs(value)))))


def number(value: float, digits: int | None) -> str:
    """A number with so many decimals, or with those that it has."""
    return f"{value:,}" if digits is None else f"{value:,.{digits}f}"


def plain(value: Any) -> str:
    """A value of the settings in words."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {plain(item)}" for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return " / ".join(map(plain, value))
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return str(value).strip().replace("\n", " ")


def grid(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table; all columns but the first are set right."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return ["| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in (head, rule, *body)]


def unique(items: Iterable[Any]) -> list[Any]:
    """Each item once, in the order of first appearance."""
    return list(dict.fromkeys(items))


def render(root: Path) -> dict[Path, str]:
    """What RESULTS.md and the README should hold.

    Raises:
        MalformedError: Where a file of results cannot be read, or the README asks for what there is not.
    """
    found = {path.stem: read(path) for path in sorted((root / "benchmarks/results").glob("*.json"))}
    head = (
        "# Results\n\n"
        "Generated by `make results` from `benchmarks/results/*.json`; edit those benchmarks, not this page. The best "
        "measured value of a column is bold. Published figures have tables of their own, with their source.\n"
    )
    pages = {root / "benchmarks/RESULTS.md": "\n".join([head, *map(section, found.values())])}
    readme = root / "README.md"
    if readme.is_file():
        before = readme.read_text("utf-8")
        starts = len(re.findall(r"<!-- results: ", before))
        if starts != len(BLOCK.findall(before)) or starts != before.count("<!-- end results -->"):
            raise MalformedError(f"{readme} has a results block that is not closed: add <!-- end results -->.")
        pages[readme] = BLOCK.sub(lambda match: _block(match, found), before)
    return pages


def _block(match: re.Match[str], found: Mapping[str, Results]) -> str:
    name, metric = match["name"], match["metric"]
    if name not in found:
        return f"{match['head']}*Not measured yet.*\n{match['end']}"
    facts = found[name].facts
    where = ", ".join(plain(facts[fact]) for fact in ("machine", "date") if fact in facts)
    note = f"Measured on {where}. " if where else ""
    lines = [
        *tables(found[name], metric, match["setting"] or ""),
        f"{note}Settings and versions: [RESULTS.md](benchmarks/RESULTS.md).",
    ]
    return match["head"] + "\n" + "\n".join(lines) + "\n\n" + match["end"]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Regenerates the tables of RESULTS.md and the README.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where a table is out of date")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[1], help="of the repository")
    options = parser.parse_args(arguments)
    try:
        pages = render(options.root)
    except MalformedError as error:
        print(error, file=sys.stderr)
        return 2
    stale = [path for path, text in pages.items() if not path.is_file() or path.read_text("utf-8") != text]
    for path in stale:
        if options.check:
            print(f"{path.relative_to(options.root)} is out of date. Run make results.", file=sys.stderr)
        else:
            path.write_text(pages[path], "utf-8")
            print(f"wrote {path.relative_to(options.root)}")
    return 1 if options.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
