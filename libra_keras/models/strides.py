"""Whether the strides of a head are those of the pyramid that it reads."""

from libra_keras.layers.pyramids import level_number, unpack

SIDE = 1024  # pixels of an image that all usual strides divide


def check_strides(detector, head, shapes):
    """Raises a ValueError if a head has other strides than the pyramid.

    Anchors would lie elsewhere than the features that they are judged by, and training would not
    fail but learn little.

    Args:
        detector: detector whose backbone and neck are built.
        head: one of its heads, with strides in `settings`, and of `roi_align` if it has one.
        shapes: dict of the shapes of the pyramid's levels; of a list nothing is known.

    Raises:
        ValueError: if the strides are others.

    Example:

    >>> from libra_keras.models import libra_faster_rcnn_small
    >>> from libra_keras.models.strides import check_strides
    >>> detector = libra_faster_rcnn_small(num_classes=2)
    >>> check_strides(detector, detector.rpn, {"P2": (None, None, None, 48)})
    >>> try:
    ...     check_strides(detector, detector.rpn, {"P3": (None, None, None, 48)})
    ... except ValueError as error:
    ...     print(str(error).split(".")[0])
    The pyramid has the levels P3 of strides (8,), but the strides of RPNHead are (4, 8, 16, 32, 64)
    """
    owner = getattr(head, "roi_align", None) or getattr(head, "settings", None)
    strides = tuple(getattr(owner, "strides", ()))
    if not isinstance(shapes, dict) or not strides:
        return
    names = unpack(shapes)[0][: len(strides)]
    if strides[: len(names)] == tuple(2 ** level_number(name) for name in names):
        return
    # A name does not decide: a dilated network has a C5 of stride 16.
    found = _strides_of(detector, names)
    if found and strides[: len(names)] != found:
        raise ValueError(
            f"The pyramid has the levels {', '.join(names)} of strides {found}, but the strides of "
            f"{type(head).__name__} are {strides}. Give its settings, and its RoIAlign, the "
            "pyramid's"
        )


def _strides_of(detector, names):
    shapes = detector.backbone.compute_output_shape((None, SIDE, SIDE, 3))
    for layer in detector.neck:
        shapes = layer.compute_output_shape(shapes)
    sides = [shapes[name][1] if name in shapes else None for name in names]
    return () if None in sides else tuple(SIDE // side for side in sides)
