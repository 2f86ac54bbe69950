"""Convolution of groups of channels, each with filters of its own."""

import functools

import keras
from keras import ops


def grouped_conv(x, kernel, strides=1, padding="same"):
    """Convolves G groups of channels separately, and joins the results.

    On TensorFlow this is one operation where its gradient exists: on GPUs, and on CPUs with oneDNN
    for float32 and bfloat16. Elsewhere each group is convolved by itself. (`keras.ops.conv`
    compiles grouped kernels with XLA there, whose gradient on a CPU takes a hundred times longer.)

    Args:
        x: float tensor `(B, H, W, C)`.
        kernel: float tensor `(h, w, C / G, F)` of the dtype of `x`; G must divide F.
        strides: int.
        padding: `"same"` or `"valid"`.

    Returns:
        Float tensor `(B, H', W', F)`; the first `F / G` channels come from the first group.

    Example:

    >>> import numpy as np
    >>> from libra_keras.backbones.grouped_conv import grouped_conv
    >>> x = np.array([1, 2, 3, 4], "float32").reshape(1, 1, 1, 4)
    >>> kernel = np.ones((1, 1, 2, 2), "float32")  # two groups of two channels, one filter each
    >>> grouped_conv(x, kernel)[0, 0, 0].numpy().tolist()
    [3.0, 7.0]

    Reference: [Xie et al., 2017](https://arxiv.org/abs/1611.05431), figure 3c.
    """
    if keras.backend.backend() != "tensorflow":
        return ops.conv(x, kernel, strides, padding, data_format="channels_last")
    import tensorflow as tf

    x, kernel = ops.convert_to_tensor(x), ops.convert_to_tensor(kernel)
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
    """Whether TensorFlow differentiates grouped convolutions of this dtype on this machine.

    Nothing tells but an attempt: it depends on the device, on how TensorFlow was built, and on the
    environment variable `TF_ENABLE_ONEDNN_OPTS`.
    """
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
