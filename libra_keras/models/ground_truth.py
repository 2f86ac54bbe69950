"""The truth of a batch in the one form that all targets are computed from."""

from typing import NamedTuple

from keras import ops

from libra_keras.functional.replicas import with_an_image


class GroundTruth(NamedTuple):
    """Boxes and labels of a batch, padded to M objects an image.

    Attributes:
        boxes: float32 `(B, M, 4)`, pixels of the padded batch image.
        labels: int32 `(B, M)` in 0..K-1; 0 in padding rows.
        mask: bool `(B, M)`, false for padding.

    Example:

    >>> from libra_keras.models.ground_truth import GroundTruth
    >>> truth = GroundTruth.of({"boxes": [[[0.0, 0.0, 8.0, 8.0], [-1.0] * 4]], "labels": [[3, -1]]})
    >>> truth.mask.numpy().tolist(), truth.labels.numpy().tolist()
    ([[True, False]], [[3, 0]])
    """

    boxes: object
    labels: object
    mask: object

    @classmethod
    def of(cls, y):
        """Reads `{"boxes", "labels"}` (or `"classes"`), dense or ragged; label -1 means padding.

        Raises:
            ValueError: if it is no dict, or one of the two keys is missing.
        """
        if not isinstance(y, dict):
            raise ValueError(
                "`y` must be a dict with the keys 'boxes' (B, M, 4) and 'labels' (B, M), as those "
                "of `data.training_batches(..., epochs=1)`; batches of `evaluation_batches` "
                f"have none. Received: {type(y).__name__}"
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
        labels, boxes = _with_a_row(labels, -1), _with_a_row(boxes, 0.0)
        # The mask alone says what is padding: an augmentation may have moved padding boxes.
        mask = labels >= 0
        boxes = ops.where(mask[..., None], boxes, 0.0)
        return cls(boxes, ops.where(mask, labels, 0), mask)


def _with_a_row(x, value):
    """Adds a row of padding to `(B, M, ...)` if M is 0: what gathers rows later needs one."""
    num = x.shape[1]
    if num:
        return x
    batch, known, *rest = ops.shape(x)
    missing = 1 if num == 0 else 1 - ops.minimum(known, 1)
    return ops.concatenate([x, ops.full((batch, missing, *rest), value, dtype=x.dtype)], axis=1)
