"""Whether heads and the pyramid that they read agree on the strides of its levels."""

from libra_keras.layers.pyramids import level_number, unpack

SIDE = 1024  # pixels of an image that all usual strides divide


def check_strides(detector, head, shapes):
    """Refuses a head with other strides than the pyramid: its anchors would lie elsewhere than the
    features that they are judged by, and training would not fail but learn little.
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
            f"The pyramid has the levels {', '.join(names)} of strides {found}, but the strides "
            f"of {type(head).__name__} are {strides}. Use the pyramid's in its settings and its "
            "RoIAlign"
        )


def _strides_of(detector, names):
    shapes = detector.backbone.compute_output_shape((None, SIDE, SIDE, 3))
    for layer in detector.neck:
        shapes = layer.compute_output_shape(shapes)
    sides = [shapes[name][1] if name in shapes else None for name in names]
    return () if None in sides else tuple(SIDE // side for side in sides)
