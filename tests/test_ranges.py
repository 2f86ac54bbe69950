"""Numbers of what is exported: what is out of range, or no number, is refused by its name."""

import math

import numpy as np
import pytest

from libra_keras import data, evaluation, export, layers, losses, samplers, training
from libra_keras.backbones import ConvBatchNorm, ResNet
from libra_keras.models.box_head import BoxHead
from libra_keras.models.retina_head import RetinaHead
from libra_keras.ranges import Range, whole

NO_NUMBERS = (True, "1", [1])
NOT_FINITE = (math.nan, math.inf, -math.inf)
BELOW_ONE = (*NOT_FINITE, -1, 0, 2.5)  # of whole numbers
POSITIVE = (*NOT_FINITE, -1, 0)
NOT_NEGATIVE = (*NOT_FINITE, -1)
SHARE = (*NOT_FINITE, -1, 1.5)
SAMPLER = {
    "num": BELOW_ONE, "positive_fraction": SHARE, "max_negatives_per_positive": NOT_NEGATIVE,
}  # fmt: skip
TABLE = [
    (losses.BalancedL1Loss, {"alpha": POSITIVE, "gamma": POSITIVE, "beta": POSITIVE}),
    (losses.SmoothL1Loss, {"beta": NOT_NEGATIVE}),
    (losses.FocalLoss, {"alpha": SHARE, "gamma": NOT_NEGATIVE}),
    (samplers.RandomSampler, SAMPLER),
    (samplers.IoUBalancedSampler, SAMPLER | {"num_bins": BELOW_ONE, "floor_fraction": SHARE}),
    (layers.NonLocalBlock, {"reduction": BELOW_ONE, "block": BELOW_ONE}),
    (layers.BalancedFeaturePyramid, {"refine_level": (*NOT_NEGATIVE, 2.5)}),
    (
        layers.MultilevelROIAlign,
        {
            "output_size": BELOW_ONE, "max_sampling_ratio": BELOW_ONE,
            "sampling_ratio": (*NOT_NEGATIVE, 2.5), "finest_scale": POSITIVE,
        },
    ),
    (layers.PathAggregationPyramid, {
        "channels": BELOW_ONE, "num_levels": BELOW_ONE, "start_level": (*NOT_NEGATIVE, 2.5),
    }),
    (lambda std: layers.ImageNormalization((1,), (std,)), {"std": POSITIVE}),
    (lambda mean: layers.ImageNormalization((mean,), None), {"mean": NOT_FINITE}),
    (lambda **own: ConvBatchNorm(**{"filters": 6, **own}), {
        "filters": BELOW_ONE, "kernel_size": BELOW_ONE, "strides": BELOW_ONE, "groups": BELOW_ONE,
        "epsilon": NOT_NEGATIVE,
    }),
    (ResNet, {"width": BELOW_ONE, "groups": BELOW_ONE, "base_width": BELOW_ONE}),
    (lambda **own: BoxHead(**{"num_classes": 2, **own}), {
        "num_classes": BELOW_ONE, "box_loss_weight": NOT_NEGATIVE,
    }),
    (RetinaHead, {"num_classes": BELOW_ONE}),
    (lambda **own: data.InputPolicy(**{"short_side": 2, "long_side": 9, **own}), {
        "short_side": BELOW_ONE, "long_side": BELOW_ONE, "pad_multiple": BELOW_ONE,
    }),
    (lambda every: training.StepLogger("steps.csv", every=every), {"every": BELOW_ONE}),
    (lambda every: evaluation.COCOEvaluation(data.shapes(1), every=every), {"every": BELOW_ONE}),
    (training.SGD, {"weight_decay": NOT_NEGATIVE}),
    (training.AdamW, {"weight_decay": NOT_NEGATIVE}),
    (lambda **own: training.WarmupMultiStep(**{"learning_rate": 0.1, **own}), {
        "learning_rate": POSITIVE, "warmup_steps": (*NOT_NEGATIVE, 2.5), "drop_factor": (*SHARE, 0),
        "warmup_factor": (*SHARE, 0),
    }),
    (export.ExportOptions, {
        "score_threshold": SHARE, "nms_iou": SHARE, "max_detections": BELOW_ONE,
        "max_pixels": BELOW_ONE,
    }),
]  # fmt: skip


@pytest.mark.parametrize(("made", "names"), TABLE)
def test_numbers_out_of_range_are_refused(made, names):
    for name, wrong in names.items():
        for error, values in ((TypeError, NO_NUMBERS), (ValueError, wrong)):
            for value in values:
                with pytest.raises(error, match=f"`{name}` must be a .*number"):
                    made(**{name: value})
        for good in (np.int64(3), 3.0) if 2.5 in wrong else (np.float32(0.5),):
            made(**{name: good})


def test_large_whole_numbers_are_written_out():
    assert str(whole(1, 2**63 - 1)) == "a whole number from 1 to 9223372036854775807"


def test_rates_must_be_finite():
    for value in NOT_NEGATIVE:
        with pytest.raises(ValueError, match="`learning_rate` must be a number of at least 0"):
            training.SGD(value)


def test_ranges_say_what_they_hold():
    assert f"{whole(1)}" == "a whole number from 1 to 2147483647"
    assert f"{Range(0, ends='(]')}" == "a number above 0"
    assert f"{Range(0)}" == "a number of at least 0"
    assert f"{Range(0, 1, '[)')}" == "a number of at least 0 and below 1"
    assert f"{Range(0, 1, words=('all',))}" == "a number from 0 to 1 or all"
