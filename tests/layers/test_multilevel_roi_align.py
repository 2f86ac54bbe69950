import keras
import numpy as np
import pytest
from conftest import random_boxes
from gradients import layer_gradients
from keras import ops

from libra_keras.functional.roi_align import multilevel_roi_align
from libra_keras.layers import MultilevelROIAlign

OPTIONS = {
    "output_size": 3,
    "sampling_ratio": 0,
    "strides": (8, 16),
    "finest_scale": 20.0,
    "aligned": False,
    "max_sampling_ratio": 5,
}


@pytest.fixture
def pyramid(rng):
    sizes = {"P3": (8, 12), "P4": (4, 6), "P5": (2, 3)}
    return {name: rng.normal(size=(2, *size, 4)).astype("float32") for name, size in sizes.items()}


@pytest.fixture
def boxes(rng):
    return random_boxes(rng, 2, 9, height=64, width=96)


def test_every_option_reaches_the_function(pyramid, boxes):
    found = MultilevelROIAlign(**OPTIONS)(pyramid, boxes)
    expected = multilevel_roi_align(list(pyramid.values())[:2], boxes, **OPTIONS)
    np.testing.assert_array_equal(ops.convert_to_numpy(found), ops.convert_to_numpy(expected))
    for name, usual in {"aligned": True, "max_sampling_ratio": 1, "sampling_ratio": 2}.items():
        other = MultilevelROIAlign(**{**OPTIONS, name: usual})(pyramid, boxes)
        assert np.abs(ops.convert_to_numpy(other - found)).max() > 1e-3, name


def test_dict_list_and_tuple_are_the_same(pyramid, boxes):
    layer = MultilevelROIAlign(strides=(8, 16))
    shuffled = dict(reversed(pyramid.items()))
    first, *others = (
        ops.convert_to_numpy(layer(x, boxes))
        for x in (pyramid, shuffled, list(pyramid.values()), tuple(pyramid.values()))
    )
    for other in others:
        np.testing.assert_array_equal(first, other)


def test_coarser_levels_than_strides_are_ignored(pyramid, boxes):
    layer = MultilevelROIAlign(strides=(8, 16))
    found = layer(pyramid, boxes)
    pyramid["P5"] = np.full_like(pyramid["P5"], np.nan)
    np.testing.assert_array_equal(found, layer(pyramid, boxes))


def test_config_round_trip(pyramid, boxes):
    layer = MultilevelROIAlign(**OPTIONS, name="cut")
    config = layer.get_config()
    assert {key: config[key] for key in OPTIONS} == OPTIONS
    packed = keras.saving.serialize_keras_object(layer)
    again = keras.saving.deserialize_keras_object(packed)
    assert again.get_config() == config
    np.testing.assert_array_equal(layer(pyramid, boxes), again(pyramid, boxes))


@pytest.mark.portable
def test_gradients_reach_the_levels_but_not_the_boxes(pyramid, boxes):
    class OfPyramid(keras.layers.Layer):
        def call(self, pyramid):
            return MultilevelROIAlign(strides=(8, 16))(pyramid, boxes)

    pyramid.pop("P5")
    layer = OfPyramid()
    layer(pyramid)  # builds it
    _, slopes, _ = layer_gradients(layer, pyramid, np.ones((2, 9, 7, 7, 4), "float32"))
    # Boxes lie inside the image: the weights of each of their 49 bins add up to 1.
    assert sum(slope.sum() for slope in slopes.values()) == pytest.approx(2 * 9 * 49 * 4, rel=1e-4)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_keeps_coordinates(pyramid, policy):
    # At 2001 pixels float16 knows only even numbers, bfloat16 multiples of 8.
    dtype = policy.removeprefix("mixed_")
    ramp = np.zeros((1, 4, 512, 1), "float32") + np.arange(512)[:, None] % 4
    layer = MultilevelROIAlign(output_size=1, strides=(4,), dtype=policy)
    boxes = np.array([[[2001, 4, 2005, 8], [2003, 4, 2007, 8]]], "float32")
    found = layer([ops.cast(ramp, dtype)], boxes)
    assert keras.backend.standardize_dtype(found.dtype) == dtype
    expected = MultilevelROIAlign(output_size=1, strides=(4,))([ramp], boxes)
    found, expected = (ops.convert_to_numpy(ops.cast(x, "float32")) for x in (found, expected))
    np.testing.assert_allclose(found, expected, rtol=0.01)
    assert expected.ravel()[0] != expected.ravel()[1]


@pytest.mark.portable
def test_symbolic_call_knows_the_shape():
    levels = [keras.Input((None, None, 6)), keras.Input((None, None, 6))]
    boxes = keras.Input((20, 4))
    layer = MultilevelROIAlign(output_size=5, strides=(4, 8))
    assert layer(levels, boxes).shape == (None, 20, 5, 5, 6)


def test_a_model_with_it_trains_on_images_of_any_size(rng):
    images, boxes = keras.Input((None, None, 3)), keras.Input((4, 4))
    level = keras.layers.Conv2D(2, 3, strides=4, padding="same")(images)
    cut = MultilevelROIAlign(output_size=2, strides=(4,))([level], boxes)
    model = keras.Model([images, boxes], keras.layers.Dense(1)(keras.layers.Flatten()(cut)))
    model.compile("sgd", "mse")
    kernel = ops.convert_to_numpy(model.layers[1].kernel)
    for height, width in ((16, 24), (32, 20)):
        x = rng.normal(size=(2, height, width, 3)).astype("float32")
        model.fit([x, random_boxes(rng, 2, 4, height=16, width=16)], np.ones((2, 1)), verbose=0)
    assert np.abs(ops.convert_to_numpy(model.layers[1].kernel) - kernel).max() > 0


@pytest.mark.parametrize("arguments", [{"strides": ()}, {"strides": (4, 0)}])
def test_wrong_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match="strides"):
        MultilevelROIAlign(**arguments)


def test_wrong_pyramids_are_refused(pyramid, boxes):
    with pytest.raises(ValueError, match="3 levels"):
        MultilevelROIAlign()(pyramid, boxes)
    with pytest.raises(ValueError, match=r"A pyramid must be a dict.*one tensor of shape \(2, 8"):
        MultilevelROIAlign()(pyramid["P3"], boxes)
