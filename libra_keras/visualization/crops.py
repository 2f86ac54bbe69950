"""Small pictures of single errors: a part of an image with its annotations, and with detections."""

import dataclasses
import io

import numpy as np
from PIL import Image, ImageDraw

SIDE = 200  # pixels of the longer side of each half
MARGIN = 0.6  # of the longer side of what is shown, on each side of it
LEAST = 48  # pixels of the image
GAP = 4
TRUTH, FOUND, SHADE = (46, 190, 110), (255, 90, 50), (0, 0, 0)
GREY = (128, 128, 128)


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """What is drawn of an error, in pixels of the image; boxes are `(x1, y1, x2, y2)`.

    Args:
        truth: boxes `(n, 4)` of the annotations.
        found: boxes `(m, 4)` of the detections.
        true_box: the annotation that the error is about, or `None`.
        found_box: the detection that it is about, or `None`.

    Example:

    >>> import numpy as np
    >>> from libra_keras.visualization.crops import Scene
    >>> nothing = np.zeros((0, 4))
    >>> Scene(nothing, nothing, None, np.array([0, 0, 8, 8])).window(100, 100)
    (0, 0, 48, 48)
    """

    truth: np.ndarray
    found: np.ndarray
    true_box: np.ndarray | None
    found_box: np.ndarray | None

    def window(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Returns `(x1, y1, x2, y2)` of the part of an image that shows the error and what is
        around it: a square, unless the image is smaller."""
        boxes = np.array([box for box in (self.true_box, self.found_box) if box is not None])
        start, end = boxes[:, :2].min(0), boxes[:, 2:].max(0)
        side = max(float(np.max(end - start)) * (1 + 2 * MARGIN), LEAST)
        limits, half = np.array([width, height]), side / 2
        corner = np.clip((start + end) / 2 - half, 0, np.maximum(limits - side, 0))
        x1, y1 = np.floor(corner).astype(int).tolist()
        x2, y2 = np.minimum(np.ceil(corner + side), limits).astype(int).tolist()
        return x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)


def pair(image: np.ndarray, scene: Scene, side: int = SIDE) -> bytes:
    """Draws a part of an image twice: with the annotations, at the left, and with the detections.

    Args:
        image: uint8 `(H, W, 3)`.
        scene: `Scene`, whose own two boxes are drawn thicker.
        side: pixels of the longer side of each half.

    Returns:
        A JPEG file.

    Example:

    >>> import numpy as np
    >>> from libra_keras.visualization import crops
    >>> image, box = np.zeros((60, 80, 3), "uint8"), np.array([10, 10, 30, 30])
    >>> crops.pair(image, crops.Scene(box[None], box[None], box, box))[:2].hex()
    'ffd8'
    """
    window = scene.window(*image.shape[:2])
    part = Image.fromarray(image).crop(window)
    scale = side / max(part.size)
    size = max(1, round(scale * part.width)), max(1, round(scale * part.height))
    part = part.resize(size, Image.Resampling.BICUBIC)
    canvas = Image.new("RGB", (2 * size[0] + GAP, size[1]), GREY)
    halves = (scene.truth, scene.true_box, TRUTH), (scene.found, scene.found_box, FOUND)
    for number, (boxes, own, color) in enumerate(halves):
        half = part.copy()
        draw = ImageDraw.Draw(half)
        for box in boxes:
            _outline(draw, (box - np.tile(window[:2], 2)) * scale, color)
        if own is not None:
            _outline(draw, (own - np.tile(window[:2], 2)) * scale, color, is_own=True)
        canvas.paste(half, (number * (size[0] + GAP), 0))
    written = io.BytesIO()
    canvas.save(written, "JPEG", quality=75)
    return written.getvalue()


def _outline(draw, box, color, is_own=False):
    x1, y1, x2, y2 = (round(float(v)) for v in box)
    x2, y2 = max(x2 - 1, x1), max(y2 - 1, y1)
    if is_own:  # between two dark lines, so that it shows on any ground
        draw.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=SHADE, width=5)
    draw.rectangle((x1, y1, x2, y2), outline=color, width=3 if is_own else 1)
