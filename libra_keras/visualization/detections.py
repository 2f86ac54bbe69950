"""Pictures of detections: boxes with names and scores drawn on images."""

import colorsys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFont

GOLDEN_RATIO = (5**0.5 - 1) / 2


def class_color(label: int) -> tuple[int, int, int]:
    """The colour of a class, the same in every picture.

    Args:
        label: int >= 0.

    Returns:
        Three ints in 0..255. Hues of consecutive labels lie a golden section of the circle apart,
        so that any first few classes differ well; brightness alternates.

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
) -> np.ndarray:
    """Draws boxes with their names and scores on a copy of an image.

    The best boxes are drawn last, on top. Text has the colour of its class as background, and
    lies above the box, or inside where there is no room above.

    Args:
        image: uint8 `(H, W, 3)` RGB.
        boxes: `(n, 4)` of `(x1, y1, x2, y2)` in pixels of `image`.
        labels: ints `(n,)`; negative rows (padding) are left out.
        scores: `(n,)` in [0, 1], or `None` for annotations.
        class_names: sequence of names, or `None` to write the labels' numbers.
        min_score: float, boxes of lower scores are left out. Defaults to 0.
        enlarge: int >= 1, factor by which the image is enlarged first, so that names stay
            readable on small images. Defaults to 1.
        font_size: int, height of the text in pixels of the result, or `None` for a fitting one.

    Returns:
        uint8 `(H * enlarge, W * enlarge, 3)`.

    Raises:
        ValueError: if `image` is not uint8 `(H, W, 3)`, or the numbers of boxes, labels and
            scores differ.

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
    height, width = image.shape[:2]
    canvas = Image.fromarray(image).resize((width * enlarge, height * enlarge))
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(font_size or max(10, min(canvas.size) // 32))
    for i in np.argsort(ranks, kind="stable"):
        if labels[i] < 0 or ranks[i] < min_score:
            continue
        text = str(labels[i]) if class_names is None else class_names[labels[i]]
        text = text if scores is None else f"{text} {ranks[i]:.2f}"
        _draw_box(draw, boxes[i] * enlarge, text, class_color(int(labels[i])), font)
    return np.asarray(canvas)


def _checked_image(image):
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(f"Expected a uint8 image (H, W, 3). Received: {image.dtype} {image.shape}")
    return image


def _draw_box(draw, box, text, color, font):
    width, height = draw.im.size
    line = max(1, min(width, height) // 250)
    # Boxes are half-open, Pillow's rectangles contain their last pixel.
    x1, y1 = (max(0, round(v)) for v in box[:2])
    x2, y2 = min(width, round(box[2])) - 1, min(height, round(box[3])) - 1
    draw.rectangle((x1, y1, max(x1, x2), max(y1, y2)), outline=color, width=line)

    left, top, right, bottom = font.getbbox(text)
    text_width, text_height = right - left + 4, bottom - top + 4
    x = max(0, min(x1, width - text_width))
    y = y1 - text_height if y1 >= text_height else y1
    draw.rectangle((x, y, x + text_width - 1, y + text_height - 1), fill=color)
    luminance = np.dot(color, (0.299, 0.587, 0.114))
    ink = (0, 0, 0) if luminance > 130 else (255, 255, 255)
    draw.text((x + 2 - left, y + 2 - top), text, fill=ink, font=font)


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
        uint8 `(H, W, 3)`. Every image lies in the middle of a cell of the largest image's size.

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
    """Writes a picture to a file, whose folder is made; the suffix says the format.

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
