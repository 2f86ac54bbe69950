"""What the configuration inside a file of mmdetection says, where no tensor shows it.

It is the text of a Python file, of any of three formats (1.x, 2.x, 3.x), and is searched, not run.
Newer files of 3.x have all names in the order of the alphabet, so that the order says nothing: what
several parts have is looked up between the brackets of its part.
"""

import re

_NUMBERS = r"['\"]?\s*[=:]\s*[\[(]([^\])]*)[\])]"
_PART = r"['\"]?\s*[=:]\s*(?:dict\s*)?(?=[\[({])"


def normalization(text):
    """Returns how images are normalised: arguments of `ImageNormalization`, `None` if unsaid.

    Example:

    >>> from libra_keras.convert.configuration import normalization
    >>> normalization("dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], to_rgb=False)")
    {'mean': (103.53, 116.28, 123.675), 'std': None, 'channel_order': 'bgr'}
    """
    text = _part(text, "data_preprocessor") or _part(text, "img_norm_cfg") or text
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


def backbone_style(text):
    """Returns where a block of the backbone has its stride: `"caffe"` if that is said.

    Example:

    >>> from libra_keras.convert.configuration import backbone_style
    >>> backbone_style("backbone=dict(type='ResNet', style='caffe')")
    'caffe'
    """
    is_caffe = re.search(r"\bstyle['\"]?\s*[=:]\s*['\"]caffe", text)
    return "caffe" if is_caffe else "pytorch"


def image_sides(text):
    """Returns the sides that images are resized to in tests, in pixels, `None` if unsaid.

    Example:

    >>> from libra_keras.convert.configuration import image_sides
    >>> image_sides("test_pipeline = [dict(type='Resize', scale=(1000, 600), keep_ratio=True)]")
    (600, 1000)
    """
    sides = _numbers(_part(text, "test_pipeline"), "(?:img_)?scale")
    if sides is None or len(sides) != 2 or min(sides) < 1:
        return None
    return int(min(sides)), int(max(sides))


def keeps_ratio(text):
    """Returns whether images keep their proportions when they are resized in tests.

    Example:

    >>> from libra_keras.convert.configuration import keeps_ratio
    >>> keeps_ratio("test_pipeline = [dict(type='Resize', scale=(512, 512), keep_ratio=False)]")
    False
    """
    pattern = r"\bkeep_ratio['\"]?\s*[=:]\s*False"
    return re.search(pattern, _part(text, "test_pipeline")) is None


def anchors(text):
    """Returns what says how large anchors are: options of the heads' settings, where they are said.

    Returns:
        dict with some of `"scales"`, `"ratios"`, `"base_scale"` and `"scales_per_octave"`.

    Example:

    >>> from libra_keras.convert.configuration import anchors
    >>> anchors("anchor_generator=dict(type='AnchorGenerator', scales=[4], ratios=[0.5, 1.0])")
    {'scales': (4.0,), 'ratios': (0.5, 1.0)}
    """
    generator = _part(text, "anchor_generator")
    prefix = "" if generator else "anchor_"  # 1.x: options of the head
    text = generator or text
    found = {name: _numbers(text, f"{prefix}{name}") for name in ("scales", "ratios")}
    for name, ours, kind in (
        ("octave_base_scale", "base_scale", float),
        ("scales_per_octave", "scales_per_octave", int),
    ):
        match = re.search(rf"\b{name}['\"]?\s*[=:]\s*(\d+(?:\.\d*)?)", text)
        found[ours] = kind(float(match[1])) if match else None
    return {name: value for name, value in found.items() if value and _all_positive(value)}


def box_stds(text):
    """Returns the four floats that the last head divides box deltas by, `None` if unsaid.

    Those of a region proposal network, which has a coder of its own, are others.

    Example:

    >>> from libra_keras.convert.configuration import box_stds
    >>> box_stds("bbox_head=dict(bbox_coder=dict(target_stds=[0.1, 0.1, 0.2, 0.2]))")
    (0.1, 0.1, 0.2, 0.2)
    """
    stds = _numbers(_part(text, "bbox_head"), "target_stds")
    return stds if stds and len(stds) == 4 and min(stds) > 0 else None


def num_classes(text):
    """Returns how many classes the last head is said to have, `None` if it is not.

    Example:

    >>> from libra_keras.convert.configuration import num_classes
    >>> num_classes("bbox_head=dict(type='RetinaHead', num_classes=81)")
    81
    """
    head = _part(text, "bbox_head") or text
    match = re.search(r"\bnum_classes['\"]?\s*[=:]\s*(\d+)", head)
    return int(match[1]) if match else None


def _part(text, name):
    """What stands between the brackets behind a name, `""` if there are none."""
    match = re.search(rf"\b{name}{_PART}", text)
    if match is None:
        return ""
    start, depth = match.end(), 0
    for bracket in re.finditer(r"[\[({]|[\])}]", text[start:]):
        depth += 1 if bracket[0] in "[({" else -1
        if depth == 0:
            return text[start : start + bracket.end()]
    return ""


def _numbers(text, name):
    """The numbers in brackets behind a name; `None` if there are none, or something else."""
    match = re.search(rf"\b{name}{_NUMBERS}", text)
    if match is None:
        return None
    parts = [part.strip() for part in match[1].split(",") if part.strip()]
    try:
        return tuple(map(float, parts)) or None
    except ValueError:
        return None


def _all_positive(value):
    return min(value) > 0 if isinstance(value, tuple) else value > 0
