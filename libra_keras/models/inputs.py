"""What a batch of inputs holds, in whatever form it comes."""

from keras import ops


def images_and_sizes(x):
    """Splits a batch; images without sizes are taken as unpadded.

    Args:
        x: dict of `"images"` `(B, H, W, 3)` and, where images are padded, `"image_sizes"`
            `(B, 2)`, height and width before padding; or the images alone.

    Returns:
        Tuple of images and int32 sizes `(B, 2)`.

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
    if "image_sizes" in x:
        return images, ops.cast(x["image_sizes"], "int32")
    batch, height, width = ops.shape(images)[:3]
    size = ops.stack([ops.cast(height, "int32"), ops.cast(width, "int32")])
    return images, ops.broadcast_to(size, (batch, 2))
