"""Anchors of a feature pyramid."""

import math
from collections.abc import Sequence

from keras import ops

from libra_keras.functional.argument_checks import check_geometry
from libra_keras.typing import Tensor


def base_anchors(
    stride: float,
    scales: Sequence[float] = (8.0,),
    ratios: Sequence[float] = (0.5, 1.0, 2.0),
    geometry: str = "continuous",
) -> list[tuple[float, ...]]:
    """The anchors of the cell in the top left corner.

    Args:
        stride: number of image pixels between neighbouring cells.
        scales: side of a square anchor in strides.
        ratios: height divided by width.
        geometry: see `pyramid_anchors`.

    Returns:
        list of `(x1, y1, x2, y2)` in pixels, ratio outer and scale inner.

    Raises:
        ValueError: if `geometry` is not one of the three.

    Example:

    >>> from libra_keras.functional import anchors
    >>> anchors.base_anchors(4, scales=(8.0,), ratios=(1.0,))
    [(-16.0, -16.0, 16.0, 16.0)]
    >>> anchors.base_anchors(4, scales=(8.0,), ratios=(1.0,), geometry="legacy")
    [(-14.0, -14.0, 18.0, 18.0)]
    """
    check_geometry(geometry)
    # mmdetection 1.x rounds the first and the last pixel, and centres them on those of a cell.
    last_pixel = 1.0 if geometry == "legacy" else 0.0
    centre = 0.5 * (stride - 1) if geometry == "legacy" else 0.0
    result = []
    for ratio in ratios:
        for scale in scales:
            side = stride * scale
            side = int(side) if geometry == "torchvision" else side
            half_width = 0.5 * (side / math.sqrt(ratio) - last_pixel)
            half_height = 0.5 * (side * math.sqrt(ratio) - last_pixel)
            corners = (-half_width, -half_height, half_width, half_height)
            result.append(tuple(centre + corner for corner in corners))
    if geometry == "continuous":
        return result
    # Python rounds as torch and NumPy do: halves go to the even neighbour.
    result = [tuple(float(round(corner)) for corner in corners) for corners in result]
    return [(x1, y1, x2 + last_pixel, y2 + last_pixel) for x1, y1, x2, y2 in result]


def pyramid_anchors(
    feature_sizes: Sequence[Sequence[int | Tensor]],
    strides: Sequence[float],
    scales: Sequence[float] = (8.0,),
    ratios: Sequence[float] = (0.5, 1.0, 2.0),
    geometry: str = "continuous",
) -> list[Tensor]:
    """The anchors of every level of a pyramid.

    Cell (row, column) of a level has its anchors centred on `(column * stride, row * stride)`:
    there is no half-cell offset and no rounding. This is the geometry `"continuous"`, that of
    mmdetection 2.x and 3.x.

    Weights that were trained elsewhere need the anchors that they were trained with. Those of
    `"torchvision"` (0.16) have square sides and, centred on 0, corners of whole pixels; a level's
    cells lie `padded size // cells` pixels apart, which is less than the stride where the padded
    image (the finest level times its stride) is not a multiple of it: 60 instead of 64 in an image
    of 480 pixels, in which a level of stride 64 has 8 cells. Those of `"legacy"` (mmdetection 1.x)
    are centred on the middle of a cell's pixels, and have edges between pixels.

    Args:
        feature_sizes: list of L pairs (height, width) of cells; integers or scalar tensors.
        strides: list of L strides in pixels, finest first.
        scales: side of a square anchor in strides.
        ratios: height divided by width.
        geometry: `"continuous"`, `"torchvision"` or `"legacy"`.

    Returns:
        list of L float32 tensors `(height * width * A, 4)` in pixels, flattened in the order
        row, column, ratio, scale, where A is `len(ratios) * len(scales)`.

    Raises:
        ValueError: if the numbers of sizes and strides differ, a size is not a pair, or `geometry`
            is not one of the three.

    Example:

    >>> from keras import ops
    >>> from libra_keras.functional import anchors
    >>> levels = anchors.pyramid_anchors([(2, 2), (1, 1)], strides=(4, 8), ratios=(1.0,))
    >>> ops.convert_to_numpy(levels[0])[1].tolist()
    [-12.0, -16.0, 20.0, 16.0]

    Reference: [Ren et al., 2015](https://arxiv.org/abs/1506.01497), section 3.1.1.
    """
    if len(feature_sizes) != len(strides):
        raise ValueError(
            "`feature_sizes` and `strides` must have one entry per level. Received: "
            f"{len(feature_sizes)} sizes and strides={strides}"
        )
    for i, size in enumerate(feature_sizes):
        if not hasattr(size, "__len__") or len(size) != 2:
            raise ValueError(
                f"`feature_sizes[{i}]` must be a pair (height, width). Received: {size}"
            )
    finest = feature_sizes[0], strides[0]
    levels = []
    for cells, stride in zip(feature_sizes, strides, strict=True):
        base = base_anchors(stride, scales, ratios, geometry)
        steps = (stride, stride)
        if geometry == "torchvision":
            steps = _steps_across_image(cells, *finest)
        levels.append(_level_anchors(cells, steps, base))
    return levels


def _steps_across_image(cells, finest_cells, finest_stride):
    """Whole pixels from cell to cell of a level, downwards and to the right."""
    return [finest * finest_stride // num for num, finest in zip(cells, finest_cells, strict=True)]


def _level_anchors(cells, steps, base):
    y, x = (
        ops.cast(ops.arange(num), "float32") * ops.cast(step, "float32")
        for num, step in zip(cells, steps, strict=True)
    )
    y, x = ops.meshgrid(y, x, indexing="ij")  # (H, W) each
    centres = ops.stack([x, y, x, y], axis=-1)[:, :, None, :]
    anchors = centres + ops.convert_to_tensor(base, "float32")  # (H, W, A, 4)
    return ops.reshape(anchors, (-1, 4))
