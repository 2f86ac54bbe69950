"""Gradients as NumPy arrays, on the backend in use."""

import keras
from keras import ops


def gradient(function, x):
    """Returns the gradient of the sum of `function(x)` with respect to `x`."""
    if keras.backend.backend() == "jax":
        import jax

        return to_numpy(jax.jit(jax.grad(lambda x: ops.sum(function(x))))(ops.convert_to_tensor(x)))
    if keras.backend.backend() == "torch":
        x = _leaf(x)
        return _torch_gradients(ops.sum(function(x)), [x])[0]
    import tensorflow as tf

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
            outputs, _ = layer.stateless_call(weights, frozen, inputs)
            return _dot(outputs, cotangents), outputs

        weights = [v.value for v in variables]
        slopes = jax.jit(jax.grad(total_of, (0, 1), has_aux=True))
        (of_inputs, of_weights), outputs = slopes(inputs, weights)
    elif keras.backend.backend() == "torch":
        inputs = keras.tree.map_structure(_leaf, inputs)
        leaves = keras.tree.flatten(inputs)
        sources = [*leaves, *(v.value for v in variables)]
        outputs = layer(inputs)
        found = _torch_gradients(_dot(outputs, cotangents), sources)
        of_inputs = keras.tree.pack_sequence_as(inputs, found[: len(leaves)])
        of_weights = found[len(leaves) :]
    else:
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs)
            total = _dot(outputs, cotangents)
        of_inputs, of_weights = tape.gradient(total, (inputs, [v.value for v in variables]))
    by_path = {v.path: to_numpy(g) for v, g in zip(variables, of_weights, strict=True)}
    return to_numpy(outputs), to_numpy(of_inputs), by_path


def _dot(outputs, cotangents):
    pairs = zip(keras.tree.flatten(outputs), keras.tree.flatten(cotangents), strict=True)
    return sum(ops.sum(ops.multiply(y, g)) for y, g in pairs)


def to_numpy(structure):
    return keras.tree.map_structure(ops.convert_to_numpy, structure)


def _leaf(x):
    return ops.convert_to_tensor(x).detach().clone().requires_grad_()


def _torch_gradients(total, sources):
    """Gradients of a PyTorch scalar as arrays; zeros for sources that it does not depend on."""
    import torch

    if not total.requires_grad:
        return [to_numpy(torch.zeros_like(x)) for x in sources]
    found = torch.autograd.grad(total, sources, allow_unused=True, materialize_grads=True)
    return [to_numpy(x) for x in found]
