"""The ways to write down a box that KerasCV, Keras and KerasHub know, and ours."""

import sys

import keras
from keras import ops

_CORNERS, _SIZE, _CENTER = "corners", "corner and size", "center and size"
_PLAIN = {  # how a box is told, and whether y comes first
    "xyxy": (_CORNERS, False),
    "yxyx": (_CORNERS, True),
    "xywh": (_SIZE, False),
    "center_xywh": (_CENTER, False),
    "center_yxhw": (_CENTER, True),
}
FORMATS = (*_PLAIN, *(f"rel_{name}" for name in _PLAIN))


def to_xyxy(boxes, bounding_box_format, image_size=None):
    """Converts boxes to float32 `(x1, y1, x2, y2)` in pixels; relative ones need `image_size`."""
    kind, y_first, relative = _parse(bounding_box_format, image_size)
    xp = operations(boxes)
    a, b, c, d = _columns(xp, boxes)
    if y_first:
        a, b, c, d = b, a, d, c
    if kind == _CENTER:
        a, b = a - c * 0.5, b - d * 0.5
    if kind != _CORNERS:
        c, d = a + c, b + d
    if relative:
        height, width = _sides(xp, image_size)
        a, b, c, d = a * width, b * height, c * width, d * height
    return xp.stack([a, b, c, d], axis=-1)


def from_xyxy(boxes, bounding_box_format, image_size=None):
    """Converts boxes from `(x1, y1, x2, y2)` in pixels to a format: the inverse of `to_xyxy`."""
    kind, y_first, relative = _parse(bounding_box_format, image_size)
    xp = operations(boxes)
    a, b, c, d = _columns(xp, boxes)
    if relative:
        height, width = _sides(xp, image_size)
        a, b, c, d = a / width, b / height, c / width, d / height
    if kind != _CORNERS:
        c, d = c - a, d - b
    if kind == _CENTER:
        a, b = a + c * 0.5, b + d * 0.5
    if y_first:
        a, b, c, d = b, a, d, c
    return xp.stack([a, b, c, d], axis=-1)


def clipped(boxes, image_size):
    """Clips boxes `(..., n, 4)`, `(x1, y1, x2, y2)`, to `(height, width)`, or one such an image."""
    xp = operations(boxes, image_size)
    height, width = _sides(xp, image_size)
    columns = zip(_columns(xp, boxes), (width, height, width, height), strict=True)
    return xp.stack([xp.maximum(xp.minimum(c, most), 0.0) for c, most in columns], axis=-1)


def operations(*values):
    """`keras.ops`, or TensorFlow where tensors of `tf.data` come while Keras runs on another."""
    if keras.backend.backend() == "tensorflow":
        return ops
    of_tensorflow = (type(value).__module__.startswith("tensorflow.") for value in values)
    return sys.modules["tensorflow"] if any(of_tensorflow) else ops


def _parse(bounding_box_format, image_size):
    """Returns `(kind, y comes first, relative)`."""
    name = str(bounding_box_format).lower()
    if name not in FORMATS:
        raise ValueError(
            f"`bounding_box_format` must be one of {FORMATS}. Received: {bounding_box_format!r}"
        )
    relative = name.startswith("rel_")
    if relative and image_size is None:
        raise ValueError(f"Boxes in {name!r} are shares of an image: give its `image_size`.")
    return *_PLAIN[name.removeprefix("rel_")], relative


def _columns(xp, boxes):
    """The four numbers of each box, float32 `(..., n)` each."""
    boxes = xp.cast(xp.convert_to_tensor(boxes), "float32")
    return [boxes[..., i] for i in range(4)]


def _sides(xp, image_size):
    """Height and width as float32: numbers, or `(..., 1)` if each image has its own."""
    if isinstance(image_size, tuple | list):
        height, width = image_size
    else:
        size = xp.convert_to_tensor(image_size)
        height, width = size[..., :1], size[..., 1:]
    return xp.cast(height, "float32"), xp.cast(width, "float32")
