"""Glyphs: the characters, the hands, and the cache."""

import errno
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import torch
from torch import Generator

from quickstudy import Episodes, LabelledSet
from quickstudy.errors import DataError, MissingExtraError
from quickstudy.tasks import glyphs as module
from quickstudy.tasks.fetch import cache_folder
from quickstudy.tasks.glyph_characters import Character, alphabet_of, distinct, find_characters, skeleton_drawer
from quickstudy.tasks.glyph_hands import CANVAS, Hands, draw_hands, write
from quickstudy.tasks.glyphs import RECIPE, TEST, VALIDATION, Split, glyphs

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
FILE = f"glyphs-{RECIPE}.npz"
A_FEW = "BKRβλξжщქღժשלຄⵣߖجصᐂᖄ→∮"


@pytest.fixture(scope="module")
def everything() -> list[Character]:
    return find_characters()


@pytest.fixture
def a_few(everything: list[Character], monkeypatch: pytest.MonkeyPatch) -> list[Character]:
    """Glyphs of a few characters, so that drawing takes a moment."""
    few = [character for character in everything if chr(character.codepoint) in A_FEW]
    assert len(few) == len(A_FEW)
    monkeypatch.setattr(module, "find_characters", lambda: few)
    return few


def same(a: LabelledSet, b: LabelledSet) -> bool:
    return a.class_names == b.class_names and a.groups == b.groups and a.x.equal(b.x) and a.y.equal(b.y)


def test_every_character_has_twenty_pictures_of_ink_on_blank_paper(a_few: list[Character], tmp_path: Path) -> None:
    sets = [glyphs(split, cache=tmp_path) for split in SPLITS]
    assert sum(data.n_classes for data in sets) == len(a_few)
    for data in sets:
        assert data.x.dtype == torch.uint8
        assert data.x.shape == (20 * data.n_classes, 1, 28, 28)
        assert data.counts().tolist() == [20] * data.n_classes
        assert (data.x.flatten(1).amax(1) > 200).all()
        assert (data.x.flatten(1).float().mean(1) < 128).all()


def test_the_splits_share_no_alphabet_and_no_character(a_few: list[Character], tmp_path: Path) -> None:
    train, validation, test = (glyphs(split, cache=tmp_path) for split in SPLITS)
    assert train.groups is not None
    assert validation.groups is not None
    assert test.groups is not None
    assert set(test.groups) == set(TEST)
    assert set(validation.groups) == set(VALIDATION)
    assert not set(train.groups) & {*TEST, *VALIDATION}
    assert len({*train.class_names, *validation.class_names, *test.class_names}) == len(a_few)


def test_classes_are_named_and_in_the_order_of_alphabets_and_code_points(
    a_few: list[Character], tmp_path: Path
) -> None:
    assert glyphs("validation", cache=tmp_path).class_names[:2] == (
        "arabic/ج ARABIC LETTER JEEM",
        "arabic/ص ARABIC LETTER SAD",
    )


def test_no_two_pictures_of_a_character_are_the_same(a_few: list[Character], tmp_path: Path) -> None:
    data = glyphs("test", cache=tmp_path)
    assert len({picture.numpy().tobytes() for picture in data.x}) == len(data.x)


def test_drawing_again_gives_the_same_pixels(a_few: list[Character], tmp_path: Path) -> None:
    assert same(glyphs("train", cache=tmp_path / "a"), glyphs("train", cache=tmp_path / "b"))


def test_what_the_cache_gives_is_what_was_drawn(a_few: list[Character], tmp_path: Path) -> None:
    drawn = glyphs("test", cache=tmp_path)
    assert same(drawn, glyphs("test", cache=tmp_path))


def test_a_cached_set_needs_no_drawing_library(
    a_few: list[Character], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    glyphs("train", cache=tmp_path)
    for library in ("matplotlib", "PIL", "skimage", "scipy", "fontTools"):
        monkeypatch.setitem(sys.modules, library, None)
    assert all(glyphs(split, cache=tmp_path).n_classes for split in SPLITS)


@pytest.mark.parametrize("library", ["matplotlib", "PIL", "skimage.morphology"])
def test_a_missing_drawing_library_is_named_with_the_extra_that_brings_it(
    library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtraError, match=rf"{library} is not installed.*quickstudy\[glyphs\]"):
        glyphs("train", cache=tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_unknown_split_is_refused_with_the_known_ones() -> None:
    with pytest.raises(DataError, match="'tets': choose from 'train', 'validation', 'test'"):
        glyphs("tets")  # type: ignore[arg-type]


def test_progress_rises_to_the_end_and_is_silent_where_the_cache_serves(a_few: list[Character], tmp_path: Path) -> None:
    reports: list[tuple[int, int]] = []
    glyphs("train", cache=tmp_path, on_progress=lambda *report: reports.append(report))
    assert reports == sorted(reports)
    assert reports[-1] == (100, 100)
    reports.clear()
    glyphs("test", cache=tmp_path, on_progress=lambda *report: reports.append(report))
    assert not reports


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "foreign", "altered"])
def test_a_damaged_cache_is_drawn_again(
    damage: str, a_few: list[Character], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    drawn, path = [glyphs(split, cache=tmp_path) for split in SPLITS], tmp_path / FILE
    whole = path.read_bytes()
    if damage == "altered":  # a sound archive whose pixels are not the ones that were written
        with np.load(path) as stored:
            arrays = dict(stored)
        arrays["train"][0, 0, 0, 0] ^= 1
        np.savez_compressed(path, **arrays)
    else:
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]
        path.write_bytes({"empty": b"", "cut": whole[:middle], "flipped": flipped, "foreign": b"hello" * 99}[damage])
    assert all(same(glyphs(split, cache=tmp_path), data) for split, data in zip(SPLITS, drawn))
    assert "damaged" in caplog.text
    caplog.clear()
    assert all(same(glyphs(split, cache=tmp_path), data) for split, data in zip(SPLITS, drawn))
    assert not caplog.text


def test_a_full_disk_leaves_nothing_behind_and_still_gives_the_set(
    a_few: list[Character], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fill(file: BinaryIO, **arrays: object) -> None:
        file.write(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", fill)
    assert glyphs("train", cache=tmp_path).n_classes
    assert not list(tmp_path.iterdir())
    assert "No space left on device" in caplog.text


def test_a_folder_that_cannot_be_written_to_costs_time_and_nothing_else(
    a_few: list[Character], tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    assert glyphs("train", cache=tmp_path / "file").n_classes
    assert "QUICKSTUDY_CACHE" in caplog.text
    monkeypatch.setattr("quickstudy.tasks.glyphs._draw", None)  # this process has drawn the other splits as well
    assert glyphs("test", cache=tmp_path / "file").n_classes


def test_several_that_draw_at_once_do_no_harm(a_few: list[Character], tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        sets = list(pool.map(lambda _: glyphs("test", cache=tmp_path), range(3)))
    assert same(sets[0], sets[1])
    assert same(sets[0], sets[2])
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    assert same(glyphs("test", cache=tmp_path), sets[0])


def test_the_cache_names_its_recipe_and_the_versions_that_drew_it(a_few: list[Character], tmp_path: Path) -> None:
    glyphs("train", cache=tmp_path)
    with np.load(tmp_path / FILE, allow_pickle=False) as stored:
        metadata = json.loads(str(stored["metadata"]))
    assert metadata["recipe"] == RECIPE
    assert metadata["versions"]["torch"].startswith(torch.__version__.split("+")[0])
    assert set(metadata["versions"]) >= {"matplotlib", "pillow", "scikit-image"}


def test_a_character_is_written_the_same_whatever_others_there_are(
    a_few: list[Character], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    among_others = glyphs("train", cache=tmp_path / "many")
    last = [character for character in a_few if module.split_of(character.alphabet) == "train"][-1]
    monkeypatch.setattr(module, "find_characters", lambda: [last])
    assert glyphs("train", cache=tmp_path / "one").x.equal(among_others.x[-20:])


def test_look_alikes_of_different_alphabets_are_one_character(everything: list[Character]) -> None:
    draw = skeleton_drawer()
    drawings = {text: draw(ord(text), "DejaVuSans") for text in "AΑАOОοBØÈÉ"}
    stacked = torch.stack([drawing for drawing in drawings.values() if drawing is not None])
    assert [list(drawings)[i] for i in distinct(stacked)] == list("AOBØÈÉ")


def test_blanks_dots_and_filled_shapes_have_no_skeleton_to_write() -> None:
    draw = skeleton_drawer()
    assert [draw(ord(text), "DejaVuSans") for text in "\u2003.■●"] == [None] * 4


def test_characters_that_are_not_drawings_are_left_out() -> None:
    assert [alphabet_of(ord(text)) for text in "⠿䷀─\u0301\n🂡"] == [None] * 6


def test_every_character_has_two_faces_and_a_name_of_its_own(everything: list[Character]) -> None:
    assert all(len(character.faces) >= 2 for character in everything)
    assert len({character.name for character in everything}) == len(everything) > 4000
    assert {*TEST, *VALIDATION} < {character.alphabet for character in everything}


def test_the_same_seed_is_the_same_hand_and_another_seed_another() -> None:
    draw = skeleton_drawer()
    drawing = draw(ord("ж"), "DejaVuSans")
    assert drawing is not None
    once, again, other = (
        write(drawing[None], draw_hands(1, generator=Generator().manual_seed(seed))) for seed in (0, 0, 1)
    )
    assert once.equal(again)
    assert not once.equal(other)


def test_a_hand_that_does_nothing_copies_the_skeleton() -> None:
    distances = (torch.arange(CANVAS) - (CANVAS - 1) / 2).abs().clamp_max(12).mul(16).to(torch.uint8)
    stroke = distances.expand(1, CANVAS, CANVAS)  # a vertical line through the middle
    still = Hands(torch.eye(2, 3)[None], torch.zeros(1, 2, 5, 5), torch.tensor([5.0]))
    picture = write(stroke, still)[0, 0]
    assert (picture == picture[0]).all()
    assert picture[0].equal(picture[0].flip(0))
    assert picture[0, 13] > 200
    assert not picture[0, :11].any()


def test_hands_stay_within_the_limits_that_they_state() -> None:
    hands = draw_hands(1000, generator=Generator().manual_seed(0))
    scales = torch.linalg.svdvals(hands.place[:, :, :2])
    assert scales.max() < 1.1618 * 1.0779  # e^.15, and the larger singular value of a shear by .15
    assert scales.min() > 0.8607 / 1.0779
    assert 0.11 < hands.place[:, :, 2].abs().max() < 0.12
    assert 3 < hands.pen.min() < hands.pen.max() < 7


def test_nearest_neighbour_on_pixels_finds_the_validation_alphabets_as_hard_as_handwriting(
    everything: list[Character], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    some = [character for character in everything if character.alphabet in VALIDATION][::9]
    monkeypatch.setattr(module, "find_characters", lambda: some)
    data = glyphs("validation", cache=tmp_path)
    tasks = Episodes(data, n_way=5, n_shot=1, n_query=15).sample(400, generator=Generator().manual_seed(0))
    nearest = torch.cdist(tasks.query.x.flatten(2), tasks.support.x.flatten(2)).argmin(2)
    accuracy = (tasks.support.y.gather(1, nearest) == tasks.query.y).float().mean()
    assert 0.50 < accuracy < 0.60


@pytest.mark.data
@pytest.mark.skipif(not (cache_folder() / FILE).is_file(), reason="the whole of Glyphs has not been drawn here yet")
def test_there_are_about_three_thousand_characters() -> None:
    assert [glyphs(split).n_classes // 100 for split in SPLITS] == [21, 5, 3]
