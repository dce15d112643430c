import hashlib
import io
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from quickstudy.errors import DataError, DataNotFoundError
from quickstudy.tasks import omniglot as module
from quickstudy.tasks.catalogue import load_splits
from quickstudy.tasks.fetch import data_folder
from quickstudy.tasks.omniglot import VALIDATION_ALPHABETS, omniglot

SPLITS = ("train", "validation", "test")
needs_data = pytest.mark.skipif(
    data_folder() is None or not (data_folder() / "omniglot" / "omniglot28.npz").exists(),
    reason="needs omniglot/omniglot28.npz in the folder that QUICKSTUDY_DATA names",
)
SMALL = {
    "images_background": {"Greek": 3, "Tagalog": 2, "Latin": 4},
    "images_evaluation": {"Tibetan": 3},
}


def drawing(number: int) -> Image.Image:
    """A picture like the official ones: 105x105, one bit, ink 0, here a square whose place tells its number."""
    image = Image.new("1", (105, 105), 1)
    image.paste(0, (number, number, number + 40, number + 40))
    return image


@pytest.fixture
def archives(tmp_path, monkeypatch):
    """Small archives of the official layout in the cache: two drawings of each of 12 characters."""
    monkeypatch.delenv("QUICKSTUDY_DATA", raising=False)
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path))
    (tmp_path / "omniglot").mkdir()
    number = 0
    for name, alphabets in SMALL.items():
        path = tmp_path / "omniglot" / f"{name}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"{name}/", "")
            for alphabet, characters in alphabets.items():
                for character in range(1, characters + 1):
                    for drawer in (2, 1):
                        png = io.BytesIO()
                        drawing(number + drawer).save(png, "PNG")
                        member = f"{name}/{alphabet}/character{character:02d}/{number:04d}_{drawer:02d}.png"
                        archive.writestr(member, png.getvalue())
                    number += 1
        monkeypatch.setitem(module.CHECKSUMS, name, "md5:" + hashlib.md5(path.read_bytes()).hexdigest())
    monkeypatch.setattr(module, "N_TEST", 3)
    monkeypatch.setattr(module, "N_VALIDATION", 2)
    return tmp_path


def test_the_official_archives_become_white_ink_on_black_at_28_pixels(archives):
    data = omniglot("test", protocol="alphabets", rotations=False)
    assert data.class_names == ("Tibetan/character01", "Tibetan/character02", "Tibetan/character03")
    assert data.x.shape == (6, 1, 28, 28)
    assert data.y.tolist() == [0, 0, 1, 1, 2, 2]
    assert data.x.unique().tolist() == [0, 255]
    nearest = np.asarray(drawing(9 + 1).resize((28, 28), Image.Resampling.NEAREST))
    assert np.array_equal(data.x[0, 0].numpy() == 255, ~nearest)


def test_the_archives_are_unpacked_once(archives):
    first = omniglot("train")
    for path in (archives / "omniglot").glob("*.zip"):
        path.unlink()
    assert torch.equal(omniglot("train").x, first.x)


def test_a_character_is_ordered_by_its_drawers(archives):
    data = omniglot("validation", protocol="alphabets", rotations=False)
    assert data.groups == ("Tagalog", "Tagalog")
    first_ink = data.x[:, 0].flatten(1).argmax(1).tolist()
    assert first_ink == sorted(first_ink)


@pytest.mark.parametrize("protocol", ["random", "alphabets"])
def test_the_parts_of_the_archives_are_disjoint_and_complete(archives, protocol):
    parts = [omniglot(split, protocol=protocol, rotations=False).class_names for split in SPLITS]
    assert len(set().union(*parts)) == sum(map(len, parts)) == 12


@pytest.mark.parametrize(("name", "protocol"), [("omniglot", "random"), ("omniglot-alphabets", "alphabets")])
def test_both_protocols_have_a_name(archives, name, protocol):
    splits = load_splits(name, n_way=2)
    assert splits.test.class_names == omniglot("test", protocol=protocol).class_names


def test_an_altered_archive_is_refused(archives):
    (archives / "omniglot" / "images_background.zip").write_bytes(b"altered")
    with pytest.raises(DataError, match="is not the official file"):
        omniglot("train")


def test_an_incomplete_packed_file_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("QUICKSTUDY_DATA", str(tmp_path))
    (tmp_path / "omniglot").mkdir()
    np.savez(tmp_path / "omniglot" / "omniglot28.npz", bits=np.zeros(3))
    with pytest.raises(DataError, match=r"omniglot28\.npz has no \['alphabet', 'character', 'n_background'\]"):
        omniglot("train")
    (tmp_path / "omniglot" / "omniglot28.npz").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"omniglot28\.npz cannot be read as an npz file"):
        omniglot("train")


def test_offline_the_error_names_the_official_home(tmp_path, monkeypatch):
    monkeypatch.setenv("QUICKSTUDY_DATA", str(tmp_path))
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path))
    monkeypatch.setattr(module, "HOME", "http://127.0.0.1:9")
    with pytest.raises(DataNotFoundError, match=r"127\.0\.0\.1:9/images_background\.zip"):
        omniglot("train")


@pytest.mark.parametrize("wrong", [{"split": "val"}, {"split": "train", "protocol": "lake"}])
def test_an_unknown_split_or_protocol_names_the_known_ones(wrong):
    with pytest.raises(DataError, match=r"Omniglot has no (split 'val'|protocol 'lake'); choose"):
        omniglot(**wrong)


@pytest.mark.data
@needs_data
def test_the_random_split_has_1028_172_and_423_characters_in_disjoint_parts():
    train, validation, test = (omniglot(split, rotations=False) for split in SPLITS)
    assert [train.n_classes, validation.n_classes, test.n_classes] == [1028, 172, 423]
    assert len({*train.class_names, *validation.class_names, *test.class_names}) == 1623
    assert omniglot("train+validation", rotations=False).n_classes == 1200
    assert all((part.counts() == 20).all() for part in (train, validation, test))


@pytest.mark.data
@needs_data
def test_the_random_split_is_the_same_on_every_machine():
    digests = [hashlib.sha256("\n".join(omniglot(split, rotations=False).class_names).encode()) for split in SPLITS]
    assert [digest.hexdigest()[:16] for digest in digests] == [
        "48d91670bccc0f1f",
        "a770ff65809a3f6b",
        "bd97049a2066c371",
    ]


@pytest.mark.data
@needs_data
def test_lakes_alphabets_are_30_with_964_characters_and_20_with_659():
    train, validation, test = (omniglot(split, protocol="alphabets", rotations=False) for split in SPLITS)
    assert [train.n_classes, validation.n_classes, test.n_classes] == [883, 81, 659]
    assert [len(set(part.groups)) for part in (train, validation, test)] == [25, 5, 20]
    assert Counter(validation.groups) == dict(zip(VALIDATION_ALPHABETS, (20, 14, 16, 14, 17)))
    assert not set(train.groups) & set(validation.groups)
    assert not {*train.groups, *validation.groups} & set(test.groups)


@pytest.mark.data
@needs_data
def test_drawings_are_ink_on_nothing():
    data = omniglot("validation", protocol="alphabets", rotations=False)
    assert data.x.unique().tolist() == [0, 255]
    assert 0.02 < (data.x == 255).float().mean() < 0.25


@pytest.mark.data
@needs_data
def test_a_turned_character_is_a_class_of_its_own():
    plain, turned = (omniglot("test", rotations=rotations) for rotations in (False, True))
    assert turned.n_classes == 4 * 423
    assert torch.equal(turned.x[: len(plain.x)], plain.x)
    assert Path(turned.class_names[423]).name.endswith("@90")
