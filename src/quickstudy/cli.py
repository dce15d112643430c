"""The command line: parse, call, print."""

import json
import logging
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from lightning_fabric import Fabric
from lightning_fabric.utilities.exceptions import MisconfigurationException
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from quickstudy import __version__
from quickstudy.adapt_folder import adapt_folder
from quickstudy.demo import run_demo
from quickstudy.errors import (
    DataError,
    DataNotFoundError,
    MissingExtraError,
    OutputExistsError,
    QuickstudyError,
    ShapeError,
)
from quickstudy.learners.catalogue import LEARNERS, NETS, Recipe
from quickstudy.learners.prior import Prior, load, provenance, save
from quickstudy.priors import shipped, shipped_names
from quickstudy.report import Score
from quickstudy.tasks.catalogue import SOURCES, Splits, load_splits
from quickstudy.tasks.episodes import Episodes, LabelledSet
from quickstudy.tasks.pictures import PictureEncoder
from quickstudy.training.checkpoint import CHECKPOINT
from quickstudy.training.evaluate import evaluate as evaluate_learner
from quickstudy.training.history import Progress as TrainingProgress
from quickstudy.training.meta_train import meta_train
from quickstudy.training.unknown import calibrate, to_settings

app = typer.Typer(
    help="Learns from tasks already solved, so that the next one takes seconds.\n\nBegin with: quickstudy demo",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
)
STOPPED = 130
out_console = Console(highlight=False)
# Of several processes, the first speaks for all.
console = Console(stderr=True, highlight=False, quiet=os.environ.get("LOCAL_RANK", "0") != "0")

LearnerName = StrEnum("LearnerName", {name: name for name, entry in LEARNERS.items() if entry.trained})  # type: ignore[misc]
NetName = StrEnum("NetName", {name: name for name in NETS})  # type: ignore[misc]


class Schedule(StrEnum):
    constant = "constant"
    cosine = "cosine"


class Split(StrEnum):
    train = "train"
    validation = "validation"
    test = "test"


class Precision(StrEnum):
    float32 = "32-true"
    bf16 = "bf16-mixed"
    fp16 = "16-mixed"


def main() -> None:
    """The entry point: runs a command, and turns what goes wrong into one sentence and a non-zero exit."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    try:
        # Typer turns Ctrl-C into the exit code 130, and older ones into Abort.
        if code := app(standalone_mode=False):
            raise KeyboardInterrupt if code == STOPPED else SystemExit(code)
    except (KeyboardInterrupt, typer.Abort):
        goes_on = "; `quickstudy train ... --resume` goes on." if sys.argv[1:2] == ["train"] else "."
        fail(f"stopped. What was saved is intact{goes_on}", STOPPED)
    except QuickstudyError as error:
        fail(str(error), 1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        fail(f"{where}{error.strerror or error}. What was saved before is intact.", 1)
    except Exception as error:
        # Typer's own usage errors know how to show themselves, with the usage line.
        if not hasattr(error, "format_message"):
            raise
        error.show()  # type: ignore[attr-defined]
        sys.exit(2)


def fail(message: str, code: int) -> None:
    """Says what went wrong, and leaves."""
    console.print("[bold red]error[/]", end=" ")
    console.print(message, markup=False, soft_wrap=True)
    sys.exit(code)


def tell(text: str) -> None:
    """Prints a result, paths in one piece."""
    out_console.print(text, soft_wrap=True)


def version(show: bool) -> None:
    if show:
        out_console.print(f"quickstudy {__version__}")
        raise typer.Exit


@app.callback()
def options(
    show: Annotated[bool, typer.Option("--version", callback=version, is_eager=True, help="Show the version.")] = False,
) -> None:
    """Options before the command."""


@contextmanager
def bar(description: str) -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar; what it yields is called with what is done, how much there is, and a note."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[note]}"))
    hidden = not console.is_terminal  # a log or a pipe has no use for it
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task(description, total=None, note="")

        def update(done: int, total: int, note: str = "") -> None:
            progress.update(task, completed=done, total=total, note=note)

        yield update


@contextmanager
def watching(description: str) -> Iterator[Callable[[TrainingProgress], None]]:
    """A progress bar for meta-training, with rate, loss and the last validation."""
    with bar(description) as update:

        def watch(seen: TrainingProgress) -> None:
            history = seen.history
            note = f"{seen.rate:.1f} steps/s  loss {history.recent_loss:.3f}"
            if history.validations:
                last = history.validations[-1]
                note += f"  validation {last.mean:.1f} ± {last.ci95:.1f}"
            update(int(1000 * seen.fraction), 1000, note)

        yield watch


def above_0(value: float | None) -> float | None:
    """Refuses 0, and what is no number, of an option that must be positive."""
    if value is not None and not 0 < value < math.inf:
        raise typer.BadParameter(f"{value} is not above 0.")
    return value


def a_seed(value: int) -> int:
    """Refuses numbers that cannot be seeds."""
    if not 0 <= value < 2**62:
        raise typer.BadParameter(f"{value} is no seed: take 0 or a positive whole number below 2**62.")
    return value


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("demo"),
    seconds: Annotated[float, typer.Option(help="Time for meta-training.", min=1, callback=above_0)] = 60.0,
    tasks: Annotated[int, typer.Option(help="Test tasks of each kind.", min=2)] = 600,
    seed: Annotated[int, typer.Option(help="Of everything random.", callback=a_seed)] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier report.")] = False,
) -> None:
    """Meta-train a learner before your eyes, and see it learn characters of alphabets it has never seen.

    Takes about three minutes on two cores, offline, and writes `report.html`.

    Example: `quickstudy demo --seconds 30`
    """
    prepare(out, "report.html", force=force)
    with bar("drawing glyphs") as update:
        splits = load_splits("glyphs", n_way=20, on_progress=lambda done, total: update(done, total, ""))
    with watching("meta-training on 20-way tasks") as watch, status() as say:
        report = run_demo(
            splits,
            out=out,
            seconds=seconds,
            tasks=tasks,
            seed=seed,
            on_training=watch,
            on_stage=say,
            on_score=show_score,
        )
    live = report.headline[0]
    tell(
        f"\nAfter {report.seconds:.0f} seconds of meta-training: [bold]{live.mean:.1f} %[/] at {live.setting}, "
        f"on alphabets it has never seen.\nThe report: [bold]{escape(str(out / 'report.html'))}[/]"
    )


def show_score(score: Score) -> None:
    """One line of the demo's comparison."""
    each = "" if score.seconds is None else f"{1000 * score.seconds:6.1f} ms a task, "
    found = f"[bold]{score.mean:5.1f}[/] {score.interval()} %   {each}{score.n:,} tasks"
    console.print(f"  {score.setting:<15} {score.method:<40} {found}", soft_wrap=True)


@contextmanager
def status() -> Iterator[Callable[[str], None]]:
    """Prints the stages of a job as it reaches them."""
    yield lambda stage: console.print(f"[dim]{stage}[/]")


def prepare(out: Path, *results: str, force: bool) -> None:
    """Makes a folder for results, and refuses where that is impossible or there are results already."""
    if out.exists() and not out.is_dir():
        raise OutputExistsError(f"{out} is a file. Choose a folder as --out.")
    for result in results:
        if (out / result).exists() and not force:
            raise OutputExistsError(f"{out / result} exists. Choose another --out, or replace it with --force.")
    out.mkdir(parents=True, exist_ok=True)


def parse_settings(settings: list[str] | None) -> dict[str, Any]:
    """`["lr=0.1", "statistics=transductive"]` as values by name."""
    values: dict[str, Any] = {}
    for setting in settings or []:
        name, separator, text = setting.partition("=")
        if not separator:
            raise typer.BadParameter(f"{setting!r} is not of the form name=value, such as lr=0.1.")
        values[name.strip().replace("-", "_")] = parse_value(text.strip())
    return values


def parse_value(text: str) -> Any:
    """`text` as a number, true, false or none where it is one."""
    named = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in named:
        return named[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


@app.command()
def train(
    source: Annotated[str, typer.Argument(help=f"One of {', '.join(SOURCES)}; or a folder with a subfolder a class.")],
    out: Annotated[Path, typer.Option(help="Folder for the prior and the checkpoint.")],
    learner: Annotated[LearnerName, typer.Option(help="What is meta-trained.")] = LearnerName("prototypical_network"),
    n_way: Annotated[int, typer.Option(help="Classes a task.", min=2)] = 5,
    n_shot: Annotated[int, typer.Option(help="Support pictures a class.", min=1)] = 1,
    n_query: Annotated[
        int | None, typer.Option(help="Query pictures a class; by default 15, or as many as there are.", min=1)
    ] = None,
    steps: Annotated[int, typer.Option(help="Outer steps.", min=1)] = 5000,
    minutes: Annotated[float | None, typer.Option(help="Stop after so many minutes.", callback=above_0)] = None,
    tasks_per_step: Annotated[int, typer.Option(help="Tasks a step, over all devices.", min=1)] = 4,
    lr: Annotated[
        float | None, typer.Option(help="Outer rate; by default the learner's own.", callback=above_0)
    ] = None,
    schedule: Annotated[Schedule, typer.Option(help="Of the outer rate.")] = Schedule.cosine,
    clip: Annotated[float | None, typer.Option(help="Largest norm of the outer gradient.", callback=above_0)] = None,
    net: Annotated[NetName, typer.Option(help="The network.")] = NetName("conv4"),
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="An option of the learner, such as lr=0.1 or steps=5; repeatable."),
    ] = None,
    net_settings: Annotated[
        list[str] | None,
        typer.Option("--set-net", help="An option of the network, such as width=32; repeatable."),
    ] = None,
    size: Annotated[int, typer.Option(help="Side of a picture of your own, in pixels.", min=16)] = 28,
    colour: Annotated[bool, typer.Option("--colour", help="Read pictures of your own in colour.")] = False,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave unreadable pictures out.")] = False,
    validation_tasks: Annotated[int, typer.Option(help="Tasks that choose the best weights.", min=2)] = 200,
    seed: Annotated[int, typer.Option(help="Of everything random.", callback=a_seed)] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in --out.")] = False,
    devices: Annotated[int, typer.Option(help="Number of processes or GPUs.", min=1)] = 1,
    precision: Annotated[Precision, typer.Option(help="Of the arithmetic.")] = Precision.float32,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Log to --out for TensorBoard.")] = False,
) -> None:
    """Meta-train a learner on many small tasks, and save it as a prior.

    Examples:

    `quickstudy train glyphs --learner maml --n-way 5 --n-shot 1 --out runs/maml`

    `quickstudy train my_classes/ --n-way 3 --n-shot 5 --n-query 5 --out runs/mine`

    `quickstudy train glyphs --learner maml --set steps=5 --set lr=0.1 --out runs/maml5 --resume`
    """
    if not resume and (found := [name for name in ("prior.json", CHECKPOINT) if (out / name).exists()]):
        what = "a prior" if "prior.json" in found else "the checkpoint of an earlier run"
        raise OutputExistsError(f"{out} holds {what}. Go on with it (--resume), or choose another --out.")
    chosen, chosen_net = parse_settings(settings), parse_settings(net_settings)
    own = PictureEncoder(size=size, channels=3 if colour else 1, ink=not colour, resize="crop" if colour else "pad")
    with bar(f"loading {escape(source)}") as update:
        splits = load_splits(
            source, n_way=n_way, encoder=own, skip_bad=skip_bad, on_progress=lambda done, total: update(done, total, "")
        )
    shape = tuple(splits.train.x.shape[1:])
    queries = n_query or most_queries(n_shot, splits.train, splits.validation)
    episodes = {
        split: Episodes(data, n_way=n_way, n_shot=n_shot, n_query=queries)
        for split, data in (("train", splits.train), ("validation", splits.validation))
    }
    if learner == "fine_tune":
        chosen["n_classes"] = splits.train.n_classes
    recipe = Recipe(str(learner), str(net), shape, n_way, chosen, chosen_net)
    torch.manual_seed(seed)
    model = build(recipe)
    prepare(out, force=True)
    fabric = make_fabric(devices, precision, out if tensorboard else None)
    console.print(
        f"{learner.replace('_', ' ')}, {sum(p.numel() for p in model.parameters()):,} parameters; "
        f"{splits.train.n_classes} classes to train on, {splits.validation.n_classes} to validate on; {fabric.device}",
        soft_wrap=True,
    )
    name = source if source in SOURCES else Path(source).resolve().name
    if source in SOURCES and Path(source).is_dir():
        console.print(f"[yellow]note[/] {source} is the data set; for the folder of that name, write ./{source}")
    episodes = {
        split: Episodes(tasks.data.to(fabric.device), n_way=n_way, n_shot=n_shot, n_query=queries)
        for split, tasks in episodes.items()
    }
    with watching("meta-training") as watch:
        history = meta_train(
            model,
            episodes["train"],
            steps=steps,
            tasks_per_step=tasks_per_step,
            lr=lr,
            schedule=schedule.value,
            clip=clip,
            seconds=float("inf") if minutes is None else 60 * minutes,
            validation=episodes["validation"],
            validation_tasks=validation_tasks,
            seed=seed,
            out=out,
            resume=resume,
            settings={"source": name, "n_way": n_way, "n_shot": n_shot, "n_query": queries, **recipe.to_settings()},
            fabric=fabric,
            on_progress=watch if fabric.is_global_zero else None,
        )
    if not fabric.is_global_zero:
        return
    best = history.best
    console.print(f"{history.step} steps in {history.seconds:.0f} s")
    with console.status("calibrating when to answer none of these"):
        thresholds = calibrate(model.cpu(), splits.validation, n_ways=ways(recipe))
    if not thresholds:
        console.print(
            f"[yellow]note[/] {splits.validation.n_classes} classes to validate on are too few to calibrate "
            "`adapt --unknown`, which takes 3: train with --n-way 3 or more, or on more classes",
            soft_wrap=True,
        )
    training = {
        "source": name,
        **origin(source, out, splits),
        "n_way": n_way,
        "n_shot": n_shot,
        "n_query": queries,
        "tasks_per_step": tasks_per_step,
        "lr": lr,
        "schedule": schedule.value,
        "seed": seed,
        "steps": history.step,
        "seconds": round(history.seconds, 1),
        "validation": None if best is None else {"metric": best.metric, "mean": best.mean, "ci95": best.ci95},
        "unknown": to_settings(thresholds),
        **provenance(__version__),
    }
    save(out, Prior(model, recipe, splits.encoder.to_settings(), training))
    note = "" if best is None else f" with {best.mean:.1f} ± {best.ci95:.1f} {best.metric} on validation tasks"
    tell(f"saved [bold]{escape(str(out))}[/]{note}\nnext: quickstudy evaluate {escape(str(out))}")


def most_queries(n_shot: int, *parts: LabelledSet) -> int:
    """Query pictures a class where nobody said how many: 15, or what the poorest class leaves."""
    return max(1, min(15, *(int(part.counts().min()) - n_shot for part in parts)))


def origin(source: str, out: Path, splits: Splits) -> dict[str, Any]:
    """What a prior tells of the data that it was trained on; a folder by its way from the prior."""
    if source in SOURCES:
        return {"data": splits.to_settings()}
    folder = Path(source).resolve()
    try:
        way = Path(os.path.relpath(folder, out.resolve())).as_posix()
    except ValueError:  # on another drive
        way = folder.as_posix()
    names = {part: list(getattr(splits, part).class_names) for part in ("train", "validation", "test")}
    return {"folder": way, "data": splits.to_settings(), "class_names": names}


def trained_on(prior: str, training: Mapping[str, Any]) -> str:
    """The data set, or the folder, that a prior was trained on."""
    name, way = training.get("source"), training.get("folder")
    if name is None:
        raise DataNotFoundError(f"{prior} does not say what it was trained on: name a --source.")
    folder = Path(name) if way is None else (Path(prior) / way).resolve()
    if way is None and name in SOURCES:
        return str(name)
    if not folder.is_dir():
        raise DataNotFoundError(f"{prior} was trained on a folder {name!r}, which is not here: name it with --source.")
    return str(folder)


def check_origin(prior: str, training: Mapping[str, Any], where: str, splits: Splits) -> None:
    """Refuses a folder that has changed since, whose classes may have gone to other parts."""
    then = training.get("data")
    if then is None or then == splits.to_settings():
        return
    if where in SOURCES:
        console.print(f"[yellow]note[/] {where} is not drawn or read here quite as it was when {prior} was trained")
        return
    raise DataError(
        f"{where} has changed since {prior} was trained, and classes that it was trained on may now be in the test. "
        "Restore it, or name it with --source to evaluate on what it holds now."
    )


def ways(recipe: Recipe) -> list[int]:
    """Numbers of classes that a learner may be asked to tell apart."""
    return [n for n in (2, 3, 5, 10, 20) if LEARNERS[recipe.learner].any_way or n <= recipe.n_way]


def build(recipe: Recipe) -> Any:
    """The learner, with a sentence for an option whose value makes no sense to it."""
    try:
        return recipe.build()
    except (RuntimeError, TypeError, ValueError) as error:
        raise ShapeError(f"{recipe.learner} on {recipe.net} cannot be made with these options: {error}.") from None


def make_fabric(devices: int, precision: Precision, log: Path | None) -> Fabric:
    """Devices, precision and loggers, launched."""
    loggers: list[Any] = []
    if log is not None:
        from lightning_fabric.loggers.tensorboard import TensorBoardLogger

        try:
            loggers.append(TensorBoardLogger(log, name="tensorboard"))
        except ModuleNotFoundError:
            raise MissingExtraError("--tensorboard needs TensorBoard: pip install 'quickstudy[tensorboard]'.") from None
    strategy = "ddp" if devices > 1 else "auto"
    try:
        fabric = Fabric(
            accelerator="auto", devices=devices, strategy=strategy, precision=precision.value, loggers=loggers
        )
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        raise ShapeError(f"{devices} devices in {precision} cannot be had here: {error}") from None
    fabric.launch()
    return fabric


def find_prior(name: str) -> Prior:
    """A prior in a folder, or one of those that come with quickstudy."""
    if name in shipped_names():
        return load(shipped(name))
    if not Path(name).exists():
        raise DataNotFoundError(
            f"{name!r} is neither a folder nor a shipped prior ({', '.join(shipped_names()) or 'there is none'})."
        )
    if (Path(name) / CHECKPOINT).exists() and not (Path(name) / "prior.json").exists():
        raise DataNotFoundError(
            f"the training in {name} is not finished: run `quickstudy train ... --resume` to its end."
        )
    return load(name)


@app.command()
def evaluate(
    prior: Annotated[str, typer.Argument(help="Folder of a prior, or the name of a shipped one.")],
    source: Annotated[str | None, typer.Option(help="Data set or folder; by default what it was trained on.")] = None,
    split: Annotated[Split, typer.Option(help="Which of its classes.")] = Split.test,
    tasks: Annotated[int, typer.Option(help="Number of tasks.", min=2)] = 600,
    n_way: Annotated[int | None, typer.Option(help="Classes a task; by default as in training.", min=2)] = None,
    n_shot: Annotated[
        int | None, typer.Option(help="Support pictures a class; by default as in training.", min=1)
    ] = None,
    n_query: Annotated[
        int | None, typer.Option(help="Query pictures a class; by default 15, or as many as there are.", min=1)
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave unreadable pictures out.")] = False,
    seed: Annotated[int, typer.Option(help="Of the tasks.", callback=a_seed)] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Adapt a prior to many tasks of classes it has not seen: the mean accuracy with its 95 % interval.

    Examples:

    `quickstudy evaluate runs/maml --tasks 600`

    `quickstudy evaluate runs/maml --source omniglot --n-shot 5`
    """
    found = find_prior(prior)
    where = source or trained_on(prior, found.training)
    ways, shots = n_way or found.recipe.n_way, n_shot or found.training.get("n_shot", 1)
    with bar(f"loading {escape(Path(where).name)}") as update:
        encoder = PictureEncoder.from_settings(found.encoder)
        splits = load_splits(
            where,
            n_way=found.recipe.n_way,  # as in training, so that a folder's classes go to the same parts
            encoder=encoder,
            skip_bad=skip_bad,
            on_progress=lambda done, total: update(done, total, ""),
        )
    if source is None:
        check_origin(prior, found.training, where, splits)
    data: LabelledSet = getattr(splits, split)
    if (shape := tuple(data.x.shape[1:])) != found.recipe.shape:
        raise ShapeError(
            f"{prior} takes pictures of shape {found.recipe.shape}, and those of {where} are {shape}. "
            "Evaluate it on data like those that it was trained on."
        )
    n_query = n_query or most_queries(shots, data)
    with console.status(f"adapting to {tasks} tasks"):
        result = evaluate_learner(
            found.learner, Episodes(data, n_way=ways, n_shot=shots, n_query=n_query), tasks=tasks, seed=seed
        )
    if as_json:
        values = {"metric": result.metric, "mean": result.mean, "ci95": result.ci95, "n": result.n, "seed": seed}
        out_console.print_json(
            json.dumps({**values, "source": Path(where).name, "split": str(split), "n_way": ways, "n_shot": shots})
        )
    else:
        tell(
            f"{escape(Path(where).name)} {split}, {ways}-way {shots}-shot: {result} in {result.seconds:.1f} s "
            f"({1000 * result.seconds / result.n:.1f} ms a task)"
        )


@app.command()
def adapt(
    prior: Annotated[str, typer.Argument(help="Folder of a prior, or the name of a shipped one.")],
    folder: Annotated[Path, typer.Argument(help="A few labelled pictures, a subfolder a class.")],
    predict: Annotated[Path | None, typer.Option(help="A folder of pictures to name, or one picture.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for predictions.csv and report.html.")] = Path("out"),
    unknown: Annotated[bool, typer.Option("--unknown", help="Answer 'none of these' where it is.")] = False,
    check: Annotated[bool, typer.Option(help="Leave pictures out to compare with simpler methods.")] = True,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave unreadable pictures out.")] = False,
    seed: Annotated[int, typer.Option(help="Of what is left out.", callback=a_seed)] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier result.")] = False,
) -> None:
    """Learn your own classes from a few pictures each, and name the others.

    With two or more pictures a class it checks itself by leaving pictures out, against nearest neighbour and training
    from scratch, and uses what won.

    Examples:

    `quickstudy adapt glyphs_prototypical_network my_classes/ --predict unlabelled/ --out out/`

    `quickstudy adapt runs/mine my_classes/ --predict unlabelled/ --unknown --out out/`
    """
    found = find_prior(prior)
    prepare(out, "report.html", "predictions.csv", force=force)
    with console.status("reading pictures") as line:
        report, answers = adapt_folder(
            found,
            folder,
            name=Path(prior).name,
            predict=predict,
            out=out,
            unknown=unknown,
            check=check,
            skip_bad=skip_bad,
            seed=seed,
            on_stage=line.update,
        )
    if predict is None:
        (out / "predictions.csv").unlink(missing_ok=True)  # of an earlier report, which --force replaced
    for warning in report.warnings:
        console.print(f"[yellow]note[/] {escape(warning)}", soft_wrap=True)
    if report.check is not None:
        table = Table("method", "left-out pictures named rightly (95 % interval)", box=None)
        for score in report.check.scores:
            used = " [bold](used)[/]" if score.method == report.check.used else ""
            table.add_row(f"{score.method}{used}", f"{score.mean:.0f} % {score.interval(0)} of {score.n}")
        out_console.print(table)
    table_at, report_at = escape(str(out / "predictions.csv")), escape(str(out / "report.html"))
    named = "" if answers is None else f"{len(answers.files)} pictures named in {table_at}; "
    tell(f"{named}the report: [bold]{report_at}[/] ({report.seconds:.1f} s)")


@app.command()
def data(
    name: Annotated[str | None, typer.Argument(help="A data set to load, or a folder to look at.")] = None,
    n_way: Annotated[int, typer.Option(help="Classes a task, which every part of a folder must have.", min=2)] = 5,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave unreadable pictures out.")] = False,
) -> None:
    """List the data sets, or load one and say what is in it.

    Examples: `quickstudy data`, `quickstudy data omniglot`, `quickstudy data my_classes/`
    """
    if name is None:
        table = Table("data set", "what it is", box=None)
        for known, source in SOURCES.items():
            table.add_row(f"[bold]{known}[/]", source.summary)
        out_console.print(table)
        out_console.print("\nAnd any folder that has a subfolder of pictures for each class.")
        return
    with bar(f"loading {escape(name)}") as update:
        splits = load_splits(
            name, n_way=n_way, skip_bad=skip_bad, on_progress=lambda done, total: update(done, total, "")
        )
    table = Table("part", "classes", "groups", "examples", "shape", box=None)
    for part in ("train", "validation", "test"):
        found: LabelledSet = getattr(splits, part)
        groups = "" if found.groups is None else str(len(set(found.groups)))
        shape = "x".join(map(str, found.x.shape[1:]))
        table.add_row(part, str(found.n_classes), groups, str(len(found.x)), shape)
    out_console.print(table)


if __name__ == "__main__":
    main()
