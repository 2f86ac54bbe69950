"""From the options of `libra-keras train` to a model and its optimizer."""

import inspect

from libra_keras import models
from libra_keras.cli.defaults import drop_fractions
from libra_keras.data import InputPolicy
from libra_keras.layers import ImageNormalization, MultilevelROIAlign
from libra_keras.models.constructors.converted import converted_backbone, is_converted
from libra_keras.models.constructors.parts import network_of, resnet, small_backbone
from libra_keras.training import SGD, AdamW, WarmupMultiStep


def build_model(options, data, batch_norm="trainable"):
    """Builds the detector for the classes of `data`.

    Args:
        options: namespace of `libra-keras train`, resolved.
        data: `DetectionData`.
        batch_norm: `"trainable"`, or `"synchronized"` for several devices: of a backbone that has
            not weights to begin with.

    Raises:
        ValueError: if options of the backbone are given for a small model, whose constructor
            chooses its own, or those of RoIAlign for a model without a second stage.
    """
    constructor = getattr(models, options.model)
    arguments = {
        "input_policy": InputPolicy(options.short_side, options.long_side),
        "seed": options.seed,
    }
    if network_of(options.model):
        arguments |= _backbone(options, batch_norm)
    elif _backbone_options(options):
        raise ValueError(
            f"{options.model} has a backbone of its own; {', '.join(_backbone_options(options))} "
            "need a model of the resnet family"
        )
    else:
        arguments["backbone"] = small_backbone(batch_norm)
    takes = inspect.signature(constructor).parameters
    if "num_classes" in takes:  # region proposal networks know no classes
        arguments |= {"num_classes": data.num_classes, "class_names": list(data.class_names)}
    return constructor(**arguments)


def _backbone_options(options):
    given = {
        "--backbone-weights": options.backbone_weights not in ("none", None),
        "--backbone-style": options.backbone_style is not None,
        "--train-affine": options.train_affine is not None,
        "--frozen-stages": options.frozen_stages is not None,
        "--sampling-ratio": options.sampling_ratio is not None,
    }
    return [name for name, is_given in given.items() if is_given]


def _backbone(options, batch_norm):
    """A ResNet or ResNeXt, the normalisation that its weights were trained with, and RoIAlign."""
    weights = None if options.backbone_weights == "none" else options.backbone_weights
    frozen_stages = options.frozen_stages
    if frozen_stages is None:
        frozen_stages = 1 if weights else -1  # random features must not be frozen
    training = {
        "batch_norm": "frozen" if weights else batch_norm,
        "train_affine": options.train_affine is not False,
        "frozen_stages": frozen_stages,
    }
    network = network_of(options.model)
    if is_converted(weights):
        parts = converted_backbone(weights, network, options.backbone_style, **training)
    else:
        style = options.backbone_style or ("caffe" if weights else "pytorch")
        parts = _plain_backbone(network, style=style, weights=weights, **training)
    ratio = options.sampling_ratio
    if "rcnn" in options.model:
        parts["roi_align"] = MultilevelROIAlign(sampling_ratio=2 if ratio is None else ratio)
    elif ratio is not None:
        raise ValueError(f"--sampling-ratio is of the second stage, which {options.model} has not")
    return parts


def _plain_backbone(network, style, **options):
    """With random weights, or those of `keras.applications`."""
    caffe = style == "caffe"
    normalization = ImageNormalization.caffe_style if caffe else ImageNormalization.torch_style
    return {
        "backbone": resnet(network, style=style, **options),
        "normalization": normalization(),
    }


def build_optimizer(options, steps_per_epoch):
    """The optimizer with warm-up and drops; the drops are fractions of all updates."""
    total = steps_per_epoch * options.epochs // options.accumulate
    if total == 0:
        raise ValueError(f"--accumulate {options.accumulate} is more than all steps of the run")
    drops = sorted({max(1, int(fraction * total)) for fraction in drop_fractions(options.drops)})
    schedule = WarmupMultiStep(
        options.learning_rate,
        warmup_steps=options.warmup_steps,
        warmup_factor=options.warmup_factor,
        drops=drops,
    )
    rate = options.backbone_rate
    kind, momentum = {"sgd": (SGD, "momentum"), "adamw": (AdamW, "beta_1")}[options.optimizer]
    return kind(
        schedule,
        weight_decay=options.weight_decay,
        global_clipnorm=options.clip_norm or None,
        gradient_accumulation_steps=options.accumulate if options.accumulate > 1 else None,
        use_ema=options.ema > 0,
        ema_momentum=options.ema or 0.99,
        rate_multipliers=None if rate is None else {"backbone": rate},
        **{momentum: options.momentum},
    )
