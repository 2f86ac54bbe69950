"""What the values of a batch show of mistakes that no shape and no type can show."""

import numpy as np

from libra_keras.data.findings import in_unit_range
from libra_keras.data.images import told_fractions


def doubtful(x, y=None):
    """Says what of a batch for `fit` looks wrong in pixels or boxes, by their values; or `None`."""
    # What has other shapes or keys is for others to refuse; some wrong forms look right.
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
