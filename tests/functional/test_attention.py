"""Attention in blocks: the numbers of the dense form, and no matrix of all weights."""

import re

import keras
import numpy as np
import pytest
from gradients import gradient
from keras import ops

from libra_keras.functional import attention, control_flow

FORMS = ("softmax", "relu", "product")
IS_TENSORFLOW = keras.backend.backend() == "tensorflow"


def of_one(form, block=None, num_keys=7):
    """`attend` as a function of one array `(B, N, 14)`: queries, keys and values side by side."""
    channels = 1 if form == "relu" else 5

    def mixed(x):
        queries, keys, values = x[..., :channels], x[:, :num_keys, 5 : 5 + channels], x[..., 10:]
        return attention.attend(queries, keys, values[:, :num_keys], form, block)

    return mixed


def curved(function):
    """So that each place of the output has a gradient of its own."""
    return lambda x: ops.sin(function(x))


@pytest.mark.portable
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(2, 13, 14), (0, 13, 14), (2, 0, 14)])
def test_blocks_give_the_numbers_of_the_dense_form(rng, form, shape):
    x = rng.normal(size=shape).astype("float32")
    dense, blocks = of_one(form), of_one(form, block=4)  # 13 are four blocks, the last one padded
    mixed = ops.convert_to_numpy(blocks(ops.convert_to_tensor(x)))
    assert mixed.shape == (*shape[:2], 4) and mixed.dtype == "float32"
    expected = ops.convert_to_numpy(dense(ops.convert_to_tensor(x)))
    np.testing.assert_allclose(mixed, expected, rtol=1e-5, atol=1e-6)
    slopes, expected = gradient(curved(blocks), x), gradient(curved(dense), x)
    np.testing.assert_allclose(slopes, expected, rtol=1e-5, atol=1e-6)
    assert x.size == 0 or np.abs(expected).max() > 0.1


@pytest.mark.skipif(not IS_TENSORFLOW, reason="only tf.function has unknown sizes")
@pytest.mark.parametrize("form", FORMS[:2])
def test_unknown_sizes(rng, monkeypatch, form):
    """One graph for all sizes: up to 8 queries of 7 keys are one block, 13 make four blocks."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((None, None, 14))])
    def traced(x):
        mixed = curved(of_one(form))(x)
        return mixed, tf.gradients(mixed, x)[0]

    monkeypatch.setattr(attention, "MAX_WHOLE", 60)
    monkeypatch.setattr(attention, "MAX_BLOCK", 28)
    traced.get_concrete_function()
    monkeypatch.undo()
    for shape in ((2, 13, 14), (1, 8, 14), (2, 0, 14), (0, 3, 14)):
        x = rng.normal(size=shape).astype("float32")
        mixed, slopes = traced(x)
        np.testing.assert_allclose(mixed, curved(of_one(form))(x), rtol=1e-5, atol=1e-6)
        expected = gradient(curved(of_one(form)), x)
        np.testing.assert_allclose(slopes, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(not IS_TENSORFLOW, reason="exports are made with TensorFlow")
def test_a_straight_line_has_no_loop():
    import tensorflow as tf

    specs = [tf.TensorSpec((None, None, 14))]

    def has_loop():
        graph = tf.function(of_one("softmax", 4), specs).get_concrete_function().graph
        return any("While" in node.op for node in graph.as_graph_def().node)

    assert has_loop()
    with control_flow.straight_line():
        assert not has_loop()


def test_published_detectors_weigh_all_positions_at_once():
    """Their refined level has a stride of 16, their images 800 x 1344 pixels: 50 x 84 positions."""
    assert (50 * 84) ** 2 < 5792**2 <= attention.MAX_WHOLE < 5793**2


@pytest.mark.portable
@pytest.mark.parametrize("form", FORMS)
def test_no_array_holds_all_weights(form):
    """Of all that the output and its gradient are made of; the inputs have 60 x 14 numbers."""
    all_weights = 60 * 60
    assert largest(of_one(form, 10, num_keys=60)) <= 60 * 14
    assert largest(of_one(form, None, num_keys=60)) >= all_weights or form == "product"


def largest(function):
    """The most numbers that an array has of those that make `function` and its gradient."""
    x = np.ones((1, 60, 14), "float32")
    if keras.backend.backend() == "jax":
        import jax

        text = jax.jit(jax.grad(lambda x: ops.sum(function(x)))).lower(x).as_text()
        shapes = [found.split("x")[:-1] for found in re.findall(r"tensor<([\dx]*x)f32>", text)]
        return max(np.prod([int(side) for side in shape]) for shape in shapes)
    if keras.backend.backend() == "torch":
        return largest_kept(function, x)
    import tensorflow as tf

    traced = tf.function(lambda x: tf.gradients(function(x), x)[0])
    graph = traced.get_concrete_function(tf.constant(x)).graph.as_graph_def(add_shapes=True)
    nodes = [*graph.node, *(node for made in graph.library.function for node in made.node_def)]
    shapes = [shape for node in nodes for shape in node.attr["_output_shapes"].list.shape]
    return max(np.prod([side.size for side in shape.dim]) for shape in shapes)


def largest_kept(function, x):
    """Of PyTorch, which makes no graph, what is kept for the gradient."""
    import torch

    sizes = []

    def keep(kept):
        sizes.append(kept.numel())
        return kept

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept):
        function(torch.tensor(x, requires_grad=True))
    return max(sizes)


@pytest.mark.portable
def test_what_is_wrong_is_named():
    x = np.ones((1, 3, 2), "float32")
    with pytest.raises(ValueError, match="form='tanh'"):
        attention.attend(x, x, x, "tanh")
    with pytest.raises(ValueError, match="`block` must be a whole number from 1"):
        attention.attend(x, x, x, block=0)
    with pytest.raises(ValueError, match=r"`queries` must have shape \(B, N, 1\)"):
        attention.weights(x, x, "relu")
    with pytest.raises(ValueError, match=r"`values` must have shape \(B, M, D\)"):
        attention.attend(x, x, x[0])
