import json

import numpy as np
import pytest
import torch
from PIL import Image

from quickstudy.errors import DataError, DataNotFoundError, TaskError, TooFewExamplesError, UnreadablePictureError
from quickstudy.tasks.encoder_for import encoder_for, encoder_for_classes, look_at
from quickstudy.tasks.load_task import load_task
from quickstudy.tasks.pictures import PictureEncoder


def folder_of(root, *, size=(20, 14), colour="grey", n=5, classes=("ant", "bee")):
    for i, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for j in range(n):
            Image.new("RGB", size, colour if i else "white").save(root / name / f"{j}.png")
    return root


def test_a_named_source_is_a_task_with_its_names():
    found = load_task("digits")
    assert found.name == "digits"
    assert found.class_names == tuple("0123456789")
    assert found.shape == (1, 8, 8)
    assert sum(found.counts) == 1797
    assert found.inputs["kind"] == "named"


def test_the_share_and_the_seed_are_passed_on():
    small, other = load_task("digits", test=0.1), load_task("digits", test=0.1, seed=1)
    assert small.task.query.n == pytest.approx(180, abs=5)
    assert not torch.equal(small.task.query.x, other.task.query.x)
    with pytest.raises(TaskError, match="no share"):
        load_task("digits", test=2)


def test_a_folder_of_pictures_is_a_task_whose_encoder_comes_with_it(tmp_path):
    found = load_task(folder_of(tmp_path / "mine"), test=0.4)
    assert (found.task.support.n, found.task.query.n) == (6, 4)
    assert found.name == "mine"
    assert found.shape == (1, 20, 20)
    assert PictureEncoder.from_settings(found.inputs["encoder"]) == PictureEncoder(size=20, ink=False)


def test_everything_about_the_inputs_is_plain_json(tmp_path):
    np.savez(tmp_path / "mine.npz", x=np.zeros((8, 3, 9, 9), np.uint8), y=np.arange(8) % 2)
    for source in (folder_of(tmp_path / "mine"), tmp_path / "mine.npz", "digits"):
        inputs = load_task(source).inputs
        assert json.loads(json.dumps(inputs)) == inputs


def test_an_npz_is_a_task_with_or_without_a_test_set_of_its_own(tmp_path):
    x, y = np.full((12, 1, 9, 9), 255, np.uint8), np.arange(12) % 2
    np.savez(tmp_path / "a.npz", x=x, y=y)
    np.savez(tmp_path / "b.npz", x=x, y=y, x_test=x[:1], y_test=y[:1])
    a, b = load_task(tmp_path / "a.npz", test=0.5), load_task(str(tmp_path / "b.npz"), test=0.5)
    assert (a.task.support.n, a.task.query.n) == (6, 6)
    assert (b.task.support.n, b.task.query.n) == (12, 1)
    assert a.name == "a"
    assert a.inputs["levels"] == 255
    assert float(a.task.support.x.max()) == 1


@pytest.mark.parametrize(
    ("y", "sentence"),
    [
        ([0] * 6, "1 class, '0': there is nothing to tell apart"),
        (
            ["a", "a", "a", "b", "b", "a"],
            "at least 3 examples, one each to train, to validate and to test on; 'b' has 2",
        ),
    ],
)
def test_an_npz_of_one_class_or_with_classes_of_two_examples_is_refused(tmp_path, y, sentence):
    np.savez(tmp_path / "mine.npz", x=np.zeros((6, 1, 9, 9)), y=y)
    with pytest.raises(TooFewExamplesError, match=sentence):
        load_task(tmp_path / "mine.npz")


def test_a_csv_is_a_task_of_series(tmp_path):
    rows = "".join(f"{label},{','.join(str(i * 3 % 7) for i in range(9))}\n" for label in ("up", "down") * 4)
    (tmp_path / "waves.csv").write_text(rows)
    found = load_task(tmp_path / "waves.csv")
    assert found.shape == (1, 9)
    assert found.class_names == ("down", "up")


@pytest.mark.parametrize(
    ("size", "side"), [((20, 14), 20), ((14, 20), 20), ((300, 200), 32), ((3, 2), 8), ((32, 32), 32)]
)
def test_the_side_is_that_of_the_pictures_within_8_and_32(tmp_path, size, side):
    assert encoder_for(folder_of(tmp_path / "mine", size=size)).size == side


def test_mixed_sizes_take_the_median_and_every_picture_is_kept_whole(tmp_path):
    root = folder_of(tmp_path / "mine", size=(12, 12), n=3)
    Image.new("L", (500, 10)).save(root / "ant" / "wide.png")
    found = load_task(root)
    assert found.shape == (1, 12, 12)
    assert found.inputs["encoder"]["resize"] == "pad"


def test_colour_is_kept_where_there_is_some(tmp_path):
    assert encoder_for(folder_of(tmp_path / "grey", colour="grey")).channels == 1
    root = folder_of(tmp_path / "mine", colour="red")
    assert encoder_for(root).channels == 3
    assert load_task(root).shape == (3, 20, 20)


def test_a_picture_that_another_program_would_have_to_read_is_not_looked_at(tmp_path, monkeypatch):
    def refuse(*args, **options):
        pytest.fail("Ghostscript was called")

    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", refuse)
    root = folder_of(tmp_path / "mine")
    Image.new("RGB", (20, 20), "red").save(root / "ant" / "0.png", "EPS")
    assert look_at(root / "ant" / "0.png") is None
    assert look_at(next((root / "bee").iterdir())) is not None


def test_pictures_are_looked_at_all_over_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("quickstudy.tasks.encoder_for._LOOKED_AT", 4)
    root = folder_of(tmp_path / "mine", colour="grey")
    for i in range(3):
        Image.new("RGB", (20, 20), "red").save(root / "bee" / f"z{i}.png")
    assert encoder_for(root).channels == 3


def test_classes_are_learned_from_in_colour_where_there_is_some(tmp_path):
    grey, red = folder_of(tmp_path / "grey", colour="grey"), folder_of(tmp_path / "mine", colour="red")
    assert encoder_for_classes(grey) == PictureEncoder(size=28)
    assert encoder_for_classes(red) == PictureEncoder(size=32, channels=3, ink=False)
    assert encoder_for_classes(red, size=20, colour=False, resize="crop") == PictureEncoder(size=20, resize="crop")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_photographs_keep_their_levels_and_drawings_become_ink(tmp_path, dtype):
    random = np.random.default_rng(0)
    for part, make in (("photos", lambda: random.integers(0, 200, (8, 8))), ("drawings", lambda: np.full((8, 8), 200))):
        for name in ("ant", "bee"):
            (tmp_path / part / name).mkdir(parents=True)
            levels = np.kron(make(), np.ones((5, 5))).astype(dtype)
            levels[18:22, 10:30] = 10
            Image.fromarray(levels * dtype(20 if dtype == np.uint16 else 1)).save(tmp_path / part / name / "a.png")
    assert not encoder_for_classes(tmp_path / "photos").ink
    assert encoder_for_classes(tmp_path / "drawings") == PictureEncoder(ink=True)
    assert encoder_for_classes(tmp_path / "photos", ink=True).ink
    assert not encoder_for_classes(tmp_path / "drawings", ink=False).ink


def test_exposures_of_a_camera_of_12_bits_are_told_apart(tmp_path):
    random = np.random.default_rng(0)
    for name, most in (("dark", 1000), ("bright", 4000)):
        (tmp_path / name).mkdir()
        Image.fromarray((most * random.random((20, 20))).astype(np.uint16)).save(tmp_path / name / "a.png")
    for encoder in (encoder_for(tmp_path), encoder_for_classes(tmp_path)):
        assert (encoder.ink, encoder.white) == (False, 4095)
        dark, bright = (encoder.read(tmp_path / name / "a.png").float().mean() for name in ("dark", "bright"))
        assert float(bright / dark) == pytest.approx(4, rel=0.1)
        assert 100 < bright < 140


def test_ink_that_is_asked_for_is_of_grey_pictures(tmp_path):
    red = folder_of(tmp_path / "mine", colour="red")
    assert encoder_for_classes(red, ink=True) == PictureEncoder(size=28, channels=1, ink=True)


def test_a_size_that_was_asked_for_is_taken_and_one_without_meaning_refused(tmp_path):
    root = folder_of(tmp_path / "mine")
    assert load_task(root, size=48).shape == (1, 48, 48)
    for size in (0, 3, -1):
        with pytest.raises(DataError, match=f"size={size} leaves nothing to see"):
            load_task(root, size=size)
    with pytest.raises(DataError, match="1 to 1024 pixels"):
        load_task(root, size=5000)


def test_a_size_is_refused_where_inputs_have_their_own():
    with pytest.raises(DataError, match="size=16 is for folders of pictures; digits has inputs of a size of its own"):
        load_task("digits", size=16)


def test_bad_pictures_stop_it_or_are_skipped(tmp_path):
    root = folder_of(tmp_path / "mine")
    (root / "ant" / "bad.png").write_bytes(b"x")
    with pytest.raises(UnreadablePictureError, match=r"bad\.png"):
        load_task(root)
    assert sum(load_task(root, skip_bad=True).counts) == 10


def test_classes_with_two_pictures_are_refused(tmp_path):
    with pytest.raises(TooFewExamplesError, match="'ant' has 2, 'bee' has 2"):
        load_task(folder_of(tmp_path / "mine", n=2))


def test_hidden_files_decide_nothing(tmp_path):
    root = folder_of(tmp_path / "mine")
    (root / ".thumbs").mkdir()
    Image.new("RGB", (9, 9), "red").save(root / ".thumbs" / "1.png")
    assert encoder_for(root) == PictureEncoder(size=20, ink=False)


def test_what_is_not_there_is_answered_with_all_that_is_possible():
    with pytest.raises(DataNotFoundError) as raised:
        load_task("nowhere")
    for possible in ("'nowhere' is neither", "folder", "npz", "csv", "digits", "glyphs:ALPHABET", "ucr:NAME"):
        assert possible in str(raised.value)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("a.npy", "holds one array"),
        ("a.png", "is one picture"),
        ("a.xlsx", r"not read, \.xlsx"),
        ("a", "without a suffix"),
    ],
)
def test_a_file_of_another_kind_is_answered_with_all_that_is_possible(tmp_path, name, sentence):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match=f"{sentence}.*Give a folder"):
        load_task(tmp_path / name)


def test_a_folder_named_like_a_source_is_written_with_a_dot(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder_of(tmp_path / "digits")
    assert load_task("./digits").class_names == ("ant", "bee")
    assert len(load_task("digits").class_names) == 10
