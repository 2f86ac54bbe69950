"""Anchors of a feature pyramid."""

import math

from keras import ops


def base_anchors(stride, scales=(8.0,), ratios=(0.5, 1.0, 2.0)):
    """The anchors of one cell, centred on the origin.

    Args:
        stride: number of image pixels between neighbouring cells.
        scales: side of a square anchor in strides.
        ratios: height divided by width.

    Returns:
        list of `(x1, y1, x2, y2)` in pixels, ratio outer and scale inner.

    Example:

    >>> from libra_keras.functional import anchors
    >>> anchors.base_anchors(4, scales=(8.0,), ratios=(1.0,))
    [(-16.0, -16.0, 16.0, 16.0)]
    """
    result = []
    for ratio in ratios:
        for scale in scales:
            half_width = 0.5 * stride * scale / math.sqrt(ratio)
            half_height = 0.5 * stride * scale * math.sqrt(ratio)
            result.append((-half_width, -half_height, half_width, half_height))
    return result


def pyramid_anchors(feature_sizes, strides, scales=(8.0,), ratios=(0.5, 1.0, 2.0)):
    """The anchors of every level of a pyramid.

    Cell (row, column) of a level has its anchors centred on `(column * stride, row * stride)`:
    there is no half-cell offset and no rounding.

    Args:
        feature_sizes: list of L pairs (height, width) of cells; integers or scalar tensors.
        strides: list of L strides in pixels, finest first.
        scales: side of a square anchor in strides.
        ratios: height divided by width.

    Returns:
        list of L float32 tensors `(height * width * A, 4)` in pixels, flattened in the order
        row, column, ratio, scale, where A is `len(ratios) * len(scales)`.

    Raises:
        ValueError: if the numbers of sizes and strides differ.

    Example:

    >>> from keras import ops
    >>> from libra_keras.functional import anchors
    >>> levels = anchors.pyramid_anchors([(2, 2), (1, 1)], strides=(4, 8), ratios=(1.0,))
    >>> ops.convert_to_numpy(levels[0])[1].tolist()
    [-12.0, -16.0, 20.0, 16.0]

    Differs from mmdetection 1.x, which centred anchors on (stride - 1) / 2 and rounded them; equal
    to mmdetection 2.x and 3.x.
    """
    if len(feature_sizes) != len(strides):
        raise ValueError(
            "`feature_sizes` and `strides` must have one entry a level. Received: "
            f"{len(feature_sizes)} sizes and strides={strides}"
        )
    return [
        _level_anchors(height, width, stride, base_anchors(stride, scales, ratios))
        for (height, width), stride in zip(feature_sizes, strides, strict=True)
    ]


def _level_anchors(height, width, stride, base):
    x = ops.cast(ops.arange(width), "float32") * stride
    y = ops.cast(ops.arange(height), "float32") * stride
    y, x = ops.meshgrid(y, x, indexing="ij")  # (H, W) each
    centres = ops.stack([x, y, x, y], axis=-1)[:, :, None, :]
    anchors = centres + ops.convert_to_tensor(base, "float32")  # (H, W, A, 4)
    return ops.reshape(anchors, (-1, 4))
