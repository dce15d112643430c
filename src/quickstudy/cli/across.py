"""`quickstudy search --across`."""

from dataclasses import dataclass
from pathlib import Path

import typer
from rich.markup import escape
from rich.table import Table

from quickstudy.cli.priors import from_prior
from quickstudy.cli.terminal import TOO_SLOW, bar, console, how_read, note, out_console, show, tell
from quickstudy.nas.across import AcrossResult, Compared, search_across, worst, worst_interval
from quickstudy.nas.across_files import CSV, JSON, save_across
from quickstudy.nas.budget import Budget
from quickstudy.nas.build import Limits
from quickstudy.quantities import plural
from quickstudy.search_data import STUDIES, too_slow
from quickstudy.tasks.catalogue import SOURCES, load_splits
from quickstudy.tasks.encoder_for import encoder_for_classes
from quickstudy.tasks.episodes import Episodes
from quickstudy.training.evaluate import Evaluation
from quickstudy.training.train_prior import most_queries

FEW = 30
"""Tasks of the test below which the worst of them are few."""


@dataclass(frozen=True)
class Kind:
    """Which tasks."""

    source: str
    n_way: int
    n_shot: int
    n_query: int | None
    size: int | None
    colour: bool | None
    ink: bool | None
    skip_bad: bool

    def load(self) -> tuple[str, Episodes, Episodes]:
        """Their name, and where they and those of the test come from."""
        source = self.source
        if source not in SOURCES and source.replace("_", "-") in SOURCES and not Path(source).exists():
            source = source.replace("_", "-")
        named = source in SOURCES
        own = None if named else encoder_for_classes(source, size=self.size, colour=self.colour, ink=self.ink)
        with bar(f"loading {escape(source)}") as update:
            splits = load_splits(
                source,
                n_way=self.n_way,
                encoder=own,
                skip_bad=self.skip_bad,
                on_progress=update,
            )
        if own is not None:
            console.print(how_read(own), soft_wrap=True)
        elif self.size or self.colour is not None or self.ink is not None:
            note(f"--size, --colour and --ink are for folders; the pictures of {source} are as they are")
        n_query = self.n_query or most_queries(self.n_shot, splits.train, splits.test)
        train, test = (
            Episodes(part, n_way=self.n_way, n_shot=self.n_shot, n_query=n_query)
            for part in (splits.train, splits.test)
        )
        classes = f"{splits.train.n_classes} classes to search by, {splits.test.n_classes} others to test on"
        console.print(f"{self.n_way}-way {self.n_shot}-shot tasks of {escape(str(splits.name))}: {classes}")
        return f"{self.n_way}-way {self.n_shot}-shot tasks of {splits.name}", train, test


def search_many(
    kind: Kind,
    *,
    tasks: int,
    budget: Budget,
    limits: Limits,
    prior: str | None,
    out: Path,
    storage: str | None,
    name: str | None,
    seed: int,
) -> None:
    """Searches across tasks, and says what was found."""
    known, proposer = from_prior(prior)
    kind_name, source, test = kind.load()
    console.print(f"limits: {limits}")
    with bar("searching") as update:
        result = search_across(
            source,
            test=test,
            budget=budget,
            limits=limits,
            prior=known,
            proposer=proposer,
            storage=out / STUDIES if storage is None else storage,
            name=kind_name if name is None else name,
            tasks=tasks,
            seed=seed,
            on_progress=lambda seen: show(seen, update),
        )
    save_across(out, result)
    out_console.print(table(result))
    tested = result.neighbour.n
    if tested < FEW:
        note(f"only {tested} tasks were tested on: give more --seconds for narrower intervals")
    slow = []
    for role, one in roles(result).items():
        tell(f"{role}: [bold]{escape(str(one.architecture))}[/]")
        if (warning := too_slow(one.latency, limits)) is not None:
            slow.append(warning)
            note(warning)
    tell(f"all figures: {escape(str(out / JSON))} and {escape(str(out / CSV))} ({result.seconds:.0f} s)")
    if slow:
        raise typer.Exit(TOO_SLOW)


def roles(result: AcrossResult) -> dict[str, Compared]:
    """The one or two architectures, by what they are best at."""
    if result.best_mean == result.best_worst:
        return {"best mean and worst decile": result.best_mean}
    return {"best mean": result.best_mean, "best worst decile": result.best_worst}


def table(result: AcrossResult) -> Table:
    """Costs, and accuracies over the tasks of the test, which nothing was chosen by."""
    found = roles(result)
    rows = Table("", *found, "nearest neighbour", box=None)
    tests = [one.test for one in found.values() if one.test is not None] + [result.neighbour]
    rows.add_row(f"[bold]test: mean of {tests[0].n} tasks[/]", *(f"[bold]{mean(one)}[/]" for one in tests))
    rows.add_row("test: worst tenth", *map(worst_decile, tests))
    sources = [one.source for one in found.values()]
    rows.add_row(f"chosen by: mean of {sources[0].n} tasks", *map(mean, sources), "")
    rows.add_row("chosen by: worst tenth", *map(worst_decile, sources), "")
    rows.add_row("parameters", *(f"{one.cost.parameters:,}" for one in found.values()), "")
    rows.add_row("multiply-adds", *(f"{one.cost.multiply_adds:,}" for one in found.values()), "")
    rows.add_row("activations", *(f"{one.cost.peak_memory:,} bytes" for one in found.values()), "")
    rows.add_row("latency", *(f"{one.latency:.3g} ms" for one in found.values()), "")
    rows.add_row("tried", plural(len(result.tried), "architecture"), *[""] * len(found))
    return rows


def mean(found: Evaluation) -> str:
    """With its 95 % interval."""
    return f"{found.mean:.1f} ± {found.ci95:.1f} %"


def worst_decile(found: Evaluation) -> str:
    """With its interval by resampling."""
    low, high = worst_interval(found.values)
    return f"{worst(found.values):.1f} % ({low:.1f} to {high:.1f})"
