"""What the commands say, and how: results, progress, errors."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from quickstudy.errors import OutputExistsError
from quickstudy.nas.budget import SEARCHED
from quickstudy.nas.tried import Progress as SearchProgress
from quickstudy.tasks.pictures import PictureEncoder
from quickstudy.training.history import Progress as TrainingProgress
from quickstudy.training.train_prior import refuse_as_folder

out_console = Console(highlight=False)
# Of several processes, the first speaks for all.
console = Console(stderr=True, highlight=False, quiet=os.environ.get("LOCAL_RANK", "0") != "0")


TOO_SLOW = 3
"""The exit code where all is written, and the network was measured beyond its limit of latency."""


def fail(message: str, code: int) -> NoReturn:
    """Says what went wrong, and leaves."""
    console.print("[bold red]error[/]", end=" ")
    console.print(message, markup=False, soft_wrap=True)
    sys.exit(code)


def tell(text: str) -> None:
    """Prints a result, paths in one piece."""
    out_console.print(text, soft_wrap=True)


def note(text: str) -> None:
    """Prints a remark beside the results, paths in one piece."""
    console.print("[yellow]note[/]", end=" ")
    console.print(text, markup=False, soft_wrap=True)


class Update(Protocol):
    """Moves a bar."""

    def __call__(self, done: int, total: int, note: str = "") -> None: ...


def how_read(encoder: PictureEncoder) -> str:
    """How the pictures of a folder are read, and what would read them otherwise."""
    grey = "as grey ink on paper (--levels keeps grey as it is" if encoder.ink else "in grey (--ink takes out the paper"
    how = "in colour" if encoder.channels == 3 else f"{grey}, --colour reads colour)"
    return f"pictures are read {how}, {encoder.size} x {encoder.size}"


@contextmanager
def bar(description: str) -> Iterator[Update]:
    """A progress bar; what it yields is called with what is done, how much there is, and a note."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[note]}"))
    hidden = not console.is_terminal  # a log or a pipe has no use for it
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task(description, total=None, note="")

        def update(done: int, total: int, note: str = "") -> None:
            progress.update(task, completed=done, total=total, note=note)

        yield update


@contextmanager
def watching(description: str) -> Iterator[Callable[[TrainingProgress], None]]:
    """A progress bar for meta-training, with rate, loss and the last validation; a line a validation where it hides."""
    with bar(description) as update:
        told = 0

        def watch(seen: TrainingProgress) -> None:
            nonlocal told
            history = seen.history
            note = f"{seen.rate:.1f} steps/s  loss {history.recent_loss:.3f}"
            if history.validations:
                last = history.validations[-1]
                found = f"validation {last.mean:.1f} ± {last.ci95:.1f}"
                note += f"  {found}"
                if not console.is_terminal and len(history.validations) > told:
                    left = f"{seen.rate:.1f} steps/s, {clock(seen.seconds_left)} left"
                    console.print(f"step {last.step}: {found} {last.metric}, {left}")
            told = len(history.validations)
            update(int(1000 * seen.fraction), 1000, note)

        yield watch


def clock(seconds: float) -> str:
    """Minutes and seconds.

    Example:
        >>> clock(3671.4), clock(59.7)
        ('61:11', '1:00')
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"


@contextmanager
def status() -> Iterator[Callable[[str], None]]:
    """Prints the stages of a job as it reaches them."""
    yield lambda stage: console.print(f"[dim]{stage}[/]")


@contextmanager
def prepared(out: Path, *results: str, force: bool, source: Path | None = None) -> Iterator[None]:
    """Makes a folder for results, and refuses where that is impossible or there are results already.

    Folders that it made go again where what is done within fails before it wrote anything.

    Args:
        out: The folder.
        results: Files that must not be in it already.
        force: Whether they may be.
        source: A folder of classes that is read, among which the results must not lie.
    """
    refuse_as_folder(out, source)
    for result in results:
        if (out / result).exists() and not force:
            raise OutputExistsError(f"{out / result} exists. Choose another --out, or replace it with --force.")
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    out.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for folder in made:
            if not any(folder.iterdir()):
                folder.rmdir()
        raise


def show(seen: SearchProgress, update: Callable[[int, int, str], None]) -> None:
    """Progress of a search."""
    seconds, trials = seen.budget.seconds or 1.0, seen.budget.trials
    best = "" if seen.best is None else f", best {seen.best:.1f} % on validation"
    done = seen.trials / trials if trials and seen.stage == "searching" else 0.0
    part = max(min(seen.seconds / seconds, 1.0), done * SEARCHED)
    update(int(1000 * part), 1000, f"{seen.stage}: {seen.trials} tried{best}")
