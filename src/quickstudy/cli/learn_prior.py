"""`quickstudy learn-prior`."""

import shlex
from math import comb
from pathlib import Path
from statistics import fmean
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from quickstudy.artefacts import MANIFEST
from quickstudy.cli.options import a_seed
from quickstudy.cli.terminal import bar, console, note, out_console, prepared, tell
from quickstudy.nas.own_studies import Check, check_studies, learn_from_studies, read_studies
from quickstudy.nas.search import shipped_prior
from quickstudy.nas.search_prior import save_search_prior

LUCKY = 0.05
"""The probability with which luck may be better on as many tasks, where a prior is said to be worth using."""
ENOUGH = 5
"""Tasks of which that can be said, at least: by luck alone, four of four are better once in sixteen times."""


def learn_prior(
    storage: Annotated[
        list[str],
        typer.Option(help="Where earlier searches kept their trials: a file or a URL (postgresql://...); repeatable."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the prior.")],
    corpus: Annotated[
        bool, typer.Option("--corpus/--no-corpus", help="Learn from the trials that come with quickstudy too.")
    ] = True,
    check: Annotated[
        bool,
        typer.Option(
            "--check/--no-check",
            help="Leave each of your own tasks out once, to see whether what is learned from the others helps; each "
            "takes as long as the learning itself.",
        ),
    ] = True,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over all trials: 40, or more where tasks are few.", min=1)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.", callback=a_seed)] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier prior.")] = False,
) -> None:
    """Learn from your own searches what to propose in the next one.

    Reads the studies of earlier searches, learns from them and from the trials that come with quickstudy, and says
    whether that orders the architectures of your studies better than the prior that comes with quickstudy does.

    Examples:

    `quickstudy learn-prior --storage out/studies.db --storage small/studies.db --out my_prior`

    `quickstudy search next.npz --prior my_prior`
    """
    own = read_studies(storage)
    for name, why in own.skipped.items():
        note(f"the study {name!r} is skipped: {why}")
    beside = " and the corpus that comes with quickstudy" if corpus else ""
    console.print(f"learning from {own.trials:,} trials of {len(own.rows)} studies{beside}")
    shipped = shipped_prior()
    with prepared(out, MANIFEST, force=force), bar("learning") as update:

        def watch(stage: str, done: int, total: int) -> None:
            update(done, total, stage)

        prior = learn_from_studies(own, shipped=shipped, corpus=corpus, epochs=epochs, seed=seed, on_progress=watch)
        save_search_prior(out, prior)
        options = {"shipped": shipped, "heed": float(prior.aen.heed), "corpus": corpus, "epochs": epochs, "seed": seed}
        found = check_studies(own, **options, on_progress=watch) if check else ()  # type: ignore[arg-type]
    if found:
        out_console.print(table(found))
    elif check:
        note("all studies are of one task, or of data that the corpus has: how well it holds for others is not known")
    quoted = escape(shlex.quote(str(out)))
    tell(f"saved [bold]{escape(str(out))}[/]: {verdict(found)}quickstudy search ... --prior {quoted}")


def table(found: tuple[Check, ...]) -> Table:
    """How two priors order the architectures of each study."""
    rows = Table("study, left out", "architectures", "tau, shipped prior", "tau, learned prior", box=None)
    for one in found:
        rows.add_row(escape(one.study), str(one.n), f"{one.shipped:+.2f}", f"{one.learned:+.2f}")
    return rows


def verdict(found: tuple[Check, ...]) -> str:
    """Whether the learned prior is worth using, in a clause: it is where a sign test over tasks says so."""
    if not found:
        return ""
    tasks = dict.fromkeys(one.task for one in found)
    means = [
        (
            fmean(one.shipped for one in found if one.task == task),
            fmean(one.learned for one in found if one.task == task),
        )
        for task in tasks
    ]
    shipped, learned = (fmean(each) for each in zip(*means))
    better, n = sum(own > given for given, own in means), len(means)
    said = f"a mean tau of {learned:+.2f} against {shipped:+.2f}, and better on {better} of {n} tasks"
    lucky = sum(comb(n, k) for k in range(better, n + 1)) / 2**n
    if learned > shipped and lucky <= LUCKY:
        return f"{said}: worth using.\n"
    if learned > shipped and better > n / 2 and n < ENOUGH:
        return f"{said}: at least {ENOUGH} tasks are needed to tell that from luck.\n"
    return (
        f"{said}: not clearly better than the prior that comes with quickstudy, which `search` uses without --prior.\n"
    )
