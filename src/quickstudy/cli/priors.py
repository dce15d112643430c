"""Priors by the name that a user gives."""

from pathlib import Path

from quickstudy.cli.terminal import note
from quickstudy.errors import DataNotFoundError
from quickstudy.experience.proposer import Proposer
from quickstudy.learners.prior import Prior, load
from quickstudy.nas.architecture import Architecture
from quickstudy.nas.bayesian_search import BayesianSearch
from quickstudy.nas.search_prior import DRAWN, SearchPrior, load_search_prior
from quickstudy.nas.space import Space
from quickstudy.priors import shipped, shipped_names
from quickstudy.training.checkpoint import CHECKPOINT


def find_prior(name: str) -> Prior:
    """One of the priors that come with quickstudy, or one in a folder; `load`, in Python, looks in folders first."""
    if name in shipped_names():
        if Path(name).is_dir():
            note(f"{name} is the prior that comes with quickstudy; for the folder of that name, write ./{name}")
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


def from_prior(name: str | None) -> tuple[SearchPrior | None, Proposer[Architecture, Space] | None]:
    """What `--prior` says: a prior, or a search without."""
    if name is None:
        return None, None
    return (None, BayesianSearch(None, drawn=DRAWN)) if name == "none" else (load_search_prior(name), None)
