"""The pixels of a scene. Integer arithmetic without anti-aliasing: the same on every machine."""

import functools

import numpy as np

from libra_keras.data import scenes

NOISE_SIZE = 512


def draw(scene):
    """Draws a scene.

    Args:
        scene: `Scene`.

    Returns:
        uint8 `(320, 320, 3)` RGB.

    Example:

    >>> from libra_keras.data.drawing import draw
    >>> from libra_keras.data.scenes import describe
    >>> draw(describe(5)).shape
    (320, 320, 3)
    """
    ramp = np.arange(scenes.SIZE) * 2 - scenes.SIZE  # from -SIZE to SIZE
    right, down = (ramp * slope // (2 * scenes.SIZE) for slope in scene.slope)
    shade = (right[None] + down[:, None]).astype("int16")
    image = shade[..., None] + np.array(scene.background, "int16")
    for mark in (*scene.marks, *scene.objects):
        x1, y1, x2, y2 = mark.box
        image[y1:y2, x1:x2][mask(mark.kind, mark.side)] = mark.color
    x, y = scene.noise_corner
    noise = _noise_table()[y : y + scenes.SIZE, x : x + scenes.SIZE]
    image += np.rint(noise * np.float32(scene.noise)).astype("int16")
    return np.clip(image, 0, 255, out=image).astype("uint8")


@functools.lru_cache(maxsize=2048)
def mask(kind, side):
    """Returns the pixels of a figure, bool `(side, side)`; it touches all four sides.

    Args:
        kind: label `0..5`, or a name in `scenes.MARKS`.
        side: int, pixels, at least 8.
    """
    if isinstance(kind, str):
        return _clutter_mask(kind, side)
    outline, fill = scenes.OUTLINES[kind // 2], scenes.FILLS[kind % 2]
    whole = _outline_mask(outline, side, 0)
    return whole if fill == "filled" else whole & ~_outline_mask(outline, side, (side + 2) // 7)


def _outline_mask(outline, side, inset):
    """Returns the inside of an outline at a distance of at least `inset` pixels from its edge."""
    # Twice the distance from the middle: an integer also where the middle is between pixels.
    x = np.abs(2 * np.arange(side) - (side - 1))
    y = x[:, None]
    if outline == "circle":
        return x**2 + y**2 <= (side - 2 * inset) ** 2
    if outline == "square":
        return np.maximum(x, y) < side - 2 * inset
    rows = np.arange(side)[:, None]
    # The edges are |x| = row (the tip has a whole row, or it would vanish for even sides). They
    # rise by 2 per pixel, so a distance of 1 from them is sqrt(5) rows.
    inside = np.maximum(rows, 1) * 100 - x * 100 >= inset * 224
    return inside & (rows < side - inset)


def _clutter_mask(kind, side):
    x, y = np.arange(side), np.arange(side)[:, None]
    thin = max(1, side // 12)
    middle_x, middle_y = np.abs(2 * x - side) <= thin + 1, np.abs(2 * y - side) <= thin + 1
    full = np.ones((side, side), bool)
    return {
        "bar": full & middle_y,
        "column": full & middle_x,
        "plus": middle_x | middle_y,
        "diagonal": np.abs(x - y) <= thin,
        "cross": (np.abs(x - y) <= thin) | (np.abs(x + y - side + 1) <= thin),
    }[kind]


@functools.cache
def _noise_table():
    """Standard normal noise `(512, 512, 3)`: scenes are noised with crops of one table.

    The sum of eight bytes is near enough to normal, and unlike NumPy's normal distribution the
    raw bits of a generator never change with NumPy's version.
    """
    bits = np.random.PCG64(20190404).random_raw(NOISE_SIZE * NOISE_SIZE * 3)
    sums = bits.astype("<u8").view("uint8").reshape(-1, 8).sum(-1, dtype="int32")
    deviation = np.sqrt(8 * (256**2 - 1) / 12)  # of the sum of eight uniform bytes; mean 1020
    table = ((sums - 1020) / deviation).astype("float32")
    return table.reshape(NOISE_SIZE, NOISE_SIZE, 3)
