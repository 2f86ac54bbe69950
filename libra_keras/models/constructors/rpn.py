"""First stages with the papers' numbers.

A Libra constructor and its plain twin differ in the lines marked (*).
"""

from typing import Any

import keras

from libra_keras.backbones import ResNet
from libra_keras.layers import BalancedFeaturePyramid, FeaturePyramid
from libra_keras.models.constructors.faster_rcnn import SMALL_CHANNELS, SMALL_RPN
from libra_keras.models.constructors.parts import (
    of_one_dtype,
    on_network,
    small_backbone,
    with_input_policy,
)
from libra_keras.models.region_proposal_network import RegionProposalNetwork
from libra_keras.models.rpn_head import RPNHead
from libra_keras.models.settings import RPNSettings
from libra_keras.samplers import IoUBalancedSampler, RandomSampler

__all__ = [
    "libra_rpn_resnet50",
    "libra_rpn_small",
    "rpn_resnet50",
    "rpn_resnet101",
    "rpn_resnext101_64x4d",
    "rpn_small",
]

# Proposals are all that comes out: twice as many anchors enter NMS as in a two-stage detector.
SETTINGS = RPNSettings(pre_nms_test=2000)


@of_one_dtype
def rpn_resnet50(
    backbone: keras.layers.Layer | None = None, **options: Any
) -> RegionProposalNetwork:
    """Region proposal network with ResNet-50 and a feature pyramid.

    Args:
        backbone: as in `faster_rcnn_resnet50`.
        **options: `normalization`, `input_policy`, `seed`, `name` and `dtype` of
            `RegionProposalNetwork`.

    Example:

    >>> from libra_keras.backbones import ResNet
    >>> from libra_keras.models import rpn_resnet50
    >>> model = rpn_resnet50(backbone=ResNet(50, width=8))
    >>> len(model.neck), model.rpn.settings.post_nms
    (1, 1000)

    Reference: [Lin et al., 2017](https://arxiv.org/abs/1612.03144); numbers as in mmdetection's
    `rpn_r50_fpn_1x_coco`.
    """
    return RegionProposalNetwork(
        backbone=backbone or ResNet(50),
        neck=[FeaturePyramid(256)],
        rpn=RPNHead(SETTINGS, sampler=RandomSampler(num=256, positive_fraction=0.5)),
        **with_input_policy(options, 800, 1333),
    )


@of_one_dtype
def libra_rpn_resnet50(
    backbone: keras.layers.Layer | None = None, **options: Any
) -> RegionProposalNetwork:
    """Libra RPN with ResNet-50: balanced negatives and a balanced pyramid.

    The negatives' bins end at 0.3, above which an anchor is not negative. Bins up to 1, as in the
    box head, would put all negatives into the first: uniform sampling. There is no balanced L1: no
    version of the reference has it in this stage.

    Arguments are those of `rpn_resnet50`.

    Example:

    >>> from libra_keras.backbones import ResNet
    >>> from libra_keras.models import libra_rpn_resnet50
    >>> model = libra_rpn_resnet50(backbone=ResNet(50, width=8))
    >>> type(model.neck[1]).__name__, model.rpn.sampler.upper
    ('BalancedFeaturePyramid', 0.3)

    Reference: [Pang et al., 2019](https://arxiv.org/abs/1904.02701), table 3, which gives only its
    name and AR; its code was not published. The limit of 5 negatives per positive is that of the
    reference's Libra Faster R-CNN.
    """
    return RegionProposalNetwork(
        backbone=backbone or ResNet(50),
        neck=[FeaturePyramid(256), BalancedFeaturePyramid(2, refiner="non_local")],  # (*)
        rpn=RPNHead(SETTINGS, sampler=_balanced(SETTINGS, num=256)),  # (*)
        **with_input_policy(options, 800, 1333),
    )


# The same on other networks.
rpn_resnet101 = on_network(rpn_resnet50, "resnet101")
rpn_resnext101_64x4d = on_network(rpn_resnet50, "resnext101_64x4d")


@of_one_dtype
def rpn_small(backbone: keras.layers.Layer | None = None, **options: Any) -> RegionProposalNetwork:
    """Small region proposal network: the first stage of `faster_rcnn_small`.

    Arguments are those of `rpn_resnet50`, the backbone as in `faster_rcnn_small`.

    Example:

    >>> from libra_keras.models import rpn_small
    >>> rpn_small().rpn.settings.post_nms
    200
    """
    return RegionProposalNetwork(
        backbone=backbone or small_backbone(),
        neck=[FeaturePyramid(SMALL_CHANNELS)],
        rpn=RPNHead(SMALL_RPN, sampler=RandomSampler(num=128, positive_fraction=0.5)),
        **with_input_policy(options, 320, 320),
    )


@of_one_dtype
def libra_rpn_small(
    backbone: keras.layers.Layer | None = None, **options: Any
) -> RegionProposalNetwork:
    """Small Libra RPN: `rpn_small` with the balances of `libra_rpn_resnet50`.

    Arguments are those of `rpn_small`.

    Example:

    >>> from libra_keras.models import libra_rpn_small
    >>> len(libra_rpn_small().neck)
    2

    Reference: [Pang et al., 2019](https://arxiv.org/abs/1904.02701), with sizes of our own.
    """
    return RegionProposalNetwork(
        backbone=backbone or small_backbone(),
        neck=[  # (*)
            FeaturePyramid(SMALL_CHANNELS),
            BalancedFeaturePyramid(2, refiner="non_local"),
        ],
        rpn=RPNHead(SMALL_RPN, sampler=_balanced(SMALL_RPN, num=128)),  # (*)
        **with_input_policy(options, 320, 320),
    )


def _balanced(settings, num):
    """Negatives spread over all overlaps that a negative anchor can have."""
    return IoUBalancedSampler(
        num,
        positive_fraction=0.5,
        max_negatives_per_positive=5,
        upper=settings.negative_iou,
        include_zero=True,
    )
