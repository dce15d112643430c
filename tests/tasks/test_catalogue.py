import pytest
import torch
from PIL import Image

from quickstudy import LabelledSet
from quickstudy.errors import DataNotFoundError, TooFewExamplesError, UnreadablePictureError
from quickstudy.tasks.catalogue import SOURCES, Source, load_splits
from quickstudy.tasks.pictures import PictureEncoder


def folder(root, classes: int):
    for i in range(classes):
        (root / f"class {i}").mkdir()
        for j in range(2):
            Image.new("L", (20, 20), 10 * i + j).save(root / f"class {i}" / f"{j}.png")
    return root


def test_a_folder_is_split_by_its_classes(tmp_path):
    splits = load_splits(str(folder(tmp_path, 8)), n_way=2, encoder=PictureEncoder(size=16))
    parts = [set(part.class_names) for part in (splits.train, splits.validation, splits.test)]
    assert [len(part) for part in parts] == [4, 2, 2]
    assert len(set.union(*parts)) == 8
    assert splits.train.x.shape == (8, 1, 16, 16)
    assert splits.encoder == PictureEncoder(size=16)


def test_a_folder_with_too_few_classes_says_how_many_it_needs(tmp_path):
    with pytest.raises(TooFewExamplesError, match=r"15 in all; the data has 4\. Add 11 classes or lower n_way"):
        load_splits(str(folder(tmp_path, 4)), n_way=5)


def test_a_folder_with_bad_pictures_is_read_only_without_them(tmp_path):
    (folder(tmp_path, 6) / "class 0" / "bad.png").write_bytes(b"")
    with pytest.raises(UnreadablePictureError, match=r"bad.png"):
        load_splits(str(tmp_path), n_way=2)
    assert load_splits(str(tmp_path), n_way=2, skip_bad=True).train.n_classes == 2


def test_a_name_that_is_neither_says_what_there_is():
    with pytest.raises(DataNotFoundError, match="'glyfs' is neither a folder nor one of glyphs, omniglot"):
        load_splits("glyfs", n_way=5)


def test_a_known_name_loads_its_three_parts_with_its_encoder(monkeypatch):
    asked = []

    def load(split, *, on_progress):
        asked.append(split)
        return LabelledSet(torch.zeros(2, 1), torch.arange(2), ("a", "b"))

    monkeypatch.setitem(SOURCES, "mine", Source("a test", load, PictureEncoder(size=20)))
    assert load_splits("mine", n_way=2, encoder=PictureEncoder(size=99)).encoder.size == 20
    assert asked == ["train", "validation", "test"]


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_has_a_line_of_help(name):
    assert SOURCES[name].summary
