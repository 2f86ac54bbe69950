"""From a config to the devices of a run, its detector, and the optimizer."""

import contextlib
import hashlib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import keras

from libra_keras import models
from libra_keras.data import DetectionData, InputPolicy
from libra_keras.devices import (
    Cluster,
    Devices,
    devices_of,
    devices_of_machine,
    leave_gpus,
)
from libra_keras.layers import ImageNormalization, MultilevelROIAlign
from libra_keras.models.constructors.converted import (
    converted_backbone,
    is_converted,
    load_backbone,
)
from libra_keras.models.constructors.parts import network_of, resnet, small_backbone
from libra_keras.models.fine_tuning import freeze
from libra_keras.models.rebuilding import (
    changed,
    config_with_batch_norm,
    config_with_classes,
    config_with_policy,
    config_with_sampling_ratio,
    rebuilt,
    reheaded_layers,
)
from libra_keras.models.saved import load_detector, located, published
from libra_keras.runs.config import DeviceConfig, ModelConfig, TrainConfig, flag, settings
from libra_keras.runs.defaults import drop_fractions
from libra_keras.runs.parts import with_parts
from libra_keras.runs.usual import optimizer_of
from libra_keras.training import WarmupMultiStep

# Options of a ResNet and of the second stage; a small model's constructor chooses these itself.
CHOSEN = ("backbone_weights", "backbone_style", "train_affine", "frozen_stages", "sampling_ratio")
NAMED = 3  # classes that the line about the start names


def chosen_devices(config: DeviceConfig, model: keras.Model | None = None) -> Devices:
    """Returns the devices that a run asks for, to be entered before anything is built."""
    if model is not None:
        return devices_of(model)
    if config.cluster:
        return Cluster()
    count: Any = config.count  # a number, "all" or `None`: this has been checked
    if count != "all":
        leave_gpus(count or 1)
    return devices_of_machine(count)


def check_batch(batch: int, devices: Devices) -> None:
    """Checks that devices can share a batch evenly, and prints which they are."""
    if batch % devices.num:
        raise ValueError(
            f"--batch {batch} cannot be split evenly over {devices.num} devices. It is the "
            "number of images per step over all of them"
        )
    if devices.num > 1:
        each = batch // devices.num
        names = ", ".join(devices.names)
        print(f"{devices.num} devices, {each} images of every batch on each: {names}", flush=True)


def build(
    config: TrainConfig, data: DetectionData, batch_norm: str, given: keras.Model | None = None
) -> tuple[keras.Model, dict[str, Any] | None]:
    """Builds the detector of a run, with the requested parts frozen, and returns it with the record
    of what it started from, or `None`."""
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
    """Layers that are made within this context get a dtype policy; `None` changes nothing."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision or before)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def build_model(
    config: TrainConfig, data: DetectionData, batch_norm: str = "trainable"
) -> keras.Model:
    """Builds the named detector for the classes of `data`; `batch_norm` is that of a backbone
    without initial weights."""
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
            f"{own.name} has its own backbone; {', '.join(given)} require a model of the resnet "
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
        raise ValueError(f"--sampling-ratio requires a second stage, which {own.name} lacks")
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
            "Keras has no ImageNet weights for a ResNeXt. Name a file with --backbone-weights, "
            "or start from random weights with --backbone-weights none"
        )
    parts = _plain_backbone(network, style="pytorch", **arguments)
    load_backbone(parts["backbone"], weights)
    return parts


def build_initial(
    config: TrainConfig, data: DetectionData, batch_norm: str = "trainable"
) -> tuple[keras.Model, dict[str, Any]]:
    """Builds the detector of `init` for the classes of `data`, and returns it with its record;
    `batch_norm` is what a trained one becomes."""
    init = config.model.init
    found = load_detector(init)
    saved = config_with_classes(found, data.class_names)
    saved = _with_options(found, config_with_batch_norm(saved, batch_norm), config)
    fresh = reheaded_layers(found, data.class_names)
    model = rebuilt(found, saved, fresh)
    model.trained_steps.assign(0)  # of this training, which decide what is sampled
    print(_line(init, found, data, fresh))
    return model, _record(init, found, fresh)


def _with_options(detector, saved, config):
    """The saved config of a detector with the options that may change it."""
    own = config.model
    changes = {
        "backbone": {"frozen_stages": own.frozen_stages, "train_affine": own.train_affine},
        "input_policy": {"short_side": own.short_side, "long_side": own.long_side},
    }
    saved = {**saved, "seed": config.run.seed}
    if own.precision:
        saved = config_with_policy(saved, own.precision, old=detector.dtype_policy.name)
    for part, values in changes.items():
        given = {name: value for name, value in values.items() if value is not None}
        unknown = [name for name in given if name not in saved[part]["config"]]
        if unknown:
            raise ValueError(
                f"{flag(unknown[0])} requires a ResNet; the backbone of {own.init} "
                f"is a {type(detector.backbone).__name__}"
            )
        saved[part] = changed(saved[part], **given)
    return saved if own.sampling_ratio is None else _with_ratio(detector, saved, own.sampling_ratio)


def _with_ratio(detector, saved, ratio):
    if "box_head" not in saved:
        raise ValueError(
            f"--sampling-ratio requires a second stage, which a {type(detector).__name__} lacks"
        )
    return config_with_sampling_ratio(saved, ratio)


def _line(path, found, data, fresh):
    if fresh:
        new = f"re-initialised for {_number(data.num_classes)}: {', '.join(fresh)}"
    else:
        new = "all weights kept"
    return f"Started from {path} ({_classes(found)}); {new}"


def _classes(found):
    if isinstance(found, models.RegionProposalNetwork):
        return "boxes of any class"
    names = found.class_names
    if names is None:
        return f"{_number(found.num_classes)} without names"
    more = ", ..." if len(names) > NAMED else ""
    return f"{_number(len(names))}: {', '.join(names[:NAMED])}{more}"


def _number(count):
    return "1 class" if count == 1 else f"{count} classes"


def _record(source, found, fresh):
    name = {"preset": str(source)} if published(source) else {}
    path = located(source)
    weights = path / "last.weights.h5" if path.is_dir() else path
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        **name,
        "path": str(path),
        "weights": weights.name,
        "sha256": digest,
        "class_names": found.class_names,
        "reinitialised": list(fresh),
    }


def check_frozen(
    names: tuple[str, ...],
    started_from: Mapping[str, Any] | None,
    model: keras.Model,
    backbone_weights: str | None = None,
) -> None:
    """Checks that no part that is to be frozen would stay random."""
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
                f"--freeze {name} would keep random weights: its {', '.join(fresh)} are "
                "re-initialised, since the classes are not those of the given detector"
            )


def build_optimizer(config: TrainConfig, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """The optimizer with warm-up and drops; the drops are fractions of all updates."""
    schedule, own = config.schedule, config.optimizer
    total = steps_per_epoch * schedule.epochs // schedule.accumulate
    if total == 0:
        raise ValueError(f"--accumulate {schedule.accumulate} exceeds all steps of the run")
    drops = sorted({max(1, int(fraction * total)) for fraction in drop_fractions(schedule.drops)})
    rate = WarmupMultiStep(
        schedule.learning_rate,
        warmup_steps=schedule.warmup_steps,
        warmup_factor=schedule.warmup_factor,
        drops=drops,
    )
    factor = own.backbone_rate
    return optimizer_of(
        own,
        rate,
        gradient_accumulation_steps=schedule.accumulate if schedule.accumulate > 1 else None,
        use_ema=own.ema > 0,
        ema_momentum=own.ema or 0.99,
        average_from=total - round(own.average_last * total) if own.average_last else None,
        rate_multipliers=None if factor is None else {"backbone": factor},
    )
