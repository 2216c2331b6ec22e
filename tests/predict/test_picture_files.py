import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dpuflow.base.errors import UserError
from dpuflow.datasets.find_pictures import find_pictures, short_names
from dpuflow.datasets.picture_files import centred_crop, read_picture, read_pictures

GREY = (28, 28, 1)
COLOUR = (28, 28, 3)


def saved(array, path, **options):
    Image.fromarray(np.asarray(array, np.uint8)).save(path, **options)
    return path


def noise(*shape):
    return np.random.default_rng(5).integers(0, 256, shape, dtype=np.uint8)


def test_an_image_of_the_right_size_stays_as_it_is(tmp_path):
    pixels = noise(28, 28)
    picture = read_picture(saved(pixels, tmp_path / "a.png"), GREY)
    assert picture.pixels.shape == GREY and picture.pixels.dtype == np.uint8
    assert np.array_equal(picture.pixels[..., 0], pixels)
    assert picture.crop == (0, 0, 28, 28)


def test_a_wide_picture_is_cut_to_the_square_in_its_middle(tmp_path):
    pixels = np.zeros((56, 100))
    pixels[:, 22:78] = 200  # exactly the middle square
    picture = read_picture(saved(pixels, tmp_path / "a.png"), GREY)
    assert picture.crop == (22, 0, 78, 56)
    assert (picture.pixels == 200).all()


def test_shrinking_averages_instead_of_picking_pixels(tmp_path):
    stripes = np.tile([0, 255], (280, 140))  # a stripe per pixel: their mean is grey
    pixels = read_picture(saved(stripes, tmp_path / "a.png"), GREY).pixels
    assert abs(pixels.astype(int)[:, 1:-1] - 127.5).max() < 8


def test_small_pictures_grow(tmp_path):
    picture = read_picture(saved(np.full((3, 5), 90), tmp_path / "a.png"), GREY)
    assert (picture.pixels == 90).all() and picture.crop == (1, 0, 4, 3)


def test_colour_is_kept_for_colour_data_and_becomes_luma_for_grey(tmp_path):
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[...] = (200, 100, 50)
    path = saved(pixels, tmp_path / "a.png")
    assert (read_picture(path, COLOUR).pixels == (200, 100, 50)).all()
    luma = round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)
    assert (read_picture(path, GREY).pixels == luma).all()
    grey = saved(np.full((28, 28), 77), tmp_path / "grey.png")
    assert (read_picture(grey, COLOUR).pixels == 77).all()


def test_images_need_not_be_square(tmp_path):
    picture = read_picture(saved(noise(100, 100), tmp_path / "a.png"), (10, 20, 1))
    assert picture.pixels.shape == (10, 20, 1) and picture.crop == (0, 25, 100, 75)


def test_the_camera_s_orientation_is_undone(tmp_path):
    upright = np.zeros((64, 64), np.uint8)
    upright[:32] = 250  # bright above
    image = Image.fromarray(np.rot90(upright))  # as stored by a camera on its side
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", exif=exif, quality=95)
    pixels = read_picture(tmp_path / "a.jpg", GREY).pixels[..., 0]
    assert pixels[:12].min() > 220 and pixels[16:].max() < 30


def test_invert_swaps_light_and_dark(tmp_path):
    pixels = noise(28, 28)
    inverted = read_picture(saved(pixels, tmp_path / "a.png"), GREY, invert=True).pixels[..., 0]
    assert np.array_equal(inverted, 255 - pixels)


def test_transparent_pixels_become_white(tmp_path):
    pixels = np.zeros((28, 28, 4), np.uint8)
    pixels[:, 14:, 3] = 255  # black and opaque on the right, transparent on the left
    seen = read_picture(saved(pixels, tmp_path / "a.png"), GREY).pixels[..., 0]
    assert (seen[:, :14] == 255).all() and (seen[:, 14:] == 0).all()


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    Image.fromarray(np.full((28, 28), 0x8123, np.uint16)).save(tmp_path / "a.png")
    assert (read_picture(tmp_path / "a.png", GREY).pixels == 0x81).all()


def test_palettes_are_resolved(tmp_path):
    image = Image.fromarray(np.full((28, 28, 3), (255, 0, 0), np.uint8)).convert("P")
    image.save(tmp_path / "a.png")
    assert (read_picture(tmp_path / "a.png", COLOUR).pixels == (255, 0, 0)).all()


@pytest.mark.parametrize("content", [b"", b"just text", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_a_file_that_is_no_picture_is_named(tmp_path, content):
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(UserError, match=r"bad\.png: not a whole PNG, JPG, WebP, TIFF, BMP or GIF image"):
        read_picture(tmp_path / "bad.png", GREY)


@pytest.mark.fault("results", "truncated picture {id}", "refused")
@pytest.mark.parametrize("name", ["cut.png", "cut.jpg"])
def test_a_truncated_picture_is_named(tmp_path, name):
    path = saved(noise(200, 200), tmp_path / name)
    path.write_bytes(path.read_bytes()[:-4000])
    with pytest.raises(UserError, match=r"cut\.(png|jpg): not a whole PNG, JPG, WebP"):
        read_picture(path, GREY)


@pytest.mark.parametrize("name", ["a.webp", "a.tif", "a.tiff", "a.bmp", "a.gif", "a.png"])
def test_each_format_gives_the_same_pixels(tmp_path, name):
    pixels = noise(28, 28)
    options = {"lossless": True} if name.endswith("webp") else {}
    saved(pixels, tmp_path / name, **options)
    assert np.array_equal(read_picture(tmp_path / name, GREY).pixels[..., 0], pixels)


def test_of_a_moving_picture_the_first_frame_counts(tmp_path):
    frames = [Image.fromarray(np.full((28, 28), value, np.uint8)) for value in (40, 200)]
    for name in ("a.gif", "a.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        assert (read_picture(tmp_path / name, GREY).pixels == 40).all()


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.webp", "a.jpg"])
def test_every_format_is_turned_upright_once(tmp_path, name):
    upright = np.zeros((64, 32), np.uint8)
    upright[:32] = 250
    image = Image.fromarray(np.rot90(upright))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / name, exif=exif, **({"quality": 95} if name == "a.jpg" else {}))
    picture = read_picture(tmp_path / name, (28, 14, 1))
    assert picture.size == (32, 64) and picture.crop == (0, 0, 32, 64)
    assert picture.pixels[:12].min() > 220 and picture.pixels[16:].max() < 30


def test_print_colours_become_screen_colours(tmp_path):
    image = Image.new("CMYK", (28, 28), (0, 255, 255, 0))
    for name in ("a.jpg", "a.tif"):
        image.save(tmp_path / name, **({"quality": 95} if name == "a.jpg" else {}))
        pixels = read_picture(tmp_path / name, COLOUR).pixels.astype(int)
        assert (pixels[..., 0] > 240).all() and (pixels[..., 1:] < 15).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_a_photograph_of_48_megapixels_is_read_and_only_its_thumbnail_kept(tmp_path, name):
    image = Image.new("L", (8000, 6000), 10)
    image.paste(200, (1000, 0, 7000, 6000))  # exactly the middle square
    image.save(tmp_path / name, **({"quality": 90} if name == "a.jpg" else {"compress_level": 1}))
    picture = read_picture(tmp_path / name, GREY)
    assert picture.size == (8000, 6000) and picture.crop == (1000, 0, 7000, 6000)
    assert abs(picture.pixels.astype(int) - 200).max() <= 2
    assert picture.original.size == (360, 270)


@pytest.mark.fault("results", "picture of more pixels than it may have ({id})", "refused")
@pytest.mark.parametrize("side", [9000, 30000], ids=["beyond our bound", "a decompression bomb"])
def test_a_picture_with_too_many_pixels_is_refused_by_its_name(tmp_path, side):
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)), (b"IDAT", b""), (b"IEND", b"")]
    body = [struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks]  # fmt: skip
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(body))
    with pytest.raises(UserError, match=r"bomb\.png: .*80000000 pixels at most"):
        read_picture(tmp_path / "bomb.png", GREY)


@pytest.mark.fault("results", "picture with pixels of unknown range", "refused")
def test_pixels_of_unknown_range_are_refused(tmp_path):
    Image.fromarray(np.full((28, 28), 0.5, np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match=r"a\.tif: pixels are fractions"):
        read_picture(tmp_path / "a.tif", GREY)
    Image.fromarray(np.full((28, 28), 70000, np.int32)).save(tmp_path / "b.tif")
    with pytest.raises(UserError, match=r"b\.tif: pixels beyond 16 bits"):
        read_picture(tmp_path / "b.tif", GREY)


@pytest.mark.fault("results", "picture of another format", "refused")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.heic", "a.heic: a picture in HEIC, which is not read here; save it as JPG or PNG"),
        ("a.png", "a.png: not a whole PNG, JPG, WebP, TIFF, BMP or GIF image"),
    ],
)
def test_other_formats_are_refused_by_name(tmp_path, name, message):
    Image.fromarray(noise(28, 28)).save(tmp_path / "a.ppm")
    (tmp_path / "a.ppm").rename(tmp_path / name)
    with pytest.raises(UserError, match=message):
        read_picture(tmp_path / name, GREY)


def test_what_can_be_read_is_read_and_the_rest_named(tmp_path):
    good = saved(noise(28, 28), tmp_path / "good.png")
    (tmp_path / "bad.png").write_text("no picture")
    pictures, faults = read_pictures([str(tmp_path / "bad.png"), str(good)], GREY)
    assert list(pictures) == [str(good)] and list(faults) == [str(tmp_path / "bad.png")]
    assert "bad.png: not a whole" in faults[str(tmp_path / "bad.png")]


def test_a_folder_is_searched_at_any_depth_in_order(tmp_path):
    for name in ("b.JPG", "a.png", "deep/c.jpeg", ".hidden/d.png", ".e.png", "notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    found = find_pictures(str(tmp_path))
    assert found == [str(tmp_path / name) for name in ("a.png", "b.JPG", "deep/c.jpeg")]
    assert short_names(found) == ["a.png", "b.JPG", "deep/c.jpeg"]
    assert find_pictures([str(tmp_path / "b.JPG"), str(tmp_path)])[0] == str(tmp_path / "b.JPG")
    assert len(find_pictures([str(tmp_path / "b.JPG"), str(tmp_path)])) == 3
    assert short_names([str(tmp_path / "deep/c.jpeg")]) == ["c.jpeg"]


@pytest.mark.parametrize(
    ("images", "message"),
    [(None, "not given"), ("no/where", "no/where: there is no"), ("", "not given")],
)
def test_missing_pictures_are_explained(images, message):
    with pytest.raises(UserError, match=f"predict.images: {message}"):
        find_pictures(images)


def test_a_folder_without_pictures_is_explained(tmp_path):
    with pytest.raises(UserError, match=r"no \.png, \.jpg, \.jpeg, \.webp"):
        find_pictures(str(tmp_path))


@pytest.mark.fault("results", "picture whose name Snakemake would expand", "refused")
def test_names_with_braces_are_refused(tmp_path):
    (tmp_path / "a{0}.png").write_bytes(b"x")
    with pytest.raises(UserError, match=r"a\{0\}\.png: rename it"):
        find_pictures(str(tmp_path))


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 300), st.integers(1, 300))
def test_a_crop_is_centred_inside_and_touches_two_sides(across, down, width, height):
    left, top, right, bottom = centred_crop((across, down), width, height)
    assert 0 <= left < right <= across and 0 <= top < bottom <= down
    assert right - left == across or bottom - top == down
    assert abs(left - (across - right)) <= 1 and abs(top - (down - bottom)) <= 1
    wanted = width / height
    # within the rounding of the shorter side to whole pixels
    assert abs((right - left) - (bottom - top) * wanted) <= max(1, wanted) + 1e-6
