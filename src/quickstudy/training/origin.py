"""What a prior tells of the data that it was trained on, and how they are found again."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quickstudy.errors import DataError, DataNotFoundError
from quickstudy.tasks.catalogue import SOURCES, Splits
from quickstudy.tasks.episodes import LabelledSet

PARTS = ("train", "validation", "test")


def origin(splits: Splits, out: Path | None = None) -> dict[str, Any]:
    """The data in plain JSON values: their name, what each part holds, and of a folder its way from the prior.

    Args:
        splits: What is trained on.
        out: The folder of the prior, where there is one.
    """
    names = {part: list(getattr(splits, part).class_names) for part in PARTS}
    told: dict[str, Any] = {"source": splits.name, "data": splits.to_settings(), "class_names": names}
    if splits.folder is None:
        return told
    folder = splits.folder.resolve()
    if out is None:
        return {**told, "folder": folder.as_posix()}
    try:
        way = Path(os.path.relpath(folder, out.resolve())).as_posix()
    except ValueError:  # on another drive
        way = folder.as_posix()
    return {**told, "folder": way}


def trained_on(prior: str, training: Mapping[str, Any]) -> str:
    """The data set by name, or the folder, that a prior was trained on.

    Args:
        prior: Its folder.
        training: What it tells of its training.

    Raises:
        DataNotFoundError: Where it does not say, or the folder is not there.
    """
    name, way = training.get("source"), training.get("folder")
    if name is None:
        raise DataNotFoundError(f"{prior} does not say what it was trained on: name a --source.")
    folder = Path(name) if way is None else (Path(prior) / way).resolve()
    if way is None and name in SOURCES:
        return str(name)
    if not folder.is_dir():
        raise DataNotFoundError(f"{prior} was trained on a folder {name!r}, which is not here: name it with --source.")
    return str(folder)


def listed(names: Sequence[str], at_most: int = 5) -> str:
    """Some names, and how many there are more.

    Example:
        >>> from quickstudy.training.origin import listed
        >>> listed(["ant", "bee", "cat"]), listed(["ant", "bee", "cat"], at_most=1)
        ('ant, bee, cat', 'ant and 2 more')
    """
    more = f" and {len(names) - at_most} more" if len(names) > at_most else ""
    return ", ".join(names[:at_most]) + more


def is_as_trained(prior: str, training: Mapping[str, Any], splits: Splits) -> bool:
    """Whether these data are bit for bit those that a prior was trained on, as far as it says.

    Raises:
        DataError: Where a folder has changed since, whose classes may have gone to other parts.
    """
    then = training.get("data")
    if then is None or then == splits.to_settings():
        return True
    if splits.folder is None:
        return False
    raise DataError(
        f"{splits.folder} has changed since {prior} was trained, and classes that it was trained on may now be in the "
        "test. Restore it, or name it with --source to evaluate on what it holds now, without those classes."
    )


def unseen(
    prior: str, training: Mapping[str, Any], data: LabelledSet, part: str, name: str
) -> tuple[LabelledSet, tuple[str, ...]]:
    """Data without the classes that a prior has seen, as far as it tells their names, and those names.

    Args:
        prior: Its folder.
        training: What it tells of its training.
        data: What it is evaluated on.
        part: Which of `PARTS` they are: it has seen what it was trained on and, for the test, what it was validated on.
        name: What the data are called.

    Raises:
        DataError: Where it has seen all of them.
    """
    known = training.get("class_names", {})
    before = {name for earlier in PARTS[: PARTS.index(part)] for name in known.get(earlier, ())}
    seen = tuple(name for name in data.class_names if name in before)
    if not seen:
        return data, seen
    if len(seen) == data.n_classes:
        raise DataError(
            f"{prior} was trained or validated on all classes of {name} that it would be evaluated on, by their "
            f"names: {listed(seen)}. Evaluate it on other classes; rename those that only share a name."
        )
    return data.select([i for i, name in enumerate(data.class_names) if name not in before]), seen
