"""Optuna studies as the memory of searches."""

import json
import logging
import sqlite3
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch

from quickstudy.errors import MissingExtraError, StudyError
from quickstudy.experience.entries import counted, entries
from quickstudy.experience.parameters import Parameters
from quickstudy.experience.trial import TaskDescription, Trial

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

C = TypeVar("C")
HEARTBEAT, GRACE = 10, 60
"""Seconds between a running trial's heartbeats, and after which it is taken for dead without one."""
PATIENCE = 60.0
"""Seconds to wait for another process that writes to the same SQLite file."""
DRIVERS = {"psycopg": "psycopg[binary]", "psycopg2": "psycopg2-binary"}
"""What to install, by what is imported."""
ANEW = "Choose another storage (--storage, or --out where it holds the studies), or another name (--name)."
"""The remedy where a study is of something else."""
ATTEMPTS = 4
"""How often tables are made that another process may be making."""
MAKING, PAUSE = 5.0, 0.02
"""Seconds to wait for a study that another process is making, which may have been killed, and between looks."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Studied(Generic[C]):
    """All that was tried on one task."""

    task: TaskDescription
    about: Mapping[str, object]
    """What else is known of the task: shape, classes, objective."""
    trials: tuple[Trial[C], ...]
    """Those that ended, in order, failures too."""


@dataclass(frozen=True)
class Experience(Generic[C]):
    """What a storage holds of one space."""

    studies: Mapping[str, Studied[C]]
    """By the name of the task."""
    skipped: Mapping[str, str]
    """Studies that are of no use, and why."""


def connect(
    storage: "str | Path | BaseStorage | None",
    *,
    heartbeat: int = HEARTBEAT,
    grace: int = GRACE,
    patience: float = PATIENCE,
    new: bool = True,
) -> "BaseStorage":
    """Where studies are kept.

    Args:
        storage: A path, of an SQLite file; a URL of SQLAlchemy (`sqlite:///...`, `postgresql://...`); None for this
            process's memory; or a storage of Optuna's, which stays as it is.
        heartbeat: Seconds between a running trial's signs of life, which tell other machines that it is not to be tried
            again.
        grace: Seconds without one after which it is.
        patience: Seconds to wait for another process that writes to the same SQLite file.
        new: Whether an SQLite file may be made.

    Raises:
        StudyError: Where it cannot be reached or is no database; the message says which, and never a password.
        MissingExtraError: Where Optuna, or the driver of a database, is not installed.
    """
    try:
        from optuna.exceptions import StorageInternalError
        from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage
        from sqlalchemy.engine import URL, make_url
        from sqlalchemy.exc import ArgumentError, DBAPIError
    except ImportError as error:
        raise MissingExtraError("Optuna is not installed: pip install 'quickstudy[nas]'.") from error
    if isinstance(storage, BaseStorage):
        return storage
    if storage is None:
        return InMemoryStorage()
    if isinstance(storage, str) and "://" in storage:
        url = storage
    else:  # which quotes what has a meaning in a URL
        url = URL.create("sqlite", database=str(storage)).render_as_string()
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:  # which quote the whole, and so a password
        scheme = url.partition("://")[0]
        raise StudyError(f"the address {scheme}://... is none; one is {scheme}://user@host:port/name.") from error
    if url is not storage and parsed.database != str(storage):  # as SQLAlchemy 2.0, which quotes nothing
        raise StudyError(f"{storage} has a character that means something in an address (? % #). Choose another name.")
    name, options = parsed.render_as_string(hide_password=True), dict[str, Any]()
    if parsed.get_backend_name() == "sqlite":
        if parsed.database in (None, "", ":memory:"):
            return InMemoryStorage()
        if not new and not Path(str(parsed.database)).exists():
            raise StudyError(f"there are no studies at {parsed.database}: no such file.")
        if not new and not has_studies(Path(str(parsed.database)), patience):
            raise StudyError(f"there are no studies at {parsed.database}: it is not the record of a search.")
        options = {"connect_args": {"timeout": patience, "factory": _Connection}}
    try:
        with plain_errors(name), quiet():
            for attempt in range(ATTEMPTS):
                try:
                    return RDBStorage(
                        url.replace("{", "{{").replace("}", "}}"),  # Optuna fills in what stands in braces
                        engine_kwargs=options,
                        heartbeat_interval=heartbeat,
                        grace_period=grace,
                    )
                except (DBAPIError, StorageInternalError) as error:  # another process may make the same tables
                    if attempt == ATTEMPTS - 1 or any(words in _said(error) for words in REMEDIES):
                        raise
                    time.sleep(0.1 * 2**attempt)
            raise AssertionError
    except ImportError as error:
        missing = error.__cause__.name if isinstance(error.__cause__, ImportError) else error.name
        command = f"pip install '{DRIVERS[missing]}'" if missing in DRIVERS else "install it"
        raise MissingExtraError(f"{name} needs the driver {missing}, which is not installed: {command}.") from error
    except RuntimeError as error:
        raise StudyError(f"the studies at {name} cannot be used: {error}") from error


def disconnect(storage: "BaseStorage") -> None:
    """Closes the connections of a storage that `connect` made."""
    from optuna.storages import RDBStorage

    if isinstance(storage, RDBStorage):
        storage.remove_session()
        storage.engine.dispose()


def open_study(
    storage: "str | Path | BaseStorage | None",
    task: TaskDescription,
    parameters: Parameters[C],
    *,
    about: Mapping[str, object] | None = None,
    name: str | None = None,
) -> "Study":
    """The study of a task in a space, to be maximised; it is made where there is none.

    Args:
        storage: As in `connect`.
        task: What is known of the task. A study that exists keeps what was known when it was made, but for an
            embedding by another encoder, or by none that is known: this one's takes its place.
        parameters: Of the space.
        about: What else an outcome depends on, in plain values: `shape`, `classes`, `objective` ... Where several
            differ, the first is named.
        name: Of the study; `TASK in SPACE` by default.

    Raises:
        StudyError: Where the study is of another space, or its outcomes depend on something else, or the storage cannot
            be reached.

    Example:
        >>> from quickstudy.experience.parameters import categorical
        >>> from quickstudy.experience.studies import open_study
        >>> from quickstudy.experience.trial import TaskDescription
        >>> names = {"width": (8, 16)}
        >>> toy = categorical("toy/1", "4f2a", names, encode=lambda w: {"width": w}, decode=lambda p: p["width"])
        >>> study = open_study(None, TaskDescription("digits"), toy, about={"objective": "accuracy"})
        >>> study.study_name, study.user_attrs["space"]
        ('digits in toy/1', 'toy/1')
    """
    import optuna

    name = name or f"{task.name} in {parameters.space}"
    stated = json.loads(json.dumps(dict(about or {})))
    base = connect(storage)
    with plain_errors(where(base)), quiet():
        try:
            study, wait = optuna.create_study(storage=base, study_name=name, direction="maximize"), 0.0
        except optuna.exceptions.DuplicatedStudyError:
            study, wait = optuna.load_study(storage=base, study_name=name), MAKING
        until = time.monotonic() + wait
        while "digest" not in (there := study.user_attrs):  # which is written last
            if study.get_trials(deepcopy=False):
                raise StudyError(f"the study {name!r} is not one of quickstudy's. Choose another name.")
            if time.monotonic() < until:
                time.sleep(PAUSE)
                continue
            for key, value in {
                "maker": (maker := uuid.uuid4().hex),
                "task": task.name,
                **embedded(task),
                "space": parameters.space,
                "about": stated,
                "quickstudy": version("quickstudy"),
            }.items():
                study.set_user_attr(key, value)
            if study.user_attrs["maker"] == maker:  # of two that make it, where one was slow, the later
                study.set_user_attr("digest", parameters.digest)
            until = time.monotonic() + MAKING
    for what, found, asked in (
        ("is of the space", there["space"], parameters.space),
        ("is of the task", there["task"], task.name),
        *(
            (f"was made with the {key}", there["about"].get(key), stated.get(key))
            for key in dict.fromkeys((*stated, *there["about"]))
        ),
        (f"is of a version of {parameters.space} with the digest", there["digest"], parameters.digest),
    ):
        if found != asked:
            raise StudyError(
                f"the study {name!r} {what} {found}, not {asked}: outcomes of one say nothing certain of the other. "
                f"{ANEW}"
            )
    if task.encoder is not None and task.encoder != there.get("encoder"):
        with plain_errors(where(base)), quiet():
            for key, value in embedded(task).items():
                study.set_user_attr(key, value)
    return study


def embedded(task: TaskDescription) -> dict[str, object]:
    """What a study says of a task's embedding; one from before encoders had digests lacks the latter."""
    embedding = None if task.embedding is None else task.embedding.detach().flatten().tolist()
    return {"embedding": embedding, "encoder": task.encoder}


def experience(storage: "str | Path | BaseStorage", parameters: Parameters[C]) -> Experience[C]:
    """All that earlier searches of a space found, task by task.

    Args:
        storage: As in `connect`; an SQLite file must exist.
        parameters: Of the space. Studies of other spaces, other versions of it, or with other values to choose among
            are skipped.

    Raises:
        StudyError: Where the storage cannot be reached.
    """
    studies, skipped, base = dict[str, Studied[C]](), dict[str, str](), connect(storage, new=False)
    try:
        with plain_errors(where(base)), quiet():
            for frozen in base.get_all_studies():
                there, trials = frozen.user_attrs, base.get_all_trials(frozen._study_id, deepcopy=False)
                if why := _of_no_use(there, trials, parameters):
                    skipped[frozen.study_name] = why
                    continue
                embedding = None if there["embedding"] is None else torch.tensor(there["embedding"])
                task = TaskDescription(there["task"], embedding, there.get("encoder"))
                ended = [entry.trial for entry in counted(entries(trials, parameters)) if entry.state != "running"]
                name = task.name if task.name not in studies else f"{task.name} ({frozen.study_name})"
                studies[name] = Studied(task, there["about"], tuple(ended))
    finally:
        if base is not storage:
            disconnect(base)
    for name, why in skipped.items():
        _log.info("The study %r is skipped: %s.", name, why)
    return Experience(studies, skipped)


def _of_no_use(there: Mapping[str, Any], trials: "Sequence[FrozenTrial]", parameters: Parameters[C]) -> str | None:
    """Why nothing can be learned from a study of these attributes and trials."""
    known = parameters.distributions
    if "digest" not in there:
        return "it is not one of quickstudy's"
    if there["space"] != parameters.space:
        return f"it is of the space {there['space']}, not {parameters.space}"
    if any(known.get(name) != other for trial in trials for name, other in trial.distributions.items()):
        return f"it chose among other values than {parameters.space} has"
    if not any(trial.state.name == "COMPLETE" for trial in trials):
        return "no trial of it is finished"
    return None


def where(base: "BaseStorage") -> str:
    """The address of a storage, without its password."""
    engine = getattr(base, "engine", None)
    return "memory" if engine is None else str(engine.url.render_as_string(hide_password=True))


REMEDIES = {
    "locked": "Another process holds it; wait for it, or name another file.",
    "not a database": "It is damaged, or something else; name another file.",
    "malformed": "It is damaged; restore a copy, or name another file.",
    "unable to open": "Its folder must exist, and be yours to write to.",
    "readonly": "It must be yours to write to.",
}
"""By what a database says."""


def _said(error: BaseException) -> str:
    """What the database itself said, in a line."""
    while getattr(error, "orig", None) is None and error.__cause__ is not None:
        error = error.__cause__
    return str(getattr(error, "orig", None) or error).strip().splitlines()[0].rstrip(".")


@contextmanager
def plain_errors(name: str) -> Iterator[None]:
    """Says in one sentence why a storage cannot be used.

    Raises:
        StudyError: In place of what Optuna or SQLAlchemy raise.
    """
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        said = _said(error)
        remedy = next(
            (remedy for words, remedy in REMEDIES.items() if words in said),
            "Check the address, and that the database answers.",
        )
        raise StudyError(f"the studies at {name} cannot be used: {said}. {remedy}") from error


def has_studies(path: Path, patience: float) -> bool:
    """Whether an SQLite file has Optuna's tables, without writing to it; True where it is no such file, or busy."""
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=patience)) as connection:
            found = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'studies'").fetchone()
    except sqlite3.Error:  # which is told where it is opened
        return True
    return bool(found[0])


class _Connection(sqlite3.Connection):
    """Writes ahead to a log: readers and a writer do not wait for one another, nor a trial for the disk.

    What a killed process wrote is there; of what was written just before a power failure, the last may be missing.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.execute("PRAGMA journal_mode=WAL")
        self.execute("PRAGMA synchronous=NORMAL")


@contextmanager
def quiet() -> Iterator[None]:
    """Optuna tells the terminal of every study, and warns that heartbeats, which we keep, are for its own loop."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            warnings.filterwarnings("ignore", "Heartbeat of storage is supposed to be used")
            yield
    finally:
        optuna.logging.set_verbosity(before)
