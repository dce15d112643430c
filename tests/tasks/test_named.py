import gzip
import os
import struct

import numpy as np
import pytest
import torch

from quickstudy import LabelledSet
from quickstudy.errors import DataError, DataNotFoundError, MissingExtraError
from quickstudy.tasks import named
from quickstudy.tasks.named import NAMED, alphabet_of, digits, joined, load_named, read_idx, ucr

real = pytest.mark.skipif("QUICKSTUDY_DATA" not in os.environ, reason="QUICKSTUDY_DATA names no folder of data sets")


def alphabets(*names) -> LabelledSet:
    n = len(names)
    return LabelledSet(torch.arange(2 * n)[:, None], torch.arange(2 * n) % n, tuple(f"{a}/x" for a in names), names)


def test_digits_come_with_scikit_learn_in_levels_from_0_to_1():
    data = digits()
    assert data.x.shape == (1797, 1, 8, 8)
    assert (float(data.x.min()), float(data.x.max())) == (0, 1)
    assert int(data.counts().min()) > 170


def test_without_scikit_learn_the_remedy_is_named(monkeypatch):
    monkeypatch.setattr(named, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"quickstudy\[nas\]"):
        digits()


@pytest.mark.parametrize("written", ["Greek", "greek", "GREEK"])
def test_an_alphabet_is_found_whatever_its_capitals_and_its_characters_lose_its_name(written):
    data = alphabet_of(alphabets("latin", "Greek", "Greek"), written, "glyphs")
    assert data.class_names == ("x", "x")
    assert data.y.tolist() == [0, 1, 0, 1]
    assert alphabet_of(alphabets("old italic"), "old_italic", "glyphs").n_classes == 1


def test_an_unknown_alphabet_is_answered_with_those_there_are():
    with pytest.raises(
        DataError, match=r"no alphabet 'klingon'\. Choose from greek, latin: glyphs:greek, for instance"
    ):
        alphabet_of(alphabets("latin", "greek"), "klingon", "glyphs")


def test_joined_sets_keep_their_classes_apart():
    data = joined((alphabets("a", "b"), alphabets("c")))
    assert data.groups == ("a", "b", "c")
    assert data.y.tolist() == [0, 1, 0, 1, 2, 2]


@pytest.mark.parametrize(("source", "sentence"), [("digits:3", "digits has no parts"), ("mnist:", "ends in a colon")])
def test_a_part_that_a_source_has_not_is_refused(source, sentence):
    with pytest.raises(DataError, match=sentence):
        load_named(source)


def test_an_unknown_series_set_is_answered_with_where_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv("QUICKSTUDY_DATA", str(tmp_path))
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path))
    with pytest.raises(DataNotFoundError, match=r"no UCR set 'Nope' on this machine: it has none.*NAME_TRAIN\.ts"):
        ucr("Nope")


def test_a_series_set_is_found_where_the_archive_unpacks(monkeypatch, tmp_path):
    monkeypatch.setenv("QUICKSTUDY_DATA", str(tmp_path))
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path))
    folder = tmp_path / "ucr" / "Waves"
    folder.mkdir(parents=True)
    for end in ("TRAIN", "TEST"):
        (folder / f"Waves_{end}.tsv").write_text("1\t" + "\t".join("01234569") + "\n2\t" + "\t".join("87654321") + "\n")
    train, test = ucr("Waves")
    assert train.x.shape == (2, 1, 8)
    assert test is not None


def packed(folder, **found):
    folder.mkdir()
    np.savez(folder / f"{folder.name}.npz", **found)


def test_a_packed_series_set_keeps_its_published_test_set(monkeypatch, tmp_path):
    monkeypatch.setenv("QUICKSTUDY_DATA", str(tmp_path))
    x, y = np.zeros((4, 1, 9), np.float32), np.array([0, 1, 1, 0], np.int16)
    packed(tmp_path / "ucr_packaged", Waves_eq__Xtr=x, Waves_eq__ytr=y, Waves_eq__Xte=x[:2], Waves_eq__yte=y[:2])
    train, test = ucr("waves")
    assert (len(train.y), test and len(test.y)) == (4, 2)


def test_of_mnist_the_first_pictures_of_each_digit_are_taken(monkeypatch, tmp_path):
    monkeypatch.setenv("QUICKSTUDY_DATA", str(tmp_path))
    y = np.arange(6000, dtype=np.uint8) % 10
    packed(tmp_path / "mnist_like", mnist_X=np.zeros((6000, 28, 28), np.uint8), mnist_y=y)
    data, _ = load_named("mnist")
    assert data.x.shape == (5000, 1, 28, 28)
    assert data.counts().tolist() == [500] * 10


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape)
    return gzip.compress(header + array.tobytes(), mtime=0)


def test_an_idx_file_is_read_in_its_own_shape(tmp_path):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "x.gz").write_bytes(idx(array))
    assert np.array_equal(read_idx(tmp_path / "x.gz"), array)


@pytest.mark.parametrize(
    "content",
    [b"", b"nonsense", gzip.compress(b"\0\0", mtime=0), idx(np.zeros(9, np.uint8))[:-9]],
    ids=["empty", "nonsense", "too short", "cut off"],
)
def test_a_damaged_idx_file_is_refused(tmp_path, content):
    (tmp_path / "x.gz").write_bytes(content)
    with pytest.raises(DataError, match="no compressed IDX file"):
        read_idx(tmp_path / "x.gz")


@real
@pytest.mark.data
@pytest.mark.parametrize(
    ("source", "shape", "n_classes"),
    [
        ("glyphs:georgian", (1, 28, 28), 108),
        ("omniglot:tagalog", (1, 28, 28), 17),
        ("ucr:GunPoint", (1, 150), 2),
        ("ucr:JapaneseVowels", (12, 25), 9),
        ("fashion", (1, 28, 28), 10),
        ("mnist", (1, 28, 28), 10),
    ],
)
def test_each_named_source_is_what_it_says(source, shape, n_classes):
    data, _ = load_named(source)
    assert data.x.shape[1:] == shape
    assert data.n_classes == n_classes
    assert int(data.counts().min()) > 0
    assert source.partition(":")[0] in NAMED
