"""AP of the parts of a data set: by the size of objects, and by their number in an image."""

import math

import numpy as np

from libra_keras.evaluation.coco_metrics import MOST
from libra_keras.evaluation.matches import (
    ALL_SIZES,
    IOU_THRESHOLDS,
    Matches,
    Overlaps,
    average_precision,
    first_detections,
    match,
    mean_or_none,
    plain,
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
        classes `"AP"` (at IoU 0.50, 0.55 .. 0.95), `"AP50"`, `"AP75"` and `"AR"` (the recall with
        all detections), `None` where there is nothing to find; and `"class_AP"`, a list of K.

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

    The numbers are fixed, so that two data sets, or two models, can be compared. They count objects
    of all classes that are to be found; images without any have no AP, but can have false
    positives.

    Args:
        given: `Overlaps` of detections with annotations.

    Returns:
        Dict by `"0"`, `"1"`, `"2-4"`, `"5-9"`, `"10-19"` and `"20+"` of dicts: `"images"`,
        `"objects"`, and the others that `ap_by_size` returns.

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


def coco_numbers(given: Overlaps, by_size: dict[str, dict]) -> dict[str, float]:
    """Computes what `evaluate_detections` does with `max_detections=None`, many times faster.

    Args:
        given: `Overlaps` of detections with annotations.
        by_size: what `ap_by_size` has returned for them.

    Returns:
        Dict of COCO's twelve numbers, and `"AP/<class>"`; NaN where there is nothing to find.

    Example:

    >>> from libra_keras.data import shapes
    >>> from libra_keras.evaluation import ap_by_size, coco_numbers, overlaps
    >>> nothing = overlaps(shapes(2), [])
    >>> coco_numbers(nothing, ap_by_size(nothing))["AR100"]
    0.0
    """
    sizes = {name: part for name, part in by_size.items() if name != "all"}
    found: dict = {name: by_size["all"][name] for name in ("AP", "AP50", "AP75")}
    found |= {f"AP_{name}": part["AP"] for name, part in sizes.items()}
    found |= {f"AR{most}": _recall(first_detections(given, most)) for most in MOST[:-1]}
    found[f"AR{MOST[-1]}"] = by_size["all"]["AR"]
    found |= {f"AR_{name}": part["AR"] for name, part in sizes.items()}
    classes = zip(given.data.class_names, by_size["all"]["class_AP"], strict=True)
    found |= {f"AP/{name}": value for name, value in classes}
    return {name: math.nan if value is None else value for name, value in found.items()}


def _recall(given):
    matched = [match(given, iou) for iou in IOU_THRESHOLDS]
    everything = np.full(len(given.found["label"]), True)
    return mean_or_none(_recalls(given, matched, everything, given.num_objects()))


def _recalls(given, matched, chosen, objects):
    """Recall of some detections by threshold and class, NaN for classes without objects."""
    labels = given.found["label"]
    right = [np.bincount(labels[chosen & m.is_right], minlength=len(objects)) for m in matched]
    nothing = np.full((len(matched), len(objects)), np.nan)
    return np.divide(right, objects, out=nothing, where=np.broadcast_to(objects > 0, nothing.shape))


def _part(given, matched: list[Matches], chosen, among):
    """Number of objects, and the APs and the recall of some detections and objects."""
    objects, labels = given.num_objects(among), given.found["label"]
    values = [
        average_precision(labels, chosen & each.is_right, chosen & each.is_wrong, objects)
        for each in matched
    ]
    means = {"AP": values, "AP50": values[0], "AP75": values[5]}
    means["AR"] = _recalls(given, matched, chosen, objects)
    aps = {name: mean_or_none(np.asarray(value)) for name, value in means.items()}
    return {"objects": int(objects.sum()), **aps, "class_AP": plain(np.mean(values, 0))}
