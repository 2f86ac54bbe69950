"""What a config becomes: defaults for what is not set, and what is refused."""

import re
from fractions import Fraction
from pathlib import Path
from typing import Any

from libra_keras.runs.config import (
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
    flag,
    settings,
)
from libra_keras.runs.fields import unknown_name
from libra_keras.runs.groups import SCHEDULES
from libra_keras.runs.precision import policy_of

# No powers of ten: `Fraction("1e99999999")` takes minutes.
FRACTION = re.compile(r"\s*(0?\.\d{1,20}|\d{1,9}/0*[1-9]\d{0,8})\s*")
DEFAULT_MODEL = "libra_faster_rcnn_small"

# The main job: a few minutes on two CPU cores.
SMALL = TrainConfig(
    model=ModelConfig(backbone_weights="none", short_side=320, long_side=320),
    schedule=ScheduleConfig(
        batch=4,
        epochs=2,
        learning_rate=0.002,
        warmup_steps=50,
        warmup_factor=0.01,
        drops="8/12,11/12",
    ),
    optimizer=OptimizerConfig("adamw", weight_decay=0.01, clip_norm=10.0),
)
# The schedule "1x" of the reference: 0.02 for 16 images, 12 epochs.
RESNET = TrainConfig(
    model=ModelConfig(backbone_weights="imagenet", short_side=800, long_side=1333),
    schedule=ScheduleConfig(
        batch=2,
        epochs=12,
        learning_rate=0.0025,
        warmup_steps=500,
        warmup_factor=0.001,
        drops="8/12,11/12",
    ),
    optimizer=OptimizerConfig("sgd", weight_decay=1e-4, clip_norm=0.0),
)
# One stage has half the rate: 0.01 for 16 images.
RETINANET = RESNET.replace(schedule={"learning_rate": 0.00125})
FAMILIES = (SMALL, RESNET, RETINANET)
# What an existing detector brings along: these defaults of its family do not apply.
BROUGHT_ALONG = ("backbone_weights", "short_side", "long_side")
BACKBONE = ("backbone_weights", "backbone_style")  # what an existing detector has already


def resolve(config: TrainConfig, model: Any = None) -> TrainConfig:
    """Fills in what is not set with the defaults of the detector's family.

    It reads what `config.model.init` names. A resolved config is returned unchanged. The precision
    `"auto"` becomes what pays off on this machine, which starts the backend.

    Args:
        config: `TrainConfig`.
        model: detector to train instead of building one, or `None`.

    Returns:
        `TrainConfig`; what an existing detector brings along stays `None`.

    Raises:
        ValueError: if a value is out of range, or two contradict each other.

    Example:

    >>> from libra_keras.runs import ScheduleConfig, TrainConfig, resolve
    >>> config = resolve(TrainConfig(schedule=ScheduleConfig(batch=8)))
    >>> config.model.name, config.schedule.learning_rate  # 0.002 for 4 images
    ('libra_faster_rcnn_small', 0.004)
    """
    config = with_defaults(config, model)
    return config.replace(model={"precision": policy_of(config.model.precision)})


def with_defaults(config: TrainConfig, model: Any = None) -> TrainConfig:
    """Does what `resolve` does, but leaves the precision `auto`, which a run that continues has
    settled already."""
    config, defaults = _with_start(config, model)
    check_optimizer(config, defaults)
    config = _filled(_with_rate(_with_schedule(config), defaults), defaults)
    check_together(config)
    drop_fractions(config.schedule.drops)
    return config


def family(name: str) -> TrainConfig:
    """Returns the defaults of a named detector's family."""
    from libra_keras import models

    if name not in models.list():
        raise ValueError(
            f"--model {unknown_name(name, models.list())} libra-keras models lists them"
        )
    if name.endswith("_small"):
        return SMALL
    defaults = RETINANET if "retinanet" in name else RESNET
    weights = {"backbone_weights": "none"} if "resnext" in name else {}
    return defaults.replace(model=weights)


def usual_rate(config: TrainConfig) -> float | None:
    """Returns the default rate for the images per update; `None` if there is none."""
    if config.model.name is None:
        return None
    defaults = family(config.model.name)
    if config.optimizer.name != defaults.optimizer.name:
        return None
    return _scaled(config, defaults)


def rate_scaled_from(config: TrainConfig) -> str | None:
    """Says how the rate of a resolved config follows from the default; `None` if it does not."""
    defaults = _defaults_of(config)
    if defaults is None or config.optimizer.name != defaults.optimizer.name:
        return None
    usual, images = defaults.schedule, config.schedule.batch * config.schedule.accumulate
    if images == usual.batch or config.schedule.learning_rate != _scaled(config, defaults):
        return None
    return f"{usual.learning_rate:g} x {images}/{usual.batch} images"


def drop_fractions(text: str) -> list[Fraction]:
    """Parses `"8/12,11/12"` or `"0.7"`; `"none"` and `""` are no drops."""
    parts = [] if text in ("none", "") else text.split(",")
    fractions = [Fraction(part.strip()) for part in parts if FRACTION.fullmatch(part)]
    if len(fractions) < len(parts) or not all(0 < fraction < 1 for fraction in fractions):
        raise ValueError(
            "--drops must be fractions of the run, between 0 and 1, such as 8/12,11/12. "
            f"Received: {text!r:.80}"
        )
    return sorted(fractions)


def default_texts() -> dict[str, str]:
    """Returns the defaults of each option in all families, those of small models first."""
    texts = {}
    for name, group, field in TrainConfig().options():
        found = [getattr(getattr(each, group), field.name) for each in FAMILIES]
        texts[name] = " | ".join(dict.fromkeys(map(str, found)))
    return texts


def _with_start(config, model):
    """The config with the name of what it starts from, and the defaults that apply."""
    if model is not None:
        check_given(config)
        return config, _of_kind(type(model).__name__)
    if config.model.init is None:
        name = config.model.name or DEFAULT_MODEL
        return config.replace(model={"name": name}), family(name)
    from libra_keras.models.saved import located, recorded_model

    recorded = recorded_model(config.model.init)
    if recorded is None:
        located(config.model.init)  # says so if there is nothing, before data are read
    check_start(config, recorded)
    config = config.replace(model={"name": recorded})
    return config, _defaults_of(config).replace(model=dict.fromkeys(BROUGHT_ALONG))


def _defaults_of(config):
    """The defaults of what a config starts from; `None` for a detector that was given."""
    if config.model.name:
        return family(config.model.name)
    if config.model.init is None:
        return None
    from libra_keras.models.saved import kind_of

    return _of_kind(kind_of(config.model.init))


def _of_kind(kind):
    defaults = RETINANET if kind == "RetinaNet" else RESNET
    return defaults.replace(model=dict.fromkeys(BROUGHT_ALONG))


def _with_schedule(config):
    """`schedule` sets epochs and drops; both may be those that it sets, in a resolved config."""
    name = config.schedule.schedule
    if name is None:
        return config
    sets = dict(zip(("epochs", "drops"), SCHEDULES[name], strict=True))
    given = [f"--{each}" for each in sets if getattr(config.schedule, each) is not None]
    if any(getattr(config.schedule, each) not in (None, value) for each, value in sets.items()):
        raise ValueError(f"--schedule sets --epochs and --drops; omit {' and '.join(given)}")
    return config.replace(schedule=sets)


def _with_rate(config, defaults):
    if config.schedule.learning_rate is not None:
        return config
    return config.replace(schedule={"learning_rate": _scaled(config, defaults)})


def _scaled(config, defaults):
    """The default rate in proportion to the images per update."""
    usual = defaults.schedule
    images = (config.schedule.batch or usual.batch) * config.schedule.accumulate
    if images == usual.batch:
        return usual.learning_rate
    return usual.learning_rate * images / usual.batch


def _filled(config, defaults):
    """The config with what it does not set taken from another one."""
    changes = {}
    for _, group, field in config.options():
        value = getattr(getattr(defaults, group), field.name)
        if getattr(getattr(config, group), field.name) is None and value is not None:
            changes.setdefault(group, {})[field.name] = value
    return config.replace(**changes)


def check_start(config: TrainConfig, recorded: str | None) -> None:
    """Checks what is set along with `init`."""
    name, found = config.model.name, settings(config)
    given = [flag(each) for each in BACKBONE if found[each] is not None]
    if given:
        raise ValueError(f"--init brings its own backbone; omit {' and '.join(given)}")
    if config.model.neck:
        raise ValueError(f"--init brings its own neck; omit --neck {config.model.neck}")
    if name and name != recorded:
        holds = f"is a {recorded}" if recorded else "does not record which model it is"
        raise ValueError(f"{config.model.init} {holds}; omit --model {name}")


def check_given(config: TrainConfig) -> None:
    """Checks what is set along with a given detector, which is trained as it is."""
    values = {
        f"{group}.{field.name}": getattr(getattr(config, group), field.name)
        for _, group, field in config.options()
        if (group == "model" and field.name != "freeze") or group == "devices"
    }
    given = [name for name, v in values.items() if v is not None and v is not False]  # 0 is said
    if given:
        raise ValueError(f"The given model is trained as it is; omit {' and '.join(given)}")


def check_optimizer(config: TrainConfig, defaults: TrainConfig) -> None:
    """The rate and the decay of one optimizer are not those of another."""
    if config.optimizer.name in (None, defaults.optimizer.name):
        return
    found = settings(config)
    missing = [flag(n) for n in ("learning_rate", "weight_decay") if found[n] is None]
    if missing:
        raise ValueError(
            f"--optimizer {config.optimizer.name} requires {' and '.join(missing)}: the defaults "
            f"of this detector are for {defaults.optimizer.name}"
        )


def check_together(config: TrainConfig) -> None:
    """Checks that the values of a filled config are consistent."""
    own, optimizer = config.model, config.optimizer
    if own.short_side and own.long_side and own.short_side > own.long_side:
        raise ValueError(
            f"--short-side {own.short_side} must not exceed --long-side {own.long_side}"
        )
    _check_early_stop(config)
    if optimizer.ema and optimizer.average_last:
        raise ValueError("--ema and --average-last exclude each other; omit one of them")
    if config.devices.cluster and config.devices.count is not None:
        raise ValueError("--cluster takes all devices of every machine; omit --devices")
    _check_backbone_rate(config)
    _check_cache(config.data.cache, config.run.folder)


def _check_early_stop(config):
    own = config.schedule
    if own.early_stop and not own.eval_every:
        raise ValueError(
            "--early-stop compares evaluations, but --eval-every 0 makes only one, at the end"
        )
    if own.early_stop and config.devices.cluster:
        raise ValueError("--early-stop cannot be used in a cluster: the other workers would wait")


def _check_backbone_rate(config):
    if config.optimizer.backbone_rate is not None and "backbone" in config.model.freeze:
        raise ValueError("--backbone-rate requires a backbone that learns, but --freeze names it")


def _check_cache(cache, folder):
    """The run folder must be empty at first."""
    if cache and folder and Path(cache).resolve().is_relative_to(Path(folder).resolve()):
        raise ValueError(f"--cache must not lie in the run folder {folder}. Received: {cache}")
