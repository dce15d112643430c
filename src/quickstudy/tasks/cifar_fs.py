"""CIFAR-FS and FC100: few-shot splits of CIFAR-100."""

import hashlib
import json
import tarfile
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from quickstudy.errors import DataError
from quickstudy.tasks.episodes import LabelledSet
from quickstudy.tasks.fetch import OnProgress, find, locate, remember
from quickstudy.tasks.pictures import pillow

URL = "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"  # the python archive holds pickles
CHECKSUM = "md5:03b5dce01913d631647c71ecec9e9cb8"

SUPERCLASSES = {
    "aquatic_mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food_containers": "bottle bowl can cup plate",
    "fruit_and_vegetables": "apple mushroom orange pear sweet_pepper",
    "household_electrical_devices": "clock keyboard lamp telephone television",
    "household_furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large_carnivores": "bear leopard lion tiger wolf",
    "large_man-made_outdoor_things": "bridge castle house road skyscraper",
    "large_natural_outdoor_scenes": "cloud forest mountain plain sea",
    "large_omnivores_and_herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium_mammals": "fox porcupine possum raccoon skunk",
    "non-insect_invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small_mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles_1": "bicycle bus motorcycle pickup_truck train",
    "vehicles_2": "lawn_mower rocket streetcar tank tractor",
}
SUPERCLASS_OF = {name: group for group, names in SUPERCLASSES.items() for name in names.split()}

# What neither validates nor tests trains.
CIFAR_FS_VALIDATION = (
    "beaver beetle butterfly camel cattle crab crocodile flatfish lamp maple_tree motorcycle otter sea shark "
    "television tractor"
)
CIFAR_FS_TEST = (
    "baby bed bicycle chimpanzee fox leopard man pickup_truck plain poppy rocket rose snail sweet_pepper table "
    "telephone wardrobe whale woman worm"
)
FC100_VALIDATION = "large_carnivores large_omnivores_and_herbivores non-insect_invertebrates small_mammals"
FC100_TEST = "aquatic_mammals insects medium_mammals people"

Split = Literal["train", "validation", "test"]


def cifar_fs(split: Split, *, on_progress: OnProgress | None = None) -> LabelledSet:
    """CIFAR-FS: 64 classes to train, 16 to validate, 20 to test; 600 pictures a class, uint8 `(n, 3, 32, 32)`.

    The groups are the superclasses of CIFAR-100; its three parts share them. It reads the WebP sheets of
    `cifar100_lossless` in `$QUICKSTUDY_DATA` where those are, else the official binary archive, which it downloads
    (169 MB). Within a class pictures are in order of their SHA-256, so that a seed means the same tasks from either.

    Args:
        split: `train`, `validation` or `test`.
        on_progress: Called with the bytes downloaded and the bytes in all, or with the sheets read and their number.

    Raises:
        DataNotFoundError: Where the data are not on this machine and cannot be downloaded.
        DataError: Where `split` is none of those, or a file is not the official one.

    Example:
        >>> from quickstudy import Episodes
        >>> source = Episodes(cifar_fs("test"), n_way=5, n_shot=1)  # doctest: +SKIP

    References:
        Bertinetto et al., [Meta-learning with differentiable closed-form solvers](https://arxiv.org/abs/1805.08136),
        2019.
    """
    return _subset(_cifar_fs_classes(split), on_progress)


def fc100(split: Split, *, on_progress: OnProgress | None = None) -> LabelledSet:
    """FC100: CIFAR-100 split by superclass, so that the parts differ more: 60, 20 and 20 classes.

    Twelve superclasses train, four validate and four test. Everything else is as with `cifar_fs`.

    Args:
        split: `train`, `validation` or `test`.
        on_progress: Called with the bytes downloaded and the bytes in all, or with the sheets read and their number.

    Raises:
        DataNotFoundError: Where the data are not on this machine and cannot be downloaded.
        DataError: Where `split` is none of those, or a file is not the official one.

    Example:
        >>> from quickstudy import Episodes
        >>> source = Episodes(fc100("test"), n_way=5, n_shot=1)  # doctest: +SKIP

    References:
        Oreshkin et al., [TADAM](https://arxiv.org/abs/1805.10123), 2018.
    """
    return _subset(_fc100_classes(split), on_progress)


def _cifar_fs_classes(split: Split) -> list[str]:
    return _part(sorted(SUPERCLASS_OF), CIFAR_FS_VALIDATION, CIFAR_FS_TEST, split)


def _fc100_classes(split: Split) -> list[str]:
    groups = _part(sorted(SUPERCLASSES), FC100_VALIDATION, FC100_TEST, split)
    return sorted(name for name, group in SUPERCLASS_OF.items() if group in groups)


def _part(names: list[str], validation: str, test: str, split: Split) -> list[str]:
    held_out = {"validation": validation.split(), "test": test.split()}
    if split in held_out:
        return held_out[split]
    if split != "train":
        raise DataError(f"there is no split {split!r}; choose train, validation or test.")
    return [name for name in names if name not in held_out["validation"] + held_out["test"]]


def _subset(classes: list[str], on_progress: OnProgress | None) -> LabelledSet:
    sheets = locate("cifar100_lossless")
    if sheets is not None:
        pictures = _read_sheets(sheets, classes, on_progress)
    else:
        everything = remember("cifar100/cifar100-1.npz", lambda: _unpack(on_progress))["pictures"]
        pictures = everything[[sorted(SUPERCLASS_OF).index(name) for name in classes]]
    return LabelledSet(
        torch.from_numpy(pictures.reshape(-1, 3, 32, 32)),
        torch.arange(len(classes)).repeat_interleave(pictures.shape[1]),
        tuple(classes),
        tuple(SUPERCLASS_OF[name] for name in classes),
    )


def _read_sheets(folder: Path, classes: list[str], on_progress: OnProgress | None) -> np.ndarray:
    """One sheet of 20 rows of 30 pictures a class: `(classes, 600, 3, 32, 32)`."""
    pictures = np.empty((len(classes), 600, 3, 32, 32), dtype=np.uint8)
    try:
        number = {name: i for i, name in enumerate(json.loads((folder / "classes.json").read_text("utf-8")))}
        for i, name in enumerate(classes):
            with pillow().open(folder / f"{number[name]:03d}_{name}.webp", formats=["WEBP"]) as image:
                sheet = np.asarray(image.convert("RGB")).reshape(20, 32, 30, 32, 3)
            pictures[i] = _in_order(sheet.transpose(0, 2, 4, 1, 3).reshape(600, 3, 32, 32))
            if on_progress is not None:
                on_progress(i + 1, len(classes))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{folder} is not CIFAR-100 in sheets: {error}. Complete or remove the folder.") from error
    return pictures


def _unpack(on_progress: OnProgress | None) -> dict[str, np.ndarray]:
    """All classes in alphabetical order, `(100, 600, 3, 32, 32)`. A record: two labels (coarse, fine), pixels."""
    path = find("cifar100/cifar-100-binary.tar.gz", url=URL, checksum=CHECKSUM, on_progress=on_progress)
    with tarfile.open(path) as archive:
        records = np.concatenate([_records(archive, f"cifar-100-binary/{part}.bin") for part in ("train", "test")])
    labels, pixels = records[:, 1], records[:, 2:].reshape(-1, 3, 32, 32)
    return {"pictures": np.stack([_in_order(pixels[labels == label]) for label in range(100)])}


def _records(archive: tarfile.TarFile, member: str) -> np.ndarray:
    file = archive.extractfile(member)
    if file is None:
        raise DataError(f"{archive.name!r} has no {member}. Delete it, and it is downloaded again.")
    return np.frombuffer(file.read(), dtype=np.uint8).reshape(-1, 2 + 3 * 32 * 32)


def _in_order(pictures: np.ndarray) -> np.ndarray:
    """Pictures of a class in an order that depends on nothing but themselves."""
    return pictures[sorted(range(len(pictures)), key=lambda i: hashlib.sha256(pictures[i].tobytes()).digest())]
