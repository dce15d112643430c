import builtins
import io
import json
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from quickstudy.errors import DamagedArtefactError, DataError, MissingExtraError, UnreadablePictureError
from quickstudy.tasks.pictures import PictureEncoder


def sheet(mode: str = "L", paper: object = 255, ink: object = 0, size: tuple[int, int] = (60, 60)) -> Image.Image:
    """A bar of ink, left of the middle, on paper."""
    image = Image.new(mode, size, paper)
    ImageDraw.Draw(image).rectangle((10, 10, 25, size[1] - 10), fill=ink)
    return image


def encoded(image: Image.Image, **settings) -> torch.Tensor:
    return PictureEncoder(**{"size": 12, **settings}).encode(image)


REFERENCE = encoded(sheet())


def test_dark_ink_on_paper_becomes_white_ink_on_black():
    assert REFERENCE.shape == (1, 12, 12)
    assert REFERENCE.dtype == torch.uint8
    assert REFERENCE[0, 0].eq(0).all()
    assert REFERENCE[0, 6, 3] == 255


@pytest.mark.parametrize(
    "image",
    [
        sheet("1", 1, 0),
        sheet("L", 0, 255),
        sheet("L", 200, 60),
        sheet("RGB", "white", "black"),
        sheet("RGB", "black", "white"),
        sheet("RGBA", (9, 9, 9, 0), "black"),
        sheet("LA", (0, 0), (0, 255)),
        sheet("RGB", "white", "black").quantize(4),
        sheet("CMYK", (0, 0, 0, 0), (0, 0, 0, 255)),
        sheet("I;16", 65535, 0),
        sheet("I", 65535, 0),
        sheet("F", 1.0, 0.0),
        sheet("HSV", (0, 0, 255), (0, 0, 0)),
    ],
    ids=lambda image: f"{image.mode} {image.getpixel((0, 0))}",
)
def test_a_drawing_reads_alike_in_every_mode_and_on_every_paper(image):
    difference = (encoded(image).int() - REFERENCE.int()).abs()
    assert difference.max() <= 3


def test_the_transparent_colour_of_a_palette_lies_over_white(tmp_path):
    image = sheet("P", 0, 1)
    image.putpalette([5, 5, 5, 0, 0, 0])
    image.save(tmp_path / "a.gif", transparency=0)
    assert (PictureEncoder(size=12).read(tmp_path / "a.gif").int() - REFERENCE.int()).abs().max() <= 3


def test_a_sixteen_bit_file_keeps_its_levels(tmp_path):
    Image.fromarray(np.full((8, 8), 32896, dtype=np.uint16)).save(tmp_path / "grey.png")
    assert (PictureEncoder(size=4, ink=False).read(tmp_path / "grey.png") == 128).all()


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_a_camera_of_fewer_bits_than_its_file_reads_as_one_of_eight(tmp_path, bits, kind):
    drawing = np.asarray(sheet("L", 255, 0), dtype=np.float64) / 255
    Image.fromarray((drawing * (2**bits - 1)).astype(kind)).save(tmp_path / "a.tiff")
    assert (PictureEncoder(size=12).read(tmp_path / "a.tiff").int() - REFERENCE.int()).abs().max() <= 3


def test_a_level_that_is_no_white_is_refused():
    with pytest.raises(DataError, match="white is 0; it is a level above 0"):
        PictureEncoder(white=0)


def test_levels_stay_as_they_are_where_the_picture_is_no_ink():
    assert encoded(sheet("L", 200, 60), ink=False)[0, 0].eq(200).all()


def test_blank_paper_with_a_little_noise_stays_faint():
    noisy = Image.fromarray(np.random.default_rng(0).integers(250, 254, (12, 12), dtype=np.uint8))
    assert encoded(noisy).max() <= 4 * 255 / 16


def test_colour_pictures_are_left_as_they_are():
    colours = encoded(sheet("RGB", (250, 240, 230), (10, 20, 30)), channels=3)
    assert colours.shape == (3, 12, 12)
    assert colours[:, 0, 0].tolist() == [250, 240, 230]
    assert colours[:, 6, 3].tolist() == [10, 20, 30]


def test_a_padded_picture_is_whole_and_centred_on_its_own_paper():
    wide = encoded(sheet("RGB", (250, 240, 230), "black", size=(60, 30)), channels=3)
    assert wide[:, 0, 6].tolist() == wide[:, 11, 6].tolist() == [250, 240, 230]
    assert (wide[0, 3:9] < 100).any()
    assert wide[0, :3].eq(250).all()


def test_a_cropped_picture_keeps_its_centre():
    wide = Image.new("L", (60, 20), 0)
    wide.paste(255, (20, 0, 40, 20))
    assert encoded(wide, resize="crop", ink=False)[..., 1:-1].eq(255).all()  # the filter softens the cut


def test_a_squashed_picture_keeps_its_edges():
    wide = Image.new("L", (60, 20), 0)
    wide.paste(255, (30, 0, 60, 20))
    squashed = encoded(wide, resize="squash", ink=False)
    assert squashed[..., :5].eq(0).all()
    assert squashed[..., 7:].eq(255).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (400, 1), (3, 5)])
@pytest.mark.parametrize("resize", ["pad", "crop", "squash"])
def test_pictures_of_any_size_can_be_read(size, resize):
    assert encoded(Image.new("RGB", size, "red"), resize=resize).shape == (1, 12, 12)


def test_a_photograph_is_turned_upright(tmp_path):
    upright = sheet("RGB", "white", "black")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 270 degrees, counter-clockwise
    upright.rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    assert (PictureEncoder(size=12).read(tmp_path / "turned.png").int() - REFERENCE.int()).abs().max() <= 3


def test_of_an_animation_the_first_frame_counts(tmp_path):
    sheet().save(tmp_path / "a.gif", save_all=True, append_images=[Image.new("L", (60, 60), 128)], duration=50)
    assert (PictureEncoder(size=12).read(tmp_path / "a.gif").int() - REFERENCE.int()).abs().max() <= 3


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tiff", "gif", "ppm"])
def test_the_usual_formats_can_be_read(tmp_path, suffix):
    sheet("RGB", "white", "black").resize((400, 400)).save(tmp_path / f"a.{suffix}")
    read = PictureEncoder(size=12, channels=3).read(tmp_path / f"a.{suffix}")
    assert read[:, 0, 0].min() >= 250
    assert read[:, 6, 3].max() <= 5


def test_an_open_file_can_be_read_and_is_called_by_the_name_given():
    file = io.BytesIO()
    sheet().save(file, "PNG")
    assert torch.equal(PictureEncoder(size=12).read(file), REFERENCE)
    with pytest.raises(UnreadablePictureError, match="upload 7 cannot be read"):
        PictureEncoder().read(io.BytesIO(b"nothing"), name="upload 7")


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def whole() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"just words", "its content is of no format"),
        (whole()[:2000], "truncated|broken|incomplete"),
        (png_that_claims(60_000, 60_000), "it has more than 178,956,970 pixels"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "its content is of no format"),
    ],
    ids=["empty", "words", "cut off", "bomb", "eps"],
)
def test_a_file_that_is_no_picture_is_named_with_the_reason(tmp_path, content, reason):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UnreadablePictureError, match=rf"a\.png cannot be read as a picture: .*({reason})"):
        PictureEncoder().read(tmp_path / "a.png")


def test_a_telephone_of_many_pixels_is_no_bomb(tmp_path, monkeypatch):
    Image.new("L", (40, 30), 200).save(tmp_path / "a.jpg")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 700)  # of which twice as many are refused
    assert PictureEncoder(size=8).read(tmp_path / "a.jpg").shape == (1, 8, 8)


def test_a_picture_of_numbers_that_are_not_finite_is_refused(tmp_path):
    Image.fromarray(np.full((4, 4), np.nan, dtype=np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(UnreadablePictureError, match="it holds NaN or infinity"):
        PictureEncoder().read(tmp_path / "a.tiff")


@pytest.mark.parametrize("encoder", [PictureEncoder(), PictureEncoder(84, 3, "crop", ink=False)])
def test_settings_survive_json(encoder):
    assert PictureEncoder.from_settings(json.loads(json.dumps(encoder.to_settings()))) == encoder


@pytest.mark.parametrize("settings", [{"size": 0}, {"size": 28.0}, {"channels": 2}, {"resize": "stretch"}])
def test_settings_without_meaning_are_refused(settings):
    with pytest.raises(DataError, match=f"{next(iter(settings))} is "):
        PictureEncoder(**settings)


@pytest.mark.parametrize("settings", [{"size": -1}, {"width": 28}])
def test_settings_that_were_altered_are_called_damaged(settings):
    with pytest.raises(DamagedArtefactError, match="picture encoder"):
        PictureEncoder.from_settings(settings)


def test_without_pillow_the_error_names_the_extra(monkeypatch, tmp_path):
    sheet().save(tmp_path / "a.png")
    original = builtins.__import__

    def without_pillow(name, *args, **kwargs):
        if name.startswith("PIL"):
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_pillow)
    with pytest.raises(MissingExtraError, match=r"pip install 'quickstudy\[images\]'"):
        PictureEncoder().read(tmp_path / "a.png")
