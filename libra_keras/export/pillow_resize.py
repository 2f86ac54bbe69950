"""Pillow's antialiased bilinear resize, to the last bit, in TensorFlow's operations.

TensorFlow's own antialiased resize computes in float32 and differs by a grey level here and there,
which moves boxes. Here, as in Pillow: one axis, then the other; weights in float64, then
rounded to integers of 22 bits; sums of integers, rounded to 8 bits after each of the two passes.
"""

import functools

import numpy as np
from PIL import Image

PRECISION = 22  # bits of a weight after the point: 8 + 22 + 2 = 32, Pillow's choice
MOST_WEIGHTS = 2**18  # of the outputs that are computed at a time, so that memory is bounded
MOST_PIXELS = 2**21  # that they are computed from


def resize(image, size):
    """Resizes an image as `PIL.Image.Image.resize` does with `BILINEAR`.

    Args:
        image: uint8 `(H, W, C)`, not empty.
        size: int32 `(2,)`, height and width wanted, positive.

    Returns:
        uint8 `(height, width, C)`.

    Example:

    >>> from libra_keras.export.pillow_resize import resize
    >>> import tensorflow as tf
    >>> image = tf.constant([[[0], [0], [90], [30]]], tf.uint8)
    >>> resize(image, [1, 2])[0, :, 0].numpy().tolist()
    [13, 51]

    Reference: Pillow's `Resample.c`.
    """
    import tensorflow as tf

    height, width = tf.unstack(tf.convert_to_tensor(size, tf.int32))
    less_high, less_wide = tf.shape(image)[0] - height, tf.shape(image)[1] - width
    if pillow_chooses_order():
        height_first = (less_high > 0) & (less_high > 2 * less_wide)
    else:
        height_first = tf.constant(False)
    return tf.cond(
        height_first,
        lambda: _with_width(_with_height(image, height), width),
        lambda: _with_height(_with_width(image, width), height),
    )


@functools.cache
def pillow_chooses_order():
    """Whether this Pillow resizes the height first where an image loses much more of it.

    Older ones resize the width first always.
    """
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 8)).astype("uint8"))
    kernel = Image.Resampling.BILINEAR
    width_first = noise.resize((16, 64), kernel).resize((16, 8), kernel)
    return noise.resize((16, 8), kernel).tobytes() != width_first.tobytes()


def _with_height(image, height):
    import tensorflow as tf

    is_right = height == tf.shape(image)[0]
    return tf.cond(is_right, lambda: image, lambda: _resized_rows(image, height))


def _with_width(image, width):
    import tensorflow as tf

    def resized():
        return _swapped(_resized_rows(_swapped(image), width))

    return tf.cond(width == tf.shape(image)[1], lambda: image, resized)


def _swapped(image):
    import tensorflow as tf

    return tf.transpose(image, (1, 0, 2))


def _resized_rows(image, wanted):
    """Resizes the first axis, some outputs at a time."""
    import tensorflow as tf

    channels = image.shape[2]
    size, others = tf.unstack(tf.shape(image)[:2])
    rows = tf.reshape(image, tf.stack([size, others * channels]))
    scale = tf.cast(size, tf.float64) / tf.cast(wanted, tf.float64)
    step = _outputs_at_a_time(scale, others * channels)
    count = (wanted + step - 1) // step
    parts = tf.TensorArray(tf.uint8, count, infer_shape=False, element_shape=(None, None))

    def again(i, parts):
        block = tf.range(i * step, tf.minimum(wanted, (i + 1) * step))
        return i + 1, parts.write(i, _weighted_sums(rows, scale, block))

    parts = tf.while_loop(lambda i, _: i < count, again, (0, parts), parallel_iterations=4)[1]
    return tf.reshape(parts.concat(), tf.stack([wanted, others, channels]))


def _outputs_at_a_time(scale, row_length):
    import tensorflow as tf

    by_weights = MOST_WEIGHTS / (2.0 * scale + 3.0)
    by_pixels = MOST_PIXELS / (scale * tf.cast(row_length, tf.float64))
    return tf.maximum(1, tf.cast(tf.minimum(tf.minimum(by_weights, by_pixels), 2.0**20), tf.int32))


def _weighted_sums(rows, scale, outputs):
    """Outputs `(n,)` as uint8 `(n, R)` from the rows `(N, R)` that they cover."""
    import tensorflow as tf

    places, weights = _weights(tf.shape(rows)[0], scale, outputs)
    used = tf.where(weights > 0)
    places, weights = tf.gather_nd(places, used), tf.gather_nd(weights, used)
    start, stop = tf.reduce_min(places), tf.reduce_max(places) + 1
    sums = tf.raw_ops.SparseTensorDenseMatMul(
        a_indices=tf.stack([used[:, 0], tf.cast(places - start, tf.int64)], axis=1),
        a_values=weights,
        a_shape=tf.cast(tf.stack([tf.size(outputs), stop - start]), tf.int64),
        b=tf.cast(rows[start:stop], tf.int32),
    )
    sums = tf.bitwise.right_shift(sums + 2 ** (PRECISION - 1), PRECISION)
    return tf.cast(tf.minimum(sums, 255), tf.uint8)


def _weights(size, scale, outputs):
    """Which of `size` inputs each output covers, and with what integer weight; both `(n, T)`."""
    import tensorflow as tf

    reach = tf.maximum(scale, 1.0)  # of the triangle to each side, in inputs
    centers = ((tf.cast(outputs, tf.float64) + 0.5) * scale)[:, None]
    start = tf.maximum(tf.cast(centers - reach + 0.5, tf.int32), 0)
    stop = tf.minimum(tf.cast(centers + reach + 0.5, tf.int32), size)
    places = start + tf.range(tf.reduce_max(stop - start))
    distances = tf.abs((tf.cast(places, tf.float64) - centers + 0.5) * (1.0 / reach))
    weights = tf.where(places < stop, tf.maximum(1.0 - distances, 0.0), 0.0)
    weights /= tf.reduce_sum(weights, axis=1, keepdims=True)
    return places, tf.cast(weights * 2.0**PRECISION + 0.5, tf.int32)
