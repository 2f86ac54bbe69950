"""Classes of a detector and of a data set that have the same names, but other numbers."""

from collections.abc import Sequence

import numpy as np

from libra_keras.data import DetectionData


def check_classes(class_names: Sequence[str] | None, num_classes: int, data: DetectionData) -> None:
    """Raises a `ValueError` where a detector cannot find all classes of a data set."""
    if class_names is None:
        if num_classes != data.num_classes:
            raise ValueError(
                f"The detector finds {num_classes} classes without names, but {data.name} has "
                f"{data.num_classes}"
            )
        return
    missing = [name for name in data.class_names if name not in class_names]
    if missing:
        raise ValueError(
            f"The detector does not know {len(missing)} of the {data.num_classes} classes of "
            f"{data.name}: {_listed(missing)}. It finds {_listed(class_names)}"
        )


def relabelled(
    detections: list[dict], class_names: Sequence[str] | None, data: DetectionData
) -> list[dict]:
    """Gives detections the labels of a data set, by the names of classes, and drops those of
    classes that the data do not have.

    These have taken part in the detector's limit of detections an image.

    Args:
        detections: list of dicts as `collect_detections` returns them.
        class_names: the detector's classes, in the order of its labels; `None` if they have no
            names: then labels stay as they are.
        data: `DetectionData`.

    Returns:
        List of dicts of the same form.

    Example:

    >>> from libra_keras.data import DetectionData
    >>> from libra_keras.evaluation import relabelled
    >>> data = DetectionData("dogs", ("dog",), (1,), [], {})
    >>> box = [0.0, 0.0, 9.0, 9.0]
    >>> found = [{"image_id": 7, "boxes": [box, box], "scores": [0.9, 0.8], "labels": [0, 1]}]
    >>> [image["labels"].tolist() for image in relabelled(found, ["cat", "dog"], data)]
    [[0]]
    """
    if class_names is None or tuple(class_names) == tuple(data.class_names):
        return detections
    places = {name: label for label, name in enumerate(data.class_names)}
    labels = np.array([places.get(name, -1) for name in class_names], "int32")
    return [_relabelled(image, labels) for image in detections]


def _relabelled(image, labels):
    new = labels[np.asarray(image["labels"], "int64")]
    kept = new >= 0
    columns = {name: np.asarray(image[name])[kept] for name in ("boxes", "scores")}
    return {**image, **columns, "labels": new[kept]}


def _listed(names, most=5):
    names = list(names)
    more = f", ... ({len(names)} in total)" if len(names) > most else ""
    return ", ".join(names[:most]) + more
