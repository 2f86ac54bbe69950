import functools

import keras
import numpy as np
import pytest
from gradients import gradient
from keras import ops

from libra_keras.functional import native, native_gradients

on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="islands exist on TensorFlow only"
)


def power(x, shift=None, *, exponent):
    y = ops.power(x, exponent)
    return y if shift is None else y + shift


def runs_in_xla(x):
    import tensorflow as tf

    # Strings do not compile: this works only outside an island.
    return tf.strings.length(tf.strings.as_string(x))


@pytest.mark.portable
def test_values_and_gradients_pass():
    x = np.array([1.0, 2.0, 3.0], "float32")
    cube = native.compiled(power, exponent=3)
    np.testing.assert_allclose(ops.convert_to_numpy(cube(x)), x**3)
    np.testing.assert_allclose(gradient(cube, x), 3 * x**2)


@pytest.mark.portable
def test_none_and_lists_are_accepted():
    square = native.compiled(power, exponent=2)
    assert ops.convert_to_numpy(square(np.array([1.0, 2.0]), None)).tolist() == [1.0, 4.0]
    assert ops.convert_to_numpy(square([1.0, 2.0], 1.0)).tolist() == [2.0, 5.0]


def test_static_arguments_of_a_partial():
    assert float(native.compiled(functools.partial(power, exponent=2))(3.0)) == 9.0
    assert float(native.compiled(functools.partial(power, exponent=2), exponent=3)(3.0)) == 27.0
    with pytest.raises(ValueError, match="by keyword"):
        native.compiled(functools.partial(power, np.ones(2)))


@on_tensorflow
def test_an_island_is_compiled_once_and_by_xla():
    island = native._island(power, (("exponent", 2),))
    assert island is native._island(power, (("exponent", 2),))
    native.compiled(power, exponent=2)(np.ones(7, "float32"))
    native.compiled(power, exponent=2)(np.zeros(7, "float32"))
    traces = {str(f.structured_input_signature) for f in island._list_all_concrete_functions()}
    assert sum("(7,)" in trace for trace in traces) == 1
    with pytest.raises(Exception, match="(?i)xla|compil"):
        native.compiled(runs_in_xla)(1)


@on_tensorflow
def test_portable_makes_no_island_and_nests():
    with native.portable():
        with native.portable():
            assert int(native.compiled(runs_in_xla)(12)) == 2
        assert not native.enabled() and not native.has_sparse_pooling()
    assert native.enabled()
    with pytest.raises(RuntimeError), native.portable():
        raise RuntimeError
    assert native.enabled()


@on_tensorflow
def test_islands_in_a_trace_with_unknown_shape():
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((None, None))])
    def slope(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = native.compiled(power, exponent=2)(x)
        return y, tape.gradient(y, x)

    for shape in ((2, 3), (1, 5)):
        y, dy = slope(tf.fill(shape, 3.0))
        assert y.shape == shape and (y.numpy() == 9).all() and (dy.numpy() == 6).all()


@on_tensorflow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("groups", [1, 4])
def test_padded_convolution_equals_padding_beforehand(rng, dtype, groups):
    import tensorflow as tf

    x = tf.cast(rng.normal(size=(2, 7, 10, 8)), dtype)
    kernel = tf.cast(rng.normal(size=(3, 3, 8 // groups, 4)), dtype)

    def values_and_gradients(convolve):
        with tf.GradientTape() as tape:
            tape.watch([x, kernel])
            y = convolve(x, kernel)
            total = tf.reduce_sum(tf.square(tf.cast(y, "float32")))
        return [tf.cast(value, "float32") for value in (y, *tape.gradient(total, [x, kernel]))]

    def padded_beforehand(x, kernel):
        return tf.nn.conv2d(tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]), kernel, 2, "VALID")

    ours = values_and_gradients(lambda x, kernel: native_gradients.padded_conv(x, kernel, 2, 1))
    tolerance = {"float32": 1e-5, "bfloat16": 2e-2}[dtype]  # of bfloat16 8 bits count
    for own, expected in zip(ours, values_and_gradients(padded_beforehand), strict=True):
        np.testing.assert_allclose(own, expected, tolerance, atol=tolerance * np.max(expected))


@on_tensorflow
def test_what_the_gradient_of_maxima_keeps():
    """Of NaN nobody is the maximum; and of what is read, only a byte for each element stays."""
    import tensorflow as tf

    x = tf.constant([[1.0, 2.0, 2.0], [float("nan"), 0.0, 1.0]])
    grad = gradient(lambda x: native_gradients.largest(x, 1), x)
    np.testing.assert_array_equal(grad, [[0.0, 0.5, 0.5], [0.0, 0.0, 0.0]])

    @tf.function
    def differentiated(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(native_gradients.largest(x, 1))
        return tape.gradient(total, x)

    graph = differentiated.get_concrete_function(tf.TensorSpec((4, 3))).graph
    kept = [t for op in graph.get_operations() if "gradient" in op.name for t in op.inputs]
    large = [t for t in kept if t.shape == (4, 3) and "gradient" not in t.op.name]
    assert {t.dtype for t in large} <= {tf.bool}
