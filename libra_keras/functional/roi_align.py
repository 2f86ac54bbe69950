"""RoIAlign: features of boxes on a fixed grid, by bilinear sampling; one level or a pyramid."""

from keras import ops

from libra_keras.functional import control_flow, native, native_pooling, roi_taps
from libra_keras.functional.argument_checks import check_arguments


def roi_levels(boxes, num_levels, finest_scale=56.0):
    """Chooses the pyramid level that each box is pooled from.

    `floor(log2(sqrt(width * height) / finest_scale + 1e-6))`, limited to the levels there are.

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
    shapes = [ops.shape(x) for x in features]
    sizes = ops.stack([ops.cast(ops.stack(shape[1:3]), "int32") for shape in shapes])  # (L, 2)
    options = (size, sampling_ratio, aligned, max_sampling_ratio)
    taps = roi_taps.find_taps(boxes, levels, sizes, strides, *options)
    channels = features[0].shape[-1]
    source = ops.concatenate([ops.reshape(x, (-1, channels)) for x in features], axis=0)
    pooled = _pooling(taps)(source, taps)
    shape = (*ops.shape(boxes)[:2], size, size, channels)
    return ops.cast(ops.reshape(pooled, shape), features[0].dtype)


def _pooling(taps):
    """The quickest of the functions that sum up what bins read, all with the same result."""
    if native.has_sparse_pooling():
        return native_pooling.sparse_pooling
    if native.enabled():
        return native_pooling.looped_pooling
    counts_taps = taps.num_rows is not None
    if counts_taps and native.is_portable_tensorflow() and control_flow.may_loop():
        return roi_taps.weighted_sum_of_used
    return roi_taps.weighted_sum


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
