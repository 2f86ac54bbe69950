"""What a pyramid of feature maps is: a dict or a sequence of levels, finest first."""

import re

_EXPECTED = "A pyramid must be a dict such as {'P2': ..., 'P3': ...}, or a list of levels."


def unpack(pyramid):
    """Returns `(names, levels)`, finest first; `names` is `None` for a list or tuple.

    The levels may be tensors or their shapes. A dict is ordered by the numbers in its keys
    ("P2", "P3", ...): frameworks sort dicts as they like, and alphabetically "P10" is not last.

    Raises:
        TypeError: if `pyramid` is neither a dict, a list nor a tuple.
        ValueError: if it is empty, or a key does not end in a number.
    """
    if not isinstance(pyramid, dict | list | tuple):
        raise TypeError(f"{_EXPECTED} Received: {type(pyramid).__name__}")
    if not pyramid:
        raise ValueError(f"A pyramid must have at least one level. Received: {pyramid!r}")
    if not isinstance(pyramid, dict):
        return None, list(pyramid)
    names = sorted(pyramid, key=level_number)
    return names, [pyramid[name] for name in names]


def pack(pyramid, names, levels):
    """Returns levels in the structure of `pyramid`: a dict with these names, a list or a tuple."""
    if names is not None:
        return dict(zip(names, levels, strict=True))
    return tuple(levels) if isinstance(pyramid, tuple) else list(levels)


def level_number(name):
    """Returns the number of a level's name: 2 for "P2", whose stride is `2 ** 2`."""
    match = re.search(r"\d+$", str(name))
    if match is None:
        raise ValueError(f"Names of levels must end in a number, as 'P2'. Received: {name!r}")
    return int(match.group())


def check_shapes(shapes):
    """Raises a ValueError unless every level is `(B, H, W, C)` with known C."""
    if any(shape is None or isinstance(shape, int) for shape in shapes):
        raise ValueError(f"{_EXPECTED} Received: one tensor of shape {tuple(shapes)}")
    for i, shape in enumerate(shapes):
        if not hasattr(shape, "__len__") or len(shape) != 4 or shape[-1] is None:
            raise ValueError(
                "Every level must have shape (B, H, W, C) with a known C. "
                f"Received: shape={shape} at level {i} (0 is the finest)"
            )
