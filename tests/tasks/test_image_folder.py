import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from quickstudy.errors import DataError, DataNotFoundError, TooFewExamplesError, UnreadablePictureError
from quickstudy.tasks.encoder_for import look
from quickstudy.tasks.image_folder import image_folder, unlabelled_pictures
from quickstudy.tasks.pictures import PictureEncoder

ENCODER = PictureEncoder(size=4, ink=False)


def put(root: Path, *names: str, level: int = 0) -> None:
    for i, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 6), level + i).save(root / name)


def levels(x: torch.Tensor) -> list[int]:
    return x[:, 0, 0, 0].tolist()


def test_a_subfolder_is_a_class_and_its_pictures_are_its_examples(tmp_path):
    put(tmp_path, "otter/1.png", "otter/2.jpg", "bee/1.png")
    data = image_folder(tmp_path, encoder=ENCODER)
    assert data.class_names == ("bee", "otter")
    assert data.counts().tolist() == [1, 2]
    assert data.x.shape == (3, 1, 4, 4)
    assert data.x.dtype == torch.uint8


def test_classes_and_pictures_come_in_natural_order_whatever_their_capitals(tmp_path):
    put(tmp_path, "a2/p.png", "a10/p.png", "B/1.PNG", "B/2.png", "B/10.png", "c/p.png")
    data = image_folder(tmp_path, encoder=ENCODER)
    assert data.class_names == ("a2", "a10", "B", "c")
    assert levels(data.x) == [0, 1, 2, 3, 4, 5]


def test_pictures_may_lie_deeper(tmp_path):
    put(tmp_path, "a/x/1.png", "a/x/y/2.png", "b/1.png")
    assert image_folder(tmp_path, encoder=ENCODER).counts().tolist() == [2, 1]


def test_hidden_files_and_files_that_are_no_pictures_are_left_aside(tmp_path, caplog):
    put(tmp_path, "a/1.png", "b/1.png", "a/.hidden.png", ".git/1.png", "a/.thumbs/1.png", "__MACOSX/1.png")
    (tmp_path / "a" / "notes.txt").write_text("not a picture")
    (tmp_path / "README.md").write_text("not a class")
    assert image_folder(tmp_path, encoder=ENCODER).counts().tolist() == [1, 1]
    assert "leaving aside files that are no pictures (1 .txt)" in caplog.text


def test_the_default_encoder_reads_ink_at_28_pixels(tmp_path):
    put(tmp_path, "a/1.png", "b/1.png")
    assert image_folder(tmp_path).x.shape == (2, 1, 28, 28)


def test_progress_is_told_picture_by_picture(tmp_path):
    put(tmp_path, "a/1.png", "b/1.png")
    told = []
    image_folder(tmp_path, encoder=ENCODER, on_progress=lambda *step: told.append(step))
    assert told == [(1, 2), (2, 2)]


def test_all_bad_files_are_counted_and_the_first_five_named(tmp_path):
    put(tmp_path, "a/1.png", "b/1.png")
    for i in range(7):
        (tmp_path / "a" / f"bad{i}.png").write_bytes(b"x" * i)
    with pytest.raises(UnreadablePictureError) as error:
        image_folder(tmp_path, encoder=ENCODER)
    message = str(error.value)
    assert message.startswith("7 of 9 pictures cannot be read:")
    assert "bad0.png cannot be read as a picture: it is empty" in message
    assert "bad4.png" in message
    assert "bad5.png" not in message
    assert "... and 2 more" in message
    assert "--skip-bad" in message


def test_bad_files_can_be_skipped_and_are_logged(tmp_path, caplog):
    put(tmp_path, "a/1.png", "a/3.png", "b/1.png")
    (tmp_path / "a" / "2.png").write_bytes(b"")
    data = image_folder(tmp_path, encoder=ENCODER, skip_bad=True)
    assert data.y.tolist() == [0, 0, 1]
    assert levels(data.x) == [0, 1, 2]
    assert "left out" in caplog.text
    assert "2.png" in caplog.text


def test_a_folder_of_parts_is_not_taken_for_one_of_classes(tmp_path):
    put(tmp_path, "test/ant/1.png", "test/bee/1.png", "Train/ant/1.png", "Train/ant/2.png", "Train/bee/1.png")
    with pytest.raises(DataError, match=r"\(test, Train\) are parts, .* Name one of them, such as .*Train\.$"):
        image_folder(tmp_path, encoder=ENCODER)
    put(tmp_path, "other/ant/1.png")
    assert image_folder(tmp_path, encoder=ENCODER).class_names == ("other", "test", "Train")


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="needs links")
def test_links_are_followed_each_folder_once(tmp_path):
    put(tmp_path / "real", "a/1.png", "a/deeper/2.png", "b/1.png")
    (tmp_path / "mine").mkdir()
    for name in ("a", "b"):
        (tmp_path / "mine" / name).symlink_to(tmp_path / "real" / name)
    (tmp_path / "real" / "a" / "deeper" / "round").symlink_to(tmp_path / "real" / "a")
    assert image_folder(tmp_path / "mine", encoder=ENCODER).counts().tolist() == [2, 1]
    assert len(look(tmp_path / "mine")) == 3


def test_pictures_beside_the_classes_are_told(tmp_path):
    put(tmp_path, "a/1.png", "b/1.png", "loose.png", ".hidden.png")
    told = []
    assert len(image_folder(tmp_path, encoder=ENCODER, tell=told.append).x) == 2
    assert told[:1] == [f"{tmp_path} has pictures beside its subfolders, 1: they are of no class, and left aside"]


def test_a_picture_of_a_format_that_needs_a_plug_in_is_bad_and_not_left_aside(tmp_path):
    put(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "b" / "IMG_1.HEIC").write_bytes(b"....ftypheic")
    with pytest.raises(UnreadablePictureError, match=r"IMG_1\.HEIC.*save it as PNG or JPEG"):
        image_folder(tmp_path, encoder=ENCODER)


def test_blank_pictures_are_counted_and_one_is_named(tmp_path, caplog):
    put(tmp_path, "a/1.png", "b/1.png")
    picture = Image.new("L", (12, 12), 255)
    picture.paste(0, (0, 0, 6, 12))
    picture.save(tmp_path / "a" / "2.png")
    image_folder(tmp_path, encoder=ENCODER)
    assert "blank, all of one level as they are read: 2 of 3 pictures, as" in caplog.text
    assert "1.png" in caplog.text


def test_a_class_of_bad_files_only_is_no_class_even_when_they_are_skipped(tmp_path):
    put(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "b" / "1.png").write_bytes(b"")
    with pytest.raises(TooFewExamplesError, match="no picture of class 'b' can be read"):
        image_folder(tmp_path, encoder=ENCODER, skip_bad=True)


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(DataNotFoundError, match="nowhere does not exist"):
        image_folder(tmp_path / "nowhere")


def test_a_file_is_no_folder_of_classes(tmp_path):
    put(tmp_path, "1.png")
    with pytest.raises(DataError, match=r"1\.png is a file\. Give the folder"):
        image_folder(tmp_path / "1.png")


def test_a_folder_without_subfolders_says_what_it_holds(tmp_path):
    put(tmp_path, "1.png", "2.png")
    with pytest.raises(DataError, match=r"has no subfolders \(2 pictures of its own\): make one for each class"):
        image_folder(tmp_path)


def test_one_class_alone_is_refused(tmp_path):
    put(tmp_path, "otter/1.png")
    with pytest.raises(TooFewExamplesError, match="has one class only, 'otter'"):
        image_folder(tmp_path)


def test_an_empty_class_is_named(tmp_path):
    put(tmp_path, "a/1.png")
    (tmp_path / "b").mkdir()
    with pytest.raises(TooFewExamplesError, match=r"b holds no files\. Put pictures there"):
        image_folder(tmp_path)


def test_a_class_of_a_format_that_cannot_be_read_says_which(tmp_path):
    put(tmp_path, "a/1.png")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "1.DOC").write_bytes(b"x")
    with pytest.raises(TooFewExamplesError, match=r"b holds only other files \(1 \.doc\)"):
        image_folder(tmp_path)


def test_unlabelled_pictures_come_with_their_paths(tmp_path):
    put(tmp_path, "2.png", "10.png", "more/1.png")
    paths, x = unlabelled_pictures(tmp_path, ENCODER)
    assert [path.name for path in paths] == ["2.png", "10.png", "1.png"]
    assert levels(x) == [0, 1, 2]


def test_a_single_picture_is_a_batch_of_one(tmp_path):
    put(tmp_path, "2.png")
    paths, x = unlabelled_pictures(tmp_path / "2.png", ENCODER)
    assert paths == [tmp_path / "2.png"]
    assert x.shape == (1, 1, 4, 4)


def test_unlabelled_bad_files_are_skipped_with_their_paths(tmp_path):
    put(tmp_path, "1.png", "2.png", "3.png")
    (tmp_path / "2.png").write_bytes(b"")
    with pytest.raises(UnreadablePictureError, match="1 of 3 pictures cannot be read"):
        unlabelled_pictures(tmp_path, ENCODER)
    paths, x = unlabelled_pictures(tmp_path, ENCODER, skip_bad=True)
    assert [path.name for path in paths] == ["1.png", "3.png"]
    assert levels(x) == [0, 2]


def test_a_folder_without_readable_pictures_is_refused(tmp_path):
    with pytest.raises(TooFewExamplesError, match="holds no files"):
        unlabelled_pictures(tmp_path, ENCODER)
    (tmp_path / "1.png").write_bytes(b"")
    with pytest.raises(TooFewExamplesError, match="none of the 1 pictures"):
        unlabelled_pictures(tmp_path, ENCODER, skip_bad=True)
