"""Where tasks come from by name: a data set that quickstudy knows, or a folder of pictures."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from quickstudy.errors import DataNotFoundError
from quickstudy.tasks.cifar_fs import cifar_fs, fc100
from quickstudy.tasks.encoder_for import encoder_for_classes
from quickstudy.tasks.episodes import LabelledSet
from quickstudy.tasks.fetch import OnProgress
from quickstudy.tasks.glyphs import glyphs
from quickstudy.tasks.image_folder import image_folder
from quickstudy.tasks.omniglot import omniglot
from quickstudy.tasks.pictures import PictureEncoder
from quickstudy.tasks.split import split_classes


@dataclass(frozen=True)
class Source:
    """A data set that quickstudy knows by name."""

    summary: str
    """A line of help."""
    load: Callable[..., LabelledSet]
    """`load(split, on_progress=...)`, where a split is "train", "validation" or "test"."""
    encoder: PictureEncoder
    """How a user's own pictures are made like these."""


SOURCES: dict[str, Source] = {
    "glyphs": Source(
        "3,000 characters of 15 scripts and 11 families of symbols, drawn on this machine; the default",
        glyphs,
        PictureEncoder(),
    ),
    "omniglot": Source("1,623 handwritten characters, each turned four ways", omniglot, PictureEncoder()),
    "omniglot-alphabets": Source(
        "the same; 20 alphabets to test on, none of them known",
        partial(omniglot, protocol="alphabets"),
        PictureEncoder(),
    ),
    "cifar-fs": Source(
        "CIFAR-100 in 64/16/20 classes", cifar_fs, PictureEncoder(size=32, channels=3, resize="crop", ink=False)
    ),
    "fc100": Source(
        "CIFAR-100 in 60/20/20 classes of different kinds",
        fc100,
        PictureEncoder(size=32, channels=3, resize="crop", ink=False),
    ),
}


@dataclass(frozen=True)
class Splits:
    """Class-disjoint parts of a data set, and how a picture is encoded like theirs."""

    train: LabelledSet
    validation: LabelledSet
    test: LabelledSet
    encoder: PictureEncoder
    name: str | None = None
    """Of the data set or the folder, where it has one."""
    folder: Path | None = None
    """Where the pictures were read, unless it is a data set that quickstudy knows."""

    def to_settings(self) -> dict[str, dict[str, Any]]:
        """How many classes and examples each part has, and its digest, in plain JSON values."""
        return {
            name: {"classes": part.n_classes, "examples": len(part.y), "sha256": digest(part)}
            for name, part in (("train", self.train), ("validation", self.validation), ("test", self.test))
        }


def digest(data: LabelledSet) -> str:
    """SHA-256 of inputs, labels and class names: two sets have the same one where nothing in them differs.

    Example:
        >>> import torch
        >>> from quickstudy import LabelledSet
        >>> from quickstudy.tasks.catalogue import digest
        >>> ants, bees = (LabelledSet(torch.zeros(2, 3), torch.zeros(2).long(), (name,)) for name in ("ant", "bee"))
        >>> digest(ants) == digest(ants), digest(ants) == digest(bees)
        (True, False)
    """
    header = [str(data.x.dtype), list(data.x.shape), list(data.class_names)]
    found = hashlib.sha256(json.dumps(header).encode())
    for tensor in (data.x, data.y):
        found.update(tensor.detach().cpu().contiguous().numpy().data)
    return found.hexdigest()


def load_splits(
    name: str,
    *,
    n_way: int,
    encoder: PictureEncoder | None = None,
    skip_bad: bool = False,
    on_progress: OnProgress | None = None,
) -> Splits:
    """The three parts of a data set by name, or of a folder with a subfolder a class.

    Args:
        name: One of `SOURCES`, or a folder.
        n_way: Classes a task, which each part of a folder has at least.
        encoder: How the pictures of a folder are read; by default by `encoder_for_classes`, which looks at them.
        skip_bad: Leave unreadable pictures of a folder out.
        on_progress: Is called with what is done and how much there is.

    Raises:
        DataNotFoundError: Where there is no such data set or folder.

    Example:
        >>> from quickstudy import load_splits
        >>> splits = load_splits("glyphs", n_way=5)  # doctest: +SKIP
        >>> splits.train.n_classes, splits.validation.n_classes, splits.test.n_classes  # doctest: +SKIP
        (2100, 569, 357)
    """
    if name in SOURCES:
        source = SOURCES[name]
        train, validation, test = (source.load(s, on_progress=on_progress) for s in ("train", "validation", "test"))
        return Splits(train, validation, test, source.encoder, name)
    if not Path(name).exists():
        raise DataNotFoundError(
            f"{name!r} is neither a folder nor one of {', '.join(SOURCES)}. "
            "Name a folder that has a subfolder of pictures for each class."
        )
    encoder = encoder or encoder_for_classes(name)
    parts = split_classes(image_folder(name, encoder=encoder, skip_bad=skip_bad, on_progress=on_progress), n_way=n_way)
    return Splits(parts.train, parts.validation, parts.test, encoder, Path(name).resolve().name, Path(name))
