"""From images of any size to a detector's input, in TensorFlow's operations."""

from typing import NamedTuple

from libra_keras.export import decoding
from libra_keras.export.pillow_resize import resize


class Prepared(NamedTuple):
    """A batch of images, or one, as a detector takes it.

    Attributes:
        pixels: uint8 `(B, n)`, the resized and padded images, flat: a landscape and a portrait
            have the same number of values, but other heights and widths.
        sizes: int32 `(B, 2)`, height and width before padding.
        original_sizes: int32 `(B, 2)`, height and width before resizing.
        is_portrait: bool `(B,)`, which of the two padded sizes it is.
        status: int32 `(B,)`, one of `decoding.STATUS`; the pixels of other than 0 are black.

    Example:

    >>> from libra_keras.export.preparing import Prepared
    >>> Prepared._fields
    ('pixels', 'sizes', 'original_sizes', 'is_portrait', 'status')
    """

    pixels: object
    sizes: object
    original_sizes: object
    is_portrait: object
    status: object


def prepare_batch(function, items, policy):
    """Prepares each item of a batch; bad ones become black images with a status.

    Args:
        function: from an item to a uint8 image `(H, W, 3)` and its status.
        items: tensor `(B, ...)`; B may be 0.
        policy: `InputPolicy`.

    Returns:
        `Prepared`.

    Example:

    >>> import tensorflow as tf
    >>> from libra_keras.data import InputPolicy
    >>> from libra_keras.export.preparing import prepare_batch
    >>> def opened(image):
    ...     return image, tf.constant(0)
    >>> images = tf.zeros((2, 30, 20, 3), tf.uint8)
    >>> found = prepare_batch(opened, images, InputPolicy(64, 96))
    >>> found.sizes.numpy().tolist(), found.is_portrait.numpy().tolist()
    ([[96, 64], [96, 64]], [True, True])
    """
    import tensorflow as tf

    height, width = policy.bucket_size(1, 1)
    num = height * width * 3
    specs = Prepared(
        tf.TensorSpec((num,), tf.uint8),
        tf.TensorSpec((2,), tf.int32),
        tf.TensorSpec((2,), tf.int32),
        tf.TensorSpec((), tf.bool),
        tf.TensorSpec((), tf.int32),
    )

    def each(item):
        image, status = function(item)
        nothing = Prepared(
            tf.zeros((num,), tf.uint8), tf.ones(2, tf.int32), tf.ones(2, tf.int32), False, status
        )
        is_good = status == decoding.OK
        return tf.cond(is_good, lambda: _prepare(image, status, policy), lambda: nothing)

    # Two at a time: a server runs several requests at once, and large images take much memory.
    # A GPU would not help with integers, and lacks some of the operations.
    with tf.device("/CPU:0"):
        return tf.map_fn(each, items, fn_output_signature=specs, parallel_iterations=2)


def _prepare(image, status, policy):
    import tensorflow as tf

    original_size = tf.shape(image)[:2]
    is_portrait = original_size[0] > original_size[1]
    size = fitted_size(original_size, policy)
    bucket = tf.where(is_portrait, policy.bucket_size(2, 1), policy.bucket_size(1, 1))
    missing = tf.concat([bucket - size, [0]], axis=0)
    padded = tf.pad(resize(image, size), tf.stack([tf.zeros_like(missing), missing], axis=1))
    pixels = tf.reshape(padded, [policy.bucket_size(1, 1)[0] * policy.bucket_size(1, 1)[1] * 3])
    return Prepared(pixels, size, original_size, is_portrait, status)


def fitted_size(size, policy):
    """Returns what `policy.fitted_size` does, for tensors.

    Args:
        size: int32 `(2,)`, height and width.
        policy: `InputPolicy`.

    Returns:
        int32 `(2,)`.

    Example:

    >>> from libra_keras.data import InputPolicy
    >>> from libra_keras.export.preparing import fitted_size
    >>> fitted_size([480, 640], InputPolicy(800, 1333)).numpy().tolist()
    [800, 1067]
    """
    import tensorflow as tf

    # Of PyTorch, whose numbers "down" are, in float32, and a reciprocal, then a product.
    dtype = tf.float32 if policy.rounding == "down" else tf.float64
    sides = tf.cast(size, dtype)
    ordered = tf.stack([tf.reduce_max(sides), tf.reduce_min(sides)])
    ends = tf.constant([policy.long_side, policy.short_side], dtype)
    if policy.rounding == "down":
        fitted = tf.floor(sides * tf.reduce_min(1.0 / ordered * ends))
    else:
        fitted = sides * tf.reduce_min(ends / ordered) + 0.5
    return tf.maximum(1, tf.cast(fitted, tf.int32))
