"""The truth of a batch in the one form that all targets are computed from."""

import contextlib
import re
from typing import Any, NamedTuple, Self

import keras
import numpy as np
from keras import ops

from libra_keras.functional.argument_checks import check_arguments
from libra_keras.functional.replicas import with_an_image
from libra_keras.typing import Tensor

# Of what a user may give as a list: its values' type, what a row has beside M, and its padding.
ROWS = {"boxes": ("float32", (4,), 0.0), "labels": ("int32", (), -1), "classes": ("int32", (), -1)}
# What `check_labels` says, as an error of TensorFlow repeats it.
SAID = re.compile(r"(Labels must be in \S+, or -1 for padding.) Received:\D*(\d+)")


class GroundTruth(NamedTuple):
    """Boxes and labels of a batch, padded to M objects an image.

    Attributes:
        boxes: float32 `(B, M, 4)`, pixels of the padded batch image.
        labels: int32 `(B, M)` in 0..K-1; 0 in padding rows.
        mask: bool `(B, M)`, false for padding.

    Example:

    >>> from libra_keras.models import GroundTruth
    >>> truth = GroundTruth.of({"boxes": [[[0.0, 0.0, 8.0, 8.0], [-1.0] * 4]], "labels": [[3, -1]]})
    >>> truth.mask.numpy().tolist(), truth.labels.numpy().tolist()
    ([[True, False]], [[3, 0]])
    """

    boxes: Tensor
    labels: Tensor
    mask: Tensor

    @classmethod
    def of(cls, y: Any) -> Self:
        """Reads `{"boxes", "labels"}` (or `"classes"`), dense or ragged; label -1 means padding.

        Raises:
            ValueError: if it is not a dict, one of the two keys is missing, or there is not one
                label per box.
        """
        y = as_arrays(y)
        if not isinstance(y, dict):
            raise ValueError(
                "`y` must be a dict with the keys 'boxes' (B, M, 4) and 'labels' (B, M), as in "
                "`data.training_batches(..., epochs=1)`; batches of `evaluation_batches` have "
                "none. KerasCV's x['bounding_boxes'] is accepted too. Received: "
                f"{type(y).__name__}"
            )
        labels = y.get("labels", y.get("classes"))
        if labels is None or "boxes" not in y:
            raise ValueError(
                "`y` must be a dict with the keys 'boxes' (B, M, 4) and 'labels' (B, M). "
                f"Received the keys: {sorted(y)}"
            )
        boxes = y["boxes"]
        if hasattr(labels, "to_tensor"):  # ragged, as KerasCV's augmentations return them
            labels = labels.to_tensor(-1)
        if hasattr(boxes, "to_tensor"):
            boxes = boxes.to_tensor(0.0, shape=[None, None, 4])
        labels = with_an_image(ops.cast(ops.convert_to_tensor(labels), "int32"), -1)
        boxes = with_an_image(ops.cast(ops.convert_to_tensor(boxes), "float32"))
        _check_shapes(boxes.shape, labels.shape)
        labels, boxes = _with_a_row(labels, -1), _with_a_row(boxes, 0.0)
        # The mask alone says what is padding: an augmentation may have moved padding boxes.
        mask = labels >= 0
        boxes = ops.where(mask[..., None], boxes, 0.0)
        return cls(boxes, ops.where(mask, labels, 0), mask)


def as_arrays(y):
    """Makes padded arrays of lists with an entry for each image, as `as_batch` does of images."""
    if not isinstance(y, dict):
        return y
    padded = {key: _padded(key, value) for key, value in y.items()}
    _check_pairs(y)
    return padded


def _check_pairs(y):
    """Raises unless lists of boxes and labels have as many of them in each image."""
    boxes, labels = y.get("boxes"), y.get("labels", y.get("classes"))
    if not (isinstance(boxes, (list, tuple)) and isinstance(labels, (list, tuple))):
        return
    for i, pair in enumerate(zip(boxes, labels, strict=False)):
        if not all(hasattr(own, "__len__") for own in pair):  # symbolic
            continue
        counts = [len(own) for own in pair]
        if len(set(counts)) > 1:
            raise ValueError(
                f"`y` must have one label per box. Received: {counts[0]} boxes and {counts[1]} "
                f"labels for image {i}"
            )


def _padded(key, values):
    is_list = isinstance(values, (list, tuple)) and key in ROWS
    if not is_list or any(ops.is_tensor(row) for row in values):  # which may be symbolic
        return values
    dtype, rest, padding = ROWS[key]
    rows = [np.asarray(row, dtype) for row in values]
    rows = [row if row.size else np.zeros((0, *rest), dtype) for row in rows]
    for i, row in enumerate(rows):
        if row.shape[1:] != rest or not row.ndim:
            expected = "(n, 4)" if rest else "(n,)"
            raise ValueError(
                f"y[{key!r}] must be an array, or a list of arrays {expected}, one per image. "
                f"Received: shape {row.shape} for image {i}"
            )
    most = max((len(row) for row in rows), default=0)
    padded = np.full((len(rows), most, *rest), padding, dtype)
    for row, own in zip(padded, rows, strict=True):
        row[: len(own)] = own
    return padded


def _check_shapes(boxes, labels):
    """Raises unless they are `(B, M, 4)` and `(B, M)`, as far as that is known."""
    if None in (getattr(boxes, "rank", 0), getattr(labels, "rank", 0)):
        raise ValueError(
            "The ranks of y['boxes'] (B, M, 4) and y['labels'] (B, M) must be known: call "
            f"`set_shape` on what `tf.py_function` returns. Received: {boxes} and {labels}"
        )
    fits = len(boxes) == 3 and len(labels) == 2 and boxes[-1] in (4, None)
    pairs = zip(boxes[:2], labels[:2], strict=False)
    if not fits or any(a != b for a, b in pairs if None not in (a, b)):
        raise ValueError(
            "`y` must be a dict with the keys 'boxes' (B, M, 4) and 'labels' (B, M). "
            f"Received: shapes {tuple(boxes)} and {tuple(labels)}"
        )


def truth_of(x, y):
    """The `GroundTruth` of a batch, which has a row for each of its images."""
    truth = GroundTruth.of(truth_in(x, y))
    images = x["images"] if isinstance(x, dict) else x
    check_arguments({"x['images'] (B, H, W, C)": images, "y['boxes'] (B, M, 4)": truth.boxes})
    return truth


def truth_in(x, y):
    """The truth of a batch: `y`, or what KerasCV's batches `{"images", "bounding_boxes"}` have."""
    return x.get("bounding_boxes") if y is None and isinstance(x, dict) else y


def check_labels(labels, model):
    """Whether there are labels of classes that a model does not have, which would be trained as
    background; PyTorch and TensorFlow's graphs raise an error, elsewhere the loss is to become NaN.
    """
    if "class_loss" not in model.LOSSES:
        return ops.convert_to_tensor(False)
    is_wrong = ops.any(labels >= model.num_classes)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        expected = f"Labels must be in 0..{model.num_classes - 1}, or -1 for padding. Received:"
        tf.debugging.Assert(tf.logical_not(is_wrong), [expected, tf.reduce_max(labels)])
    elif keras.backend.backend() == "torch" and bool(is_wrong):
        raise ValueError(
            f"Labels must be in 0..{model.num_classes - 1}, or -1 for padding. "
            f"Received: {int(ops.max(labels))}"
        )
    return is_wrong


@contextlib.contextmanager
def labels_told():
    """Lets what `check_labels` says out of all that a graph of TensorFlow tells of itself."""
    try:
        yield
    except Exception as error:
        said = SAID.search(str(error))
        if said is None or isinstance(error, ValueError):
            raise
        raise ValueError(f"{said[1]} Received: {said[2]}") from None


def _with_a_row(x, value):
    """Adds a row of padding to `(B, M, ...)` if M is 0: what gathers rows later needs one."""
    num = x.shape[1]
    if num:
        return x
    batch, known, *rest = ops.shape(x)
    missing = 1 if num == 0 else 1 - ops.minimum(known, 1)
    return ops.concatenate([x, ops.full((batch, missing, *rest), value, dtype=x.dtype)], axis=1)
