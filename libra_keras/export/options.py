"""Options of an export."""

import dataclasses

from libra_keras.models.rebuilding import config_with_policy, rebuilt
from libra_keras.ranges import SHARE, whole

PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16", "int8": "float32"}  # of Keras
OF_FORMATS = {
    "saved_model": ("float32", "bfloat16"),
    "onnx": ("float32", "int8"),
    "openvino": ("float32", "int8"),
    "litert": ("float32",),
}
RANGES = {
    "score_threshold": SHARE, "nms_iou": SHARE, "max_detections": whole(1), "max_pixels": whole(1),
}  # fmt: skip
MAX_PIXELS = 89_478_485  # from which on Pillow warns of decompression bombs


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """Settings of an exported detector.

    Args:
        precision: `"float32"`, or `"bfloat16"`: convolutions and dense layers compute in bfloat16,
            and their weights are stored in it; pixels, boxes, scores and NMS stay float32. The
            precision of training does not matter. `"int8"`, for ONNX and OpenVINO: these layers
            are quantized, except for those that would cost too much AP.
        score_threshold: in 0..1; detections must score more than this. A `RegionProposalNetwork`
            has no threshold.
        nms_iou: in 0..1, overlap above which the lower-scored of two boxes is dropped.
        max_detections: maximum number of detections per image.
        max_pixels: images with more pixels are refused before they are decoded.

    `None` keeps the detector's own value.

    Raises:
        ValueError: if a value is not one of these.

    Example:

    >>> from libra_keras.export import ExportOptions
    >>> ExportOptions(score_threshold=0.3).precision
    'float32'
    """

    precision: str = "float32"
    score_threshold: float | None = None
    nms_iou: float | None = None
    max_detections: int | None = None
    max_pixels: int = MAX_PIXELS

    def __post_init__(self):
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"`precision` must be one of {sorted(PRECISIONS)}. Received: {self.precision!r}"
            )
        for name, within in RANGES.items():
            if getattr(self, name) is not None:
                object.__setattr__(self, name, within.check(f"`{name}`", getattr(self, name)))


def check_precision(precision, format):
    """Raises unless files of a format can be of a precision."""
    known = OF_FORMATS[format]
    if precision not in known:
        others = [name for name, precisions in OF_FORMATS.items() if precision in precisions]
        raise ValueError(
            f"The precision of {format} is {' or '.join(known)}; {precision} is for "
            f"{' and '.join(others)}. Received: precision={precision!r}"
        )


def with_options(model, options):
    """Returns a detector with the precision and the thresholds of the options."""
    old = model.get_config()
    part = old[model.PARTS[-1]]
    settings = part["config"]["settings"]
    changed = {**settings["config"], **_changes(model, options)}
    part = {**part, "config": {**part["config"], "settings": {**settings, "config": changed}}}
    config = {**old, model.PARTS[-1]: part}
    config = config_with_policy(config, PRECISIONS[options.precision])
    return model if config == old else rebuilt(model, config)


def thresholds(model):
    """Returns the thresholds that a detector has: a dict of numbers."""
    settings = _settings(model)
    found = {name: getattr(settings, _own_name(settings, name), None) for name in _NAMES}
    return {name: value for name, value in found.items() if value is not None}


_NAMES = ("score_threshold", "nms_iou", "max_detections")


def _settings(model):
    return getattr(model, model.PARTS[-1]).settings


def _own_name(settings, name):
    """What the settings call it: a first stage has the detections of an image as `post_nms`."""
    is_first_stage = hasattr(settings, "post_nms")
    return "post_nms" if is_first_stage and name == "max_detections" else name


def _changes(model, options):
    settings = _settings(model)
    values = {name: getattr(options, name) for name in _NAMES}
    changes = {_own_name(settings, k): v for k, v in values.items() if v is not None}
    unknown = [name for name in changes if not hasattr(settings, name)]
    if unknown:
        raise ValueError(
            f"A {type(model).__name__} has no {unknown[0]}. "
            f"Received: {unknown[0]}={changes[unknown[0]]}"
        )
    if "post_nms" in changes:  # a level may give as many
        changes["pre_nms_test"] = max(changes["post_nms"], settings.pre_nms_test)
    return changes
