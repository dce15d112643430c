"""A user's own searches as experience: what can be learned from them, and whether that helps."""

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
from quickstudy.nas.corpus import tiny_corpus
from quickstudy.nas.hunt import parameters_of
from quickstudy.nas.search_prior import SearchPrior, learn_search_prior, standing, task_size
from quickstudy.nas.source import Rows
from quickstudy.nas.tiny import Tiny

FEWEST = 5
"""Finished trials that an order is learned from."""
EPOCHS = 150
"""Of AEN."""
ITERATIONS = 300
"""Of AON, where the prior that comes with quickstudy has one."""
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
    n: int
    """Architectures."""
    shipped: float
    """Kendall's tau of the prior that comes with quickstudy."""
    learned: float
    """The same of the prior that learned from all the other studies."""


def read_studies(storages: Sequence[str | Path]) -> OwnStudies:
    """What searches of Tiny left in storages: finished trials, with the space and the embedding of their task.

    Args:
        storages: Files of SQLite, or URLs.

    Raises:
        StudyError: Where a storage cannot be read, or none of them holds a study that can be learned from.
    """
    rows, tasks, skipped, places = dict[str, Rows](), dict[str, str](), dict[str, str](), list[str]()
    for storage in storages:
        base = connect(storage, new=False)
        places.append(where(base).removeprefix("sqlite:///"))
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
    return Rows(tuple(choice for choice, _ in done), values, task=studied.task.embedding, space=space)


def learn_from_studies(
    own: OwnStudies,
    *,
    shipped: SearchPrior,
    corpus: bool = True,
    epochs: int = EPOCHS,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> SearchPrior:
    """A prior that has learned from the user's own searches, as the one that comes with quickstudy did from our corpus.

    Args:
        own: As `read_studies` gives them.
        shipped: The prior that comes with quickstudy, whose task encoder is kept.
        corpus: Whether to learn from our corpus too.
        epochs: Of AEN.
        seed: Of all randomness.
        on_progress: Is told the stage, what is done and how much there is.
    """
    iterations = 0 if shipped.aon is None else ITERATIONS * epochs // EPOCHS
    return learn_from(own.rows, shipped, corpus, epochs, iterations, seed, on_progress)


def check_studies(
    own: OwnStudies,
    *,
    shipped: SearchPrior,
    corpus: bool = True,
    epochs: int = EPOCHS,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> tuple[Check, ...]:
    """Whether what is learned from some of the user's tasks holds for another of them, each left out once.

    Studies of one task are left out together. There is nothing to check where there is only one task.

    Arguments are those of `learn_from_studies`.
    """
    found, names = list[Check](), list(dict.fromkeys(own.tasks.values()))
    if len(names) < 2:
        return ()
    for i, task in enumerate(names):

        def say(stage: str, done: int, total: int, i: int = i) -> None:
            if on_progress is not None:
                on_progress("checking", i * total + done, len(names) * total)

        others = {name: rows for name, rows in own.rows.items() if own.tasks[name] != task}
        learned = learn_from(others, shipped, corpus, epochs, 0, seed, say)
        for name, rows in own.rows.items():
            if own.tasks[name] == task:
                found.append(Check(name, len(rows), order(shipped, rows), order(learned, rows)))
    return tuple(found)


def learn_from(
    own: Mapping[str, Rows],
    shipped: SearchPrior,
    corpus: bool,
    epochs: int,
    iterations: int,
    seed: int,
    on_progress: OnProgress | None,
) -> SearchPrior:
    """Learns from studies and the corpus."""
    measured = tiny_corpus() if corpus else {}
    embeddings: Mapping[str, Sequence[float]] = shipped.training.get("embeddings", {})
    # An encoder whose embeddings of the corpus are not known could tell the corpus from the rest, and nothing else.
    encoder = shipped.encoder if embeddings or not measured else None
    known = {
        f"corpus: {name}": task.rows(task=torch.tensor(embeddings[name]) if name in embeddings else None)
        for name, task in measured.items()
    }
    size = 0 if encoder is None else task_size(encoder)
    experience = {name: replace(rows, task=fitted(rows.task, size)) for name, rows in {**known, **own}.items()}
    return learn_search_prior(
        experience,
        encoder=encoder,
        members=len(shipped.aen.members),
        epochs=epochs,
        iterations=iterations,
        seed=seed,
        training=provenance(),
        on_progress=on_progress,
    )


def fitted(embedding: Tensor | None, size: int) -> Tensor | None:
    """An embedding of a size; one that is missing, or of another encoder, is that of a task like any: zero."""
    if not size:
        return None
    return embedding if embedding is not None and embedding.shape == (size,) else torch.zeros(size)


def order(prior: SearchPrior, rows: Rows) -> float:
    """Kendall's tau between what a prior expects of a study's architectures and what became of them."""
    size = 0 if prior.encoder is None else task_size(prior.encoder)
    said = expected(prior.aen, rows.architectures, fitted(rows.task, size), space=rows.space).mean
    return kendall(said, rows.values)


def kendall(a: Tensor, b: Tensor) -> float:
    r"""Kendall's tau-b of two scores `(n,)`; 0 where one of them says the same of all.

    $$\tau = \frac{\sum_{i<j} \mathrm{sign}(a_i - a_j)\, \mathrm{sign}(b_i - b_j)}
    {\sqrt{\sum_{i<j} [a_i \ne a_j] \sum_{i<j} [b_i \ne b_j]}}$$

    Example:
        >>> import torch
        >>> from quickstudy.nas.own_studies import kendall
        >>> a = torch.arange(5.0)
        >>> kendall(a, a), kendall(a, -a), kendall(a, torch.zeros(5))
        (1.0, -1.0, 0.0)

    References:
        Kendall, The Treatment of Ties in Ranking Problems, 1945.
    """
    first, second = ((x[:, None] - x).sign().double() for x in (a, b))
    untied = float(first.abs().sum() * second.abs().sum())
    return float((first * second).sum()) / untied**0.5 if untied else 0.0
