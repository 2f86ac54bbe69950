"""Resampled images: what AP or recall would have been on other images of the same kind."""

import numpy as np
from numpy.typing import NDArray

from libra_keras.data import DetectionData
from libra_keras.evaluation import detections_to_coco
from libra_keras.evaluation.comparison import matched

RESAMPLES = 200
RECALL_POINTS = np.linspace(0, 1, 101)  # COCO's
EPSILON = np.spacing(1)


def resampled_images(number: int, resamples: int = RESAMPLES) -> NDArray:
    """How often each image is drawn, `(resamples, number)`; the same for every run."""
    draws = np.random.default_rng(0).integers(number, size=(resamples, number))
    return np.stack([np.bincount(draw, minlength=number) for draw in draws])


def resampled_ap(data: DetectionData, detections: list[dict], counts: NDArray) -> NDArray:
    """AP, AP50 and AP75 with images as often as `counts` `(R, images)` says: `(R, 3)`."""
    rows = detections_to_coco(detections, data.category_ids)
    comparison = matched(data, rows, list(data.category_ids), by_size=False)
    classes = _by_class(comparison, comparison.params.maxDets[-1])
    values = np.array([[_average_precision(each, own) for each in classes] for own in counts])
    ap = np.nanmean(values, axis=1)  # (R, T): over classes
    return np.stack([ap.mean(axis=1), ap[:, 0], ap[:, 5]], axis=1)


def resampled_recall(
    data: DetectionData, proposals: list[dict], counts: NDArray, most: tuple[int, ...]
) -> NDArray:
    """AR at each number of proposals, `(R, len(most))`, with images as often as in `counts`."""
    one_class = [{**image, "labels": np.zeros(len(image["scores"]), int)} for image in proposals]
    rows = detections_to_coco(one_class, data.category_ids[:1])
    comparison = matched(data, rows, list(data.category_ids), most, False, by_size=False)
    recalls = []
    for number in most:
        (own,) = _by_class(comparison, number)
        found = np.zeros((own["right"].shape[0], counts.shape[1]))
        np.add.at(found.T, own["image"], own["right"].T)
        objects = counts @ own["objects"]
        recalls.append((counts @ found.T / objects[:, None]).mean(axis=1))
    return np.stack(recalls, axis=1)


def _by_class(comparison, most):
    """Of each class: its detections by score, their images, and which thresholds they pass."""
    images = {image: i for i, image in enumerate(comparison.params.imgIds)}
    classes = {}
    for found in comparison.evalImgs:
        if found is not None:
            classes.setdefault(found["category_id"], []).append(found)
    return [_joined(found, images, most) for found in classes.values()]


def _joined(found, images, most):
    objects = np.zeros(len(images), int)
    for each in found:
        objects[images[each["image_id"]]] = np.sum(np.asarray(each["gtIgnore"]) == 0)
    parts = [(each, images[each["image_id"]]) for each in found]
    scores = np.concatenate([each["dtScores"][:most] for each, _ in parts])
    order = np.argsort(-scores, kind="mergesort")  # as pycocotools
    image = np.concatenate([np.full(len(each["dtScores"][:most]), i) for each, i in parts])
    matches, ignored = (
        np.concatenate([each[name][:, :most] for each, _ in parts], axis=1)[:, order]
        for name in ("dtMatches", "dtIgnore")
    )
    counted = np.logical_not(ignored)
    is_match = matches.astype(bool)
    return {
        "image": image[order].astype(int),
        "right": is_match & counted,
        "wrong": ~is_match & counted,
        "objects": objects,
    }


def _average_precision(own, counts):
    """AP of a class at each threshold, `(T,)`; NaN where no object is among these images."""
    objects = counts @ own["objects"]
    if not objects:
        return np.full(len(own["right"]), np.nan)
    weights = counts[own["image"]]
    right = np.cumsum(own["right"] * weights, axis=1)
    wrong = np.cumsum(own["wrong"] * weights, axis=1)
    precision = right / (right + wrong + EPSILON)
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    precision = np.concatenate([precision, np.zeros((len(precision), 1))], axis=1)
    recall = right / objects
    places = [np.searchsorted(each, RECALL_POINTS, side="left") for each in recall]
    return np.take_along_axis(precision, np.stack(places), axis=1).mean(axis=1)
