"""The one place for TensorFlow-specific twins of portable code.

Everything in `functional` is written in `keras.ops`. Where TensorFlow does the same arithmetic much
faster in another way, that way lives here, and a test holds both equal. `portable()` switches the
twins off. TensorFlow is imported only when it is the backend.
"""

import contextlib
import functools
from collections.abc import Callable, Hashable, Iterator
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from libra_keras.functional.argument_checks import check_arguments
from libra_keras.typing import Tensor

if TYPE_CHECKING:  # it imports this module
    from libra_keras.functional.roi_align import Taps

_portable_depth = 0


@contextlib.contextmanager
def portable() -> Iterator[None]:
    """Within this context only portable operations are used: no XLA islands, no sparse twins.

    For export (a server may lack XLA) and for tests that compare both ways. Tracing time is what
    counts: a function traced outside the context keeps its twins. The switch applies to the whole
    process, because replicas of a TensorFlow strategy run in their own threads.

    Example:

    >>> from libra_keras.functional import native
    >>> with native.portable():
    ...     native.enabled()
    False
    """
    global _portable_depth
    _portable_depth += 1
    try:
        yield
    finally:
        _portable_depth -= 1


def enabled() -> bool:
    """Whether twins may be used here: the backend is TensorFlow, and not inside `portable()`.

    Example:

    >>> from libra_keras.functional import native
    >>> with native.portable():
    ...     native.enabled()
    False
    """
    return keras.backend.backend() == "tensorflow" and _portable_depth == 0


def is_portable_tensorflow() -> bool:
    """Whether a graph of TensorFlow is made here that other programs will run: in `portable()`.

    Example:

    >>> from libra_keras.functional import native
    >>> native.is_portable_tensorflow()
    False
    """
    return keras.backend.backend() == "tensorflow" and _portable_depth > 0


def compiled(function: Callable, **static: Hashable) -> Callable:
    """Makes `function` one XLA kernel (an "island") inside whatever surrounds it, on TensorFlow.

    TensorFlow runs each operation on its own, so arithmetic on large matrices of overlaps spends
    its time writing intermediate results. XLA fuses them. Gradients pass through an island. It
    compiles once per combination of static arguments and shapes; under shapes that are unknown
    while tracing, this happens when they become known.

    Args:
        function: module-level function of tensors (or `None`), or a `functools.partial` of one.
            It must not create variables or communicate between replicas.
        **static: hashable arguments of `function` that are not tensors.

    Returns:
        A function of the tensors. Other backends, and `portable()`, call `function` itself.

    Example:

    >>> from keras import ops
    >>> from libra_keras.functional import native
    >>> float(native.compiled(ops.sum, axis=0)([1.0, 2.0]))
    3.0
    """
    if isinstance(function, functools.partial):
        if function.args:
            raise ValueError(
                "`compiled` takes static arguments by keyword only. "
                f"Received a partial with positional arguments: {function.args}"
            )
        static = {**function.keywords, **static}
        function = function.func

    def call(*tensors):
        if not enabled():
            return function(*tensors, **static)
        # Python numbers would be baked into the graph, one graph per value.
        tensors = [x if x is None else ops.convert_to_tensor(x) for x in tensors]
        return _island(function, tuple(sorted(static.items())))(*tensors)

    return call


def compiled_on_gpu(function: Callable, **static: Hashable) -> Callable:
    """As `compiled` where TensorFlow has a GPU, elsewhere `function` itself.

    For arithmetic of integers of 32 bits: on a GPU TensorFlow leaves that to the host, and copies
    there and back; XLA does not. On a CPU compiling would take longer than it saves.

    Example:

    >>> from keras import ops
    >>> from libra_keras.functional import native
    >>> int(native.compiled_on_gpu(ops.add)(1, 2))
    3
    """
    if enabled() and _has_gpu():
        return compiled(function, **static)
    return functools.partial(function, **static)


@functools.lru_cache(maxsize=256)
def _island(function, static):
    import tensorflow as tf

    def traced(*tensors):
        return function(*tensors, **dict(static))

    return tf.function(traced, jit_compile=True, autograph=False)


def in_turn(count: int | Tensor, body: Callable[[Tensor, Any], Any], start: Any) -> Any:
    """`ops.fori_loop` from 0, in the memory of one round: TensorFlow's may run ten at once.

    Args:
        count: int, or int32 scalar tensor, number of rounds.
        body: function of the round and the values so far, that returns the next ones. Their shapes
            and dtypes must stay the same.
        start: tensor, or tuple of tensors, the first values.

    Returns:
        The last values.

    Example:

    >>> from keras import ops
    >>> from libra_keras.functional import native
    >>> float(native.in_turn(3, lambda i, x: 2.0 * x, ops.ones(())))
    8.0
    """
    if keras.backend.backend() != "tensorflow":
        return ops.fori_loop(0, count, body, start)
    import tensorflow as tf

    loop = (lambda i, _: i < count), (lambda i, values: (i + 1, body(i, values))), (0, start)
    return tf.while_loop(*loop, parallel_iterations=1)[1]


def by_filters(
    convolve: Callable[[Tensor, Tensor], Tensor], x: Tensor, kernel: Tensor, bias: Tensor
) -> Tensor:
    """Returns `convolve(kernel, bias)` of `x`, in parts of 64 filters where one image is slow.

    For a batch of one, TensorFlow on CPUs gives oneDNN a float32 kernel as it lies in memory: taps,
    channels, filters. From 256 filters on, the rows that a product needs at once fall into the same
    sets of the cache: parts took 0.77 of the time for 256 filters of 3 x 3, 0.6 for 512. Larger
    batches, for which it rearranges the kernel, take the same time either way. Gradients of parts
    cost more: not for training.

    Args:
        convolve: function of a kernel and a bias that convolves `x`.
        x: float tensor `(B, H, W, channels)`, whose dtype is that of the convolution.
        kernel: `(height, width, channels, filters)`.
        bias: `(filters,)`.

    Returns:
        `(B, H', W', filters)`.

    Example:

    >>> from keras import ops
    >>> from libra_keras.functional import native
    >>> x, kernel, bias = ops.ones((1, 4, 4, 2)), ops.ones((3, 3, 2, 256)), ops.zeros((256,))
    >>> y = native.by_filters(lambda k, b: ops.conv(x, k, padding="same") + b, x, kernel, bias)
    >>> tuple(y.shape)
    (1, 4, 4, 256)
    """
    height, *_, filters = kernel.shape
    is_slow = height > 1 and filters >= 256 and filters % 64 == 0
    if not (is_slow and enabled() and x.dtype == "float32" and not _has_gpu()):
        return convolve(kernel, bias)
    num = filters // 64
    parts = zip(ops.split(kernel, num, axis=-1), ops.split(bias, num), strict=True)
    return ops.concatenate([convolve(*part) for part in parts], axis=-1)


def add_bias(x: Tensor, bias: Tensor) -> Tensor:
    """Adds `bias` (C,) to `x` (B, H, W, C), as an operation that TensorFlow can fuse.

    Example:

    >>> from keras import ops
    >>> from libra_keras.functional import native
    >>> float(native.add_bias(ops.ones((1, 1, 1, 2)), ops.ones((2,)))[0, 0, 0, 1])
    2.0
    """
    if keras.backend.backend() != "tensorflow":
        return x + bias
    import tensorflow as tf

    # oneDNN fuses Conv2D, BiasAdd and Relu into one kernel; it knows no such rule for AddV2.
    return tf.nn.bias_add(x, bias)


def has_sparse_pooling() -> bool:
    """Whether `sparse_pooling` may stand in for the portable code: twins on, and no GPU.

    On a GPU gathering is not the bottleneck, and the sparse kernels have not been measured there.

    Example:

    >>> from libra_keras.functional import native
    >>> with native.portable():
    ...     native.has_sparse_pooling()
    False
    """
    return enabled() and not _has_gpu()


@functools.cache
def _has_gpu():
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def sparse_pooling(source: Tensor, taps: "Taps") -> Tensor:
    """The sums of `roi_align.weighted_sum` as one sparse matrix product, for CPUs.

    The matrix has a row per output bin and a column per cell of the pyramid. Its transpose gives
    the gradient, each cell summed by one thread: repeatable to the last bit. (The CPU gradient of
    `tf.image.crop_and_resize` lets threads add to the same cell without a lock and loses some.)

    Args:
        source: float tensor `(cells, C)`.
        taps: `roi_align.Taps` of R boxes and S x S bins.

    Returns:
        float32 tensor `(R, S, S, C)`. No gradient reaches the weights.

    Raises:
        ValueError: if `source` has another shape, or holds no floats.

    Example:

    >>> from keras import ops
    >>> from libra_keras.functional import native, roi_align
    >>> cells = ops.tile(ops.arange(8, dtype="float32")[:, None], (8, 1))  # each holds its column
    >>> boxes = ops.convert_to_tensor([[[8.0, 0.0, 40.0, 64.0]]])  # columns 1 to 4 of stride 8
    >>> levels, sizes = ops.zeros((1, 1), "int32"), ops.convert_to_tensor([[8, 8]])
    >>> taps = roi_align.find_taps(boxes, levels, sizes, (8,), 2, 2, True, 16)
    >>> ops.convert_to_numpy(native.sparse_pooling(cells, taps))[0, 0, :, 0].tolist()
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


def may_differentiate_loops() -> bool:
    """Whether `roi_align.looped_sum` may stand in for other sums: not in `portable()`, where other
    programs run the graph, nor on PyTorch, whose own gradient keeps little.

    Example:

    >>> from libra_keras.functional import native
    >>> with native.portable():
    ...     native.may_differentiate_loops()
    False
    """
    return keras.backend.backend() in ("tensorflow", "jax") and _portable_depth == 0


def with_wide_cells(taps: "Taps") -> "Taps":
    """Widens the cells of `Taps` on TensorFlow, which adds integers of 32 bits on the host, also
    where there is a GPU.

    Example:

    >>> from keras import ops
    >>> from libra_keras.functional import native, roi_align
    >>> one = ops.ones((1, 1, 1), "int32")
    >>> taps = native.with_wide_cells(roi_align.Taps(one, one, one, one, None, None))
    >>> tuple(taps.rows.shape)
    (1, 1, 1)
    """
    if keras.backend.backend() != "tensorflow":
        return taps
    rows, columns = (ops.cast(cells, "int64") for cells in (taps.rows, taps.columns))
    return taps._replace(rows=rows, columns=columns)


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
    """As `_dense_entries`, but only the first `num_rows * num_columns` taps of each bin."""
    # Most boxes need few of the T taps per axis; listing just those keeps the matrix small.
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
