import keras
import numpy as np
import pytest
from gradients import gradient
from keras import ops

from libra_keras.functional.resize import adaptive_max_pool, resize_nearest

# (input, output) height and width: whole ratios, odd sizes, identity, both directions.
SIZES = [
    ((4, 6), (8, 18)),
    ((13, 21), (50, 84)),
    ((5, 7), (5, 7)),
    ((7, 9), (3, 4)),
    ((8, 12), (4, 3)),
    ((50, 84), (13, 21)),
    ((3, 10), (7, 5)),
    ((1, 1), (3, 2)),
    ((5, 3), (1, 1)),
]


def slow_nearest(x, size):
    rows = [i * x.shape[1] // size[0] for i in range(size[0])]
    columns = [i * x.shape[2] // size[1] for i in range(size[1])]
    return x[:, rows][:, :, columns]


def slow_max_pool(x, size):
    (height, width), (rows, columns) = x.shape[1:3], size
    out = np.empty((x.shape[0], rows, columns, x.shape[3]), x.dtype)
    for i in range(rows):
        for j in range(columns):
            top, bottom = int(np.floor(i * height / rows)), int(np.ceil((i + 1) * height / rows))
            left, right = (
                int(np.floor(j * width / columns)),
                int(np.ceil((j + 1) * width / columns)),
            )
            out[:, i, j] = x[:, top:bottom, left:right].max((1, 2))
    return out


@pytest.mark.portable
@pytest.mark.parametrize(("old", "new"), SIZES)
def test_equals_the_slow_twins(rng, old, new):
    x = rng.normal(size=(2, *old, 3)).astype("float32")
    np.testing.assert_array_equal(
        ops.convert_to_numpy(resize_nearest(x, new)), slow_nearest(x, new)
    )
    np.testing.assert_array_equal(
        ops.convert_to_numpy(adaptive_max_pool(x, new)), slow_max_pool(x, new)
    )


@pytest.mark.parametrize("function", [resize_nearest, adaptive_max_pool])
def test_unknown_sizes_give_the_same_values_and_gradients(rng, function):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("only tf.function has unknown sizes")
    import tensorflow as tf

    spec = tf.TensorSpec((None, None, None, 3))

    @tf.function(input_signature=[spec, spec])
    def with_gradient(x, cotangent):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x, ops.shape(cotangent)[1:3])
            total = tf.reduce_sum(y * cotangent)
        return y, tape.gradient(total, x)

    for old, new in SIZES:  # one trace serves all
        x = rng.normal(size=(2, *old, 3)).astype("float32")
        cotangent = rng.normal(size=(2, *new, 3)).astype("float32")
        y, grad = with_gradient(x, cotangent)
        np.testing.assert_array_equal(y.numpy(), ops.convert_to_numpy(function(x, new)))
        expected = gradient(lambda x, n=new, c=cotangent: function(x, n) * c, x)
        np.testing.assert_allclose(grad.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_gradients_go_to_the_pixels_that_were_taken(rng, old, new):
    # Distinct values: every window has one maximum, so each output's gradient has one address.
    x = rng.permutation(2 * old[0] * old[1]).reshape(2, *old, 1).astype("float32")
    cotangent = rng.normal(size=(2, *new, 1)).astype("float32")
    for function, twin in ((resize_nearest, slow_nearest), (adaptive_max_pool, slow_max_pool)):
        taken = twin(x, new)
        expected = np.zeros_like(x)
        for b in range(2):
            np.add.at(expected[b].ravel(), _positions_of(taken[b], x[b]), cotangent[b].ravel())
        actual = gradient(lambda x, f=function: f(x, new) * cotangent, x)
        np.testing.assert_allclose(actual, expected, atol=1e-5)


def _positions_of(values, x):
    order = np.argsort(x.ravel())
    return order[np.searchsorted(x.ravel()[order], values.ravel())]


@pytest.mark.portable
@pytest.mark.parametrize("width", [4, 5])  # 4 to 2: equal windows; 5 to 2: windows 0-2 and 2-4
def test_equal_maxima_share_the_gradient(width):
    x = np.zeros((1, 2, width, 1), "float32")
    grad = gradient(lambda x: adaptive_max_pool(x, (1, 2)), x)
    share = {4: [0.25] * 4, 5: [1 / 6, 1 / 6, 1 / 3, 1 / 6, 1 / 6]}[width]
    np.testing.assert_allclose(grad[0, :, :, 0], [share, share], rtol=1e-6)
    assert grad.sum() == pytest.approx(2.0)


def test_negative_values_survive_the_mask_of_short_windows():
    x = np.full((1, 5, 7, 2), -3.0, "float32")
    np.testing.assert_array_equal(ops.convert_to_numpy(adaptive_max_pool(x, (3, 4))), -3.0)


def test_keeps_half_precision():
    x = ops.ones((1, 5, 6, 2), "bfloat16")
    for function in (resize_nearest, adaptive_max_pool):
        assert keras.backend.standardize_dtype(function(x, (3, 3)).dtype) == "bfloat16"


@pytest.mark.parametrize("function", [resize_nearest, adaptive_max_pool])
def test_says_what_is_wrong(function):
    with pytest.raises(ValueError, match=r"shape=\(4, 4, 3\)"):
        function(np.zeros((4, 4, 3)), (2, 2))
    with pytest.raises(ValueError, match=r"size=\(0, 2\)"):
        function(np.zeros((1, 4, 4, 3)), (0, 2))
    with pytest.raises(ValueError, match="pair"):
        function(np.zeros((1, 4, 4, 3)), (2, 2, 2))
