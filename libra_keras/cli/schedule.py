"""Options of `libra-keras train` about updates: how many, how large, and from what."""

import dataclasses

from libra_keras.cli.defaults import DEFAULTS, SCHEDULES, drop_fractions

_NUMBERS = {
    "batch": int,
    "epochs": int,
    "learning_rate": float,
    "momentum": float,
    "weight_decay": float,
    "warmup_steps": int,
    "warmup_factor": float,
    "drops": str,
    "clip_norm": float,
    "flip": float,
    "eval_every": int,
}
_NOTES = {
    "batch": "images of a step, over all devices; ",
    "momentum": "of SGD, or the first beta of AdamW; ",
    "learning_rate": "for the default batch; scaled in proportion to another number of images an "
    "update; ",
    "drops": "divide the rate by 10 after these fractions of the run, or 'none'; ",
    "clip_norm": "of the whole gradient, 0 does not clip; ",
    "flip": "probability; ",
    "eval_every": "epochs; 0 evaluates at the end only; ",
}
MUCH = 0.05  # of the first weights in the averages: then the run is short for such a momentum


def add_arguments(group):
    """Adds the options; what is `None` by default comes from `DEFAULTS`."""
    group.add_argument(
        "--schedule",
        choices=tuple(SCHEDULES),
        help="12 epochs with drops after 8 and 11, or twice that; instead of --epochs and --drops",
    )
    group.add_argument("--optimizer", choices=("sgd", "adamw"), help=default_text("optimizer"))
    for name, kind in _NUMBERS.items():
        option = f"--{name.replace('_', '-')}"
        group.add_argument(option, type=kind, metavar="N", help=default_text(name))
    group.add_argument("--steps", type=int, metavar="N", help="at most so many steps per epoch")
    group.add_argument(
        "--accumulate",
        type=int,
        default=1,
        metavar="K",
        help="steps to an update, which takes the mean of their losses; each loss is divided by "
        "the boxes sampled in its own step, as that of one large batch is not. Rate, warm-up and "
        "drops go by updates; steps at the end that fill none are lost. Default 1",
    )
    group.add_argument(
        "--ema",
        type=float,
        default=0.0,
        metavar="MOMENTUM",
        help="average the weights over updates, such as 0.999; the averages are measured and "
        "saved. Default 0: do not",
    )
    group.add_argument("--seed", type=int, default=0, metavar="N", help="of everything; default 0")


def default_text(name):
    """The help of an option with its defaults, those of small models first.

    Example:

    >>> from libra_keras.cli.schedule import default_text
    >>> default_text("flip")
    'probability; default: 0.5'
    """
    values = dict.fromkeys(str(getattr(defaults, name)) for defaults in DEFAULTS.values())
    return _NOTES.get(name, "") + "default: " + " | ".join(values)


def resolve(options, defaults, brought=()):
    """Fills options that were not given, in place.

    Args:
        options: namespace of `libra-keras train`; it gets `rate_scaled_from`, a text or `None`.
        defaults: `TrainDefaults`.
        brought: names of the defaults that do not apply.

    Raises:
        ValueError: if options are out of range, or contradict each other.
    """
    _expand_schedule(options)
    _check_optimizer(options, defaults)
    images = (options.batch or defaults.batch) * options.accumulate
    options.rate_scaled_from = None
    if options.learning_rate is None and images != defaults.batch:
        options.learning_rate = defaults.learning_rate * images / defaults.batch
        options.rate_scaled_from = f"{defaults.learning_rate:g} x {images}/{defaults.batch} images"
    for field in dataclasses.fields(defaults):
        if getattr(options, field.name) is None and field.name not in brought:
            setattr(options, field.name, getattr(defaults, field.name))
    steps = 1 if options.steps is None else options.steps
    if min(options.batch, options.epochs, options.accumulate, steps) < 1:
        raise ValueError("--batch, --epochs, --accumulate and --steps must be at least 1")
    if options.eval_every < 0:
        raise ValueError("--eval-every must be a number of epochs, or 0")
    if not options.clip_norm >= 0:
        raise ValueError(f"--clip-norm must not be negative. Received: {options.clip_norm:g}")
    if not 0 <= options.ema < 1:
        raise ValueError(f"--ema must lie in [0, 1). Received: {options.ema:g}")
    drop_fractions(options.drops)


def _check_optimizer(options, defaults):
    """The rate and the decay of one optimizer are not those of another."""
    if options.optimizer in (None, defaults.optimizer):
        return
    names = ("learning_rate", "weight_decay")
    missing = [f"--{n.replace('_', '-')}" for n in names if getattr(options, n) is None]
    if missing:
        raise ValueError(
            f"--optimizer {options.optimizer} needs {' and '.join(missing)} too: the defaults of "
            f"this detector are for {defaults.optimizer}"
        )


def _expand_schedule(options):
    if options.schedule is None:
        return
    given = [f"--{name}" for name in ("epochs", "drops") if getattr(options, name) is not None]
    if given:
        raise ValueError(f"--schedule sets --epochs and --drops; leave {' and '.join(given)} away")
    options.epochs, options.drops = SCHEDULES[options.schedule]


def describe(options, steps):
    """Says in one line how the run is going to learn.

    Args:
        options: namespace, resolved.
        steps: int, steps of an epoch.

    Example:

    >>> import argparse
    >>> from libra_keras.cli.schedule import describe
    >>> print(describe(argparse.Namespace(
    ...     epochs=12, batch=4, accumulate=2, learning_rate=0.01, ema=0.0,
    ...     rate_scaled_from="0.0025 x 8/2 images",
    ... ), steps=500))
    12 epochs of 500 steps of 4 images, an update every 2 steps, learning rate 0.01 = 0.0025 x 8/2 \
images
    """
    text = f"{options.epochs} epochs of {steps} steps of {options.batch} images"
    if options.accumulate > 1:
        text += f", an update every {options.accumulate} steps"
    text += f", learning rate {options.learning_rate:g}"
    if options.rate_scaled_from:
        text += f" = {options.rate_scaled_from}"
    left = options.ema ** (options.epochs * steps // options.accumulate - 1) if options.ema else 0
    if left >= MUCH:
        text += f", averages that are {left:.0%} the first update's weights at the end"
    return text
