"""Glyphs: handwriting in some twenty alphabets, drawn from the fonts that matplotlib ships."""

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Generator, Tensor

from quickstudy.errors import DataError
from quickstudy.tasks.episodes import LabelledSet
from quickstudy.tasks.fetch import OnProgress, atomically, cache_folder
from quickstudy.tasks.glyph_characters import Character, distinct, find_characters, skeleton_drawer
from quickstudy.tasks.glyph_hands import SIDE, Hands, draw_hands, write

logger = logging.getLogger(__name__)

Split = Literal["train", "validation", "test"]

RECIPE = 1
"""Counts up with every change of what is drawn; a cache of another recipe is not read."""

EXAMPLES = 20
"""Pictures of each character."""

FACES = 4
"""Faces of each character whose skeletons the hands follow, those that differ most."""

TEST = ("georgian", "armenian", "hebrew", "lao", "tifinagh", "nko")
VALIDATION = ("arabic", "canadian syllabics")

_UNKEPT: dict[Path, dict[Split, LabelledSet]] = {}  # what was drawn and could not be kept, by where it would be
_DRAWN_WITH = ("matplotlib", "pillow", "scikit-image", "scipy", "torch")
_FIRST_PASS = 25  # per cent of the time of drawing that goes into finding look-alikes
_BATCH = 32  # characters written at once: on a busy machine, threads that meet for each one are slow


def glyphs(split: Split, *, cache: Path | None = None, on_progress: OnProgress | None = None) -> LabelledSet:
    """The default data set, which needs no download: a few thousand characters, each in twenty handwritings.

    The characters are those of some twenty alphabets and families of symbols that at least two of the twelve
    DejaVu faces have. Of characters that look alike, in whatever alphabets (Latin A, Greek Alpha, Cyrillic A),
    only the first is kept. Each is thinned to its skeleton in up to four faces and written by twenty seeded hands
    (`quickstudy.tasks.glyph_hands.write`), whose unsteadiness was set on the validation alphabets, so that nearest
    neighbour on pixels gets 50 to 60 % of 5-way 1-shot tasks right.

    The splits share no alphabet: Georgian, Armenian, Hebrew, Lao, Tifinagh and NKo are for the test, Arabic and
    Canadian syllabics for validation, and the rest for training.

    The first call draws all three splits, in well under a minute, and keeps them in the cache (10 MB); a
    damaged cache is drawn again. The same versions of the drawing libraries give the same pixels; others may
    differ in a few. The cache's metadata name the versions.

    Args:
        split: `"train"`, `"validation"` or `"test"`.
        cache: The folder to keep the drawings in; by default `quickstudy.tasks.fetch.cache_folder()`.
        on_progress: Called with (done, total), in per cent, while drawing; never where the cache serves.

    Returns:
        Pictures `(n, 1, 28, 28)` uint8, ink 255 on 0. Class names read `"greek/α GREEK SMALL LETTER ALPHA"`, groups
        are the alphabets, and both are in the order of alphabets and code points.

    Raises:
        DataError: Where there is no such split.
        MissingExtraError: Where the set is not cached and a library to draw it with is not installed.

    Example:
        >>> from quickstudy import Episodes
        >>> characters = glyphs("test")  # doctest: +SKIP
        >>> source = Episodes(characters, n_way=5, n_shot=1)  # doctest: +SKIP
    """
    if split not in get_args(Split):
        raise DataError(f"Glyphs has no split {split!r}: choose from {', '.join(map(repr, get_args(Split)))}.")
    path = (cache_folder() if cache is None else cache) / f"glyphs-{RECIPE}.npz"
    if path.is_file():
        try:
            return _read(path, split)
        except Exception as error:  # whatever is wrong with the file, drawing it again repairs it
            logger.warning("%s is damaged (%s); drawing Glyphs again", path, error)
    if path in _UNKEPT:
        return _UNKEPT[path][split]
    logger.info("drawing Glyphs into %s", path)
    splits = _draw(on_progress)
    try:
        _keep(path, splits)
    except DataError as error:
        logger.warning("%s Until then, Glyphs is drawn anew by each process.", error)
        _UNKEPT[path] = splits
    return splits[split]


def split_of(alphabet: str) -> Split:
    """The split that an alphabet belongs to.

    Example:
        >>> split_of("georgian"), split_of("greek")
        ('test', 'train')
    """
    return "test" if alphabet in TEST else "validation" if alphabet in VALIDATION else "train"


def _draw(on_progress: OnProgress | None) -> dict[Split, LabelledSet]:
    """All three splits, drawn from the fonts."""
    report = on_progress or (lambda done, total: None)
    draw = skeleton_drawer()
    drawings: list[tuple[Character, Tensor]] = []
    found = find_characters()
    for i, character in enumerate(found):
        if (drawing := draw(character.codepoint, character.faces[0])) is not None:
            drawings.append((character, drawing))
        report(_FIRST_PASS * (i + 1) // len(found), 100)
    kept = [drawings[i] for i in distinct(torch.stack([drawing for _, drawing in drawings]))]
    logger.info("%d characters, %d with a skeleton, %d distinct", len(found), len(drawings), len(kept))
    pictures = []
    for start in range(0, len(kept), _BATCH):
        batch = kept[start : start + _BATCH]
        skeletons = [_skeletons(character, first, draw) for character, first in batch]
        hands = [_hands(character) for character, _ in batch]
        pictures += write(torch.cat(skeletons), Hands.join(hands)).split(EXAMPLES)
        report(_FIRST_PASS + (100 - _FIRST_PASS) * (start + len(batch)) // len(kept), 100)
    characters = [character for character, _ in kept]
    return {split: _split(split, characters, pictures) for split in get_args(Split)}


def _skeletons(character: Character, first: Tensor, draw: Callable[[int, str], Tensor | None]) -> Tensor:
    """One skeleton an example, of each face in turn, `(EXAMPLES, CANVAS, CANVAS)`; `first` is the first face's."""
    others = [draw(character.codepoint, face) for face in character.faces[1:FACES]]
    faces = torch.stack([first, *(other for other in others if other is not None)])
    return faces[torch.arange(EXAMPLES) % len(faces)]


def _hands(character: Character) -> Hands:
    """Seeded by the character, so that none depends on the others."""
    return draw_hands(EXAMPLES, generator=Generator().manual_seed(character.codepoint))


def _split(split: Split, characters: Sequence[Character], pictures: Sequence[Tensor]) -> LabelledSet:
    own = [i for i, character in enumerate(characters) if split_of(character.alphabet) == split]
    names, groups = (tuple(getattr(characters[i], field) for i in own) for field in ("name", "alphabet"))
    x = torch.cat([pictures[i] for i in own]) if own else torch.empty(0, 1, SIDE, SIDE, dtype=torch.uint8)
    return LabelledSet(x, _labels(len(own)), names, groups)


def _labels(n_classes: int) -> Tensor:
    return torch.arange(n_classes).repeat_interleave(EXAMPLES)


def _keep(path: Path, splits: dict[Split, LabelledSet]) -> None:
    metadata: dict[str, Any] = {"recipe": RECIPE, "versions": {name: version(name) for name in _DRAWN_WITH}}
    for split, data in splits.items():
        metadata[split] = {"class_names": data.class_names, "groups": data.groups, "sha256": _digest(data)}
    pictures: dict[str, Any] = {split: data.x.numpy() for split, data in splits.items()}
    with atomically(path) as part, part.open("wb") as file:
        np.savez_compressed(file, metadata=np.array(json.dumps(metadata)), **pictures)


def _read(path: Path, split: Split) -> LabelledSet:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
        x, metadata = torch.from_numpy(stored[split]), json.loads(str(stored["metadata"]))[split]
    names, groups = tuple(metadata["class_names"]), tuple(metadata["groups"])
    data = LabelledSet(x, _labels(len(names)), names, groups)
    if _digest(data) != metadata["sha256"]:
        raise DataError("its checksum differs")
    return data


def _digest(data: LabelledSet) -> str:
    names = json.dumps([data.class_names, data.groups])
    return hashlib.sha256(names.encode() + data.x.numpy().tobytes()).hexdigest()
