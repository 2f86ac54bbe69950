"""The comparison of detections with annotations, which is left to pycocotools."""

import contextlib
import io

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from libra_keras.data import DetectionData


def check_images(data: DetectionData, detections: list[dict]) -> None:
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


def mean_present(values: np.ndarray) -> float:
    """Mean of an array in which pycocotools marks what does not exist by -1; NaN if all is."""
    values = values[values > -1]
    return float(values.mean()) if values.size else float("nan")


class Comparison(COCOeval):
    """COCO's comparison, which also knows objects that are `"ignore"`d and no crowds: VOC's."""

    def computeIoU(self, imgId, catId):
        """The overlaps of an image; everything after them treats ignored objects as crowds."""
        # A crowd's overlap is the share of the *detection* that it covers: by that measure every
        # small error inside of VOC's difficult objects would be forgiven.
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
    """pycocotools' `COCOeval` of rows of `detections_to_coco`, matched and not yet counted."""
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
    """pycocotools' `precision` (T, R, K, 4, M) and `recall` (T, K, 4, M); -1: none to find."""
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
