"""The graph's pixels are those of `read_image`, and of Pillow's resize, all of them."""

import io

import numpy as np
import pytest
from hostile_files import bad_files, encoded, png, scene
from PIL import Image

from libra_keras.data import InputPolicy, read_image

tf = pytest.importorskip("tensorflow")
preparing = pytest.importorskip("libra_keras.export.preparing")


@pytest.fixture(scope="module")
def decode():
    spec = [tf.TensorSpec((), tf.string)]
    return tf.function(lambda data: preparing.decode(data, 89_478_485), input_signature=spec)


def assert_same(decode, data, name, atol=0):
    pixels, status = decode(data)
    assert int(status) == 0, name
    wanted = read_image(data)
    np.testing.assert_allclose(pixels.numpy().astype(int), wanted, atol=atol, err_msg=str(name))


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0", "4:1:1"])
def test_jpeg(decode, subsampling):
    for size in ((37, 53), (48, 64), (1, 101), (101, 1), (1, 1)):
        for quality in (30, 90, 100):
            for progressive in (False, True):
                options = {"quality": quality, "progressive": progressive}
                data = encoded(scene(*size), "JPEG", subsampling=subsampling, **options)
                assert_same(decode, data, (size, options))


def test_grey_and_cmyk_jpeg(decode):
    assert_same(decode, encoded(scene().convert("L"), "JPEG"), "grey")
    cmyk = np.concatenate([np.asarray(scene(seed=i)) for i in range(2)], axis=-1)[..., :4]
    data = encoded(Image.fromarray(cmyk, "CMYK"), "JPEG", quality=95)
    assert_same(decode, data, "CMYK", atol=1)  # Pillow rounds a product, TensorFlow cuts it


def test_rotation_is_not_applied(decode):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    assert_same(decode, encoded(scene(), "JPEG", exif=exif), "EXIF")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_png(decode, mode):
    for size in ((48, 64), (7, 5), (1, 1)):
        assert_same(decode, encoded(scene(*size).convert(mode), "PNG"), (mode, size))


def test_transparency_is_dropped(decode):
    palette = scene().convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
    assert_same(decode, encoded(palette, "PNG", transparency=3), "one colour")
    assert_same(decode, encoded(palette, "PNG", transparency=bytes(range(16))), "many")
    assert_same(decode, encoded(scene().convert("L"), "PNG", transparency=100), "grey")
    assert_same(decode, encoded(scene(), "PNG", transparency=(1, 2, 3)), "RGB")
    alpha = np.asarray(scene(seed=1))[..., 0]
    hidden = np.dstack([np.asarray(scene()), alpha])
    assert_same(decode, encoded(hidden, "PNG"), "RGBA")


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits(decode, bits):
    few = scene().convert("P", palette=Image.Palette.ADAPTIVE, colors=2**bits)
    assert_same(decode, encoded(few, "PNG", bits=bits), bits)


@pytest.mark.parametrize(("kind", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_sixteen_bits(decode, rng, kind, channels):
    """Pillow scales grey ones, and takes the upper 8 bits of all others."""
    pixels = rng.integers(0, 65536, (20, 30, channels)).astype("uint16")
    assert_same(decode, png(pixels, kind), kind)


@pytest.mark.parametrize("size", [(20, 30), (3, 2), (1, 1), (9, 9)])
def test_interlaced_png(decode, size):
    pixels = np.asarray(scene(*size))
    data = png(pixels, 2, interlaced=True)
    np.testing.assert_array_equal(read_image(data), pixels)
    assert_same(decode, data, size)


@pytest.mark.parametrize("name", bad_files())
def test_bad_files(decode, name):
    data, wanted = bad_files()[name]
    pixels, status = decode(data)
    assert int(status) == wanted
    assert pixels.shape == (1, 1, 3) and not pixels.numpy().any()
    if wanted == 4:  # what Pillow cannot read either, or warns of: it skips the chunk too
        with pytest.raises(Exception):  # noqa: B017  struct.error, OSError, SyntaxError
            Image.open(io.BytesIO(data)).load()


def test_limit_of_pixels():
    data = encoded(scene(6, 5), "PNG")
    assert [int(preparing.decode(data, limit)[1]) for limit in (29, 30)] == [3, 0]


@pytest.mark.slow
def test_photographs(decode, photographs):
    folders = "coco_mini/val2017", "bccd/JPEGImages", "microcontroller/test"
    files = []
    for folder in folders:
        name, _, sub = folder.partition("/")
        found = sorted((photographs(name) / sub).glob("*.jp*g"))
        assert found, folder
        files += found[:40]
    for file in files:
        assert_same(decode, file.read_bytes(), file.name)


@pytest.fixture(scope="module")
def resize():
    specs = [tf.TensorSpec((None, None, 3), tf.uint8), tf.TensorSpec((2,), tf.int32)]
    return tf.function(preparing.resize, input_signature=specs)


def fitted_sizes(sizes, policy):
    @tf.function
    def fitted(sizes):
        return tf.map_fn(lambda size: preparing.fitted_size(size, policy), sizes)

    return fitted(tf.constant(sizes, tf.int32)).numpy().tolist()


@pytest.mark.parametrize("rounding", ["nearest", "down"])
@pytest.mark.parametrize("ends", [(800, 1333), (320, 512), (64, 96)])
def test_sizes_are_those_of_the_policy(ends, rounding, rng):
    policy = InputPolicy(*ends, rounding=rounding)
    sizes = np.exp(rng.uniform(0, np.log(6000), (1500, 2))).astype(int)
    sizes = [*sizes.tolist(), [375, 500], [500, 375], [1, 1], [1, 6000], [480, 640], [640, 480]]
    assert fitted_sizes(sizes, policy) == [list(policy.fitted_size(*size)) for size in sizes]


@pytest.mark.parametrize("rounding", ["nearest", "down"])
def test_pixels_are_those_of_pillow(resize, rounding, rng):
    """Up, down, one axis up and the other down, one axis as it is, a single pixel, thin ones."""
    policies = [InputPolicy(64, 96, rounding=rounding), InputPolicy(200, 333, rounding=rounding)]
    sizes = np.exp(rng.uniform(0, np.log(500), (25, 2))).astype(int).tolist()
    for size in [*sizes, [1, 1], [64, 64], [64, 96], [96, 64], [333, 200], [700, 3], [3, 700]]:
        image = rng.integers(0, 256, (*size, 3)).astype("uint8")
        for policy in policies:
            wanted = policy.resized(image)
            found = resize(image, policy.fitted_size(*size)).numpy()
            np.testing.assert_array_equal(found, wanted, err_msg=f"{size} {policy}")


def test_both_orders_of_the_axes(resize, rng):
    """Some versions of Pillow shrink the height first where it shrinks more than the width."""
    for size, wanted in (((90, 40), (8, 37)), ((90, 5), (8, 37)), ((40, 90), (37, 8))):
        image = rng.choice([0, 255], (*size, 3)).astype("uint8")
        pillows = Image.fromarray(image).resize(wanted[::-1], Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(resize(image, wanted).numpy(), np.asarray(pillows))


@pytest.mark.slow
@pytest.mark.parametrize("size", [(3000, 4000), (4000, 3000), (8, 8), (20000, 12), (480, 640)])
def test_large_and_small_images(resize, size, rng):
    for policy in (InputPolicy(800, 1333), InputPolicy(240, 320)):
        image = rng.integers(0, 256, (*size, 3)).astype("uint8")
        found = resize(image, policy.fitted_size(*size)).numpy()
        np.testing.assert_array_equal(found, policy.resized(image))


@pytest.mark.slow
def test_resized_photographs(resize, photographs):
    policy = InputPolicy(800, 1333)
    for file in sorted((photographs("coco_mini") / "val2017").glob("*.jpg"))[:12]:
        image = read_image(file)
        found = resize(image, policy.fitted_size(*image.shape[:2])).numpy()
        np.testing.assert_array_equal(found, policy.resized(image), err_msg=file.name)
