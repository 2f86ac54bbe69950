"""From files or images of any size to a detector's input, in TensorFlow's operations.

TensorFlow's own antialiased resize computes in float32 and differs by a grey level here and there,
which moves boxes. Here it is Pillow's, to the last bit: one axis, then the other; weights in
float64, then rounded to integers; sums of integers, rounded to 8 bits after each of the two passes.
"""

import functools
from typing import NamedTuple

import numpy as np
from PIL import Image

from libra_keras.typing import Tensor

STATUS = {  # of an image; every other than 0 has no detections
    0: "ok",
    1: "empty: no bytes, or no pixels",
    2: "neither JPEG nor PNG",
    3: "more pixels than max_pixels",
    4: "damaged: cannot be decoded",
    5: "pixels that are not numbers from 0 to 255",
}
OK, EMPTY, UNKNOWN, LARGE, DAMAGED, NO_PIXELS = STATUS
JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
PNG_HEADER = 33  # bytes: the signature and the first chunk, which holds the size
PRECISION = 22  # bits of a weight after the point: 8 + 22 + 2 = 32, Pillow's choice
MOST_WEIGHTS = 2**18  # of the outputs that are computed at a time, so that memory is bounded
MOST_PIXELS = 2**21  # that they are computed from


class Prepared(NamedTuple):
    """A batch of images, or one, as a detector takes it."""

    # uint8 `(B, n)`, flat: a landscape and a portrait have as many values, of other heights and
    # widths. Those of images that could not be read are black.
    pixels: Tensor
    sizes: Tensor  # int32 `(B, 2)`, height and width before padding
    original_sizes: Tensor  # int32 `(B, 2)`, height and width before resizing
    is_portrait: Tensor  # bool `(B,)`, which of the two padded sizes it is
    status: Tensor  # int32 `(B,)`, one of `STATUS`


def prepare_batch(function, items, policy):
    """Prepares each item of a batch; bad ones become black images with a status."""
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
        is_good = status == OK
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
    """Returns what `policy.fitted_size` does, for int32 `(2,)`, height and width."""
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


# Pixels are those of `read_image`, but for CMYK JPEG files: TensorFlow cuts a product that Pillow
# rounds, and half of the values are one lower. PNG files of more than a million rows or columns,
# which TensorFlow's decoder refuses, count as damaged. An EXIF orientation is not applied.
def decode(data, max_pixels):
    """Decodes a JPEG or PNG file to uint8 `(H, W, 3)`, RGB, and one of `STATUS`, never an error."""
    import tensorflow as tf

    data = tf.convert_to_tensor(data, tf.string)
    is_jpeg, is_png = (tf.strings.substr(data, 0, len(s)) == s for s in (JPEG, PNG))
    return tf.case(
        [
            (tf.strings.length(data) == 0, lambda: _nothing(EMPTY)),
            (is_jpeg, lambda: _rescued(_decode_jpeg, data, max_pixels)),
            (is_png, lambda: _rescued(_decode_png, data, max_pixels)),
        ],
        default=lambda: _nothing(UNKNOWN),
    )


def _nothing(status):
    import tensorflow as tf

    return tf.zeros((1, 1, 3), tf.uint8), tf.constant(status, tf.int32)


def _rescued(function, data, max_pixels):
    """What `function` returns, or nothing if it fails, which would fail the whole batch."""
    # Only `tf.data` goes on after an operation has failed.
    import tensorflow as tf

    items = tf.data.Dataset.from_tensors(data)
    items = items.map(lambda item: function(item, max_pixels)).ignore_errors()
    rest = tf.data.Dataset.from_tensors(_nothing(DAMAGED))
    image, status = items.concatenate(rest).take(1).get_single_element()
    return tf.ensure_shape(image, (None, None, 3)), status


def _unless_large(height, width, max_pixels, function):
    import tensorflow as tf

    is_large = tf.cast(height, tf.int64) * tf.cast(width, tf.int64) > max_pixels

    def decoded():
        return tf.ensure_shape(function(), (None, None, 3)), tf.constant(OK, tf.int32)

    return tf.cond(is_large, lambda: _nothing(LARGE), decoded)


def _decode_jpeg(data, max_pixels):
    import tensorflow as tf

    def pixels():  # the exact transform and the upscaling of colours that Pillow uses
        return tf.io.decode_jpeg(data, 3, fancy_upscaling=True, dct_method="INTEGER_ACCURATE")

    height, width, _ = tf.unstack(tf.image.extract_jpeg_shape(data))
    return _unless_large(height, width, max_pixels, pixels)


def _decode_png(data, max_pixels):
    import tensorflow as tf

    header = tf.cast(tf.io.decode_raw(tf.strings.substr(data, 0, PNG_HEADER), tf.uint8), tf.int64)
    header = tf.ensure_shape(header, (PNG_HEADER,))
    width, height = (_number(header[start : start + 4]) for start in (16, 20))
    depth, kind = header[24], header[25]
    is_deep_grey = (depth == 16) & (kind == 0)  # of other files Pillow drops the lower 8 bits

    def scaled():
        grey = tf.cast(tf.io.decode_png(data, 1, tf.uint16), tf.int32)
        return tf.repeat(tf.cast((grey + 128) // 257, tf.uint8), 3, axis=-1)

    def pixels():
        return tf.cond(is_deep_grey, scaled, lambda: tf.io.decode_png(data, 3))

    # The decoder skips chunks that it does not know, even before the header, against PNG's rules;
    # whatever stands in the header's place could claim to be small.
    is_first = tf.strings.substr(data, 12, 4) == b"IHDR"
    return tf.cond(
        is_first,
        lambda: _unless_large(height, width, max_pixels, pixels),
        lambda: _nothing(DAMAGED),
    )


def _number(digits):
    """Four bytes, the highest first, as one number."""
    import tensorflow as tf

    return tf.reduce_sum(digits * tf.constant([2**24, 2**16, 2**8, 1], tf.int64))


def resize(image, size):
    """Resizes uint8 `(H, W, C)` as `PIL.Image.Image.resize` does with `BILINEAR` (`Resample.c`)."""
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
    """Whether this Pillow resizes the height first where an image loses much more of it."""
    # Older ones resize the width first always.
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
