"""Normalise images inside the model, so that a model takes plain pixels."""

from collections.abc import Sequence
from typing import Any, Self

import keras
from keras import ops

from libra_keras.functional.argument_checks import check_arguments
from libra_keras.layers.channels_last import ChannelsLast
from libra_keras.ranges import FINITE, POSITIVE
from libra_keras.typing import Tensor


@keras.saving.register_keras_serializable(package="libra_keras")
class ImageNormalization(ChannelsLast):
    """Subtracts a mean from images and divides by a deviation, per channel.

    Arithmetic is float32, whatever the dtype of the images and the precision. Padding must be 0
    *after* normalisation, as in the reference, which pads last: pass `image_sizes`, and every pixel
    outside an image's own size becomes 0.

    Args:
        mean: sequence of one float per channel, in the range and order of the *output* channels
            before normalisation (with `"bgr"`: blue, green, red; 0..255).
        std: sequence of one positive float per channel, in the same order, or `None` for 1.
        channel_order: `"rgb"` keeps the channels, `"bgr"` reverses them.
        data_format: `"channels_last"`, or `None` for Keras' setting, under which the layer cannot
            be built if that is `"channels_first"`.

    Call arguments:
        images: tensor `(B, H, W, 3)` of any dtype, RGB, 0..255; H and W may be unknown.
        image_sizes: optional tensor `(B, 2)`, height and width in pixels before padding.

    Returns:
        Tensor `(B, H, W, 3)` of the layer's compute dtype.

    Raises:
        ValueError: if `mean` and `std` differ in length, a deviation is not positive,
            `channel_order` is unknown, the channels of the images do not match `mean`, or
            `image_sizes` has another shape.

    Example:

    >>> import numpy as np
    >>> from libra_keras.layers import ImageNormalization
    >>> images = np.full((1, 2, 2, 3), 100, "uint8")
    >>> normalize = ImageNormalization(mean=(90, 100, 110), std=(5, 5, 5))
    >>> [float(value) for value in normalize(images, image_sizes=[[2, 1]])[0, 1, 0]]
    [2.0, 0.0, -2.0]
    >>> [float(value) for value in normalize(images, image_sizes=[[2, 1]])[0, 1, 1]]
    [0.0, 0.0, 0.0]

    Source: the data preprocessor of the reference, and its two sets of numbers.
    """

    def __init__(
        self,
        mean: Sequence[float] = (123.675, 116.28, 103.53),
        std: Sequence[float] | None = (58.395, 57.12, 57.375),
        channel_order: str = "rgb",
        **kwargs: Any,
    ) -> None:
        # Casting pixels to a half precision before the subtraction would lose their last bits.
        super().__init__(autocast=False, **kwargs)
        if channel_order not in ("rgb", "bgr"):
            raise ValueError(f"`channel_order` must be 'rgb' or 'bgr'. Received: {channel_order!r}")
        if std is not None and len(std) != len(mean):
            raise ValueError(
                f"`std` must be None or as many numbers as `mean`. Received: mean={mean}, std={std}"
            )
        self.mean = tuple(float(FINITE.check("`mean`", value)) for value in mean)
        self.std = None
        if std is not None:
            self.std = tuple(float(POSITIVE.check("`std`", value)) for value in std)
        self.channel_order = channel_order

    @classmethod
    def torch_style(cls, **kwargs: Any) -> Self:
        """Returns the layer for weights that were trained on RGB with torchvision's numbers."""
        return cls((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), "rgb", **kwargs)

    @classmethod
    def caffe_style(cls, **kwargs: Any) -> Self:
        """Returns the layer for weights from Caffe, such as those of `keras.applications.ResNet50`.

        Channels become blue, green, red; the mean (103.939, 116.779, 123.68) is subtracted;
        nothing is divided.
        """
        return cls((103.939, 116.779, 123.68), None, "bgr", **kwargs)

    @classmethod
    def tf_style(cls, **kwargs: Any) -> Self:
        """Returns the layer that maps 0..255 to -1..1, RGB, as MobileNetV2 and ResNetV2 expect.

        These are the networks of `keras.applications`, which calls this mode "tf".
        """
        return cls((127.5, 127.5, 127.5), (127.5, 127.5, 127.5), "rgb", **kwargs)

    @classmethod
    def none(cls, **kwargs: Any) -> Self:
        """Returns the layer that leaves RGB in 0..255, for networks that scale pixels themselves.

        In `keras.applications` these are EfficientNet, EfficientNetV2, ConvNeXt and MobileNetV3
        (see `BackboneAdapter.rescales`). Padding still becomes 0, which to such a network is black
        rather than the mean colour: it sees an edge where a padded image ends, both in training and
        in inference.
        """
        return cls((0.0, 0.0, 0.0), None, "rgb", **kwargs)

    def build(self, images_shape: Sequence[int | None]) -> None:
        super().build(images_shape)
        if len(images_shape) != 4 or images_shape[-1] != len(self.mean):
            raise ValueError(
                f"`images` must have shape (B, H, W, {len(self.mean)}), one channel for each "
                f"value of `mean`. Received: shape={tuple(images_shape)}"
            )
        axes = {-1: len(self.mean)}
        self.input_spec = keras.layers.InputSpec(ndim=4, axes=axes, name="images")

    def call(self, images: Tensor, image_sizes: Tensor | None = None) -> Tensor:
        check_arguments({"images (B, H, W, C)": images, "image_sizes (B, 2)": image_sizes})
        pixels = ops.cast(images, "float32")
        if self.channel_order == "bgr":
            pixels = ops.flip(pixels, axis=-1)
        batch, height, width, channels = ops.shape(pixels)
        # As rows of W * C values: TensorFlow's kernels are slow to broadcast over three channels.
        rows = ops.reshape(pixels, (batch, height, width * channels))
        rows = rows - ops.tile(ops.convert_to_tensor(self.mean, "float32"), (width,))
        if self.std is not None:
            rows = rows / ops.tile(ops.convert_to_tensor(self.std, "float32"), (width,))
        if image_sizes is not None:
            rows = ops.where(_inside(height, width, channels, image_sizes), rows, 0.0)
        pixels = ops.reshape(rows, (batch, height, width, channels))
        return ops.cast(pixels, self.compute_dtype)

    def compute_output_shape(self, images_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        return tuple(images_shape)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "mean": self.mean,
            "std": self.std,
            "channel_order": self.channel_order,
        }


def _inside(height, width, channels, image_sizes):
    """(B, H, W * C) bool: does a value belong to a pixel within its own image's size?"""
    sizes = ops.cast(image_sizes, "int32")[:, None, None, :]
    rows = ops.arange(height, dtype="int32")[None, :, None]
    columns = ops.arange(width * channels, dtype="int32")[None, None, :] // channels
    return ops.logical_and(rows < sizes[..., 0], columns < sizes[..., 1])
