"""`quickstudy evaluate`."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from quickstudy.cli.options import a_seed
from quickstudy.cli.priors import find_prior
from quickstudy.cli.terminal import bar, console, note, out_console, tell
from quickstudy.errors import ShapeError
from quickstudy.tasks.catalogue import SOURCES, load_splits
from quickstudy.tasks.episodes import Episodes
from quickstudy.tasks.image_folder import image_folder
from quickstudy.tasks.pictures import PictureEncoder
from quickstudy.training.evaluate import evaluate as evaluate_learner
from quickstudy.training.origin import is_as_trained, listed, trained_on, unseen
from quickstudy.training.train_prior import most_queries


class Split(StrEnum):
    train = "train"
    validation = "validation"
    test = "test"


def evaluate(
    prior: Annotated[str, typer.Argument(help="Folder of a prior, or the name of a shipped one.")],
    source: Annotated[str | None, typer.Option(help="Data set or folder; by default what it was trained on.")] = None,
    split: Annotated[
        Split | None,
        typer.Option(help="Which of its classes; by default test, and all of a folder that --source names."),
    ] = None,
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

    `quickstudy evaluate runs/maml --source my_classes/ --n-way 3`

    Of a folder that `--source` names, all classes are taken that the prior has not seen, by their names.
    """
    found = find_prior(prior)
    where = source or trained_on(prior, found.training)
    ways, shots = n_way or found.recipe.n_way, n_shot or found.training.get("n_shot", 1)
    name = Path(where).resolve().name
    encoder = PictureEncoder.from_settings(found.encoder)
    part = split or Split.test
    which = str(part)
    with bar(f"loading {escape(name)}") as update:
        if split is None and source is not None and source not in SOURCES and Path(source).is_dir():
            which = "unseen" if "class_names" in found.training else "all"
            data = image_folder(source, encoder=encoder, skip_bad=skip_bad, on_progress=update)
        else:
            splits = load_splits(
                where,
                n_way=found.recipe.n_way,  # as in training, so that a folder's classes go to the same parts
                encoder=encoder,
                skip_bad=skip_bad,
                on_progress=update,
            )
            data = getattr(splits, part)
            if source is None and not is_as_trained(prior, found.training, splits):
                note(f"{where} is not drawn or read here quite as it was when {prior} was trained")
    data, seen = unseen(prior, found.training, data, part, name)
    if which == "all":
        note(f"{prior} does not say which classes it was trained on: they may be among these")
    if seen:
        note(f"left out, because classes of these names have trained or validated {prior}: {listed(seen)}")
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
    how = ", transductive" if found.recipe.transductive else ""
    if as_json:
        values = {"metric": result.metric, "mean": result.mean, "ci95": result.ci95, "n": result.n, "seed": seed}
        out_console.print_json(
            json.dumps(
                {
                    **values,
                    "source": name,
                    "split": which,
                    "n_way": ways,
                    "n_shot": shots,
                    "transductive": found.recipe.transductive,
                }
            )
        )
    else:
        tell(
            f"{escape(name)} {which}, {ways}-way {shots}-shot{how}: {result} in {result.seconds:.1f} s "
            f"({1000 * result.seconds / result.n:.1f} ms a task)"
        )
