"""The graph's resize gives Pillow's pixels, all of them."""

import numpy as np
import pytest

from libra_keras.data import InputPolicy

tf = pytest.importorskip("tensorflow")
pillow_resize = pytest.importorskip("libra_keras.export.pillow_resize")
preparing = pytest.importorskip("libra_keras.export.preparing")


@pytest.fixture(scope="module")
def resize():
    specs = [tf.TensorSpec((None, None, 3), tf.uint8), tf.TensorSpec((2,), tf.int32)]
    return tf.function(pillow_resize.resize, input_signature=specs)


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
    from PIL import Image

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
def test_photographs(resize, photographs):
    from libra_keras.data import read_image

    policy = InputPolicy(800, 1333)
    for file in sorted((photographs("coco_mini") / "val2017").glob("*.jpg"))[:12]:
        image = read_image(file)
        found = resize(image, policy.fitted_size(*image.shape[:2])).numpy()
        np.testing.assert_array_equal(found, policy.resized(image), err_msg=file.name)
