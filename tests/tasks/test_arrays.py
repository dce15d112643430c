import contextlib
import re

import numpy as np
import pytest
import torch

from quickstudy.errors import DataError, DataNotFoundError, ShapeError
from quickstudy.tasks.arrays import arrays

Y = np.array([0, 1, 0, 1])
RAGGED = np.array([[1], [2], [3], [4, 5]], dtype=object)
X = np.arange(4 * 28 * 28, dtype=np.float32).reshape(4, 1, 28, 28)


@pytest.fixture
def save(tmp_path):
    def save(**found):
        np.savez(tmp_path / "mine.npz", **found)
        return tmp_path / "mine.npz"

    return save


def test_pictures_and_labels_come_back_as_they_were_saved(save):
    data, test = arrays(save(x=X, y=Y))
    assert torch.equal(data.x, torch.from_numpy(X))
    assert data.y.tolist() == Y.tolist()
    assert data.class_names == ("0", "1")
    assert test is None


@pytest.mark.parametrize(
    ("shape", "read"),
    [
        ((4, 100), (4, 1, 100)),
        ((4, 28, 28), (4, 1, 28, 28)),
        ((4, 3, 100), (4, 3, 100)),
        ((4, 3, 20, 30), (4, 3, 20, 30)),
        ((4, 3, 1, 30), (4, 3, 1, 30)),
        ((4, 3, 3, 3), (4, 3, 3, 3)),
    ],
)
def test_the_axis_of_channels_is_added_where_nothing_else_can_be_meant(save, shape, read):
    assert arrays(save(x=np.zeros(shape), y=Y))[0].x.shape == read


@pytest.mark.parametrize(
    ("dtype", "read"),
    [
        ("uint8", torch.uint8),
        ("float64", torch.float),
        ("float16", torch.float),
        ("int64", torch.float),
        ("bool", torch.float),
    ],
)
def test_levels_stay_levels_and_all_other_numbers_become_floats(save, dtype, read):
    assert arrays(save(x=np.ones((4, 1, 8, 8), dtype), y=Y))[0].x.dtype == read


@pytest.mark.parametrize(
    ("y", "names", "places"),
    [
        ([10, 9, 9, 10], ("9", "10"), [1, 0, 0, 1]),
        ([-1, 1, 1, -1], ("-1", "1"), [0, 1, 1, 0]),
        (["otter", "bee", "bee", "otter"], ("bee", "otter"), [1, 0, 0, 1]),
        ([b"otter", b"bee", b"bee", b"otter"], ("bee", "otter"), [1, 0, 0, 1]),
        ([True, False, False, True], ("False", "True"), [1, 0, 0, 1]),
    ],
)
def test_labels_are_numbers_or_strings_and_classes_come_in_their_order(save, y, names, places):
    data, _ = arrays(save(x=X, y=np.array(y)))
    assert data.class_names == names
    assert data.y.tolist() == places


def test_a_test_set_is_numbered_like_the_training_set(save):
    data, test = arrays(save(x=X, y=["a", "b", "c", "b"], x_test=X[:2], y_test=["c", "c"]))
    assert test is not None
    assert test.class_names == data.class_names
    assert test.y.tolist() == [2, 2]


def test_other_arrays_are_left_alone_even_if_they_hold_objects(save):
    assert arrays(save(x=X, y=Y, note=np.array([{}], dtype=object)))[0].n_classes == 2


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"y": None}, DataError, "has no array 'y', only 'x'. Save it with np.savez(path, x=inputs, y=labels)."),
        ({"x": None, "y": None}, DataError, "has no array 'x' and no array 'y', only none."),
        (
            {"x": np.where(np.arange(4)[:, None, None, None] == 2, np.nan, X)},
            DataError,
            "1 of 4 examples in x hold NaN or infinity, the first at index 2. Remove",
        ),
        ({"x": np.full((4, 1, 8, 8), 1e300)}, DataError, "4 of 4 examples in x hold NaN or infinity"),
        ({"x": X[:3]}, ShapeError, "x has 3 examples and y 4 labels. Save one label for each example."),
        ({"x": X[:, 0, 0, 0]}, ShapeError, "x is (4,); give (n, channels, height, width) for pictures"),
        ({"x": X[..., None]}, ShapeError, "x is (4, 1, 28, 28, 1); give"),
        ({"x": X[:, :, :0]}, ShapeError, "with at least one of each"),
        ({"x": X[:0], "y": Y[:0]}, ShapeError, "with at least one of each"),
        ({"x": np.zeros((4, 32, 32, 3))}, ShapeError, "They come second: np.moveaxis(x, -1, 1)."),
        ({"x": np.zeros((4, 20, 30), np.uint8)}, ShapeError, "Add the axis of channels to pictures, x[:, None]; save"),
        ({"x": np.array(["a", "b", "c", "d"])}, DataError, "x holds <U1, not numbers. Save it as uint8 or float32."),
        ({"x": X.astype(complex)}, DataError, "x holds complex128, not numbers"),
        ({"x": RAGGED}, DataError, "x is an array of Python objects, which only pickle could read"),
        ({"x": RAGGED}, DataError, "Inputs of one size make an array of numbers: np.stack(list(x))"),
        ({"y": RAGGED}, DataError, "that may run any program. Save labels as y.astype(str)."),
        ({"y": Y + 0.5}, DataError, "y holds float64, but labels are whole numbers or strings: y.round().astype(int)"),
        ({"y": np.array(["2020-01-01"] * 4, "datetime64[D]")}, DataError, "labels are whole numbers or strings"),
        ({"y": Y[0]}, ShapeError, "y is (), but there is one label an example, (n,)"),
        ({"y": Y[:, None]}, ShapeError, "y is (4, 1), but there is one label an example, (n,): y.ravel()."),
        ({"y": np.eye(4, dtype=int)}, ShapeError, "y.argmax(1), if it has a column a class."),
        ({"x_test": X}, DataError, "has x_test but no y_test. Add it, or leave both out"),
        ({"y_test": Y}, DataError, "has y_test but no x_test"),
        ({"x_test": X, "y_test": Y + 1}, DataError, "y_test has '2', which y has not. A class that was never learned"),
        ({"x_test": X[..., :9], "y_test": Y}, ShapeError, "x_test has inputs (1, 28, 9) in float32, x has (1, 28, 28)"),
        ({"x_test": X.astype(np.uint8), "y_test": Y}, ShapeError, "Save both in the same shape and type."),
        ({"x_test": X[:1], "y_test": Y}, ShapeError, "x_test has 1 examples and y_test 4 labels"),
    ],
)
def test_bad_arrays_are_refused_in_a_sentence_with_its_remedy(save, change, error, sentence):
    found = {name: value for name, value in ({"x": X, "y": Y} | change).items() if value is not None}
    with pytest.raises(error, match=re.escape(sentence)) as raised:
        arrays(save(**found))
    assert "mine.npz" in str(raised.value)


def test_a_file_that_is_no_npz_is_refused(tmp_path):
    with pytest.raises(DataNotFoundError, match=r"nowhere\.npz is not there"):
        arrays(tmp_path / "nowhere.npz")
    (tmp_path / "text.npz").write_text("x,y")
    with pytest.raises(DataError, match=r"cannot be read as an npz file.*Save it again with np\.savez"):
        arrays(tmp_path / "text.npz")
    (tmp_path / "empty.npz").write_bytes(b"")
    with pytest.raises(DataError, match="cannot be read as an npz file"):
        arrays(tmp_path / "empty.npz")
    np.save(tmp_path / "one.npy", X)
    with pytest.raises(DataError, match=r"holds one array\. Save inputs and labels together"):
        arrays((tmp_path / "one.npy").rename(tmp_path / "one.npz"))


def test_a_compressed_file_with_a_wrong_byte_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", x=X, y=Y)
    content = bytearray((tmp_path / "a.npz").read_bytes())
    for place in range(50, 90, 3):
        damaged = content.copy()
        damaged[place] ^= 255
        (tmp_path / "a.npz").write_bytes(damaged)
        with contextlib.suppress(DataError):  # some bytes tell nothing
            arrays(tmp_path / "a.npz")


def test_a_file_that_was_cut_off_is_refused(save):
    path = save(x=X, y=Y)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match="cannot be read as an npz file"):
        arrays(path)
