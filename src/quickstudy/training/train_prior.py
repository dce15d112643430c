"""From a data set to a saved prior: parts, learner, meta-training, calibration."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from quickstudy.errors import DataError, OutputExistsError, ShapeError, TooFewExamplesError
from quickstudy.learners.catalogue import LEARNERS, Options, Recipe
from quickstudy.learners.learner import HOW, Learner
from quickstudy.learners.prior import Prior, provenance, save
from quickstudy.tasks.catalogue import Splits
from quickstudy.tasks.episodes import Episodes, LabelledSet
from quickstudy.training.checkpoint import CHECKPOINT
from quickstudy.training.history import Progress
from quickstudy.training.meta_train import Schedule, check_plan, meta_train, one_device
from quickstudy.training.origin import origin
from quickstudy.training.unknown import calibrate, to_settings

if TYPE_CHECKING:
    from lightning_fabric import Fabric

MOST_QUERIES = 15
"""A class, where nobody said how many."""


@dataclass(frozen=True)
class Plan:
    """The tasks of a meta-training, and how long and at what rate it learns from them."""

    n_way: int = 5
    """Classes a task."""
    n_shot: int = 1
    """Support examples a class."""
    n_query: int | None = None
    """Query examples a class; by default 15, or as many as there are."""
    steps: int = 5000
    """Outer steps."""
    seconds: float = math.inf
    """Stop after so many of training."""
    tasks_per_step: int = 4
    """Tasks a step, over all devices."""
    lr: float | None = None
    """Outer rate; by default the learner's own."""
    schedule: Schedule = "cosine"
    """Of the outer rate."""
    clip: float | None = None
    """Largest norm of the outer gradient."""
    validation_tasks: int = 200
    """Tasks that choose the best weights."""
    seed: int = 0
    """Of everything random."""

    def __post_init__(self) -> None:
        check_plan(
            steps=self.steps,
            tasks_per_step=self.tasks_per_step,
            schedule=self.schedule,
            seconds=self.seconds,
            clip=self.clip,
            validation_tasks=self.validation_tasks,
        )


def train_prior(
    splits: Splits,
    learner: str = "prototypical_network",
    *,
    net: str = "conv4",
    options: Options | None = None,
    net_options: Options | None = None,
    plan: Plan | None = None,
    out: Path | str | None = None,
    resume: bool = False,
    fabric: "Fabric | None" = None,
    on_stage: Callable[[str], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Prior:
    """Meta-trains a learner on the training classes of a data set, and saves it as a prior.

    Its weights are chosen on the validation classes, which also calibrate when it answers "none of these"; those
    of the test are only counted.

    Args:
        splits: The data set, such as `load_splits("glyphs", n_way=5)` or `load_splits("my_classes/", n_way=5)`.
        learner: A name in `LEARNERS`.
        net: A name in `NETS`.
        options: Of the learner.
        net_options: Of the network.
        plan: The tasks, and how long to train.
        out: Folder for the prior and the checkpoint; nothing is written without it.
        resume: Go on from the checkpoint in `out`, with the same data, or start where there is none.
        fabric: Devices, precision and loggers, launched; by default one device, the fastest there is, in float32.
        on_stage: Is told what is being done.
        on_progress: Is called after every step and validation.

    Returns:
        The prior, on the CPU. Of several processes the first calibrates and saves it.

    Raises:
        OutputExistsError: Where `out` holds a prior or a checkpoint and `resume` is False, or a prior without the
            checkpoint that it was made from.
        DataError: Where `out` lies among the classes of a folder that is trained on.
        TooFewExamplesError: Where the data have too few classes, or examples of one.
        ShapeError: Where learner or network cannot be made with these options.
        DivergedError, ArtefactError: As `meta_train`; a checkpoint of other data is foreign.

    Example:
        >>> import torch
        >>> from quickstudy import LabelledSet, PictureEncoder, Plan, train_prior
        >>> from quickstudy.tasks.catalogue import Splits
        >>> def part(seed):
        ...     x = torch.rand(12, 1, 16, 16, generator=torch.Generator().manual_seed(seed))
        ...     return LabelledSet(x, torch.arange(12) % 3, ("ant", "bee", "cat"))
        >>> splits = Splits(part(0), part(1), part(2), PictureEncoder(size=16))
        >>> prior = train_prior(splits, net_options={"width": 4}, plan=Plan(n_way=2, steps=2, validation_tasks=4))
        >>> prior.training["n_query"], prior.training["steps"]
        (3, 2)
    """
    say, plan, folder = on_stage or (lambda stage: None), plan or Plan(), None if out is None else Path(out)
    refuse_to_replace(folder, resume=resume, source=splits.folder)
    n_query = most_queries(plan.n_shot, splits.train, splits.validation) if plan.n_query is None else plan.n_query
    tasks = {"n_way": plan.n_way, "n_shot": plan.n_shot, "n_query": n_query}

    def episodes(part: LabelledSet) -> Episodes:
        return Episodes(part, n_way=plan.n_way, n_shot=plan.n_shot, n_query=n_query)

    for part in (splits.train, splits.validation):
        episodes(part)  # says at once what they lack
    if splits.test.n_classes:  # they are only counted: there must be enough to evaluate on
        try:
            Episodes(splits.test, n_way=plan.n_way, n_shot=plan.n_shot, n_query=1)
        except TooFewExamplesError as error:
            raise TooFewExamplesError(f"the classes that are set aside for the test are too few: {error}") from None
    chosen = dict(options or {})
    if learner == "fine_tune":
        if "n_classes" in chosen:
            raise ShapeError(
                f"n_classes={chosen['n_classes']} is no option of this training: it is the number of classes to train "
                f"on, {splits.train.n_classes}. Leave it out."
            )
        chosen["n_classes"] = splits.train.n_classes
    recipe = Recipe(learner, net, tuple(splits.train.x.shape[1:]), plan.n_way, chosen, dict(net_options or {}))
    torch.manual_seed(plan.seed)
    model = build(recipe)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    fabric = fabric or one_device()
    say(
        f"{learner.replace('_', ' ')}, {sum(p.numel() for p in model.parameters()):,} parameters; "
        f"{splits.train.n_classes} classes to train on, {splits.validation.n_classes} to validate on; {fabric.device}"
    )
    if plan.n_query is None and n_query < MOST_QUERIES:
        poorest = min((int(n), name) for part in (splits.train, splits.validation) for n, name in counted(part))
        say(f"query examples a class: {n_query}, for {poorest[1]!r} has {poorest[0]} examples in all")
    history = meta_train(
        model,
        episodes(splits.train.to(fabric.device)),
        steps=plan.steps,
        tasks_per_step=plan.tasks_per_step,
        lr=plan.lr,
        schedule=plan.schedule,
        clip=plan.clip,
        seconds=plan.seconds,
        validation=episodes(splits.validation.to(fabric.device)),
        validation_tasks=plan.validation_tasks,
        seed=plan.seed,
        out=folder,
        resume=resume,
        settings={
            "source": splits.name,
            **contents(splits),
            **tasks,
            "validation_tasks": plan.validation_tasks,
            **recipe.to_settings(),
            "options": {name: value for name, value in chosen.items() if name not in HOW},
        },
        fabric=fabric,
        on_progress=on_progress,
    )
    best = history.best
    training: dict[str, Any] = {
        **origin(splits, folder),
        **tasks,
        "tasks_per_step": plan.tasks_per_step,
        "lr": history.lr,
        "schedule": plan.schedule,
        "clip": history.clip,
        **({"changed": history.changes} if history.changes else {}),
        "seed": plan.seed,
        "steps": history.step,
        "seconds": round(history.seconds, 1),
        "validation": None if best is None else {"metric": best.metric, "mean": best.mean, "ci95": best.ci95},
        **provenance(),
    }
    model.cpu()
    if fabric.is_global_zero:
        say(f"{history.step} steps in {history.seconds:.0f} s; calibrating when to answer none of these")
        training["unknown"] = to_settings(calibrate(model, splits.validation, n_ways=ways(recipe)))
    prior = Prior(model, recipe, splits.encoder.to_settings(), training)
    if folder is not None and fabric.is_global_zero:
        save(folder, prior)
    return prior


def contents(splits: Splits) -> dict[str, str]:
    """What a resumed run must find in its data again, by part."""
    return {
        f"{part} data": f"{told['examples']} examples of {told['classes']} classes, sha256 {told['sha256'][:12]}"
        for part, told in splits.to_settings().items()
    }


def recalibrate(prior: Prior, data: LabelledSet, *, queries: int = 500) -> Prior:
    """The same prior, with thresholds for "none of these" that are calibrated anew.

    Args:
        prior: With thresholds of an earlier version, or none.
        data: The validation classes of its training.
        queries: As `calibrate`: more of them take longer and err less.
    """
    thresholds = to_settings(calibrate(prior.learner, data, n_ways=ways(prior.recipe), queries=queries))
    return replace(prior, training={**prior.training, "unknown": thresholds})


def refuse_to_replace(out: Path | None, *, resume: bool, source: Path | None = None) -> None:
    """Refuses a folder for a prior.

    Raises:
        OutputExistsError: Where it holds a prior or a checkpoint, unless that is to be gone on with.
        OutputExistsError, DataError: As `refuse_as_folder`.
    """
    if out is None:
        return
    refuse_as_folder(out, source)
    if resume:
        if (out / "prior.json").exists() and not (out / CHECKPOINT).exists():
            raise OutputExistsError(f"{out} holds a prior, but no checkpoint to go on from. Choose another --out.")
        return
    if found := [name for name in ("prior.json", CHECKPOINT) if (out / name).exists()]:
        what = "a prior" if "prior.json" in found else "the checkpoint of an earlier run"
        raise OutputExistsError(f"{out} holds {what}. Go on with it (--resume), or choose another --out.")


def refuse_as_folder(out: Path, source: Path | None = None) -> None:
    """Refuses a place for results.

    Args:
        out: The place.
        source: A folder of classes that is read, where there is one.

    Raises:
        OutputExistsError: Where it is a file.
        DataError: Where it lies among the classes, and would be taken for one the next time.
    """
    if out.exists() and not out.is_dir():
        raise OutputExistsError(f"{out} is a file. Choose a folder as --out.")
    if source is None or not source.expanduser().is_dir():
        return
    if out.resolve().is_relative_to(source.expanduser().resolve()):
        raise DataError(
            f"Results in {out} would lie among the classes of {source} and be taken for one the next time. "
            "Choose an --out outside it."
        )


def most_queries(n_shot: int, *parts: LabelledSet) -> int:
    """Query examples a class where nobody said how many: 15, or what the poorest class leaves."""
    return max(1, min(MOST_QUERIES, *(int(part.counts().min()) - n_shot for part in parts)))


def counted(part: LabelledSet) -> list[tuple[int, str]]:
    """How many examples each class has, and its name."""
    return list(zip(part.counts().tolist(), part.class_names, strict=True))


def build(recipe: Recipe) -> Learner:
    """The learner, with a sentence for an option whose value makes no sense to it."""
    try:
        return recipe.build()
    except (RuntimeError, TypeError, ValueError) as error:
        raise ShapeError(f"{recipe.learner} on {recipe.net} cannot be made with these options: {error}.") from None


def ways(recipe: Recipe) -> list[int]:
    """Numbers of classes that a learner may be asked to tell apart."""
    return [n for n in (2, 3, 5, 10, 20) if LEARNERS[recipe.learner].any_way or n <= recipe.n_way]
