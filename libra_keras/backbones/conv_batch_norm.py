"""Convolution, batch normalisation and ReLU as one layer."""

import contextlib
import functools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from libra_keras.functional import native, native_gradients, replicas
from libra_keras.functional.argument_checks import check_arguments
from libra_keras.layers.channels_last import ChannelsLast
from libra_keras.ranges import NOT_NEGATIVE, whole
from libra_keras.typing import Tensor

EPSILON = 1e-5  # torch's; keras.applications uses 1.001e-5, Keras' layer 1e-3
MOMENTUM = 0.9  # share of the old moving average; torch writes the same as 0.1
SMALLEST = 1.2e-38  # the smallest normal float32; compiled code takes less for 0
BATCH_NORMS = ("frozen", "trainable", "synchronized")

_given: dict[int, Any] = {}  # kernels and biases by layer, see `folded_into`


@keras.saving.register_keras_serializable(package="libra_keras")
class ConvBatchNorm(ChannelsLast):
    """Applies a convolution without bias, then batch normalisation, then (optionally) ReLU.

    Whenever moving statistics are used, the normalisation is folded into the convolution:
    `conv(x, kernel * scale) + (beta - moving_mean * scale)` with
    `scale = gamma / sqrt(moving_variance + epsilon)`. That costs one multiplication per weight
    instead of several passes over the activations, forwards and backwards. The folding is computed
    in float32, also under mixed precision.

    Padding is symmetric, `kernel_size // 2` on each side, as in torch; Keras' `"same"` pads
    strided convolutions on the bottom and right only.

    Args:
        filters: int, number of output channels.
        kernel_size: int, odd. Defaults to 1.
        strides: int. Defaults to 1.
        relu: bool, whether ReLU follows. Defaults to `True`.
        batch_norm: `"frozen"` (moving statistics, always, and they never change), `"trainable"`
            (statistics of the batch while training) or `"synchronized"` (the same over all replicas
            of a `tf.distribute` strategy). Defaults to `"frozen"`, as detectors train with too few
            images for batch statistics. A layer that is not `trainable` is frozen in any case.
        train_kernel: bool, whether the kernel is trainable. Defaults to `True`.
        train_affine: bool, whether `gamma` and `beta` are trainable. Defaults to `True`.
        groups: int, number of groups of channels that the convolution is split into; it must divide
            both the channels of `x` and `filters`. Defaults to 1.
        epsilon: float, added to variances before the square root. With 0, a channel of variance 0
            gives `beta`. Defaults to 1e-5.
        data_format: `"channels_last"`, or `None` for Keras' setting, under which the layer cannot
            be built if that is `"channels_first"`.

    Call arguments:
        x: `(B, H, W, C)`. H and W may be unknown.
        training: bool, whether to use (and average) the statistics of the batch; without effect
            if `batch_norm="frozen"`.

    Returns:
        `(B, ceil(H / strides), ceil(W / strides), filters)`.

    Raises:
        ValueError: if `batch_norm` is not one of the three, `kernel_size` is even, `groups` do not
            divide the channels, `epsilon` is negative, or the layer is called with a different
            number of channels than it was built for, or with non-floats.

    Example:

    >>> import numpy as np
    >>> from libra_keras.backbones import ConvBatchNorm
    >>> layer = ConvBatchNorm(8, kernel_size=3, strides=2)
    >>> tuple(layer(np.ones((1, 7, 10, 3), "float32")).shape)
    (1, 4, 5, 8)

    Reference: [Ioffe and Szegedy, 2015](https://arxiv.org/abs/1502.03167), algorithm 2. Differs
    from torch: the moving variance averages the biased variance of a batch, as Keras' layer does.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int = 1,
        strides: int = 1,
        relu: bool = True,
        batch_norm: str = "frozen",
        train_kernel: bool = True,
        train_affine: bool = True,
        groups: int = 1,
        epsilon: float = EPSILON,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if batch_norm not in BATCH_NORMS:
            raise ValueError(
                f"`batch_norm` must be one of {BATCH_NORMS}. Received: batch_norm={batch_norm!r}"
            )
        filters = whole(1).check("`filters`", filters)
        kernel_size = whole(1).check("`kernel_size`", kernel_size)
        if kernel_size % 2 == 0:
            raise ValueError(
                "`kernel_size` must be odd, so that padding can be symmetric. "
                f"Received: kernel_size={kernel_size}"
            )
        groups = whole(1).check("`groups`", groups)
        check_groups(groups, "filters", filters)
        check_epsilon(epsilon)
        self.filters = filters
        self.kernel_size = kernel_size
        self.strides = whole(1).check("`strides`", strides)
        self.relu = relu
        self.batch_norm = batch_norm
        self.train_kernel = train_kernel
        self.train_affine = train_affine
        self.groups = groups
        self.epsilon = epsilon
        self.initial_values: dict[str, np.ndarray] = {}

    def build(self, input_shape: Sequence[int | None]) -> None:
        super().build(input_shape)
        size, channels = self.kernel_size, input_shape[-1]
        if channels is None:
            raise ValueError(
                f"The number of channels must be known. Received: input_shape={input_shape}"
            )
        check_groups(self.groups, "channels", channels)
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={-1: channels}, name="x")
        # He et al., 2015: keeps the variance of gradients through ReLU, as the reference does.
        normal = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
        shape = (size, size, channels // self.groups, self.filters)
        vector = (self.filters,)
        self.kernel = self._add("kernel", shape, normal, self.train_kernel)
        self.gamma = self._add("gamma", vector, "ones", self.train_affine)
        self.beta = self._add("beta", vector, "zeros", self.train_affine)
        self.moving_mean = self._add("moving_mean", vector, "zeros", False)
        self.moving_variance = self._add("moving_variance", vector, "ones", False)
        self.initial_values = {}

    def _add(self, name, shape, initializer, trainable):
        if name in self.initial_values:
            initializer = constant(self.initial_values[name])
        # Without autocasting, mixed precision leaves the maths of folding in float32.
        return self.add_weight(
            name=name, shape=shape, initializer=initializer, trainable=trainable, autocast=False
        )

    def call(self, x: Tensor, training: bool | None = None) -> Tensor:
        check_arguments({"x float": x})
        # As Keras' own layer does: what is not trained keeps its statistics too.
        if training and self.batch_norm != "frozen" and self.trainable:
            return self._activated(self._normalise_with_batch(self._convolve(x, self.kernel)))

        def convolve(kernel, bias):
            bias = ops.cast(bias, x.dtype)
            return self._activated(native.add_bias(self._convolve(x, kernel), bias))

        kernel, bias = given(self) or self.folded()
        if training or self.groups > 1:
            return convolve(kernel, bias)
        return native.by_filters(convolve, x, kernel, bias)

    def _activated(self, x):
        return ops.relu(x) if self.relu else x

    def folded(self) -> tuple[Tensor, Tensor]:
        """Returns the float32 kernel and bias of the one convolution that this layer is in use."""
        scale = self.gamma * inverse_deviation(self.moving_variance, self.epsilon)
        return self.kernel * scale, self.beta - self.moving_mean * scale

    def _convolve(self, x, kernel):
        pad, strides = self.kernel_size // 2, self.strides
        if self.kernel_size == 1 and strides > 1 and kernel.shape[2] < 16:
            # The same numbers. With so few channels, oneDNN's gradient of such a kernel writes out
            # of bounds on CPUs; with more, leaving pixels out beforehand would cost a copy.
            x, strides = x[:, ::strides, ::strides], 1
        kernel = ops.cast(kernel, x.dtype)
        if strides == 1:  # "same" is symmetric here and saves a copy of the activations
            padding = "same"
        elif pad and native.enabled() and (self.groups == 1 or has_gradient(x.dtype.name)):
            return native_gradients.padded_conv(x, kernel, strides, pad)
        else:
            padding = "valid"
            x = ops.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0))) if pad else x
        if self.groups > 1:
            return grouped_conv(x, kernel, strides, padding)
        return ops.conv(x, kernel, strides, padding, data_format="channels_last")

    def _normalise_with_batch(self, x):
        if self.batch_norm == "synchronized":
            x, mean, variance = normalise(x, self.gamma, self.beta, self.epsilon, synchronized=True)
        else:
            x, mean, variance = normalise_fused(x, self.gamma, self.beta, self.epsilon)
        for average, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            value = ops.cast(ops.stop_gradient(value), average.dtype)
            # An overflow must not outlive its batch: the optimizer skips such an update, and an
            # average that has met NaN once stays NaN.
            kept = ops.convert_to_tensor(average)  # JAX takes no variable here
            value = ops.where(ops.isfinite(value), value, kept)
            average.assign(average * MOMENTUM + value * (1.0 - MOMENTUM))
        return x

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        batch, *sizes, _ = input_shape
        return (batch, *(divide_up(size, self.strides) for size in sizes), self.filters)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "relu": self.relu,
            "batch_norm": self.batch_norm,
            "train_kernel": self.train_kernel,
            "train_affine": self.train_affine,
            "groups": self.groups,
            "epsilon": self.epsilon,
        }


def check_groups(groups, name, value):
    """Raises a ValueError unless `groups` divides the number of channels called `name`."""
    if groups < 1 or value % groups:
        raise ValueError(
            f"`groups` must divide the number of {name}. Received: groups={groups}, {name}={value}"
        )


def check_epsilon(epsilon):
    """Raises an error if `epsilon` is negative or no number."""
    NOT_NEGATIVE.check("`epsilon`", epsilon)


def inverse_deviation(variance, epsilon):
    """`1 / sqrt(variance + epsilon)`; 0 where that would divide by 0."""
    if epsilon > 0:
        return ops.rsqrt(variance + epsilon)
    # Such a channel is constant: what is left of it, whatever its scale, is `beta`.
    variance = ops.convert_to_tensor(variance)  # JAX's `where` takes no variable
    positive = variance > SMALLEST
    return ops.where(positive, ops.rsqrt(ops.where(positive, variance, 1.0)), 0.0)


def divide_up(size, divisor):
    """`ceil(size / divisor)` of an int; an unknown size (`None`) stays unknown."""
    return None if size is None else -(-size // divisor)


def constant(values):
    """An initializer that gives the array `values`, after checking the shape asked for."""

    def initializer(shape, dtype=None):
        if tuple(shape) != values.shape:
            raise ValueError(f"Expected values of shape {tuple(shape)}. Received: {values.shape}")
        return ops.convert_to_tensor(values, dtype)

    return initializer


def normalise(x, gamma, beta, epsilon=EPSILON, synchronized=False):
    """Normalises `x` with its own statistics; returns it, their mean and biased variance `(C,)`."""
    # In two passes: the difference of two means loses digits.
    values, gamma, beta = (ops.cast(each, "float32") for each in (x, gamma, beta))
    # JAX sees one global batch: its statistics are synchronized without being asked. With PyTorch
    # a batch is on one device.
    if synchronized and keras.backend.backend() == "tensorflow":
        mean, variance = _global_moments(values)
    else:
        mean = ops.mean(values, axis=(0, 1, 2))
        variance = ops.mean(ops.square(values - mean), axis=(0, 1, 2))
    scale = gamma * inverse_deviation(variance, epsilon)
    return ops.cast(values * scale + (beta - mean * scale), x.dtype), mean, variance


def _global_moments(values):
    """Mean (C,) and biased variance (C,) of the images of all replicas."""
    weight = replicas.presence()
    count = ops.cast(ops.prod(ops.shape(values)[:3]), "float32") * weight
    own = ops.concatenate([ops.sum(values, axis=(0, 1, 2)) * weight, ops.reshape(count, (1,))])
    total = replicas.sum_over_replicas(own)
    mean, count = total[:-1] / total[-1], total[-1]
    squares = ops.sum(ops.square(values - mean), axis=(0, 1, 2)) * weight
    return mean, replicas.sum_over_replicas(squares) / count


def normalise_fused(x, gamma, beta, epsilon=EPSILON):
    """The same as `normalise` on one replica, with TensorFlow's fused kernel where there is one."""
    # The kernel takes no smaller epsilon; it would raise it and not say so.
    is_fused = epsilon >= EPSILON and keras.backend.standardize_dtype(x.dtype) != "float64"
    if keras.backend.backend() != "tensorflow" or not is_fused:
        return normalise(x, gamma, beta, epsilon)
    import tensorflow as tf

    gamma, beta = ops.cast(gamma, "float32"), ops.cast(beta, "float32")
    y, mean, variance = tf.compat.v1.nn.fused_batch_norm(
        x, gamma, beta, epsilon=epsilon, is_training=True
    )
    num = ops.cast(tf.size(x) // tf.shape(x)[-1], "float32")
    return y, mean, variance * (num - 1.0) / num  # the kernel returns the unbiased variance


def grouped_conv(x, kernel, strides=1, padding="same"):
    """Convolves G groups of channels, with a kernel `(h, w, C / G, F)`, and joins the results."""
    if keras.backend.backend() != "tensorflow":
        return ops.conv(x, kernel, strides, padding, data_format="channels_last")
    import tensorflow as tf

    x, kernel = ops.convert_to_tensor(x), ops.convert_to_tensor(kernel)
    # `keras.ops.conv` compiles grouped kernels with XLA here, whose gradient on a CPU takes a
    # hundred times longer.
    if has_gradient(x.dtype.name):
        return tf.nn.conv2d(x, kernel, strides, padding.upper())
    return convolve_each_group(x, kernel, strides, padding)


def convolve_each_group(x, kernel, strides, padding):
    """The same as `grouped_conv`, as G convolutions."""
    num = x.shape[-1] // kernel.shape[2]
    pairs = zip(ops.split(x, num, axis=-1), ops.split(kernel, num, axis=-1), strict=True)
    parts = [ops.conv(*pair, strides, padding, data_format="channels_last") for pair in pairs]
    return ops.concatenate(parts, axis=-1)


@functools.cache
def has_gradient(dtype):
    """Whether TensorFlow differentiates grouped convolutions of this dtype: an attempt tells."""
    # It depends on the device, the build of TensorFlow, and `TF_ENABLE_ONEDNN_OPTS`: on GPUs it
    # does, and on CPUs with oneDNN for float32 and bfloat16.
    import tensorflow as tf

    with tf.init_scope():  # eagerly, also while a graph is being traced
        x, kernel = tf.ones((1, 1, 1, 2), dtype), tf.ones((1, 1, 1, 2), dtype)
        try:
            with tf.GradientTape() as tape:
                tape.watch([x, kernel])
                y = tf.nn.conv2d(x, kernel, 1, "SAME")
            tape.gradient(y, [x, kernel])
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError):
            return False
    return True


@contextlib.contextmanager
def folded_into(values):
    """Within this context layers convolve with the given `(kernel, bias)`, not their weights."""
    # For export: a graph that is traced here holds neither statistics nor the arithmetic of
    # folding. The switch is one for the whole process.
    own = {id(layer): pair for layer, pair in values.items()}
    _given.update(own)
    try:
        yield
    finally:
        for key in own:
            del _given[key]


def given(layer):
    """The kernel and bias that `folded_into` gave a layer, or `None`."""
    return _given.get(id(layer))
