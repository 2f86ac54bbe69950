"""AP of the parts of a data set: by the size of objects, and by how many stand in an image."""

import numpy as np

from libra_keras.evaluation.matches import (
    ALL_SIZES,
    IOU_THRESHOLDS,
    Matches,
    Overlaps,
    average_precision,
    match,
    mean_or_none,
)

# COCO's, by the annotated area in square pixels of the file.
SIZES = {
    "all": ALL_SIZES,
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, ALL_SIZES[1]),
}
CROWDING = {"0": (0, 0), "1": (1, 1), "2-4": (2, 4), "5-9": (5, 9), "10-19": (10, 19)}
CROWDING |= {"20+": (20, 2**62)}


def ap_by_size(given: Overlaps) -> dict[str, dict]:
    """Computes COCO's AP for objects of all sizes, and for small, medium and large ones.

    Args:
        given: `Overlaps` of detections with annotations.

    Returns:
        Dict by `"all"`, `"small"`, `"medium"` and `"large"` (areas of up to 32 x 32, of up to
        96 x 96, and of more pixels) of dicts: `"objects"`, their number, and the means over the
        classes `"AP"` (at IoU 0.50, 0.55 .. 0.95), `"AP50"` and `"AP75"`, `None` where there is
        nothing to find.

    Example:

    >>> from libra_keras.data import shapes
    >>> from libra_keras.evaluation import ap_by_size, overlaps
    >>> ap_by_size(overlaps(shapes(2), []))["all"]["AP"]
    0.0
    """
    parts = {}
    for name, (low, high) in SIZES.items():
        among = (given.truth["area"] >= low) & (given.truth["area"] <= high)
        matched = [match(given, iou, (low, high)) for iou in IOU_THRESHOLDS]
        parts[name] = _part(given, matched, np.full(len(given.found["label"]), True), among)
    return parts


def ap_by_crowding(given: Overlaps) -> dict[str, dict]:
    """Computes the AP on the images with 1, 2 to 4, 5 to 9, 10 to 19 and 20 or more objects.

    The numbers are fixed, so that two data sets, or two models, can be compared. They count
    objects of all classes that are to be found; where there is none, there is no AP, but there are
    false positives.

    Args:
        given: `Overlaps` of detections with annotations.

    Returns:
        Dict by `"0"`, `"1"`, `"2-4"`, `"5-9"`, `"10-19"` and `"20+"` of dicts: `"images"`,
        `"objects"`, and `"AP"`, `"AP50"` and `"AP75"` as `ap_by_size` returns them.

    Example:

    >>> from libra_keras.data import shapes
    >>> from libra_keras.evaluation import ap_by_crowding, overlaps
    >>> parts = ap_by_crowding(overlaps(shapes(2), []))
    >>> sum(part["images"] for part in parts.values())
    2
    """
    to_find = ~given.truth["is_ignored"]
    number = np.bincount(given.truth["image"][to_find], minlength=len(given.image_ids))
    matched = [match(given, iou) for iou in IOU_THRESHOLDS]
    parts = {}
    for name, (low, high) in CROWDING.items():
        images = (number >= low) & (number <= high)
        part = _part(given, matched, images[given.found["image"]], images[given.truth["image"]])
        parts[name] = {"images": int(images.sum()), **part}
    return parts


def _part(given, matched: list[Matches], chosen, among):
    """Number of objects and the three APs of some detections and objects."""
    objects, labels = given.num_objects(among), given.found["label"]
    values = [
        average_precision(labels, chosen & each.is_right, chosen & each.is_wrong, objects)
        for each in matched
    ]
    means = {"AP": values, "AP50": values[0], "AP75": values[5]}
    aps = {name: mean_or_none(np.asarray(value)) for name, value in means.items()}
    return {"objects": int(objects.sum()), **aps}
