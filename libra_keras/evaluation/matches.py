"""Objects and detections as columns, and which detection finds which object: COCO's rule.

What explains an AP (kinds of errors, curves, calibration) needs every match, not only the means
that pycocotools returns; and it needs them fast, since it counts many times.
"""

import dataclasses

import numpy as np

from libra_keras.data import DetectionData
from libra_keras.evaluation.coco_metrics import MOST

Columns = dict[str, np.ndarray]
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_POINTS = np.linspace(0, 1, 101)
ALL_SIZES = (0.0, 1e10)  # square pixels
PAIRS_AT_ONCE = 1_000_000  # whose overlap is computed; a block of them takes 0.2 GB


@dataclasses.dataclass(frozen=True, eq=False)
class Overlaps:
    """Objects and detections of a data set, and the overlap of every pair that shares pixels.

    Args:
        data: the `DetectionData`.
        image_ids: int64 `(I,)`, increasing.
        truth: columns of the G objects, in the order of the annotations: `"image"` (position in
            `image_ids`), `"label"`, `"box"` float64 `(G, 4)` `(x, y, width, height)`, `"area"`,
            and bool `"is_crowd"` and `"is_ignored"`; crowds are ignored, too.
        found: columns of the D detections, best score first: `"image"`, `"label"`, `"box"`,
            `"score"`. No more than 100 of a class in an image.
        pairs: columns of the overlaps above 0: `"found"` and `"truth"`, positions in these columns,
            and `"iou"`; that of a crowd is the share of the detection that lies inside it.
    """

    data: DetectionData
    image_ids: np.ndarray
    truth: Columns
    found: Columns
    pairs: Columns

    @property
    def is_own_class(self) -> np.ndarray:
        """Whether object and detection of each pair have the same class: bool `(P,)`."""
        return self.found["label"][self.pairs["found"]] == self.truth["label"][self.pairs["truth"]]

    def num_objects(self, among: np.ndarray | None = None) -> np.ndarray:
        """Objects to find of every class, int `(K,)`; of those that a mask `(G,)` selects."""
        chosen = ~self.truth["is_ignored"] if among is None else among & ~self.truth["is_ignored"]
        return np.bincount(self.truth["label"][chosen], minlength=self.data.num_classes)


@dataclasses.dataclass(frozen=True, eq=False)
class Matches:
    """What became of every detection: its object, whether it is right, whether it counts at all."""

    object: np.ndarray  # int (D,), position of the object; -1 for none
    is_right: np.ndarray  # bool (D,)
    is_wrong: np.ndarray  # bool (D,); one on an ignored object is neither


def overlaps(data: DetectionData, rows: list[dict]) -> Overlaps:
    """Compares detections with annotations.

    Objects whose category is not a class of the data are left out, as they are in the AP.

    Args:
        data: `DetectionData`; its `annotations` and `category_ids` are used.
        rows: detections as `detections_to_coco` returns them, in any order.

    Raises:
        ValueError: if a detection has an unknown image or category, or a score or a box that is
            not finite.

    Example:

    >>> from libra_keras.data import DetectionData
    >>> from libra_keras.evaluation import overlaps
    >>> row = {"image_id": 7, "category_id": 3}
    >>> annotations = {
    ...     "images": [{"id": 7, "height": 60, "width": 80}],
    ...     "annotations": [{**row, "id": 1, "bbox": [0, 0, 40, 40]}],
    ...     "categories": [{"id": 3, "name": "cat"}],
    ... }
    >>> data = DetectionData("one cat", ("cat",), (3,), [], annotations)
    >>> overlaps(data, [{**row, "bbox": [0, 0, 40, 30], "score": 0.9}]).pairs["iou"].tolist()
    [0.75]
    """
    image_ids = np.unique(np.array([i["id"] for i in data.annotations["images"]], "int64"))
    truth, found = _truth(data, image_ids), _found(data, image_ids, rows)
    return Overlaps(data, image_ids, truth, found, _pairs(truth, found))


def first_detections(given: Overlaps, most: int) -> Overlaps:
    """Returns the same with no more than `most` detections of a class in an image."""
    group = given.found["image"] * given.data.num_classes + given.found["label"]
    kept = _place_in_group(group) < most
    pairs = {name: column[kept[given.pairs["found"]]] for name, column in given.pairs.items()}
    pairs["found"] = (np.cumsum(kept) - 1)[pairs["found"]]
    found = {name: column[kept] for name, column in given.found.items()}
    return dataclasses.replace(given, found=found, pairs=pairs)


def match(given: Overlaps, min_iou: float = 0.5, areas: tuple[float, float] = ALL_SIZES) -> Matches:
    """Gives detections to objects as COCO's comparison does.

    Best score first, each detection takes the free object of its class that it overlaps most. If
    there is none, and an ignored one overlaps it enough, the detection does not count. Objects with
    an area outside `areas`, in square pixels, are ignored, and so are detections of such a size
    that match nothing.
    """
    ignored = given.truth["is_ignored"] | _outside(given.truth["area"], areas)
    kept = given.is_own_class & (given.pairs["iou"] >= min_iou)
    found, truth, iou = (given.pairs[name][kept] for name in ("found", "truth", "iou"))
    # Of equal overlaps pycocotools takes the last object.
    order = np.lexsort((-truth, -iou, ignored[truth], found))
    taken = _first_free(found[order], truth[order], given)
    is_matched = taken >= 0
    is_right = is_matched.copy()
    is_right[is_matched] = ~ignored[taken[is_matched]]
    area = np.prod(given.found["box"][:, 2:], -1)
    return Matches(taken, is_right, ~is_matched & ~_outside(area, areas))


def precision_at_recall(
    labels: np.ndarray, is_right: np.ndarray, is_wrong: np.ndarray, num_objects: np.ndarray
) -> np.ndarray:
    """Interpolated precision `(K, 101)` of every class at recall 0, 0.01 .. 1.

    Detections come best score first. A class without objects is NaN; the mean over the recall
    points is pycocotools' AP.
    """
    precision = np.zeros((len(num_objects), len(RECALL_POINTS)))
    counted = np.flatnonzero(is_right | is_wrong)
    counted = counted[np.argsort(labels[counted], kind="stable")]
    ends = np.searchsorted(labels[counted], np.arange(len(num_objects)), side="right")
    for k, rows in enumerate(np.split(counted, ends)[: len(num_objects)]):
        right = np.cumsum(is_right[rows])
        exact = right / np.arange(1, len(rows) + 1)
        best = np.maximum.accumulate(exact[::-1])[::-1]  # at this recall or a higher one
        reached = np.searchsorted(right / max(num_objects[k], 1), RECALL_POINTS)
        precision[k] = np.append(best, 0)[reached]
    precision[num_objects == 0] = np.nan
    return precision


def average_precision(
    labels: np.ndarray, is_right: np.ndarray, is_wrong: np.ndarray, num_objects: np.ndarray
) -> np.ndarray:
    """AP of every class, `(K,)`; NaN for those without objects."""
    return precision_at_recall(labels, is_right, is_wrong, num_objects).mean(-1)


def mean_or_none(values: np.ndarray) -> float | None:
    """Mean of the numbers of an array that are not NaN; `None` without any."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else None


def plain(values: np.ndarray) -> list:
    """An array as the lists that JSON holds, `None` for NaN."""
    values = np.asarray(values, "float64")
    entries = values.astype(object)
    entries[np.isnan(values)] = None
    return entries.tolist()


def _truth(data, image_ids):
    labels = {category: label for label, category in enumerate(data.category_ids)}
    rows = [row for row in data.annotations["annotations"] if row["category_id"] in labels]
    areas = [row.get("area", row["bbox"][2] * row["bbox"][3]) for row in rows]
    is_crowd = np.array([bool(row.get("iscrowd")) for row in rows], bool)
    return {
        "image": np.searchsorted(image_ids, [row["image_id"] for row in rows]),
        "label": np.array([labels[row["category_id"]] for row in rows], "int64"),
        "box": np.array([row["bbox"] for row in rows], "float64").reshape(-1, 4),
        "area": np.array(areas, "float64"),
        "is_crowd": is_crowd,
        "is_ignored": is_crowd | np.array([bool(row.get("ignore")) for row in rows], bool),
    }


def _found(data, image_ids, rows):
    labels = {category: label for label, category in enumerate(data.category_ids)}
    positions = {image_id: i for i, image_id in enumerate(image_ids.tolist())}
    image = np.array([positions.get(row["image_id"], -1) for row in rows], "int64")
    label = np.array([labels.get(row["category_id"], -1) for row in rows], "int64")
    box = np.array([row["bbox"] for row in rows], "float64").reshape(-1, 4)
    score = np.array([row["score"] for row in rows], "float64")
    wrong = (image < 0) | (label < 0) | ~np.isfinite(score) | ~np.isfinite(box).all(-1)
    if wrong.any():
        i = int(np.argmax(wrong))
        raise ValueError(
            f"Expected detections on images and in categories of {data.name}, with finite numbers. "
            f"Received: rows[{i}] = {rows[i]}"
        )
    order = np.lexsort((image, -score))  # stable: of equal scores the first image and row
    columns = {"image": image, "label": label, "box": box, "score": score}
    columns = {name: column[order] for name, column in columns.items()}
    kept = _place_in_group(columns["image"] * data.num_classes + columns["label"]) < MOST[-1]
    return {name: column[kept] for name, column in columns.items()}


def _place_in_group(group):
    """How many entries of its own group stand before each entry."""
    order = np.argsort(group, kind="stable")
    first = np.searchsorted(group[order], group[order])
    place = np.empty(len(group), "int64")
    place[order] = np.arange(len(group)) - first
    return place


def _pairs(truth, found):
    """Columns of all overlaps above 0, by detection and then by object."""
    by_image = np.argsort(truth["image"], kind="stable")
    images = truth["image"][by_image]
    first, last = (np.searchsorted(images, found["image"], side) for side in ("left", "right"))
    before = np.cumsum(last - first)  # pairs up to and with each detection
    total = before[-1] if len(before) else 0
    cuts = np.searchsorted(before, np.arange(PAIRS_AT_ONCE, total, PAIRS_AT_ONCE))
    blocks = np.split(np.arange(len(first)), cuts)
    parts = [_overlapping(truth, found, by_image, first[b], last[b], b) for b in blocks]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _overlapping(truth, found, by_image, first, last, block):
    """The pairs of some detections, those of each with `by_image[first:last]`."""
    number = last - first
    row = np.repeat(block, number)
    start = np.repeat(first - np.cumsum(number) + number, number)
    other = by_image[start + np.arange(len(row))]
    iou = _iou(found["box"][row], truth["box"][other], truth["is_crowd"][other])
    kept = iou > 0
    return {"found": row[kept], "truth": other[kept], "iou": iou[kept]}


def _iou(boxes, others, is_crowd):
    """pycocotools' overlap, step by step, for thresholds are met exactly: IoU, and the share of
    the box that lies inside a crowd."""
    ends = np.minimum(boxes[:, :2] + boxes[:, 2:], others[:, :2] + others[:, 2:])
    sides = np.maximum(ends - np.maximum(boxes[:, :2], others[:, :2]), 0)
    shared = sides[:, 0] * sides[:, 1]
    area, other_area = boxes[:, 2] * boxes[:, 3], others[:, 2] * others[:, 3]
    union = np.where(is_crowd, area, area + other_area - shared)
    return np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)


def _first_free(found, truth, given):
    """The object of each detection, from pairs in the order in which they are tried; -1: none."""
    # Any number of detections may lie in a crowd, or on an object that VOC calls difficult.
    reusable, used = given.truth["is_ignored"].tolist(), [False] * len(given.truth["area"])
    taken = [-1] * len(given.found["score"])
    for detection, thing in zip(found.tolist(), truth.tolist(), strict=True):
        if taken[detection] < 0 and not used[thing]:
            taken[detection] = thing
            used[thing] = not reusable[thing]
    return np.array(taken, "int64")


def _outside(area, limits):
    return (area < limits[0]) | (area > limits[1])
