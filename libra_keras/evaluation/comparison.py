"""The comparison of detections with annotations, which is left to pycocotools."""

import contextlib
import io

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def check_images(data, detections):
    """Raises a `ValueError` where detections do not belong to the images of `data`."""
    known = {image["id"] for image in data.annotations["images"]}
    seen = set()
    for image in detections:
        image_id = image["image_id"]
        if image_id not in known:
            raise ValueError(f"Expected detections on images of {data.name}. Received: {image_id}")
        if image_id in seen:
            raise ValueError(f"Expected each image once. Received: image {image_id} twice")
        seen.add(image_id)


def mean_present(values):
    """Mean of an array in which pycocotools marks what does not exist by -1; NaN if all is."""
    values = values[values > -1]
    return float(values.mean()) if values.size else float("nan")


class Comparison(COCOeval):
    """COCO's comparison, which also knows objects that are `"ignore"`d without being crowds.

    VOC's difficult objects are such: a detection whose IoU with one is high enough is neither
    right nor wrong, and nor is a second one. A crowd differs in the overlap, the share of the
    *detection* that it covers: by that measure every small error inside of it would be forgiven.
    """

    def computeIoU(self, imgId, catId):
        """The overlaps of an image; everything after them treats ignored objects as crowds."""
        categories = [catId] if self.params.useCats else self.params.catIds
        rows = [row for category in categories for row in self._gts[imgId, category]]
        ignored = [row for row in rows if row["ignored"]]
        for row in ignored:
            row["iscrowd"] = 0
        overlaps = super().computeIoU(imgId, catId)
        for row in ignored:
            row["iscrowd"] = 1
        return overlaps


def matched(data, rows, category_ids, max_detections=(1, 10, 100), by_class=True, by_size=True):
    """Returns pycocotools' `COCOeval` of detections that are matched, and not yet counted.

    Args:
        data, rows, category_ids, max_detections, by_class: as of `compare`.
        by_size: bool, whether small, medium and large objects are matched by themselves, too.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        truth = _index(data.annotations, _truth_rows(data.annotations["annotations"]))
        run = Comparison(truth, _index(data.annotations, _result_rows(rows)), "bbox")
        run.params.catIds = category_ids
        run.params.maxDets = list(max_detections)
        run.params.useCats = int(by_class)
        if not by_size:
            run.params.areaRng = run.params.areaRng[:1]
        run.evaluate()
    return run


def compare(data, rows, category_ids, max_detections=(1, 10, 100), by_class=True):
    """Runs pycocotools, silently.

    Args:
        data: `DetectionData`.
        rows: list of dicts as `detections_to_coco` returns it.
        category_ids: list of K ints, the order of the classes in the result.
        max_detections: increasing ints, detections per image that count.
        by_class: bool, whether a detection must have the class of the object.

    Returns:
        Dict with `"precision"` `(10, 101, K, 4, M)` over IoU thresholds, recall points, classes,
        sizes (all, small, medium, large) and `max_detections`, and `"recall"` `(10, K, 4, M)`; -1
        where there is nothing to find. K is 1 if not `by_class`.
    """
    run = matched(data, rows, category_ids, max_detections, by_class)
    with contextlib.redirect_stdout(io.StringIO()):
        run.accumulate()
    # pycocotools sorts the classes by their ids.
    order = np.argsort(np.argsort(category_ids)) if by_class else [0]
    precision, recall = run.eval["precision"], run.eval["recall"]
    return {"precision": precision[:, :, order], "recall": recall[:, order]}


def _truth_rows(annotations):
    """Fresh rows: pycocotools writes into those it gets, and takes an id of 0 for "no match"."""
    rows = []
    for number, row in enumerate(annotations, 1):
        area = row.get("area", row["bbox"][2] * row["bbox"][3])
        kept = {key: row[key] for key in ("image_id", "category_id", "bbox")}
        is_crowd, is_ignored = (bool(row.get(key)) for key in ("iscrowd", "ignore"))
        flags = {"iscrowd": int(is_crowd or is_ignored), "ignored": is_ignored and not is_crowd}
        rows.append({**kept, **flags, "id": number, "area": area})
    return rows


def _result_rows(rows):
    """Adds what `COCO.loadRes` adds; that function fails when there are no rows."""
    return [
        {**row, "id": number, "area": row["bbox"][2] * row["bbox"][3], "iscrowd": 0}
        for number, row in enumerate(rows, 1)
    ]


def _index(dataset, rows):
    """A pycocotools `COCO` of these rows, on the images and categories of `dataset`."""
    indexed = COCO()
    indexed.dataset = {
        "images": dataset["images"],
        "categories": dataset["categories"],
        "annotations": rows,
    }
    indexed.createIndex()
    return indexed
