"""Colours of an image, changed by one affine map of its pixels."""

import math

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

LUMA = np.array([0.299, 0.587, 0.114])  # of red, green and blue, ITU-R BT.601
MID_GREY = 127.5
_RED, _, _BLUE = np.eye(3)
_TO_YCC = np.array([LUMA, (_BLUE - LUMA) / 1.772, (_RED - LUMA) / 1.402])  # Y, Cb, Cr of BT.601
_FROM_YCC = np.linalg.inv(_TO_YCC)


def color_map(brightness: float, contrast: float, saturation: float, hue: float) -> np.ndarray:
    """Returns the map `(3, 4)` of RGB in 0..255 that turns hues by a share of the circle, and
    multiplies the distance from grey of the same luma, the distance from mid-grey, and all."""
    matrix = brightness * contrast * _saturated(saturation) @ _hue_turned(hue)
    offset = np.full((3, 1), brightness * (1 - contrast) * MID_GREY)
    return np.concatenate([matrix, offset], 1)


def _saturated(factor):
    return factor * np.eye(3) + (1 - factor) * np.tile(LUMA, (3, 1))


def _hue_turned(share):
    """Turns the plane of Cb and Cr, which leaves greys, and the luma of all colours, alone."""
    cos, sin = math.cos(2 * math.pi * share), math.sin(2 * math.pi * share)
    turned = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    return _FROM_YCC @ turned @ _TO_YCC


def recolored(image: np.ndarray | Image.Image, colors: ArrayLike) -> Image.Image:
    """Applies a map of `color_map` to an image, rounds, and clips to 0..255."""
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    return image.convert("RGB", tuple(np.asarray(colors).ravel().tolist()))
