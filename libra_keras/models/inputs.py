"""What a batch of inputs holds, in whatever form it comes."""

from keras import ops

from libra_keras.functional.replicas import with_an_image


def images_and_sizes(x):
    """Splits a batch; images without sizes are taken as unpadded.

    Args:
        x: dict of `"images"` `(B, H, W, 3)` and, where images are padded, `"image_sizes"`
            `(B, 2)`, height and width before padding; or the images alone.

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
    if not isinstance(x, dict):
        x = {"images": x}
    images = ops.convert_to_tensor(x["images"])
    if len(images.shape) != 4:
        _refuse(images.shape)
    if "image_sizes" in x:
        sizes = ops.cast(x["image_sizes"], "int32")
    else:
        batch, height, width = ops.shape(images)[:3]
        size = ops.stack([ops.cast(height, "int32"), ops.cast(width, "int32")])
        sizes = ops.broadcast_to(size, (batch, 2))
    _check(images.shape, sizes.shape)
    return with_an_image(images), with_an_image(sizes)


def _check(images, sizes):
    if images[-1] not in (1, 3, None):
        _refuse(images)
    if len(sizes) != 2 or sizes[-1] not in (2, None):
        raise ValueError(
            "`image_sizes` must be (B, 2), height and width before padding. "
            f"Received: shape {tuple(sizes)}"
        )


def _refuse(images):
    raise ValueError(
        "`images` must be a batch (B, H, W, 3), RGB; `detect` takes single images and lists. "
        f"Received: shape {tuple(images)}"
    )


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
