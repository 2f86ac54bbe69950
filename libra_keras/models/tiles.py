"""Images that are larger than a detector's input: cut into tiles, whose detections are merged."""

import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from libra_keras.functional.nms import nms
from libra_keras.ranges import Range, whole

Found = dict[str, np.ndarray]  # of an image: "boxes" (n, 4), "scores" and "labels" (n,)
SIDES, OVERLAPS = whole(16), Range(0, 1, "[)")
NEAR = 2.0  # pixels of the input: a box that ends so near to its tile's border may be cut by it
LEAST_ROWS = 256  # of what NMS is compiled for; then powers of 2


class Tiling(NamedTuple):
    """How images are cut: squares of `side` pixels, which share at least `overlap` of it."""

    side: int
    overlap: float = 0.2

    @property
    def shared(self) -> int:
        """Pixels that neighbours share at least."""
        return round(self.side * self.overlap)

    def corners(self, height: int, width: int) -> list[tuple[int, int]]:
        """Returns `(x, y)` of the upper left corner of every tile, row by row."""
        rows, columns = self._starts(height), self._starts(width)
        return [(x, y) for y, x in itertools.product(rows, columns)]

    def _starts(self, length):
        """The last tile is moved inwards: none has padding, but in an image smaller than it."""
        last = max(length - self.side, 0)
        return [*range(0, last, max(self.side - self.shared, 1)), last]


def checked(tile: int | None, overlap: float) -> Tiling | None:
    """Returns what arguments of users say; `None` stands for whole images."""
    overlap = OVERLAPS.check("`overlap`", overlap)
    return None if tile is None else Tiling(SIDES.check("`tile`", tile), overlap)


def warn_of_large_objects(tiling: Tiling, longest: float | None) -> None:
    """Warns if an object of the training data may lie in no tile as a whole."""
    if longest is None or longest <= tiling.shared:
        return
    warnings.warn(
        f"The longest object that the detector learnt from has {longest:.0f} px, and tiles share "
        f"{tiling.shared}: longer objects that lie across a border are found in pieces. Use "
        "larger tiles or more overlap",
        stacklevel=4,
    )


def detect_tiles(
    model: Any,
    find: Callable[[list[np.ndarray]], list[Found]],
    image: np.ndarray,
    tiling: Tiling,
    batch_size: int,
) -> Found:
    """Finds objects in every tile of an image, `batch_size` of them at a time, and merges them."""
    size, side = image.shape[:2], tiling.side
    corners = tiling.corners(*size)
    if len(corners) == 1:
        return find([image])[0]
    near = _near(model.input_policy, min(side, size[0]), min(side, size[1]))
    ends, parts = np.array([0, 0, size[1], size[0]], "float32"), []
    for some in _batched(corners, batch_size):
        tiles = [image[y : y + side, x : x + side] for x, y in some]
        for (x, y), tile, found in zip(some, tiles, find(tiles), strict=True):
            area = np.array([x, y, x + tile.shape[1], y + tile.shape[0]], "float32")
            boxes = found["boxes"] + area[[0, 1, 0, 1]]
            is_cut = _ends_at_border(boxes, area, ends, near)
            parts.append({**found, "boxes": boxes, "is_cut": is_cut})
    tile_of = np.repeat(np.arange(len(parts)), [len(part["boxes"]) for part in parts])
    joined = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    return _merged({**joined, "tile": tile_of}, model.heads()[-1].settings.nms_iou)


def _near(policy, height, width):
    """`NEAR` in pixels of a tile."""
    return NEAR * height / policy.fitted_size(height, width)[0]


def _batched(items: list, count: int) -> Iterator[list]:
    return (items[start : start + count] for start in range(0, len(items), count))


def _ends_at_border(boxes, area, image, near):
    """Whether boxes end at a border of their tile at which the image goes on."""
    goes_on = area != image
    return np.any((abs(boxes - area) <= near) & goes_on, axis=1)


def _merged(found, nms_iou):
    """What remains of the detections of all tiles, best first."""
    kept = ~_seen_whole(found, nms_iou)
    found = {key: found[key][kept] for key in ("boxes", "scores", "labels")}
    count = len(found["scores"])
    rows = max(LEAST_ROWS, 1 << max(count - 1, 0).bit_length())  # few sizes are compiled
    padded = {
        key: np.pad(values, [(0, rows - count)] + [(0, 0)] * (values.ndim - 1))[None]
        for key, values in found.items()
    }
    boxes, scores, labels = (padded[key] for key in ("boxes", "scores", "labels"))
    mask = np.arange(rows)[None] < count
    indices, kept = nms(boxes, scores, nms_iou, rows, groups=labels, mask=mask)
    best = ops.convert_to_numpy(indices)[0][ops.convert_to_numpy(kept)[0]]
    return {key: values[best] for key, values in found.items()}


def _seen_whole(found, share):
    """Which boxes are the part of an object that another tile shows whole: they end at a border,
    and more than a share of them lies in a box of their class there that does not. NMS would leave
    both, whose IoU is small, or the one that scores higher.
    """
    boxes, labels, tiles, is_cut = (found[key] for key in ("boxes", "labels", "tile", "is_cut"))
    whole_ones = np.flatnonzero(~is_cut)
    seen = np.zeros(len(boxes), bool)
    for i in np.flatnonzero(is_cut):
        others = whole_ones[(labels[whole_ones] == labels[i]) & (tiles[whole_ones] != tiles[i])]
        corners = np.maximum(boxes[i, :2], boxes[others, :2])
        sides = np.minimum(boxes[i, 2:], boxes[others, 2:]) - corners
        area = np.prod(boxes[i, 2:] - boxes[i, :2])
        seen[i] = np.any(np.prod(np.maximum(sides, 0), axis=1) > share * area)
    return seen
