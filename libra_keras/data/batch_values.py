"""What the values of a batch show of mistakes that no shape and no type can show."""

import numpy as np

from libra_keras.data.findings import in_unit_range
from libra_keras.data.images import told_fractions


def doubtful(x, y=None):
    """Looks whether a batch for `fit` has pixels or boxes in another form than a detector takes.

    Only what the values show is found: the wrong forms of some batches look right. It never
    raises: what has other shapes or keys is for others to refuse.

    Args:
        x: dict with `"images"` `(B, H, W, 3)` and perhaps `"image_ids"` `(B,)`, or the images.
        y: dict with `"boxes"` `(B, M, 4)` and `"labels"`, or `"classes"`, `(B, M)`, -1 in padding;
            or `None`.

    Returns:
        A sentence on the first thing that looks wrong, or `None`.

    Example:

    >>> import numpy as np
    >>> from libra_keras.data.batch_values import doubtful
    >>> images, labels = np.full((1, 64, 64, 3), 255.0), np.array([[0, -1]])
    >>> boxes = np.array([[[30, 40, 10, 20], [0, 0, 0, 0]]], "float32")
    >>> print(doubtful({"images": images}, {"boxes": boxes, "labels": labels}))
    Boxes must be (x1, y1, x2, y2). Received: 1 of 1 with x2 < x1 or y2 < y1, such as \
boxes[0, 0]=[30, 40, 10, 20]: are they (x, y, width, height)?
    >>> doubtful(images / 255.0) is None  # ones: they may be nearly black
    True
    """
    x = x if isinstance(x, dict) else {"images": x}
    y = y if isinstance(y, dict) else {}
    fractions = told_fractions(np.asarray(x.get("images")))
    if fractions:
        return f"Images must be from 0 to 255. Received: {fractions}"
    boxes = np.asarray(y.get("boxes"))
    labels = np.asarray(y.get("labels", y.get("classes")))
    if boxes.shape != (*labels.shape, 4) or not {boxes.dtype.kind, labels.dtype.kind} <= {*"iuf"}:
        return None
    return _doubtful_boxes(boxes, labels >= 0, x.get("image_ids"))


def _doubtful_boxes(boxes, is_real, ids):
    if in_unit_range(boxes[is_real]):
        first = _named(boxes, np.argwhere(is_real)[0], ids)
        return (
            "Boxes must be in pixels of the padded image. Received: all coordinates in 0..1, such "
            f"as {first}: are they fractions of the image?"
        )
    turned = is_real & (boxes[..., 2:] < boxes[..., :2]).any(-1)
    if not turned.any():
        return None
    first = _named(boxes, np.argwhere(turned)[0], ids)
    return (
        f"Boxes must be (x1, y1, x2, y2). Received: {turned.sum()} of {is_real.sum()} with x2 < x1 "
        f"or y2 < y1, such as {first}: are they (x, y, width, height)?"
    )


def _named(boxes, place, ids):
    """A box by its place in the batch, with its values and its image."""
    values = ", ".join(f"{value:g}" for value in boxes[tuple(place)])
    of_image = "" if ids is None else f" of image {np.asarray(ids)[place[0]]}"
    return f"boxes[{', '.join(map(str, place))}]=[{values}]{of_image}"
