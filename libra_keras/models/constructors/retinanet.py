"""One-stage detectors with the papers' numbers.

A Libra constructor and its plain twin differ in the lines marked (*).
"""

from typing import Any

import keras

from libra_keras.backbones import ResNet
from libra_keras.layers import BalancedFeaturePyramid, FeaturePyramid
from libra_keras.losses import BalancedL1Loss
from libra_keras.models.constructors.parts import (
    of_one_dtype,
    on_network,
    small_backbone,
    with_input_policy,
)
from libra_keras.models.retina_head import RetinaHead
from libra_keras.models.retinanet import RetinaNet
from libra_keras.models.settings import RetinaHeadSettings

__all__ = [
    "libra_retinanet_resnet50",
    "libra_retinanet_resnet101",
    "libra_retinanet_small",
    "retinanet_resnet50",
    "retinanet_resnet101",
    "retinanet_resnext101_64x4d",
    "retinanet_small",
]


@of_one_dtype
def retinanet_resnet50(
    num_classes: int = 80, backbone: keras.layers.Layer | None = None, **options: Any
) -> RetinaNet:
    """RetinaNet with ResNet-50.

    Args:
        num_classes: int, classes without the background.
        backbone: layer from normalised images to `{"C2": …, "C5": …}`. Defaults to `ResNet(50)`
            without weights: its features are random, and the first ones do not train. To train from
            ImageNet weights, pass `ResNet(50, style="caffe", weights="imagenet")` and
            `normalization=ImageNormalization.caffe_style()`; to train from scratch, pass
            `ResNet(50, batch_norm="trainable", frozen_stages=-1)`.
        **options: `normalization`, `input_policy`, `class_names`, `seed`, `name` and `dtype` of
            `RetinaNet`.

    Example:

    >>> from libra_keras.backbones import ResNet
    >>> from libra_keras.models import retinanet_resnet50
    >>> model = retinanet_resnet50(num_classes=3, backbone=ResNet(50, width=8))
    >>> model.num_classes, len(model.neck)
    (3, 1)

    Reference: [Lin et al., 2017](https://arxiv.org/abs/1708.02002); numbers as in mmdetection's
    `retinanet_r50_fpn_1x_coco`.
    """
    return RetinaNet(
        backbone=backbone or ResNet(50),
        neck=[FeaturePyramid(256, start_level=1, extra_levels="on_input")],
        head=RetinaHead(num_classes),
        **with_input_policy(options, 800, 1333),
    )


@of_one_dtype
def libra_retinanet_resnet50(
    num_classes: int = 80, backbone: keras.layers.Layer | None = None, **options: Any
) -> RetinaNet:
    """Libra RetinaNet with ResNet-50: balanced pyramid and box loss.

    Arguments are those of `retinanet_resnet50`.

    Example:

    >>> from libra_keras.backbones import ResNet
    >>> from libra_keras.models import libra_retinanet_resnet50
    >>> model = libra_retinanet_resnet50(num_classes=3, backbone=ResNet(50, width=8))
    >>> type(model.neck[1]).__name__, model.head.box_loss.beta
    ('BalancedFeaturePyramid', 0.11)

    Reference: [Pang et al., 2019](https://arxiv.org/abs/1904.02701); numbers as in mmdetection's
    `libra-retinanet_r50_fpn_1x_coco`.
    """
    return RetinaNet(
        backbone=backbone or ResNet(50),
        neck=[
            FeaturePyramid(256, start_level=1, extra_levels="on_input"),
            BalancedFeaturePyramid(1, refiner="non_local"),  # (*)
        ],
        head=RetinaHead(
            num_classes,
            box_loss=BalancedL1Loss(alpha=0.5, gamma=1.5, beta=0.11),  # (*)
        ),
        **with_input_policy(options, 800, 1333),
    )


# The same on other networks.
retinanet_resnet101 = on_network(retinanet_resnet50, "resnet101")
retinanet_resnext101_64x4d = on_network(retinanet_resnet50, "resnext101_64x4d")
libra_retinanet_resnet101 = on_network(libra_retinanet_resnet50, "resnet101")


@of_one_dtype
def retinanet_small(
    num_classes: int = 6, backbone: keras.layers.Layer | None = None, **options: Any
) -> RetinaNet:
    """Small RetinaNet for images of about 320 pixels; trains from scratch on a laptop's CPU.

    Arguments are those of `retinanet_resnet50`; the backbone defaults to a narrow ResNet-18 with
    trained batch normalisation.

    Example:

    >>> from libra_keras.models import retinanet_small
    >>> retinanet_small(num_classes=6).num_classes
    6
    """
    return RetinaNet(
        backbone=backbone or small_backbone(),
        neck=[_small_pyramid()],
        head=RetinaHead(num_classes, SMALL_HEAD),
        **with_input_policy(options, 320, 320),
    )


@of_one_dtype
def libra_retinanet_small(
    num_classes: int = 6, backbone: keras.layers.Layer | None = None, **options: Any
) -> RetinaNet:
    """Small Libra RetinaNet for images of about 320 pixels; trains from scratch on a laptop's CPU.

    Arguments are those of `retinanet_small`.

    Example:

    >>> from libra_keras.models import libra_retinanet_small
    >>> len(libra_retinanet_small(num_classes=6).neck)
    2

    Reference: [Pang et al., 2019](https://arxiv.org/abs/1904.02701), with sizes of our own.
    """
    return RetinaNet(
        backbone=backbone or small_backbone(),
        neck=[_small_pyramid(), BalancedFeaturePyramid(2, refiner="non_local")],  # (*)
        head=RetinaHead(
            num_classes,
            SMALL_HEAD,
            box_loss=BalancedL1Loss(alpha=0.5, gamma=1.5, beta=0.11),  # (*)
        ),
        **with_input_policy(options, 320, 320),
    )


# The small pair: square anchors from 8 to 203 pixels, three an octave. The pyramid starts at C2:
# a quarter of the drawn objects is smaller than 17 pixels. To pay for it, each branch is short.
# Answers of the size of 1 are learnt faster than shifts of a tenth of an anchor: hence the stds.
SMALL_CHANNELS = 48
SMALL_HEAD = RetinaHeadSettings(
    channels=SMALL_CHANNELS,
    num_convs=1,
    strides=(4, 8, 16, 32, 64),
    base_scale=2.0,
    ratios=(1.0,),
    stds=(0.2, 0.2, 0.2, 0.2),
    pre_nms=200,
    max_detections=50,
)


def _small_pyramid():
    return FeaturePyramid(SMALL_CHANNELS, extra_levels="on_input")
