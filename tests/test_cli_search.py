"""Searches across tasks, and learning from one's own searches, on the command line."""

import csv
import json
import logging
import re
import sys

import numpy as np
import optuna
import pytest
from PIL import Image, ImageDraw

from quickstudy import Budget, load_task, search
from quickstudy.cli import main
from quickstudy.cli.learn_prior import verdict
from quickstudy.cli.priors import from_prior
from quickstudy.nas.baselines.random_search import RandomSearch
from quickstudy.nas.own_studies import Check
from quickstudy.nas.search_prior import load_search_prior
from quickstudy.search_data import search_data

pytestmark = pytest.mark.usefixtures("without_export")


@pytest.fixture
def quickstudy(monkeypatch, capsys):
    """Runs a command: its exit code, what it printed, and what it said on the error stream, in one line each."""

    def run(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["quickstudy", *map(str, args)])
        monkeypatch.setenv("COLUMNS", "200")
        handlers = logging.root.handlers[:]
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            logging.root.handlers[:] = handlers
        told = capsys.readouterr()
        return code, " ".join(told.out.split()), " ".join(told.err.split())

    return run


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    """Eight classes of eight pictures of bars, each class at an angle of its own."""
    folder = tmp_path_factory.mktemp("pictures") / "bars"
    for label in range(8):
        (folder / f"class {label}").mkdir(parents=True)
        for i in range(8):
            image = Image.new("L", (16, 16), "white")
            ImageDraw.Draw(image).line((3, 7 + i % 3, 13, 8), fill=0, width=2)
            image.rotate(22 * label + i, fillcolor="white").save(folder / f"class {label}" / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    """Two npz files of pictures whose brightest row tells the class."""
    folder = tmp_path_factory.mktemp("data")
    for i, name in enumerate(("rows", "more")):
        y = np.arange(60) % 3
        x = 0.3 * np.random.default_rng(i).random((60, 1, 6 + i, 6), np.float32)
        x[np.arange(60), 0, 2 * y] += 1
        np.savez(folder / f"{name}.npz", x=x, y=y)
    return folder


def tiny_search(data, storage):
    """Six architectures, trained for a moment."""
    task, budget = load_task(data), Budget(seconds=None, trials=6, steps=3)
    search(task.task, name=task.name, budget=budget, proposer=RandomSearch(), storage=storage)


BRIEF = ("--seconds", "3", "--workers", "1")
OF_2 = ("--n-way", "2", "--n-shot", "3", "--n-query", "4")


def test_one_architecture_for_many_tasks_is_searched_tested_and_saved(quickstudy, classes, tmp_path, by_trials):
    out = tmp_path / "out"
    limits = ("--max-params", "2k", "--trials", "2", "--tasks", "5", "--workers", "1")
    arguments = ("search", "--across", classes, *OF_2, *limits, "--size", "16", "--out", out)
    code, told, errors = quickstudy(*arguments, "--prior", "none")
    assert code == 0, errors
    assert "2-way 3-shot tasks of bars: 4 classes to search by, 2 others to test on" in errors
    assert re.search(r"test: mean of \d+ tasks [\d.]+ ± [\d.]+ %", told)
    assert "best worst decile" in told or "best mean and worst decile" in told
    assert "nearest neighbour" in told
    saved = json.loads((out / "across.json").read_text())
    assert saved["best mean"] in told
    assert saved["best worst decile"] in told
    assert saved["settings"]["shape"] == [1, 16, 16]
    rows = list(csv.DictReader((out / "across.csv").read_text().splitlines()))
    assert all(int(row["parameters"]) <= 2000 for row in rows)
    code, _, errors = quickstudy(*arguments)
    assert code == 1
    assert "--force" in errors


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("search",), "Give DATA, or --across"),
        (("search", "digits", "--across", "glyphs"), "leave out digits, or --across"),
        (("search", "--across", "glyphs", "--test", ".3"), "--test is for data"),
        (("search", "digits", "--n-way", "5"), "--tasks, --colour and --ink are for --across"),
        (("search", "--across", "nothing-here"), "neither a folder nor one of"),
        (("search", "digits", "--prior", "nothing-here"), "holds no prior"),
    ],
)
def test_what_makes_no_search_is_told(quickstudy, tmp_path, arguments, said):
    code, _, errors = quickstudy(*arguments, *BRIEF, "--out", tmp_path / "out")
    assert code != 0
    assert said in re.sub(r"[│ ]+", " ", errors)
    assert "Traceback" not in errors
    assert not (tmp_path / "out").exists()


def test_own_searches_are_learned_from_and_what_is_learned_is_searched_with(quickstudy, arrays, tmp_path, by_trials):
    for name in ("rows", "more"):
        tiny_search(arrays / f"{name}.npz", tmp_path / "studies.db")
    out = tmp_path / "prior"
    learn = ("learn-prior", "--storage", tmp_path / "studies.db", "--no-corpus", "--epochs", "2", "--out", out)
    code, told, errors = quickstudy(*learn)
    assert code == 0, errors
    assert re.search("learning from 12 trials of 2 studies", errors)
    assert re.search(r"rows 6 [+-]\d\.\d\d [+-]\d\.\d\d", told)
    assert re.search(r"a mean tau of [+-]\d\.\d\d against [+-]\d\.\d\d, and better on \d of 2 tasks: ", told)
    assert set(load_search_prior(out).training["tasks"]) == {"rows", "more"}
    code, _, errors = quickstudy(*learn)
    assert code == 1
    assert "--force" in errors
    code, told, errors = quickstudy(
        "search",
        arrays / "rows.npz",
        "--trials",
        "1",
        "--workers",
        "1",
        "--prior",
        out,
        "--storage",
        tmp_path / "studies.db",
        "--name",
        "rows of another kind",
        "--out",
        tmp_path / "next",
    )
    assert code == 0, errors
    assert "test accuracy" in told
    names = optuna.get_all_study_names(f"sqlite:///{tmp_path / 'studies.db'}")
    assert sum(name.startswith("rows of another kind in tiny") for name in names) == 1


def test_a_network_that_is_slower_in_the_end_is_written_and_the_exit_code_says_so(
    quickstudy, arrays, tmp_path, monkeypatch
):
    def brief(task, **options):
        budget = Budget(seconds=None, trials=1, steps=2)
        return search_data(task, **{**options, "budget": budget, "proposer": RandomSearch(), "prior": None})

    monkeypatch.setattr("quickstudy.cli.search.search_data", brief)
    monkeypatch.setattr("quickstudy.nas.search.measure_latency", lambda *_: 2000.0)  # the last measurement
    out = tmp_path / "out"
    code, told, errors = quickstudy("search", arrays / "rows.npz", "--max-latency", "1s", "--out", out)
    assert code == 3
    assert "a prediction takes 2e+03 ms, and the limit is 1000 ms" in " ".join(errors.split())
    assert (out / "report.html").exists()
    assert "test accuracy" in told


def test_one_task_alone_is_learned_from_but_not_checked(quickstudy, arrays, tmp_path):
    tiny_search(arrays / "rows.npz", tmp_path / "studies.db")
    learn = ("learn-prior", "--storage", tmp_path / "studies.db", "--no-corpus", "--epochs", "1")
    code, told, errors = quickstudy(*learn, "--out", tmp_path / "prior")
    assert code == 0, errors
    assert "all studies are of one task, or of data that the corpus has" in " ".join(errors.split())
    assert "saved" in told


def test_a_storage_without_studies_of_ours_is_one_message(quickstudy, tmp_path):
    optuna.logging.set_verbosity(logging.ERROR)
    optuna.create_study(storage=f"sqlite:///{tmp_path / 'foreign.db'}", study_name="another's")
    for name, said in (("none.db", "no such file"), ("foreign.db", "it is not one of quickstudy's")):
        code, told, errors = quickstudy("learn-prior", "--storage", tmp_path / name, "--out", tmp_path / "out")
        assert (code, told) == (1, "")
        assert errors.startswith("error there ")
        assert said in errors
        assert "Traceback" not in errors
        assert not (tmp_path / "out").exists()


def test_a_search_without_a_prior_and_one_with_that_of_quickstudy_are_told_apart():
    assert from_prior(None) == (None, None)
    prior, proposer = from_prior("none")
    assert prior is None
    assert proposer.prior is None


def test_the_help_of_learning_a_prior_shows_an_example(quickstudy):
    code, told, _ = quickstudy("learn-prior", "--help")
    assert code == 0
    assert "quickstudy learn-prior --storage" in told


def test_a_prior_is_worth_using_where_luck_would_seldom_do_as_well():
    def checks(n: int, worse: int = 0, studies: int = 1) -> tuple[Check, ...]:
        return tuple(
            Check(f"{i} ({j})", str(i), 9, 0.1, 0.05 if i < worse else 0.3) for i in range(n) for j in range(studies)
        )

    assert "worth using" in verdict(checks(5))
    assert "worth using" in verdict(checks(8, worse=1))
    assert "not clearly better" in verdict(checks(7, worse=1))
    assert "not clearly better" in verdict(checks(2, worse=2))
    assert verdict(()) == ""


def test_several_studies_of_one_task_are_no_further_evidence():
    found = tuple(Check(f"mine ({i})", "mine", 9, 0.1, 0.3) for i in range(6))
    assert "better on 1 of 1 tasks: at least 5 tasks are needed to tell that from luck" in verdict(found)
    assert "better on 4 of 4 tasks: at least 5" in verdict(tuple(Check(str(i), str(i), 9, 0.1, 0.7) for i in range(4)))
