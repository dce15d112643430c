"""`quickstudy train`."""

import math
import os
import shlex
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
import typer
from rich.markup import escape

from quickstudy.cli.options import a_seed, above_0, parse_settings
from quickstudy.cli.terminal import bar, console, how_read, note, tell, watching
from quickstudy.errors import MissingExtraError, ShapeError
from quickstudy.learners.catalogue import LEARNERS, NETS
from quickstudy.tasks.catalogue import SOURCES, load_splits
from quickstudy.tasks.encoder_for import encoder_for_classes
from quickstudy.training.train_prior import Plan, refuse_to_replace, train_prior

if TYPE_CHECKING:
    from lightning_fabric import Fabric

LearnerName = StrEnum("LearnerName", {name: name for name, entry in LEARNERS.items() if entry.trained})  # type: ignore[misc]
NetName = StrEnum("NetName", {name: name for name in NETS})  # type: ignore[misc]


class Schedule(StrEnum):
    constant = "constant"
    cosine = "cosine"


class Resize(StrEnum):
    pad = "pad"
    crop = "crop"
    squash = "squash"


class Precision(StrEnum):
    float32 = "32-true"
    bf16 = "bf16-mixed"
    fp16 = "16-mixed"


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
        float | None, typer.Option(help="Outer rate; by default the learner's own, or as before.", callback=above_0)
    ] = None,
    schedule: Annotated[Schedule, typer.Option(help="Of the outer rate.")] = Schedule.cosine,
    clip: Annotated[
        float | None,
        typer.Option(help="Largest norm of the outer gradient; by default none, or as before.", callback=above_0),
    ] = None,
    net: Annotated[NetName, typer.Option(help="The network.")] = NetName("conv4"),
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="An option of the learner, such as lr=0.1 or steps=5; repeatable."),
    ] = None,
    net_settings: Annotated[
        list[str] | None,
        typer.Option("--set-net", help="An option of the network, such as width=32; repeatable."),
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="Side of a picture of your own, in pixels; by default 28, in colour 32.", min=16)
    ] = None,
    colour: Annotated[
        bool | None,
        typer.Option("--colour/--grey", help="Read your own pictures so; by default in colour where one has some."),
    ] = None,
    ink: Annotated[
        bool | None,
        typer.Option(
            "--ink/--levels",
            help="Read grey pictures as ink on paper, which becomes black, or keep their levels; by default as ink "
            "where most of them is paper.",
        ),
    ] = None,
    resize: Annotated[
        Resize, typer.Option(help="How they become squares: whole with a margin, their middle, or out of proportion.")
    ] = Resize.pad,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave unreadable pictures out.")] = False,
    validation_tasks: Annotated[int, typer.Option(help="Tasks that choose the best weights.", min=2)] = 200,
    seed: Annotated[int, typer.Option(help="Of all but the parting of your classes.", callback=a_seed)] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint in --out, with another --lr or --clip if given.")
    ] = False,
    devices: Annotated[
        int, typer.Option(help="Number of processes or GPUs; under torchrun, as many as that begins.", min=1)
    ] = 1,
    precision: Annotated[Precision, typer.Option(help="Of the arithmetic.")] = Precision.float32,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Log to --out for TensorBoard.")] = False,
) -> None:
    """Meta-train a learner on many small tasks, and save it as a prior.

    Examples:

    `quickstudy train glyphs --learner maml --n-way 5 --n-shot 1 --out runs/maml`

    `quickstudy train my_classes/ --n-way 3 --n-shot 5 --n-query 5 --out runs/mine`

    `quickstudy train glyphs --learner maml --set steps=5 --set lr=0.1 --out runs/maml5 --resume`
    """
    refuse_to_replace(out, resume=resume, source=None if source in SOURCES else Path(source))
    chosen, chosen_net = parse_settings(settings), parse_settings(net_settings)
    own = (
        None
        if source in SOURCES
        else encoder_for_classes(source, size=size, colour=colour, resize=resize.value, ink=ink)
    )
    with bar(f"loading {escape(source)}") as update:
        splits = load_splits(source, n_way=n_way, encoder=own, skip_bad=skip_bad, on_progress=update)
    if own is not None:
        console.print(how_read(own), soft_wrap=True)
    if source in SOURCES and Path(source).is_dir():
        note(f"{source} is the data set; for the folder of that name, write ./{source}")
    plan = Plan(
        n_way=n_way,
        n_shot=n_shot,
        n_query=n_query,
        steps=steps,
        seconds=math.inf if minutes is None else 60 * minutes,
        tasks_per_step=tasks_per_step,
        lr=lr,
        schedule=schedule.value,
        clip=clip,
        validation_tasks=validation_tasks,
        seed=seed,
    )
    fabric = make_fabric(devices, precision, out if tensorboard else None)
    with watching("meta-training") as watch:
        prior = train_prior(
            splits,
            str(learner),
            net=str(net),
            options=chosen,
            net_options=chosen_net,
            plan=plan,
            out=out,
            resume=resume,
            fabric=fabric,
            on_stage=lambda stage: console.print(stage, markup=False, soft_wrap=True),
            on_progress=watch if fabric.is_global_zero else None,
        )
    if not fabric.is_global_zero:
        return
    if not prior.training["unknown"]:
        note(
            f"{splits.validation.n_classes} classes to validate on are too few to calibrate `adapt --unknown`, "
            "which takes 3: train with --n-way 3 or more, or on more classes"
        )
    best, won = prior.training["validation"], ""
    if best is not None:
        how = ", transductive" if prior.recipe.transductive else ""
        won = f" with {best['mean']:.1f} ± {best['ci95']:.1f} {best['metric']} on validation tasks{how}"
    tell(f"saved [bold]{escape(str(out))}[/]{won}\nnext: quickstudy evaluate {escape(shlex.quote(str(out)))}")


def make_fabric(devices: int, precision: Precision, log: Path | None) -> "Fabric":
    """Devices, precision and loggers, launched."""
    from lightning_fabric import Fabric
    from lightning_fabric.utilities.exceptions import MisconfigurationException

    loggers: list[Any] = []
    if log is not None:
        from lightning_fabric.loggers.tensorboard import TensorBoardLogger

        try:
            loggers.append(TensorBoardLogger(log, name="tensorboard"))
        except ModuleNotFoundError:
            raise MissingExtraError("--tensorboard needs TensorBoard: pip install 'quickstudy[tensorboard]'.") from None
    if precision == Precision.fp16 and not torch.cuda.is_available():
        raise ShapeError("16-mixed needs a GPU, and there is none here. Take --precision bf16-mixed, or 32-true.")
    devices, nodes = processes(devices, os.environ)
    try:
        fabric = Fabric(
            accelerator="auto",
            devices=devices,
            num_nodes=nodes,
            strategy="ddp" if devices * nodes > 1 else "auto",
            precision=precision.value,
            loggers=loggers,
        )
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        raise ShapeError(f"{devices} devices in {precision} cannot be had here: {error}") from None
    fabric.launch()
    return fabric


def processes(devices: int, environment: Mapping[str, str]) -> tuple[int, int]:
    """Processes a machine, and machines: those that torchrun has begun, where it has.

    Raises:
        ShapeError: Where that is another number than was asked for.

    Example:
        >>> from quickstudy.cli.train import processes
        >>> processes(1, {}), processes(1, {"LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "4"})
        ((1, 1), (2, 2))
    """
    if "LOCAL_WORLD_SIZE" not in environment:
        return devices, 1
    here, everywhere = int(environment["LOCAL_WORLD_SIZE"]), int(environment["WORLD_SIZE"])
    if devices not in (1, here):
        raise ShapeError(f"torchrun has begun {here} processes here, and --devices is {devices}. Leave --devices out.")
    return here, everywhere // here
