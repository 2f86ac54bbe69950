"""Resampled images: what AP or recall would have been on other images of the same kind."""

import numpy as np
from numpy.typing import NDArray

from libra_keras.data import DetectionData
from libra_keras.evaluation import detections_to_coco
from libra_keras.evaluation.comparison import matched
from libra_keras.evaluation.matches import IOU_THRESHOLDS, RECALL_POINTS, Overlaps, match

RESAMPLES = 200
EPSILON = np.spacing(1)


def resampled_images(number: int, resamples: int = RESAMPLES) -> NDArray:
    """How often each image is drawn, `(resamples, number)`; the same for every run."""
    draws = np.random.default_rng(0).integers(number, size=(resamples, number))
    return np.stack([np.bincount(draw, minlength=number) for draw in draws])


def resampled_ap(given: Overlaps, counts: NDArray) -> NDArray:
    """AP, AP50 and AP75 with images as often as `counts` `(R, images)` says: `(R, 3)`."""
    values = np.empty((len(IOU_THRESHOLDS), given.data.num_classes, len(counts)))
    for i, iou in enumerate(IOU_THRESHOLDS):
        for label, own in enumerate(_by_class(given, match(given, iou))):
            values[i, label] = [_average_precision(*own, images) for images in counts]
    ap = np.nanmean(values, axis=1)  # (T, R): over classes
    return np.stack([ap.mean(axis=0), ap[0], ap[5]], axis=1)


def resampled_recall(
    data: DetectionData, proposals: list[dict], counts: NDArray, most: tuple[int, ...]
) -> NDArray:
    """AR at each number of proposals, `(R, len(most))`, with images as often as in `counts`."""
    one_class = [{**image, "labels": np.zeros(len(image["scores"]), int)} for image in proposals]
    rows = detections_to_coco(one_class, data.category_ids[:1])
    comparison = matched(data, rows, list(data.category_ids), most, False, by_size=False)
    return np.stack([_found_recall(comparison, number, counts) for number in most], axis=1)


def _by_class(given, found):
    """Of each class: the image of each detection that counts, whether it is right, and the objects
    of each image."""
    truth, counted = given.truth, found.is_right | found.is_wrong
    for label in range(given.data.num_classes):
        own = counted & (given.found["label"] == label)
        objects = truth["image"][(truth["label"] == label) & ~truth["is_ignored"]]
        number = np.bincount(objects, minlength=len(given.image_ids))
        yield given.found["image"][own], found.is_right[own], number


def _average_precision(image, is_right, objects, counts):
    """AP of a class at one threshold; NaN where no object is among these images."""
    total = counts @ objects
    if not total:
        return np.nan
    # Precision is highest, and recall grows, where a detection is right.
    right = np.cumsum(counts[image[is_right]])
    precision = right / (np.cumsum(counts[image])[is_right] + EPSILON)
    best = np.maximum.accumulate(precision[::-1])[::-1]  # at this recall or a higher one
    return np.append(best, 0)[np.searchsorted(right / total, RECALL_POINTS)].mean()


def _found_recall(comparison, number, counts):
    """Mean recall over the thresholds, `(R,)`, of a comparison without classes."""
    images = {image: i for i, image in enumerate(comparison.params.imgIds)}
    found = np.zeros((len(comparison.params.iouThrs), len(images)))
    objects = np.zeros(len(images))
    for each in filter(None, comparison.evalImgs):
        place = images[each["image_id"]]
        right = (each["dtMatches"] > 0) & ~np.asarray(each["dtIgnore"], bool)
        found[:, place] = right[:, :number].sum(axis=1)
        objects[place] = np.sum(np.asarray(each["gtIgnore"]) == 0)
    return (counts @ found.T / (counts @ objects)[:, None]).mean(axis=1)
