"""Samplers in functional models, where sizes may be unknown."""

import keras
import pytest
from keras import ops
from samplers.test_samplers import ALL

from libra_keras.functional.random_keys import random_keys


@pytest.mark.portable
@pytest.mark.parametrize("sampler", ALL, ids=lambda sampler: type(sampler).__name__)
def test_as_part_of_a_functional_model_of_unknown_sizes(sampler):
    class Sampled(keras.layers.Layer):
        def call(self, max_iou):
            keys = random_keys(0, 0, ops.arange(2, dtype="int32"), 20)
            mask = ops.ones_like(max_iou, dtype="bool")
            gt = ops.zeros_like(max_iou, dtype="int32")
            return sampler(max_iou, ops.logical_and(mask, max_iou > 0.5), mask, gt, keys).indices

        def compute_output_shape(self, shape):
            return (shape[0], sampler.num)

    assert Sampled()(keras.Input((None,))).shape == (None, sampler.num)
