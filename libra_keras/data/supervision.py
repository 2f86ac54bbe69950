"""Data sets that `supervision` has read, for forms that have no reader of their own."""

from typing import Any

import numpy as np

from libra_keras.data.assembly import assembled
from libra_keras.data.examples import DetectionData, Example
from libra_keras.data.findings import Written


def from_supervision(
    dataset: Any, name: str = "data", skip_bad: bool = False, check_files: bool = True
) -> DetectionData:
    """Converts a `supervision.DetectionDataset`.

    Requires the package: `pip install "libra-keras[supervision]"`. Images are read from
    their files, with the pixels as they are stored. Masks and confidences are left out. Boxes are
    clipped to the image, and left out if a side is at most 1 px. The image's id is its position in
    the data set, from 1.

    Args:
        dataset: `supervision.DetectionDataset` with paths of images.
        name: str, used in messages and reports.
        skip_bad: bool, whether bad boxes and files are dropped and counted instead of raising.
        check_files: bool, whether the files' headers are checked. They are read in any case, since
            the data set has no sizes.

    Returns:
        `DetectionData`; its `annotations` are made from these boxes.

    Raises:
        TypeError: if it is another object.
        ValueError: if boxes or files are bad and `skip_bad` is false.

    Example:

    ```python
    cars = supervision.DetectionDataset.from_yolo("cars/images", "cars/labels", "cars/data.yaml")
    data = libra_keras.data.from_supervision(cars, "cars")
    ```
    """
    # By what it has, so that the package, which takes a second to import, is not needed here.
    parts = "classes", "image_paths", "annotations"
    if missing := [part for part in parts if not hasattr(dataset, part)]:
        raise TypeError(
            "Expected a supervision.DetectionDataset (of supervision 0.23 or newer: pip install "
            f'"libra-keras[supervision]"). Received: {type(dataset).__name__}, without {missing}'
        )
    found = [dataset.annotations[path] for path in dataset.image_paths]
    examples = [
        _example(number, path, boxes)
        for number, (path, boxes) in enumerate(zip(dataset.image_paths, found, strict=True), 1)
    ]
    written = Written(lambda image, box: box, lambda image, box: f"{found[image].xyxy[box]}")
    return assembled(name, list(dataset.classes), examples, written, (), skip_bad, check_files)


def to_supervision(found: dict[str, Any]) -> Any:
    """Converts what `detect` has found in an image for `supervision`, to draw, count and track.

    Requires the package: `pip install "libra-keras[supervision]"`. `InferenceSlicer` takes
    `lambda image: to_supervision(model.detect(image))`; note that `model.detect(image, tile=640)`
    cuts images itself.

    Args:
        found: dict of `"boxes"` `(n, 4)`, `"scores"` `(n,)`, `"labels"` `(n,)` and, if there are
            any, `"names"`.

    Returns:
        `supervision.Detections` with `xyxy`, `confidence`, `class_id`, and the names as
        `data["class_name"]`.

    Raises:
        ImportError: if the package is missing.

    Example:

    ```python
    found = libra_keras.data.to_supervision(model.detect("street.jpg"))
    drawn = supervision.BoxAnnotator().annotate(image, found[found.confidence > 0.5])
    ```
    """
    try:
        import supervision
    except ImportError as error:
        message = 'supervision is missing: pip install "libra-keras[supervision]"'
        raise ImportError(message) from error
    return supervision.Detections(
        xyxy=np.asarray(found["boxes"], "float32").reshape(-1, 4),
        confidence=np.asarray(found["scores"], "float32"),
        class_id=np.asarray(found["labels"], "int64"),
        data={"class_name": np.array(found["names"], str)} if "names" in found else {},
    )


def detections_from_supervision(detections: Any) -> dict[str, Any]:
    """Converts a `supervision.Detections`: the inverse of `to_supervision`.

    Args:
        detections: `supervision.Detections`, with `class_id`; without `confidence`, scores are 1.

    Returns:
        Dict of arrays `"boxes"` float32 `(n, 4)`, `"scores"` float32 `(n,)`, `"labels"` int32
        `(n,)` and a list `"names"`, as `detect` returns it. Names that are missing are the labels.

    Raises:
        ValueError: if there is no `class_id`.

    Example:

    ```python
    found = libra_keras.data.detections_from_supervision(slicer(image))
    ```
    """
    boxes = np.asarray(detections.xyxy, "float32").reshape(-1, 4)
    if detections.class_id is None and len(boxes):
        raise ValueError(f"The detections must have `class_id`. Received: {len(boxes)} without one")
    given, scores = detections.class_id, detections.confidence
    labels = np.asarray([] if given is None else given, "int32")
    names = detections.data.get("class_name")
    return {
        "boxes": boxes,
        "scores": np.ones(len(boxes), "float32") if scores is None else np.float32(scores),
        "labels": labels,
        "names": list(map(str, labels if names is None else names)),
    }


def _example(number, path, detections):
    count = len(detections.xyxy)
    if count and detections.class_id is None:
        raise ValueError(f"{path}: its {count} boxes have no class_id")
    return Example(
        number,
        path,
        0,
        0,
        np.asarray(detections.xyxy, "float32").reshape(-1, 4),
        np.asarray(detections.class_id if count else [], "int32"),
        np.zeros(count, bool),
    )
