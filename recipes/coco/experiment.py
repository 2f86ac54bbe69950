"""What the experiments of this folder share: the data, and the options that change a config."""

import argparse

import keras

from libra_keras import runs
from libra_keras.runs.defaults import drop_fractions
from libra_keras.runs.fields import reader
from libra_keras.runs.groups import SCHEDULES

# The reference learns from no image without a box.
TRAIN2017 = runs.DataConfig(train_split="train2017", val_split="val2017", drop_empty=True)
OPTIONS = (
    *("to", "overwrite", "batch", "backbone_weights", "train_split", "val_split", "steps"),
    *("epochs", "eval_every", "seed", "skip_bad", "precision"),
)


def main(config, description):
    """Runs an experiment from the command line, on all devices of this machine.

    Args:
        config: `TrainConfig`.
        description: str, the text of `--help`.

    Returns:
        The exit status.
    """
    try:
        runs.train(given(config, description))
    except runs.Stopped as stop:
        return stop.status
    except runs.NonFiniteLoss:
        return 1
    return 0


def given(config, description):
    """Returns the config with what the command line says."""
    options = vars(_parser(config, description).parse_args())
    groups = {"data": {"source": options.pop("coco")}}
    for name, value in options.items():
        group, _, field = name.partition(".")
        groups.setdefault(group, {})[field] = value
    if keras.backend.backend() != "torch":  # with which Keras trains on one device
        groups["devices"] = {"count": "all"}
    epochs = groups.get("schedule", {}).pop("epochs", None)
    config = config.replace(**groups)
    return config if epochs is None else shortened(config, epochs)


def shortened(config, epochs):
    """A run of other epochs: its rate drops after the same epochs as that of the schedule."""
    usual, drops = SCHEDULES[config.schedule.schedule]
    drops = [fraction * usual for fraction in drop_fractions(drops)]
    text = ",".join(f"{drop}/{epochs}" for drop in drops if drop < epochs) or "none"
    return config.replace(schedule={"schedule": None, "epochs": epochs, "drops": text})


def _parser(config, description):
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("coco", help="folder with annotations/, train2017/ and val2017/")
    for name, group, field in config.options():
        if name in OPTIONS:
            kind = reader(field)
            reading = {"action": "store_true"} if kind is bool else {"type": kind}
            option, dest = f"--{name.replace('_', '-')}", f"{group}.{field.name}"
            own = getattr(getattr(config, group), field.name)
            text = f"as in libra-keras train; here {own}" if own else "as in libra-keras train"
            parser.add_argument(option, dest=dest, required=name == "to", help=text, **reading)
    return parser
