"""What detections above a score are worth: curves, thresholds, confusion, calibration."""

import numpy as np

from libra_keras.evaluation.matches import (
    RECALL_POINTS,
    Matches,
    Overlaps,
    match,
    mean_or_none,
    plain,
    precision_at_recall,
)

THRESHOLDS = np.arange(100) / 100
CALIBRATION_BINS = 10


def precision_recall(given: Overlaps, min_iou: float = 0.5) -> dict:
    """Computes the curves whose mean height is COCO's AP.

    Args:
        given: `Overlaps` of detections with annotations.
        min_iou: float, minimum overlap for an object to count as found.

    Returns:
        Dict of lists: `"recall"`, the 101 points, `"precision"` at each of them or above for every
        class (K lists; `None` in those of a class without objects), and their `"mean"`.

    Example:

    >>> from libra_keras.data import shapes
    >>> from libra_keras.evaluation import overlaps, precision_recall
    >>> curves = precision_recall(overlaps(shapes(2), []))
    >>> len(curves["precision"]), curves["mean"][0]
    (6, 0.0)
    """
    matches = match(given, min_iou)
    columns = given.found["label"], matches.is_right, matches.is_wrong
    precision = precision_at_recall(*columns, given.num_objects())
    mean = [mean_or_none(column) for column in precision.T]
    return {"recall": plain(RECALL_POINTS), "precision": plain(precision), "mean": mean}


def f1_by_threshold(given: Overlaps, min_iou: float = 0.5) -> dict:
    """Computes precision, recall and F1, their harmonic mean, by score threshold.

    Args:
        given: `Overlaps` of detections with annotations.
        min_iou: float, minimum overlap for an object to count as found.

    Returns:
        Dict of `"thresholds"`, the scores 0, 0.01 .. 0.99; `"classes"`, a list of K dicts, and
        `"all"`, the same for all classes together, every object and detection counted once. Each
        has the lists `"precision"` (`None` where there is no detection), `"recall"` and `"f1"` at
        these thresholds, and `"best"`: `None`, or a dict of the score with the highest F1 among
        all scores (the highest of several), `"threshold"`, and its `"f1"`, `"precision"` and
        `"recall"`. Without objects recall and F1 are `None`.

    Example:

    >>> from libra_keras.data import shapes
    >>> from libra_keras.evaluation import f1_by_threshold, overlaps
    >>> scenes = shapes(2)
    >>> rows = [{**row, "score": 0.8} for row in scenes.annotations["annotations"]]
    >>> f1_by_threshold(overlaps(scenes, rows))["all"]["best"]["threshold"]
    0.8
    """
    matches = match(given, min_iou)
    num_objects, labels = given.num_objects(), given.found["label"]
    classes = [
        _f1_curve(given, matches, labels == k, num) for k, num in enumerate(num_objects.tolist())
    ]
    everything = _f1_curve(given, matches, np.full(len(labels), True), int(num_objects.sum()))
    return {"thresholds": plain(THRESHOLDS), "classes": classes, "all": everything}


def _f1_curve(given, matches, chosen, num_objects):
    rows = np.flatnonzero(chosen & (matches.is_right | matches.is_wrong))
    scores, right = given.found["score"][rows], np.cumsum(matches.is_right[rows])
    # A threshold keeps all detections of an equal score, or none: only the last of them ends one.
    ends = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)[: len(rows)])
    best = None
    if num_objects and len(rows):
        curve = _rates(right[ends], ends + 1, num_objects)
        place = int(np.argmax(curve["f1"]))
        best = {"threshold": float(scores[ends[place]])}
        best |= {name: float(values[place]) for name, values in curve.items()}
    kept = len(scores) - np.searchsorted(scores[::-1], THRESHOLDS)
    curve = _rates(np.append(0, right)[kept], kept, num_objects)
    return {**{name: plain(values) for name, values in curve.items()}, "best": best}


def _rates(right, kept, num_objects):
    """F1, precision and recall where `kept` detections are left, of which `right` are right."""
    nothing = np.full(len(kept), np.nan)
    precision = np.divide(right, kept, out=nothing.copy(), where=kept > 0)
    if not num_objects:
        return {"f1": nothing, "precision": precision, "recall": nothing}
    return {
        "f1": 2 * right / (kept + num_objects),
        "precision": precision,
        "recall": right / num_objects,
    }


def confusion(given: Overlaps, threshold: float, min_iou: float = 0.5) -> dict:
    """Counts which class was taken for which, among detections with at least a given score.

    The diagonal contains the matches of COCO's comparison. Then, best score first, each remaining
    detection takes the free object of another class that it overlaps most, by at least `min_iou`.
    What is left over is background. Ignored objects, and detections on them, are left out.

    Args:
        given: `Overlaps` of detections with annotations.
        threshold: float, lowest score.
        min_iou: float, minimum overlap for an object to count as found.

    Returns:
        Dict of `"counts"`, ints `(K + 1, K + 1)` as lists: row, the class of the object; column,
        that of the detection; the last row is background taken for an object, and the last column
        objects without a detection. `"threshold"` is the score.

    Example:

    >>> import numpy as np
    >>> from libra_keras.data import shapes
    >>> from libra_keras.evaluation import confusion, overlaps
    >>> scenes = shapes(2)
    >>> rows = [{**row, "score": 0.8} for row in scenes.annotations["annotations"]]
    >>> counts = np.array(confusion(overlaps(scenes, rows), 0.5)["counts"])
    >>> counts.shape, bool((counts == np.diag(np.diag(counts))).all())  # all are right
    ((7, 7), True)
    """
    matches = match(given, min_iou)
    shown = given.found["score"] >= threshold
    object_of = np.where(matches.is_right & shown, matches.object, -1)
    to_find = ~given.truth["is_ignored"]
    is_free = to_find.copy()
    is_free[object_of[object_of >= 0]] = False
    _confuse(given, matches.is_wrong & shown, is_free, min_iou, object_of)
    counted = shown & (matches.is_right | matches.is_wrong)
    background = given.data.num_classes
    rows = np.append(given.truth["label"], background)[object_of[counted]]
    counts = np.zeros((background + 1, background + 1), int)
    np.add.at(counts, (rows, given.found["label"][counted]), 1)
    counts[:background, background] = given.num_objects(is_free)
    return {"threshold": float(threshold), "counts": counts.tolist()}


def _confuse(given, is_wrong, is_free, min_iou, object_of):
    """Gives detections that are wrong to free objects of other classes, in the arrays it gets."""
    found, truth, iou = (given.pairs[name] for name in ("found", "truth", "iou"))
    kept = is_wrong[found] & is_free[truth] & (iou >= min_iou) & ~given.is_own_class
    found, truth = found[kept], truth[kept]
    order = np.lexsort((-truth, -iou[kept], found))
    for detection, thing in zip(found[order].tolist(), truth[order].tolist(), strict=True):
        if object_of[detection] < 0 and is_free[thing]:
            object_of[detection], is_free[thing] = thing, False


def calibration(given: Overlaps, min_iou: float = 0.5) -> dict:
    """Compares scores with the share of the detections that are right.

    Args:
        given: `Overlaps` of detections with annotations.
        min_iou: float, minimum overlap for an object to count as found.

    Returns:
        Dict of `"bins"`, ten dicts for the scores 0 to below 0.1, .. 0.9 to 1: `"low"`, `"high"`,
        `"count"`, `"score"`, their mean, and `"precision"`, both `None` in an empty one; and
        `"expected_error"`, the mean of `|score - precision|` of the bins, weighted by their counts
        (expected calibration error); `None` without detections.

    Raises:
        ValueError: if a score is outside 0..1.

    Example:

    >>> from libra_keras.data import shapes
    >>> from libra_keras.evaluation import calibration, overlaps
    >>> scenes = shapes(2)
    >>> rows = [{**row, "score": 0.75} for row in scenes.annotations["annotations"]]
    >>> calibration(overlaps(scenes, rows))["expected_error"]  # all are right
    0.25

    Reference: [Guo et al., 2017](https://arxiv.org/abs/1706.04599), equation 5.
    """
    matches: Matches = match(given, min_iou)
    counted = matches.is_right | matches.is_wrong
    scores, right = given.found["score"][counted], matches.is_right[counted]
    if len(scores) and not 0 <= scores.min() <= scores.max() <= 1:
        raise ValueError(f"Expected scores in 0..1. Received: {scores.min()} to {scores.max()}")
    edges = np.arange(CALIBRATION_BINS + 1) / CALIBRATION_BINS
    place = np.minimum(np.searchsorted(edges, scores, side="right") - 1, CALIBRATION_BINS - 1)
    count = np.bincount(place, minlength=CALIBRATION_BINS)
    sums = [np.bincount(place, weights, CALIBRATION_BINS) for weights in (scores, right)]
    score, precision = (
        np.divide(each, count, out=np.full(len(count), np.nan), where=count > 0) for each in sums
    )
    error = np.nansum(np.abs(score - precision) * count) / len(scores) if len(scores) else None
    bins = zip(
        *(plain(each) for each in (edges[:-1], edges[1:])),
        count.tolist(),
        plain(score),
        plain(precision),
        strict=True,
    )
    names = "low", "high", "count", "score", "precision"
    return {
        "bins": [dict(zip(names, row, strict=True)) for row in bins],
        "expected_error": None if error is None else float(error),
    }
