"""Where the labels of boxes go, so that they hide neither objects nor each other."""

from collections.abc import Iterator, Sequence

import numpy as np

HIDDEN = 0.15  # of a box, at most, by a label
Rectangle = tuple[int, int, int, int]


def label_places(
    boxes: np.ndarray, sizes: Sequence[Sequence[tuple[int, int]]], width: int, height: int
) -> list[Rectangle | None]:
    """Finds a rectangle in an image for the label of each box, or `None` where there is no room.

    Args:
        boxes: `(n, 4)` in pixels. The first has the first choice.
        sizes: width and height of each label, and of shorter ones where there is no room for it.
        width, height: of the image.
    """
    boxes = np.clip(np.asarray(boxes, "float64"), 0, (width, height, width, height))
    found: list[Rectangle | None] = []
    for box, choices in zip(boxes, sizes, strict=True):
        taken = np.array([place for place in found if place], "float64").reshape(-1, 4)
        fitting = (
            place for size in choices for place in _candidates(box, *size, width, height)
            if not _shared(place, taken).any() and not _hides(place, boxes)
        )  # fmt: skip
        found.append(next(fitting, None))
    return found


def free_corner(size: tuple[int, int], boxes: np.ndarray, width: int, height: int) -> Rectangle:
    """Returns the corner of an image in which a label hides least of all boxes."""
    w, h = size
    spots = [(x, y, x + w, y + h) for y in (0, height - h) for x in (0, width - w)]
    boxes = np.asarray(boxes, "float64").reshape(-1, 4)
    return min(spots, key=lambda place: _shared(place, boxes).sum())


def _candidates(box, w, h, width, height) -> Iterator[Rectangle]:
    """Above the box, in it, below, and beside, as far as the image goes; the usual places first."""
    x1, y1, x2, y2 = (round(v) for v in box)
    left, right = max(0, min(x1, width - w)), max(0, x2 - w)
    rows = [(left, y) for y in (y1 - h, y1, y2)] + [(right, y) for y in (y1 - h, y1, y2)]
    beside = [(x, y) for y in (y1, y2 - h) for x in (x2, x1 - w)]
    for x, y in [*rows, (left, y2 - h), (right, y2 - h), *beside]:
        if x >= 0 and y >= 0 and x + w <= width and y + h <= height:
            yield x, y, x + w, y + h


def _shared(place, boxes):
    """Areas that a rectangle shares with boxes `(n, 4)`."""
    sides = np.minimum(place[2:], boxes[:, 2:]) - np.maximum(place[:2], boxes[:, :2])
    return np.prod(np.maximum(sides, 0), -1)


def _hides(place, boxes):
    areas = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), -1)
    return (_shared(place, boxes) > HIDDEN * areas).any()
