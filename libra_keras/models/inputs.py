"""What a batch of inputs holds, in whatever form it comes."""

import os

import keras
import numpy as np
from keras import ops

from libra_keras.functional.replicas import with_an_image

EXPECTED = (
    "`images` must be a batch (B, H, W, 3), RGB, or a list of images (H, W, 3) of one size; "
    "`detect` takes single images, and lists of files and of images of any sizes. Received: "
)


def as_batch(x):
    """Makes arrays of the lists in what a user calls a batch, for which Keras has another meaning.

    Keras takes a list for the several inputs of a model, and cuts each along its first axis into
    batches: of images in a list it would make strips. Here they are images of one batch.

    Args:
        x: images, or a dict with `"images"`, each of them an array `(B, H, W, 3)`, or a list or
            tuple of B arrays `(H, W, 3)`. Anything else, such as a data set, comes back as it is.

    Returns:
        What `x` is, with arrays for lists.

    Raises:
        ValueError: if images in a list differ in size, or something else is in it; or if there is
            a single image, or none.

    Example:

    >>> import numpy as np
    >>> from libra_keras.models.inputs import as_batch
    >>> as_batch([np.zeros((64, 96, 3)), np.ones((64, 96, 3))]).shape
    (2, 64, 96, 3)
    >>> as_batch({"images": np.zeros((1, 64, 96, 3)), "image_sizes": [[50, 96]]})["image_sizes"]
    array([[50, 96]])
    """
    if isinstance(x, dict):
        x = {key: _joined(value, key) for key, value in x.items()}
    else:
        x = _joined(x, "images")
    images = x.get("images") if isinstance(x, dict) else x
    if hasattr(images, "shape") and hasattr(images, "dtype"):  # else it may be a data set
        _check_images(images.shape)
    return x


def _joined(values, name):
    """The array of which a list holds the rows; anything else as it is."""
    if not isinstance(values, (list, tuple)):
        return values
    rows = [_row(value, name) for value in values]
    shapes = [tuple(row.shape) for row in rows]
    if name == "images":
        _check_list(shapes)
    elif len(set(shapes)) > 1:
        raise ValueError(
            f"x[{name!r}] must be an array, or a list of arrays of one shape, padded. "
            f"Received: a list with the shapes {_listed(shapes)}"
        )
    tensors = all(ops.is_tensor(row) or isinstance(row, keras.KerasTensor) for row in rows)
    return ops.stack(rows) if tensors and rows else np.array(rows)


def _row(value, name):
    if hasattr(value, "shape"):
        return value
    if isinstance(value, (str, bytes, os.PathLike, dict)) and name == "images":
        raise ValueError(f"{EXPECTED}a list with a {type(value).__name__}")
    try:
        return np.asarray(value)
    except ValueError:  # rows of several lengths
        return np.asarray(value, "object")


def _check_list(shapes):
    if not shapes:
        raise ValueError(f"{EXPECTED}an empty list")
    wrong = next((shape for shape in shapes if len(shape) != 3), None)
    if wrong is not None:
        raise ValueError(f"{EXPECTED}a list with the shape {wrong}")
    if len(set(shapes)) > 1:
        raise ValueError(f"{EXPECTED}a list with the shapes {_listed(shapes)}")


def _listed(shapes):
    return ", ".join(map(str, dict.fromkeys(shapes)))


def images_and_sizes(x):
    """Splits a batch; images without sizes are taken as unpadded.

    Args:
        x: dict of `"images"` `(B, H, W, 3)` and, where images are padded, `"image_sizes"`
            `(B, 2)`, height and width before padding; or the images alone. Lists of rows, too.

    Returns:
        Tuple of images and int32 sizes `(B, 2)`. On a replica without images both have one row,
        a blank image of size 0.

    Raises:
        ValueError: if images or sizes have another shape.

    Example:

    >>> import numpy as np
    >>> from libra_keras.models.inputs import images_and_sizes
    >>> _, sizes = images_and_sizes(np.zeros((1, 64, 96, 3), "uint8"))
    >>> [int(side) for side in sizes[0]]
    [64, 96]
    """
    x = as_batch(x)
    if not isinstance(x, dict):
        x = {"images": x}
    images = ops.convert_to_tensor(x["images"])
    _check_images(images.shape)
    if "image_sizes" in x:
        sizes = ops.cast(x["image_sizes"], "int32")
    else:
        batch, height, width = ops.shape(images)[:3]
        size = ops.stack([ops.cast(height, "int32"), ops.cast(width, "int32")])
        sizes = ops.broadcast_to(size, (batch, 2))
    if len(sizes.shape) != 2 or sizes.shape[-1] not in (2, None):
        raise ValueError(
            "`image_sizes` must be (B, 2), height and width before padding. "
            f"Received: shape {tuple(sizes.shape)}"
        )
    return with_an_image(images), with_an_image(sizes)


def _check_images(shape):
    if len(shape) != 4 or shape[-1] not in (1, 3, None):
        raise ValueError(f"{EXPECTED}shape {tuple(shape)}")


def is_image(image_sizes):
    """Which images of a batch are any: 1, or 0 for the blank one of a replica without images.

    Args:
        image_sizes: int `(B, 2)`, height and width before padding.

    Returns:
        float32 `(B,)`.

    Example:

    >>> from libra_keras.models.inputs import is_image
    >>> is_image([[64, 96], [0, 0]]).numpy().tolist()
    [1.0, 0.0]
    """
    return ops.cast(ops.convert_to_tensor(image_sizes)[:, 0] > 0, "float32")
