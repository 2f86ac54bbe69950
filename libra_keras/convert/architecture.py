"""Builds the network that a checkpoint belongs to: its sizes are read off the tensors' shapes.

What no file states, such as what a training step samples, is as in the ready-made detector of its
kind.
"""

import dataclasses
import functools

from libra_keras import models
from libra_keras.backbones import ResNet
from libra_keras.backbones.resnet import BLOCKS
from libra_keras.layers import (
    BalancedFeaturePyramid,
    FeaturePyramid,
    ImageNormalization,
    MultilevelROIAlign,
    PathAggregationPyramid,
)
from libra_keras.losses import SmoothL1Loss
from libra_keras.models import (
    BoxHead,
    FasterRCNN,
    FastRCNN,
    RegionProposalNetwork,
    RetinaHead,
    RetinaNet,
    RPNHead,
)
from libra_keras.models.settings import live_parts

# What Caffe's weights want, in blue, green, red: mmdetection 1.x, and later.
_CAFFE_MEANS = {"legacy": (102.9801, 115.9465, 122.7717), "continuous": (103.53, 116.28, 123.675)}
_BOX_HEAD = "roi_head.bbox_head"


def build_detector(canonical):
    """Builds a detector with the sizes of a checkpoint, and random weights."""
    kind = _kind(canonical)
    backbone = build_backbone(canonical, "backbone.")
    paper = _ready_made(kind, canonical.is_libra)
    return _BUILDERS[kind](
        canonical,
        paper,
        backbone=backbone,
        neck=_neck(canonical, paper["neck"]),
        normalization=_normalization(canonical),
        input_policy=_input_policy(canonical, **live_parts(paper, ["input_policy"])),
    )


def _kind(canonical):
    if canonical.has("bbox_head.retina_"):
        return "retinanet"
    if canonical.has(_BOX_HEAD):
        return "faster_rcnn" if canonical.has("rpn_head.") else "fast_rcnn"
    if canonical.has("rpn_head."):
        return "rpn"
    raise ValueError("it has no head of a two-stage detector, RetinaNet or region proposal network")


@functools.cache
def _ready_made(kind, is_libra):
    """The config of a ready-made detector: the papers' numbers stand in its constructor alone."""
    constructor = getattr(models, f"{'libra_' if is_libra else ''}{kind}_resnet50")
    return constructor(backbone=ResNet(18, width=1)).get_config()  # any backbone will do


def _head(paper, part):
    """The settings, the sampler and the box loss that a head of a config has, as objects."""
    config = paper[part]["config"]
    return live_parts(config, [n for n in ("settings", "sampler", "box_loss") if n in config])


def _faster_rcnn(canonical, paper, **parts):
    return FasterRCNN(
        rpn=_rpn_head(canonical, **_head(paper, "rpn")),
        box_head=_box_head(canonical, **_head(paper, "box_head")),
        class_names=canonical.class_names,
        **parts,
    )


def _fast_rcnn(canonical, paper, **parts):
    return FastRCNN(
        box_head=_box_head(canonical, **_head(paper, "box_head")),
        class_names=canonical.class_names,
        **parts,
    )


def _rpn(canonical, paper, **parts):
    # The reference has no Libra RPN: its sampler is that of the first stage of Libra R-CNN.
    two_stages = _ready_made("faster_rcnn", canonical.is_libra)
    head = {**_head(paper, "rpn"), "sampler": _head(two_stages, "rpn")["sampler"]}
    return RegionProposalNetwork(rpn=_rpn_head(canonical, **head), **parts)


def _retinanet(canonical, paper, **parts):
    return RetinaNet(
        head=_retina_head(canonical, **_head(paper, "head")),
        class_names=canonical.class_names,
        **parts,
    )


_BUILDERS = {
    "faster_rcnn": _faster_rcnn,
    "fast_rcnn": _fast_rcnn,
    "rpn": _rpn,
    "retinanet": _retinanet,
}


def _rpn_head(canonical, settings, sampler, box_loss):
    channels = canonical.shape("rpn_head.rpn_conv.weight", None, None, 3, 3)[0]
    return RPNHead(
        _changed(settings, canonical, channels=channels, **canonical.anchors),
        sampler=sampler,
        box_loss=_box_loss(canonical, box_loss, legacy=1 / 9, torchvision=1 / 9),
    )


def _box_head(canonical, settings, sampler, box_loss):
    channels = canonical.shape(f"{_BOX_HEAD}.shared_fcs.0.weight", None, None)[0]
    canonical.shape(f"{_BOX_HEAD}.shared_fcs.1.weight", channels, channels)
    num_classes = canonical.shape(f"{_BOX_HEAD}.fc_cls.weight", None, channels)[0] - 1
    return BoxHead(
        num_classes,
        _changed(settings, canonical, channels=channels, stds=canonical.box_stds),
        sampler=sampler,
        box_loss=_box_loss(canonical, box_loss, legacy=1.0, torchvision=1 / 9),
        # From mmdetection 2 on: as many samples as a bin has cells, half a cell shifted.
        roi_align=MultilevelROIAlign(sampling_ratio=0)
        if canonical.geometry == "continuous"
        else MultilevelROIAlign(sampling_ratio=2, aligned=False),
    )


def _retina_head(canonical, settings, box_loss):
    channels = canonical.shape("bbox_head.cls_convs.0.conv.weight", None, None, 3, 3)[0]
    num_anchors = canonical.shape("bbox_head.retina_reg.weight", None, channels, 3, 3)[0] // 4
    outputs = canonical.shape("bbox_head.retina_cls.weight", None, channels, 3, 3)[0]
    settings = _changed(
        settings,
        canonical,
        channels=channels,
        num_convs=canonical.count("bbox_head.cls_convs."),
        max_detections=300 if canonical.geometry == "torchvision" else None,
        stds=canonical.box_stds,
        **canonical.anchors,
    )
    box_loss = _box_loss(canonical, box_loss, legacy=0.11)
    return RetinaHead(outputs // max(1, num_anchors), settings, box_loss=box_loss)


def _changed(settings, canonical, **stated):
    """The settings with what the file states, of the options that these settings have."""
    options = {field.name for field in dataclasses.fields(settings)}
    stated = {k: v for k, v in stated.items() if k in options and v is not None}
    return dataclasses.replace(settings, geometry=canonical.geometry, **stated)


def _box_loss(canonical, box_loss, **betas):
    """The given loss, or the smooth L1 of files that are older than the plain one of today."""
    beta = betas.get(canonical.geometry)
    if beta is None or not isinstance(box_loss, SmoothL1Loss):
        return box_loss
    return SmoothL1Loss(beta)


def _input_policy(canonical, input_policy):
    sides = dict(zip(("short_side", "long_side"), canonical.image_sides or (), strict=False))
    if canonical.geometry == "torchvision":
        sides["rounding"] = "down"
    return dataclasses.replace(input_policy, **sides)


def _neck(canonical, paper):
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
            start_level=paper[0]["config"]["start_level"],
            extra_levels=_extra_levels(canonical, laterals) if extra else "max_pool",
            **relu,
        )
    ]
    if canonical.is_libra:
        refiner = "non_local" if canonical.has("neck.1.") else None
        refiner = "conv" if canonical.has("neck.1.refine.conv.") else refiner
        level = paper[1]["config"]["refine_level"]
        neck.append(BalancedFeaturePyramid(level, refiner=refiner))
    return neck


def _extra_levels(canonical, laterals):
    """What the first extra level is made from: the backbone's last stage is wider."""
    sides = (None, None, 3, 3), (None, None, 1, 1)
    inputs = canonical.shape(f"neck.0.fpn_convs.{laterals}.conv.weight", *sides[0])[1]
    last_stage = canonical.shape(f"neck.0.lateral_convs.{laterals - 1}.conv.weight", *sides[1])[1]
    return "on_input" if inputs == last_stage else "on_output"


def build_backbone(canonical, prefix=""):
    """Builds the `ResNet` of a checkpoint, with random weights."""
    width = canonical.shape(f"{prefix}conv1.weight", None, 3, 7, 7)[0]
    blocks = tuple(canonical.count(f"{prefix}layer{stage}.") for stage in range(1, 5))
    bottleneck = canonical.has(f"{prefix}layer1.0.conv3.")
    depths = [d for d, b in BLOCKS.items() if b == blocks and (d >= 50) == bottleneck]
    if not depths:
        raise ValueError(f"no known ResNet has blocks of {blocks}")
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
