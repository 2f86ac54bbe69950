"""Reading, resizing and padding of images."""

import io

import keras
import numpy as np
import pytest
from PIL import Image

from libra_keras.data import InputPolicy, read_image, scale_boxes


def encoded(image, form="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("size", "fitted"),
    [  # what torchvision 0.16.2 makes of them with min_size=800, max_size=1333
        ((480, 640), (800, 1066)),  # 1066.67
        ((500, 375), (1066, 799)),  # 799.99994 in float32
        ((640, 361), (1333, 751)),
        ((1080, 1920), (749, 1333)),
        ((3, 2000), (1, 1333)),
    ],
)
def test_rounding_down_is_torchvisions(size, fitted):
    policy = InputPolicy(800, 1333, rounding="down")
    assert policy.fitted_size(*size) == fitted
    assert InputPolicy.from_config(policy.get_config()) == policy


def test_roundings_are_two():
    with pytest.raises(ValueError, match="'nearest' or 'down'. Received: 'up'"):
        InputPolicy(800, 1333, rounding="up")


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "1"])
def test_every_mode_becomes_rgb(mode):
    source = Image.new("RGB", (3, 2), (255, 255, 255)).convert(mode)
    image = read_image(encoded(source))
    assert image.shape == (2, 3, 3) and image.dtype == np.uint8
    assert (image == 255).all()


def test_cmyk_jpeg():
    image = read_image(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"))
    # No cyan, full magenta and yellow: red.
    np.testing.assert_allclose(image[4, 4], [255, 0, 0], atol=3)


def test_16_bits_are_scaled_to_8():
    levels = np.array([[0, 257, 32896, 65535]], "uint16")
    expected = [0, 1, 128, 255]  # 65535 = 255 * 257
    for source in (levels, encoded(Image.fromarray(levels))):
        np.testing.assert_array_equal(read_image(source)[0, :, 0], expected)


def test_the_order_of_bytes_does_not_matter():
    pixels = np.array([[0, 200, 65535]], "uint16")
    for order in "<>":
        np.testing.assert_array_equal(read_image(pixels.astype(f"{order}u2")), read_image(pixels))


def test_transparency_is_dropped_not_blended():
    palette = Image.new("P", (2, 2), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    image = read_image(encoded(palette, transparency=b"\x00\x00"))
    np.testing.assert_array_equal(image[0, 0], [10, 20, 30])


def test_exif_rotation_is_not_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    jpeg = encoded(Image.new("RGB", (16, 8)), "JPEG", exif=exif)
    assert read_image(jpeg).shape == (8, 16, 3)


@pytest.mark.parametrize("mode", ["RGB", "I;16", "P"])
def test_exif_rotation_is_an_option(mode):
    pixels = np.arange(32, dtype="uint16" if mode == "I;16" else "uint8").reshape(4, 8)
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    png = encoded(image if mode == "I;16" else image.convert(mode), exif=exif)
    stored = read_image(png)
    assert stored.shape == (4, 8, 3)
    for source in (png, Image.open(io.BytesIO(png))):
        turned = read_image(source, exif_rotation=True)
        np.testing.assert_array_equal(turned, np.rot90(stored, -1))  # top left is at top right
    np.testing.assert_array_equal(read_image(stored, exif_rotation=True), stored)


def test_arrays_and_pillow_images(tmp_path):
    pixels = np.arange(24, dtype="uint8").reshape(2, 4, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    alpha = np.concatenate([pixels, pixels[..., :1]], -1)
    sources = [pixels, pixels.astype("float32"), alpha, Image.fromarray(pixels)]
    for source in [*sources, tmp_path / "a.png", str(tmp_path / "a.png")]:
        np.testing.assert_array_equal(read_image(source), pixels)
    assert read_image(pixels[..., 0]).shape == (2, 4, 3)
    assert read_image(np.eye(2)).max() == 1  # whole numbers may be as dark as they like


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 2, 2), "uint8"), r"\(2, 2, 2\)"),
        (np.zeros((0, 2, 3), "uint8"), "not empty"),
        (np.full((2, 2), 256.0), "from 256.0"),
        (np.full((2, 2), np.nan), "nan"),
        (np.zeros((2, 2), bool), "bool"),
        (np.full((2, 2), 0.25), "from 0.25 to 0.25, which would be black: multiply them by 255"),
    ],
)
def test_arrays_that_are_no_image(array, message):
    with pytest.raises(ValueError, match=message):
        read_image(array)


@pytest.mark.parametrize(
    ("size", "fitted", "bucket"),
    [
        ((480, 640), (800, 1067), (800, 1344)),  # 800 / 480; 640 * 5 / 3 = 1066.7
        ((640, 480), (1067, 800), (1344, 800)),
        ((500, 1000), (667, 1333), (800, 1344)),  # the longer side decides: 1.333; 666.5 + .5
        ((600, 600), (800, 800), (800, 1344)),  # a square is landscape
        ((1, 4000), (1, 1333), (800, 1344)),  # never 0 pixels
    ],
)
def test_sizes(size, fitted, bucket):
    policy = InputPolicy(800, 1333)
    assert policy.fitted_size(*size) == fitted
    assert policy.bucket_size(*size) == bucket


def test_bccd_size():
    assert InputPolicy(288, 384).fitted_size(480, 640) == (288, 384)
    assert InputPolicy(288, 384).bucket_size(480, 640) == (288, 384)


def test_every_image_fits_its_bucket(rng):
    policy = InputPolicy(123, 217, pad_multiple=16)
    for height, width in rng.integers(1, 900, (300, 2)):
        fitted, bucket = policy.fitted_size(height, width), policy.bucket_size(height, width)
        assert all(f <= b for f, b in zip(fitted, bucket, strict=True))


def test_prepare_pads_at_right_and_below():
    policy = InputPolicy(20, 40, pad_multiple=16)
    image, size = policy.prepare(np.full((10, 15, 3), 200, "uint8"))
    assert image.shape == (32, 48, 3) and size == (20, 30)
    assert (image[:20, :30] == 200).all()
    assert image[20:].sum() == 0 and image[:, 30:].sum() == 0


def test_shrinking_averages():
    # Columns 0, 255, 0, 255, ...: a filter that skips pixels would give 0 or 255.
    stripes = np.zeros((64, 64, 3), "uint8")
    stripes[:, 1::2] = 255
    image, _ = InputPolicy(16, 16, pad_multiple=1).prepare(stripes)
    np.testing.assert_allclose(image[:, 2:-2], 127.5, atol=8)


def test_boxes_follow_their_content():
    # A bright rectangle is found where its scaled box says, with a factor per axis.
    image = np.zeros((101, 203, 3), "uint8")
    image[40:80, 100:180] = 255
    small, size = InputPolicy(50, 100, pad_multiple=1).prepare(image)
    box = scale_boxes([100, 40, 180, 80], (101, 203), size)
    rows, columns = np.where(small[..., 0] > 127)
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(found, box, atol=0.51)


def test_policy_is_saved_and_checked():
    policy = InputPolicy(100, 150, pad_multiple=64)
    config = keras.saving.serialize_keras_object(policy)
    assert keras.saving.deserialize_keras_object(config) == policy
    assert policy.get_config() == {
        "short_side": 100,
        "long_side": 150,
        "pad_multiple": 64,
        "resize": "antialias",
        "rounding": "nearest",
    }
    with pytest.raises(ValueError, match="short_side=200, long_side=100"):
        InputPolicy(200, 100)
    with pytest.raises(ValueError, match="'nearest'"):
        InputPolicy(100, 100, resize="nearest")
