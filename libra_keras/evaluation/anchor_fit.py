"""How well the anchors of a detector suit objects of given sizes, and what to do if they do not."""

import dataclasses
from collections.abc import Sequence

import numpy as np

POOR, BAD = 0.5, 0.3  # IoU of an object with its best anchor
MANY = 0.05  # of the objects: a sentence about them


@dataclasses.dataclass(frozen=True)
class Anchors:
    """Anchors of a pyramid, as the settings of a detector's head state them.

    Args:
        strides: pixels from cell to cell of each level, finest first.
        scales: side of a square anchor in strides.
        ratios: height divided by width.

    Example:

    >>> from libra_keras.evaluation import Anchors
    >>> Anchors(strides=(4, 8), scales=(8,), ratios=(1,)).shapes()
    [(4, 32.0, 32.0), (8, 64.0, 64.0)]
    """

    strides: Sequence[float]
    scales: Sequence[float]
    ratios: Sequence[float]

    def shapes(self) -> list[tuple[float, float, float]]:
        """Returns stride, width and height in pixels of all anchors of a cell, level by level."""
        return [
            (stride, stride * scale / ratio**0.5, stride * scale * ratio**0.5)
            for stride in self.strides
            for ratio in self.ratios
            for scale in self.scales
        ]


def best_anchors(
    boxes: np.ndarray, padded_sizes: np.ndarray, anchors: Anchors
) -> tuple[np.ndarray, np.ndarray]:
    """Position in `anchors.shapes()` of the anchor that overlaps each box most, and its IoU.

    Boxes `(M, 4)` are in the pixels of the input, and `padded_sizes` `(M, 2)` heights and widths of
    their images. The centres are those of `functional.anchors` in the geometry `"continuous"`. Of
    equal overlaps, the one whose ratio is nearest to the box's counts.
    """
    best, iou = np.zeros(len(boxes), int), np.zeros(len(boxes))
    strangeness = np.full(len(boxes), np.inf)
    width, height = (boxes[:, 2:] - boxes[:, :2]).T
    for position, (stride, *size) in enumerate(anchors.shapes()):
        overlap = _nearest_overlap(boxes, padded_sizes, stride, np.array(size))
        strange = np.abs(np.log(height / width * size[0] / size[1]))
        # A small box lies inside the anchors of all ratios, and overlaps each as much.
        better = np.where(np.abs(overlap - iou) > 1e-9, overlap > iou, strange < strangeness)
        best[better], iou[better], strangeness[better] = position, overlap[better], strange[better]
    return best, iou


def _nearest_overlap(boxes, padded_sizes, stride, size):
    """IoU with the anchor of one shape whose centre is nearest: no other cell's is higher."""
    last = np.ceil(padded_sizes[:, ::-1] / stride) - 1
    centres = np.clip(np.round((boxes[:, :2] + boxes[:, 2:]) / 2 / stride), 0, last) * stride
    ends = np.minimum(boxes[:, 2:], centres + size / 2)
    shared = np.prod(np.maximum(ends - np.maximum(boxes[:, :2], centres - size / 2), 0), -1)
    return shared / (np.prod(boxes[:, 2:] - boxes[:, :2], -1) + np.prod(size) - shared)


def anchor_counts(best: np.ndarray, anchors: Anchors) -> list[dict]:
    """How many objects each anchor of a cell fits best: dicts for JSON."""
    counts = np.bincount(best, minlength=len(anchors.shapes())).tolist()
    return [
        {
            "stride": stride,
            "side": (width * height) ** 0.5,
            "ratio": height / width,
            "objects": objects,
        }
        for (stride, width, height), objects in zip(anchors.shapes(), counts, strict=True)
    ]


def advice(boxes: np.ndarray, iou: np.ndarray, anchors: Anchors, inputs: list[dict]) -> list[str]:
    """States which objects no anchor suits, why, and what would help.

    `inputs` are the shares of such objects by the sides of the input, the present ones first, as
    `label_statistics` returns them.
    """
    width, height = (boxes[:, 2:] - boxes[:, :2]).T
    sides, poor = np.sqrt(width * height), iou < POOR
    anchor_sides = [(w * h) ** 0.5 for _, w, h in anchors.shapes()]
    finest, coarsest = min(anchor_sides), max(anchor_sides)
    small, large = poor & (sides < finest), poor & (sides > coarsest)
    shaped = poor & ~small & ~large
    lines = []
    if small.sum() > MANY * len(sides):
        lines.append(
            f"{small.mean():.0%} of the objects are smaller than the finest anchors ({finest:.3g} "
            f"pixels) and overlap none by half: their median side is {np.median(sides[small]):.3g} "
            f"pixels in the input. {_with_larger(inputs)}; or give the anchors a smaller scale"
        )
    if large.sum() > MANY * len(sides):
        lines.append(
            f"{large.mean():.0%} of the objects are larger than the coarsest anchors "
            f"({coarsest:.3g} pixels) and overlap none by half: their median side is "
            f"{np.median(sides[large]):.3g} pixels in the input. Lower --short-side and "
            "--long-side, or give the anchors a larger scale"
        )
    if shaped.sum() > MANY * len(sides):
        low, high = np.percentile((height / width)[shaped], (5, 95))
        lines.append(
            f"{shaped.mean():.0%} of the objects have a size that anchors cover, but overlap none "
            f"by half: for nine in ten of them, height over width is {low:.2g} to {high:.2g}, and "
            f"for the anchors {min(anchors.ratios):.2g} to {max(anchors.ratios):.2g}. Give the "
            "anchors more ratios or scales"
        )
    return lines


def _with_larger(inputs):
    now, *others = (f"{each[f'below_{POOR}']:.0%}" for each in inputs)
    options = [
        f"{share} with --short-side {each['short_side']} --long-side {each['long_side']}"
        for share, each in zip(others, inputs[1:], strict=True)
    ]
    return f"The objects that overlap none by half, now {now}, would be {' and '.join(options)}"
