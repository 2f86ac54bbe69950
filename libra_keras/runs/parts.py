"""Parts of a named detector that a config replaces: samplers, pyramids and box losses."""

import keras

from libra_keras.layers import (
    BalancedFeaturePyramid,
    NonLocalBlock,
    PathAggregationPyramid,
)
from libra_keras.losses import BalancedL1Loss, SmoothL1Loss
from libra_keras.models.rebuilding import with_neck
from libra_keras.runs.config import ModelConfig
from libra_keras.samplers import (
    CombinedSampler,
    InstanceBalancedSampler,
    IoUBalancedSampler,
    RandomSampler,
)


def with_parts(model: keras.Model, own: ModelConfig) -> keras.Model:
    """Returns a detector with the parts that a config names: the given one with other samplers and
    losses, or one with another neck around the same layers."""
    check_fit(model, own)
    _replace_roi_sampler(model, own)
    _limit_rpn(model, own.rpn_limit)
    _replace_box_loss(model.heads()[-1], own)
    return _with_neck(model, own)


def check_fit(model: keras.Model, own: ModelConfig) -> None:
    """Checks that a detector has what is to be replaced, and that the options fit together."""
    kind = type(model).__name__
    samples = (own.positives, own.negatives, own.bins, own.upper) != (None,) * 4
    if samples and not hasattr(model, "box_head"):
        raise ValueError(
            f"--positives and --negatives require a second stage, which a {kind} lacks"
        )
    if own.rpn_limit is not None and not hasattr(model, "rpn"):
        raise ValueError(f"--rpn-limit requires a first stage, which a {kind} lacks")
    if (own.bins, own.upper) != (None, None) and own.negatives in (None, "random"):
        raise ValueError("--negative-bins and --negative-upper require --negatives PRESET")
    if own.refiner is not None and own.neck not in ("bfp", "balanced_pafpn"):
        raise ValueError("--refiner requires --neck bfp or --neck balanced_pafpn")
    shaped = (own.box_alpha, own.box_gamma) != (None, None)
    if shaped and own.box_loss != "balanced_l1":
        raise ValueError("--box-alpha and --box-gamma require --box-loss balanced_l1")
    if own.box_beta is not None and own.box_loss not in ("smooth_l1", "balanced_l1"):
        raise ValueError("--box-beta requires --box-loss smooth_l1 or balanced_l1")


def _replace_roi_sampler(model, own):
    if own.positives is None and own.negatives is None:
        return
    head = model.box_head
    size = head.sampler.num, head.sampler.positive_fraction
    positives = _positives(head.sampler, own.positives)
    negatives = _negatives(head.sampler, own)
    is_random = {type(positives), type(negatives)} == {RandomSampler}
    head.sampler = (
        RandomSampler(*size) if is_random else CombinedSampler(positives, negatives, *size)
    )


def _positives(sampler, kind):
    if kind is None:
        return getattr(sampler, "positives", sampler)
    return InstanceBalancedSampler() if kind == "balanced" else RandomSampler()


def _negatives(sampler, own):
    if own.negatives is None:
        return getattr(sampler, "negatives", sampler)
    if own.negatives == "random":
        return RandomSampler()
    chosen = IoUBalancedSampler.preset(own.negatives).get_config()
    given = {"num_bins": own.bins, "upper": own.upper}
    given = {name: value for name, value in given.items() if value is not None}
    return IoUBalancedSampler.from_config(chosen | given)


def _limit_rpn(model, limit):
    if limit is None:
        return
    sampler = model.rpn.sampler
    config = sampler.get_config() | {"max_negatives_per_positive": limit or None}
    model.rpn.sampler = type(sampler).from_config(config)


def _replace_box_loss(head, own):
    if own.box_loss_weight is not None:
        head.box_loss_weight = float(own.box_loss_weight)
    if own.box_loss == "l1":
        head.box_loss = SmoothL1Loss(beta=0.0)
    elif own.box_loss is not None:
        kind = SmoothL1Loss if own.box_loss == "smooth_l1" else BalancedL1Loss
        given = {"alpha": own.box_alpha, "gamma": own.box_gamma, "beta": own.box_beta}
        head.box_loss = kind(**{name: v for name, v in given.items() if v is not None})


def _with_neck(model, own):
    if own.neck is None:
        return model
    pyramid = model.neck[0].get_config()
    pyramid.pop("name", None)
    kind = PathAggregationPyramid if "pafpn" in own.neck else type(model.neck[0])
    neck = [kind.from_config(pyramid)]
    if own.neck in ("bfp", "balanced_pafpn"):
        neck.append(BalancedFeaturePyramid(_p4(pyramid), refiner=_refiner(own.refiner)))
    return with_neck(model, neck)


def _p4(pyramid):
    """Position of P4, whose size the paper averages at, in a pyramid from C2 or from C3."""
    return 2 - pyramid["start_level"]


def _refiner(name):
    if name == "gaussian":
        return NonLocalBlock(reduction=1, use_scale=False, mode="gaussian")
    return {"none": None, "conv": "conv"}.get(name, "non_local")
