"""Which cells of a feature pyramid the bins of RoIAlign read, and how strongly.

All levels are laid out one after the other as rows of one matrix. Then every output bin is a
weighted sum of few rows, and because the sampling grid is regular, a weight is the product of one
number per axis. `Taps` holds those numbers; two ways of summing share them: `weighted_sum` here and
`native_pooling`.
"""

from typing import Any, NamedTuple

from keras import ops

from libra_keras.functional import control_flow
from libra_keras.functional.argument_checks import check_arguments

UNROLLED_TAPS = 4  # per axis; with more, a loop keeps the traced graph small


class Taps(NamedTuple):
    """What each bin of R boxes reads: the cells `rows + columns` of the flattened pyramid.

    `rows` and `row_weights` are `(R, S, T)` for the S bins along y and T taps per bin, `columns`
    and `column_weights` the same along x. Taps without use have weight 0; where `num_rows` and
    `num_columns` (R,) are given, only so many taps are in use. R is B * N: the boxes of all images.

    Example:

    >>> from libra_keras.functional.roi_taps import Taps
    >>> Taps._fields
    ('rows', 'row_weights', 'columns', 'column_weights', 'num_rows', 'num_columns')
    """

    rows: Any
    row_weights: Any
    columns: Any
    column_weights: Any
    num_rows: Any
    num_columns: Any


def find_taps(boxes, levels, sizes, strides, size, sampling_ratio, aligned, max_sampling_ratio):
    """Finds what the bins of boxes read of a pyramid.

    Args:
        boxes: float32 tensor `(B, N, 4)`, pixels.
        levels: int32 tensor `(B, N)` in 0..L-1, the level that each box is pooled from.
        sizes: int32 tensor `(L, 2)`, height and width of each level in cells.
        strides: L numbers, pixels per cell of each level.
        size: int S, bins per axis.
        sampling_ratio, aligned, max_sampling_ratio: see `roi_align.roi_align`.

    Returns:
        `Taps` of R = B * N boxes. Cells count through all images of level 0, then of level 1.

    Raises:
        ValueError: if an argument has another shape or kind.

    Example:

    >>> from keras import ops
    >>> from libra_keras.functional import roi_taps
    >>> cells = ops.tile(ops.arange(8, dtype="float32")[:, None], (8, 1))  # each holds its column
    >>> boxes = ops.convert_to_tensor([[[8.0, 0.0, 40.0, 64.0]]])  # columns 1 to 4 of stride 8
    >>> levels, sizes = ops.zeros((1, 1), "int32"), ops.convert_to_tensor([[8, 8]])
    >>> taps = roi_taps.find_taps(boxes, levels, sizes, (8,), 2, 2, True, 16)
    >>> ops.convert_to_numpy(taps.columns)[0, 0].tolist()  # samples at columns 1 and 2
    [1, 2, 2, 3]
    >>> ops.convert_to_numpy(taps.column_weights)[0, 0].tolist()
    [0.5, 0.5, 0.0, 0.0]
    """
    check_arguments(
        {"boxes (B, N, 4)": boxes, "levels (B, N) int": levels, "sizes (L, 2) int": sizes}
    )
    finite = ops.all(ops.abs(boxes) < 1e7, axis=-1, keepdims=True)
    boxes = ops.where(finite, boxes, -1e7)  # outside every map: all samples give 0
    scale = ops.take(ops.convert_to_tensor([1.0 / s for s in strides], "float32"), levels)
    start = boxes * scale[..., None] - (0.5 if aligned else 0.0)
    extent = start[..., 2:] - start[..., :2]
    if not aligned:
        extent = ops.maximum(extent, 1.0)

    box_sizes = ops.take(sizes, levels, axis=0)  # (B, N, 2)
    cells = ops.cast(box_sizes, "float32")
    axis = [
        _axis_taps(
            ops.reshape(start[..., i], (-1,)),
            ops.reshape(extent[..., i], (-1,)),
            ops.reshape(cells[..., 1 - i], (-1, 1, 1)),
            size,
            sampling_ratio,
            max_sampling_ratio,
        )
        for i in (0, 1)
    ]
    (columns, column_weights, num_columns), (rows, row_weights, num_rows) = axis
    rows = rows * ops.reshape(box_sizes[..., 1], (-1, 1, 1)) + _first_cell(levels, sizes)
    return Taps(rows, row_weights, columns, column_weights, num_rows, num_columns)


def _first_cell(levels, sizes):
    """Row of the flattened pyramid where the map of each box's image begins, `(B * N, 1, 1)`."""
    batch = ops.shape(levels)[0]
    areas = sizes[:, 0] * sizes[:, 1]
    before = (ops.cumsum(areas) - areas) * batch
    image = ops.arange(batch, dtype="int32")[:, None]
    return ops.reshape(ops.take(before, levels) + image * ops.take(areas, levels), (-1, 1, 1))


def _axis_taps(start, extent, cells, size, sampling_ratio, max_sampling_ratio):
    """Cells and weights `(R, S, T)` along one axis, and how many of the T are used (R,)."""
    # XLA divides by a constant by multiplying with its reciprocal, and 175 / 7 comes out above 25:
    # one sample more, and samples that slip over a border. A tensor that holds `size` is safe.
    flat_cells = ops.maximum(cells[:, 0, 0], 1.0)
    bin_size = extent / (size * flat_cells / flat_cells)
    if sampling_ratio:
        count = ops.full_like(start, float(sampling_ratio))
        sample = _samples(start, bin_size, count, cells, size, sampling_ratio)
        return *_pair_taps(*sample, cells), None

    wanted = ops.ceil(bin_size)
    capped = wanted > max_sampling_ratio
    fewer = (max_sampling_ratio + 1) // 2  # two taps per sample fit the room that there is
    count = ops.where(capped, float(fewer), ops.maximum(wanted, 0.0))
    places, weights = _samples(start, bin_size, count, cells, size, max_sampling_ratio)
    pair_index, pair_weights = _pair_taps(places[..., :fewer], weights[..., :fewer], cells)
    room = [[0, 0], [0, 0], [0, max_sampling_ratio + 1 - 2 * fewer]]
    index, weights = _band_taps(places, weights, cells)
    is_pair = capped[:, None, None]
    index = ops.where(is_pair, ops.pad(pair_index, room), index)
    weights = ops.where(is_pair, ops.pad(pair_weights, room), weights)
    return index, weights, ops.cast(ops.where(capped, 2.0 * count, count + 1.0), "int32")


def _samples(start, bin_size, count, cells, size, num):
    """Positions and weights `(R, S, num)` of the samples of each bin, in cells."""
    start, bin_size, count = (x[:, None, None] for x in (start, bin_size, count))
    i = ops.arange(size, dtype="float32")[:, None]
    k = ops.arange(num, dtype="float32")
    safe_count = ops.maximum(count, 1.0)
    places = start + i * bin_size + (k + 0.5) * bin_size / safe_count
    used = (places >= -1.0) & (places <= cells) & (k < count)
    return ops.clip(places, 0.0, cells - 1.0), ops.cast(used, "float32") / safe_count


def _pair_taps(places, weights, cells):
    """Each sample reads the two cells around it."""
    low = ops.floor(places)
    high = ops.minimum(low + 1.0, cells - 1.0)
    part = places - low
    index = ops.concatenate([low, high], axis=-1)
    weights = ops.concatenate([(1.0 - part) * weights, part * weights], axis=-1)
    return ops.cast(index, "int32"), weights


def _band_taps(places, weights, cells):
    """As `_pair_taps`, with shared cells read once: for samples at most one cell apart.

    Such samples of one bin touch consecutive cells, one more than there are samples.
    """
    first = ops.floor(places[..., :1])
    band = first + ops.arange(places.shape[-1] + 1, dtype="float32")  # (R, S, T)
    reach = ops.maximum(1.0 - ops.abs(places[..., None, :] - band[..., :, None]), 0.0)
    index = ops.cast(ops.minimum(band, cells - 1.0), "int32")
    return index, ops.sum(reach * weights[..., None, :], axis=-1)


def weighted_sum(source, taps):
    """Weighted sums of rows of `source`, tap by tap.

    Args:
        source: float tensor `(cells, C)`: all levels, each with all its images, one after the
            other.
        taps: `Taps` of R boxes and S x S bins.

    Returns:
        float32 tensor `(R, S, S, C)`.

    Raises:
        ValueError: if `source` has another shape, or holds no floats.

    Example:

    >>> from keras import ops
    >>> from libra_keras.functional import roi_taps
    >>> cells = ops.tile(ops.arange(8, dtype="float32")[:, None], (8, 1))  # each holds its column
    >>> boxes = ops.convert_to_tensor([[[8.0, 0.0, 40.0, 64.0]]])  # columns 1 to 4 of stride 8
    >>> levels, sizes = ops.zeros((1, 1), "int32"), ops.convert_to_tensor([[8, 8]])
    >>> taps = roi_taps.find_taps(boxes, levels, sizes, (8,), 2, 2, True, 16)
    >>> ops.convert_to_numpy(roi_taps.weighted_sum(cells, taps))[0, 0, :, 0].tolist()
    [1.5, 3.5]
    """
    check_arguments({"source (cells, C) float": source})
    width = taps.rows.shape[-1]
    # A cell that hundreds of boxes read collects as many gradients: in 16 bits late ones get lost.
    # The reshape is for TensorFlow, which would otherwise cast first and then add up.
    source = ops.reshape(ops.cast(source, "float32"), ops.shape(source))

    def add(tap, pooled):
        return pooled + _read(source, taps, tap // width, tap % width)

    pooled = _read(source, taps, 0, 0)
    if width <= UNROLLED_TAPS or not control_flow.may_loop():
        for tap in range(1, width**2):
            pooled = add(tap, pooled)
        return pooled
    return ops.fori_loop(1, width**2, add, pooled)


def weighted_sum_of_used(source, taps):
    """As `weighted_sum`, but reads the taps in use, for `Taps` that tell how many these are.

    Most boxes use few of the T taps per axis. Boxes are sorted by the larger of their two numbers;
    then tap (y, x) concerns those in front, whose number exceeds max(y, x). How many these are is
    known when the graph runs only, so this is for TensorFlow's graphs, and for inference.

    Args:
        source, taps: as in `weighted_sum`; `num_rows` and `num_columns` are needed.

    Returns:
        float32 tensor `(R, S, S, C)`.

    Raises:
        ValueError: if `source` has another shape, or holds no floats.

    Example: the bins are 16 cells wide, so 17 of 17 taps are in use along x, but 2 along y.

    >>> from keras import ops
    >>> from libra_keras.functional import roi_taps
    >>> cells = ops.tile(ops.arange(32, dtype="float32")[:, None], (2, 1))
    >>> levels, sizes = ops.zeros((1, 1), "int32"), ops.convert_to_tensor([[2, 32]])
    >>> boxes = ops.convert_to_tensor([[[0.0, 0.0, 32.0, 2.0]]])
    >>> taps = roi_taps.find_taps(boxes, levels, sizes, (1,), 2, 0, True, 16)
    >>> ops.convert_to_numpy(roi_taps.weighted_sum_of_used(cells, taps))[0, 0, :, 0].tolist()
    [7.5, 23.5]
    """
    check_arguments({"source (cells, C) float": source})
    used = ops.maximum(taps.num_rows, taps.num_columns)
    order = ops.argsort(-used)
    used = ops.take(used, order)
    ordered = [ops.take(values, order, axis=0) for values in taps[:4]]

    def add_ring(ring, pooled):
        """Adds the taps whose larger number is `ring`."""
        count = ops.sum(ops.cast(used > ring, "int32"))
        own = Taps(*(values[:count] for values in ordered), None, None)

        def add(i, pooled):
            y, x = ops.minimum(i, ring), ops.minimum(2 * ring - i, ring)
            return pooled + _read(source, own, y, x)

        inner = ops.fori_loop(0, 2 * ring + 1, add, pooled[:count])
        whole = ops.concatenate([inner, pooled[count:]], axis=0)
        return ring + 1, ops.reshape(whole, ops.shape(pooled))

    nothing = ops.zeros((*ops.shape(taps.rows)[:2], taps.columns.shape[1], source.shape[-1]))
    rings = ops.max(used, initial=0)
    pooled = ops.while_loop(lambda ring, _: ring < rings, add_ring, (0, nothing))[1]
    return ops.take(pooled, ops.argsort(order), axis=0)


def _read(source, taps, y, x):
    """What all bins get from their tap (y, x): `(R, S, S, C)`."""
    rows, row_weights = _tap(taps.rows, y), _tap(taps.row_weights, y)
    columns, column_weights = _tap(taps.columns, x), _tap(taps.column_weights, x)
    values = ops.take(source, rows[:, :, None] + columns[:, None, :], axis=0)
    weights = (row_weights[:, :, None] * column_weights[:, None, :])[..., None]
    return ops.cast(values, "float32") * weights


def _tap(values, tap):
    """Tap number `tap` of all bins `(R, S, T)`; a number known beforehand costs a slice only."""
    return values[..., tap] if isinstance(tap, int) else ops.take(values, tap, axis=-1)
