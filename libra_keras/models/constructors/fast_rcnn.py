"""Second stages on given proposals, with the papers' numbers.

A Libra constructor and its plain twin differ in the lines marked (*).
"""

from typing import Any

import keras

from libra_keras.backbones import ResNet
from libra_keras.layers import BalancedFeaturePyramid, FeaturePyramid, MultilevelROIAlign
from libra_keras.losses import BalancedL1Loss
from libra_keras.models.box_head import BoxHead
from libra_keras.models.constructors.faster_rcnn import (
    SMALL_BOX_HEAD,
    SMALL_CHANNELS,
    SMALL_FINEST_SCALE,
)
from libra_keras.models.constructors.parts import of_one_dtype, small_backbone, with_input_policy
from libra_keras.models.fast_rcnn import FastRCNN
from libra_keras.samplers import CombinedSampler, RandomSampler

__all__ = [
    "fast_rcnn_resnet50",
    "fast_rcnn_small",
    "libra_fast_rcnn_resnet50",
    "libra_fast_rcnn_small",
]


@of_one_dtype
def fast_rcnn_resnet50(
    num_classes: int = 80,
    backbone: keras.layers.Layer | None = None,
    roi_align: MultilevelROIAlign | None = None,
    **options: Any,
) -> FastRCNN:
    """Fast R-CNN with ResNet-50 and a feature pyramid, on given proposals.

    Args:
        num_classes: int, classes without the background.
        backbone, roi_align: as in `faster_rcnn_resnet50`.
        **options: `normalization`, `input_policy`, `class_names`, `seed`, `name` and `dtype` of
            `FastRCNN`.

    Example:

    >>> from libra_keras.backbones import ResNet
    >>> from libra_keras.models import fast_rcnn_resnet50
    >>> model = fast_rcnn_resnet50(num_classes=3, backbone=ResNet(50, width=8))
    >>> model.num_classes, len(model.neck)
    (3, 1)

    Reference: [Lin et al., 2017](https://arxiv.org/abs/1612.03144); numbers as in mmdetection's
    `fast-rcnn_r50_fpn_1x_coco`. Differs from it in `roi_align`.
    """
    return FastRCNN(
        backbone=backbone or ResNet(50),
        neck=[FeaturePyramid(256)],
        box_head=BoxHead(num_classes, roi_align=roi_align),
        **with_input_policy(options, 800, 1333),
    )


@of_one_dtype
def libra_fast_rcnn_resnet50(
    num_classes: int = 80,
    backbone: keras.layers.Layer | None = None,
    roi_align: MultilevelROIAlign | None = None,
    **options: Any,
) -> FastRCNN:
    """Libra Fast R-CNN with ResNet-50: balanced samples, pyramid and box loss.

    Arguments are those of `fast_rcnn_resnet50`.

    Example:

    >>> from libra_keras.backbones import ResNet
    >>> from libra_keras.models import libra_fast_rcnn_resnet50
    >>> model = libra_fast_rcnn_resnet50(num_classes=3, backbone=ResNet(50, width=8))
    >>> type(model.neck[1]).__name__, type(model.box_head.box_loss).__name__
    ('BalancedFeaturePyramid', 'BalancedL1Loss')

    Reference: [Pang et al., 2019](https://arxiv.org/abs/1904.02701), tables 2 and 4 to 6; numbers
    as in mmdetection's `libra-fast-rcnn_r50_fpn_1x_coco`, with the sampler's preset `"mmdet"`.
    Differs from it as `fast_rcnn_resnet50` does.
    """
    return FastRCNN(
        backbone=backbone or ResNet(50),
        neck=[FeaturePyramid(256), BalancedFeaturePyramid(2, refiner="non_local")],  # (*)
        box_head=BoxHead(
            num_classes,
            sampler=CombinedSampler.preset("mmdet", num=512, positive_fraction=0.25),  # (*)
            box_loss=BalancedL1Loss(alpha=0.5, gamma=1.5),  # (*)
            roi_align=roi_align,
        ),
        **with_input_policy(options, 800, 1333),
    )


@of_one_dtype
def fast_rcnn_small(
    num_classes: int = 6, backbone: keras.layers.Layer | None = None, **options: Any
) -> FastRCNN:
    """Small Fast R-CNN for images of about 320 pixels: the second stage of `faster_rcnn_small`.

    Arguments are those of `fast_rcnn_resnet50` without `roi_align`, the backbone as in
    `faster_rcnn_small`.

    Example:

    >>> from libra_keras.models import fast_rcnn_small
    >>> fast_rcnn_small(num_classes=6).num_classes
    6
    """
    return FastRCNN(
        backbone=backbone or small_backbone(),
        neck=[FeaturePyramid(SMALL_CHANNELS)],
        box_head=BoxHead(
            num_classes,
            SMALL_BOX_HEAD,
            sampler=RandomSampler(num=64, positive_fraction=0.5),
            roi_align=MultilevelROIAlign(finest_scale=SMALL_FINEST_SCALE),
        ),
        **with_input_policy(options, 320, 320),
    )


@of_one_dtype
def libra_fast_rcnn_small(
    num_classes: int = 6, backbone: keras.layers.Layer | None = None, **options: Any
) -> FastRCNN:
    """Small Libra Fast R-CNN: the second stage of `libra_faster_rcnn_small`.

    Arguments are those of `fast_rcnn_small`.

    Example:

    >>> from libra_keras.models import libra_fast_rcnn_small
    >>> len(libra_fast_rcnn_small(num_classes=6).neck)
    2

    Reference: [Pang et al., 2019](https://arxiv.org/abs/1904.02701), with sizes of our own.
    """
    return FastRCNN(
        backbone=backbone or small_backbone(),
        neck=[  # (*)
            FeaturePyramid(SMALL_CHANNELS),
            BalancedFeaturePyramid(2, refiner="non_local"),
        ],
        box_head=BoxHead(
            num_classes,
            SMALL_BOX_HEAD,
            sampler=CombinedSampler.preset("mmdet", num=64, positive_fraction=0.5),  # (*)
            box_loss=BalancedL1Loss(alpha=0.5, gamma=1.5),  # (*)
            roi_align=MultilevelROIAlign(finest_scale=SMALL_FINEST_SCALE),
        ),
        **with_input_policy(options, 320, 320),
    )
