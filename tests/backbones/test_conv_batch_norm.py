import subprocess
import sys

import keras
import numpy as np
import pytest
from conftest import ROOT
from gradients import layer_gradients
from keras import ops

from libra_keras.backbones import ConvBatchNorm
from libra_keras.backbones.conv_batch_norm import normalise, normalise_fused

numpy_of = ops.convert_to_numpy
on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="needs TensorFlow"
)


def randomised(layer, rng, channels=3):
    """Builds `layer` and gives its variables values that no initializer gives."""
    layer.build((None, None, None, channels))
    for variable in layer.weights:
        low = 0.5 if variable.name == "moving_variance" else -1.0
        variable.assign(rng.uniform(low, 1.5, variable.shape))
    return layer


@pytest.mark.portable
def test_one_pixel_by_hand():
    layer = ConvBatchNorm(2, relu=True)
    layer.build((None, None, None, 1))
    layer.kernel.assign([[[[2.0, 2.0]]]])
    layer.gamma.assign([3.0, 3.0])
    layer.beta.assign([1.0, -60.0])
    layer.moving_mean.assign([4.0, 4.0])
    layer.moving_variance.assign([0.25 - 1e-5, 0.25 - 1e-5])
    # (2 * 10 - 4) / sqrt(0.25) * 3 = 96, then + 1, or - 60 (ReLU keeps both)
    outputs = layer(np.full((1, 1, 1, 1), 10.0))
    np.testing.assert_allclose(numpy_of(outputs)[0, 0, 0], [97, 36], 1e-5)


@pytest.mark.portable
def test_symmetric_padding_of_strided_convolution():
    layer = ConvBatchNorm(1, kernel_size=3, strides=2, relu=False)
    layer.build((None, None, None, 1))
    layer.kernel.assign(np.ones((3, 3, 1, 1)))
    layer.moving_variance.assign([1 - 1e-5])
    # Windows of an axis of 4 ones start at -1 and 1: they hold 2 and 3 of them.
    # Keras' "same" would start at 0 and 2, and hold 3 and 2.
    outputs = numpy_of(layer(np.ones((1, 4, 4, 1), "float32")))[0, :, :, 0]
    np.testing.assert_allclose(outputs, [[4, 6], [6, 9]], 1e-6)


@pytest.mark.portable
@pytest.mark.parametrize("groups", [1, 2])
def test_strides_of_a_kernel_of_one_pixel_leave_pixels_out(rng, groups):
    whole = randomised(ConvBatchNorm(6, relu=False, groups=groups), rng, channels=4)
    strided = ConvBatchNorm(6, strides=2, relu=False, groups=groups)
    strided.build((None, None, None, 4))
    strided.set_weights(whole.get_weights())
    x = rng.normal(size=(3, 5, 8, 4)).astype("float32")
    cotangents = np.zeros((3, 5, 8, 6), "float32")  # nothing comes back to what is left out
    cotangents[:, ::2, ::2] = rng.normal(size=(3, 3, 4, 6))
    expected, of_x, of_weights = layer_gradients(whole, x, cotangents)
    ours = layer_gradients(strided, x, cotangents[:, ::2, ::2])
    np.testing.assert_allclose(ours[0], expected[:, ::2, ::2], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ours[1], of_x, rtol=1e-5, atol=1e-6)
    for slope, theirs in zip(ours[2].values(), of_weights.values(), strict=True):
        np.testing.assert_allclose(slope, theirs, rtol=1e-5, atol=1e-5)


# TensorFlow 2.21 on a CPU with oneDNN wrote out of bounds in the gradient of 1x1
# kernels with strides, at this size among others.
NARROW = """
import keras
import numpy as np
import tensorflow as tf
from libra_keras.backbones import ResNet

keras.utils.set_random_seed(0)
backbone = ResNet(18, width=8, frozen_stages=-1)
backbone.build((None, None, None, 3))
images = tf.constant(np.random.default_rng(0).normal(size=(BATCH, 64, 96, 3)), "float32")


@tf.function(input_signature=[tf.TensorSpec((None, None, None, 3))])
def step(images):
    with tf.GradientTape() as tape:
        total = sum(tf.reduce_mean(y**2) for y in backbone(images, training=True).values())
    for variable, slope in zip(
        backbone.trainable_variables,
        tape.gradient(total, [v.value for v in backbone.trainable_variables]),
    ):
        variable.assign_sub(1e-4 * slope)
    return total


totals = [float(step(images)) for _ in range(8)]
assert totals[-1] < totals[0], totals
"""


@pytest.mark.slow
@on_tensorflow
@pytest.mark.parametrize("batch", [3, 5])
def test_narrow_networks_learn_from_odd_batches(batch):
    code = [sys.executable, "-W", "ignore", "-c", NARROW.replace("BATCH", str(batch))]
    done = subprocess.run(code, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.portable
def test_epsilon_by_hand():
    layer = ConvBatchNorm(1, relu=False, epsilon=1.0)
    layer.build((None, None, None, 1))
    layer.kernel.assign([[[[1.0]]]])
    layer.moving_variance.assign([3.0])
    assert numpy_of(layer(np.full((1, 1, 1, 1), 8.0, "float32"))).item() == 4  # 8 / sqrt(3 + 1)
    assert layer.get_config()["epsilon"] == 1.0


@pytest.mark.portable
def test_no_epsilon_and_no_variance():
    layer = ConvBatchNorm(3, relu=False, epsilon=0.0)
    layer.build((None, None, None, 1))
    layer.kernel.assign(np.ones((1, 1, 1, 3)))
    layer.beta.assign([1.0, 1.0, 1.0])
    # 1e-40 is so small that compiled code takes it for 0
    layer.moving_variance.assign([4.0, 0.0, 1e-40])
    x = np.full((1, 1, 1, 1), 6.0, "float32")
    outputs, of_x, of_weights = layer_gradients(layer, x, np.ones((1, 1, 1, 3), "float32"))
    assert outputs.ravel().tolist() == [4, 1, 1]  # 6 / 2 + 1; a constant channel is its beta
    assert of_x.item() == 0.5
    assert all(np.isfinite(slope).all() for slope in of_weights.values())


@pytest.mark.parametrize("epsilon", [0.5, 0.0])
def test_batch_statistics_with_another_epsilon(rng, epsilon):
    layer = randomised(ConvBatchNorm(4, relu=False, batch_norm="trainable", epsilon=epsilon), rng)
    layer.gamma.assign(np.ones(4))
    layer.beta.assign(np.zeros(4))
    x = rng.normal(size=(2, 5, 6, 3)).astype("float32")
    conv = x @ numpy_of(layer.kernel)[0, 0]
    deviation = np.sqrt(conv.var((0, 1, 2)) + epsilon)
    expected = (conv - conv.mean((0, 1, 2))) / deviation
    np.testing.assert_allclose(numpy_of(layer(x, training=True)), expected, rtol=1e-4, atol=1e-5)


def test_negative_epsilon_is_refused():
    with pytest.raises(
        ValueError, match="`epsilon` must be a number of at least 0. Received: -1e-05"
    ):
        ConvBatchNorm(3, epsilon=-1e-5)


def test_frozen_ignores_training(rng):
    layer = randomised(ConvBatchNorm(4, 3), rng)
    x = rng.normal(size=(2, 5, 6, 3)).astype("float32")
    mean = numpy_of(layer.moving_mean)
    outputs = [numpy_of(layer(x, training=training)) for training in (True, False)]
    np.testing.assert_array_equal(*outputs)
    np.testing.assert_array_equal(numpy_of(layer.moving_mean), mean)


@pytest.mark.portable
@pytest.mark.parametrize("batch_norm", ["trainable", "synchronized"])
def test_batch_statistics_equal_those_of_keras(rng, batch_norm):
    layer = randomised(ConvBatchNorm(4, 3, relu=False, batch_norm=batch_norm), rng)
    expected = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)
    expected.build((None, None, None, 4))
    expected.set_weights(layer.get_weights()[1:])
    x = rng.normal(2, 3, size=(2, 5, 6, 3)).astype("float32")
    conv = ops.conv(x, ops.convert_to_tensor(layer.kernel), 1, "same", data_format="channels_last")
    for training in (True, False):
        np.testing.assert_allclose(
            numpy_of(layer(x, training=training)),
            numpy_of(expected(conv, training=training)),
            rtol=1e-4,
            atol=1e-4,
        )
        for ours, theirs in zip(layer.get_weights()[1:], expected.get_weights(), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@on_tensorflow
def test_fused_and_portable_batch_statistics_agree(rng):
    import tensorflow as tf

    gamma, beta = (tf.constant(rng.normal(size=4), "float32") for _ in range(2))
    x = tf.constant(rng.normal(2, 3, size=(2, 3, 5, 4)), "float32")
    cotangent = tf.constant(rng.normal(size=(2, 3, 5, 4)), "float32")
    results = []
    for function in (normalise, normalise_fused):
        with tf.GradientTape() as tape:
            tape.watch([x, gamma, beta])
            y, mean, variance = function(x, gamma, beta)
            total = tf.reduce_sum(y * cotangent)
        results.append([y, mean, variance, *tape.gradient(total, [x, gamma, beta])])
    for portable, fused in zip(*results, strict=True):
        np.testing.assert_allclose(portable, fused, rtol=1e-4, atol=1e-4)


@on_tensorflow
def test_gradients_through_the_folding(rng):
    import tensorflow as tf

    layer = randomised(ConvBatchNorm(2, 3, strides=2), rng)
    x = tf.constant(rng.normal(size=(1, 5, 6, 3)), "float32")

    def total():
        return tf.reduce_sum(layer(x) ** 2)

    with tf.GradientTape() as tape:
        value = total()
    variables = [layer.kernel, layer.gamma, layer.beta]
    for variable, gradient in zip(
        variables, tape.gradient(value, [v.value for v in variables]), strict=True
    ):
        step = np.full(variable.shape, 1e-3, "float32")  # along the diagonal
        kept = numpy_of(variable)
        variable.assign(kept + step)
        above = float(total())
        variable.assign(kept - step)
        difference = (above - float(total())) / 2e-3
        variable.assign(kept)
        assert difference == pytest.approx(float(tf.reduce_sum(gradient)), rel=2e-2, abs=0.1)


def test_variables_that_do_not_train():
    layer = ConvBatchNorm(2, train_kernel=False)
    layer.build((None, None, None, 3))
    assert [v.name for v in layer.trainable_variables] == ["gamma", "beta"]
    layer = ConvBatchNorm(2, train_affine=False)
    layer.build((None, None, None, 3))
    layer.trainable = True  # does not undo the choice
    assert [v.name for v in layer.trainable_variables] == ["kernel"]


def test_mixed_precision_folds_in_float32(rng):
    layer = ConvBatchNorm(2, relu=False, dtype="mixed_bfloat16")
    layer.build((None, None, None, 1))
    layer.kernel.assign(np.full((1, 1, 1, 2), 1e-3))
    layer.moving_variance.assign([1e-6 - 1e-7] * 2)
    layer.moving_mean.assign([257.0] * 2)  # bfloat16 has no 257
    layer.gamma.assign([1e-3] * 2)
    outputs = layer(np.zeros((1, 1, 1, 1), "float32"))
    assert keras.backend.standardize_dtype(outputs.dtype) == "bfloat16"
    expected = -257e-3 / np.sqrt(1e-6 - 1e-7 + 1e-5)
    np.testing.assert_allclose(numpy_of(ops.cast(outputs, "float32")), expected, rtol=4e-3)


def test_shape_of_odd_and_unknown_sizes():
    layer = ConvBatchNorm(2, 3, strides=2)
    assert layer(np.zeros((1, 8, 9, 3), "float32")).shape == (1, 4, 5, 2)
    assert layer.compute_output_shape((None, None, 9, 3)) == (None, None, 5, 2)


def test_config_round_trip():
    arguments = {
        "filters": 5,
        "kernel_size": 7,
        "strides": 2,
        "relu": False,
        "batch_norm": "synchronized",
        "train_kernel": False,
        "train_affine": False,
    }
    config = ConvBatchNorm(**arguments).get_config()
    assert {name: config[name] for name in arguments} == arguments
    assert ConvBatchNorm.from_config(config).get_config() == config


def test_errors():
    with pytest.raises(ValueError, match="`batch_norm` must be one of .* Received.*'batch'"):
        ConvBatchNorm(2, batch_norm="batch")
    with pytest.raises(ValueError, match="must be odd.*kernel_size=2"):
        ConvBatchNorm(2, kernel_size=2)
    with pytest.raises(ValueError, match="number of channels must be known"):
        ConvBatchNorm(2).build((None, None, None, None))


@pytest.mark.portable
@pytest.mark.parametrize("batch_norm", ["trainable", "synchronized"])
def test_an_overflow_does_not_reach_the_averages(batch_norm):
    layer = ConvBatchNorm(2, batch_norm=batch_norm)
    layer.build((None, None, None, 1))
    layer(np.full((1, 4, 4, 1), np.inf, "float32"), training=True)
    assert numpy_of(layer.moving_mean).tolist() == [0, 0]
    assert numpy_of(layer.moving_variance).tolist() == [1, 1]
