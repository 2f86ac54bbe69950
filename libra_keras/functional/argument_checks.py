"""What is asked of arguments, said in one form and before anything is computed."""

import functools
import re
from collections.abc import Mapping

import keras
import numpy as np
from keras import ops

from libra_keras.typing import Tensor

_KINDS = {
    "any": ("values", ("",)),
    "number": ("numbers", ("float", "bfloat", "int", "uint")),
    "float": ("floats", ("float", "bfloat")),
    "int": ("integers", ("int", "uint")),
    "bool": ("booleans", ("bool",)),
}
# How toolboxes place anchors and describe boxes; trained weights belong to one of the ways.
# "continuous": mmdetection 2.x and 3.x. A box covers x1..x2; nothing is rounded.
# "torchvision": torchvision.models.detection 0.16. As above, but anchors have whole sides, lie as
#     far apart as the padded image has pixels a cell, and shrink without limit.
# "legacy": mmdetection 1.x, which counts pixels: its box x1..x2 includes both, and is x2 - x1 + 1
#     wide. Here a box is its edges, x2 being one more than there; then overlaps, deltas, RoIAlign
#     and a COCO annotation's width are as everywhere, and only anchors (whole corners, centred on
#     the middle of a cell's pixels) and the limits of clipping (at least one pixel stays) differ.
GEOMETRIES = ("continuous", "torchvision", "legacy")
_KEY = re.compile(rf"(.+?)(?: \(([^()]*)\))?(?: ({'|'.join(_KINDS)}))?")


def check_arguments(arguments: Mapping[str, Tensor]) -> None:
    """Raises a ValueError unless tensors have the shapes, and hold the values, that are asked for.

    Only what is known without computing is looked at: a graph gets no operation, and unknown sizes,
    unknown ranks and `None` pass. Messages are the same on every backend.

    Args:
        arguments: dict from what is asked, `"name (shape) kind"`, to a tensor, array or list. The
            shape is as in docstrings: `(B, N, 4)`; `...` in front stands for any axes; sizes of one
            name are equal, but for those that end in `_l`, which are a level's own. The kind is
            `number` (the default: floats or integers), `float`, `int`, `bool` or `any`.

    Raises:
        ValueError: if a tensor has another shape or kind.

    Example:

    >>> from keras import ops
    >>> from libra_keras.functional.argument_checks import check_arguments
    >>> boxes, labels = ops.ones((2, 5, 4)), ops.ones((2, 5), "int32")
    >>> check_arguments({"boxes (B, N, 4)": boxes, "labels (B, N) int": labels})
    >>> try:
    ...     check_arguments({"boxes (B, N, 4)": boxes[0]})
    ... except ValueError as error:
    ...     print(error)
    `boxes` must have shape (B, N, 4). Received: shape=(5, 4); of one image, pass `boxes[None]`
    """
    sizes: dict[str, tuple[int, str | None]] = {}
    for key, x in arguments.items():
        if x is None:
            continue
        name, shape, kind = _parsed(key)
        x = x if hasattr(x, "shape") else _array(x)
        if shape is not None and getattr(x.shape, "rank", 0) is not None:  # TensorFlow's, unknown
            _check_shape(name, shape, tuple(x.shape), sizes)
        _check_kind(name, kind, getattr(x, "dtype", None))


@functools.lru_cache(maxsize=1024)
def _parsed(key):
    name, shape, kind = _KEY.fullmatch(key).groups()
    return name, shape, kind or "number"


def _array(values):
    has_tensors = any(hasattr(value, "shape") for value in keras.tree.flatten(values))
    return ops.convert_to_tensor(values) if has_tensors else np.asarray(values)


def _check_shape(name, asked, shape, sizes):
    axes = [axis.strip() for axis in asked.split(",") if axis.strip()]
    last = axes[1:] if axes[:1] == ["..."] else axes
    message = f"`{name}` must have shape ({asked})"
    if len(shape) < len(last) or (len(shape) > len(last) and last is axes):
        of_one = axes[:1] == ["B"] and len(shape) == len(axes) - 1
        hint = f"; of one image, pass `{name}[None]`" if of_one else ""
        raise ValueError(f"{message}. Received: shape={shape}{hint}")
    for axis, size in zip(last, shape[len(shape) - len(last) :], strict=True):
        if axis.endswith("_l") or not isinstance(size, int):  # a level's own, or not known
            continue
        expected, owner = (int(axis), None) if axis.isdigit() else sizes.get(axis, (size, name))
        sizes[axis] = expected, owner
        if size != expected:
            where = f", {axis} being {expected} as in `{owner}`" if owner else ""
            raise ValueError(f"{message}{where}. Received: shape={shape}")


def _check_kind(name, kind, dtype):
    if dtype is None:
        return
    dtype = keras.backend.standardize_dtype(dtype)
    words, prefixes = _KINDS[kind]
    if not dtype.startswith(prefixes):
        raise ValueError(f"`{name}` must hold {words}. Received: dtype={dtype}")


def check_geometry(geometry: str) -> None:
    """Raises a ValueError unless `geometry` is one of the three.

    Example:

    >>> from libra_keras.functional.argument_checks import check_geometry
    >>> check_geometry("legacy")
    """
    if geometry not in GEOMETRIES:
        raise ValueError(f"`geometry` must be one of {GEOMETRIES}. Received: geometry={geometry!r}")
