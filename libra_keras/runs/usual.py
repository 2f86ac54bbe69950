"""The optimizer that a detector is usually trained with."""

from typing import Any

import keras

from libra_keras.runs.config import OptimizerConfig
from libra_keras.runs.defaults import RESNET, RETINANET, SMALL
from libra_keras.training import SGD, AdamW


def usual_optimizer(detector: keras.Model) -> keras.optimizers.Optimizer:
    """Returns the optimizer of a detector's family at its full rate, and prints what it is."""
    family = _family(detector)
    own, rate = family.optimizer, family.schedule.learning_rate
    optimizer = optimizer_of(own, rate)
    print(
        f"{type(optimizer).__name__}, learning rate {rate:g} for {family.schedule.batch} images "
        f"per step, weight decay {own.weight_decay:g}"
        + (f", gradients clipped to {own.clip_norm:g}" if own.clip_norm else "")
    )
    return optimizer


def optimizer_of(own: OptimizerConfig, rate: Any, **more: Any) -> keras.optimizers.Optimizer:
    """Returns the optimizer of a resolved config with a rate or a schedule of it."""
    kind, momentum = {"sgd": (SGD, "momentum"), "adamw": (AdamW, "beta_1")}[own.name]
    decay, clip = own.weight_decay, own.clip_norm or None
    given = {momentum: own.momentum, **more}
    return kind(rate, weight_decay=decay, global_clipnorm=clip, **given)


def _family(detector):
    """The defaults by what a detector is made of; other detectors are identified by name."""
    if getattr(detector.backbone, "batch_norm", "frozen") != "frozen":
        return SMALL  # a backbone that learns from scratch
    return RETINANET if type(detector).__name__ == "RetinaNet" else RESNET
