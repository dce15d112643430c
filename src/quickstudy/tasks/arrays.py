"""The user's own arrays: an npz file."""

import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch

from quickstudy.errors import DataError, DataNotFoundError, ShapeError
from quickstudy.tasks.episodes import LabelledSet
from quickstudy.tasks.labels import class_names, listed, numbered


def arrays(path: Path | str) -> tuple[LabelledSet, LabelledSet | None]:
    """The labelled set of an npz file, and its test set where it has one.

    The file has `x`, `(n, channels, *size)`, and `y`, `(n,)`; it may have `x_test` and `y_test`. Pictures have two
    sizes (height, width) and series one (length). The axis of channels may be missing where nothing else can be meant:

    | axes of `x` | are |
    | --- | --- |
    | `(n, length)` | series of one channel |
    | `(n, side, side)` | grey pictures: two equal sizes are a picture's |
    | `(n, channels, length)` | series, where the last two differ |
    | `(n, channels, height, width)` | pictures |

    Values in uint8 are levels of 255, which a task turns into floats in [0, 1]. All other numbers stay as they are, in
    float32. Labels are whole numbers or strings; classes come in the order of `class_names`.

    Args:
        path: The file. Nothing in it is unpickled.

    Raises:
        DataNotFoundError: Where there is no such file.
        DataError: Where it cannot be read, lacks an array, or one holds something else than numbers or labels.
        ShapeError: Where the axes of an array are not those above, or two do not fit each other.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from quickstudy.tasks.arrays import arrays
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(f"{folder}/mine.npz", x=np.zeros((4, 28, 28), np.uint8), y=["otter", "bee", "bee", "otter"])
        ...     data, test = arrays(f"{folder}/mine.npz")
        >>> data.x.shape, data.class_names, data.y.tolist(), test
        (torch.Size([4, 1, 28, 28]), ('bee', 'otter'), [1, 0, 0, 1], None)
    """
    path = Path(path).expanduser()
    found = read(path)
    if missing := [name for name in ("x", "y") if name not in found]:
        raise DataError(
            f"{path} has no array {' and no array '.join(map(repr, missing))}, only {listed(found)}. "
            "Save it with np.savez(path, x=inputs, y=labels)."
        )
    if ("x_test" in found) != ("y_test" in found):
        there, lacking = ("x_test", "y_test") if "x_test" in found else ("y_test", "x_test")
        raise DataError(f"{path} has {there} but no {lacking}. Add it, or leave both out, and a share is held out.")
    y = labels(found["y"], "y", path)
    names = class_names(y)
    data = labelled(inputs(found["x"], "x", path), y, names, "", path)
    if "x_test" not in found:
        return data, None
    y_test = labels(found["y_test"], "y_test", path)
    if unknown := class_names(set(y_test) - set(names)):
        raise DataError(
            f"{path}: y_test has {listed(unknown)}, which y has not. "
            "A class that was never learned cannot be tested: remove it there, or move some of it to x and y."
        )
    test = labelled(inputs(found["x_test"], "x_test", path), y_test, names, "_test", path)
    if test.x.shape[1:] != data.x.shape[1:] or test.x.dtype != data.x.dtype:
        raise ShapeError(
            f"{path}: x_test has inputs {tuple(test.x.shape[1:])} in {found['x_test'].dtype}, x has "
            f"{tuple(data.x.shape[1:])} in {found['x'].dtype}. Save both in the same shape and type."
        )
    return data, test


def read(path: Path) -> dict[str, np.ndarray]:
    """The arrays that are used, by name; the others only by their names, with nothing in them."""
    if not path.is_file():
        raise DataNotFoundError(f"{path} is not there, or no file. Give an npz file with arrays x and y.")
    try:
        with path.open("rb") as file:
            stored = np.load(file, allow_pickle=False)
            if not isinstance(stored, np.lib.npyio.NpzFile):
                raise DataError(f"{path} holds one array. Save inputs and labels together, np.savez(path, x=x, y=y).")
            with stored:
                return {name: one(stored, name, path) for name in stored.files}
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} cannot be read as an npz file ({error}). Save it again with np.savez.") from error


def one(stored: "np.lib.npyio.NpzFile", name: str, path: Path) -> np.ndarray:
    """An array that is used, which is never unpickled."""
    if name not in ("x", "y", "x_test", "y_test"):
        return np.empty(0)
    try:
        return np.asarray(stored[name])
    except ValueError as error:
        if "pickle" not in str(error) and "Object arrays" not in str(error):
            raise
        remedy = (
            "Save labels as y.astype(str)."
            if name.startswith("y")
            else "Inputs of one size make an array of numbers: np.stack(list(x)).astype(np.float32)."
        )
        raise DataError(
            f"{path}: {name} is an array of Python objects, which only pickle could read, and that may run any "
            f"program. {remedy}"
        ) from error


def inputs(x: np.ndarray, name: str, path: Path) -> np.ndarray:
    """Numbers as `(n, channels, *size)`, uint8 or float32."""
    if x.dtype.kind not in "buif":
        raise DataError(f"{path}: {name} holds {x.dtype}, not numbers. Save it as uint8 or float32.")
    shape = x.shape
    if x.ndim not in (2, 3, 4) or 0 in shape:
        raise ShapeError(
            f"{path}: {name} is {shape}; give (n, channels, height, width) for pictures or (n, channels, length) for "
            "series, with at least one of each."
        )
    if x.ndim == 4 and shape[3] in (1, 3, 4) and min(shape[1:3]) > 4:
        raise ShapeError(
            f"{path}: {name} is {shape}, which looks like channels at the end. "
            f"They come second: np.moveaxis({name}, -1, 1)."
        )
    if x.ndim == 3 and shape[1] != shape[2] and x.dtype == np.uint8:
        raise ShapeError(
            f"{path}: {name} is uint8 {shape}, which may be grey pictures or series of {shape[1]} channels. "
            f"Add the axis of channels to pictures, {name}[:, None]; save series as float32."
        )
    if x.ndim == 2 or (x.ndim == 3 and shape[1] == shape[2]):
        x = x[:, None]
    if x.dtype == np.uint8:
        return x
    with np.errstate(over="ignore"):
        x = x.astype(np.float32)
    bad = ~np.isfinite(x).all(axis=tuple(range(1, x.ndim)))
    if bad.any():
        raise DataError(
            f"{path}: {bad.sum()} of {len(x)} examples in {name} hold NaN or infinity, the first at index "
            f"{int(bad.argmax())}. Remove them or fill the gaps."
        )
    return x


def labels(y: np.ndarray, name: str, path: Path) -> list[str]:
    """Labels as texts."""
    if y.dtype.kind not in "buiUS":
        remedy = f"{name}.round().astype(int), if they number classes" if y.dtype.kind == "f" else "convert them"
        raise DataError(f"{path}: {name} holds {y.dtype}, but labels are whole numbers or strings: {remedy}.")
    if y.ndim != 1:
        remedy = f"{name}.ravel()" if y.ndim and y.size == len(y) else f"{name}.argmax(1), if it has a column a class"
        raise ShapeError(f"{path}: {name} is {y.shape}, but there is one label an example, (n,): {remedy}.")
    return [value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in y.tolist()]


def labelled(x: np.ndarray, y: list[str], names: tuple[str, ...], suffix: str, path: Path) -> LabelledSet:
    """Inputs and labels as a set."""
    if len(x) != len(y):
        raise ShapeError(
            f"{path}: x{suffix} has {len(x)} examples and y{suffix} {len(y)} labels. Save one label for each example."
        )
    return LabelledSet(torch.from_numpy(np.ascontiguousarray(x)), numbered(y, names), names)
