"""What users of Keras, KerasCV and KerasHub pass to detectors by habit, and the errors that they
get."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np

from libra_keras.models.ground_truth import GroundTruth

BOX_FORMAT = (
    "Detectors take boxes as x1, y1, x2, y2 in pixels. State the format where the data enter: "
    "`model.fit(data.dialects.from_dataset(dataset, bounding_box_format={0!r}))`, or "
    "`data.dialects.from_sample` for one batch. Received: bounding_box_format={0!r}"
)
CLASS_WEIGHT = (
    "Detectors do not support `class_weight`: a class has no loss of its own, since most of what "
    "is classified is background. Show rare classes more often instead, such as "
    "`dataclasses.replace(data, examples=[*data.examples, *rare])`"
)
SAMPLE_WEIGHT = "Detectors take no `sample_weight`."
MEASURED = re.compile("val_A[PR]")  # how the names begin that evaluations give


def is_auto(value: Any) -> bool:
    """Whether an argument leaves the choice to the detector, as in KerasHub."""
    return value is None or (isinstance(value, str) and value == "auto")


def refuse_box_format(given: Mapping[str, Any]) -> None:
    """Says where the form of boxes belongs, if it is among the arguments."""
    if "bounding_box_format" in given:
        raise ValueError(BOX_FORMAT.format(given["bounding_box_format"]))


def check_fit(model: keras.Model, given: Mapping[str, Any]) -> None:
    """Checks arguments of `fit` that Keras would find wrong late, or not at all."""
    refuse_weights(given)
    held_out = given.get("validation_data")
    if isinstance(held_out, (list, tuple)) and len(held_out) == 3 and held_out[2] is not None:
        raise ValueError(SAMPLE_WEIGHT)
    callbacks = given.get("callbacks") or []
    callbacks = getattr(callbacks, "callbacks", callbacks)  # of a `CallbackList`
    check_monitors(model, callbacks if isinstance(callbacks, (list, tuple)) else [callbacks])


def refuse_weights(given: Mapping[str, Any]) -> None:
    """Raises if weights of classes or of images are among the arguments."""
    if given.get("class_weight") is not None:
        raise ValueError(CLASS_WEIGHT)
    if given.get("sample_weight") is not None:
        raise ValueError(SAMPLE_WEIGHT)


def check_monitors(model: keras.Model, callbacks: Iterable[Any]) -> None:
    """Raises if a callback reads a number of COCO's that none before it makes: Keras would warn,
    epoch by epoch. The direction, which Keras asks for after the first epoch, is known: up.
    """
    callbacks, made = list(callbacks), set[str]()
    for place, callback in enumerate(callbacks):
        if hasattr(callback, "logs_of"):
            made.update(callback.logs_of(model))
            continue
        is_open = isinstance(callback, keras.callbacks.LambdaCallback)
        if is_open or not type(callback).__module__.startswith(("keras.", "libra_keras.")):
            return  # nobody knows what it adds
        monitor = getattr(callback, "monitor", None)
        if not isinstance(monitor, str) or not MEASURED.match(monitor):
            continue
        if monitor not in made:
            later = [c for c in callbacks[place:] if hasattr(c, "logs_of")]
            raise ValueError(_missing(callback, monitor, made, later))
        if getattr(callback, "mode", None) == "auto":
            callback.mode = "max"


def _missing(callback, monitor, made, later):
    reader = f"{type(callback).__name__} reads {monitor!r}"
    if later:
        return f"{reader}, which {type(later[0]).__name__} computes: put that before it, not after"
    if made:
        return f"{reader}, but the callbacks before it compute {', '.join(sorted(made))}"
    maker = "ProposalEvaluation" if "@" in monitor else "COCOEvaluation"
    return (
        f"{reader}, which nothing computes: put `evaluation.{maker}(data)` before it in `callbacks`"
    )


def check_given_truth(y: Any, model: keras.Model) -> None:
    """Raises if arrays are no truth, or have a label of a class that a detector does not have,
    before a graph does, or an epoch has passed. `-1` is padding.
    """
    if isinstance(y, (np.ndarray, list, tuple)):
        GroundTruth.of(y)  # which says what it must be
    if not isinstance(y, dict) or "class_loss" not in model.LOSSES:
        return
    labels = y.get("labels", y.get("classes"))
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iuf" or not labels.ndim:
        return
    wrong = np.argwhere(labels >= model.num_classes)
    if len(wrong):
        raise ValueError(
            f"Labels must be in 0..{model.num_classes - 1}, or -1 for padding. "
            f"Received: {labels[tuple(wrong[0])]:g} for image {wrong[0][0]}"
        )
