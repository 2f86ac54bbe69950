"""What the configuration inside a file of mmdetection says, where no tensor shows it.

It is the text of a Python file, of any of three formats (1.x, 2.x, 3.x), and is searched, not run.
"""

import re

_NUMBERS = r"['\"]?\s*[=:]\s*[\[(]([^\])]*)[\])]"
_NEARBY = 600  # characters in which the arguments of an anchor generator stand


def normalization(text):
    """Returns how images are normalised: arguments of `ImageNormalization`, `None` if unsaid.

    Example:

    >>> from libra_keras.convert.configuration import normalization
    >>> normalization("dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], to_rgb=False)")
    {'mean': (103.53, 116.28, 123.675), 'std': None, 'channel_order': 'bgr'}
    """
    mean, std = (_numbers(text, name) for name in ("mean", "std"))
    order = re.search(r"to_rgb['\"]?\s*[=:]\s*(True|False)", text)
    if mean is None or std is None or order is None or not len(mean) == len(std) == 3:
        return None
    if min(std) <= 0:
        return None
    std = None if set(std) == {1.0} else std
    return {
        "mean": mean,
        "std": std,
        "channel_order": "rgb" if order[1] == "True" else "bgr",
    }


def image_sides(text):
    """Returns the sides that images are resized to in tests, in pixels, `None` if unsaid.

    Example:

    >>> from libra_keras.convert.configuration import image_sides
    >>> image_sides("test_pipeline = [dict(type='Resize', scale=(1000, 600), keep_ratio=True)]")
    (600, 1000)
    """
    _, _, pipeline = text.partition("test_pipeline")
    sides = _numbers(pipeline, "(?:img_)?scale")
    if sides is None or len(sides) != 2 or min(sides) < 1:
        return None
    return int(min(sides)), int(max(sides))


def anchors(text):
    """Returns what says how large anchors are: options of the heads' settings, where they are said.

    Returns:
        dict with some of `"scales"`, `"ratios"`, `"base_scale"` and `"scales_per_octave"`.

    Example:

    >>> from libra_keras.convert.configuration import anchors
    >>> anchors("anchor_generator=dict(type='AnchorGenerator', scales=[4], ratios=[0.5, 1.0])")
    {'scales': (4.0,), 'ratios': (0.5, 1.0)}
    """
    _, _, generator = text.partition("anchor_generator")
    prefix = "" if generator else "anchor_"  # 1.x: options of the head
    near = generator[:_NEARBY] or text
    found = {name: _numbers(near, f"{prefix}{name}") for name in ("scales", "ratios")}
    for name, ours, kind in (
        ("octave_base_scale", "base_scale", float),
        ("scales_per_octave", "scales_per_octave", int),
    ):
        match = re.search(rf"\b{name}['\"]?\s*[=:]\s*(\d+)", near)
        found[ours] = kind(match[1]) if match else None
    return {name: value for name, value in found.items() if value and _all_positive(value)}


def box_stds(text):
    """Returns the four floats that the last head divides box deltas by, `None` if unsaid.

    Example:

    >>> from libra_keras.convert.configuration import box_stds
    >>> box_stds("bbox_coder=dict(target_stds=[0.1, 0.1, 0.2, 0.2])")
    (0.1, 0.1, 0.2, 0.2)
    """
    stds = _numbers(text, "target_stds", last=True)
    return stds if stds and len(stds) == 4 and min(stds) > 0 else None


def num_classes(text):
    """Returns the first number of classes that is said, `None` if there is none.

    Example:

    >>> from libra_keras.convert.configuration import num_classes
    >>> num_classes("bbox_head=dict(type='RetinaHead', num_classes=81)")
    81
    """
    match = re.search(r"\bnum_classes['\"]?\s*[=:]\s*(\d+)", text)
    return int(match[1]) if match else None


def _numbers(text, name, last=False):
    """The numbers in brackets behind a name; `None` if there are none, or something else."""
    found = re.findall(rf"\b{name}{_NUMBERS}", text)
    if not found:
        return None
    parts = [part.strip() for part in found[-1 if last else 0].split(",") if part.strip()]
    try:
        return tuple(map(float, parts)) or None
    except ValueError:
        return None


def _all_positive(value):
    return min(value) > 0 if isinstance(value, tuple) else value > 0
