"""Two-stage detectors with the papers' numbers.

A Libra constructor and its plain twin differ in the lines marked (*).
"""

from typing import Any

import keras

from libra_keras.backbones import ResNet
from libra_keras.layers import (
    BalancedFeaturePyramid,
    FeaturePyramid,
    MultilevelROIAlign,
    PathAggregationPyramid,
)
from libra_keras.losses import BalancedL1Loss
from libra_keras.models.box_head import BoxHead
from libra_keras.models.constructors.parts import (
    of_one_dtype,
    on_network,
    small_backbone,
    with_input_policy,
)
from libra_keras.models.faster_rcnn import FasterRCNN
from libra_keras.models.rpn_head import RPNHead
from libra_keras.models.settings import BoxHeadSettings, RPNSettings
from libra_keras.samplers import CombinedSampler, OHEMSampler, RandomSampler

__all__ = [
    "faster_rcnn_ohem_resnet50",
    "faster_rcnn_pafpn_resnet50",
    "faster_rcnn_resnet50",
    "faster_rcnn_resnet101",
    "faster_rcnn_resnext101_32x4d",
    "faster_rcnn_resnext101_64x4d",
    "faster_rcnn_small",
    "libra_faster_rcnn_pafpn_resnet50",
    "libra_faster_rcnn_resnet50",
    "libra_faster_rcnn_resnet101",
    "libra_faster_rcnn_resnext101_32x4d",
    "libra_faster_rcnn_resnext101_64x4d",
    "libra_faster_rcnn_small",
]


@of_one_dtype
def faster_rcnn_resnet50(
    num_classes: int = 80,
    backbone: keras.layers.Layer | None = None,
    roi_align: MultilevelROIAlign | None = None,
    **options: Any,
) -> FasterRCNN:
    """Faster R-CNN with ResNet-50 and a feature pyramid.

    Args:
        num_classes: int, classes without the background.
        backbone: layer from normalised images to `{"C2": …, "C5": …}`. Defaults to `ResNet(50)`
            without weights: its features are random, and the first ones do not train. To train from
            ImageNet weights, pass `ResNet(50, style="caffe", weights="imagenet")` and
            `normalization=ImageNormalization.caffe_style()`; to train from scratch, pass
            `ResNet(50, batch_norm="trainable", frozen_stages=-1)`.
        roi_align: `MultilevelROIAlign`. Defaults to one with 2x2 samples per bin, like
            torchvision's; the reference takes as many as a bin has cells:
            `MultilevelROIAlign(sampling_ratio=0)`, which costs about as much on a CPU with
            TensorFlow and far more elsewhere.
        **options: `normalization`, `input_policy`, `class_names`, `seed`, `name` and `dtype` of
            `FasterRCNN`.

    Example:

    >>> from libra_keras.backbones import ResNet
    >>> from libra_keras.models import faster_rcnn_resnet50
    >>> model = faster_rcnn_resnet50(num_classes=3, backbone=ResNet(50, width=8))
    >>> model.num_classes, len(model.neck)
    (3, 1)

    Reference: [Lin et al., 2017](https://arxiv.org/abs/1612.03144); numbers as in mmdetection's
    `faster-rcnn_r50_fpn_1x_coco`. Differs from it in `roi_align`.
    """
    return FasterRCNN(
        backbone=backbone or ResNet(50),
        neck=[FeaturePyramid(256)],
        rpn=RPNHead(sampler=RandomSampler(num=256, positive_fraction=0.5)),
        box_head=BoxHead(num_classes, roi_align=roi_align),
        **with_input_policy(options, 800, 1333),
    )


@of_one_dtype
def libra_faster_rcnn_resnet50(
    num_classes: int = 80,
    backbone: keras.layers.Layer | None = None,
    roi_align: MultilevelROIAlign | None = None,
    **options: Any,
) -> FasterRCNN:
    """Libra R-CNN with ResNet-50: balanced samples, pyramid and box loss.

    Arguments are those of `faster_rcnn_resnet50`.

    Example:

    >>> from libra_keras.backbones import ResNet
    >>> from libra_keras.models import libra_faster_rcnn_resnet50
    >>> model = libra_faster_rcnn_resnet50(num_classes=3, backbone=ResNet(50, width=8))
    >>> type(model.neck[1]).__name__, type(model.box_head.box_loss).__name__
    ('BalancedFeaturePyramid', 'BalancedL1Loss')

    Reference: [Pang et al., 2019](https://arxiv.org/abs/1904.02701); numbers as in mmdetection's
    `libra-faster-rcnn_r50_fpn_1x_coco`, with the sampler's preset `"mmdet"`. Differs from it as
    `faster_rcnn_resnet50` does.
    """
    return FasterRCNN(
        backbone=backbone or ResNet(50),
        neck=[FeaturePyramid(256), BalancedFeaturePyramid(2, refiner="non_local")],  # (*)
        rpn=RPNHead(  # (*) at most 5 negatives a positive
            sampler=RandomSampler(256, positive_fraction=0.5, max_negatives_per_positive=5)
        ),
        box_head=BoxHead(
            num_classes,
            sampler=CombinedSampler.preset("mmdet", num=512, positive_fraction=0.25),  # (*)
            box_loss=BalancedL1Loss(alpha=0.5, gamma=1.5),  # (*)
            roi_align=roi_align,
        ),
        **with_input_policy(options, 800, 1333),
    )


# The same on other networks.
faster_rcnn_resnet101 = on_network(faster_rcnn_resnet50, "resnet101")
faster_rcnn_resnext101_32x4d = on_network(faster_rcnn_resnet50, "resnext101_32x4d")
faster_rcnn_resnext101_64x4d = on_network(faster_rcnn_resnet50, "resnext101_64x4d")
libra_faster_rcnn_resnet101 = on_network(libra_faster_rcnn_resnet50, "resnet101")
libra_faster_rcnn_resnext101_32x4d = on_network(libra_faster_rcnn_resnet50, "resnext101_32x4d")
libra_faster_rcnn_resnext101_64x4d = on_network(libra_faster_rcnn_resnet50, "resnext101_64x4d")


@of_one_dtype
def faster_rcnn_pafpn_resnet50(
    num_classes: int = 80,
    backbone: keras.layers.Layer | None = None,
    roi_align: MultilevelROIAlign | None = None,
    **options: Any,
) -> FasterRCNN:
    """Faster R-CNN with ResNet-50 and path aggregation.

    Arguments are those of `faster_rcnn_resnet50`.

    Example:

    >>> from libra_keras.backbones import ResNet
    >>> from libra_keras.models import faster_rcnn_pafpn_resnet50
    >>> model = faster_rcnn_pafpn_resnet50(num_classes=3, backbone=ResNet(18, width=8))
    >>> [type(layer).__name__ for layer in model.neck]
    ['PathAggregationPyramid']

    Reference: [Liu et al., 2018](https://arxiv.org/abs/1803.01534); numbers as in mmdetection's
    `faster-rcnn_r50_pafpn_1x_coco`. Differs from it as `faster_rcnn_resnet50` does.
    """
    return FasterRCNN(
        backbone=backbone or ResNet(50),
        neck=[PathAggregationPyramid(256)],
        rpn=RPNHead(sampler=RandomSampler(num=256, positive_fraction=0.5)),
        box_head=BoxHead(num_classes, roi_align=roi_align),
        **with_input_policy(options, 800, 1333),
    )


@of_one_dtype
def libra_faster_rcnn_pafpn_resnet50(
    num_classes: int = 80,
    backbone: keras.layers.Layer | None = None,
    roi_align: MultilevelROIAlign | None = None,
    **options: Any,
) -> FasterRCNN:
    """Libra R-CNN with ResNet-50 on a balanced path aggregation pyramid.

    Arguments are those of `faster_rcnn_resnet50`.

    Example:

    >>> from libra_keras.backbones import ResNet
    >>> from libra_keras.models import libra_faster_rcnn_pafpn_resnet50
    >>> model = libra_faster_rcnn_pafpn_resnet50(num_classes=3, backbone=ResNet(18, width=8))
    >>> [type(layer).__name__ for layer in model.neck]
    ['PathAggregationPyramid', 'BalancedFeaturePyramid']

    Reference: [Pang et al., 2019](https://arxiv.org/abs/1904.02701), "balanced PAFPN" of table 5.
    Differs from that row in everything but the neck: there, samples and box loss are plain, and
    proposals are given. Numbers as in `libra_faster_rcnn_resnet50`; the reference has no such
    configuration.
    """
    return FasterRCNN(
        backbone=backbone or ResNet(50),
        neck=[PathAggregationPyramid(256), BalancedFeaturePyramid(2, refiner="non_local")],  # (*)
        rpn=RPNHead(  # (*) at most 5 negatives a positive
            sampler=RandomSampler(256, positive_fraction=0.5, max_negatives_per_positive=5)
        ),
        box_head=BoxHead(
            num_classes,
            sampler=CombinedSampler.preset("mmdet", num=512, positive_fraction=0.25),  # (*)
            box_loss=BalancedL1Loss(alpha=0.5, gamma=1.5),  # (*)
            roi_align=roi_align,
        ),
        **with_input_policy(options, 800, 1333),
    )


@of_one_dtype
def faster_rcnn_ohem_resnet50(
    num_classes: int = 80,
    backbone: keras.layers.Layer | None = None,
    roi_align: MultilevelROIAlign | None = None,
    **options: Any,
) -> FasterRCNN:
    """Faster R-CNN with ResNet-50 whose second stage trains on its hardest proposals.

    Arguments are those of `faster_rcnn_resnet50`.

    Example:

    >>> from libra_keras.backbones import ResNet
    >>> from libra_keras.models import faster_rcnn_ohem_resnet50
    >>> model = faster_rcnn_ohem_resnet50(num_classes=3, backbone=ResNet(18, width=8))
    >>> type(model.box_head.sampler).__name__
    'OHEMSampler'

    Reference: [Shrivastava et al., 2016](https://arxiv.org/abs/1604.03540); numbers as in
    mmdetection's `faster-rcnn_r50_fpn_ohem_1x_coco`. Differs from it as `faster_rcnn_resnet50`
    does.
    """
    return FasterRCNN(
        backbone=backbone or ResNet(50),
        neck=[FeaturePyramid(256)],
        rpn=RPNHead(sampler=RandomSampler(num=256, positive_fraction=0.5)),
        box_head=BoxHead(
            num_classes,
            sampler=OHEMSampler(num=512, positive_fraction=0.25),
            roi_align=roi_align,
        ),
        **with_input_policy(options, 800, 1333),
    )


@of_one_dtype
def faster_rcnn_small(
    num_classes: int = 6, backbone: keras.layers.Layer | None = None, **options: Any
) -> FasterRCNN:
    """Small Faster R-CNN for images of about 320 pixels; trains from scratch on a laptop's CPU.

    Arguments are those of `faster_rcnn_resnet50` without `roi_align`; the backbone defaults to a
    narrow ResNet-18 with trained batch normalisation.

    Example:

    >>> from libra_keras.models import faster_rcnn_small
    >>> faster_rcnn_small(num_classes=6).num_classes
    6
    """
    return FasterRCNN(
        backbone=backbone or small_backbone(),
        neck=[FeaturePyramid(SMALL_CHANNELS)],
        rpn=RPNHead(SMALL_RPN, sampler=RandomSampler(num=128, positive_fraction=0.5)),
        box_head=BoxHead(
            num_classes,
            SMALL_BOX_HEAD,
            sampler=RandomSampler(num=64, positive_fraction=0.5),
            roi_align=MultilevelROIAlign(finest_scale=SMALL_FINEST_SCALE),
        ),
        **with_input_policy(options, 320, 320),
    )


@of_one_dtype
def libra_faster_rcnn_small(
    num_classes: int = 6, backbone: keras.layers.Layer | None = None, **options: Any
) -> FasterRCNN:
    """Small Libra R-CNN for images of about 320 pixels; trains from scratch on a laptop's CPU.

    Arguments are those of `faster_rcnn_small`.

    Example:

    >>> from libra_keras.models import libra_faster_rcnn_small
    >>> len(libra_faster_rcnn_small(num_classes=6).neck)
    2

    Reference: [Pang et al., 2019](https://arxiv.org/abs/1904.02701), with sizes of our own.
    """
    return FasterRCNN(
        backbone=backbone or small_backbone(),
        neck=[  # (*)
            FeaturePyramid(SMALL_CHANNELS),
            BalancedFeaturePyramid(2, refiner="non_local"),
        ],
        rpn=RPNHead(  # (*) at most 5 negatives a positive
            SMALL_RPN,
            sampler=RandomSampler(128, positive_fraction=0.5, max_negatives_per_positive=5),
        ),
        box_head=BoxHead(
            num_classes,
            SMALL_BOX_HEAD,
            sampler=CombinedSampler.preset("mmdet", num=64, positive_fraction=0.5),  # (*)
            box_loss=BalancedL1Loss(alpha=0.5, gamma=1.5),  # (*)
            roi_align=MultilevelROIAlign(finest_scale=SMALL_FINEST_SCALE),
        ),
        **with_input_policy(options, 320, 320),
    )


# The small pair: square anchors from 8 to 181 pixels, two an octave, and far fewer boxes at every
# stage. A network that starts from nothing first needs positives: hence the lower threshold of
# the anchors here, and the half of the samples below.
SMALL_CHANNELS = 48
SMALL_RPN = RPNSettings(
    channels=SMALL_CHANNELS,
    scales=(2.0, 2.0 * 2**0.5),
    ratios=(1.0,),
    positive_iou=0.6,
    pre_nms_train=300,
    pre_nms_test=300,
    post_nms=200,
)
SMALL_BOX_HEAD = BoxHeadSettings(channels=256, max_candidates=300, max_detections=50)
SMALL_FINEST_SCALE = 28.0  # half of the usual: objects half as large use each level
