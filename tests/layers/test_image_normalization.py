import keras
import numpy as np
import pytest
from keras import ops
from parity import relative_error

from libra_keras.layers import ImageNormalization


@pytest.mark.portable
def test_torch_style_by_hand():
    # White minus the mean over the deviation: (255 - 123.675) / 58.395 and so on.
    white = np.full((1, 1, 1, 3), 255, "uint8")
    expected = [131.325 / 58.395, 138.72 / 57.12, 151.47 / 57.375]
    np.testing.assert_allclose(ImageNormalization.torch_style()(white)[0, 0, 0], expected, 1e-6)
    np.testing.assert_allclose(ImageNormalization()(white)[0, 0, 0], expected, 1e-6)


@pytest.mark.portable
def test_caffe_style_by_hand():
    # Red 10, green 20, blue 30 becomes blue, green, red minus the means.
    pixel = np.array([10, 20, 30], "uint8").reshape(1, 1, 1, 3)
    expected = [30 - 103.939, 20 - 116.779, 10 - 123.68]
    np.testing.assert_allclose(ImageNormalization.caffe_style()(pixel)[0, 0, 0], expected, 1e-6)


@pytest.mark.portable
def test_tf_style_and_none_by_hand():
    # 0, 51 and 255 over 127.5, minus 1; and untouched, but for padding.
    pixel = np.array([0, 51, 255], "uint8").reshape(1, 1, 1, 3)
    np.testing.assert_allclose(ImageNormalization.tf_style()(pixel)[0, 0, 0], [-1, -0.6, 1], 1e-6)
    np.testing.assert_array_equal(ImageNormalization.none()(pixel), pixel)
    padded = ImageNormalization.none()(np.full((1, 1, 2, 3), 7, "uint8"), image_sizes=[[1, 1]])
    np.testing.assert_array_equal(ops.convert_to_numpy(padded)[0, 0, :, 0], [7, 0])


def test_none_keeps_every_pixel_value_in_half_precision():
    values = np.arange(256, dtype="uint8").reshape(1, 16, 16, 1).repeat(3, -1)
    for dtype in ("mixed_bfloat16", "mixed_float16"):
        output = ImageNormalization.none(dtype=dtype)(values)
        np.testing.assert_array_equal(ops.cast(output, "float32"), values)


def test_equals_keras_caffe_preprocessing(rng):
    images = rng.integers(0, 256, (2, 4, 5, 3)).astype("float32")
    expected = keras.applications.imagenet_utils.preprocess_input(images.copy(), mode="caffe")
    np.testing.assert_allclose(ImageNormalization.caffe_style()(images), expected, atol=1e-4)


@pytest.mark.portable
def test_equals_the_reference(reference, record_error):
    data = reference("libra_frcnn_r50b8_features.npz")
    padded = np.full((1, 256, 320, 3), 77, "uint8")  # whatever the padding held, it becomes 0
    padded[0, :250, :310] = data["image_bgr_u8"][..., ::-1]
    output = ImageNormalization()(padded, image_sizes=data["img_shape"][None])
    record_error("image normalisation", relative_error(output, data["input"], floor=0.1), 1e-5)


@pytest.mark.portable
def test_only_pixels_inside_each_image_remain():
    images = np.ones((3, 3, 4, 3), "uint8")
    sizes = np.array([[3, 4], [2, 1], [0, 4]], "int32")
    output = ops.convert_to_numpy(ImageNormalization((0, 0, 0), None)(images, image_sizes=sizes))
    expected = np.zeros((3, 3, 4))
    expected[0] = 1
    expected[1, :2, :1] = 1
    np.testing.assert_array_equal(output, np.repeat(expected[..., None], 3, -1))


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32", "float16"])
def test_any_dtype_gives_the_compute_dtype(dtype):
    images = np.full((1, 2, 2, 3), 200, dtype)
    exact = ops.convert_to_numpy(ImageNormalization()(images))
    assert exact.dtype == "float32"
    half = ImageNormalization(dtype="mixed_bfloat16")(images, image_sizes=[[2, 2]])
    assert keras.backend.standardize_dtype(half.dtype) == "bfloat16"
    np.testing.assert_allclose(ops.cast(half, "float32"), exact, rtol=2**-8)


def test_half_precision_subtracts_in_float32():
    # 123.6 in bfloat16 is 123.5; the difference to the mean has another sign.
    images = np.full((1, 1, 1, 3), 123.7, "float32")
    layer = ImageNormalization((123.675, 123.675, 123.675), None, dtype="mixed_bfloat16")
    np.testing.assert_allclose(ops.cast(layer(images), "float32"), images - 123.675, rtol=0.01)


def test_unknown_sizes(rng):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("only tf.function has unknown sizes")
    import tensorflow as tf

    layer = ImageNormalization.caffe_style()
    specs = [tf.TensorSpec((None, None, None, 3), tf.uint8), tf.TensorSpec((None, 2), tf.int32)]
    traced = tf.function(lambda images, sizes: layer(images, sizes), input_signature=specs)
    for height, width in ((4, 6), (7, 3)):
        images = rng.integers(0, 256, (2, height, width, 3)).astype("uint8")
        sizes = np.array([[height - 1, width], [height, width - 2]], "int32")
        np.testing.assert_allclose(traced(images, sizes), layer(images, sizes))


def test_save_and_load(rng, tmp_path):
    images, sizes = keras.Input((None, None, 3), dtype="uint8"), keras.Input((2,), dtype="int32")
    layer = ImageNormalization((1, 2, 3), (4, 5, 6), "bgr", name="normalize")
    model = keras.Model([images, sizes], layer(images, image_sizes=sizes))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("normalize").get_config() == layer.get_config()
    batch = [rng.integers(0, 256, (1, 4, 5, 3)).astype("uint8"), np.array([[3, 4]], "int32")]
    output = ops.convert_to_numpy(loaded(batch))
    np.testing.assert_array_equal(output, ops.convert_to_numpy(model(batch)))
    assert not output[0, 3].any() and output[0, 2, 3].any()


def test_config_round_trip_of_presets():
    presets = "torch_style", "caffe_style", "tf_style", "none"
    for layer in (getattr(ImageNormalization, preset)(name="a") for preset in presets):
        copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
        assert copy.get_config() == layer.get_config()


def test_numbers_may_be_arrays():
    layer = ImageNormalization(np.float32([1, 2, 3]), np.array([4, 5, 6]))
    assert (layer.mean, layer.std) == ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match="'gbr'"):
        ImageNormalization(channel_order="gbr")
    with pytest.raises(ValueError, match=r"std=\(1, 1\)"):
        ImageNormalization((1, 2, 3), (1, 1))
    with pytest.raises(ValueError, match="`std` must be.*Received: 0"):
        ImageNormalization((1, 2, 3), (1, 0, 1))
    with pytest.raises(ValueError, match=r"shape=\(1, 4, 4, 1\)"):
        ImageNormalization()(np.zeros((1, 4, 4, 1)))
