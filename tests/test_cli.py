"""The command line, run in this process where that is enough, and as a process where it matters."""

import csv
import errno
import json
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer
from PIL import Image, ImageDraw

from quickstudy import __version__
from quickstudy.cli import main
from quickstudy.cli.options import an_amount, memory, milliseconds, parse_settings
from quickstudy.cli.priors import find_prior
from quickstudy.cli.train import processes
from quickstudy.errors import ShapeError
from quickstudy.learners.catalogue import LEARNERS
from quickstudy.tasks.catalogue import load_splits
from quickstudy.tasks.pictures import PictureEncoder
from quickstudy.training.checkpoint import CHECKPOINT

pytestmark = pytest.mark.usefixtures("few_queries", "without_export")

COMMANDS = ("demo", "search", "train", "evaluate", "adapt", "data")


@pytest.fixture
def quickstudy(monkeypatch, capsys):
    """Runs a command: its exit code, what it printed, and what it said on the error stream."""

    def run(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["quickstudy", *map(str, args)])
        handlers = logging.root.handlers[:]
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            logging.root.handlers[:] = handlers
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


def draw(folder: Path, classes: int, shots: int) -> Path:
    """Pictures of bars, each class at an angle of its own."""
    for label in range(classes):
        (folder / f"class {label}").mkdir(parents=True)
        for i in range(shots):
            image = Image.new("L", (24, 24), "white")
            ImageDraw.Draw(image).line((4, 12 + i % 3, 20, 12), fill=0, width=3)
            image.rotate(180 * label / classes + i, fillcolor="white").save(folder / f"class {label}" / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Twenty classes of five pictures."""
    return draw(tmp_path_factory.mktemp("pictures") / "mine", 20, 5)


TINY = ("--n-way", 2, "--n-query", 2, "--size", 16, "--set-net", "width=4", "--steps", 4, "--validation-tasks", 4)


@pytest.fixture(scope="module")
def prior(pictures, tmp_path_factory) -> Path:
    """A prior that was trained for a moment."""
    out = tmp_path_factory.mktemp("runs") / "prior"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["quickstudy", "train", str(pictures), "--out", str(out), *map(str, TINY)])
        main()
    return out


def is_one_message(told: str) -> bool:
    return told.startswith("error ") and "Traceback" not in told and told.rstrip().endswith(".")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_shows_an_example(quickstudy, command):
    code, out, _ = quickstudy(command, "--help")
    assert code == 0
    assert re.search(rf"Examples?:.*quickstudy {command}", out, re.DOTALL)


def test_the_help_names_every_command_and_where_to_begin(quickstudy):
    code, out, _ = quickstudy("--help")
    assert code == 0
    assert all(command in out for command in COMMANDS)
    assert "Begin with: quickstudy demo" in out


def test_the_version_is_shown(quickstudy):
    assert quickstudy("--version")[:2] == (0, f"quickstudy {__version__}\n")


def test_training_saves_a_prior_that_says_how_it_was_made(prior):
    manifest = json.loads((prior / "prior.json").read_text())["settings"]
    training = manifest["training"]
    assert manifest["recipe"]["net_options"] == {"width": 4}
    assert manifest["encoder"]["size"] == 16
    assert (training["source"], training["n_way"], training["steps"]) == ("mine", 2, 4)
    assert [len(training["class_names"][part]) for part in ("train", "validation", "test")] == [14, 3, 3]
    assert training["data"]["test"]["classes"] == 3
    assert len(training["data"]["test"]["sha256"]) == 64
    assert {"versions", "commit", "date", "folder"} <= training.keys()
    assert training["validation"]["metric"] == "accuracy %"
    assert [(t["n_way"], t["n_shot"]) for t in training["unknown"]] == [(2, 1), (2, 2), (2, 3)]
    assert str(prior.parent) not in (prior / "prior.json").read_text()  # no path of this machine


def test_training_that_is_stopped_goes_on_with_resume(quickstudy, pictures, tmp_path, monkeypatch):
    def stop(*args, **options):
        raise KeyboardInterrupt

    arguments = ("train", pictures, *TINY, "--learner", "maml", "--seed", 3)
    assert quickstudy(*arguments, "--out", tmp_path / "whole")[0] == 0
    with monkeypatch.context() as patch:
        patch.setattr("quickstudy.training.train_prior.calibrate", stop)
        code, _, told = quickstudy(*arguments, "--out", tmp_path / "broken")
    assert code == 130
    assert "--resume" in told
    assert not (tmp_path / "broken" / "prior.json").exists()

    code, _, told = quickstudy("evaluate", tmp_path / "broken", "--source", pictures)
    assert code == 1
    assert "is not finished" in told

    code, _, told = quickstudy(*arguments, "--out", tmp_path / "broken")
    assert code == 1
    assert "holds the checkpoint of an earlier run. Go on with it (--resume)" in told

    code, _, told = quickstudy(*arguments, "--n-shot", 2, "--out", tmp_path / "broken", "--resume")
    assert code == 1
    assert "had n_shot = 1, not 2" in told

    assert quickstudy(*arguments, "--out", tmp_path / "broken", "--resume")[0] == 0
    weights = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("whole", "broken")]
    assert weights[0] == weights[1]


def test_an_out_that_holds_a_prior_is_not_overwritten(quickstudy, pictures, prior):
    before = {path.name: path.read_bytes() for path in prior.iterdir()}
    code, _, told = quickstudy("train", pictures, *TINY, "--out", prior)
    assert code == 1
    assert is_one_message(told)
    assert "holds a prior" in told
    assert {path.name: path.read_bytes() for path in prior.iterdir()} == before


def test_the_command_that_comes_next_can_be_pasted_whatever_the_folder_is_called(quickstudy, pictures, tmp_path):
    out = tmp_path / "my [best] run"
    code, told, _ = quickstudy("train", pictures, *TINY, "--out", out)
    assert code == 0
    assert shlex.split(told.partition("next: ")[2]) == ["quickstudy", "evaluate", str(out)]


def test_evaluating_tells_the_mean_and_its_interval(quickstudy, pictures, prior):
    code, out, _ = quickstudy("evaluate", prior, "--source", pictures, "--tasks", 8)
    assert code == 0
    assert re.search(r"unseen, 2-way 1-shot: \d+\.\d\d ± \d+\.\d\d accuracy % \(8 tasks\)", out)


def test_evaluating_prints_json_alone(quickstudy, pictures, prior):
    arguments = ("evaluate", prior, "--source", pictures, "--tasks", 8, "--json")
    code, out, _ = quickstudy(*arguments)
    found = json.loads(out)
    assert code == 0
    assert found["n"] == 8
    assert found["split"] == "unseen"
    assert 0 <= found["mean"] <= 100
    assert json.loads(quickstudy(*arguments)[1]) == found


def test_a_number_that_was_reached_with_transductive_statistics_says_so(quickstudy, pictures, tmp_path):
    how = ("--learner", "maml", "--set", "statistics=transductive")
    code, told, _ = quickstudy("train", pictures, *TINY, *how, "--out", tmp_path / "out")
    assert code == 0
    assert re.search(r"accuracy % on validation tasks, transductive", told)
    arguments = ("evaluate", tmp_path / "out", "--source", pictures, "--tasks", 4)
    assert "2-way 1-shot, transductive: " in quickstudy(*arguments)[1]
    assert json.loads(quickstudy(*arguments, "--json")[1])["transductive"] is True


def test_evaluating_takes_the_classes_that_training_left_out(quickstudy, pictures, prior, monkeypatch):
    seen = []

    def watched(*args, **options):
        seen.append(load_splits(*args, **options))
        return seen[-1]

    monkeypatch.setattr("quickstudy.cli.evaluate.load_splits", watched)
    monkeypatch.chdir(pictures.parent)
    assert quickstudy("evaluate", prior, "--tasks", 4, "--n-way", 3)[0] == 0
    trained = load_splits(str(pictures), n_way=2)
    assert seen[0].train.class_names == trained.train.class_names
    assert seen[0].test.class_names == trained.test.class_names


@pytest.fixture
def own(quickstudy, tmp_path) -> tuple[Path, Path]:
    """A folder called like a data set, and a prior trained on it."""
    folder, out = draw(tmp_path / "far" / "omniglot", 6, 3), tmp_path / "prior"
    assert quickstudy("train", folder, *TINY, "--out", out)[0] == 0
    return folder, out


def test_without_its_extra_the_command_is_one_sentence(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("quickstudy.cli.app")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "typer", None)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == "error the command line needs typer: pip install 'quickstudy[cli]'."


def test_a_shipped_prior_is_taken_before_a_folder_of_its_name_and_that_is_told(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "glyphs_maml").mkdir()
    assert find_prior("glyphs_maml").recipe.learner == "maml"
    assert "write ./glyphs_maml" in capsys.readouterr().err


def test_what_the_training_sets_itself_is_refused_and_few_queries_are_told(quickstudy, pictures, tmp_path):
    options = ("train", pictures, *TINY[:2], *TINY[4:], "--out", tmp_path / "out")
    code, _, told = quickstudy(*options, "--learner", "fine_tune", "--set", "n_classes=3")
    assert code == 1
    assert "error n_classes=3 is no option of this training" in told
    code, out, told = quickstudy(*options)
    assert code == 0
    assert re.search(r"query examples a class: 4, for 'class \d+' has 5 examples in all", out + told)


def test_evaluating_finds_the_folder_of_its_training_from_anywhere(quickstudy, own, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    code, out, _ = quickstudy("evaluate", own[1], "--tasks", 4)
    assert code == 0
    assert "omniglot test, 2-way 1-shot" in out


def test_evaluating_without_the_folder_of_its_training_asks_for_it(quickstudy, own):
    own[0].rename(own[0].with_name("moved"))
    code, _, told = quickstudy("evaluate", own[1])
    assert code == 1
    assert "was trained on a folder 'omniglot', which is not here: name it with --source." in told
    assert quickstudy("evaluate", own[1], "--source", own[0].with_name("moved"), "--tasks", 4)[0] == 0


def test_evaluating_on_a_folder_that_has_changed_is_refused_unless_it_is_named(quickstudy, own):
    Image.new("L", (24, 24), "black").save(own[0] / "class 1" / "new.png")
    code, _, told = quickstudy("evaluate", own[1], "--tasks", 4)
    assert code == 1
    assert is_one_message(told)
    assert "has changed since" in told
    assert quickstudy("evaluate", own[1], "--source", own[0], "--tasks", 4)[0] == 0


def test_evaluating_leaves_out_classes_that_the_prior_has_seen_and_names_them(quickstudy, pictures, prior, tmp_path):
    def grown(by: int) -> Path:
        """The folder of its training with so many classes more, so that all go to other parts."""
        folder = shutil.copytree(pictures, tmp_path / str(by) / "mine")
        for i in range(by):
            shutil.copytree(folder / "class 0", folder / f"new {i}")
        return folder

    trained = json.loads((prior / "prior.json").read_text())["settings"]["training"]["class_names"]
    seen = set(load_splits(str(folder := grown(8)), n_way=2).test.class_names) & set(trained["train"])
    assert len(seen) == 1
    on_test = ("evaluate", prior, "--split", "test", "--tasks", 4, "--source")
    code, out, told = quickstudy(*on_test, folder, "--n-way", 3)
    assert code == 0
    assert "mine test, 3-way" in out  # the other three of the test
    assert f"left out, because classes of these names have trained or validated {prior}: {seen.pop()}" in told
    code, _, told = quickstudy(*on_test, grown(1))
    assert code == 1
    assert "was trained or validated on all classes of mine that it would be evaluated on, by their names: cla" in told
    assert quickstudy("evaluate", prior, "--source", folder, "--split", "train", "--tasks", 4)[2] == ""


def test_all_classes_of_a_folder_that_is_named_are_evaluated_on_but_those_that_the_prior_has_seen(
    quickstudy, pictures, prior, tmp_path
):
    arguments = ("evaluate", prior, "--tasks", 4, "--source")
    code, out, told = quickstudy(*arguments, pictures, "--n-way", 3)
    assert (code, "mine unseen, 3-way" in out, "and 12 more" in told) == (0, True, True)
    assert "the data has 3" in quickstudy(*arguments, pictures, "--n-way", 4)[2]  # of its own, the test is left
    theirs = draw(tmp_path / "theirs", 4, 2)
    for path in theirs.iterdir():
        path.rename(path.with_name(path.name.replace("class", "kind")))
    code, out, told = quickstudy(*arguments, theirs, "--n-way", 4)
    assert (code, "theirs unseen, 4-way" in out, told) == (0, True, "")
    code, out, told = quickstudy(*arguments, theirs, "--n-way", 4, "--split", "train")
    assert (code, "theirs train, 4-way" in out) == (1, False)  # of four classes, two are of that part


def test_evaluating_on_pictures_of_another_shape_says_so(quickstudy, own, monkeypatch):
    colour = PictureEncoder(size=16, channels=3, ink=False)
    real = load_splits(str(own[0]), n_way=2, encoder=colour)
    monkeypatch.setattr("quickstudy.cli.evaluate.load_splits", lambda *_, **__: real)
    code, _, told = quickstudy("evaluate", own[1], "--source", own[0], "--split", "test")
    assert code == 1
    assert "takes pictures of shape (1, 16, 16), and those of" in told


def test_without_being_told_training_takes_as_many_queries_as_there_are(own, quickstudy, tmp_path):
    code, _, told = quickstudy("train", own[0], *TINY[:2], *TINY[4:], "--out", tmp_path / "out")
    assert code == 0
    assert json.loads((tmp_path / "out" / "prior.json").read_text())["settings"]["training"]["n_query"] == 2
    assert "2 classes to validate on are too few to calibrate" in " ".join(told.split())


def test_a_prior_validated_on_two_classes_says_why_it_cannot_answer_none_of_these(quickstudy, own, tmp_path):
    code, _, told = quickstudy("adapt", own[1], own[0], "--unknown", "--out", tmp_path / "out")
    assert code == 1
    assert "its training left 2 classes to validate on. Train with --n-way 3 or more" in told


@pytest.mark.parametrize(("command", "goes_on"), [("train", True), ("demo", False)])
def test_only_training_that_is_stopped_is_told_how_to_go_on(quickstudy, monkeypatch, tmp_path, command, goes_on):
    def stop(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"quickstudy.cli.{command}.load_splits", stop)
    arguments = ["glyphs"] if command == "train" else []
    code, _, told = quickstudy(command, *arguments, "--out", tmp_path / "out")
    assert code == 130
    assert "stopped. What was saved is intact" in told
    assert ("--resume" in told) is goes_on


def test_adapting_names_the_pictures_and_says_what_won(quickstudy, pictures, prior, tmp_path):
    labelled = draw(tmp_path / "few", 3, 2)
    out = tmp_path / "out [1]"
    code, told, _ = quickstudy("adapt", prior, labelled, "--predict", pictures / "class 0", "--out", out, "--unknown")
    assert code == 0
    assert "(used)" in told
    assert f"5 pictures named in {out / 'predictions.csv'}" in told
    with (out / "predictions.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 5
    assert table[0].keys() == {"file", "label", "probability"}
    assert (out / "report.html").stat().st_size > 1000


def test_a_prior_that_is_the_folder_one_is_in_goes_by_its_name(quickstudy, prior, tmp_path, monkeypatch):
    labelled = draw(tmp_path / "few", 2, 1)
    monkeypatch.chdir(prior)
    assert quickstudy("adapt", ".", labelled, "--out", tmp_path / "out")[0] == 0
    assert f"with the prior {prior.name}." in (tmp_path / "out" / "report.html").read_text()


def test_adapting_refuses_to_replace_a_result_unless_forced(quickstudy, prior, tmp_path):
    labelled, out = draw(tmp_path / "few", 2, 1), tmp_path / "out"
    arguments = ("adapt", prior, labelled, "--out", out)
    code, _, told = quickstudy(*arguments, "--predict", labelled)
    assert code == 0
    assert "no class has two different pictures" in " ".join(told.split())
    before = (out / "report.html").read_bytes()
    code, _, told = quickstudy(*arguments)
    assert code == 1
    assert "replace it with --force" in told
    assert (out / "report.html").read_bytes() == before
    assert quickstudy(*arguments, "--force")[0] == 0
    assert not (out / "predictions.csv").exists()  # the table of the earlier result does not outlive it


def test_an_error_in_adapting_leaves_the_earlier_result(quickstudy, prior, tmp_path):
    labelled, out = draw(tmp_path / "few", 2, 1), tmp_path / "out"
    assert quickstudy("adapt", prior, labelled, "--out", out, "--predict", labelled)[0] == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    (labelled / "class 0" / "bad.png").write_bytes(b"")
    for more in ((), ("--predict", labelled)):
        code, _, told = quickstudy("adapt", prior, labelled, "--out", out, "--force", *more)
        assert code == 1
        assert "bad.png" in told
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert quickstudy("adapt", prior, labelled, "--out", out, "--force", "--skip-bad")[0] == 0


def test_a_disk_that_is_full_between_two_files_of_a_result_leaves_the_earlier_result(
    quickstudy, prior, tmp_path, monkeypatch
):
    labelled, out = draw(tmp_path / "few", 2, 1), tmp_path / "out"
    arguments = ("adapt", prior, labelled, "--out", out, "--predict")
    assert quickstudy(*arguments, labelled)[0] == 0
    before, sync = {path.name: path.read_bytes() for path in out.iterdir()}, os.fsync

    def full(handle):
        if os.fstat(handle).st_size > len(before["predictions.csv"]):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    monkeypatch.setattr(os, "fsync", full)
    code, _, told = quickstudy(*arguments, next((labelled / "class 0").iterdir()), "--force")
    assert code == 1
    assert "What was saved before is intact." in told
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_adapting_that_fails_leaves_nothing(quickstudy, prior, tmp_path):
    labelled = draw(tmp_path / "few", 2, 1)
    (labelled / "class 0" / "bad.png").write_bytes(b"")
    assert quickstudy("adapt", prior, labelled, "--out", tmp_path / "new" / "out")[0] == 1
    assert not (tmp_path / "new").exists()


def test_results_among_the_classes_that_are_read_are_refused(quickstudy, prior, tmp_path, monkeypatch):
    classes = draw(tmp_path / "classes", 6, 4)
    before = sorted(classes.rglob("*"))
    places = (classes, classes / "out", classes / "class 0" / "deeper", tmp_path / "x" / ".." / "classes" / "out")
    for source in (("train", classes), ("adapt", prior, classes), ("search", classes), ("search", "--across", classes)):
        for out in places:
            code, _, told = quickstudy(*source, "--out", out)
            assert code == 1
            assert is_one_message(told)
            assert f"would lie among the classes of {classes}" in told
    assert sorted(classes.rglob("*")) == before
    monkeypatch.chdir(classes)
    assert "would lie among the classes of ." in quickstudy("adapt", prior, ".")[2]  # in ./out, by default


def test_results_in_a_folder_called_like_a_data_set_are_among_no_classes(quickstudy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("glyphs", "digits"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "prior.json").write_text("{}")
        (tmp_path / name / "report.html").write_text("")
    assert "holds a prior" in quickstudy("train", "glyphs", "--out", "glyphs")[2]
    assert "report.html exists" in quickstudy("search", "digits", "--out", "digits")[2]


def test_the_data_sets_are_listed(quickstudy):
    code, out, _ = quickstudy("data")
    assert code == 0
    assert all(name in out for name in ("glyphs", "omniglot", "cifar-fs", "fc100"))


def test_a_folder_is_described(quickstudy, pictures):
    code, out, _ = quickstudy("data", pictures, "--n-way", 2)
    assert code == 0
    assert re.search(r"train +14 +70 +1x28x28", out)


def test_a_folder_that_is_too_small_to_train_on_is_described_and_says_how_many_classes_that_needs(quickstudy, pictures):
    code, out, told = quickstudy("data", pictures, "--n-way", 7)
    assert code == 0
    assert re.search(r"all +20 +100 +1x28x28", out)
    assert "too few to meta-train on" in told
    assert "21 in all; the data has 20" in told
    code, _, told = quickstudy("train", pictures, "--n-way", 7, "--out", "nowhere")
    assert code == 1
    assert "21 in all; the data has 20" in told


def test_full_memory_is_one_message_and_no_reason_to_loop(quickstudy, pictures, tmp_path, monkeypatch, caplog):
    def full(*args, **options):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

    monkeypatch.setattr("torch.nn.functional.cross_entropy", full)
    code, _, told = quickstudy("train", pictures, *TINY, "--learner", "maml", "--out", tmp_path / "out")
    assert code == 1
    assert "memory is full ([enforce fail] DefaultCPUAllocator" in told
    assert "Take fewer tasks a step" in told
    assert "vmap refuses" not in caplog.text


def test_the_help_of_training_explains_every_learner(quickstudy):
    told = " ".join(quickstudy("train", "--help")[1].split())
    assert all(f"{name}: {entry.summary}" in told for name, entry in LEARNERS.items() if entry.trained)


def test_training_without_a_terminal_says_how_fast_it_is_and_how_long_it_takes(quickstudy, pictures, tmp_path):
    told = quickstudy("train", pictures, *TINY, "--out", tmp_path / "out")[2]
    assert re.search(r"step 2: validation [\d.]+ ± [\d.]+ accuracy %, [\d.]+ steps/s, 0:0\d left", told)


def bad_inputs(tmp_path: Path, pictures: Path, prior: Path) -> dict[str, tuple[tuple[object, ...], str]]:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    one = draw(tmp_path / "one", 1, 3)
    few = draw(tmp_path / "few", 6, 2)
    zero = draw(tmp_path / "zero", 6, 4)
    (zero / "class 2" / "0.png").write_bytes(b"")
    out = ("--out", tmp_path / "out")
    train = ("train", pictures, *TINY)
    return {
        "no such data": (("train", "glyfs", *out), "'glyfs' is neither a folder nor one of glyphs"),
        "an empty folder": (("train", tmp_path / "empty", *out), "has no subfolders"),
        "one class": (("train", one, *out), "one class only"),
        "few pictures": (("train", few, *TINY, *out), "needs 3 examples a class; 'class"),
        "an empty picture": (("train", zero, *TINY, *out), "0.png cannot be read as a picture: it is empty (0 bytes)"),
        "out is a file": ((*train, "--out", tmp_path / "file"), "is a file. Choose a folder as --out."),
        "out below a file": ((*train, "--out", tmp_path / "file" / "x"), "Not a directory"),
        "no such option": ((*train, *out, "--set", "widht=3"), "prototypical_network has no option 'widht'"),
        "a wrong value": ((*train, *out, "--set", "distance=far"), "distance is 'far', but for prototypical_network"),
        "a wrong network": ((*train, *out, "--set-net", "width=-1"), "width is -1, but for Conv4 it is at least 1."),
        "an empty network": ((*train, *out, "--set-net", "width=0"), "width is 0, but for Conv4 it is at least 1."),
        "an empty relation network": (
            (*train, *out, "--learner", "relation_network", "--set-net", "width=0"),
            "width is 0, but for FeatureMaps it is at least 1.",
        ),
        "float16 on a CPU": (
            (*train, *out, "--precision", "16-mixed"),
            "16-mixed needs a GPU, and there is none here.",
        ),
        "a negative clip": ((*train, *out, "--clip", "-1"), "'--clip'"),
        "no minutes": ((*train, *out, "--minutes", "0"), "0.0 is not above 0."),
        "no rate": ((*train, *out, "--lr", "nan"), "nan is not above 0."),
        "a negative seed": ((*train, *out, "--seed", "-1"), "-1 is no seed"),
        "negative steps": ((*train, *out, "--learner", "maml", "--set", "steps=-1"), "at least 0"),
        "a wrong order": ((*train, *out, "--learner", "maml", "--set", "order=3"), "order is 3"),
        "an ignored network": ((*train, *out, "--learner", "relation_network", "--net", "resnet12"), "own conv4"),
        "no prior": (("evaluate", tmp_path / "empty"), "holds no prior"),
        "no such prior": (("evaluate", "glyphs_mamml"), "'glyphs_mamml' is neither a folder nor a shipped prior"),
        "too many classes": (("evaluate", prior, "--source", pictures, "--n-way", 7), "7-way tasks need 7 classes"),
        "no labelled folder": (("adapt", prior, tmp_path / "none", *out), "does not exist"),
        "nothing to predict": (("adapt", prior, few, "--predict", tmp_path / "empty", *out), "holds no files"),
        "adapt to one class": (("adapt", prior, one, *out), "one class only"),
        "adapt out is a file": (("adapt", prior, few, "--out", tmp_path / "file"), "is a file"),
    }


BAD = (
    "no such data",
    "an empty folder",
    "one class",
    "few pictures",
    "an empty picture",
    "out is a file",
    "out below a file",
    "no such option",
    "a wrong value",
    "a wrong network",
    "an empty network",
    "an empty relation network",
    "float16 on a CPU",
    "a negative clip",
    "no minutes",
    "no rate",
    "a negative seed",
    "negative steps",
    "a wrong order",
    "an ignored network",
    "no prior",
    "no such prior",
    "too many classes",
    "no labelled folder",
    "nothing to predict",
    "adapt to one class",
    "adapt out is a file",
)


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_one_clear_message_and_a_non_zero_exit(quickstudy, tmp_path, pictures, prior, name):
    if name == "float16 on a CPU" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    arguments, expected = bad_inputs(tmp_path, pictures, prior)[name]
    code, out, told = quickstudy(*arguments)
    assert code in (1, 2)
    assert out == ""
    assert "Traceback" not in told
    assert expected in told
    assert (tmp_path / "file").read_text() == ""
    assert not (tmp_path / "out" / "prior.json").exists()


def test_a_full_disk_is_told_and_a_prior_that_was_there_is_intact(quickstudy, pictures, prior, monkeypatch):
    before = {path.name: path.read_bytes() for path in prior.iterdir()}

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    code, _, told = quickstudy("train", pictures, *TINY, "--out", prior, "--resume")
    assert code == 1
    assert "prior.json" in told or "weights" in told or "checkpoint" in told
    assert "No space left on device. What was saved before is intact. Make room and go on with --resume." in told
    assert {path.name: path.read_bytes() for path in prior.iterdir()} == before


def test_a_run_that_diverges_says_at_which_step(quickstudy, pictures, tmp_path):
    learner = ("--learner", "maml", "--set", "lr=1e30", "--set", "steps=3", "--lr", "1e30")
    code, _, told = quickstudy("train", pictures, *TINY, *learner, "--out", tmp_path / "out")
    assert code == 1
    assert "error the loss is nan" in told
    assert re.search(r"at step \d|after step \d", told)


def test_an_error_of_a_process_is_one_message_without_a_traceback(tmp_path):
    draw(tmp_path / "few", 2, 1)
    command = [sys.executable, "-m", "quickstudy", "train", str(tmp_path / "few"), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert is_one_message(done.stderr)
    assert len(done.stderr.splitlines()) == 1


def test_what_torchrun_has_begun_is_what_trains():
    begun = {"LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "6"}
    assert processes(4, {}) == (4, 1)
    assert processes(1, begun) == processes(2, begun) == (2, 3)
    with pytest.raises(ShapeError, match="torchrun has begun 2 processes here, and --devices is 3"):
        processes(3, begun)


@pytest.mark.parametrize(
    ("launcher", "devices"),
    [
        ((), ("--devices", "2")),
        pytest.param(
            ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
            (),
            marks=pytest.mark.skipif("QUICKSTUDY_THOROUGH" not in os.environ, reason="QUICKSTUDY_THOROUGH is not set"),
        ),
    ],
    ids=["devices", "torchrun"],
)
def test_two_devices_train_one_prior_and_speak_once(pictures, tmp_path, launcher, devices):
    out = tmp_path / "out"
    arguments = ["train", str(pictures), *map(str, TINY), *devices, "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, *launcher, "-m", "quickstudy", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("saved") == 1
    assert done.stderr.count("classes to train on") == 1
    assert {path.name for path in out.iterdir()} == {"prior.json", "weights.safetensors", CHECKPOINT}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("lr=0.1", 0.1),
        ("lr=.1", 0.1),
        ("lr=1e-3", 1e-3),
        ("steps=5", 5),
        ("low-memory=True", True),
        ("x=none", None),
        ("distance=cosine", "cosine"),
        ("a=b=c", "b=c"),
    ],
)
def test_settings_are_read_as_what_they_look_like(text, value):
    (found,) = parse_settings([text]).values()
    assert found == value
    assert type(found) is type(value)


def test_a_setting_without_a_value_shows_how_it_is_written(quickstudy, pictures, tmp_path):
    code, _, told = quickstudy("train", pictures, *TINY, "--set", "lr", "--out", tmp_path / "out")
    assert code == 2
    assert "name=value" in told


def test_tensorboard_and_low_precision_are_options(quickstudy, pictures, tmp_path):
    pytest.importorskip("tensorboard")
    out = tmp_path / "out"
    code, _, _ = quickstudy("train", pictures, *TINY, "--tensorboard", "--precision", "bf16-mixed", "--out", out)
    assert code == 0
    assert list(out.rglob("events.out.tfevents.*"))
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize("parse", [an_amount, memory, milliseconds])
def test_a_limit_that_is_none_is_refused_as_an_option(parse):
    assert parse(None) is None
    with pytest.raises(typer.BadParameter, match="'many'"):
        parse("many")


def test_a_search_keeps_limits_reports_and_goes_on(quickstudy, tmp_path, by_trials):
    out = tmp_path / "out"
    options = ("--max-params", "3k", "--trials", "2", "--workers", "1", "--out", out)
    code, told, errors = quickstudy("search", "digits", *options)
    assert code == 0, errors
    assert "test accuracy" in told
    assert "3,000 parameters" in errors
    assert (out / "report.html").exists()
    code, _, errors = quickstudy("search", "digits", *options)
    assert code == 1
    assert "--force" in errors
    (out / "report.html").unlink()  # as if it had been cut off while it exported
    code, told, errors = quickstudy("search", "digits", *options, "--max-memory", "1M")
    assert code == 0, errors
    assert re.search(r"tried\s+2 architectures", told)  # those of before: the budget of trials was spent


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("search", "digits", "--max-params", "5"), "fewest parameters"),
        (("search", "nothing-here"), "neither a file or folder here"),
        (("search", "digits", "--max-params", "lots"), "lots"),
        (("search", "digits", "--size", "9"), "size=9"),
        (("search", "digits", "--seconds", "inf"), "--seconds inf never ends without --trials"),
    ],
)
def test_a_search_that_cannot_begin_says_why(quickstudy, tmp_path, arguments, said):
    code, _, errors = quickstudy(*arguments[:2], "--seconds", "2", *arguments[2:], "--workers", "1", "--out", tmp_path)
    assert code != 0
    assert said in " ".join(errors.split())
