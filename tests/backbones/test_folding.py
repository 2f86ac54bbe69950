"""Batch normalisation folded beforehand gives what a layer computes for itself."""

import numpy as np
import pytest
from keras import ops

from libra_keras.backbones import ConvBatchNorm
from libra_keras.backbones.conv_batch_norm import folded_into, given


def layer_with_statistics(rng, **options):
    layer = ConvBatchNorm(4, kernel_size=3, **options)
    layer.build((None, None, None, 4))
    for name in ("gamma", "beta", "moving_mean"):
        getattr(layer, name).assign(rng.uniform(-1, 1, 4))
    layer.moving_variance.assign(rng.uniform(0.5, 2, 4))
    return layer


@pytest.mark.parametrize(
    "options", [{}, {"strides": 2}, {"groups": 2}, {"batch_norm": "trainable"}, {"relu": False}]
)
def test_folded_is_what_inference_does(rng, options):
    layer = layer_with_statistics(rng, **options)
    x = rng.normal(size=(2, 6, 7, 4)).astype("float32")
    expected = ops.convert_to_numpy(layer(x))
    kernel, bias = (ops.convert_to_numpy(value) for value in layer.folded())
    scale = ops.convert_to_numpy(layer.gamma) / np.sqrt(
        ops.convert_to_numpy(layer.moving_variance) + 1e-5
    )
    np.testing.assert_allclose(kernel, ops.convert_to_numpy(layer.kernel) * scale, rtol=1e-5)
    with folded_into({layer: (ops.convert_to_tensor(kernel), ops.convert_to_tensor(bias))}):
        np.testing.assert_allclose(ops.convert_to_numpy(layer(x)), expected, atol=1e-6)


def test_values_are_used_within_the_context_only(rng):
    layer, other = layer_with_statistics(rng), layer_with_statistics(rng)
    with pytest.raises(RuntimeError), folded_into({layer: ("kernel", "bias")}):
        assert given(layer) == ("kernel", "bias") and given(other) is None
        raise RuntimeError
    assert given(layer) is None
