"""Labelled sets by name, each of them one task: what a search can be tried on."""

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from quickstudy.errors import DataError, DataNotFoundError, MissingExtraError
from quickstudy.tasks.episodes import LabelledSet
from quickstudy.tasks.fetch import OnProgress, data_folder, find, load_arrays, locate
from quickstudy.tasks.glyphs import glyphs
from quickstudy.tasks.omniglot import omniglot
from quickstudy.tasks.series import series

Parts = tuple[LabelledSet, LabelledSet | None]
"""Examples to learn from, and the published test set where there is one."""

FASHION_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist"
FASHION = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
DIGITS = tuple("0123456789")
CHECKSUMS = {
    "fashion": ("md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d", "md5:25c81989df183df01b3e8a0aad5dffbe"),
    "mnist": ("md5:f68b3c2dcbeaaa9fbdd348bbdeb94873", "md5:d53e105ee54ea40749a09fcbcd1e9432"),
}


@dataclass(frozen=True)
class Named:
    """A labelled set that quickstudy knows by name."""

    form: str
    """How it is written: `digits`, `ucr:NAME`."""
    summary: str
    """A line of help."""
    load: Callable[[str, OnProgress | None], Parts]
    """Of the part after the colon, which is empty where there is none."""


def load_named(source: str, on_progress: OnProgress | None = None) -> Parts:
    """A labelled set by its name, and its published test set where it has one.

    Args:
        source: One of `NAMED`, and after a colon which part of it: `glyphs:greek`.
        on_progress: Called with what is done and how much there is.

    Raises:
        DataError: Where the name takes no part, or has no such one.
        DataNotFoundError: Where the data are not on this machine and cannot be had.

    Example:
        >>> from quickstudy.tasks.named import load_named
        >>> data, test = load_named("digits")
        >>> data.x.shape, data.n_classes, test
        (torch.Size([1797, 1, 8, 8]), 10, None)
    """
    name, colon, part = source.partition(":")
    known = NAMED[name]
    if part and ":" not in known.form:
        raise DataError(f"{source!r}: {name} has no parts. Write {known.form!r}.")
    if colon and not part:
        raise DataError(f"{source!r} ends in a colon. Write {known.form!r}.")
    return known.load(part, on_progress)


def digits() -> LabelledSet:
    """1,797 handwritten digits of 8x8 pixels with levels of 16, from the installed scikit-learn, `(1797, 1, 8, 8)`.

    Raises:
        MissingExtraError: Where scikit-learn is not installed.

    References:
        Kaynak, [Optical Recognition of Handwritten Digits](https://doi.org/10.24432/C50P49), 1995.
    """
    package = find_spec("sklearn")
    folder = package.submodule_search_locations[0] if package and package.submodule_search_locations else None
    if folder is None:
        raise MissingExtraError("digits come with scikit-learn: pip install 'quickstudy[nas]'.")
    path = Path(folder) / "datasets" / "data" / "digits.csv.gz"
    try:
        table = np.loadtxt(path, delimiter=",", dtype=np.float32)  # (n, 65)
    except (OSError, ValueError) as error:
        raise DataNotFoundError(f"{path} cannot be read ({error}). Install scikit-learn again.") from error
    x = torch.from_numpy(table[:, :-1]).reshape(-1, 1, 8, 8) / 16
    return LabelledSet(x, torch.from_numpy(table[:, -1]).long(), DIGITS)


def fashion(on_progress: OnProgress | None = None) -> LabelledSet:
    """The first 1,000 training pictures of each of Fashion-MNIST's ten classes, uint8 `(10000, 1, 28, 28)`.

    Reads `mnist_like/mnist_like.npz` in `$QUICKSTUDY_DATA` where that is, else the official files (26 MB).

    References:
        Xiao et al., [Fashion-MNIST](https://arxiv.org/abs/1708.07747), 2017.
    """
    return first_of("fashion", FASHION_URL, FASHION, 1000, on_progress)


def mnist(on_progress: OnProgress | None = None) -> LabelledSet:
    """500 training pictures of each of MNIST's ten digits, uint8 `(5000, 1, 28, 28)`.

    Reads `mnist_like/mnist_like.npz` in `$QUICKSTUDY_DATA` where that is, else the first of the official files (10 MB);
    the pictures of the two differ.

    References:
        LeCun et al., [Gradient-based learning applied to document recognition](https://doi.org/10.1109/5.726791), 1998.
    """
    return first_of("mnist", MNIST_URL, DIGITS, 500, on_progress)


def first_of(name: str, url: str, names: tuple[str, ...], n: int, on_progress: OnProgress | None) -> LabelledSet:
    """The first `n` pictures of each class."""
    packed = locate("mnist_like/mnist_like.npz")
    if packed is not None and {f"{name}_X", f"{name}_y"} <= set(found := load_arrays(packed)):
        x, y = found[f"{name}_X"], found[f"{name}_y"]
    else:
        files = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz")
        x, y = (
            read_idx(find(f"{name}/{file}", url=f"{url}/{file}", checksum=checksum, on_progress=on_progress))
            for file, checksum in zip(files, CHECKSUMS[name])
        )
    chosen = np.sort(np.concatenate([np.flatnonzero(y == label)[:n] for label in range(len(names))]))
    return LabelledSet(torch.from_numpy(x[chosen])[:, None], torch.from_numpy(y[chosen]).long(), names)


def read_idx(path: Path) -> np.ndarray:
    """The uint8 array of a compressed IDX file.

    Raises:
        DataError: Where it is not one.
    """
    try:
        content = gzip.decompress(path.read_bytes())
        axes = content[3]
        shape = np.frombuffer(content, ">i4", axes, 4)
        return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape).copy()
    except (OSError, EOFError, ValueError, IndexError) as error:
        raise DataError(
            f"{path} is no compressed IDX file ({error}). Delete it, and it is downloaded again."
        ) from error


def ucr(name: str) -> Parts:
    """A set of the UCR archive, with its published training and test set.

    Reads `ucr_packaged/ucr_packaged.npz` in `$QUICKSTUDY_DATA` or the cache, else `ucr/NAME/NAME_TRAIN.tsv` (or `.ts`,
    `.txt`) there, as the archive unpacks. The archive asks its users to download it themselves.

    References:
        Dau et al., [The UCR Time Series Archive](https://arxiv.org/abs/1810.07758), 2019.
    """
    packed = locate("ucr_packaged/ucr_packaged.npz")
    found = load_arrays(packed) if packed else {}
    known = {key.partition("__")[0].removesuffix("_eq"): key.partition("__")[0] for key in found}
    match = next((known[one] for one in known if one.casefold() == name.removesuffix("_eq").casefold()), None)
    if match is not None:
        y = np.concatenate([found[f"{match}__ytr"], found[f"{match}__yte"]])
        names = tuple(str(label) for label in range(int(y.max()) + 1))
        train, test = (
            LabelledSet(
                torch.from_numpy(found[f"{match}__X{end}"]), torch.from_numpy(found[f"{match}__y{end}"]).long(), names
            )
            for end in ("tr", "te")
        )
        return train, test
    for suffix in (".tsv", ".ts", ".txt"):
        if name and (path := locate(f"ucr/{name}/{name}_TRAIN{suffix}")):
            return series(path)
    own = data_folder()
    raise DataNotFoundError(
        f"there is no UCR set {name!r} on this machine: it has {', '.join(sorted(known)) or 'none'}. Download it from "
        f"https://timeseriesclassification.com and give its file NAME_TRAIN.ts, or put its folder into "
        f"{(own / 'ucr') if own else '$QUICKSTUDY_DATA/ucr'}."
    )


def alphabet_of(data: LabelledSet, alphabet: str, source: str) -> LabelledSet:
    """The characters of one alphabet; capitals, and `_` for a space, do not matter.

    Raises:
        DataError: Where there is no such alphabet; the message names them all.
    """
    groups = data.groups or ()
    wanted = alphabet.casefold().replace("_", " ")
    chosen = [i for i, group in enumerate(groups) if group.casefold().replace("_", " ") == wanted]
    if not chosen:
        raise DataError(
            f"{source} has no alphabet {alphabet!r}. Choose from {', '.join(sorted(set(groups)))}: "
            f"{source}:{min(groups, default='NAME')}, for instance."
        )
    found = data.select(chosen)
    return LabelledSet(found.x, found.y, tuple(name.partition("/")[2] for name in found.class_names))


def joined(parts: tuple[LabelledSet, ...]) -> LabelledSet:
    """Sets of different classes as one."""
    first = [sum(part.n_classes for part in parts[:i]) for i in range(len(parts))]
    return LabelledSet(
        torch.cat([part.x for part in parts]),
        torch.cat([part.y + start for part, start in zip(parts, first)]),
        tuple(name for part in parts for name in part.class_names),
        tuple(group for part in parts for group in part.groups or ()),
    )


def _glyphs(alphabet: str, on_progress: OnProgress | None) -> Parts:
    every = joined(tuple(glyphs(split, on_progress=on_progress) for split in ("train", "validation", "test")))
    return alphabet_of(every, alphabet, "glyphs"), None


def _omniglot(alphabet: str, on_progress: OnProgress | None) -> Parts:
    every = joined(
        tuple(
            omniglot(split, protocol="alphabets", rotations=False, on_progress=on_progress)
            for split in ("train+validation", "test")
        )
    )
    return alphabet_of(every, alphabet, "omniglot"), None


NAMED: dict[str, Named] = {
    "digits": Named(
        "digits", "1,797 handwritten digits of 8x8, installed with scikit-learn", lambda _, __: (digits(), None)
    ),
    "glyphs": Named("glyphs:ALPHABET", "the characters of one alphabet, 20 drawings of each", _glyphs),
    "omniglot": Named("omniglot:ALPHABET", "the handwritten characters of one alphabet, 20 of each", _omniglot),
    "ucr": Named("ucr:NAME", "a set of series of the UCR archive", lambda name, _: ucr(name)),
    "fashion": Named(
        "fashion", "1,000 pictures of each of ten kinds of clothes", lambda _, report: (fashion(report), None)
    ),
    "mnist": Named("mnist", "500 pictures of each of ten digits", lambda _, report: (mnist(report), None)),
}
