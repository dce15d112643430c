"""The one training loop: it serves every learner, because `loss` is all that it calls."""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Generator, Tensor
from torch.optim import Optimizer

from quickstudy.errors import DeviceLostError, DivergedError, ForeignArtefactError, OutputExistsError, ShapeError
from quickstudy.learners.boundary import check_finite
from quickstudy.learners.learner import HOW, Learner
from quickstudy.nets.choices import check_choices
from quickstudy.tasks.task import TaskSource
from quickstudy.training.checkpoint import CHECKPOINT, read_checkpoint, write_checkpoint
from quickstudy.training.evaluate import evaluate
from quickstudy.training.history import History, Progress

if TYPE_CHECKING:
    from lightning_fabric import Fabric

logger = logging.getLogger(__name__)

Schedule = Literal["constant", "cosine"]
VALIDATIONS = 20
NOISE = 2_000_003  # between the seeds of tasks and of a learner's own noise


def meta_train(
    learner: Learner,
    source: TaskSource,
    *,
    steps: int,
    tasks_per_step: int = 4,
    lr: float | None = None,
    schedule: Schedule = "constant",
    clip: float | None = None,
    seconds: float = math.inf,
    validation: TaskSource | None = None,
    validate_every: int | None = None,
    validation_tasks: int = 200,
    seed: int = 0,
    out: Path | str | None = None,
    resume: bool = False,
    checkpoint_seconds: float = 60.0,
    clock: Callable[[], float] = time.perf_counter,
    settings: Mapping[str, Any] | None = None,
    fabric: "Fabric | None" = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> History:
    """Meta-trains a learner on the tasks of a source.

    Afterwards the learner is in evaluation mode, on the device that it came from, and holds its best weights on
    `validation`, or its last ones where there is none. On several devices the gradient is that of one device with all
    tasks, except where batch normalisation uses the statistics of a whole step, or a learner compares its tasks
    (`PrototypicalNetwork`'s `pull`), which are then those of each device's share, and where a network drops out. A run
    that is resumed continues bit for bit: parameters, optimiser, tasks and random state; with `seconds` its rates
    follow the clock, which does not repeat. It may be given another `lr` or `clip`, as where it had diverged, which the
    history tells.

    Args:
        learner: Is trained in place.
        source: Of the meta-training tasks.
        steps: Outer steps.
        tasks_per_step: Tasks a step, over all devices.
        lr: Outer rate; by default the learner's own, and that of before in a run that is resumed.
        schedule: "cosine" anneals the outer rate to zero over the run.
        clip: Largest norm of the outer gradient; by default none, and that of before in a run that is resumed.
        seconds: Stop after so many seconds of training, validation not counted; schedules then follow the clock.
        validation: Where the tasks come from that choose the best weights.
        validate_every: Steps between validations; by default there are twenty in a run.
        validation_tasks: How many tasks that are, the same ones every time.
        seed: Of the tasks and of all noise in training; torch's own random state begins with it, on every device.
        out: A folder for the checkpoint; nothing is written without it.
        resume: Go on from the checkpoint in `out`, or start where there is none.
        checkpoint_seconds: Time between checkpoints.
        clock: What `seconds` are read from; `time.process_time` counts those of the processor alone, of all threads,
            so that a comparison at equal time does not suffer from what else the machine does.
        settings: More that a resumed run must have in common with this one, by name, in plain JSON values.
        fabric: Devices, precision and loggers; by default one device, the fastest there is, in float32. It must be
            launched.
        on_progress: Is called after every step and validation.

    Raises:
        DivergedError: Where a loss, or an answer to a validation task in a regression, is not finite; the last
            checkpoint is older than that step.
        ForeignArtefactError, DamagedArtefactError: Where the checkpoint is of another run, or cannot be read.
        OutputExistsError: Where `out` holds a checkpoint and `resume` is False.
        TaskError: Where inputs or targets hold NaN or infinity.
        ShapeError: Where the learner has no parameters, the devices do not divide the tasks of a step, a number of
            steps or tasks is too small, or there is no such schedule.
        DeviceLostError: Where the devices no longer hear each other, as when the process of one has ended.

    Example:
        >>> import torch
        >>> from quickstudy import MLP, Episodes, LabelledSet, PrototypicalNetwork, meta_train
        >>> data = LabelledSet(torch.rand(40, 8), torch.arange(40) % 4, ("ant", "bee", "cat", "dog"))
        >>> history = meta_train(PrototypicalNetwork(MLP(8, 16)), Episodes(data, n_way=3, n_query=5), steps=10)
        >>> history.step
        10
    """
    check_plan(
        steps=steps,
        tasks_per_step=tasks_per_step,
        schedule=schedule,
        validate_every=validate_every,
        seconds=seconds,
        clip=clip,
        validation_tasks=validation_tasks,
    )
    fabric = fabric or one_device()
    if not any(parameter.requires_grad for parameter in learner.parameters()):
        raise ShapeError(f"{type(learner).__name__} has no parameters that learn, so there is nothing to meta-train.")
    if tasks_per_step % fabric.world_size:
        raise ShapeError(f"{tasks_per_step} tasks a step do not divide among {fabric.world_size} devices.")
    home = next(learner.parameters()).device
    run = _Run(learner, fabric, lr, seed)
    folder = None if out is None else Path(out)
    settings = {
        **(settings or {}),
        "learner": type(learner).__name__,
        "parameters": sum(parameter.numel() for parameter in learner.parameters()),
        **{f"option {name}": value for name, value in learner.options.items() if name not in HOW},
        "tasks_per_step": tasks_per_step,
        "lr": [group["lr"] for group in run.optimizer.param_groups],
        "schedule": schedule,
        "clip": clip,
        "seed": seed,
        "precision": fabric.strategy.precision.precision,
        **({"steps": steps} if schedule == "cosine" or type(learner).at is not Learner.at else {}),
    }
    if folder is not None and (folder / CHECKPOINT).exists():
        if not resume:
            raise OutputExistsError(
                f"{folder} holds the checkpoint of an earlier run. Resume that (--resume), or choose another folder."
            )
        asked = {"lr": None if lr is None else settings["lr"], "clip": clip}  # the remedies where it had diverged
        state = read_checkpoint(folder, {name: value for name, value in settings.items() if name not in asked})
        run.load(state)
        logger.info("resuming from step %d", run.history.step)
        for name, value in asked.items():
            before = state["settings"].get(name)
            if value is None or value == before or run.history.is_over(steps, seconds):
                settings[name] = before
            else:
                run.history.changes.append(f"{name} was {before} until step {run.history.step}")
                logger.warning("%s; it is %s from now on", run.history.changes[-1], value)
        run.begin_at(settings["lr"])
        clip = settings["clip"]
    run.history.lr, run.history.clip = settings["lr"], settings["clip"]
    history = run.history
    share = slice(fabric.global_rank, None, fabric.world_size)
    learner.train()
    since_checkpoint = time.monotonic()
    saved = run.history.step

    def save() -> None:
        nonlocal since_checkpoint, saved
        if folder is not None and fabric.is_global_zero:
            write_checkpoint(folder, settings, run.state())
        since_checkpoint, saved = time.monotonic(), run.history.step

    def diverged(what: str) -> DivergedError:
        if folder and saved:
            last = f"The last good checkpoint is {folder / CHECKPOINT}, of step {saved}: go on from it (--resume) with"
            less = f"an lr below {history.lr[0]:g}, or with a clip{'' if clip is None else f' below {clip:g}'}"
            return DivergedError(f"{what}. {last} {less}; or begin anew with lower inner rates, or fewer inner steps.")
        return DivergedError(f"{what}. Lower the rates (lr, the inner lr), or clip the gradient.")

    def validate() -> None:
        if validation is None:
            return
        try:
            found = evaluate(learner, validation, tasks=validation_tasks, seed=seed + 1_000_003)
        except DivergedError as error:
            raise diverged(f"after step {history.step}, {str(error).partition('. ')[0]}") from None
        if run.history.add_validation(found):
            run.best = {name: value.detach().clone() for name, value in learner.state_dict().items()}
        fabric.log(f"validation {found.metric}", found.mean, step=run.history.step)
        report()

    def report() -> None:
        if on_progress is not None:
            on_progress(Progress(run.history, steps, seconds))

    while not history.is_over(steps, seconds):
        start = clock()
        progress = max(history.step / steps, history.seconds / seconds)
        learner.at(progress)
        run.set_rates(0.5 * (1 + math.cos(math.pi * progress)) if schedule == "cosine" else 1.0)
        tasks = source.sample(tasks_per_step, generator=run.generator)[share].to(fabric.device)
        with fabric.autocast():
            loss = learner.loss(tasks, generator=run.noise).mean()
        value = run.mean(float(loss.detach()))
        if not math.isfinite(value):
            seen = tasks.to("cpu").everything
            check_finite("inputs", seen.x, seen.mask)
            check_finite("targets", seen.y, seen.mask)
            raise diverged(f"the loss is {value} at step {history.step + 1}")
        run.optimizer.zero_grad()
        fabric.backward(loss)
        run.share_gradients()
        run.step(clip)
        # All devices have the mean time, so that they agree on when to stop.
        history.add_step(value, run.mean(clock() - start))
        fabric.log("loss", value, step=history.step)
        report()
        done = history.is_over(steps, seconds)
        if validate_every is None:
            part = max(history.step / steps, history.seconds / seconds)
            due = int(VALIDATIONS * part) > int(VALIDATIONS * progress)
        else:
            due = history.step % validate_every == 0
        if due or done:
            if not run.is_finite():
                raise diverged(f"the weights are no longer finite after step {history.step}")
            validate()
            save()
        elif time.monotonic() - since_checkpoint > checkpoint_seconds and run.is_finite():
            save()
    if run.best is not None:
        learner.load_state_dict(run.best)
    learner.to(home).eval()
    return history


def one_device() -> "Fabric":
    """The fastest there is. Fabric brings the whole of torch's compiler, so it is imported where something trains."""
    from lightning_fabric import Fabric

    return Fabric(accelerator="auto", devices=1)


def check_plan(
    *,
    steps: int,
    tasks_per_step: int,
    schedule: str,
    seconds: float,
    clip: float | None,
    validation_tasks: int,
    validate_every: int | None = None,
) -> None:
    """Raises ShapeError where a run cannot be made of these."""
    for name, value, least in (
        ("steps", steps, 0),
        ("tasks_per_step", tasks_per_step, 1),
        ("validate_every", validate_every, 1),
    ):
        if value is not None and value < least:
            raise ShapeError(f"{name} is {value}, but for meta-training it is at least {least}.")
    for name, number in (("seconds", seconds), ("clip", clip)):
        if number is not None and not number > 0:
            raise ShapeError(f"{name} is {number}, but for meta-training it is above 0.")
    if validation_tasks < 2:
        raise ShapeError(f"{validation_tasks} validation tasks have no interval. Take two or more.")
    check_choices("meta-training", meta_train, {"schedule": schedule})


class _Run:
    """What a run consists of at a step: all of it goes into a checkpoint."""

    def __init__(self, learner: Learner, fabric: "Fabric", lr: float | None, seed: int) -> None:
        self.learner, self.fabric = learner, fabric
        fabric.to_device(learner)
        self.optimizer: Optimizer = learner.optimizer(lr)
        for group in self.optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        self.generator = Generator().manual_seed(seed)
        self.noise = Generator().manual_seed(seed + NOISE)  # apart, so that all learners meet the same tasks
        self.history = History()
        self.best: dict[str, Tensor] | None = None
        parameters = dict(learner.named_parameters()).keys()
        self.watched = [
            name
            for name, value in learner.state_dict().items()
            if isinstance(value, Tensor) and (name in parameters or bool(value.isfinite().all()))
        ]
        torch.manual_seed(seed)

    def begin_at(self, rates: Sequence[float]) -> None:
        """Sets the outer rates, of each group of parameters, that schedules begin at."""
        for group, rate in zip(self.optimizer.param_groups, rates):
            group["initial_lr"] = rate

    def set_rates(self, factor: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = factor * group["initial_lr"]

    def share_gradients(self) -> None:
        """Averages gradients and running statistics over the devices."""
        if self.fabric.world_size == 1:
            return
        parts = [p.grad for p in self.learner.parameters() if p.grad is not None]
        parts += [buffer for buffer in self.learner.buffers() if buffer.is_floating_point()]
        mean = self.over_devices(torch.cat([part.flatten() for part in parts]))
        for part, value in zip(parts, mean.split([part.numel() for part in parts])):
            part.copy_(value.view_as(part))

    def mean(self, value: float) -> float:
        """The mean of a number over the devices."""
        if self.fabric.world_size == 1:
            return value
        return float(self.over_devices(torch.tensor(value, dtype=torch.float64)))

    def over_devices(self, value: Tensor) -> Tensor:
        """The mean of a tensor over the devices."""
        try:
            return cast("Tensor", self.fabric.all_reduce(value, reduce_op="mean"))
        except RuntimeError as error:
            said = str(error).partition("\n")[0]
            raise DeviceLostError(
                "the devices no longer hear each other; most likely the process of one has ended, at step "
                f"{self.history.step + 1}. Resume from the last checkpoint (--resume). The backend says: {said}"
            ) from error

    def step(self, clip: float | None) -> None:
        """Updates the parameters; in float16 Fabric has scaled the gradient, and skips a step that overflowed."""
        precision = self.fabric.strategy.precision
        if clip is not None:
            precision.unscale_gradients(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.learner.parameters(), clip)
        precision.optimizer_step(self.optimizer)

    def is_finite(self) -> bool:
        """Whether all parameters are, and the buffers that were when the run began: a mask may hold infinities."""
        state = self.learner.state_dict()
        return all(bool(state[name].isfinite().all()) for name in self.watched)

    def state(self) -> dict[str, Any]:
        device = self.fabric.device
        cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None  # alike on all devices
        return {
            "learner": self.learner.state_dict(),
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "generator": self.generator.get_state(),
            "noise": self.noise.get_state(),
            "random_state": torch.get_rng_state(),
            "cuda_random_state": cuda,
            "history": self.history.to_settings(),
        }

    def load(self, state: dict[str, Any]) -> None:
        try:
            self.learner.load_state_dict(state["learner"])
        except RuntimeError as error:
            said = str(error).strip().splitlines()[-1].strip()
            raise ForeignArtefactError(
                f"the checkpoint is of another network ({said}) Resume with its own, or choose another folder."
            ) from None
        self.best = state["best"]
        try:
            self.optimizer.load_state_dict(state["optimizer"])
        except ValueError as error:
            raise ForeignArtefactError(
                f"the checkpoint is of another optimiser ({error}). Resume with its own, or choose another folder."
            ) from None
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.generator.set_state(state["generator"])
        self.noise.set_state(state["noise"])
        torch.set_rng_state(state["random_state"])
        if self.fabric.device.type == "cuda" and state["cuda_random_state"] is not None:
            torch.cuda.set_rng_state(state["cuda_random_state"], self.fabric.device)
        self.history = History.from_settings(state["history"])
