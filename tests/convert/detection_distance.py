"""How far two lists of detections are apart; NumPy alone, so that other environments can run it."""

import numpy as np


def detection_distance(found, expected):
    """Pairs detections one to one, and returns the largest distances of a pair.

    Both lists are in the order of their scores, so equal scores of all pairs imply the same order
    up to ties.

    Args:
        found, expected: dicts of `"boxes"` `(n, 4)`, `"scores"` `(n,)` and `"labels"` `(n,)`.

    Returns:
        Tuple of the largest differences of a coordinate and of a score; infinite if the two have
        not as many detections of each label.
    """
    if sorted(found["labels"]) != sorted(expected["labels"]):
        return np.inf, np.inf
    boxes = np.abs(_cross(found["boxes"], expected["boxes"])).max(-1)
    scores = np.abs(_cross(found["scores"], expected["scores"]))
    distance = boxes + 1000 * scores  # a tenth of a pixel weighs as much as 1e-4 of a score
    distance[_cross(found["labels"], expected["labels"]) != 0] = np.inf
    pairs = []
    for row in np.argsort(distance.min(1), kind="stable"):  # the surest pairs first
        column = int(np.argmin(distance[row]))
        pairs.append((boxes[row, column], scores[row, column]))
        distance[:, column] = np.inf
    return tuple(np.max(pairs, axis=0)) if pairs else (0.0, 0.0)


def _cross(a, b):
    return np.asarray(a, "float64")[:, None] - np.asarray(b, "float64")[None, :]
