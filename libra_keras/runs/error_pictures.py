"""The worst errors of a detector as pictures, each next to what is labelled there."""

from pathlib import Path

import numpy as np

from libra_keras.data import DetectionData
from libra_keras.data.findings import DamagedImage, read_checked
from libra_keras.evaluation.errors import FOREGROUND, Errors
from libra_keras.evaluation.matches import Overlaps
from libra_keras.visualization import crops
from libra_keras.visualization.page.mistakes import Picture

MOST = 6  # of each kind: at most 36, which take 3 MB if all of them are noise
SAID = {
    "class": "{score:.2f}, on {truth} (IoU {iou:.2f})",
    "location": "{score:.2f}, IoU {iou:.2f} with an object of its class",
    "both": "{score:.2f}, IoU {iou:.2f} with {truth}",
    "duplicate": "{score:.2f}, on an object that has a better one (IoU {iou:.2f})",
    "background": "{score:.2f}, overlaps nothing labelled (IoU {iou:.2f} at most)",
    "missed": "missed; no detection overlaps it by more than {iou:.2f}",
}
ANOTHER = "missed; the detection that overlaps it most (IoU {iou:.2f}) belongs to another object"


def error_pictures(
    data: DetectionData, given: Overlaps, errors: Errors, threshold: float
) -> list[Picture]:
    """Draws the errors that `errors.worst` names, with all detections of their images from a score
    on; an image that cannot be read is named instead."""
    places = {example.image_id: i for i, example in enumerate(data.examples)}
    return [
        _picture(data, places.get(row["image_id"]), given, row, threshold)
        for rows in errors.worst(MOST).values()
        for row in rows
    ]


def _picture(data, place, given, row, threshold):
    truth = given.truth["label"][row["object"]] if row["object"] >= 0 else None
    name = "nothing" if truth is None else data.class_names[truth]
    said = SAID[row["kind"]] if row["kind"] != "missed" or row["iou"] < FOREGROUND else ANOTHER
    text = said.format(score=row.get("score", 0.0), iou=row["iou"], truth=name)
    image, why_not = None, "it is not among the images"
    if place is not None:
        try:
            with read_checked(data, place) as read:
                image = crops.pair(np.asarray(read), _scene(given, row, threshold))
        except DamagedImage as error:
            why_not = str(error)
    file = f"image {row['image_id']}" if place is None else Path(data.examples[place].file).name
    return Picture(row["kind"], row["class"], text, file, image, why_not)


def _scene(given, row, threshold):
    """What lies in the image of an error."""
    position = np.searchsorted(given.image_ids, row["image_id"])
    truth = given.truth["box"][given.truth["image"] == position]
    seen = (given.found["image"] == position) & (given.found["score"] >= threshold)
    is_missed, is_nowhere = row["kind"] == "missed", row["kind"] == "background"
    return crops.Scene(
        _corners(truth),
        _corners(given.found["box"][seen]),
        None if is_nowhere else _corners(given.truth["box"][row["object"]]),
        None if is_missed else _corners(np.array(row["box"])),
    )


def _corners(boxes):
    return np.concatenate([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], -1)
