"""Annotations and detections of the same images side by side."""

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from libra_keras.data import DetectionData, Example
from libra_keras.data.findings import DamagedImage, read_checked
from libra_keras.visualization.detections import draw_detections, gallery

BEST = 3  # detections of an image that has none above the least score
GAP = 4  # pixels between the two pictures of an image


def spread(data: DetectionData, count: int) -> Iterator[tuple[Example, np.ndarray]]:
    """Yields images spread over a whole data set, and their examples; damaged ones are left out.

    Args:
        data: `DetectionData`.
        count: int, how many at most.

    Yields:
        Tuples of the `Example` and the uint8 `(H, W, 3)` image.

    Example:

    >>> from libra_keras import data
    >>> from libra_keras.visualization.panels import spread
    >>> [example.image_id for example, _ in spread(data.shapes(9), 3)]
    [1, 5, 9]
    """
    chosen = np.linspace(0, len(data) - 1, min(count, len(data))).astype(int)
    for i in dict.fromkeys(chosen.tolist()):
        try:
            with read_checked(data, i) as image:
                pixels = np.asarray(image)
        except DamagedImage:
            continue
        yield data.examples[i], pixels


def panel(
    data: DetectionData,
    detections: list[dict],
    class_names: Sequence[str] | None = None,
    count: int = 6,
    side: int = 400,
    min_score: float = 0.3,
) -> np.ndarray | None:
    """Draws annotations and, at the right of them, detections of a few images.

    If no score reaches `min_score`, the three best detections are drawn in grey, with a remark.

    Args:
        data: `DetectionData`.
        detections: list of dicts with `"image_id"`, `"boxes"`, `"labels"` and `"scores"` for all
            images of `data`, as `evaluation.collect_detections` returns it.
        class_names: names of the detections' labels, or `None` to write numbers.
        count: int, how many images at most, spread over the data set. Defaults to 6.
        side: int, pixels of the longer side of each, if it has as many. Defaults to 400.
        min_score: float, detections of lower scores are left out. Defaults to 0.3.

    Returns:
        uint8 `(H, W, 3)`, two images in a row, each twice; or `None` if no image can be read.

    Example:

    >>> import numpy as np
    >>> from libra_keras import data
    >>> from libra_keras.visualization.panels import panel
    >>> shapes = data.shapes(2)
    >>> nothing = {"boxes": np.zeros((0, 4)), "labels": [], "scores": []}
    >>> found = [{"image_id": example.image_id, **nothing} for example in shapes.examples]
    >>> panel(shapes, found, side=100).shape
    (114, 424, 3)
    """
    by_id = {image["image_id"]: image for image in detections}
    pairs = []
    for example, image in spread(data, count):
        found, known = by_id[example.image_id], ~example.ignore
        small, scale = _reduced(image, side)
        truth = scale * example.boxes[known], example.labels[known], None, data.class_names
        boxes = scale * np.asarray(found["boxes"])
        own = boxes, found["labels"], found["scores"], class_names, min_score
        drawn = draw_detections(small, *truth), draw_detections(small, *own, best_below=BEST)
        pairs.append(gallery(drawn, gap=GAP))
    if not pairs:
        return None
    return np.concatenate([_heading(pairs), gallery(pairs, columns=2, gap=4 * GAP)])


def _reduced(image, side):
    height, width = image.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(image).resize(size)), scale


def _heading(pairs):
    """A strip that says what is in the columns of a gallery of pairs."""
    width, columns = max(pair.shape[1] for pair in pairs), min(2, len(pairs))
    strip = Image.new("RGB", (columns * width + (columns - 1) * 4 * GAP, 14), "white")
    pen, font = ImageDraw.Draw(strip), ImageFont.load_default(10)
    for column in range(columns):
        for half, text in enumerate(("annotated", "detected")):
            x = column * (width + 4 * GAP) + half * (width + GAP) // 2
            pen.text((x + 2, 1), text, fill="black", font=font)
    return np.asarray(strip)
