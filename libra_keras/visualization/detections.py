"""Pictures of detections: boxes with names and scores drawn on images."""

import colorsys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw

from libra_keras.visualization.fonts import font_for
from libra_keras.visualization.label_places import free_corner, label_places

GOLDEN_RATIO = (5**0.5 - 1) / 2
GREY = (150, 150, 150)


def class_color(label: int) -> tuple[int, int, int]:
    """The colour of a class, the same in every picture.

    Args:
        label: int >= 0.

    Returns:
        Three ints in 0..255. Hues of consecutive labels are a golden section of the circle apart,
        so that the first few classes are easy to tell apart; brightness alternates.

    Example:

    >>> from libra_keras.visualization import class_color
    >>> class_color(0), class_color(1)
    ((255, 51, 51), (36, 77, 178))
    """
    hue = label * GOLDEN_RATIO % 1
    value = (1.0, 0.7)[label % 2]
    red, green, blue = (round(255 * channel) for channel in colorsys.hsv_to_rgb(hue, 0.8, value))
    return red, green, blue


def draw_detections(
    image: np.ndarray,
    boxes: ArrayLike,
    labels: ArrayLike,
    scores: ArrayLike | None = None,
    class_names: Sequence[str] | None = None,
    min_score: float = 0.0,
    enlarge: int = 1,
    font_size: int | None = None,
    best_below: int = 0,
) -> np.ndarray:
    """Draws boxes with their names and scores on a copy of an image.

    The best boxes are drawn last, on top. Text has the colour of its class as background, and is
    above its box, or in, below or beside it, where it hides no small object and no other text. The
    best boxes choose first; if there is little room the score is left out, and if there is none, so
    is the name. Lines and text are scaled to the size of the image. Letters that Pillow's own font
    lacks are drawn with one of the system, or matplotlib's.

    Args:
        image: uint8 `(H, W, 3)` RGB.
        boxes: `(n, 4)` of `(x1, y1, x2, y2)` in pixels of `image`.
        labels: ints `(n,)`; negative rows (padding) are left out.
        scores: `(n,)` in [0, 1], or `None` for annotations.
        class_names: sequence of names, or `None` to write the labels' numbers.
        min_score: float, boxes of lower scores are left out. Defaults to 0.
        enlarge: int >= 1, factor by which the image is enlarged first, so that names stay
            readable on small images. Defaults to 1.
        font_size: int, height of the text in pixels of the result, or `None` for a suitable one.
        best_below: int, number of best boxes to draw in grey, with a remark, if no score reaches
            `min_score`. Defaults to 0.

    Returns:
        uint8 `(H * enlarge, W * enlarge, 3)`.

    Raises:
        ValueError: if `image` is not uint8 `(H, W, 3)`, or the numbers of boxes, labels and scores
            differ.

    Example:

    >>> import numpy as np
    >>> from libra_keras.visualization import draw_detections
    >>> image = np.zeros((60, 80, 3), "uint8")
    >>> picture = draw_detections(image, [[10, 20, 50, 50]], [0], [0.9], ["cat"], enlarge=2)
    >>> picture.shape, picture[99, 60].tolist()  # on the lower edge, 2 * 50 - 1
    ((120, 160, 3), [255, 51, 51])
    """
    image, boxes = _checked_image(image), np.asarray(boxes, "float64").reshape(-1, 4)
    labels = np.asarray(labels, "int64").reshape(-1)
    ranks = np.ones(len(boxes)) if scores is None else np.asarray(scores, "float64").reshape(-1)
    if not len(boxes) == len(labels) == len(ranks):
        raise ValueError(
            "Expected as many labels and scores as boxes. "
            f"Received: {len(boxes)} boxes, {len(labels)} labels, {len(ranks)} scores"
        )
    order = [i for i in np.argsort(-ranks, kind="stable") if labels[i] >= 0]
    shown = [i for i in order if ranks[i] >= min_score]
    is_below = best_below > 0 and not shown
    shown = order[:best_below] if is_below else shown
    names = [str(k) if class_names is None else class_names[k] for k in labels[shown]]
    texts = [[name] for name in names]  # and what is better, where there is room
    if scores is not None:
        texts = [[f"{n} {ranks[i]:.2f}", n] for n, i in zip(names, shown, strict=True)]
    colors = [GREY if is_below else class_color(int(k)) for k in labels[shown]]
    height, width = image.shape[:2]
    picture = _Picture(
        Image.fromarray(image).resize((width * enlarge, height * enlarge)), font_size
    )
    drawn = boxes[shown] * enlarge
    picture.draw(drawn, texts, colors)
    if is_below:
        picture.remark(f"no score reaches {min_score:g}" if shown else "nothing found", drawn)
    return np.asarray(picture.canvas)


def _checked_image(image):
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(f"Expected a uint8 image (H, W, 3). Received: {image.dtype} {image.shape}")
    return image


class _Picture:
    """An image, and pens that suit its size."""

    def __init__(self, canvas, font_size=None):
        self.canvas = canvas
        self.pen = ImageDraw.Draw(canvas)
        side = min(canvas.size)
        self.line = max(1, round(side / 240))
        self.font_size = font_size or max(10, round(side / 36))

    def draw(self, boxes, texts, colors):
        """Draws boxes, the first on top, and then the first of the texts that there is room for."""
        for box, color in reversed(list(zip(boxes, colors, strict=True))):
            self._outline(box, color)
        sizes = [[self._size(text) for text in own] for own in texts]
        places = label_places(boxes, sizes, *self.canvas.size)
        for place, own, known, color in zip(places, texts, sizes, colors, strict=True):
            if place is not None:
                size = place[2] - place[0], place[3] - place[1]
                self._write(place, own[known.index(size)], color)

    def remark(self, text, boxes):
        """Writes a word in a corner."""
        self._write(free_corner(self._size(text), boxes, *self.canvas.size), text, GREY)

    def _outline(self, box, color):
        width, height = self.canvas.size
        # Boxes are half-open, Pillow's rectangles contain their last pixel.
        x1, y1 = (max(0, round(v)) for v in box[:2])
        x2, y2 = max(x1, min(width, round(box[2])) - 1), max(y1, min(height, round(box[3])) - 1)
        thin = max(1, min(x2 - x1, y2 - y1) // 8)  # of a small object something is to remain
        self.pen.rectangle((x1, y1, x2, y2), outline=color, width=min(self.line, thin))

    def _size(self, text):
        left, top, right, bottom = font_for(text, self.font_size).getbbox(text)
        return right - left + 4, bottom - top + 4

    def _write(self, place, text, color):
        x1, y1, x2, y2 = place
        self.pen.rectangle((x1, y1, x2 - 1, y2 - 1), fill=color)
        luminance = np.dot(color, (0.299, 0.587, 0.114))
        ink = (0, 0, 0) if luminance > 130 else (255, 255, 255)
        font = font_for(text, self.font_size)
        left, top, *_ = font.getbbox(text)
        self.pen.text((x1 + 2 - left, y1 + 2 - top), text, fill=ink, font=font)


def gallery(
    images: Sequence[np.ndarray], columns: int = 4, gap: int = 8, background: int = 255
) -> np.ndarray:
    """Arranges images of any sizes in rows on one picture.

    Args:
        images: list of uint8 `(H, W, 3)` arrays.
        columns: int, images per row. Defaults to 4.
        gap: int, pixels between them. Defaults to 8.
        background: int in 0..255, the grey of the rest. Defaults to white.

    Returns:
        uint8 `(H, W, 3)`. Every image is centred in a cell of the largest image's size.

    Raises:
        ValueError: if there is no image, or one is not uint8 `(H, W, 3)`.

    Example:

    >>> import numpy as np
    >>> from libra_keras.visualization import gallery
    >>> images = [np.zeros((20, 30, 3), "uint8")] * 3
    >>> gallery(images, columns=2, gap=4).shape
    (44, 64, 3)
    """
    images = [_checked_image(image) for image in images]
    if not images:
        raise ValueError("Expected at least one image. Received: none")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    cell = np.max([image.shape[:2] for image in images], 0)
    height, width = cell * (rows, columns) + gap * (np.array([rows, columns]) - 1)
    picture = np.full((height, width, 3), background, "uint8")
    for i, image in enumerate(images):
        corner = np.array(divmod(i, columns)) * (cell + gap)
        y, x = corner + (cell - image.shape[:2]) // 2
        picture[y : y + image.shape[0], x : x + image.shape[1]] = image
    return picture


def save_image(image: np.ndarray, path: str | Path) -> None:
    """Writes a picture to a file, whose folder is created; the suffix selects the format.

    Args:
        image: uint8 `(H, W, 3)` RGB.
        path: str or path, usually `.png`.

    Example:

    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from libra_keras.visualization import save_image
    >>> path = Path(tempfile.mkdtemp()) / "pictures" / "black.png"
    >>> save_image(np.zeros((4, 4, 3), "uint8"), path)
    >>> path.exists()
    True
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(_checked_image(image)).save(path)
