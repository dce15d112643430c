"""The user's own series: a file of one row a series."""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from quickstudy.errors import DataError, DataNotFoundError, TooFewExamplesError
from quickstudy.tasks.episodes import LabelledSet
from quickstudy.tasks.labels import class_names, is_number, numbered

SUFFIXES = (".csv", ".tsv", ".txt", ".ts")
SHORTEST = 8
"""Numbers that a series has at least."""

EMPTY = ("", "nan", "na", "n/a", "null", "none", "inf", "infinity", "?")
"""Cells that say that there is no number."""
UNLABELLED = ("", "nan", "n/a", "null")
"""Those that say that there is no label; the others may be a class's name."""
NUMBERING, MANY = ("id", "idx", "index", "row", "sample", "subject"), 5
"""What columns are called that number the rows; and the rows from which on one is known by its numbers."""

_TIME = {"time", "timestamp", "t", "date", "datetime", "step", "timestep"}
_NAMED = 5  # things of a kind that an error names


def series(path: Path | str) -> tuple[LabelledSet, LabelledSet | None]:
    """The labelled set of a file of series, `(n, channels, length)` float32, and its test set where it has one.

    Of a CSV each row is one series: its label and its numbers, from first to last. The label is the column called
    `label`, or else the only column that holds anything but numbers. The first row is a header where it names a column
    `label`, or holds no number, or counts its columns (0, 1, 2, ...). A column without a name, such as the index that
    pandas writes, is left out. Commas, semicolons and tabs are told apart by themselves.

    Files of the UCR archive are read as they are: `.tsv` and `.txt` without a header, whose first column is the label,
    and `.ts`, which may have several channels. Of a file whose name ends in `_TRAIN`, the neighbour that ends in
    `_TEST` is the test set.

    All series have the same length. The long format, a row a moment, is not read.

    Raises:
        DataNotFoundError: Where there is no such file.
        DataError: Where it cannot be read so; the message names row and column, and what to do.
        TooFewExamplesError: Where it is empty.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from quickstudy.tasks.series import series
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "waves.csv"
        ...     _ = path.write_text("label,a,b,c,d,e,f,g,h\\nup,1,2,3,4,5,6,7,8\\ndown,8,7,6,5,4,3,2,1\\n")
        ...     data, test = series(path)
        >>> data.x.shape, data.class_names, test
        (torch.Size([2, 1, 8]), ('down', 'up'), None)

    References:
        Dau et al., [The UCR Time Series Archive](https://arxiv.org/abs/1810.07758), 2019.
    """
    path = Path(path).expanduser()
    x, y = read(path)
    names = class_names(y)
    other = path.with_name(re.sub(r"_TRAIN$", "_TEST", path.stem) + path.suffix)
    if other == path or not other.is_file():
        return labelled(x, y, names), None
    x_test, y_test = read(other)
    if unknown := class_names([label for label in y_test if label not in set(y)]):
        raise DataError(
            f"{other} has the class {unknown[0]!r}, which {path.name} has not. Move some of its series there."
        )
    if x_test.shape[1:] != x.shape[1:]:
        raise DataError(
            f"{other} has series of (channels, length) {tuple(x_test.shape[1:])}, {path.name} of {tuple(x.shape[1:])}. "
            "Cut or resample them to one length."
        )
    return labelled(x, y, names), labelled(x_test, y_test, names)


def read(path: Path) -> tuple[Tensor, list[str]]:
    """Series `(n, channels, length)` and their labels, of one file."""
    if not path.is_file():
        raise DataNotFoundError(f"{path} is not there, or no file. Give a CSV file with one row a series.")
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text ({error}). Save it as CSV in UTF-8.") from error
    if not text.strip():
        raise TooFewExamplesError(f"{path} is empty. Give a CSV file with one row a series.")
    x, y = read_ts(text, path) if path.suffix.lower() == ".ts" else read_csv(text, path)
    if x.shape[-1] < SHORTEST:
        raise DataError(
            f"{path} has {x.shape[-1]} numbers a row; a series has at least {SHORTEST}, in the order of time, "
            "and every row is a whole series."
        )
    return x, y


def read_csv(text: str, path: Path) -> tuple[Tensor, list[str]]:
    """Rows of a label and numbers."""
    first = text.lstrip().splitlines()[0]
    separator = max(",;\t", key=first.count) if not re.fullmatch(r"[^,;\t]*", first) else None
    lines: list[list[str]]
    try:
        lines = (
            [line.split() for line in text.splitlines()]
            if separator is None
            else list(csv.reader(io.StringIO(text), delimiter=separator, strict=True))
        )
    except csv.Error as error:
        raise DataError(f"{path} cannot be read as CSV ({error}). Save it again, one row a series.") from error
    rows = [(i + 1, [cell.strip() for cell in line]) for i, line in enumerate(lines) if any(map(str.strip, line))]
    header = rows[0][1] if is_header(rows[0][1]) else None
    rows = rows[1:] if header else rows
    if not rows:
        raise TooFewExamplesError(f"{path} has a header and no series. Add one row a series.")
    check_lengths(rows, path)
    names = header if header is not None else [""] * len(rows[0][1])
    if len(names) != len(rows[0][1]):
        raise DataError(
            f"{path}: the header names {len(names)} columns and the rows have {len(rows[0][1])}. "
            "Give every column a name, or leave the header out."
        )
    check_wide(names, path)
    kept = [i for i, name in enumerate(names) if name or header is None]
    label = label_column(names, rows, kept, header is not None, path)
    columns = [i for i in kept if i != label]
    if missing := [number for number, cells in rows if cells[label].lower() in UNLABELLED]:
        raise DataError(f"{path}: line {missing[0]} has no label, one of {len(missing)}. Label them, or remove them.")
    values = numbers(rows, columns, names, path)
    check_no_numbering(values, columns, names, path)
    return torch.from_numpy(values)[:, None], [cells[label] for _, cells in rows]


def check_no_numbering(values: np.ndarray, columns: Sequence[int], names: Sequence[str], path: Path) -> None:
    """Raises DataError where a column numbers the rows, which may tell the class where they are sorted by it."""
    counts = (np.diff(values, axis=0) == 1).all(0) if len(values) >= MANY else np.zeros(len(columns), bool)
    for i, numbering in zip(columns, counts.tolist()):
        if not (numbering or names[i].lower() in NUMBERING):
            continue
        raise DataError(
            f"{path}: column {names[i] or i + 1} numbers the rows, and would be taken for a part of the series. "
            "Remove it."
        )


def is_header(cells: Sequence[str]) -> bool:
    """Whether the first row names columns."""
    if any(cell.lower() == "label" for cell in cells):
        return True
    found = [float(cell) for cell in cells if is_number(cell)]
    counts = len(found) >= len(cells) - 2 and found in (list(range(len(found))), list(range(1, len(found) + 1)))
    return not found or (counts and len(found) < len(cells))


def check_lengths(rows: Sequence[tuple[int, list[str]]], path: Path) -> None:
    """Raises DataError where rows differ in length, or end in empty cells."""
    usual = max(len(cells) for _, cells in rows)
    short = [(number, cells) for number, cells in rows if len(cells) < usual or not cells[-1]]
    if short:
        named = ", ".join(str(number) for number, _ in short[:_NAMED])
        filled = sum(map(bool, short[0][1]))
        raise DataError(
            f"{path}: the series differ in length: line {short[0][0]} has {filled} filled cells, others {usual} "
            f"({len(short)} shorter lines: {named}{', ...' if len(short) > _NAMED else ''}). "
            "Cut or resample all to one length, or repeat the last value at the end."
        )


def check_wide(names: Sequence[str], path: Path) -> None:
    """Raises DataError where the header is that of the long format."""
    lower = [name.lower() for name in names if name]
    times = [name for name in lower if name in _TIME]
    if times and len(lower) <= 6:
        raise DataError(
            f"{path} has a column {times[0]!r} among {len(lower)}: a row a moment, the long format, which is not read. "
            "Make it one row a series: table.pivot(index='id', columns='time', values='value') in pandas, and add the "
            "column label."
        )


def label_column(
    names: Sequence[str], rows: Sequence[tuple[int, list[str]]], kept: Sequence[int], header: bool, path: Path
) -> int:
    """Which column the labels are in."""
    called = [i for i in kept if names[i].lower() == "label"]
    if called:
        return called[0]
    # One stray word in a column of numbers is a mistake there, not a label.
    words = [i for i in kept if sum(is_number(c[i]) or c[i].lower() in EMPTY for _, c in rows) < len(rows) / 2]
    if len(words) == 1:
        return words[0]
    if not words and not header and path.suffix.lower() in (".tsv", ".txt"):
        return kept[0]
    found = ", ".join(repr(names[i] or f"column {i + 1}") for i in words[:_NAMED])
    problem = f"{len(words)} columns hold words ({found})" if words else "all columns hold numbers"
    raise DataError(
        f"{path}: {problem}, and none is called 'label'. Name the column of the classes 'label' in a header."
    )


def numbers(
    rows: Sequence[tuple[int, list[str]]], columns: Sequence[int], names: Sequence[str], path: Path
) -> np.ndarray:
    """The numbers of some columns, `(n, length)` float32."""
    values = np.empty((len(rows), len(columns)), np.float32)
    for row, (number, cells) in enumerate(rows):
        for place, i in enumerate(columns):
            if not is_finite(cells[i]):
                where = f"{path}: line {number}, column {names[i] or i + 1},"
                if cells[i].lower().lstrip("+-") in EMPTY:
                    raise DataError(
                        f"{where} holds {cells[i] or 'nothing'}. Fill gaps, with the value before for instance, or "
                        "remove the series."
                    )
                raise DataError(
                    f"{where} holds {cells[i]!r}, not a number. Correct it (decimals are written with a point), or "
                    "remove the column."
                )
            values[row, place] = float(cells[i])
    return values


def is_finite(cell: str) -> bool:
    """Whether a cell holds a number that float32 has."""
    return is_number(cell) and abs(float(cell)) < 3.4e38


def read_ts(text: str, path: Path) -> tuple[Tensor, list[str]]:
    """The archive's own format: channels separated by colons, the label at the end."""
    lines = [(i + 1, line.strip()) for i, line in enumerate(text.splitlines())]
    lines = [(number, line) for number, line in lines if line and not line.startswith(("#", "%"))]
    head = {line.split()[0].lower(): line.split()[1:] for _, line in lines if line.startswith("@")}
    rows = [(number, line.split(":")) for number, line in lines if not line.startswith("@")]
    if "@data" not in head or not rows:
        raise DataError(f"{path} has no series after @data. Download it again, or save it as CSV, one row a series.")
    if "".join(head.get("@timestamps", ["false"])[:1]).lower() == "true":
        raise DataError(f"{path} has time stamps. Save it without them, one value after the other.")
    if "".join(head.get("@classlabel", ["false"])[:1]).lower() != "true":
        raise DataError(f"{path} has no class labels (@classLabel true). Search needs a class for each series.")
    channels, length = len(rows[0][1]) - 1, len(rows[0][1][0].split(","))
    values = np.empty((len(rows), channels, length), np.float32)
    for i, (number, parts) in enumerate(rows):
        cells = [part.split(",") for part in parts[:-1]]
        if len(cells) != channels or any(len(channel) != length for channel in cells):
            raise DataError(
                f"{path}: the series differ in length: line {number} is not {channels} channels of {length}. "
                "Cut or resample all to one length."
            )
        for channel in cells:
            if bad := [cell for cell in channel if not is_finite(cell.strip())]:
                raise DataError(f"{path}: line {number} holds {bad[0]!r}. Fill gaps, or remove the series.")
        values[i] = cells
    return torch.from_numpy(values), [parts[-1].strip() for _, parts in rows]


def labelled(x: Tensor, y: list[str], names: tuple[str, ...]) -> LabelledSet:
    """Series and labels as a set."""
    return LabelledSet(x, numbered(y, names), names)
