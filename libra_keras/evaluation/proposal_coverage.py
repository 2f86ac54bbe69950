"""Whether proposals reach the objects at all: a number that a few images tell."""

import math

import numpy as np


def proposal_coverage(data, proposals, min_iou=0.5):
    """Returns the share of the objects that some proposal overlaps enough.

    Args:
        data: `DetectionData`; boxes to be ignored do not count.
        proposals: list of dicts with `"image_id"` and `"boxes"` `(n, 4)` in pixels of the file, as
            `collect_proposals` returns it. Images without one do not count.
        min_iou: float, the overlap (IoU) that is enough. Defaults to 0.5.

    Returns:
        float in [0, 1]; NaN if there are no objects.

    Example:

    >>> import numpy as np
    >>> from libra_keras.data import Example, DetectionData
    >>> from libra_keras.evaluation.proposal_coverage import proposal_coverage
    >>> boxes, labels = np.array([[0, 0, 40, 40], [50, 0, 60, 10]], "float32"), np.zeros(2, int)
    >>> example = Example(7, "7.jpg", 60, 80, boxes, labels, np.zeros(2, bool))
    >>> data = DetectionData("two cats", ("cat",), (1,), [example], {})
    >>> proposal_coverage(data, [{"image_id": 7, "boxes": [[0, 0, 40, 30]]}])
    0.5
    """
    by_id = {image["image_id"]: image["boxes"] for image in proposals}
    found = [
        _best_iou(example.boxes[~example.ignore], by_id[example.image_id]) >= min_iou
        for example in data.examples
        if example.image_id in by_id
    ]
    found = np.concatenate([*found, np.zeros(0, bool)])
    return float(found.mean()) if len(found) else math.nan


def _best_iou(boxes, proposals):
    """The largest IoU `(n,)` of every box with a proposal."""
    boxes = np.asarray(boxes, "float64").reshape(-1, 1, 4)
    others = np.asarray(proposals, "float64").reshape(1, -1, 4)
    corners = (
        np.minimum(boxes[..., 2:], others[..., 2:]),
        np.maximum(boxes[..., :2], others[..., :2]),
    )
    shared = np.prod(np.maximum(corners[0] - corners[1], 0), -1)
    areas = [np.prod(each[..., 2:] - each[..., :2], -1) for each in (boxes, others)]
    iou = shared / np.maximum(areas[0] + areas[1] - shared, 1e-12)
    return iou.max(-1, initial=0.0)
