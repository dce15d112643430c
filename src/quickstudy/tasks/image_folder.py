"""The user's own pictures."""

import logging
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from quickstudy.errors import DataError, DataNotFoundError, TooFewExamplesError, UnreadablePictureError
from quickstudy.tasks.episodes import LabelledSet
from quickstudy.tasks.fetch import OnProgress
from quickstudy.tasks.pictures import SUFFIXES, PictureEncoder

logger = logging.getLogger(__name__)

_NAMED = 5  # bad files that an error names
_PARTS = {"train", "training", "val", "valid", "validation", "test", "testing"}  # what folders of parts are called


def image_folder(
    path: Path | str,
    *,
    encoder: PictureEncoder | None = None,
    skip_bad: bool = False,
    on_progress: OnProgress | None = None,
) -> LabelledSet:
    """A folder with a subfolder for each class, as a labelled set.

    A class is named by its subfolder and holds every picture below it, at any depth, in natural order
    (`2.png` before `10.png`). Hidden files, and files whose suffix is not a picture's, are left aside.

    Args:
        path: The folder.
        encoder: How a picture becomes a tensor; by default grey, 28x28, white ink on black.
        skip_bad: Leave out pictures that cannot be read, with a warning in the log, where they would be an error.
        on_progress: Called with the pictures done and the pictures in all.

    Raises:
        DataNotFoundError: Where the folder does not exist.
        DataError: Where it is a file, or has no subfolders, or they are parts with classes of their own, as `train` and
            `test` are.
        TooFewExamplesError: Where it has one class only, or a class has no pictures.
        UnreadablePictureError: Where pictures cannot be read. All are counted, and the first five named.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from quickstudy.tasks.image_folder import image_folder
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("ant", "bee"):
        ...         (Path(folder) / name).mkdir()
        ...         Image.new("L", (40, 30)).save(Path(folder) / name / "1.png")
        ...     image_folder(folder).class_names
        ('ant', 'bee')
    """
    root = _folder(path)
    encoder = encoder or PictureEncoder()
    subfolders = sorted((entry for entry in root.iterdir() if entry.is_dir() and not _hidden(entry)), key=_natural)
    if not subfolders:
        loose = len(_pictures(root))
        raise DataError(f"{root} has no subfolders ({loose} pictures of its own): make one for each class.")
    if len(subfolders) == 1:
        raise TooFewExamplesError(
            f"{root} has one class only, {subfolders[0].name!r}: there is nothing to tell it from. Add a subfolder."
        )
    if all(folder.name.lower() in _PARTS and _has_folders(folder) for folder in subfolders):
        names = ", ".join(folder.name for folder in subfolders)
        raise DataError(
            f"the subfolders of {root} ({names}) are parts, each with classes of its own, and would be taken for "
            f"classes. Name one of them, such as {_largest(subfolders)}."
        )
    files = [(file, label) for label, folder in enumerate(subfolders) for file in _some_pictures(folder)]
    kept, x = _read([file for file, _ in files], encoder, skip_bad, on_progress)
    y = torch.tensor([label for _, label in files], dtype=torch.int64)[kept]
    data = LabelledSet(x, y, tuple(folder.name for folder in subfolders))
    if empty := [name for name, count in zip(data.class_names, data.counts().tolist()) if not count]:
        raise TooFewExamplesError(f"no picture of class {empty[0]!r} can be read. Replace them or remove the class.")
    return data


def unlabelled_pictures(
    path: Path | str,
    encoder: PictureEncoder,
    *,
    skip_bad: bool = False,
    on_progress: OnProgress | None = None,
) -> tuple[list[Path], Tensor]:
    """The pictures of a folder, at any depth, or of one file: their paths, and uint8 `(n, channels, size, size)`.

    Args:
        path: The folder, or a single picture.
        encoder: How a picture becomes a tensor: the one that the prior was trained with.
        skip_bad: Leave out pictures that cannot be read, with a warning in the log, where they would be an error.
        on_progress: Called with the pictures done and the pictures in all.

    Raises:
        DataNotFoundError: Where nothing is there.
        TooFewExamplesError: Where there are no pictures.
        UnreadablePictureError: Where pictures cannot be read. All are counted, and the first five named.
    """
    root = Path(path).expanduser()
    files = [root] if root.is_file() else _some_pictures(_folder(root))
    kept, x = _read(files, encoder, skip_bad, on_progress)
    if not kept:
        raise TooFewExamplesError(f"none of the {len(files)} pictures in {root} can be read. Replace them.")
    return [files[i] for i in kept], x


def _folder(path: Path | str) -> Path:
    root = Path(path).expanduser()
    if not root.exists():
        raise DataNotFoundError(f"{root} does not exist. Give a folder of pictures.")
    if not root.is_dir():
        raise DataError(f"{root} is a file. Give the folder that has a subfolder for each class.")
    return root


def _has_folders(folder: Path) -> bool:
    return any(entry.is_dir() and not _hidden(entry) for entry in folder.iterdir())


def _largest(folders: Sequence[Path]) -> Path:
    return max(folders, key=lambda folder: len(_pictures(folder)))


def _hidden(path: Path) -> bool:
    return path.name.startswith(".") or path.name == "__MACOSX"


def _natural(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Sorts `2.png` before `10.png`, and capitals with small letters."""
    pieces = re.findall(r"\d+|\D+", str(path))
    return [(int(piece), "") if piece.isdecimal() else (-1, piece.casefold()) for piece in pieces], str(path)


def _files(folder: Path) -> list[Path]:
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not _hidden(Path(name))]
        found += [Path(parent) / name for name in names if not _hidden(Path(name))]
    return sorted(found, key=_natural)


def _pictures(folder: Path) -> list[Path]:
    return [file for file in _files(folder) if file.suffix.lower() in SUFFIXES]


def _some_pictures(folder: Path) -> list[Path]:
    files, pictures = _files(folder), _pictures(folder)
    others = Counter(file.suffix.lower() or "no suffix" for file in files if file.suffix.lower() not in SUFFIXES)
    aside = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(3))
    if not pictures:
        why = f"only other files ({aside})" if others else "no files"
        raise TooFewExamplesError(f"{folder} holds {why}. Put pictures there (PNG, JPEG, WebP, ...) or remove it.")
    if others:
        logger.warning("%s: leaving aside files that are no pictures (%s)", folder, aside)
    return pictures


def _read(
    files: Sequence[Path], encoder: PictureEncoder, skip_bad: bool, on_progress: OnProgress | None
) -> tuple[list[int], Tensor]:
    """Which of the files can be read, and their pictures `(n, channels, size, size)`."""
    kept: list[int] = []
    bad: list[str] = []
    x = torch.empty(len(files), encoder.channels, encoder.size, encoder.size, dtype=torch.uint8)
    for i, file in enumerate(files):
        try:
            x[len(kept)] = encoder.read(file)
            kept.append(i)
        except UnreadablePictureError as error:
            bad.append(str(error))
        if on_progress is not None:
            on_progress(i + 1, len(files))
    if bad and not skip_bad:
        more = f"\n... and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
        raise UnreadablePictureError(
            f"{len(bad)} of {len(files)} pictures cannot be read:\n"
            + "\n".join(bad[:_NAMED])
            + more
            + "\nRemove or replace them, or leave them out with skip_bad (--skip-bad)."
        )
    for reason in bad:
        logger.warning("left out: %s", reason)
    x = x[: len(kept)].clone() if bad else x
    flat = x.flatten(2)
    if blank := (flat == flat[:, :, :1]).flatten(1).all(1).nonzero()[:, 0].tolist():
        first = files[kept[blank[0]]]
        logger.warning("blank, all of one level as they are read: %d of %d pictures, as %s", len(blank), len(x), first)
    return kept, x
