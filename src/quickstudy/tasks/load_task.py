"""The user's data as one task, whatever they come in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quickstudy.errors import DataError, DataNotFoundError
from quickstudy.tasks.arrays import arrays
from quickstudy.tasks.encoder_for import encoder_for
from quickstudy.tasks.episodes import LabelledSet
from quickstudy.tasks.fetch import OnProgress
from quickstudy.tasks.hold_out import hold_out, with_test_set
from quickstudy.tasks.image_folder import image_folder
from quickstudy.tasks.named import NAMED, load_named
from quickstudy.tasks.pictures import SUFFIXES as PICTURES
from quickstudy.tasks.series import SUFFIXES as SERIES
from quickstudy.tasks.series import series
from quickstudy.tasks.task import Task


@dataclass(frozen=True)
class NamedTask:
    """A task with the names of what is in it."""

    task: Task
    """One task, `(1, n, *shape)`: support to learn from, query to be judged on, once and at the end."""
    class_names: tuple[str, ...]
    """One a label."""
    name: str
    """Of the data: `digits`, or the file's or folder's."""
    inputs: Mapping[str, Any] = field(default_factory=dict)
    """How an input is made of what the user has, in plain JSON values: `kind` is `pictures`, `arrays`, `series` or
    `named`, `shape` that of one input; pictures have the settings of their `encoder`, arrays the number `levels` that
    their values were divided by."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one input, (channels, *size)."""
        return tuple(self.task.support.x.shape[2:])

    @property
    def counts(self) -> tuple[int, ...]:
        """Examples of each class, in support and query."""
        y = self.task.everything.y[0]
        return tuple(int((y == label).sum()) for label in range(len(self.class_names)))


def load_task(
    source: str | Path,
    *,
    test: float = 0.2,
    seed: int = 0,
    size: int | None = None,
    skip_bad: bool = False,
    on_progress: OnProgress | None = None,
) -> NamedTask:
    """One task of a folder, a file or a named source.

    | source | is read by |
    | --- | --- |
    | a folder with a subfolder of pictures for each class | `image_folder`, with the encoder of `encoder_for` |
    | `.npz` with `x` and `y` | `arrays` |
    | `.csv`, `.tsv`, `.txt`, `.ts`, a row a series | `series` |
    | `digits`, `glyphs:greek`, `ucr:GunPoint`, ... | `load_named` |

    Data that have a test set of their own keep it. Of others a stratified share is held out.

    Args:
        source: The name of a source, else a path; a folder of such a name is written `./digits`.
        test: The share that is held out, where the data have no test set of their own.
        seed: Decides which examples are held out.
        size: The side of pictures in a folder, in pixels; chosen from them where it is None.
        skip_bad: Leave out pictures that cannot be read instead of stopping.
        on_progress: Called with what is done and how much there is.

    Raises:
        DataNotFoundError: Where there is no such source; the message lists what is possible.
        DataError, ShapeError: Where it cannot be read.
        TooFewExamplesError: Where there is one class only, or too few examples of one.

    Example:
        >>> from quickstudy.tasks.load_task import load_task
        >>> found = load_task("digits", test=0.2)
        >>> found.task.support.x.shape, found.task.query.x.shape, found.class_names[:3]
        (torch.Size([1, 1438, 1, 8, 8]), torch.Size([1, 359, 1, 8, 8]), ('0', '1', '2'))
    """
    path = Path(source).expanduser()
    inputs: dict[str, Any]
    name = path.stem if path.suffix else path.resolve().name
    published: LabelledSet | None = None
    suffix = path.suffix.lower()
    folder = path.is_dir()
    if isinstance(source, str) and source.partition(":")[0] in NAMED:
        folder, name, inputs = False, source, {"kind": "named", "source": source}
        data, published = load_named(source, on_progress)
    elif folder:
        encoder = encoder_for(path, size=size)
        name, inputs = path.resolve().name, {"kind": "pictures", "encoder": encoder.to_settings()}
        data = image_folder(path, encoder=encoder, skip_bad=skip_bad, on_progress=on_progress)
    elif path.is_file() and suffix == ".npz":
        inputs = {"kind": "arrays"}
        data, published = arrays(path)
    elif path.is_file() and suffix in SERIES:
        inputs = {"kind": "series"}
        data, published = series(path)
    else:
        raise not_found(source, path)
    if size is not None and not folder:
        raise DataError(f"size={size} is for folders of pictures; {source} has inputs of a size of its own. Omit it.")
    inputs["levels"] = 1 if data.x.is_floating_point() else 255
    inputs["shape"] = list(data.x.shape[1:])
    task = hold_out(data, test=test, seed=seed) if published is None else with_test_set(data, published)
    return NamedTask(task, data.class_names, name, inputs)


def not_found(source: str | Path, path: Path) -> DataError:
    """What to say of a source that is none."""
    possible = (
        "Give a folder that has a subfolder of pictures for each class; an npz file with x (n, channels, *size) and y "
        f"(n,); a {' or '.join(SERIES[:2])} file with a row a series; or one of "
        f"{', '.join(known.form for known in NAMED.values())}."
    )
    if not path.exists():
        return DataNotFoundError(
            f"{str(source)!r} is neither a file or folder here nor a source with a name. {possible}"
        )
    if path.suffix.lower() in PICTURES:
        return DataError(f"{path} is one picture. {possible}")
    if path.suffix.lower() == ".npy":
        return DataError(
            f"{path} holds one array: save inputs and labels together, np.savez(path, x=x, y=y). {possible}"
        )
    return DataError(f"{path} is of a kind that is not read, {path.suffix or 'without a suffix'}. {possible}")
