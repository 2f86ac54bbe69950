"""Pascal VOC's average precision at IoU 0.5, in both of its forms."""

import numpy as np
from numpy.typing import ArrayLike

from libra_keras.data import DetectionData
from libra_keras.evaluation.coco_metrics import detections_to_coco
from libra_keras.evaluation.comparison import check_images

MIN_IOU = 0.5
RECALL_POINTS = np.arange(11) / 10  # quotients: a recall of 3 / 10 is not below the fourth of them
VOC_METRICS = ("VOC_AP50_07", "VOC_AP50_area")


def voc_ap(data: DetectionData, detections: list[dict]) -> dict[str, float]:
    """Computes Pascal VOC's AP at IoU 0.5 as its development kits do.

    `"VOC_AP50_07"` is the measure of VOC 2007, the mean of the precision at recall 0, 0.1 .. 1;
    `"VOC_AP50_area"` that of 2010 and later, the area under the curve. Both take the best
    precision at this recall or a higher one. Best score first, the object of its class that a
    detection overlaps most decides: below IoU 0.5 the detection is wrong; if the object is
    difficult, it does not count; the first detection of an object is right, every further one
    wrong. COCO's comparison would match a further one with another object. All detections count,
    however many.

    The kit adds 1 to every width: its corners name the first and the last pixel. Boxes here are
    half-open, so the same pixels have the same IoU without it: `data.voc` reads `(xmin, ymin,
    xmax, ymax)` as `[xmin - 1, ymin - 1, xmax, ymax]`, and a detection must be written for the kit
    as `(x1 + 1, y1 + 1, x2, y2)`.

    Args:
        data: `DetectionData`; its `annotations` and `category_ids` are used. Objects with a true
            `"ignore"` or `"iscrowd"` are difficult.
        detections: list of dicts as `collect_detections` returns it.

    Returns:
        Dict of floats in [0, 1]: `"VOC_AP50_07"` and `"VOC_AP50_area"`, the means over the
        classes, and the two of every class, `"VOC_AP50_07/<class>"` and `"VOC_AP50_area/<class>"`.
        A class without objects to find is NaN, and does not enter the means.

    Raises:
        ValueError: if a detection has a label out of range, or belongs to an image that is unknown
            or came twice.

    Example:

    >>> from libra_keras.data import DetectionData
    >>> from libra_keras.evaluation import voc_ap
    >>> row = {"image_id": 7, "category_id": 3}
    >>> annotations = {
    ...     "images": [{"id": 7, "height": 60, "width": 80}],
    ...     "annotations": [{**row, "id": i + 1, "bbox": [40 * i, 0, 40, 40]} for i in (0, 1)],
    ...     "categories": [{"id": 3, "name": "cat"}],
    ... }
    >>> data = DetectionData("two cats", ("cat",), (3,), [], annotations)
    >>> found = [{"image_id": 7, "boxes": [[0, 0, 40, 30]], "scores": [0.9], "labels": [0]}]
    >>> metrics = voc_ap(data, found)  # one of two: precision 1 up to recall 0.5
    >>> {name: round(value, 3) for name, value in metrics.items() if "/" not in name}
    {'VOC_AP50_07': 0.545, 'VOC_AP50_area': 0.5}

    Reference: [The Pascal Visual Object Classes (VOC) Challenge](
    https://doi.org/10.1007/s11263-009-0275-4), section 4.2, and the kits' `VOCevaldet.m`.
    """
    check_images(data, detections)
    truth, difficult = _truth(data)
    rows = detections_to_coco(detections, data.category_ids)
    rows = sorted(rows, key=lambda row: -row["score"])
    found = _columns(rows, data)
    counts, is_right = _compare(found, truth, difficult)
    num_objects = np.bincount(truth["label"][~difficult], minlength=data.num_classes)
    metrics = {}
    for form in VOC_METRICS:
        values = [
            average_precision(is_right[counts & (found["label"] == k)], num, form)
            for k, num in enumerate(num_objects.tolist())
        ]
        present = [value for value in values if not np.isnan(value)]
        metrics[form] = float(np.mean(present)) if present else float("nan")
        names = [f"{form}/{name}" for name in data.class_names]
        metrics |= dict(zip(names, values, strict=True))
    return metrics


def average_precision(is_right: ArrayLike, num_objects: int, form: str) -> float:
    """The AP of a class from whether each detection is right, best score first, or NaN."""
    if not num_objects:
        return float("nan")
    right = np.cumsum(np.asarray(is_right, bool))
    recall = np.concatenate([[0], right / num_objects])
    precision = right / np.arange(1, len(right) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]  # at this recall or a higher one
    if form == "VOC_AP50_area":
        return float(np.sum(np.diff(recall) * best))
    reached = np.searchsorted(recall[1:], RECALL_POINTS)
    return float(np.append(best, 0)[reached].mean())


def _truth(data):
    """The annotated objects as columns, those of one class and image together; the difficult."""
    known = set(data.category_ids)
    rows = [row for row in data.annotations["annotations"] if row["category_id"] in known]
    truth = _columns(rows, data)
    difficult = np.array([bool(row.get("iscrowd") or row.get("ignore")) for row in rows], bool)
    order = np.argsort(truth["group"], kind="stable")
    return {name: column[order] for name, column in truth.items()}, difficult[order]


def _columns(rows, data):
    """Boxes float64 `(n, 4)`, labels, and a number for each pair of class and image."""
    labels = {category: label for label, category in enumerate(data.category_ids)}
    positions = {image["id"]: i for i, image in enumerate(data.annotations["images"])}
    boxes = np.array([row["bbox"] for row in rows], "float64").reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    label = np.array([labels[row["category_id"]] for row in rows], "int64")
    image = np.array([positions[row["image_id"]] for row in rows], "int64")
    return {"boxes": boxes, "label": label, "group": label * len(positions) + image}


def _compare(found, truth, difficult):
    """Which detections count, and which are right: two bool `(n,)`; the order is that of scores."""
    first, last = (np.searchsorted(truth["group"], found["group"], s) for s in ("left", "right"))
    number = last - first  # objects that each detection is compared with
    row = np.repeat(np.arange(len(number)), number)
    place = np.arange(len(row)) - np.repeat(np.cumsum(number) - number, number)
    other = first[row] + place
    overlap = _iou(found["boxes"][row], truth["boxes"][other])
    order = np.lexsort((other, -overlap, row))  # of equal overlaps the first object, as in the kit
    row, other, overlap = row[order], other[order], overlap[order]
    is_best = np.append(True, row[1:] != row[:-1])[: len(row)] & (overlap >= MIN_IOU)
    row, other = row[is_best], other[is_best]
    counts, is_right = np.ones(len(number), bool), np.zeros(len(number), bool)
    counts[row[difficult[other]]] = False
    _, first = np.unique(other, return_index=True)
    is_right[row[first]] = True
    return counts, is_right


def _iou(boxes, others):
    """IoU of the boxes of two lists, pair by pair."""
    sides = np.minimum(boxes[:, 2:], others[:, 2:]) - np.maximum(boxes[:, :2], others[:, :2])
    shared = np.prod(np.maximum(sides, 0), -1)
    areas = [np.prod(each[:, 2:] - each[:, :2], -1) for each in (boxes, others)]
    return shared / np.maximum(sum(areas) - shared, 1e-12)
