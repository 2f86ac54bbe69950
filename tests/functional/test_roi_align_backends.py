"""RoIAlign and NMS give the same numbers on every way through a backend."""

import contextlib

import keras
import numpy as np
import pytest
from conftest import random_boxes
from gradients import gradient
from keras import ops

from libra_keras.functional import native
from libra_keras.functional.roi_align import multilevel_roi_align, roi_align


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="twins are TensorFlow's")
@pytest.mark.parametrize("ratio", [0, 2])
def test_native_and_portable_are_equal(rng, ratio):
    levels = [rng.normal(size=(2, 32 // s, 48 // s, 4)).astype("float32") for s in (1, 2, 4)]
    boxes = random_boxes(rng, 2, 20, height=256, width=384)
    weights = rng.normal(size=(2, 20, 5, 5, 4)).astype("float32")

    options = {"strides": (8, 16, 32), "output_size": 5, "max_sampling_ratio": 4}

    def results():
        def pool(*levels):
            return multilevel_roi_align(levels, boxes, sampling_ratio=ratio, **options)

        slopes = [
            gradient(lambda x, i=i: pool(*levels[:i], x, *levels[i + 1 :]) * weights, levels[i])
            for i in range(3)
        ]
        return [ops.convert_to_numpy(pool(*levels)), *slopes]

    native_results = results()
    with native.portable():
        for found, expected in zip(native_results, results(), strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.function")
@pytest.mark.parametrize(("portable", "ratio"), [(False, 0), (False, 2), (True, 0)])
def test_traces_with_unknown_sizes(rng, portable, ratio):
    import tensorflow as tf

    signature = [tf.TensorSpec((None, None, None, 2)), tf.TensorSpec((None, None, 4))]

    @tf.function(input_signature=signature)
    def traced(features, boxes):
        with tf.GradientTape() as tape:
            tape.watch(features)
            pooled = roi_align(features, boxes, 4, sampling_ratio=ratio, max_sampling_ratio=3)
        return pooled, tape.gradient(pooled, features)

    for height, width, count in ((8, 6, 3), (5, 9, 2)):
        features = rng.normal(size=(2, height, width, 2)).astype("float32")
        boxes = random_boxes(rng, 2, count, height=30, width=30)
        with native.portable() if portable else contextlib.nullcontext():
            pooled, slope = traced(features, boxes)
        eager = roi_align(features, boxes, 4, sampling_ratio=ratio, max_sampling_ratio=3)
        np.testing.assert_allclose(pooled, ops.convert_to_numpy(eager), atol=1e-6)
        assert slope.shape == features.shape
