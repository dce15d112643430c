"""What earlier tasks taught a search: the task encoder, AEN and AON, learned in that order and saved as one."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Generator

from quickstudy.artefacts import Artefact, fill, read_artefact, require, write_artefact
from quickstudy.errors import ShapeError
from quickstudy.experience.trial import TaskDescription
from quickstudy.nas.aen import Prior, learn
from quickstudy.nas.aon import AON, AONSearch
from quickstudy.nas.aon_training import CONSIDERED, learn_to_improve
from quickstudy.nas.architecture import Architecture
from quickstudy.nas.bayesian_search import BayesianSearch
from quickstudy.nas.calibration import calibrate, strangers
from quickstudy.nas.facts import log_costs
from quickstudy.nas.portfolio import portfolio
from quickstudy.nas.source import Rows
from quickstudy.nas.tiny import Tiny
from quickstudy.nets.task_encoder import TaskEncoder
from quickstudy.tasks.episodes import to_float
from quickstudy.tasks.task import Task

KIND = "architecture search"
COSTS = 3
"""Proxies that AEN is given: the logarithms of parameters, multiply-adds and peak memory."""
PASSES, STEPS, DROPOUT = 40, 600, 0.2
"""Of AEN's training: passes, and steps at least, of one task each. A search takes the best by AEN of a thousand
members, that is those about which it errs to the better; fewer passes and dropout make these errors small. Chosen on
the 14 tasks of the corpus that live searches are not measured on by default, each predicted from other folds."""
DRAWN = 256
"""Candidates of a proposal, besides neighbours and AON's."""
STARTS = 2
"""Walks of AON begin at so many of the best trials, and of what AEN thinks best: a proposal is to take a tenth of a
second."""
ITERATIONS, WALKS = 150, 16
"""Of AON's meta-training."""
SHAPE, CLASSES = (1, 28, 28), 10
"""Of the space that stands for all: what AEN knows of a network does not depend on them."""


@dataclass(frozen=True)
class SearchPrior:
    """What is known of Tiny from earlier tasks."""

    aen: Prior
    aon: AON | None = None
    encoder: TaskEncoder | None = None
    """Where AEN is told of the task."""
    portfolio: tuple[Architecture, ...] = ()
    """What was best on earlier tasks: among a search's candidates, whose best by AEN begins it."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """What it learned from, in plain values."""

    def describe(self, task: Task, name: str) -> TaskDescription:
        """A task as the prior knows it: embedded by its support set, where it has an encoder."""
        if self.encoder is None:
            return TaskDescription(name)
        generator = Generator().manual_seed(0)
        with torch.no_grad():
            support = task.to("cpu").support  # where searches train
            embedding = self.encoder(to_float(support.x), support.y, support.mask, generator=generator)[0]
        return TaskDescription(name, embedding, self.encoder.digest)

    def proposer(self, *, drawn: int = DRAWN, guarded: bool = True, feedback: bool = True) -> BayesianSearch:
        """Bayesian search around AEN, with AON's candidates."""
        return BayesianSearch(
            self.aen,
            drawn=drawn,
            guarded=guarded,
            feedback=feedback,
            improve=self.aon_search(),
            portfolio=self.portfolio,
        )

    def aon_search(self) -> AONSearch | None:
        """Search by AON alone, where there is one."""
        if self.aon is None:
            return None
        return AONSearch(self.aon, self.aen, costs=log_costs, starts=STARTS, considered=CONSIDERED)


def learn_search_prior(
    experience: Mapping[str, Rows],
    *,
    encoder: TaskEncoder | None = None,
    members: int = 5,
    width: int = 32,
    epochs: int | None = None,
    jitter: float = 0.3,
    folds: int = 3,
    iterations: int = ITERATIONS,
    seed: int = 0,
    training: Mapping[str, Any] | None = None,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> SearchPrior:
    """Learns from what became of members of Tiny on earlier tasks.

    Args:
        experience: By task; each with its space, and with the encoder's embedding where there is an encoder.
        encoder: Already trained; AEN is told its embeddings.
        members: AENs.
        width: Of each.
        epochs: Of AEN; None makes 40, or as many as are 600 steps.
        jitter: Noise on the embeddings, see `learn`.
        folds: Parts of the experience, each left out once, to calibrate AEN and to teach AON; 0 does neither.
        iterations: Of AON, which needs two tasks at least; 0 leaves it out.
        seed: Of all randomness.
        training: What is to be remembered of it, in plain values.
        on_progress: Is told the stage, what is done and how much there is.

    Raises:
        ShapeError: Where there is no task, or one without embedding though there is an encoder.
    """
    say = on_progress or (lambda stage, done, total: None)
    size = 0 if encoder is None else encoder.features
    if bare := [name for name, rows in experience.items() if size and (rows.task is None or len(rows.task) != size)]:
        raise ShapeError(f"{bare[0]} has no embedding of {size} numbers, which this encoder gives. Embed each task.")
    if epochs is None:
        epochs = max(PASSES, math.ceil(STEPS / max(1, len(experience))))
    generator = Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        aen = Prior(
            standing(), members=members, facts=log_costs, task=size, proxies=COSTS, width=width, dropout=DROPOUT
        )
        aon = AON(standing()) if iterations and folds and len(experience) > 1 else None
    training_of: dict[str, Any] = {"epochs": epochs, "jitter": jitter if size else 0.0, "generator": generator}
    learn(aen, experience, **training_of, on_progress=lambda done, total: say("AEN", done, total))
    others = strangers(
        aen, experience, folds=folds, **training_of, on_progress=lambda done, total: say("calibration", done, total)
    )
    calibrate(aen, experience, others, generator=generator)
    if not others:
        aon = None  # of one data set alone, AEN has seen all that AON could learn from
    if aon is not None:
        learn_to_improve(
            aon,
            aen,
            experience,
            others,
            costs=log_costs,
            iterations=iterations,
            walks=WALKS,
            generator=generator,
            on_progress=lambda done, total, value: say("AON", done, total),
        )
    facts = {"tasks": {name: len(rows) for name, rows in experience.items()}, "seed": seed, **(training or {})}
    return SearchPrior(aen, aon, encoder, portfolio(experience, log_costs, standing()), facts)


def standing() -> Tiny:
    """The space that stands for all sizes of inputs."""
    return Tiny(shape=SHAPE, n_classes=CLASSES)


def save_search_prior(path: Path | str, prior: SearchPrior) -> None:
    """Saves a prior as a folder with `prior.json` and `weights.safetensors`."""
    parts = {"aen": prior.aen, "aon": prior.aon, "encoder": prior.encoder}
    tensors = {
        f"{part}.{name}": value
        for part, module in parts.items()
        if module is not None
        for name, value in module.state_dict().items()
    }
    first = next(prior.aen.each())
    settings = {
        "space": prior.aen.space.id,
        "members": len(prior.aen.members),
        "width": first.head[0].out_features,
        "aon": prior.aon is not None,
        "encoder": None if prior.encoder is None else prior.encoder.features,
        "portfolio": [str(architecture) for architecture in prior.portfolio],
        "training": dict(prior.training),
    }
    write_artefact(Path(path), Artefact(KIND, settings, tensors))


def load_search_prior(path: Path | str) -> SearchPrior:
    """Loads a prior, in evaluation mode, on the CPU.

    Raises:
        ArtefactError: Where it is damaged, foreign or newer, or of another version of the space.
        DataNotFoundError: Where the folder holds none.
    """
    folder = Path(path)
    artefact = read_artefact(folder, KIND)

    def read(settings: Mapping[str, Any]) -> SearchPrior:
        space, size = standing(), settings["encoder"]
        if settings["space"] != space.id:
            raise ValueError(f"it is of the space {settings['space']}, and this version has {space.id}")
        aen = Prior(
            space,
            members=int(settings["members"]),
            facts=log_costs,
            task=size or 0,
            proxies=COSTS,
            width=int(settings["width"]),
        )
        aon = AON(space) if settings["aon"] else None
        best = tuple(map(Architecture.parse, settings.get("portfolio", ())))  # older ones have none
        for architecture in best:
            space.architecture(architecture.values)  # or complain; of series or of pictures, choices are the same
        try:
            encoder = TaskEncoder(size) if size else None
        except ShapeError as error:
            raise ValueError(f"of the encoder: {error}") from None
        training = dict(settings["training"])
        len(training.get("tasks", ()))  # or complain
        return SearchPrior(aen, aon, encoder, best, training)

    with torch.random.fork_rng(devices=[]):  # modules draw weights that are replaced at once
        prior: SearchPrior = require(artefact.settings, folder, read)
    for part, module in (("aen", prior.aen), ("aon", prior.aon), ("encoder", prior.encoder)):
        if module is not None:
            start = f"{part}."
            own = {
                name.removeprefix(start): value for name, value in artefact.tensors.items() if name.startswith(start)
            }
            fill(module, own, folder)
            module.eval()
    return prior
