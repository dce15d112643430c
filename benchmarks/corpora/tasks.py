"""Small tasks of many kinds, made so that small networks are right 50 to 90 times in 100.

With inputs moved about, most are better than that on the easiest three. The worst, the median and the best of each are
in `results/corpus.json`.

A task is a `Task` of one: its support set is what a search may use, its query set is looked at once, at the end.
Pictures come from Glyphs, Omniglot, CIFAR-100, Fashion-MNIST, MNIST and digits; series from the UCR archive and from
the formulas of some of its sets. Only characters that few-shot learners train or validate on are here, none that they
are tested on.

    >>> from corpora.tasks import load
    >>> task, names = load("cylinder-bell-funnel")
    >>> task.support.x.shape, task.query.x.shape, names
    (torch.Size([1, 108, 1, 64]), torch.Size([1, 600, 1, 64]), ('cylinder', 'bell', 'funnel'))
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from quickstudy.errors import DataNotFoundError
from quickstudy.tasks.cifar_fs import SUPERCLASSES, cifar_fs
from quickstudy.tasks.episodes import LabelledSet
from quickstudy.tasks.fetch import locate
from quickstudy.tasks.glyphs import glyphs
from quickstudy.tasks.omniglot import omniglot
from quickstudy.tasks.task import Examples, Task


@dataclass(frozen=True)
class Recipe:
    """Where the examples of a task come from, and how many of each class go where."""

    source: Callable[[Generator], LabelledSet]
    """The labelled set; the generator is for sets that are drawn from a formula."""
    train: int
    """Examples a class to train on."""
    validation: int
    """Examples a class to choose by: the last of the support set."""
    test: int
    """Examples a class, at most."""
    side: int | None = None
    """Pixels to which pictures are made smaller."""


def generator_of(*words: object) -> Generator:
    """A generator whose seed these words are, the same on every machine."""
    text = "/".join(map(str, words)).encode()
    return Generator().manual_seed(int.from_bytes(hashlib.sha256(text).digest()[:7], "big"))


def load(name: str) -> tuple[Task, tuple[str, ...]]:
    """A task by its name, and the names of its classes.

    Its support set goes round by round, an example of each class, so that its last rounds are for validation: `parts`.
    """
    recipe, generator = RECIPES[name], generator_of(name)
    data = recipe.source(generator)
    support, query = [], []
    for label in range(data.n_classes):
        rows = (data.y == label).nonzero().flatten()
        rows = rows[torch.randperm(len(rows), generator=generator)]
        support.append(rows[: recipe.train + recipe.validation])
        query.append(rows[recipe.train + recipe.validation :][: recipe.test])
    learn = torch.stack(support, 1).flatten()
    x = as_float(data.x, recipe.side)
    shown, asked = (Examples(x[rows][None], data.y[rows][None]) for rows in (learn, torch.cat(query)))
    return Task(shown, asked, n_way=data.n_classes), data.class_names


def parts(name: str, task: Task) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Inputs and labels to train on, to choose by and to report, `(n, *shape)` and `(n,)` each."""
    x, y = task.support.x[0], task.support.y[0]
    n = RECIPES[name].train * int(task.n_way or 0)
    return (x[:n], y[:n]), (x[n:], y[n:]), (task.query.x[0], task.query.y[0])


def as_float(x: Tensor, side: int | None) -> Tensor:
    """Floats, pictures of which from 0 to 1 and of this side."""
    if x.dtype == torch.uint8:
        x = x.float() / 255
    if side is not None and side != x.shape[-1]:
        x = F.interpolate(x, (side, side), mode="bilinear", antialias=True, align_corners=False)
    return x


def spread(n: int, most: int) -> list[int]:
    """So many of `range(n)`, evenly."""
    return [i * n // most for i in range(min(n, most))]


@cache
def characters(source: str) -> LabelledSet:
    """Of Glyphs or Omniglot, without those of the few-shot tests."""
    if source == "glyphs":
        sets = [glyphs("train"), glyphs("validation")]
    else:
        sets = [omniglot("train", protocol="alphabets", rotations=False)]
        sets += [omniglot("validation", protocol="alphabets", rotations=False)]
    return joined(sets)


def joined(sets: list[LabelledSet]) -> LabelledSet:
    """Several labelled sets as one."""
    first = [sum(data.n_classes for data in sets[:i]) for i in range(len(sets))]
    return LabelledSet(
        torch.cat([data.x for data in sets]),
        torch.cat([data.y + start for data, start in zip(sets, first)]),
        tuple(name for data in sets for name in data.class_names),
        tuple(group for data in sets for group in data.groups or ()),
    )


def alphabet(source: str, name: str, n_classes: int) -> Callable[[Generator], LabelledSet]:
    """So many characters of an alphabet, evenly."""

    def find(generator: Generator) -> LabelledSet:
        data = characters(source)
        members = [i for i, group in enumerate(data.groups or ()) if group == name]
        return data.select([members[i] for i in spread(len(members), n_classes)])

    return find


def scripts(source: str, names: tuple[str, ...]) -> Callable[[Generator], LabelledSet]:
    """Which alphabet a character is of."""

    def find(generator: Generator) -> LabelledSet:
        data = characters(source)
        return grouped(
            data, {name: [i for i, group in enumerate(data.groups or ()) if group == name] for name in names}
        )

    return find


def grouped(data: LabelledSet, members: dict[str, list[int]]) -> LabelledSet:
    """The set whose classes are groups of classes."""
    found = data.select([i for group in members.values() for i in group])
    label = torch.repeat_interleave(torch.arange(len(members)), torch.tensor([len(g) for g in members.values()]))
    return LabelledSet(found.x, label[found.y], tuple(members))


@cache
def cifar() -> LabelledSet:
    """CIFAR-100, all of it."""
    return joined([cifar_fs("train"), cifar_fs("validation"), cifar_fs("test")])


def cifar_classes(*names: str) -> Callable[[Generator], LabelledSet]:
    """Classes of CIFAR-100; the name of a superclass stands for its five."""
    wanted = [name for group in names for name in SUPERCLASSES.get(group, group).split()]
    return lambda generator: cifar().select([cifar().class_names.index(name) for name in wanted])


def cifar_groups(*names: str) -> Callable[[Generator], LabelledSet]:
    """Superclasses of CIFAR-100, one class each."""
    place = {name: i for i, name in enumerate(cifar().class_names)} if locate("cifar100_lossless") else {}
    return lambda generator: grouped(cifar(), {n: [place[c] for c in SUPERCLASSES[n].split()] for n in names})


@cache
def arrays(path: str) -> dict[str, np.ndarray]:
    """A file of arrays in the data folder."""
    found = locate(path)
    if found is None:
        raise DataNotFoundError(f"{path} is not at hand. Set QUICKSTUDY_DATA to the folder that holds it.")
    with np.load(found, allow_pickle=False) as file:
        return {name: file[name] for name in file}


def small(name: str, names: tuple[str, ...], only: tuple[str, ...] = ()) -> Callable[[Generator], LabelledSet]:
    """Fashion, MNIST or digits, or some classes of it."""

    def find(generator: Generator) -> LabelledSet:
        stored = arrays("mnist_like/mnist_like.npz")
        x, y = torch.from_numpy(stored[f"{name}_X"])[:, None], torch.from_numpy(stored[f"{name}_y"]).long()
        x = x * (255 // 16) if name == "digits8" else x
        data = LabelledSet(x, y, names)
        return data.select([names.index(name) for name in only]) if only else data

    return find


def as_series(find: Callable[[Generator], LabelledSet], side: int) -> Callable[[Generator], LabelledSet]:
    """Pictures made smaller and read row by row, as series of one channel."""

    def read(generator: Generator) -> LabelledSet:
        data = find(generator)
        return LabelledSet(as_float(data.x, side).flatten(2), data.y, data.class_names)

    return read


def ucr(name: str) -> Callable[[Generator], LabelledSet]:
    """A set of the UCR and UEA archives, its two parts together."""

    def find(generator: Generator) -> LabelledSet:
        stored = arrays("ucr_packaged/ucr_packaged.npz")
        x = np.concatenate([stored[f"{name}__Xtr"], stored[f"{name}__Xte"]])
        y = np.concatenate([stored[f"{name}__ytr"], stored[f"{name}__yte"]])
        values, labels = np.unique(y, return_inverse=True)
        return LabelledSet(torch.from_numpy(x).float(), torch.from_numpy(labels), tuple(f"class {v}" for v in values))

    return find


def uniform(low: float, high: float, *size: int, generator: Generator) -> Tensor:
    """Numbers between two others."""
    return low + (high - low) * torch.rand(*size, generator=generator)


def cylinder_bell_funnel(noise: float, n: int = 250, length: int = 64) -> Callable[[Generator], LabelledSet]:
    """A plateau, a rise or a fall somewhere in noise.

    References:
        Saito, Local feature extraction and its applications using a library of bases, 1994.
    """

    def draw(generator: Generator) -> LabelledSet:
        t = torch.arange(length).float()
        start = uniform(length / 8, length / 4, 3, n, 1, generator=generator)
        stop = start + uniform(length / 4, 3 * length / 4, 3, n, 1, generator=generator)
        height = 6 + torch.randn(3, n, 1, generator=generator)
        inside = ((t >= start) & (t <= stop)).float()
        ramp = (t - start) / (stop - start)
        shapes = torch.stack([torch.ones(n, length), ramp[1], 1 - ramp[2]])
        x = height * inside * shapes + noise * torch.randn(3, n, length, generator=generator)
        return LabelledSet(
            x.flatten(0, 1)[:, None], torch.arange(3).repeat_interleave(n), ("cylinder", "bell", "funnel")
        )

    return draw


def control_charts(noise: float, n: int = 140, length: int = 60) -> Callable[[Generator], LabelledSet]:
    """Six states of a process: steady, cyclic, rising, falling, and shifted up or down.

    References:
        Alcock and Manolopoulos, Time-Series Similarity Queries Employing a Feature-Based Approach, 1999.
    """

    def draw(generator: Generator) -> LabelledSet:
        t = torch.arange(length).float()
        period, slope = (uniform(*ends, n, 1, generator=generator) for ends in ((10.0, 15.0), (0.2, 0.5)))
        jump, when = (uniform(*ends, n, 1, generator=generator) for ends in ((7.5, 20.0), (length / 3, 2 * length / 3)))
        shapes = [torch.zeros(n, length), 12 * torch.sin(2 * math.pi * t / period), slope * t, -slope * t]
        shapes += [jump * (t >= when), -jump * (t >= when)]
        x = torch.stack(shapes) + noise * torch.randn(6, n, length, generator=generator)
        names = ("steady", "cyclic", "rising", "falling", "shifted up", "shifted down")
        return LabelledSet(x.flatten(0, 1)[:, None], torch.arange(6).repeat_interleave(n), names)

    return draw


def two_patterns(noise: float, n: int = 200, length: int = 96) -> Callable[[Generator], LabelledSet]:
    """Two steps, each up or down, at any two places in noise; which two, in their order.

    References:
        Geurts, Contributions to decision tree induction: bias/variance tradeoff and time series classification, 2002.
    """

    def draw(generator: Generator) -> LabelledSet:
        t, parts = torch.arange(length).float(), []
        for first in (1.0, -1.0):
            for second in (1.0, -1.0):
                x = noise * torch.randn(n, length, generator=generator)
                for sign, low, high in ((first, 0, length / 2), (second, length / 2, length)):
                    width = uniform(length / 8, length / 3, n, 1, generator=generator)
                    start = low + uniform(0, 1, n, 1, generator=generator) * (high - low - width)
                    inside = (t >= start) & (t < start + width)
                    step = 5 * sign * torch.where(t < start + width / 2, -1.0, 1.0)
                    x = torch.where(inside, x + step, x)
                parts.append(x)
        names = ("up up", "up down", "down up", "down down")
        return LabelledSet(torch.cat(parts)[:, None], torch.arange(4).repeat_interleave(n), names)

    return draw


DIGITS = tuple("0123456789")
CLOTHES = ("T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "trainer", "bag", "boot")
TOPS = ("T-shirt", "pullover", "dress", "coat", "shirt")
SCRIPTS = ("latin", "arabic", "canadian syllabics", "mathematical operators")

RECIPES: dict[str, Recipe] = {
    "glyphs-greek": Recipe(alphabet("glyphs", "greek", 30), 6, 4, 10, 14),
    "cifar-vehicles": Recipe(
        cifar_classes("bicycle", "bus", "motorcycle", "rocket", "tank", "tractor"), 120, 40, 100, 16
    ),
    "fashion": Recipe(small("fashion", CLOTHES), 25, 20, 80, 14),
    "omniglot-hiragana": Recipe(alphabet("omniglot", "Japanese_(hiragana)", 30), 6, 4, 10, 14),
    "control-charts": Recipe(control_charts(8.0), 12, 20, 100),
    "mnist": Recipe(small("mnist", DIGITS), 15, 20, 80, 14),
    "glyphs-arabic": Recipe(alphabet("glyphs", "arabic", 30), 6, 4, 10, 14),
    "cifar-scenes": Recipe(cifar_classes("large_natural_outdoor_scenes"), 120, 60, 120, 16),
    "omniglot-korean": Recipe(alphabet("omniglot", "Korean", 30), 6, 4, 10, 14),
    "japanese-vowels": Recipe(ucr("JapaneseVowels_eq"), 3, 10, 40),
    "fashion-tops": Recipe(small("fashion", CLOTHES, TOPS), 60, 40, 120, 14),
    "glyphs-scripts": Recipe(scripts("glyphs", SCRIPTS), 150, 50, 120, 14),
    "cifar-kinds": Recipe(
        cifar_groups("flowers", "vehicles_1", "people", "large_natural_outdoor_scenes", "household_furniture"),
        120,
        60,
        120,
        16,
    ),
    "cylinder-bell-funnel": Recipe(cylinder_bell_funnel(4.0), 16, 20, 200),
    "omniglot-gujarati": Recipe(alphabet("omniglot", "Gujarati", 30), 6, 4, 10, 14),
    "digits": Recipe(small("digits8", DIGITS), 8, 20, 80),
    "glyphs-mathematics": Recipe(alphabet("glyphs", "mathematical operators", 30), 6, 4, 10, 14),
    "cifar-animals": Recipe(
        cifar_classes("beetle", "chimpanzee", "dolphin", "leopard", "rabbit", "turtle"), 120, 40, 100, 16
    ),
    "two-patterns": Recipe(two_patterns(2.0), 20, 20, 120),
    "omniglot-katakana": Recipe(alphabet("omniglot", "Japanese_(katakana)", 30), 6, 4, 10, 14),
    "digits-in-a-row": Recipe(as_series(small("mnist", DIGITS), 10), 40, 20, 80),
    "cifar-garden": Recipe(cifar_classes("mushroom", "orange", "pear", "poppy", "rose", "sunflower"), 120, 40, 100, 16),
}
"""In an order that mixes kinds, so that the first few of them are useful without the rest."""
