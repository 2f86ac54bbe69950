"""Functions of users that change a sample, and the check of what they return."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

Sample = dict[str, np.ndarray]
Function = Callable[[Sample, np.random.Generator], Mapping[str, Any]]
KEYS = ("images", "boxes", "labels")
SLACK = 0.01  # pixels by which a box may be outside: boxes as fractions come back not quite right


def applied(
    function: Function,
    sample: Sample,
    rng: np.random.Generator,
    file: str | Path,
    num_classes: int,
) -> Sample:
    """Returns what a function makes of a sample, without the rows that it labels -1."""
    size = sample["images"].shape
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    try:
        result = function(sample, rng)
    except Exception as error:
        raise RuntimeError(
            f"The augmentation {name} failed on {file}: {type(error).__name__}: {error}"
        ) from error
    try:
        return checked(result, size, num_classes)
    except ValueError as error:
        raise ValueError(f"The augmentation {name} returned for {file} {error}") from None


def checked(result: Any, size: tuple[int, ...], num_classes: int) -> Sample:
    """Returns a sample as it is used, or raises a ValueError that says what came instead."""
    if not isinstance(result, Mapping) or not set(KEYS) <= set(result):
        came = sorted(map(str, result)) if isinstance(result, Mapping) else type(result).__name__
        raise ValueError(f"{came}; expected a dict with the keys {', '.join(KEYS)}")
    image, boxes, labels = (_array(result[key]) for key in KEYS)
    _check_form("images", image, "uint8", image.dtype == np.uint8, size)
    _check_form("labels", labels, "integers", labels.dtype.kind in "iu", (labels.size,))
    _check_form("boxes", boxes, "floats", boxes.dtype.kind == "f", (len(labels), 4))
    boxes, labels = boxes[labels != -1].astype("float32"), labels[labels != -1].astype("int32")
    unknown = labels[(labels < 0) | (labels >= num_classes)]
    if len(unknown):
        raise ValueError(f"the label {unknown[0]}; expected 0..{num_classes - 1}, or -1 of padding")
    return {"images": image, "boxes": _inside(boxes, size), "labels": labels}


def _array(value):
    return value if isinstance(value, np.ndarray) else keras.ops.convert_to_numpy(value)


def _check_form(key, array, kind, is_kind, shape):
    if not is_kind or array.shape != shape:
        raise ValueError(
            f"{key} that are {array.dtype} of shape {array.shape}; expected {kind} of shape {shape}"
        )


def _inside(boxes, size):
    """Clips boxes by what rounding may have done, and refuses others that are no boxes."""
    ends = np.array([size[1], size[0]] * 2, "float32")
    clipped = np.clip(boxes, 0, ends)
    is_box = (clipped[:, 2:] > clipped[:, :2]).all(-1) & (abs(clipped - boxes) <= SLACK).all(-1)
    if not is_box.all():
        raise ValueError(
            f"the box {boxes[~is_box][0].tolist()}; expected 0 <= x1 < x2 <= {size[1]} and "
            f"0 <= y1 < y2 <= {size[0]}"
        )
    return clipped
