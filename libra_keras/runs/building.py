"""From a config to a detector and its optimizer."""

import contextlib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import keras

from libra_keras import models
from libra_keras.data import DetectionData, InputPolicy
from libra_keras.layers import ImageNormalization, MultilevelROIAlign
from libra_keras.models.constructors.converted import (
    converted_backbone,
    is_converted,
    load_backbone,
)
from libra_keras.models.constructors.parts import network_of, resnet, small_backbone
from libra_keras.models.fine_tuning import freeze
from libra_keras.runs.checks import flag
from libra_keras.runs.config import ModelConfig, TrainConfig, settings
from libra_keras.runs.defaults import drop_fractions
from libra_keras.runs.initial import build_initial
from libra_keras.runs.parts import with_parts
from libra_keras.training import SGD, AdamW, WarmupMultiStep

# Options of a ResNet and of the second stage, which a small model's constructor chooses.
CHOSEN = ("backbone_weights", "backbone_style", "train_affine", "frozen_stages", "sampling_ratio")


def build(
    config: TrainConfig, data: DetectionData, batch_norm: str, given: keras.Model | None = None
) -> tuple[keras.Model, dict[str, Any] | None]:
    """Builds the detector of a run for the classes of its data, and freezes what is to stay.

    Args:
        config: `TrainConfig`, resolved.
        data: `DetectionData`.
        batch_norm: `"trainable"`, or `"synchronized"` for several devices.
        given: detector that is trained instead, or `None`.

    Returns:
        Tuple of the detector and what the record says about where it started: `None` for nowhere.

    Raises:
        ValueError: if an option does not fit the detector, or a frozen part would stay random.
    """
    parts = config.model.freeze
    if given is not None:
        freeze(given, parts)
        return given, None
    if config.model.init:
        model, started_from = build_initial(config, data, batch_norm)
    else:
        with built_with(config.model.precision):
            model, started_from = build_model(config, data, batch_norm), None
    with built_with(config.model.precision or model.dtype_policy.name):
        model = with_parts(model, config.model)
    if config.model.max_detections:
        model.max_detections = config.model.max_detections
    freeze(model, parts)
    check_frozen(parts, started_from, model, config.model.backbone_weights)
    return model, started_from


@contextlib.contextmanager
def built_with(precision: str | None) -> Iterator[None]:
    """Layers that are made within this context get a dtype policy; `None` changes nothing.

    Example:

    >>> import keras
    >>> from libra_keras.runs.building import built_with
    >>> with built_with("mixed_bfloat16"):
    ...     keras.layers.Dense(1).compute_dtype
    'bfloat16'
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision or before)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def build_model(
    config: TrainConfig, data: DetectionData, batch_norm: str = "trainable"
) -> keras.Model:
    """Builds the named detector for the classes of `data`.

    Args:
        config: `TrainConfig`, resolved.
        data: `DetectionData`.
        batch_norm: `"trainable"`, or `"synchronized"` for several devices: of a backbone that has
            not weights to begin with.

    Raises:
        ValueError: if options of the backbone are given for a small model, whose constructor
            chooses its own, or those of RoIAlign for a model without a second stage.
    """
    own = config.model
    constructor = getattr(models, own.name)
    arguments = {
        "input_policy": InputPolicy(own.short_side, own.long_side),
        "seed": config.run.seed,
    }
    if network_of(own.name):
        arguments |= _resnet_parts(own, batch_norm)
    elif given := _given(config):
        raise ValueError(
            f"{own.name} has a backbone of its own; {', '.join(given)} need a model of the resnet "
            "family"
        )
    else:
        arguments["backbone"] = small_backbone(batch_norm)
    takes = inspect.signature(constructor).parameters
    if "num_classes" in takes:  # region proposal networks know no classes
        arguments |= {"num_classes": data.num_classes, "class_names": list(data.class_names)}
    return constructor(**arguments)


def _given(config):
    found = settings(config)
    return [flag(name) for name in CHOSEN if found[name] not in (None, "none")]


def _resnet_parts(own: ModelConfig, batch_norm):
    """A ResNet or ResNeXt, the normalisation that its weights were trained with, and RoIAlign."""
    weights = None if own.backbone_weights == "none" else own.backbone_weights
    frozen_stages = own.frozen_stages
    if frozen_stages is None:
        frozen_stages = 1 if weights else -1  # random features must not be frozen
    trains = {
        "batch_norm": "frozen" if weights else batch_norm,
        "train_affine": own.train_affine is not False,
        "frozen_stages": frozen_stages,
    }
    network = network_of(own.name)
    if is_converted(weights):
        parts = converted_backbone(weights, network, own.backbone_style, **trains)
    elif weights and "resnext" in network:
        parts = _resnext(network, weights, **trains)
    else:
        style = own.backbone_style or ("caffe" if weights else "pytorch")
        parts = _plain_backbone(network, style=style, weights=weights, **trains)
    ratio = own.sampling_ratio
    if "rcnn" in own.name:
        parts["roi_align"] = MultilevelROIAlign(sampling_ratio=2 if ratio is None else ratio)
    elif ratio is not None:
        raise ValueError(f"--sampling-ratio is of the second stage, which {own.name} has not")
    return parts


def _plain_backbone(network, style, **arguments):
    """With random weights, or those of `keras.applications`."""
    caffe = style == "caffe"
    normalization = ImageNormalization.caffe_style if caffe else ImageNormalization.torch_style
    return {
        "backbone": resnet(network, style=style, **arguments),
        "normalization": normalization(),
    }


def _resnext(network, weights, **arguments):
    """With the weights of a `keras.Model(images, backbone(images))`."""
    if weights == "imagenet":
        raise ValueError(
            "Keras offers no ImageNet weights of a ResNeXt. Name a file with --backbone-weights, "
            "or start from nothing with --backbone-weights none"
        )
    parts = _plain_backbone(network, style="pytorch", **arguments)
    load_backbone(parts["backbone"], weights)
    return parts


def check_frozen(
    names: tuple[str, ...],
    started_from: Mapping[str, Any] | None,
    model: keras.Model,
    backbone_weights: str | None = None,
) -> None:
    """Checks that no part that is to be frozen would stay random.

    Args:
        names: parts that do not learn.
        started_from: dict for the record of the run, see `build_initial`; `None` if the heads start
            from nothing.
        model: `Detector`, built.
        backbone_weights: `None` or `"none"` if the backbone starts from nothing, too.

    Raises:
        ValueError: if a part would.

    Example:

    >>> from libra_keras.models import libra_faster_rcnn_small
    >>> from libra_keras.runs.building import check_frozen
    >>> model = libra_faster_rcnn_small(num_classes=2)
    >>> check_frozen(("box_head",), None, model)
    Traceback (most recent call last):
    ...
    ValueError: --freeze box_head would keep random weights: only --init brings others
    """
    for name in names:
        is_backbone = name == "backbone"
        if is_backbone and (started_from or backbone_weights not in (None, "none")):
            continue
        if started_from is None:
            others = "--init and --backbone-weights bring" if is_backbone else "only --init brings"
            raise ValueError(f"--freeze {name} would keep random weights: {others} others")
        part = getattr(model, name, None)
        fresh = [layer for layer in started_from["reinitialised"] if hasattr(part, layer)]
        if fresh:
            raise ValueError(
                f"--freeze {name} would keep random weights: {', '.join(fresh)} of it start anew, "
                "since the classes are not those of the detector given"
            )


def build_optimizer(config: TrainConfig, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """The optimizer with warm-up and drops; the drops are fractions of all updates."""
    schedule, own = config.schedule, config.optimizer
    total = steps_per_epoch * schedule.epochs // schedule.accumulate
    if total == 0:
        raise ValueError(f"--accumulate {schedule.accumulate} is more than all steps of the run")
    drops = sorted({max(1, int(fraction * total)) for fraction in drop_fractions(schedule.drops)})
    rate = WarmupMultiStep(
        schedule.learning_rate,
        warmup_steps=schedule.warmup_steps,
        warmup_factor=schedule.warmup_factor,
        drops=drops,
    )
    factor = own.backbone_rate
    kind, momentum = {"sgd": (SGD, "momentum"), "adamw": (AdamW, "beta_1")}[own.name]
    return kind(
        rate,
        weight_decay=own.weight_decay,
        global_clipnorm=own.clip_norm or None,
        gradient_accumulation_steps=schedule.accumulate if schedule.accumulate > 1 else None,
        use_ema=own.ema > 0,
        ema_momentum=own.ema or 0.99,
        average_from=total - round(own.average_last * total) if own.average_last else None,
        rate_multipliers=None if factor is None else {"backbone": factor},
        **{momentum: own.momentum},
    )
