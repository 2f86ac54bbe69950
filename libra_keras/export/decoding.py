"""From the bytes of a file to pixels, in TensorFlow's operations: what `read_image` gives."""

STATUS = {  # of an image; every other than 0 has no detections
    0: "ok",
    1: "empty: no bytes, or no pixels",
    2: "neither JPEG nor PNG",
    3: "more pixels than max_pixels",
    4: "damaged: cannot be decoded",
    5: "pixels that are no numbers from 0 to 255",
}
OK, EMPTY, UNKNOWN, LARGE, DAMAGED, NO_PIXELS = STATUS
JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
PNG_HEADER = 33  # bytes: the signature and the first chunk, which holds the size


def decode(data, max_pixels):
    """Decodes a JPEG or PNG file; what is wrong with it becomes a number, not an error.

    Height and width are read from the header first. Grey images get three equal channels, an alpha
    channel is dropped, the 16 bits of grey PNG files are scaled to 8. An EXIF orientation is not
    applied. Pixels are those of `read_image`, but for CMYK JPEG files: TensorFlow cuts a product
    that Pillow rounds, and half of the values are one lower. PNG files of more than a million rows
    or columns, which TensorFlow's decoder refuses, count as damaged.

    Args:
        data: scalar string tensor.
        max_pixels: int; larger images are not decoded.

    Returns:
        uint8 `(H, W, 3)`, RGB, and the int32 status, one of `STATUS`. Where that is not 0, the
        image is a single black pixel.

    Example:

    >>> from libra_keras.export.decoding import STATUS, decode
    >>> import tensorflow as tf
    >>> image, status = decode(tf.constant(b"GIF89a"), max_pixels=100)
    >>> image.shape.as_list(), STATUS[int(status)]
    ([1, 1, 3], 'neither JPEG nor PNG')
    """
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
    """What `function` returns, or nothing if it fails, which would fail the whole batch.

    Only `tf.data` goes on after an operation has failed.
    """
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
