"""Omniglot: 1623 handwritten characters of 50 alphabets, each by 20 people."""

import hashlib
import io
import zipfile
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from quickstudy.errors import DataError
from quickstudy.tasks.episodes import LabelledSet
from quickstudy.tasks.fetch import OnProgress, find, load_arrays, locate, remember
from quickstudy.tasks.pictures import pillow

HOME = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python"
CHECKSUMS = {
    "images_background": "md5:68d2efa1b9178cc56df9314c21c6e718",
    "images_evaluation": "md5:6b91aef0f799c5bb55b94e3f2daec811",
}
VALIDATION_ALPHABETS = (
    "Alphabet_of_the_Magi",
    "Blackfoot_(Canadian_Aboriginal_Syllabics)",
    "Inuktitut_(Canadian_Aboriginal_Syllabics)",
    "Ojibwe_(Canadian_Aboriginal_Syllabics)",
    "Tagalog",
)
"""The smallest background alphabets, 81 characters: Meta-Dataset's choice."""
N_TEST, N_VALIDATION, SEED = 423, 172, 0
"""The random split: 1028 characters to train, 172 to validate, 423 to test."""

Split = Literal["train", "validation", "train+validation", "test"]
Protocol = Literal["random", "alphabets"]


def omniglot(
    split: Split,
    *,
    protocol: Protocol = "random",
    rotations: bool = True,
    on_progress: OnProgress | None = None,
) -> LabelledSet:
    """Omniglot at 28x28, ink 255 on 0, uint8 `(20 * classes, 1, 28, 28)`; the groups are the alphabets.

    - `random`, as in the few-shot papers: 1200 characters to train on and 423 to test on, whatever their
      alphabet. Of the 1200, 172 are for validation, as many as Vinyals et al. took, which leaves 1028; their
      lists are not ours: characters are ranked by the SHA-256 of a fixed seed, 0, and their name, and the split
      is the same on every machine.
    - `alphabets`, Lake's: the 30 background alphabets to train on (964 characters) and the 20 evaluation
      alphabets to test on (659). Five background alphabets, `VALIDATION_ALPHABETS`, are for validation (81), the
      other 25 for training (883).

    It reads `omniglot/omniglot28.npz` in `$QUICKSTUDY_DATA` where that is, else the official archives, which it
    downloads (14 MB) and reduces as the MAML paper's program does, by taking the nearest pixel.

    Args:
        split: `train`, `validation`, `train+validation` or `test`.
        protocol: `random` or `alphabets`.
        rotations: Whether each character turned by 90, 180 and 270 degrees is a class of its own, in every split.
        on_progress: Called with the bytes downloaded and the bytes in all.

    Raises:
        DataNotFoundError: Where the data are not on this machine and cannot be downloaded.
        DataError: Where `split` or `protocol` is none of those, or a file is not the official one.

    Example:
        >>> from quickstudy import Episodes
        >>> source = Episodes(omniglot("test"), n_way=5, n_shot=1)  # doctest: +SKIP

    References:
        Lake et al., [Human-level concept learning](https://doi.org/10.1126/science.aab3050), 2015.
        Vinyals et al., [Matching Networks](https://arxiv.org/abs/1606.04080), 2016.
        Triantafillou et al., [Meta-Dataset](https://arxiv.org/abs/1903.03096), 2020.
    """
    if split not in ("train", "validation", "train+validation", "test"):
        raise DataError(f"Omniglot has no split {split!r}; choose train, validation, train+validation or test.")
    if protocol not in ("random", "alphabets"):
        raise DataError(f"Omniglot has no protocol {protocol!r}; choose random or alphabets.")
    bits, alphabets, characters, background = _characters(on_progress)
    part = _random_parts(alphabets, characters) if protocol == "random" else _alphabet_parts(alphabets, background)
    rows = [i for i in range(len(alphabets)) if part[i] in split.split("+")]
    pictures = np.unpackbits(bits[rows], axis=-1, count=28 * 28) * np.uint8(255)  # (characters, 20, 784)
    data = LabelledSet(
        torch.from_numpy(pictures).reshape(-1, 1, 28, 28),
        torch.arange(len(rows)).repeat_interleave(pictures.shape[1]),
        tuple(f"{alphabets[i]}/{characters[i]}" for i in rows),
        tuple(alphabets[i] for i in rows),
    )
    return data.with_rotations() if rotations else data


def _random_parts(alphabets: list[str], characters: list[str]) -> list[str]:
    names = [f"{SEED}/{alphabet}/{character}" for alphabet, character in zip(alphabets, characters)]
    ranked = sorted(range(len(names)), key=lambda i: hashlib.sha256(names[i].encode()).digest())
    part = ["train"] * len(names)
    for rank, i in enumerate(ranked[: N_TEST + N_VALIDATION]):
        part[i] = "test" if rank < N_TEST else "validation"
    return part


def _alphabet_parts(alphabets: list[str], background: list[bool]) -> list[str]:
    return [
        "test" if not known else "validation" if alphabet in VALIDATION_ALPHABETS else "train"
        for alphabet, known in zip(alphabets, background)
    ]


def _characters(on_progress: OnProgress | None) -> tuple[np.ndarray, list[str], list[str], list[bool]]:
    """Bits `(1623, 20, 98)`, alphabets, characters, and whether each is a background one; in order of name."""
    packed = locate("omniglot/omniglot28.npz")
    if packed is not None:
        arrays = load_arrays(packed)
        if missing := {"bits", "alphabet", "character", "n_background"} - set(arrays):
            raise DataError(f"{packed} has no {sorted(missing)}. Remove it, and the official archives are used.")
        arrays["background"] = np.arange(len(arrays["bits"])) < arrays["n_background"]
    else:
        arrays = remember("omniglot/characters-1.npz", lambda: _unpack(on_progress))
    alphabets, characters = arrays["alphabet"].tolist(), arrays["character"].tolist()
    order = sorted(range(len(alphabets)), key=lambda i: (alphabets[i], characters[i]))
    return (
        arrays["bits"][order],
        [alphabets[i] for i in order],
        [characters[i] for i in order],
        [bool(arrays["background"][i]) for i in order],
    )


def _unpack(on_progress: OnProgress | None) -> dict[str, np.ndarray]:
    found: dict[tuple[str, str], tuple[bool, list[np.ndarray]]] = {}
    for name, checksum in CHECKSUMS.items():
        path = find(f"omniglot/{name}.zip", url=f"{HOME}/{name}.zip", checksum=checksum, on_progress=on_progress)
        with zipfile.ZipFile(path) as archive:
            for member in sorted(archive.namelist()):
                if member.endswith(".png"):
                    alphabet, character = Path(member).parts[-3:-1]
                    _, drawings = found.setdefault((alphabet, character), (name == "images_background", []))
                    drawings.append(_bits(archive.read(member)))
    return {
        "bits": np.stack([np.stack(drawings) for _, drawings in found.values()]),
        "alphabet": np.array([alphabet for alphabet, _ in found]),
        "character": np.array([character for _, character in found]),
        "background": np.array([known for known, _ in found.values()]),
    }


def _bits(png: bytes) -> np.ndarray:
    """A drawing's 28x28 pixels, 1 for ink, `(98,)` bytes."""
    with pillow().open(io.BytesIO(png), formats=["PNG"]) as image:
        small = image.convert("1").resize((28, 28), pillow().Resampling.NEAREST)
    return np.packbits(~np.asarray(small))
