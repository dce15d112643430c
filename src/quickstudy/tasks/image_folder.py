"""The user's own pictures."""

import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from quickstudy.errors import DataError, DataNotFoundError, TooFewExamplesError, UnreadablePictureError
from quickstudy.tasks.episodes import LabelledSet
from quickstudy.tasks.fetch import OnProgress
from quickstudy.tasks.pictures import SUFFIXES, PictureEncoder

logger = logging.getLogger(__name__)

Tell = Callable[[str], None]

_NAMED = 5  # bad files that an error names
_PARTS = {"train", "training", "val", "valid", "validation", "test", "testing"}  # what folders of parts are called


def image_folder(
    path: Path | str,
    *,
    encoder: PictureEncoder | None = None,
    skip_bad: bool = False,
    on_progress: OnProgress | None = None,
    tell: Tell = logger.warning,
) -> LabelledSet:
    """A folder with a subfolder for each class, as a labelled set.

    A class is named by its subfolder and holds every picture below it, at any depth, in natural order
    (`2.png` before `10.png`). Hidden files, and files whose suffix is not a picture's, are left aside; links are
    followed.

    Args:
        path: The folder.
        encoder: How a picture becomes a tensor; by default grey, 28x28, white ink on black.
        skip_bad: Leave out pictures that cannot be read, and tell of them, where they would be an error.
        on_progress: Called with the pictures done and the pictures in all.
        tell: Called with a sentence for whatever is left out or looks wrong; by default it is logged.

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
        loose = len(pictures_below(root))
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
    if loose := sum(_is_picture(entry) and entry.is_file() for entry in root.iterdir()):
        tell(f"{root} has pictures beside its subfolders, {loose}: they are of no class, and left aside")
    files = [(file, label) for label, folder in enumerate(subfolders) for file in _some_pictures(folder, tell)]
    kept, x = _read([file for file, _ in files], encoder, skip_bad, on_progress, tell)
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
    tell: Tell = logger.warning,
) -> tuple[list[Path], Tensor]:
    """The pictures of a folder, at any depth, or of one file: their paths, and uint8 `(n, channels, size, size)`.

    Args:
        path: The folder, or a single picture.
        encoder: How a picture becomes a tensor: the one that the prior was trained with.
        skip_bad: Leave out pictures that cannot be read, and tell of them, where they would be an error.
        on_progress: Called with the pictures done and the pictures in all.
        tell: Called with a sentence for whatever is left out or looks wrong; by default it is logged.

    Raises:
        DataNotFoundError: Where nothing is there.
        TooFewExamplesError: Where there are no pictures.
        UnreadablePictureError: Where pictures cannot be read. All are counted, and the first five named.
    """
    root = Path(path).expanduser()
    files = [root] if root.is_file() else _some_pictures(_folder(root), tell)
    kept, x = _read(files, encoder, skip_bad, on_progress, tell)
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
    return max(folders, key=lambda folder: len(pictures_below(folder)))


def _hidden(path: Path) -> bool:
    return path.name.startswith(".") or path.name == "__MACOSX"


def _natural(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Sorts `2.png` before `10.png`, and capitals with small letters."""
    pieces = re.findall(r"\d+|\D+", str(path))
    return [(int(piece), "") if piece.isdecimal() else (-1, piece.casefold()) for piece in pieces], str(path)


def _is_picture(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and not _hidden(file)


def _files(folder: Path) -> list[Path]:
    """Those that are not hidden, at any depth, in natural order; links are followed, each folder once."""
    found, seen = [], set[str]()
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        folders[:] = [] if real in seen else [name for name in folders if not _hidden(Path(name))]
        found += [] if real in seen else [Path(parent) / name for name in names if not _hidden(Path(name))]
        seen.add(real)
    return sorted(found, key=_natural)


def pictures_below(folder: Path) -> list[Path]:
    """The picture files of a folder at any depth, but no hidden ones."""
    return [file for file in _files(folder) if _is_picture(file)]


def _some_pictures(folder: Path, tell: Tell) -> list[Path]:
    files = _files(folder)
    pictures = [file for file in files if _is_picture(file)]
    others = Counter(file.suffix.lower() or "no suffix" for file in files if not _is_picture(file))
    aside = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(3))
    if not pictures:
        why = f"only other files ({aside})" if others else "no files"
        raise TooFewExamplesError(f"{folder} holds {why}. Put pictures there (PNG, JPEG, WebP, ...) or remove it.")
    if others:
        tell(f"{folder}: leaving aside files that are no pictures ({aside})")
    return pictures


def _read(
    files: Sequence[Path], encoder: PictureEncoder, skip_bad: bool, on_progress: OnProgress | None, tell: Tell
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
    if bad:
        more = f"; and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
        tell(f"{len(bad)} of {len(files)} pictures are left out: {'; '.join(bad[:_NAMED])}{more}")
    x = x[: len(kept)].clone() if bad else x
    flat = x.flatten(2)
    if blank := (flat == flat[:, :, :1]).flatten(1).all(1).nonzero()[:, 0].tolist():
        first = files[kept[blank[0]]]
        tell(f"blank, all of one level as they are read: {len(blank)} of {len(x)} pictures, as {first}")
    return kept, x
