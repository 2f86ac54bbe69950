"""What of a config cannot be: values out of range, and those that contradict each other."""

from pathlib import Path

from libra_keras.runs.config import TrainConfig, settings

BACKBONE = ("backbone_weights", "backbone_style")  # what a detector that is there has already


def flag(name: str) -> str:
    """Returns how an option is written on the command line.

    Example:

    >>> from libra_keras.runs.checks import flag
    >>> flag("learning_rate")
    '--learning-rate'
    """
    return f"--{name.replace('_', '-')}"


def check_start(config: TrainConfig, recorded: str | None) -> None:
    """Checks what is said beside `init`.

    Args:
        config: `TrainConfig` with an `init`.
        recorded: name of the detector that is there, or `None` if it says none.

    Raises:
        ValueError: if an option contradicts the detector that is there.
    """
    name, found = config.model.name, settings(config)
    given = [flag(each) for each in BACKBONE if found[each] is not None]
    if given:
        raise ValueError(f"--init brings its own backbone; leave {' and '.join(given)} away")
    if config.model.neck:
        raise ValueError(f"--init brings its own neck; leave --neck {config.model.neck} away")
    if name and name != recorded:
        holds = f"is a {recorded}" if recorded else "does not say which model it is"
        raise ValueError(f"{config.model.init} {holds}; leave --model {name} away")


def check_given(config: TrainConfig) -> None:
    """Checks what is said beside a detector that is given, which is trained as it is.

    Raises:
        ValueError: if an option would build another detector, or on other devices.
    """
    given = [
        f"{group}.{field.name}"
        for _, group, field in config.options()
        if (group == "model" and field.name != "freeze") or group == "devices"
        if getattr(getattr(config, group), field.name) not in (None, False)
    ]
    if given:
        raise ValueError(f"The model given is trained as it is; leave {' and '.join(given)} away")


def check_optimizer(config: TrainConfig, defaults: TrainConfig) -> None:
    """The rate and the decay of one optimizer are not those of another.

    Raises:
        ValueError: if another optimizer than the family's comes without its own.
    """
    if config.optimizer.name in (None, defaults.optimizer.name):
        return
    found = settings(config)
    missing = [flag(n) for n in ("learning_rate", "weight_decay") if found[n] is None]
    if missing:
        raise ValueError(
            f"--optimizer {config.optimizer.name} needs {' and '.join(missing)} too: the defaults "
            f"of this detector are for {defaults.optimizer.name}"
        )


def check_ranges(config: TrainConfig) -> None:
    """Checks the numbers of a config that is filled.

    Raises:
        ValueError: if one is out of range.
    """
    schedule, optimizer = config.schedule, config.optimizer
    steps = 1 if schedule.steps is None else schedule.steps
    if min(schedule.batch, schedule.epochs, schedule.accumulate, steps) < 1:
        raise ValueError("--batch, --epochs, --accumulate and --steps must be at least 1")
    if config.model.max_detections is not None and config.model.max_detections < 1:
        raise ValueError(f"--max-detections must be at least 1, not {config.model.max_detections}")
    if schedule.eval_every < 0:
        raise ValueError("--eval-every must be a number of epochs, or 0")
    if not optimizer.clip_norm >= 0:
        raise ValueError(f"--clip-norm must not be negative. Received: {optimizer.clip_norm:g}")
    if not 0 <= optimizer.ema < 1:
        raise ValueError(f"--ema must lie in [0, 1). Received: {optimizer.ema:g}")
    if not 0 <= optimizer.average_last < 1:
        raise ValueError(f"--average-last must lie in [0, 1). Received: {optimizer.average_last:g}")
    if optimizer.ema and optimizer.average_last:
        raise ValueError("--ema and --average-last are two averages; leave one of them away")
    if config.run.save_every < 0:
        raise ValueError("--save-every must be a number of steps, or 0")
    if isinstance(config.devices.count, str) and config.devices.count != "all":
        raise ValueError(f"--devices must be a number or all. Received: {config.devices.count!r}")
    if config.devices.cluster and config.devices.count is not None:
        raise ValueError("--cluster takes all devices of every machine; leave --devices away")
    _check_backbone_rate(config)
    _check_cache(config.data.cache, config.run.folder)


def _check_backbone_rate(config):
    rate = config.optimizer.backbone_rate
    if rate is None:
        return
    if "backbone" in config.model.freeze:
        raise ValueError("--backbone-rate is of a backbone that learns, and --freeze names it")
    if not rate >= 0:
        raise ValueError(f"--backbone-rate must not be negative, not {rate}")


def _check_cache(cache, folder):
    """The run folder is to be empty at first."""
    if cache and folder and Path(cache).resolve().is_relative_to(Path(folder).resolve()):
        raise ValueError(f"--cache must not lie in the run folder {folder}. Received: {cache}")
