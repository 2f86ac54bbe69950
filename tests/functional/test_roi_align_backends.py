"""RoIAlign and NMS give the same numbers on every way through a backend."""

import contextlib

import keras
import numpy as np
import pytest
from conftest import random_boxes
from gradients import gradient
from keras import ops

from libra_keras.functional import native
from libra_keras.functional.roi_align import (
    find_taps,
    multilevel_roi_align,
    roi_align,
    weighted_sum,
    weighted_sum_of_used,
)


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
@pytest.mark.parametrize(
    ("portable", "ratio"), [(False, 0), pytest.param(False, 2, marks=pytest.mark.slow), (True, 0)]
)
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


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="for TensorFlow's graphs")
@pytest.mark.parametrize("boxes", ["mixed", "none", "outside"])
def test_reading_used_taps_only(rng, boxes):
    """The same numbers as reading all of them, eagerly and in a graph with an unknown R."""
    import tensorflow as tf

    boxes = {
        "none": np.zeros((2, 0, 4)),
        "outside": np.full((2, 3, 4), -500.0) + (0, 0, 60, 30),
        "mixed": [  # small, without area, long both ways, more than 4 cells a bin, half outside
            [[4, 4, 30, 20], [9, 9, 9, 9], [0, 8, 95, 12], [8, 0, 12, 63], [-80, -80, 180, 150]],
            [[0, 0, 0, 0], [0, 0, 96, 64], [-40, 5, 40, 60], [300, 300, 320, 310], [1, 2, 3, 4]],
        ],
    }[boxes]
    boxes = tf.constant(boxes, tf.float32)
    sizes = ops.convert_to_tensor([[16, 24], [8, 12]])
    source = tf.constant(rng.normal(size=(2 * (16 * 24 + 8 * 12), 3)).astype("float32"))

    def pool(function, boxes):
        levels = tf.cast(boxes[..., 2] - boxes[..., 0] > 50, tf.int32)
        taps = find_taps(boxes, levels, sizes, (4, 8), 3, 0, True, 4)
        return function(source, taps)

    expected = pool(weighted_sum, boxes)
    traced = tf.function(pool, autograph=False).get_concrete_function(
        weighted_sum_of_used, tf.TensorSpec((None, None, 4))
    )
    for found in (pool(weighted_sum_of_used, boxes), traced(boxes=boxes)):
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the way of TensorFlow's GPUs")
@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("jit", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_gpus_keep_nothing_of_single_taps(rng, monkeypatch, ratio, jit):
    """A loop that TensorFlow differentiates has lists of what every tap has read."""
    import tensorflow as tf

    features = tf.constant(rng.normal(size=(1, 16, 16, 2)).astype("float32"))
    boxes = tf.constant(random_boxes(rng, 1, 6, height=60, width=60), tf.float32)

    def slope(features, boxes):
        with tf.GradientTape() as tape:
            tape.watch(features)
            pooled = roi_align(features, boxes, 4, sampling_ratio=ratio)
            total = tf.reduce_sum(pooled**2)
        return tape.gradient(total, features)

    expected = slope(features, boxes)
    monkeypatch.setattr(native, "has_sparse_pooling", lambda: False)
    traced = tf.function(slope, jit_compile=jit, autograph=False)
    graph = traced.get_concrete_function(features, boxes).graph.as_graph_def()
    nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
    assert not [node.op for node in nodes if node.op.startswith("TensorList")]
    np.testing.assert_allclose(traced(features, boxes), expected, rtol=1e-5, atol=1e-5)
