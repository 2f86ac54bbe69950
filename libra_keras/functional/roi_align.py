"""RoIAlign: features of boxes on a fixed grid, by bilinear sampling; one level or a pyramid.

All levels are laid out one after the other as rows of one matrix. Then every output bin is a
weighted sum of few rows, and because the sampling grid is regular, a weight is the product of one
number per axis. `Taps` holds those numbers; the ways of summing share them: three here, and a twin
in `native`.
"""

from collections.abc import Sequence
from typing import NamedTuple

from keras import ops

from libra_keras.functional import control_flow, native
from libra_keras.functional.argument_checks import check_arguments
from libra_keras.functional.gathering import add_rows, take
from libra_keras.typing import Tensor

UNROLLED_TAPS = 4  # per axis: so many are read at a time; with more, a loop keeps graphs small


def roi_levels(boxes: Tensor, num_levels: int, finest_scale: float = 56.0) -> Tensor:
    """Chooses the pyramid level that each box is pooled from.

    `floor(log2(sqrt(width * height) / finest_scale + 1e-6))`, limited to the existing levels.

    Args:
        boxes: float tensor `(B, N, 4)`, pixels.
        num_levels: int.
        finest_scale: float, pixels; boxes up to twice this scale use level 0.

    Returns:
        int32 tensor `(B, N)` in 0..num_levels-1; 0 for boxes without area.

    Raises:
        ValueError: if `boxes` has another shape, or holds no numbers.

    Example:

    >>> from keras import ops
    >>> from libra_keras.functional.roi_align import roi_levels
    >>> boxes = [[[0.0, 0.0, 111.0, 111.0], [0.0, 0.0, 112.0, 112.0], [0.0, 0.0, 999.0, 999.0]]]
    >>> ops.convert_to_numpy(roi_levels(boxes, num_levels=4)).tolist()
    [[0, 1, 3]]

    Reference: [Lin et al., 2017](https://arxiv.org/abs/1612.03144), equation 1, with the constant
    of mmdetection's extractor.
    """
    check_arguments({"boxes (B, N, 4)": boxes})
    boxes = ops.cast(ops.convert_to_tensor(boxes), "float32")
    width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    size = ops.sqrt(ops.maximum(width * height, 0.0))
    level = ops.floor(ops.log2(size / finest_scale + 1e-6))
    level = ops.where(level == level, level, 0.0)  # NaN differs from itself
    return ops.cast(ops.clip(level, 0, num_levels - 1), "int32")


def roi_align(
    features: Tensor,
    boxes: Tensor,
    stride: float,
    output_size: int = 7,
    sampling_ratio: int = 2,
    aligned: bool = True,
    max_sampling_ratio: int = 16,
) -> Tensor:
    """Pools one feature map inside boxes.

    A box is divided into S x S bins; a bin is the mean of regularly spaced bilinear samples.
    Samples up to one cell outside the map take the value at its border, farther ones 0.

    Args:
        features: float tensor `(B, H, W, C)`; cell (y, x) has its centre at
            `(x + 0.5, y + 0.5) * stride` pixels (without `aligned`: at `(x, y) * stride`).
        boxes: float tensor `(B, N, 4)`, pixels. They get no gradient. Boxes with a coordinate that
            is not finite give zeros.
        stride: number, pixels per cell.
        output_size: int S.
        sampling_ratio: int, samples per bin along each axis; 0 takes one per cell, rounded up:
            `ceil(box side / stride / S)`.
        aligned: bool; false is the older convention, which is half a cell off and enlarges boxes to
            at least one cell.
        max_sampling_ratio: int, for `sampling_ratio=0`: bins of more cells than this along an
            axis get half as many samples, `(max_sampling_ratio + 1) // 2`. With levels chosen
            by `roi_levels`, 16 is enough for boxes up to 16 times as long as wide. Without
            TensorFlow, or on a GPU, time grows with its square.

    Returns:
        Tensor `(B, N, S, S, C)` in the dtype of `features`; sums run in float32.

    Raises:
        ValueError: if shapes do not fit or a number is out of range.

    Example:

    >>> from keras import ops
    >>> from libra_keras.functional.roi_align import roi_align
    >>> ramp = ops.reshape(ops.arange(8, dtype="float32"), (1, 1, 8, 1)) * ops.ones((1, 8, 1, 1))
    >>> pooled = roi_align(ramp, [[[8.0, 0.0, 40.0, 64.0]]], stride=8, output_size=2)
    >>> ops.convert_to_numpy(pooled)[0, 0, 0, :, 0].tolist()
    [1.5, 3.5]

    Reference: [He et al., 2017](https://arxiv.org/abs/1703.06870), section 3.
    """
    check_arguments({"features (B, H, W, C) float": features, "boxes (B, N, 4)": boxes})
    boxes = _fixed(boxes)
    levels = ops.zeros_like(boxes[..., 0], dtype="int32")
    options = (output_size, sampling_ratio, aligned, max_sampling_ratio)
    return _align([features], boxes, levels, (stride,), *options)


def multilevel_roi_align(
    levels: Sequence[Tensor],
    boxes: Tensor,
    strides: Sequence[float] = (4, 8, 16, 32),
    output_size: int = 7,
    sampling_ratio: int = 2,
    aligned: bool = True,
    finest_scale: float = 56.0,
    max_sampling_ratio: int = 16,
) -> Tensor:
    """Pools each box from the pyramid level that suits its size.

    Args:
        levels: list of at least L tensors `(B, H_l, W_l, C)`, finest first; more are ignored.
        boxes: float tensor `(B, N, 4)`, pixels.
        strides: L numbers, pixels per cell of each level.
        output_size, sampling_ratio, aligned, max_sampling_ratio: see `roi_align`.
        finest_scale: see `roi_levels`.

    Returns:
        Tensor `(B, N, S, S, C)`, boxes in the order given.

    Raises:
        ValueError: if there are fewer levels than strides, or as for `roi_align`.

    Example:

    >>> from keras import ops
    >>> from libra_keras.functional.roi_align import multilevel_roi_align
    >>> levels = [ops.full((1, 32, 32, 1), 1.0), ops.full((1, 16, 16, 1), 2.0)]
    >>> boxes = [[[0.0, 0.0, 120.0, 120.0], [0.0, 0.0, 9.0, 9.0]]]
    >>> pooled = multilevel_roi_align(levels, boxes, strides=(4, 8))
    >>> ops.convert_to_numpy(pooled)[0, :, 3, 3, 0].tolist()
    [2.0, 1.0]

    Reference: [Lin et al., 2017](https://arxiv.org/abs/1612.03144), section 4.2.
    """
    levels = list(levels)
    if len(levels) < len(strides):
        raise ValueError(
            "`levels` must hold one feature map per stride. "
            f"Received: {len(levels)} levels, strides={strides}"
        )
    levels = levels[: len(strides)]
    maps = {f"levels[{i}] (B, H_l, W_l, C) float": level for i, level in enumerate(levels)}
    check_arguments({**maps, "boxes (B, N, 4)": boxes})
    boxes = _fixed(boxes)
    chosen = roi_levels(boxes, len(strides), finest_scale)
    options = (output_size, sampling_ratio, aligned, max_sampling_ratio)
    return _align(levels, boxes, chosen, tuple(strides), *options)


def _fixed(boxes):
    return ops.stop_gradient(ops.cast(ops.convert_to_tensor(boxes), "float32"))


def _align(features, boxes, levels, strides, size, sampling_ratio, aligned, max_sampling_ratio):
    features = [ops.convert_to_tensor(x) for x in features]
    _check(features, size, sampling_ratio, max_sampling_ratio)
    options = {
        "strides": strides,
        "size": size,
        "sampling_ratio": sampling_ratio,
        "aligned": aligned,
        "max_sampling_ratio": max_sampling_ratio,
    }
    if pool := control_flow.own_operations().pool:
        return ops.cast(pool(features, boxes, levels, **options), features[0].dtype)
    shapes = [ops.shape(x) for x in features]
    sizes = ops.stack([ops.cast(ops.stack(shape[1:3]), "int32") for shape in shapes])  # (L, 2)
    taps = native.compiled_on_gpu(find_taps, **options)(boxes, levels, sizes)
    channels = features[0].shape[-1]
    source = ops.concatenate([ops.reshape(x, (-1, channels)) for x in features], axis=0)
    pooled = _pooling(taps)(source, taps)
    shape = (*ops.shape(boxes)[:2], size, size, channels)
    return ops.cast(ops.reshape(pooled, shape), features[0].dtype)


def _pooling(taps):
    """The quickest of the functions that sum up what bins read, all with the same result."""
    if native.has_sparse_pooling():
        return native.sparse_pooling
    if native.may_differentiate_loops():
        return looped_sum
    counts_taps = taps.num_rows is not None
    if counts_taps and native.is_portable_tensorflow():
        return weighted_sum_of_used
    return weighted_sum


def _check(features, size, sampling_ratio, max_sampling_ratio):
    if any(x.shape[-1] is None for x in features):
        shapes = [tuple(x.shape) for x in features]
        raise ValueError(f"The C of feature maps must be known. Received: shapes={shapes}")
    if size < 1 or sampling_ratio < 0 or max_sampling_ratio < 1:
        raise ValueError(
            "`output_size` and `max_sampling_ratio` must be positive, `sampling_ratio` at least 0. "
            f"Received: output_size={size}, sampling_ratio={sampling_ratio}, "
            f"max_sampling_ratio={max_sampling_ratio}"
        )


class Taps(NamedTuple):
    """What each bin of R boxes reads: the cells `rows + columns` of the flattened pyramid.

    `rows` and `row_weights` are `(R, S, T)` for the S bins along y and T taps per bin, `columns`
    and `column_weights` the same along x. Taps without use have weight 0; where `num_rows` and
    `num_columns` (R,) are given, only so many taps are in use. R is B * N: the boxes of all images.

    Example:

    >>> from libra_keras.functional.roi_align import Taps
    >>> Taps._fields
    ('rows', 'row_weights', 'columns', 'column_weights', 'num_rows', 'num_columns')
    """

    rows: Tensor
    row_weights: Tensor
    columns: Tensor
    column_weights: Tensor
    num_rows: Tensor | None
    num_columns: Tensor | None


def find_taps(
    boxes: Tensor,
    levels: Tensor,
    sizes: Tensor,
    strides: Sequence[float],
    size: int,
    sampling_ratio: int,
    aligned: bool,
    max_sampling_ratio: int,
) -> Taps:
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
    >>> from libra_keras.functional import roi_align
    >>> cells = ops.tile(ops.arange(8, dtype="float32")[:, None], (8, 1))  # each holds its column
    >>> boxes = ops.convert_to_tensor([[[8.0, 0.0, 40.0, 64.0]]])  # columns 1 to 4 of stride 8
    >>> levels, sizes = ops.zeros((1, 1), "int32"), ops.convert_to_tensor([[8, 8]])
    >>> taps = roi_align.find_taps(boxes, levels, sizes, (8,), 2, 2, True, 16)
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
    scale = take(ops.convert_to_tensor([1.0 / s for s in strides], "float32"), levels)
    start = boxes * scale[..., None] - (0.5 if aligned else 0.0)
    extent = start[..., 2:] - start[..., :2]
    if not aligned:
        extent = ops.maximum(extent, 1.0)

    box_sizes = take(sizes, levels, axis=0)  # (B, N, 2)
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
    return ops.reshape(take(before, levels) + image * take(areas, levels), (-1, 1, 1))


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
    """As `_pair_taps`, with shared cells read once: for samples at most one cell apart."""
    # Such samples of one bin touch consecutive cells, one more than there are samples.
    first = ops.floor(places[..., :1])
    band = first + ops.arange(places.shape[-1] + 1, dtype="float32")  # (R, S, T)
    reach = ops.maximum(1.0 - ops.abs(places[..., None, :] - band[..., :, None]), 0.0)
    index = ops.cast(ops.minimum(band, cells - 1.0), "int32")
    return index, ops.sum(reach * weights[..., None, :], axis=-1)


def weighted_sum(source: Tensor, taps: Taps) -> Tensor:
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
    >>> from libra_keras.functional import roi_align
    >>> cells = ops.tile(ops.arange(8, dtype="float32")[:, None], (8, 1))  # each holds its column
    >>> boxes = ops.convert_to_tensor([[[8.0, 0.0, 40.0, 64.0]]])  # columns 1 to 4 of stride 8
    >>> levels, sizes = ops.zeros((1, 1), "int32"), ops.convert_to_tensor([[8, 8]])
    >>> taps = roi_align.find_taps(boxes, levels, sizes, (8,), 2, 2, True, 16)
    >>> ops.convert_to_numpy(roi_align.weighted_sum(cells, taps))[0, 0, :, 0].tolist()
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
    if width <= UNROLLED_TAPS:
        for tap in range(1, width**2):
            pooled = add(tap, pooled)
        return pooled
    return ops.fori_loop(1, width**2, add, pooled)


def looped_sum(source: Tensor, taps: Taps) -> Tensor:
    """As `weighted_sum`, in the memory of a few taps, for GPUs and for JAX.

    The gradient is a loop of its own, which adds tap after tap to one map. Left to the backend, it
    keeps for every tap what was read (TensorFlow), or a map as large as `source` (JAX).

    Args:
        source, taps: as in `weighted_sum`.

    Returns:
        float32 tensor `(R, S, S, C)`. No gradient reaches the weights.

    Raises:
        ValueError: if `source` has another shape, or holds no floats.

    Example:

    >>> from keras import ops
    >>> from libra_keras.functional import roi_align
    >>> cells = ops.tile(ops.arange(8, dtype="float32")[:, None], (8, 1))  # each holds its column
    >>> boxes = ops.convert_to_tensor([[[8.0, 0.0, 40.0, 64.0]]])  # columns 1 to 4 of stride 8
    >>> levels, sizes = ops.zeros((1, 1), "int32"), ops.convert_to_tensor([[8, 8]])
    >>> taps = roi_align.find_taps(boxes, levels, sizes, (8,), 2, 2, True, 16)
    >>> ops.convert_to_numpy(roi_align.looped_sum(cells, taps))[0, 0, :, 0].tolist()
    [1.5, 3.5]
    """
    check_arguments({"source (cells, C) float": source})
    taps = native.with_wide_cells(taps)
    width = taps.rows.shape[-1]
    down, across = (_most(counts, width) for counts in (taps.num_rows, taps.num_columns))
    together = width if taps.num_rows is None and width <= UNROLLED_TAPS else 1
    bins = (*ops.shape(taps.rows)[:2], taps.columns.shape[1])

    def total(term, start, together=1):
        def add(turn, before):
            for tap in range(together):
                tap = turn * together + tap
                before = term(before, *_entries(taps, tap // across, tap % across))
            return before

        return native.in_turn(down * across // together, add, start)

    @ops.custom_gradient
    def pooled(source):
        def read(before, cells, weights):
            return before + ops.cast(take(source, cells), "float32") * weights

        def gradient(*given, upstream=None):
            upstream = given[-1] if upstream is None else upstream

            def scatter(before, cells, weights):
                values = ops.reshape(upstream * weights, (-1, source.shape[-1]))
                return add_rows(before, ops.reshape(cells, (-1,)), values)

            return ops.cast(total(scatter, ops.zeros(ops.shape(source), "float32")), source.dtype)

        return total(read, ops.zeros((*bins, source.shape[-1]), "float32"), together), gradient

    return pooled(source)


def _most(counts, width):
    """The most taps that any box uses along an axis; all `width` where that is not counted."""
    return width if counts is None else ops.max(counts, initial=0)


def weighted_sum_of_used(source: Tensor, taps: Taps) -> Tensor:
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
    >>> from libra_keras.functional import roi_align
    >>> cells = ops.tile(ops.arange(32, dtype="float32")[:, None], (2, 1))
    >>> levels, sizes = ops.zeros((1, 1), "int32"), ops.convert_to_tensor([[2, 32]])
    >>> boxes = ops.convert_to_tensor([[[0.0, 0.0, 32.0, 2.0]]])
    >>> taps = roi_align.find_taps(boxes, levels, sizes, (1,), 2, 0, True, 16)
    >>> ops.convert_to_numpy(roi_align.weighted_sum_of_used(cells, taps))[0, 0, :, 0].tolist()
    [7.5, 23.5]
    """
    check_arguments({"source (cells, C) float": source})
    used = ops.maximum(taps.num_rows, taps.num_columns)
    order = ops.argsort(-used)
    used = take(used, order)
    ordered = [take(values, order, axis=0) for values in taps[:4]]

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

    bins = *ops.shape(taps.rows)[:2], taps.columns.shape[1]
    nothing = ops.zeros((*bins, source.shape[-1]), "float32")
    rings = ops.max(used, initial=0)
    pooled = ops.while_loop(lambda ring, _: ring < rings, add_ring, (0, nothing))[1]
    return take(pooled, ops.argsort(order), axis=0)


def _read(source, taps, y, x):
    """What all bins get from their tap (y, x): `(R, S, S, C)`."""
    cells, weights = _entries(taps, y, x)
    return ops.cast(take(source, cells), "float32") * weights


def _entries(taps, y, x):
    """The cells `(R, S, S)` and weights `(R, S, S, 1)` of the tap (y, x) of all bins."""
    rows, row_weights = _tap(taps.rows, y), _tap(taps.row_weights, y)
    columns, column_weights = _tap(taps.columns, x), _tap(taps.column_weights, x)
    weights = row_weights[:, :, None] * column_weights[:, None, :]
    return rows[:, :, None] + columns[:, None, :], weights[..., None]


def _tap(values, tap):
    """Tap number `tap` of all bins `(R, S, T)`; a number known beforehand costs a slice only."""
    return values[..., tap] if isinstance(tap, int) else take(values, tap, axis=-1)
