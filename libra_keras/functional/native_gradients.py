"""TensorFlow operations whose own gradients would keep more of the forward pass than they need."""

import contextlib

import keras


def after(*tensors):
    """Context in which what is added to a graph of TensorFlow waits for tensors.

    TensorFlow computes what it can as soon as it can. What a gradient or an update reads of the
    forward pass alone would be computed there, and take memory until its turn.
    """
    if keras.backend.backend() != "tensorflow":
        return contextlib.nullcontext()
    import tensorflow as tf

    return tf.control_dependencies(tensors)


def padded_conv(x, kernel, strides, pad):
    """A convolution with `pad` zeros on all sides, whose gradient keeps `x` and no padded copy."""
    import tensorflow as tf

    paddings = [[0, 0], [pad, pad], [pad, pad], [0, 0]]

    @tf.custom_gradient
    def convolve(x, kernel):
        def gradient(upstream):
            with after(upstream):
                padded = tf.pad(x, paddings)
            shared = {"out_backprop": upstream, "strides": [1, strides, strides, 1]}
            of_padded = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=tf.shape(padded), filter=kernel, padding="VALID", **shared
            )
            of_kernel = tf.raw_ops.Conv2DBackpropFilter(
                input=padded, filter_sizes=tf.shape(kernel), padding="VALID", **shared
            )
            return of_padded[:, pad:-pad, pad:-pad], of_kernel

        # TensorFlow's own gradient of explicit padding is 30 times as slow in bfloat16 on CPUs.
        return tf.nn.conv2d(x, kernel, strides, paddings), gradient

    return convolve(tf.convert_to_tensor(x), tf.convert_to_tensor(kernel))


def largest(x, axis):
    """`ops.max` along an axis, whose gradient keeps a byte of each element, not `x`."""
    import tensorflow as tf

    @tf.custom_gradient
    def maxima(x):
        values = tf.reduce_max(x, axis, keepdims=True)
        is_largest = tf.equal(x, values)

        def gradient(upstream):
            upstream = tf.expand_dims(upstream, axis)
            with after(upstream):
                share = tf.cast(is_largest, upstream.dtype)
            # None equals a maximum that is NaN.
            count = tf.maximum(tf.reduce_sum(share, axis, keepdims=True), 1)
            return share * (upstream / count)

        return tf.squeeze(values, axis), gradient

    return maxima(tf.convert_to_tensor(x))
