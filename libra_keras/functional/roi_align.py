"""RoIAlign: features of boxes on a fixed grid, by bilinear sampling; one level or a pyramid.

All levels are laid out one after the other as rows of one matrix. Then every output bin is a
weighted sum of few rows, and because the sampling grid is regular, a weight is the product of one
number per axis. `Taps` holds those numbers; two ways of summing share them (see `_pool`).
"""

from typing import Any, NamedTuple

from keras import ops

from libra_keras.functional import native

UNROLLED_TAPS = 4  # per axis; with more, a loop keeps the traced graph small


class Taps(NamedTuple):
    """What each bin of R boxes reads: the cells `rows + columns` of the flattened pyramid.

    `rows` and `row_weights` are `(R, S, T)` for the S bins along y and T taps per bin, `columns`
    and `column_weights` the same along x. Taps without use have weight 0; where `num_rows` and
    `num_columns` (R,) are given, only so many taps are in use.
    """

    rows: Any
    row_weights: Any
    columns: Any
    column_weights: Any
    num_rows: Any
    num_columns: Any


def roi_levels(boxes, num_levels, finest_scale=56.0):
    """Chooses the pyramid level that each box is pooled from.

    `floor(log2(sqrt(width * height) / finest_scale + 1e-6))`, limited to the levels there are.

    Args:
        boxes: float tensor `(B, N, 4)`, pixels.
        num_levels: int.
        finest_scale: float, pixels; boxes up to twice this scale use level 0.

    Returns:
        int32 tensor `(B, N)` in 0..num_levels-1; 0 for boxes without area.

    Example:

    >>> from libra_keras.functional.roi_align import roi_levels
    >>> boxes = [[[0.0, 0.0, 111.0, 111.0], [0.0, 0.0, 112.0, 112.0], [0.0, 0.0, 999.0, 999.0]]]
    >>> roi_levels(boxes, num_levels=4).numpy().tolist()
    [[0, 1, 3]]

    Reference: [Lin et al., 2017](https://arxiv.org/abs/1612.03144), equation 1, with the constant
    of mmdetection's extractor.
    """
    boxes = ops.cast(ops.convert_to_tensor(boxes), "float32")
    width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    size = ops.sqrt(ops.maximum(width * height, 0.0))
    level = ops.floor(ops.log2(size / finest_scale + 1e-6))
    level = ops.where(level == level, level, 0.0)  # NaN differs from itself
    return ops.cast(ops.clip(level, 0, num_levels - 1), "int32")


def roi_align(
    features,
    boxes,
    stride,
    output_size=7,
    sampling_ratio=2,
    aligned=True,
    max_sampling_ratio=16,
):
    """Pools one feature map inside boxes.

    A box is divided into S x S bins; a bin is the mean of regularly spaced bilinear samples.
    Samples up to one cell outside the map take the value at its border, farther ones 0.

    Args:
        features: float tensor `(B, H, W, C)`; cell (y, x) has its centre at
            `(x + 0.5, y + 0.5) * stride` pixels (without `aligned`: at `(x, y) * stride`).
        boxes: float tensor `(B, N, 4)`, pixels. No gradient reaches them. Boxes with a
            coordinate that is not finite give zeros.
        stride: number, pixels per cell.
        output_size: int S.
        sampling_ratio: int, samples per bin along each axis; 0 takes one per cell, rounded up:
            `ceil(box side / stride / S)`.
        aligned: bool; false is the older convention, which is half a cell off and makes boxes at
            least one cell large.
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
    >>> roi_align(ramp, [[[8.0, 0.0, 40.0, 64.0]]], stride=8, output_size=2)[0, 0, 0, :, 0].numpy()
    array([1.5, 3.5], dtype=float32)

    Reference: [He et al., 2017](https://arxiv.org/abs/1703.06870), section 3.
    """
    boxes = _fixed(boxes)
    levels = ops.zeros_like(boxes[..., 0], dtype="int32")
    options = (output_size, sampling_ratio, aligned, max_sampling_ratio)
    return _align([features], boxes, levels, (stride,), *options)


def multilevel_roi_align(
    levels,
    boxes,
    strides=(4, 8, 16, 32),
    output_size=7,
    sampling_ratio=2,
    aligned=True,
    finest_scale=56.0,
    max_sampling_ratio=16,
):
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
    >>> multilevel_roi_align(levels, boxes, strides=(4, 8))[0, :, 3, 3, 0].numpy()
    array([2., 1.], dtype=float32)

    Reference: [Lin et al., 2017](https://arxiv.org/abs/1612.03144), section 4.2.
    """
    levels = list(levels)
    if len(levels) < len(strides):
        raise ValueError(
            "`levels` must hold one feature map per stride. "
            f"Received: {len(levels)} levels, strides={strides}"
        )
    boxes = _fixed(boxes)
    chosen = roi_levels(boxes, len(strides), finest_scale)
    options = (output_size, sampling_ratio, aligned, max_sampling_ratio)
    return _align(levels[: len(strides)], boxes, chosen, tuple(strides), *options)


def _fixed(boxes):
    boxes = ops.stop_gradient(ops.cast(ops.convert_to_tensor(boxes), "float32"))
    if len(boxes.shape) != 3 or boxes.shape[-1] != 4:
        raise ValueError(f"`boxes` must have shape (B, N, 4). Received: shape={boxes.shape}")
    return boxes


def _align(features, boxes, levels, strides, size, sampling_ratio, aligned, max_sampling_ratio):
    features = [ops.convert_to_tensor(x) for x in features]
    _check(features, boxes, size, sampling_ratio, max_sampling_ratio)
    shapes = [ops.shape(x) for x in features]
    sizes = ops.stack([ops.cast(ops.stack(shape[1:3]), "int32") for shape in shapes])  # (L, 2)
    find = native.compiled(
        _find_taps,
        strides=tuple(float(stride) for stride in strides),
        size=int(size),
        sampling_ratio=int(sampling_ratio),
        aligned=bool(aligned),
        max_sampling_ratio=int(max_sampling_ratio),
    )
    taps = Taps(*(None if x is None else ops.stop_gradient(x) for x in find(boxes, levels, sizes)))
    channels = features[0].shape[-1]
    source = ops.concatenate([ops.reshape(x, (-1, channels)) for x in features], axis=0)
    pool = native.sparse_pooling if native.has_sparse_pooling() else _pool
    pooled = pool(source, taps)
    shape = (*ops.shape(boxes)[:2], size, size, channels)
    return ops.cast(ops.reshape(pooled, shape), features[0].dtype)


def _check(features, boxes, size, sampling_ratio, max_sampling_ratio):
    for i, x in enumerate(features):
        if len(x.shape) != 4 or x.shape[-1] is None or x.shape[-1] != features[0].shape[-1]:
            raise ValueError(
                "Feature maps must have shape (B, H, W, C) with one known C. "
                f"Received: level {i} with shape={x.shape}, level 0 with {features[0].shape}"
            )
        if None not in (x.shape[0], boxes.shape[0]) and x.shape[0] != boxes.shape[0]:
            raise ValueError(
                "Feature maps and boxes must belong to the same images. "
                f"Received: level {i} with shape={x.shape}, boxes with shape={boxes.shape}"
            )
    if size < 1 or sampling_ratio < 0 or max_sampling_ratio < 1:
        raise ValueError(
            "`output_size` and `max_sampling_ratio` must be positive, `sampling_ratio` at least 0. "
            f"Received: output_size={size}, sampling_ratio={sampling_ratio}, "
            f"max_sampling_ratio={max_sampling_ratio}"
        )


def _find_taps(boxes, levels, sizes, strides, size, sampling_ratio, aligned, max_sampling_ratio):
    """The fields of `Taps` for boxes `(B, N, 4)` on `levels` (B, N) of `sizes` (L, 2)."""
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
    return rows, row_weights, columns, column_weights, num_rows, num_columns


def _first_cell(levels, sizes):
    """Row of the flattened pyramid where the map of each box's image begins, `(B * N, 1, 1)`."""
    batch = ops.shape(levels)[0]
    areas = sizes[:, 0] * sizes[:, 1]
    before = (ops.cumsum(areas) - areas) * batch
    image = ops.arange(batch, dtype="int32")[:, None]
    return ops.reshape(ops.take(before, levels) + image * ops.take(areas, levels), (-1, 1, 1))


def _axis_taps(start, extent, cells, size, sampling_ratio, max_sampling_ratio):
    """Cells and weights `(R, S, T)` along one axis, and how many of the T are used (R,)."""
    if sampling_ratio:
        count = ops.full_like(start, float(sampling_ratio))
        sample = _samples(start, extent, count, cells, size, sampling_ratio)
        return *_pair_taps(*sample, cells), None

    wanted = ops.ceil(extent / size)
    # XLA divides by a constant by multiplying with its reciprocal: 175 / 7 comes out above 25.
    wanted = ops.where((wanted - 1.0) * size >= extent, wanted - 1.0, wanted)
    capped = wanted > max_sampling_ratio
    fewer = (max_sampling_ratio + 1) // 2  # two taps per sample fit the room that there is
    count = ops.where(capped, float(fewer), ops.maximum(wanted, 0.0))
    places, weights = _samples(start, extent, count, cells, size, max_sampling_ratio)
    pair_index, pair_weights = _pair_taps(places[..., :fewer], weights[..., :fewer], cells)
    room = [[0, 0], [0, 0], [0, max_sampling_ratio + 1 - 2 * fewer]]
    index, weights = _band_taps(places, weights, cells)
    is_pair = capped[:, None, None]
    index = ops.where(is_pair, ops.pad(pair_index, room), index)
    weights = ops.where(is_pair, ops.pad(pair_weights, room), weights)
    return index, weights, ops.cast(ops.where(capped, 2.0 * count, count + 1.0), "int32")


def _samples(start, extent, count, cells, size, num):
    """Positions and weights `(R, S, num)` of the samples of each bin, in cells."""
    start, extent, count = (x[:, None, None] for x in (start, extent, count))
    i = ops.arange(size, dtype="float32")[:, None]
    k = ops.arange(num, dtype="float32")
    safe_count = ops.maximum(count, 1.0)
    places = start + extent * (i * count + k + 0.5) / (size * safe_count)
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


def _pool(source, taps):
    """Weighted sums of rows of `source` (cells, C), tap by tap: float32 `(R, S, S, C)`."""
    width = taps.rows.shape[-1]

    def add(tap, pooled):
        y, x = tap // width, tap % width
        rows, row_weights = ops.take(taps.rows, y, axis=-1), ops.take(taps.row_weights, y, axis=-1)
        columns = ops.take(taps.columns, x, axis=-1)
        column_weights = ops.take(taps.column_weights, x, axis=-1)
        values = ops.take(source, rows[:, :, None] + columns[:, None, :], axis=0)
        weights = (row_weights[:, :, None] * column_weights[:, None, :])[..., None]
        return pooled + ops.cast(values, "float32") * weights

    pooled = add(0, ops.zeros((1, 1, 1, source.shape[-1])))
    if width <= UNROLLED_TAPS:
        for tap in range(1, width**2):
            pooled = add(tap, pooled)
        return pooled
    return ops.fori_loop(1, width**2, add, pooled)
