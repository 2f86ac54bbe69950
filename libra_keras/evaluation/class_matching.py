"""Classes of a detector and of a data set that have the same names, but other numbers."""

import numpy as np


def check_classes(class_names, num_classes, data):
    """Raises where a detector cannot find all classes of a data set.

    Args:
        class_names: the detector's K names, or `None`, in which case its classes are taken to be
            those of the data in their order.
        num_classes: int K.
        data: `DetectionData`.

    Raises:
        ValueError: if the data have a class whose name the detector does not know, or, without
            names, another number of classes.

    Example:

    >>> from libra_keras.data import shapes
    >>> from libra_keras.evaluation.class_matching import check_classes
    >>> check_classes(None, 80, shapes(1))
    Traceback (most recent call last):
    ValueError: The detector finds 80 classes without names, but shapes/train has 6
    """
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


def relabelled(detections, class_names, data):
    """Gives detections the labels that their classes have in a data set, matched by name.

    Detections of classes that the data set has not are left out, so that metrics are those of the
    others. They have taken part in the detector's limit of detections an image.

    Args:
        detections: list of dicts as `collect_detections` returns it.
        class_names: the detector's names in the order of its labels, or `None`, in which case
            nothing is changed.
        data: `DetectionData` that `check_classes` has accepted.

    Returns:
        List of dicts like `detections`.

    Example:

    >>> import numpy as np
    >>> from libra_keras.data import DetectionData
    >>> from libra_keras.evaluation.class_matching import relabelled
    >>> data = DetectionData("dogs", ("dog",), (3,), [], {})
    >>> labels, scores = np.array([0, 1]), np.array([0.5, 0.75])
    >>> found = [{"image_id": 7, "boxes": np.zeros((2, 4)), "scores": scores, "labels": labels}]
    >>> image = relabelled(found, ["cat", "dog"], data)[0]
    >>> image["labels"].tolist(), image["scores"].tolist()
    ([0], [0.75])
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
    more = f", ... ({len(names)} in all)" if len(names) > most else ""
    return ", ".join(names[:most]) + more
