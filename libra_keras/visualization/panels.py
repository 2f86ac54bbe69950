"""Annotations and detections of the same images side by side."""

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from libra_keras.data import DetectionData, Example
from libra_keras.data.findings import DamagedImage, read_checked
from libra_keras.visualization.detections import draw_detections, gallery


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
            image = read_checked(data, i)
        except DamagedImage:
            continue
        yield data.examples[i], np.asarray(image)


def panel(
    data: DetectionData,
    detections: list[dict],
    class_names: Sequence[str] | None = None,
    count: int = 6,
    side: int = 400,
    min_score: float = 0.3,
) -> np.ndarray | None:
    """Draws annotations, at the left, and detections of a few images.

    Args:
        data: `DetectionData`.
        detections: list of dicts with `"image_id"`, `"boxes"`, `"labels"` and `"scores"` for all
            images of `data`, as `evaluation.collect_detections` returns it.
        class_names: names of the detections' labels, or `None` to write numbers.
        count: int, how many images at most, spread over the data set. Defaults to 6.
        side: int, pixels of the longer side of each, if it has as many. Defaults to 400.
        min_score: float, detections of lower scores are left out. Defaults to 0.3.

    Returns:
        uint8 `(H, W, 3)`, or `None` if no image can be read.

    Example:

    >>> import numpy as np
    >>> from libra_keras import data
    >>> from libra_keras.visualization.panels import panel
    >>> shapes = data.shapes(2)
    >>> nothing = {"boxes": np.zeros((0, 4)), "labels": [], "scores": []}
    >>> found = [{"image_id": example.image_id, **nothing} for example in shapes.examples]
    >>> panel(shapes, found, side=100).shape
    (208, 208, 3)
    """
    by_id = {image["image_id"]: image for image in detections}
    pictures = []
    for example, image in spread(data, count):
        found, known = by_id[example.image_id], ~example.ignore
        small, scale = _reduced(image, side)
        pictures += [
            draw_detections(
                small, scale * example.boxes[known], example.labels[known], None, data.class_names
            ),
            draw_detections(
                small,
                scale * np.asarray(found["boxes"]),
                found["labels"],
                found["scores"],
                class_names,
                min_score,
            ),
        ]
    return gallery(pictures, columns=2) if pictures else None


def _reduced(image, side):
    height, width = image.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(image).resize(size)), scale
