"""What a model sees of an image, and how: a part of it, at a scale, turned and flipped."""

import dataclasses
from typing import Any

import numpy as np
from PIL import Image

from libra_keras.data.findings import MIN_SIDE
from libra_keras.data.images import scale_boxes, size_of

# The least share of a box that a crop must leave. SSD keeps an object if its centre is left, and
# then at least a quarter of it is.
MIN_VISIBLE = 0.25
_WAYS = Image.Transpose
# By quarter turns and whether the turned image is flipped top to bottom.
TRANSPOSES = {
    (0, True): _WAYS.FLIP_TOP_BOTTOM,
    (1, False): _WAYS.ROTATE_90,
    (1, True): _WAYS.TRANSPOSE,
    (2, False): _WAYS.ROTATE_180,
    (2, True): _WAYS.FLIP_LEFT_RIGHT,
    (3, False): _WAYS.ROTATE_270,
    (3, True): _WAYS.TRANSVERSE,
}


@dataclasses.dataclass(frozen=True)
class View:
    """A window of a scaled image, turned and then flipped.

    Args:
        original: `(height, width)` of the image that boxes refer to.
        scaled: `(height, width)` of the whole image at the view's scale.
        window: `(top, left, height, width)` of the part that is seen, in the scaled image.
        padded: `(height, width)` to which what is seen is padded.
        turns: int in 0..3, quarter turns, counter-clockwise.
        is_upside_down: bool, whether the turned window is flipped top to bottom.
    """

    original: tuple[int, int]
    scaled: tuple[int, int]
    window: tuple[int, int, int, int]
    padded: tuple[int, int]
    turns: int = 0
    is_upside_down: bool = False

    @property
    def is_cut(self) -> bool:
        """Whether a part of the image is not seen."""
        return self.window[2:] != self.scaled

    @property
    def size(self) -> tuple[int, int]:
        """`(height, width)` of what is seen."""
        height, width = self.window[2:]
        return (width, height) if self.turns % 2 else (height, width)

    def image(self, image: np.ndarray | Image.Image, kernel: Any) -> np.ndarray | Image.Image:
        """Returns what is seen of the image, which may be of any size."""
        size = size_of(image)
        if self.is_cut or size != self.scaled:
            image = _pillow(image).resize(self.window[:1:-1], kernel, self._window_in(*size))
        way = TRANSPOSES.get((self.turns, self.is_upside_down))
        return image if way is None else _pillow(image).transpose(way)

    def _window_in(self, height, width):
        """The window's `(x1, y1, x2, y2)` in the image at another size; fractions are used."""
        top, left, rows, columns = self.window
        down, right = height / self.scaled[0], width / self.scaled[1]
        bottom, end = min((top + rows) * down, height), min((left + columns) * right, width)
        return left * right, top * down, end, bottom

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Returns float32 `(n, 4)`, boxes `(n, 4)` of the original as they lie in what is seen."""
        boxes = self._clipped(boxes) if self.is_cut else self._scaled(boxes)
        (height, width), turns = self.window[2:], self.turns
        for _ in range(turns):
            x1, y1, x2, y2 = boxes.T
            boxes = np.stack([y1, width - x2, y2, width - x1], -1)
            height, width = width, height
        if self.is_upside_down:
            x1, y1, x2, y2 = boxes.T
            boxes = np.stack([x1, height - y2, x2, height - y1], -1)
        return boxes

    def seen(self, boxes: np.ndarray) -> np.ndarray:
        """Returns bool `(n,)`, which boxes of the original are not cut away: of the others less
        than `MIN_VISIBLE` would be left, or a side of at most `MIN_SIDE` pixels."""
        if not self.is_cut:
            return np.ones(len(boxes), bool)
        whole, left = self._scaled(boxes), self._clipped(boxes)
        sides = left[:, 2:] - left[:, :2]
        areas = np.prod(whole[:, 2:] - whole[:, :2], -1)
        return (sides > MIN_SIDE).all(-1) & (np.prod(sides, -1) >= MIN_VISIBLE * areas)

    def _scaled(self, boxes):
        return scale_boxes(boxes, self.original, self.scaled)

    def _clipped(self, boxes):
        top, left, height, width = self.window
        corner = np.array([left, top, left, top], "float32")
        ends = np.array([width, height, width, height], "float32")
        return np.clip(self._scaled(boxes) - corner, 0, ends)


def _pillow(image):
    return image if isinstance(image, Image.Image) else Image.fromarray(image)
