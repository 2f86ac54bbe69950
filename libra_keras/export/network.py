"""A detector's network as one TensorFlow graph of portable operations."""

import contextlib

import keras
from keras import ops

from libra_keras.backbones.conv_batch_norm import ConvBatchNorm, folded_into
from libra_keras.functional import native
from libra_keras.keras_private import layers_in

SPECS = {  # of what detectors take, by name: shape and dtype
    "images": ((None, None, None, 3), "uint8"),
    "image_sizes": ((None, 2), "int32"),
    "proposals": ((None, None, 4), "float32"),
}
# Layers whose weights are cast to what they compute with, and may be stored so.
CASTING = (keras.layers.Conv2D, keras.layers.Dense)


# The graph holds portable operations only: no XLA islands, no operation for detection that
# TensorFlow alone knows. Batch normalisation is folded into the convolutions (but for that of a
# network of `keras.applications` in a `BackboneAdapter`); where layers compute in bfloat16, their
# kernels and biases are stored so, which gives the same numbers. `specs` has the shapes and
# dtypes of inputs that are to be others than in `SPECS`, `None` for `"image_sizes"` if images
# count as unpadded.
def network(model, specs=None):
    """Traces a detector, once, as a `tf.function` from prepared images to `model.OUTPUTS`."""
    import tensorflow as tf

    folded, cast = _folded(model), _cast(model)

    def run(images, image_sizes=None, proposals=None):
        given = {"images": images, "image_sizes": image_sizes, "proposals": proposals}
        x = {name: _with_a_row(given[name]) for name in names}
        with native.portable(), folded_into(folded), _standing_in(cast):  # while it is traced
            outputs = model(x, training=False)
            results = {name: outputs[name] for name in model.OUTPUTS}
            return {name: _rows_of(images, result) for name, result in results.items()}

    specs = {**SPECS, **(specs or {})}
    names = [name for name in model.INPUTS if specs[name]]
    signature = [tf.TensorSpec(*specs[name], name=name) for name in names]
    function = tf.function(run, input_signature=signature, autograph=False)
    function.get_concrete_function().held = run  # TensorFlow's graphs let go of their variables
    return function


def _with_a_row(x):
    """Adds a row of zeros to `(B, ...)` where B is 0: many runtimes fail at convolving nothing."""
    if x.shape[0] is not None:
        return x
    batch, *rest = ops.shape(x)
    row = ops.zeros((1 - ops.minimum(batch, 1), *rest), dtype=x.dtype)
    return ops.concatenate([x, row], axis=0)


def _rows_of(images, result):
    return result if images.shape[0] is not None else result[: ops.shape(images)[0]]


def _folded(model):
    """Variables of the kernel and bias of each layer with batch normalisation."""
    layers = [layer for layer in layers_in(model) if isinstance(layer, ConvBatchNorm)]
    return {layer: _variables(layer, ("kernel", "bias"), layer.folded()) for layer in layers}


def _variables(layer, names, values):
    import tensorflow as tf

    dtype = layer.compute_dtype
    return tuple(
        tf.Variable(ops.cast(value, dtype), trainable=False, name=f"{layer.path}/{name}")
        for name, value in zip(names, values, strict=True)
    )


def _cast(model):
    """Pairs of a weight and a variable of the dtype that it is cast to in every run."""
    pairs = []
    for layer in layers_in(model):
        if isinstance(layer, CASTING) and layer.compute_dtype != layer.variable_dtype:
            names = [weight.name for weight in layer.weights]
            made = _variables(layer, names, [weight.value for weight in layer.weights])
            pairs += zip(layer.weights, made, strict=True)
    return pairs


@contextlib.contextmanager
def _standing_in(pairs):
    """Within this context variables of Keras have the values of others."""
    if not pairs:
        yield
        return
    with keras.StatelessScope(initialize_variables=False) as scope:
        for weight, value in pairs:
            scope.add_update((weight, value))
        yield
