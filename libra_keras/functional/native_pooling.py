"""RoIAlign's sums in TensorFlow: as a sparse matrix on CPUs, tap by tap on GPUs.

Twins of `roi_taps.weighted_sum`, see `native`.
"""

from libra_keras.functional.argument_checks import check_arguments


def sparse_pooling(source, taps):
    """Weighted sums of rows of `source` as one sparse matrix product; see `roi_taps.Taps`.

    The matrix has a row per output bin and a column per cell of the pyramid. Its transpose gives
    the gradient, each cell summed by one thread: repeatable to the last bit. (The CPU gradient of
    `tf.image.crop_and_resize` lets threads add to the same cell without a lock and loses some.)

    Args:
        source: float tensor `(cells, C)`.
        taps: `roi_taps.Taps` of R boxes and S x S bins.

    Returns:
        float32 tensor `(R, S, S, C)`. No gradient reaches the weights.

    Raises:
        ValueError: if `source` has another shape, or holds no floats.

    Example:

    >>> from keras import ops
    >>> from libra_keras.functional import native_pooling, roi_taps
    >>> cells = ops.tile(ops.arange(8, dtype="float32")[:, None], (8, 1))  # each holds its column
    >>> boxes = ops.convert_to_tensor([[[8.0, 0.0, 40.0, 64.0]]])  # columns 1 to 4 of stride 8
    >>> levels, sizes = ops.zeros((1, 1), "int32"), ops.convert_to_tensor([[8, 8]])
    >>> taps = roi_taps.find_taps(boxes, levels, sizes, (8,), 2, 2, True, 16)
    >>> ops.convert_to_numpy(native_pooling.sparse_pooling(cells, taps))[0, 0, :, 0].tolist()
    [1.5, 3.5]
    """
    import tensorflow as tf

    check_arguments({"source (cells, C) float": source})
    num_boxes, size = tf.shape(taps.rows)[0], taps.rows.shape[1]
    bins, cells, weights = _dense_entries(taps) if taps.num_rows is None else _used_entries(taps)
    indices = tf.cast(tf.stack([bins, cells], axis=-1), tf.int64)
    source = tf.cast(source, tf.float32)
    shape = tf.cast(tf.stack([num_boxes * size * size, tf.shape(source)[0]]), tf.int64)

    @tf.custom_gradient
    def product(source):
        matrix = tf.raw_ops.SparseTensorToCSRSparseMatrix(
            indices=indices, values=weights, dense_shape=shape
        )

        def gradient(upstream):
            transposed = tf.raw_ops.SparseMatrixTranspose(input=matrix, type=tf.float32)
            return tf.raw_ops.SparseMatrixMatMul(a=transposed, b=upstream)

        return tf.raw_ops.SparseMatrixMatMul(a=matrix, b=source), gradient

    return tf.reshape(product(source), (-1, size, size, source.shape[-1]))


def looped_pooling(source, taps):
    """The sums of `sparse_pooling` tap by tap: what a GPU does, in the memory of two taps.

    The gradient is a loop of its own. That of TensorFlow would keep what each tap has read, the
    size of the result up to 289 times.

    Args:
        source, taps: as in `sparse_pooling`.

    Returns:
        float32 tensor `(R, S, S, C)`. No gradient reaches the weights.

    Raises:
        ValueError: if `source` has another shape, or holds no floats.

    Example:

    >>> from keras import ops
    >>> from libra_keras.functional import native_pooling, roi_taps
    >>> cells = ops.tile(ops.arange(8, dtype="float32")[:, None], (8, 1))  # each holds its column
    >>> boxes = ops.convert_to_tensor([[[8.0, 0.0, 40.0, 64.0]]])  # columns 1 to 4 of stride 8
    >>> levels, sizes = ops.zeros((1, 1), "int32"), ops.convert_to_tensor([[8, 8]])
    >>> taps = roi_taps.find_taps(boxes, levels, sizes, (8,), 2, 2, True, 16)
    >>> ops.convert_to_numpy(native_pooling.looped_pooling(cells, taps))[0, 0, :, 0].tolist()
    [1.5, 3.5]
    """
    import tensorflow as tf

    check_arguments({"source (cells, C) float": source})
    source = tf.cast(source, tf.float32)
    num_cells, channels = tf.shape(source)[0], source.shape[-1]
    across = _largest(taps.num_columns, taps.columns.shape[-1])
    count = _largest(taps.num_rows, taps.rows.shape[-1]) * across

    def entries(tap):
        y, x = tap // across, tap % across
        rows, columns = tf.gather(taps.rows, y, axis=-1), tf.gather(taps.columns, x, axis=-1)
        row_weights = tf.gather(taps.row_weights, y, axis=-1)
        column_weights = tf.gather(taps.column_weights, x, axis=-1)
        weights = row_weights[:, :, None] * column_weights[:, None, :]
        return rows[:, :, None] + columns[:, None, :], weights[..., None]

    def total(term, start):
        def add(tap, before):
            return tap + 1, before + term(*entries(tap))

        loop = (lambda tap, _: tap < count), add, (0, start)
        return tf.while_loop(*loop, parallel_iterations=1)[1]

    @tf.custom_gradient
    def pooled(source):
        def gradient(upstream):
            def scattered(cells, weights):
                values = tf.reshape(upstream * weights, [-1, channels])
                return tf.math.unsorted_segment_sum(values, tf.reshape(cells, [-1]), num_cells)

            return total(scattered, tf.zeros_like(source))

        bins = tf.concat([tf.shape(taps.rows)[:2], tf.shape(taps.columns)[1:2], [channels]], 0)
        return total(lambda cells, weights: tf.gather(source, cells) * weights, tf.zeros(bins)), (
            gradient
        )

    size = taps.rows.shape[1]
    return tf.reshape(pooled(source), (-1, size, size, channels))


def _largest(counts, width):
    """The most taps that any box uses along an axis; all `width` where that is not counted."""
    import tensorflow as tf

    return width if counts is None else tf.reduce_max(tf.concat([counts, [0]], 0))


def _dense_entries(taps):
    """Bin, cell and weight of all T x T taps of every bin, in the order of the bins."""
    import tensorflow as tf

    weights = taps.row_weights[:, :, None, :, None] * taps.column_weights[:, None, :, None, :]
    cells = taps.rows[:, :, None, :, None] + taps.columns[:, None, :, None, :]
    per_bin = taps.rows.shape[-1] ** 2
    num_bins = tf.shape(taps.rows)[0] * taps.rows.shape[1] ** 2
    bins = tf.broadcast_to(tf.range(num_bins)[:, None], [num_bins, per_bin])
    return tf.reshape(bins, [-1]), tf.reshape(cells, [-1]), tf.reshape(weights, [-1])


def _used_entries(taps):
    """As `_dense_entries`, but only the first `num_rows * num_columns` taps of each bin.

    Most boxes need few of the T taps per axis; listing just those keeps the matrix small.
    """
    import tensorflow as tf

    num_boxes, (size, width) = tf.shape(taps.rows)[0], taps.rows.shape[1:]
    box, i, j = tf.meshgrid(tf.range(num_boxes), tf.range(size), tf.range(size), indexing="ij")
    num_columns = tf.gather(taps.num_columns, box)
    lengths = tf.reshape(tf.gather(taps.num_rows, box) * num_columns, [-1])
    ends = tf.cumsum(lengths)
    total = tf.reduce_sum(lengths)
    # Every bin has at least one entry, so the ends of all but the last are distinct places.
    steps = tf.scatter_nd(ends[:-1, None], tf.ones_like(ends[:-1]), [total])
    bins = tf.cumsum(steps)

    first_row, first_column = (box * size + i) * width, (box * size + j) * width
    table = [tf.reshape(x, [-1]) for x in (num_columns, first_row, first_column)]
    table = tf.gather(tf.stack([*table, ends - lengths], axis=-1), bins)  # one gather, not four
    num_columns, first_row, first_column, begin = tf.unstack(table, axis=-1)
    offset = tf.range(total) - begin
    row = offset // num_columns
    column = offset - row * num_columns
    row, column = first_row + row, first_column + column

    def pick(values, places):
        return tf.gather(tf.reshape(values, [-1]), places)

    cells = pick(taps.rows, row) + pick(taps.columns, column)
    return bins, cells, pick(taps.row_weights, row) * pick(taps.column_weights, column)
