import hashlib
import io
import json
import tarfile

import numpy as np
import pytest
import torch

from quickstudy.errors import DataError
from quickstudy.tasks import cifar_fs as module
from quickstudy.tasks.cifar_fs import SUPERCLASS_OF, SUPERCLASSES, cifar_fs, fc100
from quickstudy.tasks.fetch import data_folder

SPLITS = ("train", "validation", "test")
needs_data = pytest.mark.skipif(
    data_folder() is None or not (data_folder() / "cifar100_lossless").exists(),
    reason="needs cifar100_lossless in the folder that QUICKSTUDY_DATA names",
)
NAMES = sorted(SUPERCLASS_OF)


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A small archive of the official layout in the cache: two training and one test picture a class."""
    monkeypatch.delenv("QUICKSTUDY_DATA", raising=False)
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path))
    (tmp_path / "cifar100").mkdir()
    path = tmp_path / "cifar100" / "cifar-100-binary.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for part, pictures in (("train", (0, 1)), ("test", (2,))):
            records = [
                bytes([0, label]) + bytes([label]) * 1024 + bytes([i]) * 1024 + bytes([255]) * 1024
                for i in pictures
                for label in range(100)
            ]
            member = tarfile.TarInfo(f"cifar-100-binary/{part}.bin")
            member.size = len(records) * 3074
            tar.addfile(member, io.BytesIO(b"".join(records)))
    monkeypatch.setattr(module, "CHECKSUM", "md5:" + hashlib.md5(path.read_bytes()).hexdigest())
    return tmp_path


def test_a_hundred_classes_belong_to_twenty_superclasses_of_five():
    assert len(SUPERCLASSES) == 20
    assert len(SUPERCLASS_OF) == 100
    assert all(len(names.split()) == 5 for names in SUPERCLASSES.values())


@pytest.mark.parametrize(
    ("classes", "sizes"), [(module._cifar_fs_classes, [64, 16, 20]), (module._fc100_classes, [60, 20, 20])]
)
def test_the_published_parts_are_disjoint_and_complete(classes, sizes):
    parts = [classes(split) for split in SPLITS]
    assert [len(part) for part in parts] == sizes
    assert sorted(name for part in parts for name in part) == NAMES
    assert all(part == sorted(part) for part in parts)


def test_the_parts_of_fc100_have_no_superclass_in_common():
    groups = [{SUPERCLASS_OF[name] for name in module._fc100_classes(split)} for split in SPLITS]
    assert [len(part) for part in groups] == [12, 4, 4]
    assert len(set.union(*groups)) == 20


def test_the_official_archive_holds_each_class_with_its_training_and_test_pictures(archive):
    data = cifar_fs("test")
    assert data.x.shape == (60, 3, 32, 32)
    assert data.x.dtype == torch.uint8
    for y, name in enumerate(data.class_names):
        pictures = data.x[data.y == y]
        assert (pictures[:, 0] == NAMES.index(name)).all()
        assert sorted(pictures[:, 1, 0, 0].tolist()) == [0, 1, 2]
        assert (pictures[:, 2] == 255).all()


def test_the_archive_is_unpacked_once(archive):
    first = fc100("train")
    (archive / "cifar100" / "cifar-100-binary.tar.gz").unlink()
    assert torch.equal(fc100("train").x, first.x)


def test_the_order_of_pictures_does_not_depend_on_the_source():
    pictures = np.random.default_rng(0).integers(0, 255, (9, 3, 4, 4), dtype=np.uint8)
    assert np.array_equal(module._in_order(pictures), module._in_order(pictures[::-1]))


@pytest.mark.parametrize("source", [cifar_fs, fc100])
def test_an_unknown_split_names_the_known_ones(source):
    with pytest.raises(DataError, match="there is no split 'val'; choose train, validation or test"):
        source("val")


def test_an_incomplete_folder_of_sheets_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("QUICKSTUDY_DATA", str(tmp_path))
    (tmp_path / "cifar100_lossless").mkdir()
    (tmp_path / "cifar100_lossless" / "classes.json").write_text(json.dumps(NAMES))
    with pytest.raises(DataError, match=r"cifar100_lossless is not CIFAR-100 in sheets: .*Complete or remove"):
        cifar_fs("test")


@pytest.mark.data
@needs_data
def test_the_embedded_lists_are_the_published_ones():
    published = json.loads((data_folder() / "cifar100_lossless" / "splits.json").read_text())
    for split, key in (("train", "train"), ("validation", "val"), ("test", "test")):
        assert module._cifar_fs_classes(split) == sorted(name for _, name in published["cifar-fs"][key])
        assert all(SUPERCLASS_OF[name] == group for group, name in published["cifar-fs"][key])
        groups = {SUPERCLASS_OF[name] for name in module._fc100_classes(split)}
        assert groups == set(published["fc100"][key])


@pytest.mark.data
@needs_data
@pytest.mark.parametrize("source", [cifar_fs, fc100])
def test_the_sheets_hold_600_different_pictures_of_each_class(source):
    told = []
    data = source("test", on_progress=lambda *step: told.append(step))
    assert data.x.shape == (12000, 3, 32, 32)
    assert (data.counts() == 600).all()
    assert data.groups == tuple(SUPERCLASS_OF[name] for name in data.class_names)
    assert len(data.x[:600].flatten(1).unique(dim=0)) > 590
    assert told[-1] == (20, 20)


@pytest.mark.data
@needs_data
def test_the_tiles_of_a_sheet_are_cut_where_pictures_meet():
    x = cifar_fs("validation").x[:200].float()
    within = (x[..., 1:, :] - x[..., :-1, :]).abs().mean((0, 1, 3))
    assert within.max() < 2 * within.mean()
