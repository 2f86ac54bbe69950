"""Checkpoints of mmdetection: 3.x and 2.x as they are, 1.x with the background moved."""

import re

import numpy as np

from libra_keras.convert.canonical import COUNTER, COUNTER_REASON, Canonical, renamed
from libra_keras.data.known_classes import COCO_CATEGORIES, VOC_NAMES

# The configuration in a file is the text of a Python file, of any of three formats (1.x, 2.x, 3.x),
# and is searched, not run. Newer files of 3.x have all names in the order of the alphabet, so that
# the order says nothing: what several parts have is looked up between the brackets of its part.
_NUMBERS = r"['\"]?\s*[=:]\s*[\[(]([^\])]*)[\])]"
_PART = r"['\"]?\s*[=:]\s*(?:dict\s*)?(?=[\[({])"
ERAS = ("1.x", "2.x")
MODERN, LEGACY = "mmdetection 2.x or 3.x", "mmdetection 1.x"
_CONVS = r"(neck\.0\.\w+_convs\.\d+|bbox_head\.(?:cls|reg)_convs\.\d+)"
# Names of older releases, turned into today's.
_RULES = [
    (r"^neck\.(?!\d)", "neck.0."),  # a neck alone, not a list of two
    (r"\.conv_mask\.", ".conv_out."),  # of the non-local block, in the first files of Libra R-CNN
    # Before 0.6 convolutions were not wrapped.
    (rf"^{_CONVS}\.(weight|bias)$", r"\1.conv.\2"),
    (r"^bbox_head\.(shared_fcs|fc_cls|fc_reg)", r"roi_head.bbox_head.\1"),
]  # fmt: skip
_UNUSED = [
    (COUNTER, COUNTER_REASON),
    (r"ema_.*", "a second, averaged copy of the weights"),
]
_COCO_NAMES = list(COCO_CATEGORIES.values())
# Published one-stage detectors of 2.x, by the start of their hash (which their names end in). They
# were trained before its release, when the version still counted as 1.x.
PUBLISHED = {
    "804d94ce": "libra_retinanet_r50_fpn_1x_coco",
    "c2398f9e": "retinanet_r50_fpn_1x_coco",
    "fdb43119": "retinanet_r50_fpn_2x_coco",
    "7a93545f": "retinanet_r101_fpn_1x_coco",
    "366f5af1": "retinanet_x101_64x4d_fpn_1x_coco",
    "5525fa2e": "rpn_r50_fpn_1x_coco",
    "cde6f7dd": "rpn_x101_64x4d_fpn_1x_coco",
}
_NOTE_OF_VERSION = (
    "Only its version marks it as an mmdetection 1.x file. Files trained shortly before 2.0 are "
    "marked the same way: for one from the 2.x model zoo, give the era (`--era 2.x`)."
)
_NOTE_OF_SIDES = (
    "The configuration in the file does not state the image size for testing: 800 and 1333 "
    "pixels are assumed. In Python, `model.input_policy` can be set."
)
_NOTE_OF_RATIO = (
    "The configuration resizes test images without keeping their aspect ratio "
    "(keep_ratio=False). Here it is kept, so results will differ."
)
_NOTE_OF_ERA = (
    "Nothing in the file states its version of mmdetection; 2.x or 3.x is assumed. For a 1.x "
    "file, give the era (`--era 1.x`)."
)


def is_mmdetection(tensors):
    """Whether the names are those of a detector of mmdetection."""
    heads = ("rpn_head.", "roi_head.bbox_head.", "bbox_head.")
    return "backbone.conv1.weight" in tensors and any(n.startswith(heads) for n in tensors)


def from_mmdetection(checkpoint, era=None, style=None):
    """Brings a checkpoint of any era of mmdetection to the names and the class order of 3.x."""
    if era not in (None, *ERAS):
        raise ValueError(f"`era` must be one of {ERAS}. Received: {era!r}")
    config = _text(checkpoint.meta, "cfg", "config")
    tensors, origin, unused = renamed(checkpoint.tensors, _RULES, _UNUSED)
    result = Canonical(tensors, origin, unused, MODERN)
    result.style = style or backbone_style(config)
    _read_configuration(result, config)
    if _era(checkpoint, result, config, era) == "1.x":
        result.source, result.geometry = LEGACY, "legacy"
        _move_background(result)
    result.class_names = _class_names(checkpoint.meta, _num_classes(result), result.notes)
    return result


def _read_configuration(result, config):
    result.normalization = normalization(config)
    result.image_sides = image_sides(config)
    if config and not result.image_sides:
        result.notes.append(_NOTE_OF_SIDES)
    if not keeps_ratio(config):
        result.notes.append(_NOTE_OF_RATIO)
    result.anchors = anchors(config)
    result.box_stds = box_stds(config)


def _era(checkpoint, result, config, given):
    shown = _era_of_names(checkpoint.tensors)
    if given and shown and given != shown:
        raise ValueError(f"its tensors have the names of mmdetection {shown}, not of {given}")
    said = given or shown or _era_of_content(checkpoint.sha256, config, _num_classes(result))
    if said is None:
        version = _text(checkpoint.meta, "mmdet_version")
        said = {"0": "1.x", "1": "1.x", "2": "2.x", "3": "2.x"}.get(version.partition(".")[0])
        if said != "2.x":
            result.notes.append(_NOTE_OF_ERA if said is None else _NOTE_OF_VERSION)
    return said


def _era_of_names(names):
    if any(re.match(r"bbox_head\.(shared_fcs|fc_)", name) for name in names):
        return "1.x"
    if any(name.startswith("roi_head.") for name in names):
        return "2.x"
    if any(".conv_mask." in name or re.search(r"_convs\.\d+\.weight$", name) for name in names):
        return "1.x"
    return None


def _era_of_content(sha256, config, num_classes):
    if sha256[:8] in PUBLISHED or "anchor_generator" in config:
        return "2.x"
    # 1.x counted the background, also of detectors that have no output for it.
    if num_classes is None:
        return None
    eras = {num_classes: "2.x", num_classes + 1: "1.x"}
    return eras.get(configured_classes(config))


def _move_background(result):
    # mmdetection's own upgrade script takes the first four values off the weight of the regression,
    # but the last four off its bias.
    head = "roi_head.bbox_head"
    for kind in ("weight", "bias"):
        result.replace(f"{head}.fc_cls.{kind}", lambda x: np.concatenate([x[1:], x[:1]]))
        result.replace(f"{head}.fc_reg.{kind}", lambda x: x[4:])
    if result.has(head):
        result.notes.append(
            "Background first: its row of fc_cls is now the last one, and its four rows of "
            "fc_reg are dropped."
        )


def _num_classes(result):
    """Number of classes without the background, or `None` where there are none."""
    bias = result.tensors.get("roi_head.bbox_head.fc_cls.bias")
    if bias is not None:
        return len(bias) - 1
    logits = result.tensors.get("bbox_head.retina_cls.bias")
    deltas = result.tensors.get("bbox_head.retina_reg.bias")
    if logits is None or deltas is None:
        return None
    return len(logits) // max(1, len(deltas) // 4)


def _class_names(meta, num_classes, notes):
    """Names from the file, or those of COCO or VOC where the number says it."""
    data = meta.get("dataset_meta")
    data = data if isinstance(data, dict) else {}
    names = data.get("classes") or data.get("CLASSES") or meta.get("CLASSES")
    is_list = isinstance(names, (list, tuple)) and len(names) == num_classes
    if is_list and all(isinstance(name, (str, int)) for name in names):
        return [str(name) for name in names]
    known = {80: ("COCO", _COCO_NAMES), 20: ("VOC", list(VOC_NAMES))}
    origin, names = known.get(num_classes, (None, None))
    if origin:
        notes.append(f"The file does not name its classes: those of {origin} are assumed.")
    return names


def _text(meta, *names):
    """The first text under one of the names; what else a file has there may be long without end."""
    texts = (meta.get(name) for name in names)
    return next((text for text in texts if text and isinstance(text, str)), "")


def normalization(text):
    """Returns how images are normalised: arguments of `ImageNormalization`, `None` if unsaid."""
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
    """Returns where a block of the backbone has its stride: `"caffe"` if that is said."""
    is_caffe = re.search(r"\bstyle['\"]?\s*[=:]\s*['\"]caffe", text)
    return "caffe" if is_caffe else "pytorch"


def image_sides(text):
    """Returns the sides that images are resized to in tests, in pixels, `None` if unsaid."""
    sides = _numbers(_part(text, "test_pipeline"), "(?:img_)?scale")
    if sides is None or len(sides) != 2 or min(sides) < 1:
        return None
    return int(min(sides)), int(max(sides))


def keeps_ratio(text):
    """Returns whether images keep their proportions when they are resized in tests."""
    pattern = r"\bkeep_ratio['\"]?\s*[=:]\s*False"
    return re.search(pattern, _part(text, "test_pipeline")) is None


def anchors(text):
    """Returns options of the heads' settings that say how large anchors are, if any are said."""
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
    """Returns the four floats that the last head divides box deltas by, `None` if unsaid."""
    stds = _numbers(_part(text, "bbox_head"), "target_stds")
    return stds if stds and len(stds) == 4 and min(stds) > 0 else None


def configured_classes(text):
    """Returns how many classes the last head is said to have, `None` if it is not."""
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
