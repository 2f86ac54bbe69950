"""What `config.json` says of a run."""

from typing import Any

import keras

from libra_keras.data import DetectionData
from libra_keras.runs import machine
from libra_keras.runs.config import TrainConfig, settings
from libra_keras.runs.defaults import rate_scaled_from


def record_of(
    config: TrainConfig, train: DetectionData, val: DetectionData, model: keras.Model, steps: int
) -> dict[str, Any]:
    """Returns everything that is needed to understand and repeat a run.

    Args:
        config: `TrainConfig`, resolved.
        train, val: `DetectionData`.
        model: detector.
        steps: steps of an epoch.
    """
    return {
        "config": config.to_dict(),
        "settings": {**settings(config), "rate_scaled_from": rate_scaled_from(config)},
        "device": machine.describe(),
        "steps_per_epoch": steps,
        "train": train.summary(),
        "val": val.summary(),
        "class_names": list(train.class_names),
        "input_policy": model.input_policy.get_config(),
        "parameters": model.count_params(),
        "dtype_policy": model.dtype_policy.name,
    }
