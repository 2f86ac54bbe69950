"""Builds the network that a checkpoint belongs to: its sizes are read off the tensors' shapes."""

import dataclasses

from libra_keras.backbones import ResNet
from libra_keras.backbones.resnet import BLOCKS
from libra_keras.data.images import InputPolicy
from libra_keras.layers import (
    BalancedFeaturePyramid,
    FeaturePyramid,
    ImageNormalization,
    MultilevelROIAlign,
    PathAggregationPyramid,
)
from libra_keras.losses import BalancedL1Loss, SmoothL1Loss
from libra_keras.models import (
    BoxHead,
    BoxHeadSettings,
    FasterRCNN,
    FastRCNN,
    RegionProposalNetwork,
    RetinaHead,
    RetinaHeadSettings,
    RetinaNet,
    RPNHead,
    RPNSettings,
)
from libra_keras.samplers import CombinedSampler, RandomSampler

# What Caffe's weights want, in blue, green, red: mmdetection 1.x, and later.
_CAFFE_MEANS = {"legacy": (102.9801, 115.9465, 122.7717), "continuous": (103.53, 116.28, 123.675)}
_TORCHVISION_DETECTIONS = {"FasterRCNN": 100, "RetinaNet": 300}
_BOX_HEAD = "roi_head.bbox_head"


def build_detector(canonical):
    """Builds a detector with the sizes of a checkpoint, and random weights.

    Args:
        canonical: `Canonical`.

    Returns:
        `FasterRCNN`, `FastRCNN`, `RetinaNet` or `RegionProposalNetwork`; Libra's parts are in it
        if the checkpoint has a balanced pyramid.

    Raises:
        ValueError: if the names are of no such detector, or tensors that tell its sizes lack.

    Example:

    >>> from libra_keras.convert.architecture import build_detector
    >>> from libra_keras.convert.canonical import Canonical
    >>> build_detector(Canonical({}, {}, {}, ""))
    Traceback (most recent call last):
    ValueError: it has no head of a two-stage detector, a RetinaNet or a region proposal network
    """
    build = _builder(canonical)
    return build(
        canonical,
        canonical.is_libra,
        backbone=build_backbone(canonical, "backbone."),
        normalization=_normalization(canonical),
        input_policy=_input_policy(canonical),
    )


def _input_policy(canonical):
    rounding = "down" if canonical.geometry == "torchvision" else "nearest"
    short_side, long_side = canonical.image_sides or (800, 1333)
    return InputPolicy(short_side, long_side, rounding=rounding)


def _builder(canonical):
    if canonical.has("bbox_head.retina_"):
        return _retinanet
    if canonical.has(_BOX_HEAD):
        return _faster_rcnn if canonical.has("rpn_head.") else _fast_rcnn
    if canonical.has("rpn_head."):
        return _rpn
    raise ValueError(
        "it has no head of a two-stage detector, a RetinaNet or a region proposal network"
    )


def _faster_rcnn(canonical, is_libra, **parts):
    return FasterRCNN(
        neck=_neck(canonical, start_level=0, refine_level=2),
        rpn=_rpn_head(canonical, is_libra),
        box_head=_box_head(canonical, is_libra),
        class_names=canonical.class_names,
        **parts,
    )


def _fast_rcnn(canonical, is_libra, **parts):
    return FastRCNN(
        neck=_neck(canonical, start_level=0, refine_level=2),
        box_head=_box_head(canonical, is_libra),
        class_names=canonical.class_names,
        **parts,
    )


def _rpn(canonical, is_libra, **parts):
    return RegionProposalNetwork(
        neck=_neck(canonical, start_level=0, refine_level=2),
        # Proposals are all that comes out: twice as many anchors enter NMS.
        rpn=_rpn_head(canonical, is_libra, pre_nms_test=2000),
        **parts,
    )


def _retinanet(canonical, is_libra, **parts):
    channels = canonical.shape("bbox_head.cls_convs.0.conv.weight", None, None, 3, 3)[0]
    num_anchors = canonical.shape("bbox_head.retina_reg.weight", None, channels, 3, 3)[0] // 4
    outputs = canonical.shape("bbox_head.retina_cls.weight", None, channels, 3, 3)[0]
    num_classes = outputs // max(1, num_anchors)
    options = {"max_detections": 300} if canonical.geometry == "torchvision" else {}
    if canonical.box_stds is not None:
        options["stds"] = canonical.box_stds
    settings = RetinaHeadSettings(
        channels=channels,
        num_convs=canonical.count("bbox_head.cls_convs."),
        geometry=canonical.geometry,
        **options,
        **_stated_anchors(canonical, RetinaHeadSettings),
    )
    return RetinaNet(
        neck=_neck(canonical, start_level=1, refine_level=1),
        head=RetinaHead(num_classes, settings, box_loss=_retina_box_loss(canonical, is_libra)),
        class_names=canonical.class_names,
        **parts,
    )


def _rpn_head(canonical, is_libra, **limits):
    channels = canonical.shape("rpn_head.rpn_conv.weight", None, None, 3, 3)[0]
    return RPNHead(
        RPNSettings(
            channels=channels,
            geometry=canonical.geometry,
            **limits,
            **_stated_anchors(canonical, RPNSettings),
        ),
        sampler=RandomSampler(
            256, positive_fraction=0.5, max_negatives_per_positive=5 if is_libra else None
        ),
        box_loss=SmoothL1Loss(beta=0.0 if canonical.geometry == "continuous" else 1 / 9),
    )


def _stated_anchors(canonical, settings):
    """What the file says about anchors, of the options that these settings have."""
    options = {field.name for field in dataclasses.fields(settings)}
    return {name: value for name, value in canonical.anchors.items() if name in options}


def _box_head(canonical, is_libra):
    channels = canonical.shape(f"{_BOX_HEAD}.shared_fcs.0.weight", None, None)[0]
    canonical.shape(f"{_BOX_HEAD}.shared_fcs.1.weight", channels, channels)
    num_classes = canonical.shape(f"{_BOX_HEAD}.fc_cls.weight", None, channels)[0] - 1
    stds = {} if canonical.box_stds is None else {"stds": canonical.box_stds}
    sampler = RandomSampler(num=512, positive_fraction=0.25)
    if is_libra:
        sampler = CombinedSampler.preset("mmdet", num=512, positive_fraction=0.25)
    return BoxHead(
        num_classes,
        BoxHeadSettings(channels=channels, geometry=canonical.geometry, **stds),
        sampler=sampler,
        box_loss=_box_loss(canonical, is_libra),
        # From mmdetection 2 on: as many samples as a bin has cells, half a cell shifted.
        roi_align=MultilevelROIAlign(sampling_ratio=0)
        if canonical.geometry == "continuous"
        else MultilevelROIAlign(sampling_ratio=2, aligned=False),
    )


def _box_loss(canonical, is_libra):
    if is_libra:
        return BalancedL1Loss(alpha=0.5, gamma=1.5)
    return SmoothL1Loss(beta={"continuous": 0.0, "torchvision": 1 / 9}.get(canonical.geometry, 1.0))


def _retina_box_loss(canonical, is_libra):
    if is_libra:
        return BalancedL1Loss(alpha=0.5, gamma=1.5, beta=0.11)
    return SmoothL1Loss(beta=0.11 if canonical.geometry == "legacy" else 0.0)


def _neck(canonical, start_level, refine_level):
    laterals = canonical.count("neck.0.lateral_convs.")
    channels = canonical.shape("neck.0.lateral_convs.0.conv.weight", None, None, 1, 1)[0]
    canonical.shape("neck.0.fpn_convs.0.conv.weight", channels, channels, 3, 3)
    is_path_aggregation = canonical.has("neck.0.pafpn_convs.")
    pyramid = PathAggregationPyramid if is_path_aggregation else FeaturePyramid
    extra = canonical.count("neck.0.fpn_convs.") > laterals
    relu = {"extra_relu": True} if canonical.extra_relu and extra else {}
    neck = [
        pyramid(
            channels,
            start_level=start_level,
            extra_levels=_extra_levels(canonical, laterals) if extra else "max_pool",
            **relu,
        )
    ]
    if canonical.is_libra:
        refiner = "non_local" if canonical.has("neck.1.") else None
        refiner = "conv" if canonical.has("neck.1.refine.conv.") else refiner
        neck.append(BalancedFeaturePyramid(refine_level, refiner=refiner))
    return neck


def _extra_levels(canonical, laterals):
    """What the first extra level is made from: the backbone's last stage is wider."""
    sides = (None, None, 3, 3), (None, None, 1, 1)
    inputs = canonical.shape(f"neck.0.fpn_convs.{laterals}.conv.weight", *sides[0])[1]
    last_stage = canonical.shape(f"neck.0.lateral_convs.{laterals - 1}.conv.weight", *sides[1])[1]
    return "on_input" if inputs == last_stage else "on_output"


def build_backbone(canonical, prefix=""):
    """Builds the `ResNet` of a checkpoint, with random weights.

    Args:
        canonical: `Canonical`.
        prefix: str, before the names of the backbone.

    Raises:
        ValueError: if the blocks are those of no ResNet or ResNeXt.

    Example:

    >>> import numpy as np
    >>> from libra_keras.convert.architecture import build_backbone
    >>> from libra_keras.convert.canonical import Canonical
    >>> build_backbone(Canonical({"conv1.weight": np.zeros((64, 3, 7, 7))}, {}, {}, ""))
    Traceback (most recent call last):
    ValueError: blocks of (0, 0, 0, 0) are those of no ResNet that is known
    """
    width = canonical.shape(f"{prefix}conv1.weight", None, 3, 7, 7)[0]
    blocks = tuple(canonical.count(f"{prefix}layer{stage}.") for stage in range(1, 5))
    bottleneck = canonical.has(f"{prefix}layer1.0.conv3.")
    depths = [d for d, b in BLOCKS.items() if b == blocks and (d >= 50) == bottleneck]
    if not depths:
        raise ValueError(f"blocks of {blocks} are those of no ResNet that is known")
    inner, each, _, _ = canonical.shape(f"{prefix}layer1.0.conv2.weight", None, None, 3, 3)
    if bottleneck:  # what ties the width and the groups to the size of the file
        canonical.shape(f"{prefix}layer1.0.downsample.0.weight", 4 * width, width, 1, 1)
        canonical.shape(f"{prefix}layer1.0.conv3.weight", 4 * width, inner, 1, 1)
    else:
        canonical.shape(f"{prefix}layer1.0.conv2.weight", width, width, 3, 3)
    groups = inner // each if bottleneck else 1
    sizes = {"groups": groups, "base_width": each} if groups > 1 else {}
    style = canonical.style if bottleneck else "pytorch"
    return ResNet(depths[0], width=width, style=style, epsilon=canonical.epsilon, **sizes)


def _normalization(canonical):
    if canonical.normalization is not None:
        return ImageNormalization(**canonical.normalization)
    if canonical.style == "pytorch":
        return ImageNormalization.torch_style()
    return ImageNormalization(_CAFFE_MEANS[canonical.geometry], None, "bgr")
