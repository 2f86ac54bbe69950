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
    """Converts boxes to `(x1, y1, x2, y2)` in pixels.

    Args:
        boxes: tensor `(..., n, 4)`.
        bounding_box_format: str, one of `FORMATS`, such as `"xywh"` or `"rel_yxyx"`.
        image_size: `(height, width)` of the image that relative boxes are shares of, or a tensor
            `(..., 2)` of these. Only relative formats need it.

    Returns:
        float32 tensor `(..., n, 4)`.

    Raises:
        ValueError: if the format is unknown, or relative without `image_size`.

    Example:

    >>> from keras import ops
    >>> from libra_keras.data import box_formats
    >>> boxes = box_formats.to_xyxy([[0.5, 0.1, 0.2, 0.4]], "rel_xywh", image_size=(100, 200))
    >>> ops.convert_to_numpy(boxes).round(3).tolist()
    [[100.0, 10.0, 140.0, 50.0]]
    """
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
    """Converts boxes from `(x1, y1, x2, y2)` in pixels: the inverse of `to_xyxy`.

    Args, raises: as `to_xyxy`; `bounding_box_format` is that of the result.

    Returns:
        float32 tensor `(..., n, 4)`.

    Example:

    >>> from keras import ops
    >>> from libra_keras.data import box_formats
    >>> boxes = box_formats.from_xyxy([[100.0, 10.0, 140.0, 50.0]], "center_xywh")
    >>> ops.convert_to_numpy(boxes).tolist()
    [[120.0, 30.0, 40.0, 40.0]]
    """
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
    """Clips boxes `(..., n, 4)`, `(x1, y1, x2, y2)`, to `image_size`, see `to_xyxy`."""
    xp = operations(boxes, image_size)
    height, width = _sides(xp, image_size)
    columns = zip(_columns(xp, boxes), (width, height, width, height), strict=True)
    return xp.stack([xp.maximum(xp.minimum(c, most), 0.0) for c, most in columns], axis=-1)


def operations(*values):
    """`keras.ops`, or TensorFlow where tensors of `tf.data` come while Keras runs on another.

    What is used here has the same name and meaning in both.
    """
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
