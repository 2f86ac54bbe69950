"""The two sides of an element-wise loss have one shape: nothing is broadcast in silence."""

import numpy as np


def check_same_shape(y_true, y_pred):
    """Raises a ValueError if the known sizes of targets and predictions differ."""
    shapes = [_known_shape(y_true), _known_shape(y_pred)]
    if None in shapes:
        return
    pairs = zip(*shapes, strict=False)
    differ = any(a != b for a, b in pairs if isinstance(a, int) and isinstance(b, int))
    if differ or len(shapes[0]) != len(shapes[1]):
        raise ValueError(
            f"`y_true` must have the shape of `y_pred`, {shapes[1]}. Received: shape={shapes[0]}"
        )


def _known_shape(x):
    shape = getattr(x, "shape", None)
    if shape is None:
        return np.shape(x)
    return None if getattr(shape, "rank", 0) is None else tuple(shape)
