"""Arithmetic on boxes `(x1, y1, x2, y2)`: float32, absolute pixels, no "+1".

`decode` and `clip` also support the conventions of other toolboxes, for weights that were trained
with them: `geometry` is `"continuous"` (mmdetection 2.x and 3.x), `"torchvision"` (0.16) or
`"legacy"` (mmdetection 1.x; boxes here are edges, with x2 and y2 one more than there).
"""

import math
from collections.abc import Sequence

from keras import ops

from libra_keras.functional.argument_checks import check_arguments, check_geometry
from libra_keras.typing import Tensor

# A delta may enlarge a side by at most 1000/16: a 16-pixel anchor can grow to 1000 pixels, and
# `exp` of an untrained regression cannot overflow.
MAX_LOG_SCALE = math.log(1000.0 / 16.0)


def area(boxes: Tensor) -> Tensor:
    """Area of boxes in square pixels; an inverted box has area 0.

    Args:
        boxes: float tensor `(..., 4)`.

    Returns:
        float32 tensor `(...)`.

    Raises:
        ValueError: if `boxes` has another shape, or holds no numbers.

    Example:

    >>> from libra_keras.functional import boxes
    >>> float(boxes.area([0.0, 0.0, 4.0, 3.0]))
    12.0
    """
    check_arguments({"boxes (..., 4)": boxes})
    x1, y1, x2, y2 = _sides(boxes)
    return ops.maximum(x2 - x1, 0.0) * ops.maximum(y2 - y1, 0.0)


def iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of every box with every other box.

    Args:
        boxes: float tensor `(..., N, 4)`.
        others: float tensor `(..., M, 4)`.

    Returns:
        float32 tensor `(..., N, M)` in 0..1; 0 where both boxes are empty.

    Raises:
        ValueError: if an argument has another shape, or holds no numbers.

    Example:

    >>> from libra_keras.functional import boxes
    >>> float(boxes.iou([[0.0, 0.0, 2.0, 2.0]], [[1.0, 0.0, 3.0, 2.0]])[0, 0])
    0.3333333432674408

    Differs from mmdetection: the union is not guarded by adding 1e-6 but replaced where it is 0.
    """
    check_arguments({"boxes (..., N, 4)": boxes, "others (..., M, 4)": others})
    overlap = _intersection(boxes, others)
    union = area(boxes)[..., :, None] + area(others)[..., None, :] - overlap
    return _divide_or_zero(overlap, union)


def iof(boxes: Tensor, regions: Tensor) -> Tensor:
    """Intersection over foreground: the part of each box that lies inside each region.

    Args:
        boxes: float tensor `(..., N, 4)`.
        regions: float tensor `(..., M, 4)`, for example crowd regions.

    Returns:
        float32 tensor `(..., N, M)` in 0..1; 0 for empty boxes.

    Raises:
        ValueError: if an argument has another shape, or holds no numbers.

    Example:

    >>> from libra_keras.functional import boxes
    >>> float(boxes.iof([[0.0, 0.0, 2.0, 2.0]], [[1.0, 0.0, 9.0, 9.0]])[0, 0])
    0.5
    """
    check_arguments({"boxes (..., N, 4)": boxes, "regions (..., M, 4)": regions})
    return _divide_or_zero(_intersection(boxes, regions), area(boxes)[..., :, None])


def has_sides(boxes: Tensor, smallest: float = 0.0) -> Tensor:
    """Whether boxes have a width and a height.

    Args:
        boxes: float tensor `(..., 4)`.
        smallest: float, shortest side in pixels that counts; 0 stands for any that is not 0.

    Returns:
        bool tensor `(...)`.

    Raises:
        ValueError: if `boxes` has another shape, or holds no numbers.

    Example:

    >>> from keras import ops
    >>> from libra_keras.functional import boxes
    >>> some = ops.convert_to_tensor([[0.0, 0.0, 2.0, 0.0], [0.0, 0.0, 2.0, 0.5]])
    >>> ops.convert_to_numpy(boxes.has_sides(some)).tolist()
    [False, True]
    """
    check_arguments({"boxes (..., 4)": boxes})
    boxes = ops.convert_to_tensor(boxes)
    # Comparing sides, not areas: the product of two tiny sides can round to 0.
    if smallest == 0:
        return ops.all(boxes[..., 2:] > boxes[..., :2], axis=-1)
    return ops.all(boxes[..., 2:] - boxes[..., :2] >= smallest, axis=-1)


def clip(boxes: Tensor, image_sizes: Tensor, geometry: str = "continuous") -> Tensor:
    """Moves the corners of boxes into their images.

    Args:
        boxes: float tensor `(B, N, 4)`.
        image_sizes: tensor `(B, 2)`, height and width in pixels.
        geometry: str; with `"legacy"` at least one pixel of each side stays: x1 is at most
            width - 1 and x2 at least 1.

    Returns:
        float32 tensor `(B, N, 4)` with x in 0..width and y in 0..height. A box that lies outside
        gets a side of 0 (legacy: of 1 pixel).

    Raises:
        ValueError: if `geometry` is not one of the three, or an argument has another shape.

    Example:

    >>> from keras import ops
    >>> from libra_keras.functional import boxes
    >>> ops.convert_to_numpy(boxes.clip([[[-5.0, 2.0, 30.0, 8.0]]], [[10, 20]])).tolist()
    [[[0.0, 2.0, 20.0, 8.0]]]
    """
    check_geometry(geometry)
    check_arguments({"boxes (B, N, 4)": boxes, "image_sizes (B, 2)": image_sizes})
    heights, widths = ops.split(ops.cast(image_sizes, "float32")[:, None, :], 2, axis=-1)
    largest = ops.concatenate([widths, heights, widths, heights], axis=-1)  # (B, 1, 4)
    if geometry != "legacy":
        return ops.clip(ops.cast(boxes, "float32"), 0.0, largest)
    least = ops.convert_to_tensor([0.0, 0.0, 1.0, 1.0], "float32")
    return ops.clip(ops.cast(boxes, "float32"), least, largest - (1.0 - least))


def encode(boxes: Tensor, anchors: Tensor, stds: Sequence[float] = (1.0, 1.0, 1.0, 1.0)) -> Tensor:
    """Describes boxes relative to anchors. Law: `decode(encode(b, a), a) == b`.

    Args:
        boxes: float tensor `(..., 4)`; empty boxes are treated as a small fraction of a pixel
            wide, so that padding gives finite numbers.
        anchors: float tensor `(..., 4)`, broadcastable to `boxes`.
        stds: four floats that the deltas are divided by; (0.1, 0.1, 0.2, 0.2) in a box head.

    Returns:
        float32 tensor `(..., 4)`: shift of the centre in anchor sizes, log of the size ratios.

    Raises:
        ValueError: if an argument has another shape, or holds no numbers.

    Example:

    >>> from libra_keras.functional import boxes
    >>> deltas = boxes.encode([0.0, 0.0, 4.0, 2.0], [0.0, 0.0, 2.0, 2.0])
    >>> [round(float(delta), 4) for delta in deltas]
    [0.5, 0.0, 0.6931, 0.0]

    Reference: [Girshick et al., 2014](https://arxiv.org/abs/1311.2524), appendix C.
    """
    check_arguments({"boxes (..., 4)": boxes, "anchors (..., 4)": anchors, "stds (4)": stds})
    x, y, width, height = _centre_form(boxes)
    anchor_x, anchor_y, anchor_width, anchor_height = _centre_form(anchors)
    deltas = [
        (x - anchor_x) / anchor_width,
        (y - anchor_y) / anchor_height,
        ops.log(width / anchor_width),
        ops.log(height / anchor_height),
    ]
    return ops.stack(deltas, axis=-1) / ops.convert_to_tensor(stds, "float32")


def decode(
    deltas: Tensor,
    anchors: Tensor,
    stds: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
    geometry: str = "continuous",
) -> Tensor:
    """Turns deltas relative to anchors into boxes; the inverse of `encode`.

    Args:
        deltas: float tensor `(..., 4)`.
        anchors: float tensor `(..., 4)`, broadcastable to `deltas`.
        stds: four floats that `encode` divided by.
        geometry: str; only `"torchvision"` makes a difference.

    Returns:
        float32 tensor `(..., 4)` of boxes. A side grows or shrinks at most by 1000/16; with
        `"torchvision"` it shrinks without limit.

    Raises:
        ValueError: if `geometry` is not one of the three, or an argument has another shape.

    Example:

    >>> from libra_keras.functional import boxes
    >>> box = boxes.decode([0.5, 0.0, 0.0, 99.0], [0.0, 0.0, 2.0, 2.0])
    >>> [round(float(side), 3) for side in box]
    [1.0, -61.5, 3.0, 63.5]

    Reference: [Girshick et al., 2014](https://arxiv.org/abs/1311.2524), appendix C.
    """
    check_geometry(geometry)
    check_arguments({"deltas (..., 4)": deltas, "anchors (..., 4)": anchors, "stds (4)": stds})
    deltas = ops.cast(deltas, "float32") * ops.convert_to_tensor(stds, "float32")
    x1, y1, x2, y2 = _sides(anchors)
    width, height = x2 - x1, y2 - y1
    x = (x1 + x2) * 0.5 + deltas[..., 0] * width
    y = (y1 + y2) * 0.5 + deltas[..., 1] * height
    log_scale = ops.minimum(deltas[..., 2:], MAX_LOG_SCALE)
    if geometry != "torchvision":
        log_scale = ops.maximum(log_scale, -MAX_LOG_SCALE)
    half_width = 0.5 * width * ops.exp(log_scale[..., 0])
    half_height = 0.5 * height * ops.exp(log_scale[..., 1])
    return ops.stack([x - half_width, y - half_height, x + half_width, y + half_height], axis=-1)


def _sides(boxes):
    boxes = ops.cast(ops.convert_to_tensor(boxes), "float32")
    return boxes[..., 0], boxes[..., 1], boxes[..., 2], boxes[..., 3]


def _centre_form(boxes):
    x1, y1, x2, y2 = _sides(boxes)
    # Padding rows are empty: the floor keeps their logarithm and quotient finite. Real boxes have
    # been checked to be wider (data.checks), so it never touches them.
    width, height = ops.maximum(x2 - x1, 1e-4), ops.maximum(y2 - y1, 1e-4)
    return (x1 + x2) * 0.5, (y1 + y2) * 0.5, width, height


def _intersection(boxes, others):
    x1, y1, x2, y2 = (side[..., :, None] for side in _sides(boxes))
    other_x1, other_y1, other_x2, other_y2 = (side[..., None, :] for side in _sides(others))
    width = ops.minimum(x2, other_x2) - ops.maximum(x1, other_x1)
    height = ops.minimum(y2, other_y2) - ops.maximum(y1, other_y1)
    return ops.maximum(width, 0.0) * ops.maximum(height, 0.0)


def _divide_or_zero(numerator, denominator):
    # Dividing by 1 where the denominator is 0 keeps the unused branch of `where` finite.
    positive = denominator > 0
    return ops.where(positive, numerator / ops.where(positive, denominator, 1.0), 0.0)
