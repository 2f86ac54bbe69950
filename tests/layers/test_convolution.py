import contextlib

import keras
import numpy as np
import pytest
from keras import ops

from libra_keras.backbones import ConvBatchNorm
from libra_keras.functional import native
from libra_keras.layers.convolution import Conv2D

LAYERS = {
    "conv": lambda **options: Conv2D(padding="same", activation="relu", **options),
    "conv_batch_norm": ConvBatchNorm,
}
on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="parts are for TensorFlow"
)


def made(kind, rng, **options):
    """A layer whose weights are random, and an input of 8 channels."""
    x = rng.normal(size=(1, 7, 6, 8)).astype("float32")
    layer = LAYERS[kind](**options)
    layer(x)
    for weight in layer.weights:
        weight.assign(rng.uniform(0.5, 1.5, weight.shape) * rng.choice([-1, 1], weight.shape))
        if "variance" in weight.path or "gamma" in weight.path:
            weight.assign(ops.abs(weight))
    return layer, x


@pytest.mark.portable
@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("options", [{}, {"strides": 2}, {"groups": 2}], ids=str)
def test_parts_equal_the_whole(rng, kind, options):
    layer, x = made(kind, rng, filters=256, kernel_size=3, **options)
    with native.portable():
        whole = ops.convert_to_numpy(layer(x))
    parts = ops.convert_to_numpy(layer(x))
    np.testing.assert_allclose(parts, whole, rtol=1e-4, atol=1e-4)
    assert np.any(whole > 1)


@on_tensorflow
@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize(
    ("options", "training", "count"),
    [
        ({"filters": 256}, False, 4),
        ({"filters": 512}, False, 8),
        ({"filters": 256}, True, 1),
        ({"filters": 128}, False, 1),
        ({"filters": 300}, False, 1),
        ({"filters": 256, "kernel_size": 1}, False, 1),
        ({"filters": 256, "dtype": "mixed_bfloat16"}, False, 1),
    ],
)
def test_where_there_are_parts(rng, kind, options, training, count):
    """A count of convolutions in the graph; XLA or a server makes its own plan of them."""
    import tensorflow as tf

    layer, x = made(kind, rng, **{"kernel_size": 3, **options})
    for scope, expected in ((native.portable, 1), (contextlib.nullcontext, count)):
        with scope():
            graph = tf.function(layer).get_concrete_function(x, training=training).graph
        convolutions = [op for op in graph.get_operations() if op.type == "Conv2D"]
        assert len(convolutions) == expected


@pytest.mark.portable
def test_files_of_weights_call_it_as_keras_does():
    """`keras` names the layers of a list by their class; files of before hold Keras' own."""
    assert Conv2D.__name__ == keras.layers.Conv2D.__name__
