"""Sizes and thresholds of detectors' heads, as frozen values that save with the model."""

import dataclasses
import typing
from typing import Any, Self

import keras

from libra_keras.functional.argument_checks import check_geometry
from libra_keras.ranges import Range, whole

MOST = 1_000_000  # of anything that is counted, so that no file can fill the memory
CLASSES = whole(1, MOST)


def check_kind(name, value, kind):
    """Raises unless an argument is of a class."""
    if not isinstance(value, kind):
        raise TypeError(f"`{name}` must be of the class {kind.__name__}. Received: {value!r:.80}")


def live_parts(config, names, custom_objects=None):
    """Returns the named entries of a config as objects, whether they are serialised or live."""
    return {name: live(name, config.get(name), custom_objects) for name in names}


def live(name, part, custom_objects=None):
    """Returns an entry of a config as an object."""
    if isinstance(part, (bool, int, float, str, list)):
        raise ValueError(f"`{name}` must be an object with a config. Received: {part!r:.80}")
    if not isinstance(part, dict):
        return part
    return keras.saving.deserialize_keras_object(part, custom_objects)


@dataclasses.dataclass(frozen=True)
class _Settings:
    """Gives a dataclass what Keras asks of a saved object, and checks its values."""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = self._checked(field.name, field.type, getattr(self, field.name))
            object.__setattr__(self, field.name, value)
        if hasattr(self, "stds") and len(self.stds) != 4:
            raise ValueError(f"`stds` must be four numbers. Received: {self.stds}")
        if hasattr(self, "negative_iou") and self.negative_iou > self.positive_iou:
            raise ValueError(
                "`negative_iou` must not exceed `positive_iou`. Received: "
                f"negative_iou={self.negative_iou}, positive_iou={self.positive_iou}"
            )

    def _checked(self, name, kind, value):
        """A value of the type of its field; lists, which JSON has for tuples, have no hash."""
        if name == "geometry":
            check_geometry(value)
            return value
        if typing.get_origin(kind) is not tuple:
            return self._number(name, kind, value)
        if not isinstance(value, (list, tuple)) or not value:
            raise ValueError(f"`{name}` must be one or more numbers. Received: {value!r:.80}")
        return tuple(self._number(name, typing.get_args(kind)[0], each) for each in value)

    def _number(self, name, kind, value):
        if kind is int and isinstance(value, float) and value.is_integer():  # of older files
            value = int(value)
        return self._range(name, kind).check(f"`{name}`", value)

    def _range(self, name, kind):
        """What the numbers of a field may be."""
        if name.endswith(("_iou", "_threshold")):
            return Range(0, 1)
        return whole(1, MOST) if kind is int else Range(0, ends="(]")

    def get_config(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**config)


@keras.saving.register_keras_serializable(package="libra_keras")
@dataclasses.dataclass(frozen=True)
class RPNSettings(_Settings):
    """Sizes and thresholds of the region proposal stage; defaults as in mmdetection 3.3.

    Attributes:
        channels: filters of the head's shared 3x3 convolution.
        strides: pixels between neighbouring cells of each pyramid level, finest first.
        scales: side of a square anchor in strides.
        ratios: height divided by width of the anchors.
        positive_iou, negative_iou, min_positive_iou: thresholds of `functional.matching.match`.
        pre_nms_train, pre_nms_test: best-scored anchors of each level that enter NMS.
        post_nms: proposals of one image that leave it.
        nms_iou: overlap above which the lower-scored of two proposals of a level is dropped.
        pad_multiple: anchors centred outside the image, its sides rounded up to this many pixels,
            are not trained.
        geometry: how anchors and boxes are computed: `"continuous"` (mmdetection 2.x and 3.x),
            `"torchvision"`, or `"legacy"` (mmdetection 1.x). Weights belong to one of them; see
            `functional.anchors` and `functional.boxes`.

    Raises:
        ValueError: if an overlap lies outside 0..1, another value is not positive, or the
            geometry is not one of the three.

    Example:

    >>> from libra_keras.models import RPNSettings
    >>> RPNSettings(scales=(4.0, 8.0)).num_anchors
    6

    Source: mmdetection's `faster-rcnn_r50_fpn`, its `rpn_head`, `train_cfg` and `test_cfg.rpn`.
    """

    channels: int = 256
    strides: tuple[int, ...] = (4, 8, 16, 32, 64)
    scales: tuple[float, ...] = (8.0,)
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    positive_iou: float = 0.7
    negative_iou: float = 0.3
    min_positive_iou: float = 0.3
    pre_nms_train: int = 2000
    pre_nms_test: int = 1000
    post_nms: int = 1000
    nms_iou: float = 0.7
    pad_multiple: int = 32
    geometry: str = "continuous"

    @property
    def num_anchors(self) -> int:
        """Anchors of one cell."""
        return len(self.scales) * len(self.ratios)


@keras.saving.register_keras_serializable(package="libra_keras")
@dataclasses.dataclass(frozen=True)
class BoxHeadSettings(_Settings):
    """Sizes and thresholds of the second stage; defaults as in mmdetection 3.3.

    Attributes:
        channels: units of the two fully connected layers.
        positive_iou: overlap from which a proposal counts as an object; below it is background.
        stds: four floats that the box deltas are divided by.
        score_threshold: detections must score more than this, in 0..1.
        nms_iou: overlap above which the lower-scored of two boxes of one class is dropped.
        max_candidates: best-scored (box, class) pairs of an image that enter NMS. The result is
            that of all pairs whenever `max_detections` survive, or fewer pairs pass the threshold.
        max_detections: detections of one image that leave it.
        geometry: how boxes are computed: `"continuous"` (mmdetection 2.x and 3.x),
            `"torchvision"`, or `"legacy"` (mmdetection 1.x). Weights belong to one of them; see
            `functional.boxes`.

    Raises:
        ValueError: if an overlap or the threshold lies outside 0..1, another value is not
            positive, or the geometry is not one of the three.

    Example:

    >>> from libra_keras.models import BoxHeadSettings
    >>> BoxHeadSettings(score_threshold=0.3).max_detections
    100

    Source: mmdetection's `faster-rcnn_r50_fpn`, its `roi_head` and `test_cfg.rcnn`.
    """

    channels: int = 1024
    positive_iou: float = 0.5
    stds: tuple[float, ...] = (0.1, 0.1, 0.2, 0.2)
    score_threshold: float = 0.05
    nms_iou: float = 0.5
    max_candidates: int = 2000
    max_detections: int = 100
    geometry: str = "continuous"


@keras.saving.register_keras_serializable(package="libra_keras")
@dataclasses.dataclass(frozen=True)
class RetinaHeadSettings(_Settings):
    """Sizes and thresholds of a one-stage detector's head; defaults as in mmdetection 3.3.

    Attributes:
        channels: filters of the 3x3 convolutions of both branches.
        num_convs: 3x3 convolutions in each branch before the last one.
        strides: pixels between neighbouring cells of each pyramid level, finest first.
        base_scale: side of a level's smallest square anchor in strides.
        scales_per_octave: number of anchor sizes from `base_scale` to below its double.
        ratios: height divided by width of the anchors.
        positive_iou, negative_iou, min_positive_iou: thresholds of `functional.matching.match`.
        stds: four floats that the box deltas are divided by.
        prior_probability: score of every class of every anchor at the start of training.
        pre_nms: best-scored (anchor, class) pairs of each level that enter NMS.
        score_threshold: detections must score more than this, in 0..1.
        nms_iou: overlap above which the lower-scored of two boxes of one class is dropped.
        max_detections: detections of one image that leave it.
        pad_multiple: anchors centred outside the image, its sides rounded up to this many pixels,
            are not trained.
        geometry: how anchors and boxes are computed: `"continuous"` (mmdetection 2.x and 3.x),
            `"torchvision"`, or `"legacy"` (mmdetection 1.x). Weights belong to one of them; see
            `functional.anchors` and `functional.boxes`.

    Raises:
        ValueError: if an overlap, the threshold or the prior probability lies outside 0..1,
            another value is not positive, or the geometry is not one of the three.

    Example:

    >>> from libra_keras.models import RetinaHeadSettings
    >>> settings = RetinaHeadSettings(ratios=(1.0,))
    >>> settings.num_anchors, [round(scale, 2) for scale in settings.scales]
    (3, [4.0, 5.04, 6.35])

    Source: [Lin et al., 2017](https://arxiv.org/abs/1708.02002), section 4; mmdetection's
    `retinanet_r50_fpn`, its `bbox_head`, `train_cfg` and `test_cfg`.
    """

    channels: int = 256
    num_convs: int = 4
    strides: tuple[int, ...] = (8, 16, 32, 64, 128)
    base_scale: float = 4.0
    scales_per_octave: int = 3
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    positive_iou: float = 0.5
    negative_iou: float = 0.4
    min_positive_iou: float = 0.0
    stds: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)
    prior_probability: float = 0.01
    pre_nms: int = 1000
    score_threshold: float = 0.05
    nms_iou: float = 0.5
    max_detections: int = 100
    pad_multiple: int = 32
    geometry: str = "continuous"

    def _range(self, name, kind):
        if name == "prior_probability":
            return Range(0, 1, ends="()")
        if name in ("num_convs", "scales_per_octave"):
            return whole(1, 100)
        return super()._range(name, kind)

    @property
    def scales(self) -> tuple[float, ...]:
        """Sides of the square anchors of one cell in strides."""
        steps = range(self.scales_per_octave)
        return tuple(self.base_scale * 2 ** (i / self.scales_per_octave) for i in steps)

    @property
    def num_anchors(self) -> int:
        """Anchors of one cell."""
        return self.scales_per_octave * len(self.ratios)
