"""Gradients as NumPy arrays, on the backend in use."""

import keras
import pytest
from keras import ops


def gradient(function, x):
    """Returns the gradient of the sum of `function(x)` with respect to `x`."""
    if keras.backend.backend() == "jax":
        import jax

        return to_numpy(jax.jit(jax.grad(lambda x: ops.sum(function(x))))(ops.convert_to_tensor(x)))
    tf = _tensorflow()
    x = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = ops.sum(function(x))
    return to_numpy(tape.gradient(total, x))


def layer_gradients(layer, inputs, cotangents):
    """Calls a built layer and differentiates `sum(outputs * cotangents)`.

    Returns:
        The outputs, the gradients of the inputs, and a dict from the path of each trainable
        variable to its gradient.
    """
    inputs = keras.tree.map_structure(ops.convert_to_tensor, inputs)
    variables = layer.trainable_variables
    if keras.backend.backend() == "jax":
        import jax

        def total_of(inputs, weights):
            frozen = layer.non_trainable_variables
            return _dot(layer.stateless_call(weights, frozen, inputs)[0], cotangents)

        weights = [v.value for v in variables]
        of_inputs, of_weights = jax.jit(jax.grad(total_of, (0, 1)))(inputs, weights)
    else:
        tf = _tensorflow()
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            total = _dot(layer(inputs), cotangents)
        of_inputs, of_weights = tape.gradient(total, (inputs, [v.value for v in variables]))
    by_path = {v.path: to_numpy(g) for v, g in zip(variables, of_weights, strict=True)}
    return to_numpy(layer(inputs)), to_numpy(of_inputs), by_path


def _dot(outputs, cotangents):
    pairs = zip(keras.tree.flatten(outputs), keras.tree.flatten(cotangents), strict=True)
    return sum(ops.sum(y * g) for y, g in pairs)


def to_numpy(structure):
    return keras.tree.map_structure(ops.convert_to_numpy, structure)


def _tensorflow():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("gradients are checked on TensorFlow and JAX")
    import tensorflow

    return tensorflow
