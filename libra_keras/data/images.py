"""From what a user has (a file, an array) to the pixels that a model gets: read, resize, pad."""

import contextlib
import dataclasses
import io
import os
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import keras
import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageOps

from libra_keras.data.decoding import in_flight, opened
from libra_keras.files.reading import explained
from libra_keras.ranges import whole
from libra_keras.typing import Tensor

SIDES = whole(1, 2**16)  # pixels
RESIZE_KERNELS = {"antialias": Image.Resampling.BILINEAR}
STRIP = 2**20  # numbers of an image that are scaled at a time


def read_image(
    source: str | os.PathLike | bytes | BinaryIO | Image.Image | Tensor,
    exif_rotation: bool = False,
) -> np.ndarray:
    """Reads an image as 8-bit RGB, with the pixels as they are stored.

    Grey images get three equal channels; CMYK and palettes are converted; an alpha channel is
    dropped, not blended; 16 bits per channel are scaled to 8 (65535 becomes 255). Only the first
    frame of a file is read. An EXIF orientation is *not* applied unless asked for, since
    annotations refer to the stored pixels. Files may have any format that Pillow and its plug-ins
    read, except EPS, IPTC and WMF, and at most as many pixels as Pillow allows: twice
    `PIL.Image.MAX_IMAGE_PIXELS`, which is 178,956,970 unless a program changes it.

    Args:
        source: path, bytes of an encoded image, file object, `PIL.Image.Image`, or an array
            `(H, W)`, `(H, W, 1)`, `(H, W, 3)` RGB or `(H, W, 4)` RGBA: uint8, uint16, or floats
            from 0 to 255.
        exif_rotation: bool, whether to rotate and mirror the image according to its EXIF
            orientation. Arrays have none.

    Returns:
        uint8 array `(H, W, 3)`, RGB.

    Raises:
        ValueError: if an array has another shape or dtype, or values that are not pixels, or only
            fractions from 0 to 1, as in other libraries.
        OSError: if a file is missing, is not an image, is too large, or is damaged; the message
            names the file.

    Example:

    >>> import numpy as np
    >>> from libra_keras.data import read_image
    >>> read_image(np.full((2, 3), 65535, "uint16"))[0, 0].tolist()
    [255, 255, 255]
    """
    if isinstance(source, Image.Image):
        return np.array(_rgb_of_pillow(source, exif_rotation))
    is_path = isinstance(source, (str, os.PathLike))
    if isinstance(source, (bytes, bytearray)):
        source = io.BytesIO(source)
    if not is_path and not hasattr(source, "read"):
        return _rgb_of_array(np.asarray(source))
    name = os.fspath(source) if is_path else "the image"  # type: ignore[arg-type]
    with explained(name, kind=OSError), decoded(source, exif_rotation) as image:
        return np.array(image)


@contextlib.contextmanager
def decoded(
    source: str | os.PathLike | BinaryIO, exif_rotation: bool = False
) -> Iterator[Image.Image]:
    """Yields a file as a Pillow image: the pixels of `read_image`, without a copy to an array.

    They count among those in the memory until the block ends, so resize them in it.
    """
    with opened(source) as image, in_flight(image):
        yield _rgb_of_pillow(image, exif_rotation)


def _rgb_of_pillow(image, exif_rotation):
    if exif_rotation:
        image = ImageOps.exif_transpose(image)
    if image.mode == "RGB":
        image.load()  # a file is decoded while it is open
        return image
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        pixels = np.asarray(image)
        wide = image.mode != "F"  # mode I holds the 16 bits of some PNG files in 32
        pixels = np.clip(pixels, 0, 65535).astype("uint16") if wide else pixels
        return Image.fromarray(_rgb_of_array(pixels))
    if image.mode in ("P", "PA"):  # through RGBA: Pillow warns where a palette has transparency
        image = image.convert("RGBA")
    return image.convert("RGB")


def _rgb_of_array(pixels):
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 3, 4) or 0 in pixels.shape:
        raise ValueError(
            "An image array must be (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), not empty. "
            f"Received: shape {pixels.shape}"
        )
    pixels = _eight_bits(pixels[..., :3])
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def _eight_bits(pixels):
    if pixels.dtype == np.uint8:
        return pixels
    if np.issubdtype(pixels.dtype, np.uint16):  # of any order of bytes
        return _narrowed(pixels)
    is_number = np.issubdtype(pixels.dtype, np.integer) or np.issubdtype(pixels.dtype, np.floating)
    if not is_number or not (np.all(pixels >= 0) and np.all(pixels <= 255)):
        values = f" from {pixels.min()} to {pixels.max()}" if is_number else ""
        raise ValueError(
            "An image array must be uint8, uint16, or numbers from 0 to 255. "
            f"Received: {pixels.dtype}{values}"
        )
    fractions = told_fractions(pixels)
    if fractions:
        raise ValueError(f"An image array of floats must be from 0 to 255. Received: {fractions}")
    return np.rint(pixels).astype("uint8")


def _narrowed(pixels):
    """Scales 16 bits to 8, a strip of rows at a time: wider numbers of a whole image take room."""
    scaled = np.empty(pixels.shape, "uint8")
    step = max(1, STRIP // pixels[0].size)
    for start in range(0, len(pixels), step):
        strip = slice(start, start + step)
        scaled[strip] = (pixels[strip].astype("uint32") + 128) // 257
    return scaled


def told_fractions(pixels):
    """Says that all pixels are fractions from 0 to 1, as other libraries have them; else `None`."""
    if not np.issubdtype(pixels.dtype, np.floating) or not pixels.size:
        return None
    low, high = pixels.min(), pixels.max()
    if not (0 <= low and high <= 1 and np.any(pixels % 1)):
        return None
    return f"values from {low:.3g} to {high:.3g}, which would be black: multiply them by 255"


@keras.saving.register_keras_serializable(package="libra_keras")
@dataclasses.dataclass(frozen=True)
class InputPolicy:
    """How an image becomes a model's input: resized in proportion, padded at the right and bottom.

    The image is enlarged or shrunk until its shorter side is `short_side` or its longer side is
    `long_side`, whichever comes first, and padded to one of two sizes, so that images of all
    sizes make batches of two shapes: a landscape `(short_side, long_side)` and a portrait
    `(long_side, short_side)`, both rounded up to a multiple of `pad_multiple`. Training,
    `detect` and export use one policy; it is saved with the model.

    Args:
        short_side: int, maximum pixels of the shorter side.
        long_side: int, maximum pixels of the longer side.
        pad_multiple: int, both padded sides are multiples of it. Defaults to 32, the stride of
            the coarsest backbone feature.
        resize: `"antialias"`: Pillow's bilinear filter, which averages over all covered pixels
            when it shrinks. Other libraries' plain bilinear differs.
        rounding: of the resized sides, `"nearest"`, as in mmdetection, or `"down"`, as in
            torchvision: in float32, so that 375 rows become 799, not 800.

    Raises:
        ValueError: if a side is not positive, or `short_side` exceeds `long_side`, or the
            kernel or the rounding has another name.

    Example:

    >>> from libra_keras.data import InputPolicy
    >>> policy = InputPolicy(short_side=800, long_side=1333)
    >>> policy.fitted_size(480, 640), policy.bucket_size(480, 640)
    ((800, 1067), (800, 1344))

    Reference: the sizes are those of [FPN](https://arxiv.org/abs/1612.03144), section 5, as
    mmdetection computes them. Differs from mmdetection: batches are padded to the size of their
    bucket, not to the largest image that they hold.
    """

    short_side: int
    long_side: int
    pad_multiple: int = 32
    resize: str = "antialias"
    rounding: str = "nearest"

    def __post_init__(self):
        for name in ("short_side", "long_side", "pad_multiple"):
            object.__setattr__(self, name, SIDES.check(f"`{name}`", getattr(self, name)))
        if self.short_side > self.long_side:
            raise ValueError(
                "Expected short_side <= long_side. Received: "
                f"short_side={self.short_side}, long_side={self.long_side}"
            )
        if self.resize not in RESIZE_KERNELS:
            raise ValueError(
                f"`resize` must be one of {sorted(RESIZE_KERNELS)}. Received: {self.resize!r}"
            )
        if self.rounding not in ("nearest", "down"):
            raise ValueError(f"`rounding` must be 'nearest' or 'down'. Received: {self.rounding!r}")

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict) -> "InputPolicy":
        """Returns the policy for a config."""
        return cls(**config)

    def fitted_size(self, height: int, width: int) -> tuple[int, int]:
        """Returns `(height, width)` of an image of the given size after resizing."""
        longer, shorter = max(height, width), min(height, width)
        if self.rounding == "down":
            # A reciprocal, then a product, both in float32: torch divides a number by a tensor so.
            ends = np.array([self.long_side, self.short_side], "float32")
            scale = np.min(np.float32(1) / np.array([longer, shorter], "float32") * ends)
            sides = np.floor(np.array([height, width], "float32") * scale)
            height, width = sides.astype(int).tolist()
            return max(1, height), max(1, width)
        scale = min(self.long_side / longer, self.short_side / shorter)
        return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))

    def bucket_size(self, height: int, width: int) -> tuple[int, int]:
        """Returns the padded `(height, width)` of an image's bucket; squares are landscape."""
        short, long = (self._padded(side) for side in (self.short_side, self.long_side))
        return (long, short) if height > width else (short, long)

    def _padded(self, side):
        return -(-side // self.pad_multiple) * self.pad_multiple

    def prepare(self, image: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
        """Resizes and pads an image.

        Args:
            image: uint8 `(H, W, 3)`.

        Returns:
            Tuple of the padded uint8 image `(H', W', 3)`, zero outside its content, and the
            content's `(height, width)`. A box of the image is scaled per axis by the content's
            size over the original size, as `scale_boxes` does.
        """
        content = self.resized(image)
        size = content.shape[:2]
        padded = np.zeros((*self.bucket_size(*image.shape[:2]), 3), "uint8")
        padded[: size[0], : size[1]] = content
        return padded, size

    def resized(self, image: np.ndarray | Image.Image) -> np.ndarray:
        """Resizes an image without padding it.

        Args:
            image: uint8 `(H, W, 3)`, or a Pillow image of mode RGB, which saves two copies.

        Returns:
            uint8 `(h, w, 3)`, perhaps read-only, perhaps `image` itself.
        """
        return np.asarray(self.fitted(image))

    def fitted(self, image: np.ndarray | Image.Image) -> np.ndarray | Image.Image:
        """Returns what `resized` does, perhaps as a Pillow image still, perhaps `image` itself."""
        size = size_of(image)
        height, width = self.fitted_size(*size)
        if (height, width) == size:
            return image
        image = image if isinstance(image, Image.Image) else Image.fromarray(image)
        return image.resize((width, height), RESIZE_KERNELS[self.resize])


def size_of(image: np.ndarray | Image.Image) -> tuple[int, int]:
    """Returns `(height, width)` of an image."""
    if isinstance(image, Image.Image):
        return image.height, image.width
    return image.shape[0], image.shape[1]


def scale_boxes(
    boxes: ArrayLike, from_size: Sequence[float], to_size: Sequence[float]
) -> np.ndarray:
    """Moves boxes from an image of one size to the same image at another.

    Each axis has its own factor: rounding to whole pixels makes them differ a little.

    Args:
        boxes: `(..., 4)` array of `(x1, y1, x2, y2)` in pixels.
        from_size: `(height, width)` of the image that the boxes are in.
        to_size: `(height, width)` of the resized image.

    Returns:
        float32 `(..., 4)`.

    Example:

    >>> from libra_keras.data import scale_boxes
    >>> scale_boxes([[0, 10, 20, 40]], (100, 200), (50, 300)).tolist()
    [[0.0, 5.0, 30.0, 20.0]]
    """
    vertical, horizontal = to_size[0] / from_size[0], to_size[1] / from_size[1]
    factors = np.array([horizontal, vertical, horizontal, vertical], "float32")
    return np.asarray(boxes, "float32") * factors
