"""How toolboxes place anchors and describe boxes; trained weights belong to one of the ways."""

# "continuous": mmdetection 2.x and 3.x. A box covers x1..x2; nothing is rounded.
# "torchvision": torchvision.models.detection 0.16. As above, but anchors have whole sides, lie as
#     far apart as the padded image has pixels a cell, and shrink without limit.
# "legacy": mmdetection 1.x, which counts pixels: its box x1..x2 includes both, and is x2 - x1 + 1
#     wide. Here a box is its edges, x2 being one more than there; then overlaps, deltas, RoIAlign
#     and a COCO annotation's width are as everywhere, and only anchors (whole corners, centred on
#     the middle of a cell's pixels) and the limits of clipping (at least one pixel stays) differ.
GEOMETRIES = ("continuous", "torchvision", "legacy")


def check_geometry(geometry):
    """Raises a ValueError unless `geometry` is one of the three.

    Example:

    >>> from libra_keras.functional.geometry import check_geometry
    >>> check_geometry("legacy")
    """
    if geometry not in GEOMETRIES:
        raise ValueError(f"`geometry` must be one of {GEOMETRIES}. Received: geometry={geometry!r}")
