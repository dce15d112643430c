"""A user's own searches as experience: what can be learned from them, and whether that helps."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from quickstudy.errors import QuickstudyError, StudyError
from quickstudy.experience.studies import Studied, connect, disconnect, experience, where
from quickstudy.learners.prior import provenance
from quickstudy.nas.aen import expected
from quickstudy.nas.architecture import Architecture
from quickstudy.nas.corpus import Measured, tiny_corpus
from quickstudy.nas.parameters import parameters_of
from quickstudy.nas.search_prior import ITERATIONS, PASSES, SearchPrior, learn_search_prior, standing
from quickstudy.nas.source import Rows
from quickstudy.nas.tiny import Tiny
from quickstudy.nets.task_encoder import TaskEncoder

FEWEST = 5
"""Finished trials that an order is learned from."""
OTHER = "it is of the space "
OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class OwnStudies:
    """What storages hold that can be learned from."""

    rows: Mapping[str, Rows]
    """By the name of the study's task; of several of the same name, the later ones are numbered."""
    skipped: Mapping[str, str]
    """Studies that are of no use, and why."""
    tasks: Mapping[str, str] = field(default_factory=dict)
    """The task of each of `rows`."""

    @property
    def trials(self) -> int:
        """How many are learned from."""
        return sum(len(rows) for rows in self.rows.values())


@dataclass(frozen=True)
class Check:
    """How two priors order the architectures of a study that neither has learned from."""

    study: str
    task: str
    """Of the study: what several studies of one task say is said once."""
    n: int
    """Architectures."""
    shipped: float
    """Kendall's tau of the prior that comes with quickstudy."""
    learned: float
    """The same of the prior that learned from all the other studies."""


def read_studies(storages: Sequence[str | Path]) -> OwnStudies:
    """What searches of Tiny left in storages: finished trials, with the space and the embedding of their task.

    Args:
        storages: Files of SQLite, or URLs; one that is named twice is read once.

    Raises:
        StudyError: Where a storage cannot be read, or none of them holds a study that can be learned from.
    """
    rows, tasks, skipped, places = dict[str, Rows](), dict[str, str](), dict[str, str](), list[str]()
    for storage in storages:
        base = connect(storage, new=False)
        place = where(base)
        if place.startswith("sqlite:///"):
            place = str(Path(place.removeprefix("sqlite:///")).resolve())
        if place in places:
            disconnect(base)
            continue
        places.append(place)
        spaces = [standing(), Tiny(shape=(1, 64), n_classes=2)]
        try:
            found = [experience(base, parameters_of(space)) for space in spaces]
        finally:
            disconnect(base)
        for studied in (one for each in found for one in each.studies.values()):
            name, task = numbered(studied.task.name, {*rows, *skipped}), studied.task.name
            read = read_study(studied)
            if isinstance(read, str):
                skipped[name] = read
            else:
                rows[name], tasks[name] = read, task
        for study in found[0].skipped.keys() & found[1].skipped.keys():
            skipped[numbered(study, {*rows, *skipped})] = reason([each.skipped[study] for each in found], spaces)
    if not rows:
        what = f"there is nothing to learn from at {' or '.join(places) or 'no place'}"
        why = "; ".join(f"the study {name!r} is skipped, for {text}" for name, text in skipped.items())
        raise StudyError(
            f"{what}: {why or 'there is no study'}. Name the storage of earlier searches, such as out/studies.db."
        )
    return OwnStudies(rows, skipped, tasks)


def numbered(name: str, known: set[str]) -> str:
    """The name, with a number where it is taken."""
    i, found = 1, name
    while found in known:
        i += 1
        found = f"{name} ({i})"
    return found


def reason(reasons: Sequence[str], spaces: Sequence[Tiny]) -> str:
    """Why a study of no space is of no use, or one of a space that is known."""
    own = [text for text in reasons if not text.startswith(OTHER)]
    ids = " or ".join(space.id for space in spaces)
    return own[0] if own else f"{reasons[0].partition(', not ')[0]}, not {ids}"


def read_study(studied: Studied[Architecture]) -> Rows | str:
    """Its finished trials, or why nothing can be learned from it."""
    done = [(trial.choice, trial.value) for trial in studied.trials if trial.value is not None]
    if len(done) < FEWEST:
        return f"it has {len(done)} finished trials, and an order is learned from {FEWEST} at least"
    shape, classes = studied.about.get("shape"), studied.about.get("classes")
    try:
        space = Tiny(shape=tuple(shape), n_classes=classes)  # type: ignore[arg-type]
    except (TypeError, ValueError, QuickstudyError):
        return "it does not say the shape of its inputs, and how many classes there are"
    if space.id != done[0][0].space:
        return f"it is of {done[0][0].space}, and inputs of the shape {space.shape} are not"
    values = torch.tensor([value for _, value in done], dtype=torch.float64)
    architectures, task = tuple(choice for choice, _ in done), studied.task
    of = data_of(task.name)
    return Rows(architectures, values, task=task.embedding, space=space, encoder=task.encoder, data=of)


def data_of(task: str) -> str:
    """The data set of a task, by the name that a search gave it; as of our corpus, what is cut from one counts as one.

    Example:
        >>> from quickstudy.nas.own_studies import data_of
        >>> data_of("omniglot:greek"), data_of("5-way 5-shot tasks of omniglot-alphabets"), data_of("ucr:GunPoint")
        ('omniglot', 'omniglot', 'ucr:GunPoint')
    """
    if task.startswith("ucr:"):
        return task
    found = re.sub(r"^\d+-way \d+-shot tasks of ", "", task).partition(":")[0]
    return {"omniglot-alphabets": "omniglot", "cifar-fs": "cifar", "fc100": "cifar"}.get(found, found)


def learn_from_studies(
    own: OwnStudies,
    *,
    shipped: SearchPrior,
    corpus: bool = True,
    epochs: int | None = None,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> SearchPrior:
    """A prior that has learned from the user's own searches, as the one that comes with quickstudy did from our corpus.

    Of a study, the examples are not at hand any more, only the embedding that was written down with the digest of its
    encoder. Where that is the encoder which is kept, the embedding is learned from; a study of another encoder, or of
    none, or from before digests were written down, is learned from as one of a task like any.

    Args:
        own: As `read_studies` gives them.
        shipped: The prior that comes with quickstudy, whose task encoder is kept.
        corpus: Whether to learn from our corpus too.
        epochs: Of AEN, as `learn_search_prior` has them.
        seed: Of all randomness.
        on_progress: Is told the stage, what is done and how much there is.
    """
    iterations = 0 if shipped.aon is None else ITERATIONS * min(PASSES, epochs or PASSES) // PASSES
    return learn_from(own.rows, shipped, corpus, epochs, iterations, seed, on_progress)


def check_studies(
    own: OwnStudies,
    *,
    shipped: SearchPrior,
    heed: float = 1.0,
    corpus: bool = True,
    epochs: int | None = None,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> tuple[Check, ...]:
    """Whether what is learned from some of the user's tasks holds for another of them, each left out once.

    Studies of one task are left out together. There is nothing to check where there is only one task, nor by a task of
    data that the corpus has, where that is learned from.

    `heed` is how far embeddings are heeded, that of the prior which was learned from all of them (`prior.aen.heed`). It
    was chosen with the task that is left out among them, as one of five values, which leans a little towards what was
    learned. Other arguments are those of `learn_from_studies`.
    """
    found, names = list[Check](), list(dict.fromkeys(own.tasks.values()))
    if len(names) < 2:
        return ()
    known = {one.data for one in of_corpus(shipped).values()} if corpus else set()
    of = {task: {own.rows[study].data for study in own.rows if own.tasks[study] == task} for task in names}
    names = [task for task in names if not of[task] & known]
    for i, task in enumerate(names):

        def say(stage: str, done: int, total: int, i: int = i) -> None:
            if on_progress is not None:
                on_progress("checking", i * total + done, len(names) * total)

        others = {name: rows for name, rows in own.rows.items() if own.tasks[name] != task}
        learned = learn_from(others, shipped, corpus, epochs, 0, seed, say, folds=0)
        learned.aen.heed.fill_(heed)
        for name, rows in own.rows.items():
            if own.tasks[name] == task:
                found.append(Check(name, task, len(rows), order(shipped, rows), order(learned, rows)))
    return tuple(found)


def learn_from(
    own: Mapping[str, Rows],
    shipped: SearchPrior,
    corpus: bool,
    epochs: int | None,
    iterations: int,
    seed: int,
    on_progress: OnProgress | None,
    *,
    folds: int = 3,
) -> SearchPrior:
    """Learns from studies and the corpus."""
    measured = of_corpus(shipped) if corpus else {}
    embeddings: Mapping[str, Sequence[float]] = shipped.training.get("embeddings", {})
    # An encoder whose embeddings of the corpus are not known could tell the corpus from the rest, and nothing else.
    encoder = shipped.encoder if embeddings or not measured else None
    embedded = {name: torch.tensor(values) for name, values in embeddings.items()}
    digest = None if encoder is None else encoder.digest
    known = {
        f"corpus: {name}": replace(task.rows(task=embedded.get(name)), encoder=digest)
        for name, task in measured.items()
    }
    return learn_search_prior(
        {name: replace(rows, task=embedding(rows, encoder)) for name, rows in {**known, **own}.items()},
        encoder=encoder,
        members=len(shipped.aen.members),
        epochs=epochs,
        folds=folds,
        iterations=iterations,
        seed=seed,
        training=provenance(),
        on_progress=on_progress,
    )


def of_corpus(shipped: SearchPrior) -> Mapping[str, Measured]:
    """What is learned from our corpus.

    A task that the shipped prior was kept from, to be tried on, is kept from this one too: the two are compared.
    """
    measured = tiny_corpus()
    both = shipped.training.get("tasks", {}).keys() & measured.keys()
    return {name: one for name, one in measured.items() if name in both or not both}


def embedding(rows: Rows, encoder: TaskEncoder | None) -> Tensor | None:
    """A task as an encoder knows it; one that it did not embed is a task like any: zero."""
    if encoder is None:
        return None
    return rows.task if rows.task is not None and rows.encoder == encoder.digest else torch.zeros(encoder.features)


def order(prior: SearchPrior, rows: Rows) -> float:
    """Kendall's tau between what a prior expects of a study's architectures and what became of them.

    0 where either says the same of all.
    """
    from scipy.stats import kendalltau  # here, for it takes half a second to load

    said = expected(prior.aen, rows.architectures, embedding(rows, prior.encoder), space=rows.space).mean
    tau = float(kendalltau(said, rows.values).statistic)
    return 0.0 if math.isnan(tau) else tau
